"""The compiled loops behind `estimates`: rows in bytes, and similarities from products of these."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import quantized
from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.products import LANES
from selection.kernels.compiled.sums import dot

# What is added to an estimate: more than the four roundings from whole numbers to it.
MARGIN = 2.0**-20


@compiled
def quantized_rows(units, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The bytes of (b, d) float32 rows (see `quantized`): (b, width) int8, their offsets, what goes with them; and what
    they leave of the rows, (b, d) float32.
    """
    b, d = units.shape
    Q, offset = np.zeros((b, width), np.int8), np.empty(b, np.int32)
    own, left = np.empty((b, quantized.TERMS), np.float32), np.empty((b, d), np.float32)
    for j in range(b):
        offset[j] = 128 * quantized.quantize(units[j], dot(units[j], units[j]), Q[j, :d], own[j])
        scale = np.float64(own[j, quantized.SCALE])
        for f in range(d):
            left[j, f] = np.float32(np.float64(units[j, f]) - scale * np.float64(Q[j, f]))
    return Q, offset, own, left


@compiled
def similarities(Q, offset, own, packed, terms, first, count, sums, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """out[e] = estimates of the similarities of row first + e, `count` of at most `quantized.ROWS`.

    Args:
        Q, offset, own: of the rows; `packed`, `terms`: of the references, see `quantized`.
        sums: (`quantized.ROWS`, LANES) int32, to work with; `out`: (`quantized.ROWS`, groups * LANES) float32.
    """
    places = np.empty(quantized.ROWS, np.int64)
    for e in range(quantized.ROWS):
        places[e] = first + min(e, count - 1)
    half = np.float32(0.5 + MARGIN)
    for group in range(len(packed)):
        quantized.write_sums(Q, offset, places, packed, group, sums)
        twice = terms[group, 0]
        for e in range(count):
            scale = np.float32(0.25) * own[first + e, quantized.SCALE]
            out_of, sums_of = out[e, group * LANES : (group + 1) * LANES], sums[e]
            for b in range(LANES):
                out_of[b] = half + scale * twice[b] * np.float32(sums_of[b])
