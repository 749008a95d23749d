"""The compiled loops behind `density`."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import square_distance


@compiled
def closeness_sums(X, scale, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """(n,) int64: what rows start .. stop-1 and the rows after them add to each other's sums, in units of 1 / scale."""
    total = np.zeros(X.shape[0], np.int64)
    for j in range(start, X.shape[0]):
        for i in range(start, min(j + 1, stop)):
            term = np.int64(np.rint(scale / (1.0 + np.sqrt(square_distance(X[i], X[j])))))
            total[i] += term
            if i < j:
                total[j] += term
    return total
