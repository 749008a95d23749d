"""Keep what lies near labelled rows of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.allocation import water_fill
from selection.errors import rows_of_parent
from selection.kernels.neighbor_search import AGGREGATIONS, nearest_of, row_scores
from selection.selectors.kmeans_pp import KMeansPP
from selection.selectors.random import drawn_rows
from selection.selectors.top import highest
from selection.step import Filter, check_choice, check_flag, check_integer
from selection.streams import child
from selection.types import Array, Input, Pool, RetrievedRows, Rows
from selection.vectors import restricted

CHOICES = ("kmeans_pp", "random", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors(Filter):
    """Search the unlabelled rows nearest to a few labelled rows of each class, the anchors (AnchorAL).

    Args:
        n_anchors: anchors of each class; all labelled rows of a class that has no more.
        n_neighbors: unlabelled candidates searched for each anchor.
        rows: keep at most so many. A pool that has no more candidates stays as it is.
        aggregation: what a row found scores: the mean similarity to the anchors that found it ("mean_hits"), the highest
            ("max"), or the mean similarity to all anchors ("mean_all").
        balanced: where more than `rows` were found, each class keeps the best of those nearest to its anchors, as evenly
            as there are any, so that a large class cannot fill the subpool; else the best of all are kept.
        choose: how anchors are chosen in a class: "kmeans_pp" (each drawn by its squared distance to those before),
            "random", or "all" labelled rows.
        local_trials: of `kmeans_pp`; see that step.

    Every round of a recipe draws its anchors anew. Without any label the subpool is `rows` candidates at random. With
    few labels it is small: at most classes * n_anchors * n_neighbors rows. Ties go to the lowest row.

    Searches the vector index where there is one; exact otherwise.

    Cost: classes * n_anchors searches. Memory: 40 bytes for each row found.

    Source: Lesci, Vlachos 2024 (AnchorAL), `anchoral.py`; there without `balanced`.
    """

    n_anchors: int = 10
    n_neighbors: int = 50
    rows: int = 10_000
    aggregation: str = "mean_hits"
    balanced: bool = True
    choose: str = "kmeans_pp"
    local_trials: int = 1
    name: ClassVar[str] = "anchors"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.LABELS})
    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for option in ("n_anchors", "n_neighbors", "rows", "local_trials"):
            check_integer(self.name, option, getattr(self, option), least=1)
        check_choice(self.name, "aggregation", self.aggregation, AGGREGATIONS)
        check_flag(self.name, "balanced", self.balanced)
        check_choice(self.name, "choose", self.choose, CHOICES)

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, RetrievedRows | None]:  # noqa: ARG002
        """See `Filter.apply`; tells of each row its most similar anchor, where there was a search."""
        candidates, labels = pool.candidates, pool.get_labels()
        if candidates.sum() <= self.rows:
            return np.flatnonzero(candidates).astype(np.int64), None
        if not (labels >= 0).any():
            return drawn_rows(pool, self.rows, rng)[0], None
        anchors = self.anchors(pool, rng=rng)
        hits = nearest_of(pool, anchors, self.n_neighbors, candidates & (labels < 0))
        rows, score, best = row_scores(hits, self.aggregation, pool)
        if not self.balanced or len(rows) <= self.rows:
            kept = rows[highest(score, self.rows)]
        else:
            kept = best_of_each(rows, score, labels[anchors[hits.anchor[best]]], self.rows)
        return kept, hits.as_found(self.name, best)

    def anchors(self, pool: Pool, *, rng: np.random.Generator) -> Rows:
        """The rows to search from, class by class."""
        labels, keys = pool.get_labels(), pool.get_keys()
        chosen = [np.empty(0, np.int64)]
        for label in np.unique(labels[labels >= 0]).tolist():
            rows = np.flatnonzero(labels == label).astype(np.int64)
            if self.choose == "all" or len(rows) <= self.n_anchors:
                chosen.append(rows[np.argsort(keys[rows], kind="stable")])
                continue
            # A pool of their own, in which they are candidates.
            of_class = Pool(vectors=restricted(pool.get_vectors(), rows), keys=keys[rows])
            stream = child(rng, label)
            if self.choose == "random":
                picked = drawn_rows(of_class, self.n_anchors, stream)[0]
            else:
                with rows_of_parent(rows):
                    step = KMeansPP(local_trials=self.local_trials)
                    picked = step.select(of_class, self.n_anchors, rng=stream).rows
            chosen.append(rows[picked])
        return np.concatenate(chosen)


def best_of_each(rows: Rows, score: Array, of: Array, count: int) -> Rows:
    """`count` rows, as evenly as possible of each class, the best of each; ties to the lowest class and row.

    Args:
        rows, score, of: (r,) ascending rows, their scores and classes, r >= count.

    >>> best_of_each(np.arange(5), np.array([0.9, 0.8, 0.7, 0.2, 0.1]), np.array([0, 0, 0, 1, 1]), 3)
    array([0, 1, 3])
    """
    classes, place = np.unique(of, return_inverse=True)
    counts = water_fill([0] * len(classes), count, np.bincount(place).tolist())
    members = [np.flatnonzero(place == i) for i in range(len(classes))]
    best = [mine[highest(score[mine], many)] for mine, many in zip(members, counts, strict=True)]
    return rows[np.concatenate(best)]
