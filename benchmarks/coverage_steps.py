"""Coverage selectors against their peers, on the same vectors in one run.

    python benchmarks/coverage_steps.py                 # all cases but the large ones
    python benchmarks/coverage_steps.py --all --limit 1200
    python benchmarks/coverage_steps.py k_center kmeans_pp_1M --threads 1 2 --embeddings vectors.npy

How methods are run and compared: see compare.py.
"""

from __future__ import annotations

import collections
import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from compare import Array, Case, Method, main

from selection import ArrayVectors, Pool, select
from selection.filters.semdedup import SemDedup
from selection.metrics import coverage

# How far apart duplicates may be for semdedup, and how many rows of its case are a copy of another, moved by EPS / 2.
EPS = 0.01
COPIES = 0.2


def winnow(step: str, **options: Any) -> Method:
    """One step of winnow, as a method to measure."""

    def run(vectors: Array, budget: int) -> Array:
        pool = Pool(vectors=ArrayVectors(vectors))
        return np.asarray(select([{step: options}], pool, budget=budget).rows)

    return run


def semdedup(eps: float = EPS, **options: Any) -> Method:
    """(2, dropped): the rows that semdedup drops, and the row that each is a duplicate of."""

    def run(vectors: Array, _budget: int) -> Array:
        pool = Pool(vectors=ArrayVectors(vectors))
        duplicates = SemDedup(eps=eps, **options).duplicates(pool, rng=np.random.default_rng(0))
        return np.stack([duplicates.row, duplicates.of])

    return run


def without_bytes(vectors: Array, budget: int) -> Array:
    """k_center as on a processor without an instruction for products of bytes; each method has a process of its own."""
    from selection.kernels.compiled import quantized

    quantized.has_instruction = lambda: False
    return K_CENTER(vectors, budget)


def without_sketches(vectors: Array, budget: int) -> Array:
    """As `without_bytes`, and without sketches: k_center that multiplies whole vectors only."""
    from selection.kernels import k_center

    k_center.SKETCH_BUDGET = sys.maxsize
    return without_bytes(vectors, budget)


# The peers of k_center begin with row 0, as "first" below.


def float64_greedy(vectors: Array, budget: int) -> Array:
    """The definition: float64 differences, squared and summed."""
    nearest = np.full(len(vectors), np.inf)
    rows = [0]
    wide = vectors.astype(np.float64)
    for _ in range(budget - 1):
        np.minimum(nearest, ((wide - wide[rows[-1]]) ** 2).sum(axis=1), out=nearest)
        rows.append(int(nearest.argmax()))
    return np.array(rows)


def numpy_greedy(vectors: Array, budget: int) -> Array:
    """One matrix-vector product a pick."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    nearest = np.full(len(vectors), np.inf, np.float32)
    rows = [0]
    for _ in range(budget - 1):
        centre = rows[-1]
        np.minimum(nearest, squares + squares[centre] - 2 * (vectors @ vectors[centre]), out=nearest)
        rows.append(int(nearest.argmax()))
    return np.array(rows)


def numba_greedy(vectors: Array, budget: int) -> Array:
    """The same in numba: distance and minimum in one loop over the rows."""
    return np.asarray(_numba_loop()(vectors, budget))


@functools.cache
def _numba_loop() -> Callable[[Array, int], Array]:
    from numba import njit, prange

    @njit(parallel=True, fastmath=True)
    def greedy(vectors, budget):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        n, d = vectors.shape
        nearest = np.full(n, np.inf, np.float32)
        rows = np.zeros(budget, np.int64)
        for t in range(1, budget):
            centre = vectors[rows[t - 1]]
            for i in prange(n):
                total = np.float32(0)
                for f in range(d):
                    difference = vectors[i, f] - centre[f]
                    total += difference * difference
                nearest[i] = min(nearest[i], total)
            rows[t] = np.argmax(nearest)
        return rows

    return greedy  # type: ignore[no-any-return]


def quickfps(vectors: Array, budget: int) -> Array:
    """torch-quickfps: exact, buckets of a k-d tree."""
    import torch
    import torch_quickfps  # type: ignore[import-not-found,unused-ignore]

    x = torch.from_numpy(vectors)[None]
    return torch_quickfps.sample_idx(x, budget, start_idx=0)[0].numpy()  # type: ignore[no-any-return]


def fpsample_exact(vectors: Array, budget: int) -> Array:
    """fpsample: exact, plain."""
    import fpsample  # type: ignore[import-not-found,unused-ignore]

    return np.asarray(fpsample.fps_sampling(vectors, budget, start_idx=0))


def fpsample_kdline(vectors: Array, budget: int) -> Array:
    """fpsample: exact, buckets of a k-d line."""
    import fpsample

    return np.asarray(fpsample.bucket_fps_kdline_sampling(vectors, budget, h=7, start_idx=0))


def activeml(vectors: Array, budget: int) -> Array:
    """scikit-activeml's CoreSet, with row 0 labelled."""
    from skactiveml.pool import CoreSet  # type: ignore[import-not-found,unused-ignore]

    labels = np.full(len(vectors), np.nan)
    labels[0] = 0
    query = CoreSet(random_state=0).query(vectors, labels, batch_size=budget - 1)
    return np.concatenate([[0], np.asarray(query)])


