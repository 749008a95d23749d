"""The nearest of some centres for every row, exactly, in one pass over vectors that come in any order.

Exact means the float64 distance or cosine in one fixed order of summation. BLAS in float32 only filters (see `margin`).
What that leaves open is worked out, ties to the first centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from selection.kernels.compiled import assign as loops
from selection.kernels.compiled.margin import LARGEST_SIZE, product_margin
from selection.kernels.device import assign as device
from selection.kernels.top_k import TILE_ROWS, TILE_VALUES, tiles
from selection.types import DeviceVectors, Doubles, Floats, PartedVectors, Points, Rows


@dataclass(frozen=True)
class Assigned:
    """For each row the nearest centre.

    Attributes:
        place: (n,) int64, which centre; for cosines -1 where there is none, a zero vector.
        value: (n,) float64, the distance or the cosine (0 where there is none).
    """

    place: Rows
    value: Doubles


def nearest_centres(vectors: Points, centres: Floats) -> tuple[Assigned, Assigned]:
    """The centre at the smallest Euclidean distance, and that of the highest cosine.

    Args:
        vectors: (n, d).
        centres: (b, d) float32, b >= 1.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: 2*n*b*d operations in float32, a few float64 products a row; 32 bytes a row and one tile.
    """
    near = _unassigned(vectors)
    return near, most_similar_centre(vectors, centres, near)


def most_similar_centre(vectors: Points, centres: Floats, near: Assigned | None = None) -> Assigned:
    """The centre of the highest cosine. Arguments, errors and cost as for `nearest_centres`.

    Args:
        near: the nearest centres, written to in the same pass.
    """
    similar = _unassigned(vectors)
    centres = np.ascontiguousarray(centres, np.float32)
    c_norm = loops.norms(centres)
    if isinstance(vectors, DeviceVectors):
        nearest = None if near is None else (near.value, near.place)
        device.assign(vectors, centres, c_norm, nearest, (similar.value, similar.place))
        return similar
    if isinstance(vectors, PartedVectors):
        for rows, parts in vectors.map_parts(partial(_assigned_of_part, centres, near is not None)):
            for whole, part in zip((similar, near), parts, strict=True):
                if whole is not None and part is not None:
                    whole.place[rows], whole.value[rows] = part.place, part.value
        return similar
    smallest = min(c_norm[c_norm > 0], default=1.0)
    for rows, tile, norm in tiles(vectors, max(64, min(TILE_ROWS, TILE_VALUES // len(centres)))):
        x_norm = loops.norms(tile)
        least = min(x_norm[x_norm > 0], default=1.0) * smallest
        # Near the ends of float32's range products overflow or vanish: then nothing is filtered.
        in_range = norm * c_norm.max() < LARGEST_SIZE and least > 2.0**-60
        margin = product_margin(tile.shape[1]) if in_range else np.inf
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            coarse = tile @ centres.T
        if near is not None:
            loops.nearest(coarse, tile, x_norm, centres, c_norm, margin, rows, near.value, near.place)
        loops.most_similar(coarse, tile, x_norm, centres, c_norm, margin, rows, similar.value, similar.place)
    return similar


def _assigned_of_part(
    centres: Floats,
    wants_near: bool,
    points: Points,
) -> tuple[Assigned, Assigned | None]:
    near = _unassigned(points) if wants_near else None
    return most_similar_centre(points, centres, near), near


def _unassigned(vectors: Points) -> Assigned:
    return Assigned(np.empty(vectors.shape[0], np.int64), np.empty(vectors.shape[0]))
