"""Similarities to many references from products of bytes, four times as fast as in float32, and how far sums of them may be off.

Let x = x' + e and c_i = c_i' + f_i be a row and a reference of unit length, with x' and c_i' what their bytes stand for
(see `compiled.quantized`). Of any set A of references

    sum_A w_i (x.c_i - x'.c_i') = sum_A w_i (e.c_i + x'.f_i) <= sqrt(|A|) (|C e| + |F x'|)

by Cauchy and Schwarz, where the rows of C and F are w_i c_i and w_i f_i. That is far less than |A| times what a single
product may be off, |e| |c_i| + |x'| |f_i|: errors of many references seldom agree. With the leading eigenvectors v_j
of C'C and its eigenvalues l_j, |C e|^2 <= sum_j l_j (v_j.e)^2 + l_next |e|^2; and |F x'| <= |F| |x'|, whose largest
singular value is small, since rounding has no direction.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh  # type: ignore[import-untyped]

from selection.kernels.compiled import compressed, quantized
from selection.kernels.compiled import estimates as loops
from selection.kernels.compiled.margin import product_margin
from selection.kernels.quantized import Quantized
from selection.types import Doubles, Floats

# Eigenvectors that |C e| is bounded with.
LEADING = 32
# Relative, more than what eigenvalues, lengths and their products err by in float64.
SLACK = 1e-6
# Rows that products of bytes pay for: so many pairs of a row and a reference for each square of a dimension.
PAIRS = 128


def worth_it(rows: int, references: int, d: int) -> bool:
    """Whether products of bytes take less time, what they need to begin with included."""
    return Quantized(d, references).in_use and rows * references >= PAIRS * d * d


class Estimates:
    """Of the similarities (1 + x.c) / 2 of any rows to some references.

    Args:
        units: (r, d) float32 references of unit length.
        weights: (r,) float32, what an error of each counts.

    Cost: to begin with r d^2 operations for each of two matrices, and their largest eigenvalues. Memory: r d bytes.
    """

    def __init__(self, units: Floats, weights: Floats) -> None:
        r, d = units.shape
        self.quantized = Quantized(d, r)
        self.quantized.add(units)
        packed, terms = self.quantized.arrays
        lost = units - _dequantized(packed, terms, r, d)
        self.along, self.beyond, self.slip = _leading(units, weights)
        self.lost = float(_eigenvalues(lost, weights, 1)[0][-1]) ** 0.5
        self.longest = float(terms[:, 1].max()) / 2
        self.most_lost = float(terms[:, 2].max()) / 2

    def quantize(self, units: Floats) -> tuple[tuple[np.ndarray, ...], Floats, Floats]:
        """The bytes of (b, d) rows of unit length, their `errors` and their `doubts`.

        A sum over n references, with their weights, errs by at most sqrt(n) times a row's error, a similarity by at
        most its doubt.
        """
        b, d = units.shape
        width = self.quantized.arrays[0].shape[1] * quantized.FEATURES
        Q, offset = np.zeros((b, width), np.int8), np.empty(b, np.int32)
        own, left = np.empty((b, quantized.TERMS), np.float32), np.empty((b, d), np.float32)
        loops.quantize(units, Q, offset, own, left)
        rest, reach = own[:, quantized.REST].astype(np.float64), own[:, quantized.REACH].astype(np.float64)
        along = np.empty(b)
        loops.lengths(left @ self.along, along)
        error = np.sqrt(along**2 + (self.beyond * rest) ** 2) + self.slip * rest + self.lost * reach
        doubt = rest * self.longest + reach * self.most_lost
        more = 0.5 * (1 + SLACK)
        return (Q, offset, own), (error * more).astype(np.float32), (doubt * more + compressed.MARGIN).astype(np.float32)


def _dequantized(packed: np.ndarray, terms: np.ndarray, r: int, d: int) -> Doubles:
    """(r, d) what the bytes of the references stand for."""
    numbers = packed.transpose(0, 2, 1, 3).reshape(-1, packed.shape[1] * quantized.FEATURES)[:r, :d].astype(np.float64)
    return (numbers - 128) * (terms[:, 0].reshape(-1)[:r, None].astype(np.float64) / 2)


def _leading(units: Floats, weights: Floats) -> tuple[Floats, float, float]:
    """(d, k) eigenvectors of C'C times the roots of their eigenvalues; the root of the next; what float32 adds to a product."""
    d = units.shape[1]
    values, vectors = _eigenvalues(units, weights, min(LEADING + 1, d))
    roots = np.sqrt(np.maximum(values, 0))
    along = np.ascontiguousarray(vectors[:, 1:] * roots[1:], np.float32)
    return along, float(roots[0]), float(product_margin(d + 8) * np.linalg.norm(roots))


def _eigenvalues(rows: np.ndarray, weights: Floats, count: int) -> tuple[Doubles, Doubles]:
    """The `count` largest eigenvalues of M'M, ascending, rounded up, and their vectors; M has the weighted rows."""
    d = rows.shape[1]
    square = np.zeros((d, d))
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096] * weights[start : start + 4096, None].astype(np.float64)
        square += part.T @ part
    values, vectors = eigh(square, subset_by_index=[d - count, d - 1])
    return np.maximum(values, 0) + SLACK * np.trace(square) / d, vectors
