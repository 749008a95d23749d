from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from selection import ArrayVectors, InvalidInput, InvalidOption, Pool
from selection.learning.classifier import (
    CommitteeProbabilities,
    Estimator,
    LogisticRegression,
    PredictedProbabilities,
    build_classifier,
    fit_committee,
    out_of_fold,
)
from tests.selection.learning.blobs import blobs

PLAIN = LogisticRegression(calibrated=False)


class Prior:
    """Gives the shares of the labels, whatever the vector."""

    def __init__(self, shift: float = 0.0, random_state: int | None = None) -> None:
        self.shift, self.random_state = shift, random_state

    def fit(self, X: Any, y: Any) -> None:
        if self.shift == 99:
            raise RuntimeError("no such luck")
        self.classes_, counts = np.unique(y, return_counts=True)
        self.share = counts / counts.sum() + self.shift

    def predict_proba(self, X: Any) -> Any:
        return np.tile(self.share, (len(X), 1))


class NoProbabilities:
    def fit(self, X: Any, y: Any) -> None: ...


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("balanced", [True, False])
def test_logistic_regression__is_scikit_learns(n_classes: int, balanced: bool) -> None:
    from sklearn.linear_model import LogisticRegression as Sklearn

    X, y = blobs(90, n_classes)
    y[:20] = 0
    theirs = Sklearn(C=3, class_weight="balanced" if balanced else None, max_iter=2000).fit(X.astype(float), y)
    model = LogisticRegression(C=3, balanced=balanced, calibrated=False).fit(X, y, n_classes, seed=0)
    np.testing.assert_allclose(model.probabilities(X), theirs.predict_proba(X.astype(float)), atol=1e-5)
    assert model.probabilities(X).dtype == np.float32


