"""How far an inner product in float32 may be off: what coarse arithmetic rules out, and what it has to leave open.

With u = 2**-24, the float32 product s of two rows of d features satisfies

    |s - x.y| <= g |x| |y|,   g = d u / (1 - d u)

for any order of summation (Higham 2002, section 3.1), hence for any tiling of a matrix product on any processor or
device. Two things come on top. Inputs and products below the smallest normal number, 2**-126, may be flushed to zero,
which costs at most d 2**-126 (1 + |x| + |y|). And near the end of float32's range a partial sum may overflow: then
nothing is known.

A squared distance |x|^2 + |y|^2 - 2 x.y errs by at most g (|x|^2 + |y|^2), since 2 |x| |y| <= |x|^2 + |y|^2, and by the roundings of
the two norms, of their sum and of the bounds that are made of them, fewer than 16 u of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from selection.kernels.compiled.jit import compiled

U = 2.0**-24
SMALLEST_NORMAL = 2.0**-126
# Products of rows whose lengths multiply to less than this do not overflow.
LARGEST_SIZE = 2.0**126


@compiled
def product_margin(d):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """`g` of the module's description, with a thousandth more that covers the rounding of what is made of it."""
    return 1.001 * d * U / (1.0 - min(d * U, 0.5))


@compiled
def distance_margin(d):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How far a squared distance may be off, relative to |x|^2 + |y|^2: see the module's description."""
    return product_margin(d + 16)


def absolute_margin(d: int, x_norm: Any, y_norm: Any) -> Any:
    """How far the product of rows of these lengths may be off, infinite where it may overflow; float64 numbers or arrays."""
    size = x_norm * y_norm
    margin = product_margin(d) * size + d * SMALLEST_NORMAL * (1.0 + x_norm + y_norm)
    return np.where(size < LARGEST_SIZE, margin, np.inf)
