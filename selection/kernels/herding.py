"""Herding: rows, one after the other, that keep the mean of what is taken near the mean of all.

With M the weighted sum of all rows, W that of the weights, s the sum of the t rows taken so far, a pick is the
candidate of smallest |(t+1) M - W s - W x|: W times |(t+1) mu - s - x|, without a division that would part what ties in
truth. M, W and s are sums of integers, vectors being rounded to multiples of a small power of two (some 2**-(60 - log2
n) of the longest), so that none depends on the order of the rows; the rest is float64 in one fixed order, ties to the
lowest row.

A copy of the vectors with 8 bits a number only filters. With c and a any numbers for each feature, x' = (x - c) / a is
kept as step * k + e with whole numbers k, and likewise q' = (q - W c) a, for q = (t+1) M - W s, as q_step * l + g. So

    |q - W x|^2 / W = const + W |x - c|^2 - 2 q'.x'
    |q'.x' - step * q_step * k.l| <= min(|q'| |e|, step / 2 * sum of |q'_f|) + 2 |g| |x'|

where k.l is exact. What float64 rounds, here and in the distances that decide, is at most some d units in the last
place of W |x - c|^2, of |q'| |x'| and of B^2 / W with B = |q| + W |c|, which bounds all else; the margin allows for
eight times as much. What may be the nearest by these bounds is worked out. The better c and a suit the data the fewer
that are; no pick depends on them.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from selection.blocks import chunks
from selection.kernels.compiled import herding as loops
from selection.kernels.compiled.assign import norms
from selection.kernels.compiled.herding import LOW, ROWS_AT_ONCE
from selection.kernels.float16 import as_float32
from selection.kernels.threads import Threads
from selection.kernels.top_k import TILE_ROWS, tiles
from selection.types import Doubles, Floats, Mask, Rows, Vectors

# Rows from which centre and spread of the features are estimated.
SAMPLE_ROWS = 1024


def herd(
    vectors: Vectors, budget: int, *, taken: Rows, candidates: Mask, weights: Doubles | None = None
) -> tuple[Rows, Doubles]:
    """Pick the rows that bring the mean of what is taken nearest to the weighted mean of all n rows.

    Args:
        vectors: (n, d), n >= 1.
        budget: 1 .. the number of candidates.
        taken: rows that are taken from the start.
        candidates: (n,) bool, none of them taken.
        weights: (n,) finite, >= 0, not all 0; 1 by default.

    Returns:
        (b,) rows in pick order, and (b + 1,) the distance of the mean of what is taken from that of all: before the
        first pick and after each. The mean of nothing is 0.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: two passes over the vectors; for each pick n*d multiply-adds of 8-bit numbers, on all threads, and d float64
    operations for each row in doubt (a few, but all copies of a best row). Memory: (d + 60) * n bytes and one tile.
    """
    short = _Short(vectors, candidates)
    M, W, unit = _mean_of(vectors, short.longest, weights)
    whole = np.zeros(vectors.shape[1], np.int64)  # the sum of what is taken, in units
    for part in chunks(taken, TILE_ROWS):
        _add(whole, _take(vectors, part), unit)

    rows, error = np.empty(budget, np.int64), np.empty(budget + 1)
    for t in range(len(taken), len(taken) + budget + 1):
        total = whole / unit
        at = t - len(taken)
        error[at] = _norm(M / W - total / max(t, 1))
        if at < budget:
            rows[at] = short.nearest((t + 1) * M - W * total, W)
            _add(whole, _take(vectors, rows[at : at + 1]), unit)
    return rows, error


class _Short:
    """A copy of vectors with 8 bits a number, and which of them can still be picked."""

    def __init__(self, vectors: Vectors, candidates: Mask) -> None:
        n, d = vectors.shape
        self.vectors, self.threads = vectors, Threads()
        sample = _take(vectors, np.unique(np.linspace(0, n - 1, SAMPLE_ROWS).astype(np.int64))).astype(np.float64)
        # Features of very different size would leave the small ones no bits.
        with np.errstate(invalid="ignore"):  # what is not finite is named by `tiles`
            self.centre, spread = sample.mean(axis=0), sample.std(axis=0)
        self.spread = np.maximum(spread, spread.max() / 1000 or 1.0)
        self.copy = np.empty((n, d), np.int8)
        self.known = np.zeros((5, n))
        self.longest = 0.0
        for rows, tile, norm in tiles(vectors, TILE_ROWS):
            self.longest = max(self.longest, norm)
            task = partial(loops.shorten, tile, rows, self.centre, self.spread, self.copy, self.known)
            self.threads.run(task, len(rows), -(-len(rows) // self.threads.count))
        self.known[LOW] = np.where(candidates, 0.0, np.inf)

    def nearest(self, q: Doubles, W: float) -> int:
        """Pick the row x of smallest |q - W x|, ties to the lowest."""
        n, d = self.copy.shape
        scaled = (q - W * self.centre) * self.spread
        most = min(2**15 - 1, (2**31 - 1) // (127 * d))  # the products add up in 32 bits
        step = float(np.abs(scaled).max()) / most or 1.0
        k = np.rint(scaled / step).astype(np.int16)
        norm, rest = _norm(scaled), _norm(scaled - step * k)
        slack = (d + 16) * 2.0**-50
        all_else = (_norm(q) + W * _norm(self.centre)) ** 2 / W
        half_sum = 0.500001 * float(np.abs(scaled).sum())
        by = np.array([W, step, norm, half_sum, 2 * rest + slack * norm, slack * W, slack * all_else])
        high = np.empty(-(-n // ROWS_AT_ONCE))
        self.threads.run(partial(loops.bounds, self.copy, self.known, k, by, high), n, ROWS_AT_ONCE)
        doubtful = np.flatnonzero(self.known[LOW] <= high.min())
        best, row = np.inf, -1
        for part in chunks(doubtful, TILE_ROWS):
            square = loops.square_distances(W * _take(self.vectors, part).astype(np.float64), q)
            at = int(square.argmin())
            if square[at] < best:
                best, row = float(square[at]), int(part[at])
        self.known[LOW, row] = np.inf
        return row


def _mean_of(vectors: Vectors, longest: float, weights: Doubles | None) -> tuple[Doubles, float, float]:
    """The weighted sum of the vectors, the sum of the weights, and the unit: vectors are rounded to multiples of 1 / unit.

    Weights are multiplied by a power of two that leaves none above 1. `longest` is the length of the longest vector.
    """
    n, d = vectors.shape
    weights = np.ones(n) if weights is None else weights * 2.0 ** -math.frexp(weights.max())[1]
    bits = 62 - n.bit_length()  # n numbers of so many bits stay in the range of int64
    unit = 2.0 ** (bits - math.frexp(longest)[1])
    whole = np.zeros(d, np.int64)
    for rows, tile, _ in tiles(vectors, TILE_ROWS):
        loops.add_scaled(whole, tile, unit * weights[rows])
    return whole / unit, int(np.rint(weights * 2.0**bits).astype(np.int64).sum()) / 2.0**bits, unit


def _take(vectors: Vectors, rows: Rows) -> Floats:
    X = as_float32(vectors.take(rows)).view()
    X.flags.writeable = False  # as tiles are, since loops are compiled once for each kind
    return X


def _add(whole: Rows, X: Floats, unit: float) -> None:
    loops.add_scaled(whole, X, np.full(len(X), unit))


def _norm(x: Doubles) -> float:
    return float(norms(x[None])[0])
