from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.checks import ShuffledVectors
from selection.learning.classifier import CommitteeProbabilities, LogisticRegression, PredictedProbabilities
from selection.learning.linear import LinearModel
from tests.selection.learning.blobs import blobs

PLAIN = LogisticRegression(calibrated=False)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_linear_model__known_answer() -> None:
    model = LinearModel(np.array([[np.log(3.0), 0.0]]), np.array([0.0, 0.0]))
    np.testing.assert_allclose(model.probabilities(np.array([[1.0], [0.0]])), [[0.75, 0.25], [0.5, 0.5]], rtol=1e-6)
    never = LinearModel(np.zeros((1, 2)), np.array([0.0, -np.inf]))  # the second class has no labels
    assert never.probabilities(np.array([[2.0]])).tolist() == [[1, 0]]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 9), n_classes=st.integers(2, 6), scale=st.sampled_from([1e-6, 1, 1e3]), block=st.integers(1, 50)
)
def test_linear_model__a_row_does_not_depend_on_the_rows_beside_it(
    seed: int, n_classes: int, scale: float, block: int
) -> None:
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(50, 33)) * scale).astype(np.float32)
    X[3] = 0
    W, b = rng.normal(size=(33, n_classes)) * 5 / scale, rng.normal(size=n_classes)
    models = [LinearModel(W, b), LinearModel(W[::-1] * 7, b, temperature=3.0)]
    P = models[0].probabilities(X)
    np.testing.assert_allclose(P, softmax(X.astype(float) @ W + b), atol=2e-4)
    order = rng.permutation(50)
    vectors = ShuffledVectors(X, order, block_rows=block)
    for lazy, whole in (
        (PredictedProbabilities(vectors, models[0]), P),
        (CommitteeProbabilities(vectors, models), np.stack([m.probabilities(X) for m in models], axis=1)),
    ):
        assert lazy.shape == whole.shape
        seen = np.empty_like(whole)
        for rows, part in lazy.blocks():
            seen[rows] = part
        np.testing.assert_array_equal(seen, whole)
        np.testing.assert_array_equal(lazy.take(order[:7]), whole[order[:7]])


def test_linear_model__no_order_of_summation_changes_a_bit() -> None:
    X, y = blobs(300, 5, d=700)
    model = PLAIN.fit(X, y, 5, seed=0)
    P = model.probabilities(X)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(700)
        np.testing.assert_array_equal(P, LinearModel(model.weights[order], model.bias).probabilities(X[:, order]))
    assert (LogisticRegression(C=9, calibrated=False).fit(X, y, 5, seed=0).probabilities(X) != P).any()


def test_linear_model__error_is_that_of_float32() -> None:
    X, y = blobs(600, 10, d=384)
    model = LogisticRegression().fit(X, y, 10, seed=0)
    exact = softmax((X.astype(float) @ model.weights + model.bias) / model.temperature)
    np.testing.assert_allclose(model.probabilities(X), exact, rtol=5e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 9), n_classes=st.integers(2, 4), block=st.integers(1, 12))
def test_sparse__is_the_same_as_dense_whatever_the_block(seed: int, n_classes: int, block: int) -> None:
    from scipy.sparse import csr_array

    rng = np.random.default_rng(seed)
    X = rng.integers(0, 3, size=(24, 30)) * (rng.random((24, 30)) < 0.3) * 1.0
    X[:, 7] = 0  # a column that nothing uses
    y = np.arange(24) % n_classes
    models = [PLAIN.fit(rows, y, n_classes, seed=0) for rows in (csr_array(X), X)]
    whole, dense = models[0].probabilities(csr_array(X)), models[1].probabilities(X)
    np.testing.assert_allclose(whole, dense, atol=1e-4)
    assert (models[0].weights[7] == 0).all()
    parts = [models[0].probabilities(csr_array(X[start : start + block])) for start in range(0, 24, block)]
    assert (np.concatenate(parts) == whole).all()


def test_sparse__without_a_word_every_class_is_as_likely() -> None:
    from scipy.sparse import csr_array

    model = PLAIN.fit(csr_array((4, 9)), np.array([0, 0, 2, 2]), 3, seed=0)
    assert model.probabilities(csr_array((2, 9))).tolist() == [[0.5, 0, 0.5]] * 2
    assert model.notes == ("no example has a word",)