def sklearn_seeding(trials: int | None) -> Method:
    """scikit-learn's k-means++; `trials` None is its default, 2 + ln(budget)."""

    def run(vectors: Array, budget: int) -> Array:
        from sklearn.cluster import kmeans_plusplus

        return np.asarray(kmeans_plusplus(vectors, budget, random_state=0, n_local_trials=trials)[1])

    return run


def apricot_lazy(vectors: Array, budget: int) -> Array:
    """Apricot's lazy greedy on the matrix of (1 + cosine) / 2, which it holds in float64."""
    from apricot import FacilityLocationSelection  # type: ignore[import-not-found,unused-ignore]

    similar = (1 + vectors @ vectors.T) / 2
    return np.asarray(FacilityLocationSelection(budget, metric="precomputed", optimizer="lazy").fit(similar).ranking)


def numpy_herding(vectors: Array, budget: int) -> Array:
    """One matrix-vector product a pick."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    mean = vectors.mean(axis=0, dtype=np.float64)
    total = np.zeros_like(mean)
    rows: list[int] = []
    for t in range(budget):
        lacking = ((t + 1) * mean - total).astype(np.float32)
        square = squares - 2 * (vectors @ lacking)
        square[rows] = np.inf
        rows.append(int(square.argmin()))
        total += vectors[rows[-1]]
    return np.array(rows)


def literal_vote_k(vectors: Array, budget: int) -> Array:
    """Vote-k as it is published, 150 neighbours: scikit-learn's cosines a row at a time, every score summed anew before every pick."""
    from sklearn.metrics.pairwise import cosine_similarity

    voters: dict[int, list[int]] = collections.defaultdict(list)
    for row in range(len(vectors)):
        similarity = cosine_similarity(vectors, vectors[row : row + 1])[:, 0]
        for near in np.argsort(similarity).tolist()[-151:]:
            if near != row:
                voters[near].append(row)
    times: dict[int, int] = collections.defaultdict(int)
    picked: list[int] = []
    for _ in range(budget):
        scores: dict[int, float] = {}
        for row in sorted(voters):
            if row not in picked:
                scores[row] = sum(10 ** -times[voter] for voter in voters[row] if voter not in picked)
        picked.append(max(scores, key=lambda row: scores[row]))
        for voter in voters[picked[-1]]:
            times[voter] += 1
    return np.array(picked)


def literal_influence(vectors: Array, budget: int) -> Array:
    """IDEAL's greedy search, 10 neighbours: ten new cascades for each row before each pick (a row hit twice counts once)."""
    rng = np.random.default_rng(0)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    near = np.argsort(-similarity, axis=1)[:, :10]
    weight = np.maximum(np.take_along_axis(similarity, near, 1), 0)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)
    picked: list[int] = []
    for _ in range(budget):
        reached = [
            -1.0 if row in picked else sum(_cascade(near, weight, [*picked, row], rng) for _ in range(10))
            for row in range(len(vectors))
        ]
        picked.append(int(np.argmax(reached)))
    return np.array(picked)


