"""winnow's k-means beside scikit-learn's, on even blobs: `python benchmarks/kmeans.py [--seeds N]`.

Rows lie around separate directions, 200 for each. A blob is found if it is one cluster but for a tenth of its rows.
Inertia is the sum of squared distances of the unit vectors to their cluster's mean direction, as a share of that of the
true blobs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from selection import ArrayVectors
from selection.kernels.clusters import hashed_order, spherical_clusters
from selection.noise import hash_bits

Array = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

DIMENSIONS = 64
NOISE = 0.8
ROWS_PER_BLOB = 200


def blobs(count: int, seed: int) -> tuple[Array, Places]:
    """Unit vectors around `count` directions, and which direction each is of."""
    rng = np.random.default_rng(seed)
    true = rng.permutation(np.repeat(np.arange(count), ROWS_PER_BLOB))
    centres = rng.standard_normal((count, DIMENSIONS))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = centres[true] + NOISE * rng.standard_normal((len(true), DIMENSIONS)) / DIMENSIONS**0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), true


def winnow(vectors: Array, count: int, seed: int) -> Places:
    """Spherical k-means with winnow's starts."""
    keys = np.arange(len(vectors), dtype=np.uint64)
    known = ArrayVectors(vectors)
    order = hashed_order(known, hash_bits(keys, np.random.default_rng([seed, 0])))
    return spherical_clusters(known, order, count, rng=np.random.default_rng([seed, 1]))[0].place


def winnow_0_2(vectors: Array, count: int, seed: int) -> Places:
    """As winnow 0.2 did it: one start, of rows at random."""
    order = np.random.default_rng([seed, 0]).permutation(len(vectors))
    return spherical_clusters(ArrayVectors(vectors), order, count, rng=None)[0].place


def sklearn(starts: int) -> Callable[[Array, int, int], Places]:
    """scikit-learn's k-means++ with so many starts."""

    def run(vectors: Array, count: int, seed: int) -> Places:
        from sklearn.cluster import KMeans

        return np.asarray(KMeans(count, n_init=starts, random_state=seed).fit_predict(vectors), np.int64)

    return run


def count_found(true: Places, places: Places) -> int:
    """How many of the blobs are one cluster each, but for a tenth of their rows."""
    shared = np.zeros((true.max() + 1, places.max() + 1))
    np.add.at(shared, (true, places), 1)
    most = shared.argmax(axis=1)
    best = shared.max(axis=1)
    return int(((best > 0.9 * shared.sum(axis=1)) & (best > 0.9 * shared.sum(axis=0)[most])).sum())


def inertia(vectors: Array, places: Places) -> float:
    """The sum of squared distances to the mean direction of each cluster."""
    lengths = [np.linalg.norm(vectors[places == place].sum(axis=0, dtype=np.float64)) for place in np.unique(places)]
    return 2 * (len(vectors) - float(np.sum(lengths)))


METHODS: dict[str, Callable[[Array, int, int], Places]] = {
    "winnow": winnow,
    "winnow 0.2: one start at random": winnow_0_2,
    "scikit-learn, 1 start": sklearn(1),
    "scikit-learn, 10 starts": sklearn(10),
    "scikit-learn, 20 starts": sklearn(20),
}


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", type=int, default=10)
    seeds = arguments.parse_args().seeds
    print(f"{'blobs':>6}  {'':<34}{'found':>7}{'inertia':>9}{'cpu s a run':>13}")
    for count in (10, 20):
        for name, method in METHODS.items():
            method(*blobs(count, 99)[:1], count, 99)  # compiles
            n_found, share, cpu_s = 0, 0.0, 0.0
            for seed in range(seeds):
                vectors, true = blobs(count, seed)
                began = time.process_time()
                places = method(vectors, count, seed)
                cpu_s += time.process_time() - began
                n_found += count_found(true, places)
                share += inertia(vectors, places) / inertia(vectors, true)
            print(
                f"{count:>6}  {name:<34}{n_found / seeds:>7.1f}{share / seeds:>9.3f}{cpu_s / seeds:>13.3f}", flush=True
            )


if __name__ == "__main__":
    main()
