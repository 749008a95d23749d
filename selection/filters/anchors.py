"""Keep the rows that are near labelled rows of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.allocation import water_fill
from selection.blocks import restricted
from selection.errors import rows_of_parent
from selection.kernels.anchor_search import AGGREGATIONS, nearest_of, row_scores, search_vectors
from selection.kernels.ranking import highest
from selection.pool import Pool
from selection.selectors.kmeans_pp import KMeansPP
from selection.selectors.random import drawn_rows
from selection.step import Filter, check_choice, check_flag, check_integer, check_version
from selection.streams import child
from selection.types import Array, Input, RetrievedRows, Rows

CHOICES = ("kmeans_pp", "random", "all")  # allowed values of `choose`


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors(Filter):
    """Keep the unlabelled candidates nearest to a few labelled rows of each class, the anchors (AnchorAL).

    Args:
        n_anchors: how many anchors each class has; all of its labelled rows if there are no more.
        n_neighbors: how many unlabelled candidates each anchor retrieves.
        rows: the most candidates to keep. A pool with no more candidates than that stays as it is.
        aggregation: the score of a retrieved row: its mean similarity to the anchors that retrieved it ("mean_hits"),
            its highest similarity to any of them ("max"), or its mean similarity to all anchors ("mean_all").
        balanced: if more than `rows` candidates were retrieved, share `rows` as evenly as possible among the classes,
            so that a large class cannot fill the subpool. A row counts for the class of its most similar anchor, and
            each class keeps its best rows. Without `balanced` the best of all rows are kept.
        choose: how the anchors of a class are chosen: "kmeans_pp" (each drawn by its squared distance to the previous
            ones), "random", or "all" labelled rows.
        local_trials: an option of `kmeans_pp`; see that step.
        version: 1 searches stored vectors as they are, rounded, without dividing by their lengths, as winnow 0.2 did.

    Each round of a recipe draws new anchors. If no row is labelled, the subpool is `rows` candidates at random. With
    few labels it is small: at most classes * n_anchors * n_neighbors rows. Ties go to the lowest row.

    Searches the vector index if there is one; exact otherwise.

    Not for: rows of a kind that nobody has labelled yet: they are unlike every anchor, and stay out.

    Cost: classes * n_anchors searches. Memory: 40 bytes for each retrieved row.

    Source: Lesci, Vlachos 2024 (AnchorAL), `anchoral.py`, which has no `balanced`.
    """

    n_anchors: int = 10
    n_neighbors: int = 50
    rows: int = 10_000
    aggregation: str = "mean_hits"
    balanced: bool = True
    choose: str = "kmeans_pp"
    local_trials: int = 1
    version: int = 2
    name: ClassVar[str] = "anchors"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.LABELS})
    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for option in ("n_anchors", "n_neighbors", "rows", "local_trials"):
            check_integer(self.name, option, getattr(self, option), least=1)
        check_choice(self.name, "aggregation", self.aggregation, AGGREGATIONS)
        check_flag(self.name, "balanced", self.balanced)
        check_choice(self.name, "choose", self.choose, CHOICES)
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """Every similarity is another."""
        return self.version

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, RetrievedRows | None]:  # noqa: ARG002
        """See `Filter.apply`; reports the most similar anchor of each row, if there was a search."""
        candidates, labels = pool.candidates, pool.get_labels()
        if candidates.sum() <= self.rows:
            return np.flatnonzero(candidates).astype(np.int64), None
        if not (labels >= 0).any():
            return drawn_rows(pool, self.rows, rng)[0], None
        anchors = self.anchors(pool, rng=rng)
        vectors = search_vectors(pool, self.version)
        neighbors = nearest_of(vectors, anchors, self.n_neighbors, candidates & (labels < 0))
        rows, score, best = row_scores(neighbors, self.aggregation, vectors)
        if not self.balanced or len(rows) <= self.rows:
            kept = rows[highest(score, self.rows)]
        else:
            kept = best_of_each_class(rows, score, labels[anchors[neighbors.anchor[best]]], self.rows)
        return kept, neighbors.as_retrieved(self.name, best)

    def anchors(self, pool: Pool, *, rng: np.random.Generator) -> Rows:
        """The rows to search from, class by class."""
        labels, keys = pool.get_labels(), pool.get_keys()
        chosen = [np.empty(0, np.int64)]
        for label in np.unique(labels[labels >= 0]).tolist():
            rows = np.flatnonzero(labels == label).astype(np.int64)
            if self.choose == "all" or len(rows) <= self.n_anchors:
                chosen.append(rows[np.argsort(keys[rows], kind="stable")])
                continue
            # In the whole pool labelled rows may not be candidates; in a pool of their own they are.
            class_pool = Pool(vectors=restricted(pool.get_vectors(), rows), keys=keys[rows])
            stream = child(rng, label)
            if self.choose == "random":
                picks = drawn_rows(class_pool, self.n_anchors, stream)[0]
            else:
                with rows_of_parent(rows):
                    step = KMeansPP(local_trials=self.local_trials)
                    picks = step.select(class_pool, self.n_anchors, rng=stream).rows
            chosen.append(rows[picks])
        return np.concatenate(chosen)


def best_of_each_class(rows: Rows, score: Array, labels: Array, count: int) -> Rows:
    """`count` rows, as evenly as possible from each class, the best of each; ties to the lowest class and row.

    Args:
        rows, score, labels: (r,) ascending rows, their scores and classes, r >= count.

    >>> best_of_each_class(np.arange(5), np.array([0.9, 0.8, 0.7, 0.2, 0.1]), np.array([0, 0, 0, 1, 1]), 3)
    array([0, 1, 3])
    """
    sizes = np.unique(labels, return_counts=True)[1].tolist()
    counts = water_fill([0] * len(sizes), count, sizes)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    best = [places[highest(score[places], share)] for places, share in zip(members, counts, strict=True)]
    return rows[np.concatenate(best)]