def _cascade(near: Array, weight: Array, rows: list[int], rng: np.random.Generator) -> int:
    seen, waiting = set(rows), list(rows)
    while waiting:
        row = waiting.pop()
        for neighbor in near[row][rng.random(near.shape[1]) < weight[row]].tolist():
            if neighbor not in seen:
                seen.add(neighbor)
                waiting.append(neighbor)
    return len(seen)


def same_note(_vectors: Array, rows: Array, peer: Array | None) -> str:
    """How far the picks are the peer's."""
    return "" if peer is None else f"first {int(np.append(peer != rows, True).argmax())} of {len(rows)} as the peer's"


def reach_note(vectors: Array, rows: Array, _peer: Array | None) -> str:
    """How many rows the picks reach, in samples that none of the methods has seen."""
    from selection.kernels.graph_greedy import spread
    from selection.kernels.neighbor_graph import cosines, nearest_neighbours
    from selection.selectors.influence import edge_weights, live_edges

    known = ArrayVectors(vectors)
    near = nearest_neighbours(known, 10)
    weight, keys = edge_weights(cosines(known, near)), np.arange(len(vectors), dtype=np.uint64)
    reached = []
    for seed in range(20):
        live = live_edges(near, weight, keys, np.random.default_rng([7, seed, 0, 0]))
        reached.append(spread(near, live, np.sort(rows), len(rows), taken=rows[:0])[1].sum())
    return f"reach {np.mean(reached):.1f} rows"


def value_note(vectors: Array, rows: Array, _peer: Array | None) -> str:
    """The mean over the pool of the highest (1 + cosine) / 2 to a picked row."""
    return f"mean similarity {coverage(vectors, rows).mean_similarity:.6f}"


def mean_note(vectors: Array, rows: Array, peer: Array | None) -> str:
    """Also the distance of the rows' mean from that of all."""
    apart = vectors.mean(axis=0, dtype=np.float64) - vectors[rows].mean(axis=0, dtype=np.float64)
    note = same_note(vectors, rows, peer)
    return f"{note}{', ' if note else ''}means {np.linalg.norm(apart):.6f} apart"


