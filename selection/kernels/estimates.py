"""Similarities to many references from products of bytes, four times as fast as in float32, and how far sums of them
may be off.

Let x = x' + e and c_i = c_i' + f_i be a row and a reference of unit length, with x' and c_i' what their bytes stand for
(see `compiled.quantized`). Of any set A of references with weights w_i

    sum_A w_i (x.c_i - x'.c_i') = sum_A w_i (e.c_i + x'.f_i) <= sqrt(sum_A w_i) (|C e| + |F x'|)

by Cauchy and Schwarz, where the rows of C and F are sqrt(w_i) c_i and sqrt(w_i) f_i. That is far less than the sum of
what single products may be off, |e| |c_i| + |x'| |f_i|: errors of many references seldom agree. With the leading
eigenvectors v_j of C'C and its eigenvalues l_j, |C e|^2 <= sum_j l_j (v_j.e)^2 + l_next |e|^2; and |F x'| <= |F| |x'|,
whose largest singular value is small, since rounding has no direction.

The largest feature of a vector says how coarse its bytes are. Where a few features are much larger than the others, as
in hidden states of language models, vectors are turned first, which changes no product: each group of BLOCK features,
as far apart as there are, by the same matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from selection.blocks import writable
from selection.kernels.compiled import estimates as loops
from selection.kernels.compiled import quantized
from selection.kernels.compiled.assign import norms
from selection.kernels.compiled.margin import U, product_margin
from selection.kernels.compiled.products import LANES
from selection.kernels.quantized import Quantized
from selection.types import Array, Doubles, Floats

# Eigenvectors that |C e| is bounded with.
LEADING = 32
# Relative, more than what eigenvalues, lengths and their products err by in float64.
SLACK = 1e-6
# Products of bytes pay where there are so many pairs of a row and a reference for each square of a dimension.
PAIRS = 128
# Features that are turned together, and what share of the error has to go for that.
BLOCK = 64
WORTH_IT = 0.9
# How far turned vectors may be off: at most BLOCK + 1 roundings of a feature, in each of BLOCK directions.
TURNED = (BLOCK + 2) * BLOCK**0.5 * U
# References at once; a multiple of LANES.
PART = 4096


def worth_it(rows: int, references: int, d: int) -> bool:
    """Whether products of bytes take less time, what they need to begin with included."""
    return Quantized(d, 1).in_use and rows * references >= PAIRS * d * d


class Estimates:
    """Of the similarities (1 + x.c) / 2 of any rows to some references.

    Args:
        units: (r, d) float32 references of unit length.
        weights: (r,) float32, what an error of each counts.

    Cost: to begin with r d^2 operations for each of two matrices, and their largest eigenvalues. Memory: a byte for
    each number of `units`, and two copies of these to begin with.
    """

    def __init__(self, units: Floats, weights: Floats) -> None:
        self.turn = _turn_for(units)
        turned = self.turn(units) if self.turn else units
        r, d = turned.shape
        self.quantized = Quantized(d, r)
        self.quantized.add(turned)
        packed, terms = self.quantized.arrays
        roots = np.sqrt(weights.astype(np.float64))
        values, vectors = _eigenvalues(lambda part: turned[part], roots, d, min(LEADING + 1, d))
        # Eigenvectors of C'C times the roots of their eigenvalues; the root of the next; what float32 adds to a
        # product.
        self.along = np.ascontiguousarray(vectors[:, 1:] * np.sqrt(values[1:]), np.float32)
        self.beyond = float(values[0]) ** 0.5
        self.slip = float(product_margin(d + 8)) * float(values.sum()) ** 0.5
        lost = _eigenvalues(lambda part: turned[part] - _dequantized(packed, terms, part, d), roots, d, 1)[0]
        self.lost = float(lost[0]) ** 0.5
        self.turned = 2 * TURNED if self.turn else 0.0
        self.heaviest = float(roots @ roots) ** 0.5
        self.longest = float(terms[:, 1].max()) / 2
        self.most_lost = float(terms[:, 2].max()) / 2

    @property
    def available(self) -> bool:
        """Whether this processor has the instruction: another one may have made these."""
        return quantized.has_instruction()

    def references(self) -> tuple[Array, Array]:
        """The references in bytes, as the compiled loops take them."""
        packed, terms = self.quantized.arrays
        return writable(packed), writable(terms)

    def quantize(self, units: Floats) -> tuple[tuple[Array, ...], Floats, Floats]:
        """The bytes of (b, d) rows of unit length, their errors and their doubts, (b,) each.

        The sum of any estimates of a row, times their weights, is too low by its error times the root of these weights
        together at most, and a single estimate by its doubt.
        """
        rows = self.turn(units) if self.turn else units
        Q, offset, own, left = loops.quantized_rows(rows, self.quantized.arrays[0].shape[1] * quantized.FEATURES)
        rest, reach = own[:, quantized.REST].astype(np.float64), own[:, quantized.REACH].astype(np.float64)
        along = norms(left @ self.along)
        error = (
            np.sqrt(along**2 + (self.beyond * rest) ** 2)
            + self.slip * rest
            + self.lost * reach
            + self.turned * self.heaviest
        )
        doubt = rest * self.longest + reach * self.most_lost + self.turned
        half = 0.5 * (1 + SLACK)
        return (Q, offset, own), (error * half).astype(np.float32), (doubt * half + loops.MARGIN).astype(np.float32)


class Turn:
    """A turn of d dimensions that spreads a large feature over BLOCK others.

    Args:
        d: dimensions; those that are missing in the last block are added.
    """

    def __init__(self, d: int) -> None:
        self.width = -(-d // BLOCK) * BLOCK
        self.places = np.arange(self.width).reshape(BLOCK, -1).T.ravel()
        matrix = np.random.default_rng(0).normal(size=(BLOCK, BLOCK))
        self.matrix = np.linalg.qr(matrix)[0].astype(np.float32)

    def __call__(self, rows: Floats) -> Floats:
        wide = np.zeros((len(rows), self.width), np.float32)
        wide[:, : rows.shape[1]] = rows
        return np.asarray(np.take(wide, self.places, axis=1).reshape(-1, BLOCK) @ self.matrix).reshape(wide.shape)


def _turn_for(units: Floats) -> Turn | None:
    """A turn, if bytes leave less of vectors like these then."""
    some = units[:PART]
    if units.shape[1] < BLOCK:
        return None
    turn = Turn(units.shape[1])
    return turn if _mean_lost(turn(some)) < WORTH_IT * _mean_lost(some) else None


def _mean_lost(units: Floats) -> float:
    """What bytes leave of rows on average."""
    own = loops.quantized_rows(units, -(-units.shape[1] // quantized.FEATURES) * quantized.FEATURES)[2]
    return float(own[:, quantized.REST].mean())


def _dequantized(packed: Array, terms: Array, part: slice, d: int) -> Doubles:
    """(rows, d) what the bytes of some references stand for."""
    groups = slice(part.start // LANES, -(-part.stop // LANES))
    numbers = packed[groups].transpose(0, 2, 1, 3).reshape(-1, packed.shape[1] * quantized.FEATURES)
    scales = terms[groups, 0].reshape(-1, 1).astype(np.float64) / 2
    return ((numbers[:, :d].astype(np.float64) - 128) * scales)[: part.stop - part.start]


def _eigenvalues(rows_of: Callable[[slice], Array], factors: Doubles, d: int, count: int) -> tuple[Doubles, Doubles]:
    """The `count` largest eigenvalues of M'M, ascending, rounded up, and their vectors; M has the rows times factors."""
    from scipy.linalg import eigh

    square = np.zeros((d, d))
    for start in range(0, len(factors), PART):
        part = slice(start, min(start + PART, len(factors)))
        rows = rows_of(part) * factors[part, None]
        square += rows.T @ rows
    values, vectors = eigh(square, subset_by_index=[d - count, d - 1])
    return np.maximum(values, 0) + SLACK * np.trace(square) / d, vectors
