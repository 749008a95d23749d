"""Spherical k-means, the same whatever the order of the pool or of its blocks.

It trains on a sample whose order is hashed from the keys, with exact assignment (see `assign`) and sums in that order.
"""

from __future__ import annotations

import numpy as np

from selection.blocks import ArrayBlocks
from selection.kernels.assign import Assigned, most_similar_centre
from selection.kernels.compiled import duplicates as loops
from selection.kernels.device.tensor import DeviceCopy
from selection.kernels.normalize import unit_rows
from selection.kernels.top_k import TILE_ROWS, tiles
from selection.types import DeviceVectors, Floats, Mask, Points, Rows, UInts, Vectors

# faiss's default; more rows move the centroids little.
SAMPLE_PER_CLUSTER = 256
ITERATIONS = 10


def hashed_order(vectors: Vectors, noise: UInts, among: Mask | None = None) -> Rows:
    """The rows that have a direction, by ascending noise.

    Args:
        vectors: (n, d).
        noise: (n,) of `noise.hash_bits`.
        among: (n,) rows to look at; all by default.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: one pass over the vectors.
    """
    present = np.ones(vectors.shape[0], bool) if among is None else among.copy()
    for rows, tile, _ in tiles(vectors, TILE_ROWS):
        present[rows] &= tile.any(axis=1)
    order = np.argsort(noise, kind="stable").astype(np.int64)
    return np.asarray(order[present[order]])


def spherical_clusters(vectors: Vectors, order: Rows, count: int) -> tuple[Assigned, Floats]:
    """Each row's cluster and its cosine to the centroid, and the centroids.

    Args:
        vectors: (n, d).
        order: rows without zero vectors, in an order that does not depend on that of the pool, as of `hashed_order`: the
            first `count` are the first centroids, the first SAMPLE_PER_CLUSTER * count train them.
        count: >= 1, at most len(order).

    Cost: 2 * (sample * ITERATIONS + n) * count * d operations. Memory: the sample's vectors.
    """
    trained = order[: SAMPLE_PER_CLUSTER * count]
    sample = np.empty((len(trained), vectors.shape[1]), np.float32)
    for start in range(0, len(trained), TILE_ROWS):
        sample[start : start + TILE_ROWS] = unit_rows(vectors.take(trained[start : start + TILE_ROWS]))
    centroids = sample[:count].copy()
    points: Points = ArrayBlocks(sample)
    if isinstance(vectors, DeviceVectors):
        points = DeviceCopy(points, vectors.device)
    for _ in range(ITERATIONS if count > 1 else 1):
        total = np.zeros(centroids.shape)
        loops.add_rows(sample, most_similar_centre(points, centroids).place, total)
        length = np.sqrt((total**2).sum(axis=1))
        moved = length > 0  # a centroid without rows stays
        before = centroids.copy()
        centroids[moved] = total[moved] / length[moved, None]
        if (centroids == before).all():
            break
    return most_similar_centre(vectors, centroids), centroids
