"""The implementation of `k_center` for vectors on a device (see `tensor`).

A GPU brings the bounds of all rows up to date at once, against every new centre, so no row has a version. The rows of a
phase then go to the host with the state that the compiled loops know, and are picked there.
"""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import nearest as loops
from selection.kernels.compiled.margin import distance_margin
from selection.kernels.device.tensor import Tensor, full_float32, slices, to_device
from selection.kernels.nearest import Nearest, largest
from selection.types import Array, DeviceVectors, Rows

# Centres that a row meets at once.
CENTRES_AT_ONCE = 1024


class Bounds:
    """The bounds of `Nearest`, of all rows and on the device.

    Memory there: 24 n bytes, the centres, a few tiles.
    """

    def __init__(self, vectors: DeviceVectors, known: Nearest) -> None:
        self.vectors, self.known = vectors, known
        self.bound, self.square, self.scale = (
            to_device(np.ascontiguousarray(known.state[name]), vectors) for name in ("bound", "square", "scale")
        )
        self.gamma = distance_margin(vectors.shape[1])
        self.centres = to_device(np.empty(known.centres.shape, np.float32), vectors)
        self.high = to_device(np.empty(len(known.centres), np.float32), vectors)
        self.seen = 0

    def refresh(self) -> None:
        """Lower the bounds to those of all centres there are by now."""
        known, count = self.known, self.known.count
        new = slice(self.seen, count)
        self.centres[new] = to_device(known.centres[new], self.vectors)
        self.high[new] = to_device(known.high[new], self.vectors)
        for start in range(self.seen, count, CENTRES_AT_ONCE):
            some = slice(start, min(start + CENTRES_AT_ONCE, count))
            for at in slices(len(self.bound), self.vectors.shape[1], some.stop - some.start):
                least = self._over(at, some).amin(dim=1)
                self.bound[at] = self.bound[at].minimum(self._bound(at, least))
        self.seen = count

    def largest(self, count: int) -> tuple[Rows, float, int]:
        """As `nearest.largest` of all bounds."""
        floor = float(self.bound.topk(count).values[-1]) if count < len(self.bound) else -np.inf
        candidates = (self.bound >= floor if floor > -np.inf else self.bound > floor).nonzero()[:, 0]
        rows = candidates.cpu().numpy()
        if floor == -np.inf or len(rows) == count:
            return rows, floor, -1
        places, _, out = largest(self.bound[candidates].cpu().numpy(), count)
        return rows[places], floor, int(rows[out])

    def state(self, rows: Rows) -> Array:
        """(b,) of `compiled.nearest.ROW`, over all centres seen."""
        device_rows = to_device(rows, self.vectors)
        state = np.zeros(len(rows), loops.ROW)
        all_centres = slice(0, self.seen)
        width = float(np.max(self.known.high[all_centres].astype(np.float64) - self.known.low[all_centres]))
        for at in slices(len(rows), self.vectors.shape[1], self.seen):
            over = self._over(device_rows[at], all_centres)
            two, near = over.topk(min(2, self.seen), dim=1, largest=False)
            bound = self.bound[device_rows[at]].minimum(self._bound(device_rows[at], two[:, 0]))
            # What lies under the others, whichever is the nearest of them.
            rest = self.square[device_rows[at]] * (1 - self.gamma) - loops.TINY + two[:, -1].double() - width
            for name, value in (("near", near[:, 0]), ("bound", bound), ("rest", rest)):
                state[name][at] = value.cpu().numpy()
            for name, values in (("square", self.square), ("scale", self.scale)):
                state[name][at] = values[device_rows[at]].cpu().numpy()
        state["version"] = self.seen
        # Nothing is nearer than the first centre of these, and of equals it is the earliest.
        at_first = self.known.state["bound"][rows] == 0
        state["near"][at_first], state["exact"][at_first] = 0, 1
        return state

    def put(self, rows: Rows, state: Array) -> None:
        """Take the bounds of some rows back."""
        bound = to_device(np.ascontiguousarray(state["bound"]), self.vectors)
        self.bound[to_device(rows, self.vectors)] = bound

    def _over(self, rows: Tensor, centres: slice) -> Tensor:
        """(rows, centres) float32: the squared length of a centre, its margin, less twice the product with a row."""
        X = self.vectors.part(rows).float()
        if self.known.unit != 1.0:
            X = X * self.known.unit
        with full_float32():
            return self.high[centres] - 2 * (X @ self.centres[centres].T)

    def _bound(self, rows: Tensor, over: Tensor) -> Tensor:
        """(rows,) float64, as the compiled `start_row` and `meet` have it."""
        return self.scale[rows] * (self.square[rows] * (1 + self.gamma) + loops.TINY + over.double())
