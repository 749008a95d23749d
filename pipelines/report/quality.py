"""How well a selection covers the pool and how near it is to the targets, beside random rows and the last selection.

Coverage is measured on a sample of the pool that a seed fixes, so three selections are compared on the same rows and in
a bounded time; the metrics of the selection itself (`coverage_radius` and so on) are of the whole pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.recipes.drawn import Drawn, unit
from pipelines.recipes.spec import SelectionSpec
from pipelines.recipes.targets import example_vectors
from selection.types import Array, Rows
from storage.errors import BadInput, NotInStore
from storage.ids import rows_of
from storage.pool.targets import TargetSet
from storage.vectors.segments import StoredVectors

SEED = 20_251
# Multiply-adds for one selection, which the size of the sample follows; and above which nothing is measured.
COST = 4e8
LARGEST_COST = 1.5e10
LEAST, MOST = 300, 4000
TILE = 4096


def quality(now: Drawn, before: Drawn | None, encoder: str | None) -> dict[str, Any] | None:
    """Coverage and similarity to the targets of a selection, of random rows and of the last selection; None without vectors.

    Of the last selection, the rows that the pool still has.

    Args:
        encoder: the fingerprint of the vectors to measure with, where the selection itself has none.
    """
    encoder = now.spec.encoder or encoder
    if encoder is None or not len(now.rows):
        return None
    try:
        vectors = now.vectors(encoder)
    except NotInStore:
        return None
    n, dimension = vectors.shape
    if LEAST * len(now.rows) * dimension > LARGEST_COST:
        return None
    rng = np.random.default_rng(SEED)
    sample = pool_sample(vectors, len(now.rows), rng)
    parts = _parts(now, before) | {"random": some_rows(rng, n, len(now.rows))}
    chosen = {name: unit(vectors.take(rows)) for name, rows in parts.items()}
    compared = ["selected", "random", *(["before"] if before is not None else [])]
    near = _highest(sample, chosen, compared)
    reach = {name: distances(cosines) for name, cosines in near.items()}
    own = now.spec.encoder == encoder
    return {
        "encoder": encoder,
        "sample_rows": len(sample),
        "pool_rows": n,
        "seed": SEED,
        "coverage": [
            {"measure": "mean distance of a row of the pool to the nearest selected one", "better": "lower"}
            | {name: mean for name, (mean, _) in reach.items()},
            {"measure": "95 of 100 rows of the pool are nearer than", "better": "lower"}
            | {name: most for name, (_, most) in reach.items()},
        ],
        "targets": _targets(now, chosen, compared) if own and now.sees_targets else [],
    }


def pool_sample(vectors: StoredVectors, rows: int, rng: np.random.Generator) -> Array:
    """(s, d) the vectors, of norm 1, of some rows of the pool: fewer, the more rows are to be compared with them."""
    n, dimension = vectors.shape
    sample = unit(vectors.take(some_rows(rng, n, int(np.clip(COST / (rows * dimension), LEAST, MOST)))))
    return sample[sample.any(axis=1)]


def distances(cosines: Array) -> tuple[float, float]:
    """The mean of the Euclidean distances, and the distance below which 95 of 100 lie."""
    lengths = np.sqrt(np.maximum(2 - 2 * cosines, 0))
    return round(float(lengths.mean()), 4), round(float(np.quantile(lengths, 0.95)), 4)


def judging(target_set: TargetSet) -> tuple[str, Rows]:
    """The half of a target set that judges a selection, and its places: those that only measure, where there are some."""
    half = "measuring" if len(target_set.measuring) else "selecting"
    return half, getattr(target_set, half)


def _parts(now: Drawn, before: Drawn | None) -> dict[str, Rows]:
    """The rows that both selections have, those that are new in this one, and those of the last one that are not in it."""
    if before is None:
        return {"kept": np.empty(0, np.int64), "added": now.rows}
    last = rows_of(before.ids, now.snapshot.ids)
    last = last[last >= 0]
    is_kept = np.isin(now.rows, last)
    return {"kept": now.rows[is_kept], "added": now.rows[~is_kept], "dropped": np.setdiff1d(last, now.rows)}


def _highest(examples: Array, chosen: Mapping[str, Array], compared: list[str]) -> dict[str, Array]:
    """Selection -> (m,) the highest cosine of each example to one of its rows; what two selections share is compared once."""
    cosines = {name: highest_cosines(examples, rows) for name, rows in chosen.items()}
    made_of = {"selected": ("kept", "added"), "before": ("kept", "dropped"), "random": ("random",)}
    return {name: np.max([cosines[part] for part in made_of[name]], axis=0) for name in compared}


def highest_cosines(examples: Array, chosen: Array) -> Array:
    """(m,) the highest cosine of each example to a chosen row; both of norm 1.

    Cost: 2*m*b*d operations in float32; a tile of memory.
    """
    best = np.full(len(examples), -1.0, np.float32)
    for start in range(0, len(chosen), TILE):
        np.maximum(best, (examples @ chosen[start : start + TILE].T).max(axis=1), out=best)
    return best


def _targets(now: Drawn, chosen: Mapping[str, Array], compared: list[str]) -> list[dict[str, Any]]:
    """For each target set how near the selections are to its examples: those that only measure, where it has some, else all."""
    measured = []
    for name, targets_id in now.spec.targets.items():
        target_set = now.view.target_set_of(targets_id)
        half, places = judging(target_set)
        examples = _examples(now.spec, now, target_set, places)
        if examples is not None:
            near = _highest(examples, chosen, compared)
            values = {key: round(float(cosines.mean()), 4) for key, cosines in near.items()}
            measured.append({"target_set": name, "half": half, "examples": len(places), **values})
    return measured


def _examples(spec: SelectionSpec, now: Drawn, target_set: Any, places: Rows) -> Array | None:
    try:
        return unit(example_vectors(now.view, spec, target_set, places))
    except (BadInput, NotInStore):
        return None


def some_rows(rng: np.random.Generator, n: int, size: int) -> Rows:
    """Some rows of n at random, ascending."""
    return np.sort(rng.choice(n, min(size, n), replace=False))