def test_logistic_regression__a_class_without_labels_has_probability_zero() -> None:
    X, y = blobs(40, 2)
    P = PLAIN.fit(X, y * 3, 5, seed=0).probabilities(X)
    assert (P[:, [1, 2, 4]] == 0).all()
    np.testing.assert_allclose(P.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(P[:, [0, 3]], PLAIN.fit(X, y, 2, seed=0).probabilities(X))


def test_logistic_regression__needs_two_classes() -> None:
    X, y = blobs(10, 2)
    with pytest.raises(InvalidInput, match="labels of two classes, all 5 are of class 1"):
        PLAIN.fit(X[y == 1], y[y == 1], 2, seed=0)
    with pytest.raises(InvalidInput, match="there are none"):
        PLAIN.fit(X[:0], y[:0], 2, seed=0)


def test_fit__bad_labels_and_vectors_are_refused() -> None:
    X, y = blobs(10, 2)
    with pytest.raises(InvalidInput, match=r"labels must be in 0\.\.1, got 0\.\.2"):
        PLAIN.fit(X, y * 2, 2, seed=0)
    with pytest.raises(InvalidInput, match="as many labels"):
        PLAIN.fit(X, y[:3], 2, seed=0)
    with pytest.raises(InvalidInput, match="class numbers"):
        PLAIN.fit(X, y / 2, 2, seed=0)  # type: ignore[arg-type]
    X[4, 2] = np.nan
    with pytest.raises(InvalidInput, match=r"row 4 .* not finite"):
        PLAIN.fit(X, y, 2, seed=0)


def test_calibration__probabilities_mean_what_they_say() -> None:
    X, y = blobs(4000, 4, noise=2.5)
    train, rest = slice(0, 400), slice(400, None)

    def gap(classifier: LogisticRegression) -> float:
        P = classifier.fit(X[train], y[train], 4, seed=0).probabilities(X[rest])
        return abs(float(P.max(axis=1).mean() - (P.argmax(axis=1) == y[rest]).mean()))

    sharp = LogisticRegression(C=1e4)
    assert gap(sharp) < 0.05 < 0.1 < gap(LogisticRegression(C=1e4, calibrated=False))
    model = sharp.fit(X[train], y[train], 4, seed=0)
    assert model.temperature > 1
    assert model.notes[-1].startswith("calibrated: temperature")


def test_calibration__says_why_there_is_none() -> None:
    X, y = blobs(19, 8)
    model = LogisticRegression().fit(X, y, 8, seed=0)
    assert model.temperature == 1
    assert model.notes == ("not calibrated: 10 of 19 labels are of classes that have fewer than 3",)


def test_calibration__leaves_out_classes_of_few_labels() -> None:
    X, y = blobs(60, 3)
    y[:2] = 3
    model = LogisticRegression().fit(X, y, 4, seed=0)
    assert model.notes[0].endswith("from 58 labels in 5 folds")
    assert (model.probabilities(X)[:, 3] > 0).all()


def test_calibration__labels_that_are_all_met_do_not_make_the_model_certain() -> None:
    X, y = blobs(200, 4, noise=0.1)
    P = LogisticRegression().fit(X, y, 4, seed=0).probabilities(X)
    assert P.max(axis=1).min() > 0.9
    assert P.max() < 0.9999


def test_logistic_regression__number_of_threads_does_not_change_a_bit() -> None:
    from threadpoolctl import threadpool_limits

    X, y = blobs(3000, 3, d=100, noise=2)
    with threadpool_limits(2):
        two = PLAIN.fit(X, y, 3, seed=0)
    with threadpool_limits(1):
        np.testing.assert_array_equal(two.weights, PLAIN.fit(X, y, 3, seed=0).weights)


def test_probabilities__only_the_rows_that_filters_leave_are_computed() -> None:
    X, y = blobs(500, 2)
    asked: list[int] = []

    class Watched(ArrayVectors):
        def take(self, rows: Any) -> Any:
            asked.extend(rows.tolist())
            return super().take(rows)

    lazy = PredictedProbabilities(Watched(X), PLAIN.fit(X, y, 2, seed=0))
    sub = Pool(probabilities=lazy).take(np.array([4, 9, 300])).take(np.array([0, 2]))
    assert asked == []
    ((_, block),) = sub.get_probabilities().blocks()
    assert asked == [4, 300]
    np.testing.assert_array_equal(block, lazy.model.probabilities(X[[4, 300]]))


def test_probabilities__a_bad_vector_is_named_by_its_row() -> None:
    X, y = blobs(30, 2)
    model = PLAIN.fit(X, y, 2, seed=0)
    X[17, 3] = np.inf
    for lazy in (
        PredictedProbabilities(ArrayVectors(X), model),
        CommitteeProbabilities(ArrayVectors(X), [model, model]),
    ):
        with pytest.raises(InvalidInput, match="row 17"):
            lazy.take(np.array([2, 17]))
        with pytest.raises(InvalidInput, match="row 17"):
            list(lazy.blocks())


def test_committee__members_differ_keep_every_class_and_do_not_depend_on_their_number() -> None:
    X, y = blobs(60, 3, noise=2)
    y[0] = 3
    five = fit_committee(LogisticRegression(), X, y, 4, members=5, seed=1)
    two = fit_committee(LogisticRegression(), X, y, 4, members=2, seed=1)
    assert [model.temperature for model in five] == [1] * 5  # copies of a label would fall on both sides of a fold
    P = [model.probabilities(X) for model in five]
    assert all((p > 0).all() for p in P)
    assert np.abs(P[0] - P[1]).max() > 0.01
    np.testing.assert_array_equal(P[1], two[1].probabilities(X))
    assert np.abs(P[0] - fit_committee(PLAIN, X, y, 4, members=1, seed=2)[0].probabilities(X)).max() > 0.01
    with pytest.raises(InvalidOption, match="members"):
        fit_committee(PLAIN, X, y, 4, members=0, seed=1)
    with pytest.raises(InvalidInput, match="at least one model"):
        CommitteeProbabilities(ArrayVectors(X), [])


def test_committee__of_other_models_is_stacked() -> None:
    X, y = blobs(20, 2)
    models = [Estimator(path=f"{__name__}:Prior").fit(X, y, 2, seed=0), PLAIN.fit(X, y, 2, seed=0)]
    P = CommitteeProbabilities(ArrayVectors(X), models).take(np.arange(20))
    np.testing.assert_array_equal(P, np.stack([m.probabilities(X) for m in models], axis=1))


def test_out_of_fold__no_model_saw_its_rows() -> None:
    X, y = blobs(57, 3, noise=2)

    class Remembering:
        """Certain of what it saw, a uniform guess of all else."""

        def fit(self, vectors: Any, labels: Any, n_classes: int, *, seed: int) -> Any:
            seen = {row.tobytes(): c for row, c in zip(vectors, labels, strict=True)}

            class Model:
                n_classes = 3

                def probabilities(self, vectors: Any) -> Any:
                    return np.array(
                        [np.eye(3)[seen[v.tobytes()]] if v.tobytes() in seen else [0.2] * 3 for v in vectors]
                    )

            return Model()

    assert (out_of_fold(Remembering(), X, y, 3, seed=0) == np.float32(0.2)).all()
    P = out_of_fold(PLAIN, X, y, 3, seed=0)
    np.testing.assert_array_equal(P, out_of_fold(PLAIN, X, y, 3, seed=0))
    assert (P.argmax(axis=1) == y).mean() < (PLAIN.fit(X, y, 3, seed=0).probabilities(X).argmax(axis=1) == y).mean()


def test_estimator__any_class_with_predict_proba() -> None:
    X, y = blobs(80, 2)
    forest = build_classifier({"estimator": "sklearn.ensemble:RandomForestClassifier", "options": {"n_estimators": 5}})
    model = forest.fit(X, y * 2, 4, seed=3)
    P = model.probabilities(X)
    assert (P.shape, P.dtype, model.n_classes) == ((80, 4), np.float32, 4)
    assert (P[:, [1, 3]] == 0).all()
    np.testing.assert_array_equal(P, forest.fit(X, y * 2, 4, seed=3).probabilities(X))
    assert np.abs(P - forest.fit(X, y * 2, 4, seed=4).probabilities(X)).max() > 0
    assert model.probabilities(X[:0]).shape == (0, 4)
    seen = np.concatenate([part for _, part in PredictedProbabilities(ArrayVectors(X, block_rows=7), model).blocks()])
    np.testing.assert_array_equal(seen, P)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_colon", "must read"),
        ("a b:C", "must read"),
        (3, "must read"),
        ("no.such.module:C", "cannot import no.such.module: ModuleNotFoundError"),
        ("sklearn.svm:Nothing", "no class 'Nothing'"),
        (f"{__name__}:NoProbabilities", "no method predict_proba"),
        ("math:sqrt", "no class 'sqrt'"),
    ],
)
def test_estimator__a_path_that_leads_nowhere_is_refused(path: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        build_classifier({"estimator": path})


def test_estimator__its_failures_are_named() -> None:
    X, y = blobs(20, 2)
    with pytest.raises(InvalidOption, match=r"does not take these options: .*depth"):
        Estimator(path=f"{__name__}:Prior", options={"depth": 3}).fit(X, y, 2, seed=0)
    with pytest.raises(InvalidInput, match="failed to fit: RuntimeError: no such luck"):
        Estimator(path=f"{__name__}:Prior", options={"shift": 99}).fit(X, y, 2, seed=0)
    off = Estimator(path=f"{__name__}:Prior", options={"shift": 0.1}).fit(X, y, 2, seed=0)
    with pytest.raises(InvalidInput, match="no probabilities"):
        off.probabilities(X)
    X[3, 0] = np.nan
    with pytest.raises(InvalidInput, match="row 3"):
        off.probabilities(X)


def test_build_classifier__specs_and_their_errors() -> None:
    assert build_classifier("logistic_regression") == LogisticRegression()
    assert build_classifier({"logistic_regression": {"C": 2}}) == LogisticRegression(C=2)
    assert build_classifier({"logistic_regression": None}) == LogisticRegression()
    assert build_classifier(PLAIN) is PLAIN
    with pytest.raises(InvalidOption, match="C, balanced, calibrated"):
        build_classifier({"logistic_regression": {"penalty": "l1"}})
    with pytest.raises(InvalidOption, match="must be logistic_regression"):
        build_classifier("svm")
    with pytest.raises(InvalidOption, match="must be logistic_regression"):
        build_classifier({"estimator": "a:B", "option": {}})
    with pytest.raises(InvalidOption, match="C must be a finite number > 0"):
        LogisticRegression(C=0)


def test_logistic_regression__gives_no_warnings_and_notes_a_fit_that_did_not_end() -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(300, 20)) * 10.0 ** rng.integers(-3, 7, 20)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LogisticRegression(C=1e9, calibrated=False).fit(X, rng.integers(0, 3, 300), 3, seed=0)
    assert model.notes == () or "did not converge" in model.notes[0]
