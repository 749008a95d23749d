from __future__ import annotations

import numpy as np
import pytest

from selection.encoders.postprocess import Postprocess, fit_frame
from selection.errors import InvalidInput, InvalidOption

SAMPLE = np.array([[1.0, 0.0, 0.2], [0.9, 0.1, 0.3], [0.8, 0.5, 0.1], [0.7, 0.2, 0.6], [0.6, 0.6, 0.5]])


@pytest.mark.parametrize(
    ("method", "unit"),
    [("center", [0.538381902, -0.753734663, -0.376867331]), ("whiten", [0.8850121, -0.4435279, -0.1415507])],
)
def test_known_answer(method, unit):
    vectors, usable = fit_frame(SAMPLE, method, 1e-6).apply(SAMPLE[:1])
    assert usable.all()
    np.testing.assert_allclose(vectors, [unit], atol=1e-7)


def test_whiten__gives_the_sample_the_identity_as_covariance_whatever_the_blocks():
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(5000, 6)) @ rng.normal(size=(6, 6)) + 3
    frame = fit_frame(sample, "whiten", 1e-12)
    moved = (sample - frame.mean) @ frame.matrix
    np.testing.assert_allclose(moved.T @ moved / len(sample), np.eye(6), atol=1e-6)
    vectors, _ = frame.apply(sample)
    np.testing.assert_allclose(vectors, moved / np.linalg.norm(moved, axis=1, keepdims=True), atol=1e-6)


def test_a_vector_at_the_mean__has_no_direction():
    vectors, usable = fit_frame(np.array([[1.0, 0.0], [0.0, 1.0]]), "center", 1e-6).apply(
        np.array([[0.5, 0.5], [1, 0]])
    )
    assert usable.tolist() == [False, True]
    assert (vectors[0] == 0).all()


def test_a_fit__needs_two_vectors():
    with pytest.raises(InvalidInput, match="two vectors at least, got 1"):
        fit_frame(SAMPLE[:1], "center", 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("centre", "postprocess: method must be one of center, whiten, got 'centre'"),
        (3, "postprocess: must be center, whiten or a mapping"),
        ({"sample": 3}, "needs `method`"),
        ({"method": "center", "size": 3}, "unknown key 'size'; allowed: method, sample, eps, fit"),
        ({"method": "whiten", "eps": 0}, "eps must be a finite number > 0, got 0"),
        ({"method": "whiten", "sample": 1}, "sample must be an integer >= 2, got 1"),
    ],
)
def test_wrong_options__are_refused(options, message):
    with pytest.raises(InvalidOption) as caught:
        Postprocess.of(options)
    assert message in str(caught.value)
