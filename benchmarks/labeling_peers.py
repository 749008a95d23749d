"""Labeling strategies of other libraries, which choose rows with their own code: `labeling_default.py --peers`.

They get the vectors and the probabilities of our classifier, so only the choice of rows is theirs. What needs a model
draws its first batch at random, the same rows as our strategies do. Each library is imported when it is asked for; the
extra `bench` has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from active import RANDOM, STRATEGIES, Array, Draw, Task

from selection import ArrayVectors, Pool, select
from selection.learning.classifier import Model


class _Dataset:
    """Vectors as small-text reads a dataset: by row numbers, with a length."""

    def __init__(self, vectors: Array) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: Array) -> _Dataset:
        return _Dataset(self.vectors[rows])


class _SmallTextClassifier:
    def __init__(self, model: Model) -> None:
        self.model = model

    def predict_proba(self, dataset: _Dataset) -> Array:
        return self.model.probabilities(dataset.vectors)


def breaking_ties(task: Task, labelled: Array, models: Sequence[Model | None], rows: int, seed: int) -> Array:
    """small-text's `BreakingTies`: the smallest gap between the two likeliest classes."""
    from small_text import BreakingTies  # type: ignore[import-not-found,unused-ignore]

    if models[-1] is None:
        return _at_random(task, labelled, models, rows, seed)
    left = np.setdiff1d(np.arange(len(task.classes)), labelled)
    return np.asarray(
        BreakingTies().query(
            _SmallTextClassifier(models[-1]), _Dataset(task.vectors), left, labelled, task.classes[labelled], n=rows
        )
    )


def badge(task: Task, labelled: Array, models: Sequence[Model | None], rows: int, seed: int) -> Array:
    """scikit-activeml's `Badge`. Writes gradients out: 8 * n * C * d bytes."""
    from skactiveml.pool import Badge  # type: ignore[import-not-found,unused-ignore]

    if models[-1] is None:
        return _at_random(task, labelled, models, rows, seed)
    query = Badge(random_state=_state(seed, models))
    return np.asarray(
        query.query(task.vectors, _known(task, labelled), _activeml(models[-1]), fit_clf=False, batch_size=rows)
    )


def typiclust_margin(task: Task, labelled: Array, models: Sequence[Model | None], rows: int, seed: int) -> Array:
    """scikit-activeml's `TypiClust` for the first batch, then its `UncertaintySampling` by margin."""
    from skactiveml.pool import TypiClust, UncertaintySampling

    state = _state(seed, models)
    if models[-1] is None or len(models) == 1:
        query = TypiClust(random_state=state, cluster_algo_dict={"random_state": state, "n_init": 1})
        return np.asarray(query.query(task.vectors, _known(task, labelled), batch_size=rows))
    margin = UncertaintySampling(method="margin_sampling", random_state=state)
    return np.asarray(
        margin.query(task.vectors, _known(task, labelled), _activeml(models[-1]), fit_clf=False, batch_size=rows)
    )


PEERS: dict[str, Draw] = {
    "small-text breaking ties": breaking_ties,
    "scikit-activeml badge": badge,
    "scikit-activeml tcm": typiclust_margin,
}


def _at_random(task: Task, labelled: Array, models: Sequence[Model | None], rows: int, seed: int) -> Array:
    pool = Pool(vectors=ArrayVectors(task.vectors), already_selected=labelled)
    return select(STRATEGIES[RANDOM], pool, budget=rows, seed=seed, round=len(models) - 1).rows


def _state(seed: int, models: Sequence[Model | None]) -> int:
    return int(np.random.default_rng([seed, len(models)]).integers(2**31))


def _known(task: Task, labelled: Array) -> Array:
    """(n,) the classes, NaN where there is no label."""
    y = np.full(len(task.classes), np.nan)
    y[labelled] = task.classes[labelled]
    return y


def _activeml(model: Model) -> Any:
    """A fitted classifier of scikit-activeml's that gives the model's probabilities."""
    from skactiveml.base import SkactivemlClassifier  # type: ignore[import-not-found,unused-ignore]

    class Given(SkactivemlClassifier):  # type: ignore[misc,unused-ignore]
        def fit(self, X: Array, y: Array, sample_weight: Array | None = None) -> Any:
            raise NotImplementedError

        def predict_proba(self, X: Array) -> Array:
            return model.probabilities(X)

    return Given()
