"""Maps of the pool, a selection and the targets: where they lie in the two directions that tell most rows apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.recipes.drawn import Drawn, unit
from pipelines.recipes.explain import excerpt
from pipelines.recipes.targets import example_vectors
from selection.types import Floats, Rows
from storage.errors import BadInput, NotInStore
from storage.ids import Ids
from storage.pool.content import text_of
from storage.pool.targets import TargetSet
from storage.vectors.projection import SAMPLE, SEED, Projection, fit_projection

# Points of a report, over all recipes; a density picture of so many cells a side; rows that the picture is made of.
POINTS, CELLS, PICTURE_ROWS = 5000, 56, 20_000
TARGETS_SHARE = 0.2
TEXT = 110


class Map:
    """The map of an encoder on one snapshot.

    Attributes:
        document: encoder, method, explained (share of the variance), frame, cells (a side), density ([column, row, rows
            of the sample]), pool_rows, sampled_rows, fitted_on.
    """

    def __init__(self, drawn: Drawn, encoder: str) -> None:
        self.encoder = encoder
        vectors = drawn.vectors(encoder)
        rng = np.random.default_rng(SEED)
        n = vectors.shape[0]
        rows = np.sort(rng.choice(n, min(n, PICTURE_ROWS), replace=False))
        # As stored, which is as good as of norm 1 for a picture.
        sample = np.asarray(vectors.take(rows), np.float32)
        sample = sample[sample.any(axis=1)]
        fitted = sample[np.sort(rng.choice(len(sample), min(len(sample), SAMPLE), replace=False))]
        self.plane: Projection = fit_projection(drawn.store, encoder, fitted, drawn.snapshot.id)
        left, right, bottom, top = self.plane.frame
        places = self.plane.project(sample)
        x, y = places.T.astype(np.float64)
        density, _, _ = np.histogram2d(x, y, bins=CELLS, range=[(left, right), (bottom, top)])
        columns, lines = np.nonzero(density)
        self.document: dict[str, Any] = {
            "encoder": encoder,
            "map": self.plane.name,
            "method": "pca",
            "explained": self.plane.explained,
            "frame": [round(edge, 5) for edge in self.plane.frame],
            "cells": CELLS,
            "density": np.stack([columns, lines, density[columns, lines]], axis=1).astype(int).tolist(),
            "pool_rows": n,
            "sampled_rows": len(sample),
        }

    def points(self, drawn: Drawn, rows: Rows) -> list[list[float]]:
        """x, y of some rows of the snapshot."""
        return _rounded(self.plane.project(unit(drawn.vectors(self.encoder).take(rows))))


def pool_map(drawn: Drawn, encoder: str) -> Map | None:
    """The map of an encoder; None where rows have no vector of it."""
    try:
        return Map(drawn, encoder)
    except (NotInStore, ValueError):
        return None


def shown_places(drawn: Drawn, points: int) -> Rows:
    """The places of the picks that a map shows: all of them, or a seeded part, in pick order."""
    if len(drawn.ids) <= points:
        return np.arange(len(drawn.ids))
    return np.sort(np.random.default_rng(SEED).choice(len(drawn.ids), points, replace=False))


def selected_points(pool: Map, drawn: Drawn, places: Rows, texts: Mapping[bytes, str]) -> list[list[Any]]:
    """x, y, rank and text of some picks; those without a vector are left out."""
    kept = drawn.rows[places] >= 0
    places = places[kept]
    ids: Ids = drawn.ids[places]
    located = pool.points(drawn, drawn.rows[places])
    return [
        [*xy, int(place) + 1, texts.get(id_, "")]
        for xy, place, id_ in zip(located, places.tolist(), ids.tolist(), strict=True)
    ]


def target_points(pool: Map, drawn: Drawn, points: int) -> list[list[Any]]:
    """x, y, target set and text of the targets that the selection was drawn for; a seeded part where they are many."""
    shown: list[list[Any]] = []
    for name, target_set, places in located_targets(pool, drawn):
        texts = [excerpt(text_of(target_set.conversations[place]), TEXT) for place in target_set.selecting.tolist()]
        shown += [[*point, name, text] for point, text in zip(_rounded(places), texts, strict=True)]
    return _some(shown, points)


def located_targets(pool: Map, drawn: Drawn) -> Iterator[tuple[str, TargetSet, Floats]]:
    """Each target set that the selection was drawn for, with the (m, 2) places of its selecting examples; none without vectors."""
    if not drawn.sees_targets or drawn.spec.encoder != pool.encoder:
        return
    for name, targets_id in drawn.spec.targets.items():
        target_set = drawn.view.target_set_of(targets_id)
        try:
            vectors = unit(example_vectors(drawn.view, drawn.spec, target_set, target_set.selecting))
        except (BadInput, NotInStore):
            continue
        yield name, target_set, pool.plane.project(vectors)


def _some(points: Sequence[list[Any]], count: int) -> list[list[Any]]:
    if len(points) <= count:
        return list(points)
    chosen = np.sort(np.random.default_rng(SEED).choice(len(points), count, replace=False))
    return [points[place] for place in chosen.tolist()]


def _rounded(places: Any) -> list[list[float]]:
    return [[round(x, 4), round(y, 4)] for x, y in places.tolist()]
