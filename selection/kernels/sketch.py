"""Sketches: a few leading directions of the vectors, which rule most centres out before a whole product is worked out.

For orthonormal directions Q, let y = Q' x and r the length of what is left of x. Then x.c <= y_x.y_c + r_x r_c, so with
z = (y, r), a vector of p + 1 features, |x|^2 + |c|^2 - 2 z_x.z_c bounds the squared distance from below: it costs p + 1
products instead of d.

What is stored is rounded. Let Q be the orthonormal matrix next to the directions P that are stored, |P - Q| <= t. A product with P in
float32 errs by g (see `margin`) for each direction, so |y' - y| <= e |x| with e = t + (1 + t) g sqrt(p). Hence
y_x.y_c <= y'_x.y'_c + e (2 + e) |x| |c|, and r^2 <= |x|^2 (1 + 2 e (1 + e)) - |y'|^2, which is rounded up. The product of two sketches
errs by (p + 1) u (1 + 5 e) |x| |c| or so. Since 2 |x| |c| <= |x|^2 + |c|^2, all of this is covered by taking
m (|x|^2 + |c|^2) away, m = e (2 + e) + `distance_margin` (1 + 5 e) of p + 1 features.
"""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import nearest as loops
from selection.kernels.compiled.margin import distance_margin, product_margin
from selection.kernels.compiled.products import LANES, ROWS, packed
from selection.types import Array, Doubles, Floats

# How many directions a sketch may have: multiples of LANES.
DIRECTIONS = (64, 128, 256)

# Rows that the directions are found from, and others that say how good they are.
FIT_ROWS = 1024
TRY_ROWS = 512

# A centre that a sketch leaves open costs as much as this many among others: its features are seldom in a cache.
ALONE = 15.0
# A sketch is used if it leaves less than this share of the work.
WORTH_IT = 0.8


class Sketch:
    """The sketches of a growing set of centres.

    Args:
        directions: (d, p) float64, orthonormal columns; p a multiple of LANES, or 0 for no sketch.
        capacity: how many centres there may be in the end.

    Attributes:
        arrays: the directions as `products.packed`; the sketches of the centres likewise, and their squared lengths
            less the margin; and e and m of the module's description.

    Memory: 4 (p + 1) bytes a centre.
    """

    def __init__(self, directions: Doubles, capacity: int) -> None:
        d, p = directions.shape
        self.directions = directions.astype(np.float32)
        rounded = float(np.linalg.norm(self.directions - directions)) + 1e-12
        e = rounded + (1 + rounded) * product_margin(d) * p**0.5 * 1.01
        errors = np.array([e, e * (2 + e) + distance_margin(p + 1) * (1 + 5 * e)])
        groups = -(-capacity // LANES)
        # A centre that is not there is infinitely far.
        low = np.full(groups * LANES, np.inf, np.float32)
        self.arrays = packed(self.directions.T), np.zeros((groups, p + 1, LANES), np.float32), low, errors
        self.count = 0

    def add(self, centres: Floats) -> None:
        """Sketch the centres that there are now: (count, d), those sketched before and new ones."""
        if not self.directions.size:
            return
        _, sketches, low, errors = self.arrays
        new = centres[self.count :]
        squares = (new.astype(np.float64) ** 2).sum(axis=1)
        z = np.empty((len(new), sketches.shape[1]), np.float32)
        z[:, :-1] = new @ self.directions
        for sketch, square in zip(z, squares.tolist(), strict=True):
            loops.end_sketch(sketch, square, errors[0])
        places = np.arange(self.count, len(centres))
        sketches[places // LANES, :, places % LANES] = z
        low[places] = squares * (1.0 - errors[1])
        self.count = len(centres)

    def left_open(self, X: Floats, state: Array) -> float:
        """The share of pairs of these rows and some centres that the sketches do not rule out, given the rows' bounds."""
        directions, sketches, low, errors = self.arrays
        out = np.empty((2, ROWS, LANES), np.float32)
        z = np.empty((len(X), sketches.shape[1]), np.float32)
        loops.sketch_rows(X, state, np.arange(len(X)), directions, errors[0], out, z)
        some = np.arange(0, self.count, max(1, self.count // 1024))
        cut = state["bound"] / state["scale"] - state["square"] * (1.0 - errors[1])
        return float((low[some] - 2 * (z @ sketches[some // LANES, :, some % LANES].T) <= cut[:, None]).mean())


def none(d: int) -> Sketch:
    """A sketch that rules nothing out."""
    return Sketch(np.empty((d, 0)), 0)


def worth_it(X: Floats, state: Array, centres: Floats, capacity: int) -> Sketch:
    """The sketch of some centres that saves the most work on rows like X, which have seen them; `none` if none saves enough.

    Args:
        X: (b, d) float32; `state`: (b,) of `compiled.nearest.ROW`.
        capacity: how many centres there may be in the end.

    Cost: 4 * FIT_ROWS * d * min(FIT_ROWS, d) operations or so: 0.05 s for d = 384, half a second for d = 4096.
    """
    d = X.shape[1]
    rows = np.flatnonzero((state["bound"] > 0) & (state["scale"] > 0))
    few = rows[:: max(2, len(rows) // TRY_ROWS)]
    fit = np.setdiff1d(rows, few)
    fit = fit[:: max(1, len(fit) // FIT_ROWS)]
    least, best = WORTH_IT, none(d)
    counts = [p for p in DIRECTIONS if p <= min(d, len(fit)) // 2]
    if not counts:
        return best
    directions = leading_directions(X[fit], counts[-1])
    for p in counts:
        sketch = Sketch(directions[:, :p], capacity)
        sketch.add(centres)
        left = (p + 1) / d + ALONE * sketch.left_open(X[few], state[few])
        if left < least:
            least, best = left, sketch
    return best


def leading_directions(X: Floats, count: int) -> Doubles:
    """(d, count) orthonormal directions, those first that hold most of the rows' length."""
    b, d = X.shape
    if d <= b:
        return np.asarray(np.linalg.eigh((X.T @ X).astype(np.float64))[1][:, : -count - 1 : -1])
    # The directions of X'X are X' times those of XX'.
    along = np.linalg.eigh((X @ X.T).astype(np.float64))[1][:, : -count - 1 : -1]
    return np.asarray(np.linalg.qr((X.T @ along.astype(np.float32)).astype(np.float64))[0])