def held_out_note(vectors: Array, rows: Array, _peer: Array | None) -> str:
    """The mean over 20,000 rows, drawn apart from the references, of the highest (1 + cosine) / 2 to a picked row."""
    sample = np.random.default_rng(99).choice(len(vectors), min(20_000, len(vectors) // 2), replace=False)
    together = np.concatenate([vectors[np.sort(sample)], vectors[np.sort(rows)]])
    similar = coverage(together, np.arange(len(sample), len(together))).facility_location - len(rows)
    return f"mean similarity {similar / len(sample):.6f} on held-out rows"


def dropped_note(vectors: Array, dropped: Array, _peer: Array | None) -> str:
    """How many rows were dropped, whether each for a kept one, and the lowest cosine of such a pair."""
    least = 1.0
    for start in range(0, dropped.shape[1], 8192):
        x, y = (vectors[rows].astype(np.float64) for rows in dropped[:, start : start + 8192])
        length = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
        least = min(least, float(((x * y).sum(axis=1) / length).min()))
    stays = "each for a kept row" if not np.isin(dropped[1], dropped[0]).any() else "some for a dropped row"
    return f"{dropped.shape[1]} dropped, {stays} of cosine >= {least:.6f}"


def cost(vectors: Array, rows: Array) -> tuple[float, float]:
    """The sum of squared distances to the nearest row, and the largest distance."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    total, largest = 0.0, 0.0
    for start in range(0, len(vectors), 4096):
        block = vectors[start : start + 4096]
        nearest = squares[rows] - 2 * (block @ vectors[rows].T)
        nearest = np.maximum(nearest.min(axis=1) + squares[start : start + 4096], 0)
        total += float(nearest.sum(dtype=np.float64))
        largest = max(largest, float(nearest.max()))
    return total, largest**0.5


def radius_note(vectors: Array, rows: Array, peer: Array | None) -> str:
    """How far the picks agree with the peer's, and the radius."""
    same = "" if peer is None else f"first {int(np.append(peer != rows, True).argmax())} as the peer's, "
    return f"{same}radius {cost(vectors, rows)[1]:.5f}"


def greedy_note(vectors: Array, rows: Array, peer: Array | None) -> str:
    """Also the smallest share of the largest distance that a pick had, found by a plain pass over the rows for each."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    nearest = np.full(len(vectors), np.inf, np.float32)
    least = 1.0
    for centre, pick in itertools.pairwise(rows):
        np.minimum(nearest, squares + squares[centre] - 2 * (vectors @ vectors[centre]), out=nearest)
        least = min(least, float(np.sqrt(nearest[pick] / nearest.max())))
    return f"{radius_note(vectors, rows, peer)}, picks >= {least:.7f} of the farthest"


def cost_note(vectors: Array, rows: Array, _peer: Array | None) -> str:
    """The k-means cost."""
    return f"cost {cost(vectors, rows)[0]:.1f}"


K_CENTER = winnow("k_center", first=0)
KMEANS_PP = winnow("kmeans_pp", first=0)
TREES: dict[str, Method] = {
    "torch-quickfps": quickfps,
    "fpsample": fpsample_exact,
    "fpsample k-d line": fpsample_kdline,
}
TREE_MODULES = {"torch-quickfps": "torch_quickfps", "fpsample": "fpsample", "fpsample k-d line": "fpsample"}
PLAIN: dict[str, Method] = {"numpy": numpy_greedy, "numba": numba_greedy}


def make_vectors(path: Path, n: int, dimensions: int, spectrum: float, copies: float, dtype: str) -> None:
    """Unit vectors in 200 clusters of very different sizes; feature f has a spread of f ** -spectrum; a share are near copies."""
    rng = np.random.default_rng(0)
    spread = np.arange(1, dimensions + 1, dtype=np.float32) ** -spectrum
    centres = rng.standard_normal((200, dimensions)).astype(np.float32)
    share = 1 / np.arange(1, 201)
    vectors = np.lib.format.open_memmap(path, "w+", dtype, (n, dimensions))
    for start in range(0, n, 16384):
        which = rng.choice(200, size=min(16384, n - start), p=share / share.sum())
        noise = rng.standard_normal((len(which), dimensions), dtype=np.float32)
        block = spread * (centres[which] + 0.75 * noise)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        copied = rng.random(len(block)) < copies
        if copied.any():
            moved = rng.standard_normal((int(copied.sum()), dimensions), dtype=np.float32) * (EPS / dimensions) ** 0.5
            block[copied] = block[rng.integers(len(block), size=len(moved))] + moved
            block /= np.linalg.norm(block, axis=1, keepdims=True)
        vectors[start : start + len(block)] = block


def coverage_case(
    n: int, budget: int, dimensions: int, methods: dict[str, Method], peer: str, note: Callable[..., str] | None = None,
    *, spectrum: float = 0.0, copies: float = 0.0, modules: dict[str, str] | None = None, extra: bool = False,
    dtype: str = "float32",
) -> Case:  # fmt: skip
    """A case over n vectors, see `make_vectors`."""
    return Case(
        title=f"{n} rows x {dimensions} {dtype}",
        budget=budget,
        make=lambda folder: make_vectors(folder / "vectors.npy", n, dimensions, spectrum, copies, dtype),
        arrays=("vectors",),
        methods=methods,
        peer=peer,
        note=note or (lambda *_: ""),
        modules=modules or {},
        extra=extra,
        rows=n if dimensions > 3 and dtype == "float32" else 0,
    )


# Another step adds its cases here.
CASES: dict[str, Case] = {
    "k_center_5k": coverage_case(
        5_000, 500, 384, {"winnow k_center": K_CENTER, "float64": float64_greedy}, "float64", greedy_note
    ),
    "k_center": coverage_case(
        100_000, 1000, 384, {"winnow k_center": K_CENTER, **PLAIN, **TREES}, "numpy", greedy_note, modules=TREE_MODULES
    ),
    "k_center_spectrum": coverage_case(
        100_000, 1000, 384, {"winnow k_center": K_CENTER, **PLAIN}, "numpy", radius_note, spectrum=0.7
    ),
    "k_center_sketches": coverage_case(
        100_000, 10_000, 384,
        {"winnow k_center": K_CENTER, "winnow, sketches": without_bytes, "without sketches": without_sketches},
        "without sketches",
        same_note, spectrum=0.7, extra=True,
    ),
    "k_center_low": coverage_case(
        100_000, 1000, 3, {"winnow k_center": K_CENTER, **PLAIN, **TREES}, "numpy", radius_note, modules=TREE_MODULES
    ),
    "k_center_10k": coverage_case(
        10_000, 1000, 384, {"winnow k_center": K_CENTER, "scikit-activeml": activeml}, "scikit-activeml", radius_note,
        modules={"scikit-activeml": "skactiveml"},
    ),
    "kmeans_pp": coverage_case(
        50_000, 1000, 384, {"winnow kmeans_pp": KMEANS_PP, "scikit-learn, 1 trial": sklearn_seeding(1)},
        "scikit-learn, 1 trial", cost_note,
    ),
    "kmeans_pp_trials": coverage_case(
        10_000, 1000, 384,
        {"winnow kmeans_pp": KMEANS_PP, "winnow kmeans_pp, 8 trials": winnow("kmeans_pp", first=0, local_trials=8),
         "scikit-learn, 8 trials": sklearn_seeding(None)},
        "scikit-learn, 8 trials", cost_note,
    ),
    "facility_location": coverage_case(
        10_000, 1000, 384, {"winnow facility_location": winnow("facility_location"), "apricot": apricot_lazy}, "apricot",
        value_note, modules={"apricot": "apricot"},
    ),
    "facility_location_1M": coverage_case(
        1_000_000, 1000, 384,
        {"winnow, 2048 references": winnow("facility_location", mode="reference", n_ref=2048),
         "winnow k_center": K_CENTER, "winnow random": winnow("random")},
        "", held_out_note, extra=True,
    ),
    "herding": coverage_case(
        100_000, 1000, 384,
        {"winnow herding": winnow("herding"), "numpy": numpy_herding, "winnow random": winnow("random")}, "numpy", mean_note,
    ),
    "herding_spectrum": coverage_case(
        100_000, 1000, 384, {"winnow herding": winnow("herding"), "numpy": numpy_herding}, "numpy", mean_note, spectrum=0.7
    ),
    "semdedup": coverage_case(200_000, 0, 384, {"winnow semdedup": semdedup()}, "", dropped_note, copies=COPIES),
    # What the clusters miss of all pairs.
    "semdedup_pairs": coverage_case(
        100_000, 0, 384,
        {"winnow semdedup": semdedup(prefer="random"), "winnow semdedup, 1 cluster": semdedup(prefer="random", n_clusters=1),
         "winnow semdedup, eps .05": semdedup(0.05, prefer="random"),
         "winnow semdedup, eps .05, 1 cluster": semdedup(0.05, prefer="random", n_clusters=1)},
        "", dropped_note, copies=COPIES, extra=True,
    ),
    "vote_k": coverage_case(2_000, 18, 384, {"winnow vote_k": winnow("vote_k"), "published": literal_vote_k}, "published", same_note),
    "vote_k_20k": coverage_case(20_000, 200, 384, {"winnow vote_k": winnow("vote_k")}, "", extra=True),
    "influence": coverage_case(
        1_000, 10, 384, {"winnow influence": winnow("influence"), "ten cascades a look": literal_influence},
        "ten cascades a look", reach_note,
    ),
    "influence_20k": coverage_case(20_000, 200, 384, {"winnow influence": winnow("influence")}, "", reach_note, extra=True),
    "probcover_20k": coverage_case(20_000, 200, 384, {"winnow probcover": winnow("probcover", delta=0.7)}, "", extra=True),
    "k_center_1M": coverage_case(1_000_000, 10_000, 384, {"winnow k_center": K_CENTER}, "", spectrum=0.7, extra=True),
    # As the store keeps vectors.
    "k_center_1M_float16": coverage_case(
        1_000_000, 10_000, 384, {"winnow k_center": K_CENTER}, "", spectrum=0.7, extra=True, dtype="float16"
    ),
    "k_center_10M_float16": coverage_case(
        10_000_000, 10_000, 128, {"winnow k_center": K_CENTER}, "", spectrum=0.7, extra=True, dtype="float16"
    ),
    "kmeans_pp_1M": coverage_case(1_000_000, 10_000, 384, {"winnow kmeans_pp": KMEANS_PP}, "", spectrum=0.7, extra=True),
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(CASES, str(__doc__)))
