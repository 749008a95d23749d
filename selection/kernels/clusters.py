"""Spherical k-means, the same whatever the order of the pool or of its blocks.

It trains on a sample whose order is hashed from the keys, with exact assignment (see `assign`) and sums in that order.
Starts are drawn by greedy k-means++ (Arthur, Vassilvitskii 2007) on the first rows of the sample; the best of a few
starts is trained on.
"""

from __future__ import annotations

import math

import numpy as np

from selection.blocks import ArrayBlocks
from selection.kernels.assign import Assigned, most_similar_centre
from selection.kernels.compiled import duplicates as loops
from selection.kernels.device.tensor import DeviceCopy
from selection.kernels.kmeans_pp import kmeans_pp
from selection.kernels.normalize import unit_rows
from selection.kernels.top_k import TILE_ROWS, tiles
from selection.streams import child
from selection.types import DeviceVectors, Floats, Mask, Points, Rows, UInts, Vectors

# faiss's default; more rows move the centroids little.
SAMPLE_PER_CLUSTER = 256
ITERATIONS = 10
# Starts, each of so many rows a cluster, moved so often before they are compared; and how many draws compete for each
# centroid, on so many rows (or TRIAL_PER_CLUSTER a cluster if that is more). 16,384 rows find no more clusters, in
# twice the time.
STARTS = 4
START_PER_CLUSTER = 64
START_ITERATIONS = 2
TRIALS = 16
TRIAL_ROWS = 2048
TRIAL_PER_CLUSTER = 8


def cluster_count(n_clusters: int | str, rows: int) -> int:
    """How many clusters an option means for so many rows, at least one of them: "sqrt" of their number, or a number."""
    return min(math.ceil(math.sqrt(rows)) if n_clusters == "sqrt" else int(n_clusters), rows)


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


def spherical_clusters(
    vectors: Vectors, order: Rows, count: int, *, rng: np.random.Generator | None
) -> tuple[Assigned, Floats]:
    """Each row's cluster and its cosine to the centroid, and the centroids.

    Args:
        vectors: (n, d).
        order: rows without zero vectors, in an order that does not depend on that of the pool, as of `hashed_order`:
            the first SAMPLE_PER_CLUSTER * count train the centroids.
        count: >= 1, at most len(order).
        rng: for the starts; without it the first `count` rows are the first centroids, as winnow 0.2 had it.

    Cost: 2 * (sample * ITERATIONS + n) * count * d operations; the starts as much again as five iterations on the
    sample, and 2 * STARTS * TRIALS * max(TRIAL_ROWS, TRIAL_PER_CLUSTER * count) * count * d on the CPU. Memory: the
    sample's vectors.
    """
    trained = order[: SAMPLE_PER_CLUSTER * count]
    sample = np.empty((len(trained), vectors.shape[1]), np.float32)
    for start in range(0, len(trained), TILE_ROWS):
        sample[start : start + TILE_ROWS] = unit_rows(vectors.take(trained[start : start + TILE_ROWS]))
    if rng is None or count == 1:
        centroids = sample[:count].copy()
    else:
        centroids = _best_start(sample[: START_PER_CLUSTER * count], count, vectors, rng)
    centroids = _trained(sample, centroids, vectors, ITERATIONS if count > 1 else 1)
    return most_similar_centre(vectors, centroids), centroids


def _best_start(sample: Floats, count: int, vectors: Vectors, rng: np.random.Generator) -> Floats:
    """(count, d) the centroids of the start whose sample is most similar to them after a few iterations."""
    best, highest = sample[:count], -np.inf
    for number in range(STARTS):
        centroids = _trained(sample, _start(sample, count, child(rng, number)), vectors, START_ITERATIONS)
        similarity = float(most_similar_centre(_points(sample, vectors), centroids).value.sum())
        if similarity > highest:
            best, highest = centroids, similarity
    return best


def _start(sample: Floats, count: int, rng: np.random.Generator) -> Floats:
    """(count, d) rows of the sample by greedy k-means++. On unit vectors a squared distance is 2 - 2 cosine."""
    rows = rng.permutation(len(sample))
    first, order = rows[:1], np.sort(rows[1:])
    picks = kmeans_pp(
        ArrayBlocks(sample),
        count - 1,
        centres=first,
        order=order,
        rng=rng,
        trials=TRIALS,
        sample=np.sort(rows[1 : max(TRIAL_ROWS, TRIAL_PER_CLUSTER * count) + 1]),
    )
    return np.asarray(sample[np.concatenate([first, picks.rows])])


def _trained(sample: Floats, centroids: Floats, vectors: Vectors, iterations: int) -> Floats:
    """The centroids after at most so many iterations on the sample."""
    centroids = centroids.copy()
    points = _points(sample, vectors)
    for _ in range(iterations):
        total = np.zeros(centroids.shape)
        loops.add_rows(sample, most_similar_centre(points, centroids).place, total)
        length = np.sqrt((total**2).sum(axis=1))
        moved = length > 0  # a centroid without rows stays
        before = centroids.copy()
        centroids[moved] = total[moved] / length[moved, None]
        if (centroids == before).all():
            break
    return centroids


def _points(sample: Floats, vectors: Vectors) -> Points:
    """The sample, on the device of the vectors."""
    points: Points = ArrayBlocks(sample)
    return DeviceCopy(points, vectors.device) if isinstance(vectors, DeviceVectors) else points
