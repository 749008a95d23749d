"""A quality filter: a classifier fitted to 10,000 examples, and the rows that it thinks best.

    python benchmarks/classifiers.py                     # texts, as hashed words and pairs of words; and vectors
    python benchmarks/classifiers.py ngrams --threads 1

The texts are invented: 120 words each, drawn by rank, which one class draws a little otherwise. How methods are run and
compared: see compare.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from compare import Array, Case, main

from selection import Pool, select
from selection.kernels.ngrams import NgramRows
from selection.learning.classifier import LogisticRegression, PredictedProbabilities

EXAMPLES, WORDS = 10_000, 120
FILTER = [{"class_probability": {"of": 1}}, "top"]


def make_texts(n: int) -> Any:
    """Rows of texts, and the class that each was drawn from."""

    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        vocabulary = np.array([f"w{number}" for number in range(20_000)])
        frequency = 1 / np.arange(1, len(vocabulary) + 1)
        tilted = frequency * (1 + 0.2 * (np.arange(len(vocabulary)) % 2))
        labels = np.arange(n) % 2
        words = np.empty((n, WORDS), np.int64)
        for label, weight in enumerate((frequency, tilted)):
            rows = labels == label
            words[rows] = rng.choice(len(vocabulary), (int(rows.sum()), WORDS), p=weight / weight.sum())
        np.save(folder / "texts.npy", np.array([" ".join(row) for row in vocabulary[words]]))
        np.save(folder / "labels.npy", labels)

    return make


def make_vectors(n: int) -> Any:
    """Rows of vectors, and the class that each was drawn from."""

    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        labels = np.arange(n) % 2
        vectors = rng.standard_normal((n, 384), np.float32) + 0.02 * labels[:, None]
        np.save(folder / "vectors.npy", (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))
        np.save(folder / "labels.npy", labels)

    return make


def winnow_rows(features: Any, labels: Array, budget: int) -> Array:
    """Fit, and the rows of highest probability."""
    count = min(EXAMPLES, len(labels) // 2)
    model = LogisticRegression(calibrated=False).fit(features.take(np.arange(count)), labels[:count], 2, seed=0)
    pool = Pool(probabilities=PredictedProbabilities(features, model))
    return np.asarray(select(FILTER, pool, budget=budget).rows)


def winnow_ngrams(texts: Array, labels: Array, budget: int) -> Array:
    """On texts."""
    return winnow_rows(NgramRows(texts.tolist()), labels, budget)


def winnow_vectors(vectors: Array, labels: Array, budget: int) -> Array:
    """On vectors."""
    from selection.vectors import ArrayVectors

    return winnow_rows(ArrayVectors(vectors), labels, budget)


def sklearn_ngrams(texts: Array, labels: Array, budget: int) -> Array:
    """scikit-learn's hashing of the same n-grams, all at once."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(n_features=2**18, ngram_range=(1, 2), alternate_sign=False)
    return sklearn_rows(hashing.transform(texts.tolist()), labels, budget)


def sklearn_rows(features: Any, labels: Array, budget: int) -> Array:
    """scikit-learn on all rows at once."""
    from sklearn.linear_model import LogisticRegression as Sklearn

    count = min(EXAMPLES, len(labels) // 2)
    model = Sklearn(C=10.0, max_iter=2000).fit(features[:count], labels[:count])
    return np.argsort(-model.predict_proba(features)[:, 1], kind="stable")[:budget]


def share_right(*arguments: Array) -> str:
    """How many of the rows are of the class that was asked for."""
    *_, labels, rows, _ = arguments
    return f"{labels[rows].mean():.1%} of class 1"


def case(kind: str, n: int, methods: Any) -> Case:
    """A tenth of the rows, chosen by texts or vectors."""
    return Case(
        title=f"{n} rows of {kind}, {EXAMPLES} of them examples",
        budget=n // 10,
        make=make_texts(n) if kind == "texts" else make_vectors(n),
        arrays=(kind, "labels"),
        methods=methods,
        peer="scikit-learn",
        note=share_right,
    )


CASES = {
    "ngrams": case("texts", 30_000, {"winnow ngrams": winnow_ngrams, "scikit-learn": sklearn_ngrams}),
    "vectors": case("vectors", 300_000, {"winnow vectors": winnow_vectors, "scikit-learn": sklearn_rows}),
}


if __name__ == "__main__":
    sys.exit(main(CASES, str(__doc__)))
