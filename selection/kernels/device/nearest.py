"""The implementation of `nearest` for vectors on a device (see `tensor`)."""

from __future__ import annotations

import numpy as np

from selection.kernels.device.tensor import checked_squares, slices, square_distances, to_device
from selection.types import Array, DeviceVectors, Doubles


def begin(vectors: DeviceVectors, centre: Doubles, state: Array) -> float:
    """As the compiled `begin` for all rows: their exact distance to a float64 point; gives the largest norm.

    Raises:
        InvalidInput: a vector is not finite; names the row.
    """
    squares = checked_squares(vectors)
    point = to_device(centre[None], vectors)
    exact = np.empty(len(state))
    for at in slices(len(state), vectors.shape[1]):
        exact[at] = square_distances(vectors.part(at), point).cpu().numpy()
    wanted = state["bound"] > -np.inf
    state["bound"][wanted] = state["scale"][wanted] * exact[wanted]
    state["square"] = squares.cpu().numpy()
    state["rest"], state["near"], state["version"], state["exact"] = np.inf, 0, 1, 1
    return float(squares.max().sqrt())
