"""The compiled loops behind `estimates`: similarities from products of bytes, bounded and compressed while they are in a cache."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import compressed, quantized
from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.products import LANES
from selection.kernels.compiled.sums import dot


@compiled
def quantize(units, Q, offset, own, left):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write rows in bytes (see `quantized`), and what the bytes leave of them to `left` (rows, d) float32."""
    d = units.shape[1]
    for j in range(len(units)):
        offset[j] = 128 * quantized.quantize(units[j], dot(units[j], units[j]), Q[j, :d], own[j])
        scale = np.float64(own[j, quantized.SCALE])
        for f in range(d):
            left[j, f] = np.float32(np.float64(units[j, f]) - scale * np.float64(Q[j, f]))


@compiled
def lengths(rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """out[j] = the length of rows[j], in float64."""
    for j in range(len(rows)):
        out[j] = np.sqrt(dot(rows[j], rows[j]))


@compiled
def similarities(Q, offset, own, packed, terms, first, count, sums, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """out[e] = the estimates for row first + e, `count` of at most `quantized.ROWS`, a little above what the bytes say."""
    places = np.empty(quantized.ROWS, np.int64)
    for e in range(quantized.ROWS):
        places[e] = first + min(e, count - 1)
    half = np.float32(0.5 + compressed.MARGIN)
    for group in range(len(packed)):
        quantized.write_sums(Q, offset, places, packed, group, sums)
        twice = terms[group, 0]
        for e in range(count):
            scale = np.float32(0.25) * own[first + e, quantized.SCALE]
            out_of, sums_of = out[e, group * LANES : (group + 1) * LANES], sums[e]
            for b in range(LANES):
                out_of[b] = half + scale * twice[b] * np.float32(sums_of[b])
