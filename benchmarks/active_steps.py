"""Steps of active learning against their peers, on the same inputs in one run.

    python benchmarks/active_steps.py                 # all cases
    python benchmarks/active_steps.py entropy_1M --threads 1

How methods are run and compared: see compare.py.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from compare import Array, Case, Method, main

from selection import Pool, select


def winnow(step: str, **options: Any) -> Method:
    """A step on probabilities, as a method to measure."""

    def run(probabilities: Array, budget: int) -> Array:
        return np.asarray(select([{step: options}], Pool(probabilities=probabilities), budget=budget).rows)

    return run


def numpy_entropy(probabilities: Array, budget: int) -> Array:
    """The raw pass: no check, no 0 log 0, ties as they fall, in float32."""
    entropy = -(probabilities * np.log(probabilities)).sum(axis=1)
    return np.argpartition(-entropy, budget)[:budget]


def activeml_entropy(probabilities: Array, budget: int) -> Array:
    """scikit-activeml, with a classifier that gives the probabilities."""
    from skactiveml.pool import UncertaintySampling  # type: ignore[import-not-found,unused-ignore]

    query = UncertaintySampling(method="entropy", random_state=0)
    labels = np.full(len(probabilities), np.nan)
    return np.asarray(query.query(probabilities, labels, _given(), fit_clf=False, batch_size=budget))


@functools.cache
def _given() -> Any:
    from skactiveml.base import SkactivemlClassifier  # type: ignore[import-not-found,unused-ignore]

    class Given(SkactivemlClassifier):  # type: ignore[misc,unused-ignore]
        def fit(self, X: Array, y: Array, sample_weight: Array | None = None) -> Any:
            raise NotImplementedError

        def predict_proba(self, X: Array) -> Array:
            return X

    return Given()


class _Rows:
    """A classifier, or a dataset, of which the rows are the probabilities."""

    def __init__(self, probabilities: Array) -> None:
        self.probabilities = probabilities

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, rows: Array) -> _Rows:
        return _Rows(self.probabilities[rows])

    def predict_proba(self, rows: Any) -> Array:
        return rows.probabilities if isinstance(rows, _Rows) else np.asarray(rows)


def modal_entropy(probabilities: Array, budget: int) -> Array:
    """modAL, with a classifier that gives the probabilities."""
    from modAL.uncertainty import entropy_sampling  # type: ignore[import-not-found,unused-ignore]

    return np.asarray(entropy_sampling(_Rows(probabilities), probabilities, n_instances=budget)[0])


def small_text_entropy(probabilities: Array, budget: int) -> Array:
    """small-text, with a classifier that gives the probabilities."""
    from small_text.query_strategies import PredictionEntropy  # type: ignore[import-not-found,unused-ignore]

    data = _Rows(probabilities)
    nothing = np.empty(0, np.int64)
    return np.asarray(PredictionEntropy().query(data, data, np.arange(len(data)), nothing, nothing, n=budget))


def winnow_badge(vectors: Array, probabilities: Array, budget: int) -> Array:
    """The step, with a seed that does not matter."""
    return np.asarray(select(["badge"], Pool(vectors=vectors, probabilities=probabilities), budget=budget).rows)


def numpy_badge(vectors: Array, probabilities: Array, budget: int) -> Array:
    """The authors' factorised form: a pass over all rows for each pick, in float32."""
    rng = np.random.default_rng(0)
    residual = residuals(probabilities)
    square = np.einsum("ij,ij->i", residual, residual) * np.einsum("ij,ij->i", vectors, vectors)
    rows = [int(np.argmax(square))]
    nearest = np.full(len(square), np.inf, np.float32)
    while len(rows) < budget:
        last = rows[-1]
        both = (residual @ residual[last]) * (vectors @ vectors[last])
        np.minimum(nearest, np.maximum(square + square[last] - 2 * both, 0), out=nearest)
        nearest[rows] = 0
        mass = np.cumsum(nearest, dtype=np.float64)
        rows.append(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")))
    return np.array(rows)


def residuals(probabilities: Array) -> Array:
    """The probabilities less the one-hot of the likeliest class."""
    residual = probabilities.copy()
    residual[np.arange(len(residual)), probabilities.argmax(axis=1)] -= 1
    return residual


def activeml_badge(vectors: Array, probabilities: Array, budget: int) -> Array:
    """scikit-activeml, with a classifier that gives the probabilities."""
    from skactiveml.pool import Badge

    classifier = copy.copy(_given())
    classifier.predict_proba = lambda _rows: probabilities
    labels = np.full(len(vectors), np.nan)
    return np.asarray(Badge(random_state=0).query(vectors, labels, classifier, fit_clf=False, batch_size=budget))


def badge_note(vectors: Array, probabilities: Array, rows: Array, _peer: Array | None) -> str:
    """How far a row's gradient lies from the nearest picked one: less is a better cover."""
    residual = residuals(np.asarray(probabilities))
    square = np.einsum("ij,ij->i", residual, residual) * np.einsum("ij,ij->i", vectors, vectors)
    both = (residual @ residual[rows].T) * (np.asarray(vectors) @ vectors[rows].T)
    left = np.maximum(square[:, None] + square[rows] - 2 * both, 0).min(axis=1)
    return f"mean squared distance left {left.mean():.4f}, {len(np.unique(rows))} rows"


def same_note(_probabilities: Array, rows: Array, peer: Array | None) -> str:
    """How many rows are the peer's, in any order."""
    return "" if peer is None else f"{len(np.intersect1d(rows, peer))} of {len(rows)} as the peer's"


def make_probabilities(n: int, classes: int) -> Callable[[Path], None]:
    """Writes n distributions over the classes, from nearly certain to nearly uniform."""

    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        weight = rng.standard_exponential((n, classes), np.float32) ** rng.uniform(0.2, 3, (n, 1)).astype(np.float32)
        weight = np.maximum(weight, np.float32(1e-6))  # the raw pass knows no 0 log 0
        np.save(folder / "probabilities.npy", weight / weight.sum(axis=1, keepdims=True))

    return make


def entropy_case(n: int, *, repeats: int) -> Case:
    """The 100 rows of highest entropy over 10 classes."""
    return Case(
        title=f"{n} rows x 10 classes float32",
        budget=100,
        make=make_probabilities(n, 10),
        arrays=("probabilities",),
        methods={
            "winnow entropy": winnow("entropy"),
            "numpy": numpy_entropy,
            "scikit-activeml": activeml_entropy,
            "modAL": modal_entropy,
            "small-text": small_text_entropy,
        },
        peer="numpy",
        note=same_note,
        modules={"scikit-activeml": "skactiveml", "modAL": "modAL", "small-text": "small_text"},
        repeats=repeats,
    )


def make_vectors_and_probabilities(n: int, classes: int) -> Callable[[Path], None]:
    """Writes n unit vectors of 384 dimensions around 50 directions, and the distributions of `make_probabilities`."""

    def make(folder: Path) -> None:
        make_probabilities(n, classes)(folder)
        rng = np.random.default_rng(1)
        centres = rng.standard_normal((50, 384), np.float32)
        vectors = np.empty((n, 384), np.float32)
        for start in range(0, n, 50_000):
            part = vectors[start : start + 50_000]
            part[:] = centres[rng.integers(50, size=len(part))] + 0.7 * rng.standard_normal(part.shape, np.float32)
            part /= np.linalg.norm(part, axis=1, keepdims=True)
        np.save(folder / "vectors.npy", vectors)

    return make


def badge_case(n: int, *, budget: int, repeats: int, peer: str = "numpy", extra: bool = False) -> Case:
    """A batch over 10 classes. scikit-activeml writes gradients out: n * 10 * 384 doubles, so only where these fit."""
    methods = {"winnow badge": winnow_badge, "numpy": numpy_badge}
    if peer == "scikit-activeml":
        methods["scikit-activeml"] = activeml_badge
    return Case(
        title=f"{n} rows x 384 dimensions x 10 classes float32",
        budget=budget,
        make=make_vectors_and_probabilities(n, 10),
        arrays=("vectors", "probabilities"),
        methods=methods,
        peer=peer,
        note=badge_note,
        modules={"scikit-activeml": "skactiveml"},
        repeats=repeats,
        extra=extra,
    )


# Another step adds its cases here.
CASES: dict[str, Case] = {
    "entropy_10k": entropy_case(10_000, repeats=10),
    "entropy_100k": entropy_case(100_000, repeats=3),
    "entropy_1M": entropy_case(1_000_000, repeats=3),
    "badge_5k": badge_case(5_000, budget=50, repeats=1, peer="scikit-activeml"),
    "badge_100k": badge_case(100_000, budget=50, repeats=3),
    "badge_1M": badge_case(1_000_000, budget=1000, repeats=1, extra=True),
}


if __name__ == "__main__":
    sys.exit(main(CASES, str(__doc__)))
