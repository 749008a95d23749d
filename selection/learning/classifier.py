"""Classifiers on vectors: fitted to the labels of a round, they give class probabilities for any rows on demand.

A linear model's probabilities of a row depend on that row alone (see `linear`). Other estimators get float64 vectors,
and their probabilities are rounded to float32. Results of theirs that depend on the block (by about 1e-16) almost never
survive the rounding.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np

from selection.blocks import check_finite
from selection.errors import InvalidInput, InvalidOption, rows_of_parent
from selection.learning.linear import LinearModel, is_sparse, linear_probabilities
from selection.step import check_flag, check_integer, check_number
from selection.types import Array, Doubles, Floats, PartedVectors, RowBlocks, Rows

FOLDS = 5
LABELS_TO_CALIBRATE = 3
SHARPEST, FLATTEST = 1 / 20, 20.0


class Model(Protocol):
    """A fitted classifier."""

    @property
    def n_classes(self) -> int: ...

    def probabilities(self, vectors: Array) -> Floats:
        """(r, C) float32 for vectors (r, d): values >= 0, each row of sum 1."""


class Classifier(Protocol):
    """The options of a classifier; it has no state."""

    def fit(self, vectors: Array, labels: Rows, n_classes: int, *, seed: int) -> Model:
        """Fit a model to m labelled vectors.

        Args:
            vectors: (m, d).
            labels: (m,) in 0 .. n_classes - 1. A class without labels gets probability 0.
            n_classes: C >= 2.
            seed: of everything random; the same labels in the same order give the same model.

        Raises:
            InvalidInput: fewer than two classes have labels; lengths, classes or vectors are wrong.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticRegression:
    """Multinomial logistic regression (scikit-learn, lbfgs), in float64 on one thread.

    Args:
        C: > 0, the inverse of the penalty on squared weights: a larger C allows larger weights.
        balanced: give every class the same weight, however many labels it has.
        calibrated: divide the logits by the temperature that makes held-out labels most likely (Guo et al. 2017), from
            5 folds. Only labels of classes with 3 or more labels count. If these are fewer than half of all labels, or
            of one class, the model is not calibrated and its `notes` say so.

    Cost: about a second for 1,000 labels of 77 classes, six times that when calibrated.
    """

    C: float = 10.0
    balanced: bool = True
    calibrated: bool = True
    name: ClassVar[str] = "logistic_regression"

    def __post_init__(self) -> None:
        check_number(self.name, "C", self.C, above=0)
        check_flag(self.name, "balanced", self.balanced)
        check_flag(self.name, "calibrated", self.calibrated)

    def fit(self, vectors: Array, labels: Rows, n_classes: int, *, seed: int) -> LinearModel:
        """See `Classifier.fit`."""
        X, y = _checked(vectors, labels, n_classes)
        model = _fit_logistic(X, y, n_classes, C=self.C, balanced=self.balanced)
        if not self.calibrated:
            return model
        # The model of a fold does not know a class whose labels all lie in that fold.
        enough = np.bincount(y)[y] >= LABELS_TO_CALIBRATE
        if enough.mean() < 0.5 or len(np.unique(y[enough])) < 2:
            rare = (
                f"{int((~enough).sum())} of {len(y)} labels are of classes that have fewer than {LABELS_TO_CALIBRATE}"
            )
            return replace(model, notes=(*model.notes, f"not calibrated: {rare}"))
        held_out = out_of_fold(replace(self, calibrated=False), X, y, n_classes, seed=seed)
        temperature = _fit_temperature(held_out[enough], y[enough])
        note = f"calibrated: temperature {temperature:.3g} from {int(enough.sum())} labels in {FOLDS} folds"
        return replace(model, temperature=temperature, notes=(*model.notes, note))


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """Any class with `fit(X, y)` and `predict_proba(X)`, such as those of scikit-learn, by its import path.

    Args:
        path: "package.module:Class".
        options: keyword arguments of the class. If it has a `random_state` that is not among them, it gets the seed of
            the fit.
    """

    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    name: ClassVar[str] = "estimator"

    def __post_init__(self) -> None:
        module, _, cls = self.path.partition(":") if isinstance(self.path, str) else ("", "", "")
        if not (cls.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise _invalid_estimator(f"the path must read 'package.module:Class', got {self.path!r}", "path")
        if not isinstance(self.options, Mapping) or not all(isinstance(key, str) for key in self.options):
            raise _invalid_estimator(f"options must be a mapping of names to values, got {self.options!r}", "options")

    def load(self) -> type[Any]:
        """The class.

        Raises:
            InvalidOption: it cannot be imported, or lacks a method; says which.
        """
        module, _, name = self.path.partition(":")
        try:
            cls = getattr(importlib.import_module(module), name, None)
        except Exception as error:  # whatever a foreign module raises when it is imported
            raise _invalid_estimator(f"cannot import {module}: {type(error).__name__}: {error}", "path") from error
        if not isinstance(cls, type):
            raise _invalid_estimator(f"{module} has no class {name!r}", "path")
        missing = [method for method in ("fit", "predict_proba") if not callable(getattr(cls, method, None))]
        if missing:
            raise _invalid_estimator(f"{self.path} has no method {' and no '.join(missing)}", "path")
        return cls

    def fit(self, vectors: Array, labels: Rows, n_classes: int, *, seed: int) -> Model:
        """See `Classifier.fit`; also raises `InvalidInput` with the estimator's own message if it fails."""
        X, y = _checked(vectors, labels, n_classes)
        cls = self.load()
        options = dict(self.options)
        if "random_state" in inspect.signature(cls).parameters:
            options.setdefault("random_state", seed)
        try:
            estimator = cls(**options)
        except (TypeError, ValueError) as error:
            raise _invalid_estimator(f"{self.path} does not take these options: {error}", "options") from error
        try:
            estimator.fit(X, y)
        except Exception as error:  # foreign code
            raise InvalidInput(f"estimator: {self.path} failed to fit: {type(error).__name__}: {error}") from error
        classes = np.asarray(getattr(estimator, "classes_", np.unique(y)))
        if not np.isin(classes, y).all():
            known = classes.tolist()
            raise InvalidInput(f"estimator: {self.path} knows classes {known}, the labels are {np.unique(y)}")
        return EstimatorModel(estimator, self.path, classes.astype(np.int64), n_classes)


@dataclass(frozen=True, eq=False)
class EstimatorModel:
    """A fitted estimator.

    Attributes:
        estimator: an object with `predict_proba`.
        path: the import path of its class, for messages.
        classes: the class number of each column that it predicts.
        n_classes: C.
    """

    estimator: Any
    path: str
    classes: Rows
    n_classes: int

    def probabilities(self, vectors: Array) -> Floats:
        """See `Model.probabilities`.

        Raises:
            InvalidInput: the estimator's values are no probabilities: a wrong shape, a negative value, a sum off by >
                1e-3.
        """
        X = _as_features(vectors)
        if not X.shape[0]:
            return np.zeros((0, self.n_classes), np.float32)
        try:
            predicted = np.asarray(self.estimator.predict_proba(X), np.float64)
        except Exception as error:  # foreign code
            raise InvalidInput(f"estimator: {self.path} failed to predict: {type(error).__name__}: {error}") from error
        expected = (X.shape[0], len(self.classes))
        if predicted.shape != expected:
            raise InvalidInput(
                f"estimator: {self.path} must give probabilities of shape {expected}, got {predicted.shape}"
            )
        total = predicted.sum(axis=1)
        if not (np.isfinite(predicted).all() and predicted.min() >= 0 and np.abs(total - 1).max() <= 1e-3):
            raise InvalidInput(f"estimator: {self.path} gives rows that are no probabilities (>= 0, of sum 1)")
        P = np.zeros((X.shape[0], self.n_classes), np.float32)
        P[:, self.classes] = predicted / total[:, None]
        return P


def build_classifier(spec: str | Mapping[str, Any] | Classifier) -> Classifier:
    """A classifier from its JSON.

    Args:
        spec: "logistic_regression", {"logistic_regression": {"C": 1}} or {"estimator": "package.module:Class",
            "options": {...}}.

    Raises:
        InvalidOption: the classifier or one of its options is unknown or wrong; says what is allowed.

    >>> build_classifier({"logistic_regression": {"C": 1.0}})
    LogisticRegression(C=1.0, balanced=True, calibrated=True)
    """
    if not isinstance(spec, str | Mapping):
        return spec
    known = tuple(LogisticRegression.__dataclass_fields__)[:-1]
    options: Any = {LogisticRegression.name: {}} if spec == LogisticRegression.name else spec
    if isinstance(options, Mapping) and set(options) == {LogisticRegression.name}:
        chosen = options[LogisticRegression.name] or {}
        if isinstance(chosen, Mapping) and set(chosen) <= set(known):
            return LogisticRegression(**chosen)
        raise InvalidOption(
            f"logistic_regression has the options {', '.join(known)}, got {chosen!r}", step="classifier"
        )
    if isinstance(options, Mapping) and "estimator" in options and set(options) <= {"estimator", "options"}:
        estimator = Estimator(path=options["estimator"], options=options.get("options") or {})
        estimator.load()
        return estimator
    raise InvalidOption(
        "must be logistic_regression, {logistic_regression: {C: ...}} or "
        f"{{estimator: 'package.module:Class', options: {{...}}}}, got {spec!r}",
        step="classifier",
    )


def fit_committee(
    classifier: Classifier, vectors: Array, labels: Rows, n_classes: int, *, members: int, seed: int
) -> list[Model]:
    """Models fitted to bootstrap samples, which draw as many labels of each class as there are, with replacement.

    So every class is in every sample. Members are not calibrated: a sample has copies of a label, which would be on
    both sides of a fold. Arguments as for `Classifier.fit`; members >= 1, and a member does not depend on how many
    there are.
    """
    check_integer("committee", "members", members, least=1)
    if isinstance(classifier, LogisticRegression):
        classifier = replace(classifier, calibrated=False)
    X, y = _checked(vectors, labels, n_classes)
    models = []
    for member in range(members):
        rng = np.random.default_rng([seed, member])
        samples = [rng.choice(np.flatnonzero(y == c), int((y == c).sum())) for c in np.unique(y)]
        rows = np.sort(np.concatenate(samples))
        models.append(classifier.fit(X[rows], y[rows], n_classes, seed=int(rng.integers(2**31))))
    return models


def out_of_fold(
    classifier: Classifier, vectors: Array, labels: Rows, n_classes: int, *, seed: int, folds: int = FOLDS
) -> Floats:
    """(m, C) float32: each row's probabilities by a model that did not see its label, from stratified folds.

    A class with a single label is unknown to the model that predicts that label.

    Raises:
        InvalidInput: as `Classifier.fit`, and also if the labels outside a fold are of one class.
    """
    check_integer("out_of_fold", "folds", folds, least=2)
    X, y = _checked(vectors, labels, n_classes)
    fold = np.empty(len(y), np.int64)
    rng = np.random.default_rng(seed)
    start = 0  # each class continues at the fold where the previous class stopped, so that folds have equal sizes
    for c in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == c))
        fold[rows] = (start + np.arange(len(rows))) % folds
        start += len(rows)
    P = np.empty((len(y), n_classes), np.float32)
    for f in np.unique(fold):
        out = fold == f
        P[out] = classifier.fit(X[~out], y[~out], n_classes, seed=seed).probabilities(X[out])
    return P


class PredictedProbabilities:
    """A model's probabilities of a pool, (n, C) float32, as `RowBlocks`.

    Rows are computed when they are read, and not kept. A vector that is not finite raises an `InvalidInput` that names
    its row.
    """

    def __init__(self, vectors: RowBlocks, model: Model) -> None:
        self.vectors = vectors
        self.model = model
        self.models: tuple[Model, ...] = (model,)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, C)."""
        return (self.vectors.shape[0], self.model.n_classes)

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, probabilities)` in the storage order of the vectors; of parts, where these are.

        Estimators of others stay in this process: they may not be able to leave it.
        """
        linear = [model for model in self.models if isinstance(model, LinearModel)]
        if isinstance(self.vectors, PartedVectors) and len(linear) == len(self.models):
            for rows, P in self.vectors.map_parts(partial(_of_points, linear)):
                yield rows, P.reshape(len(rows), *self.shape[1:])
            return
        for rows, block in self.vectors.blocks():
            yield rows, self._of(block, rows)

    def take(self, rows: Rows) -> Array:
        """The probabilities of `rows`."""
        return self._of(self.vectors.take(rows), rows)

    def _of(self, vectors: Array, rows: Rows) -> Array:
        with rows_of_parent(rows):
            return self.model.probabilities(vectors)


class CommitteeProbabilities(PredictedProbabilities):
    """The probabilities of a pool by several models of the same classes, (n, members, C) float32.

    See `PredictedProbabilities`. Raises `InvalidInput` if there is no model.
    """

    def __init__(self, vectors: RowBlocks, models: Sequence[Model]) -> None:
        if not models:
            raise InvalidInput("committee: needs at least one model")
        super().__init__(vectors, models[0])
        self.models = tuple(models)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, members, C)."""
        return (self.vectors.shape[0], len(self.models), self.model.n_classes)

    def _of(self, vectors: Array, rows: Rows) -> Array:
        with rows_of_parent(rows):
            linear = [model for model in self.models if isinstance(model, LinearModel)]
            if len(linear) == len(self.models):
                return linear_probabilities(vectors, linear)
            return np.stack([model.probabilities(vectors) for model in self.models], axis=1)


def _of_points(models: Sequence[LinearModel], points: RowBlocks) -> Floats:
    """(n, models, C) float32."""
    P = np.empty((points.shape[0], len(models), models[0].n_classes), np.float32)
    for rows, block in points.blocks():
        with rows_of_parent(rows):
            P[rows] = linear_probabilities(block, models)
    return P


def _fit_logistic(X: Any, y: Rows, n_classes: int, *, C: float, balanced: bool) -> LinearModel:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression as Sklearn
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # On one thread: BLAS splits sums by the number of threads, so the last bits of the weights would depend on it.
    used = np.unique(X.indices) if is_sparse(X) else np.arange(X.shape[1])  # the weight of every other column is 0
    if not len(used):
        return _without_features(X.shape[1], y, n_classes)
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = Sklearn(C=C, class_weight="balanced" if balanced else None, max_iter=2000).fit(
            X[:, used] if len(used) < X.shape[1] else X, y
        )
    unconverged = any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    notes = ("the fit did not converge in 2,000 steps: are the vectors of unit length?",) if unconverged else ()
    classes, coefficients, intercept = fitted.classes_, fitted.coef_, fitted.intercept_
    if len(classes) == 2:  # scikit-learn gives one row, for the second class; the first has weight 0
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercept = np.concatenate([[0.0], intercept])
    weights = np.zeros((X.shape[1], n_classes))
    bias = np.full(n_classes, -np.inf)
    weights[used[:, None], classes], bias[classes] = coefficients.T, intercept
    return LinearModel(weights, bias, notes=notes)


def _without_features(dimension: int, y: Rows, n_classes: int) -> LinearModel:
    """A model of rows in which nothing stands: every class that has labels is as likely."""
    bias = np.full(n_classes, -np.inf)
    bias[np.unique(y)] = 0
    return LinearModel(np.zeros((dimension, n_classes)), bias, notes=("no example has a word",))


def _fit_temperature(P: Floats, y: Rows) -> float:
    """The temperature in 1/20 .. 20 that makes the labels most likely.

    Targets are smoothed by one count of each class, as in Platt (1999). Without smoothing, the likeliest temperature
    would be 0 if every held-out label is predicted right.
    """
    from scipy.optimize import minimize_scalar

    log = np.log(np.maximum(P[:, np.unique(y)].astype(np.float64), np.finfo(np.float32).tiny))
    m, n_classes = log.shape
    target = np.full(log.shape, 1 / (m + n_classes))
    target[np.arange(m), np.searchsorted(np.unique(y), y)] = (m + 1) / (m + n_classes)

    def loss(log_temperature: float) -> float:
        scaled = log / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return -float((target * scaled).sum())

    minimum = minimize_scalar(loss, bounds=(np.log(SHARPEST), np.log(FLATTEST)), method="bounded")
    return float(np.exp(minimum.x))


def _invalid_estimator(reason: str, option: str) -> InvalidOption:
    return InvalidOption(reason, step="estimator", option=option)


def _checked(vectors: Array, labels: Array, n_classes: int) -> tuple[Doubles, Rows]:
    X, y = _as_features(vectors), np.asarray(labels)
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise InvalidInput(f"classifier: {X.shape} vectors need as many labels, got {y.shape}")
    if len(y) and y.dtype.kind not in "iu":
        raise InvalidInput(f"classifier: labels must be class numbers, got {y.dtype}")
    if len(y) and not (y.min() >= 0 and y.max() < n_classes):
        raise InvalidInput(f"classifier: labels must be in 0..{n_classes - 1}, got {y.min()}..{y.max()}")
    if len(np.unique(y)) < 2:
        reason = f"all {len(y)} are of class {y[0]}" if len(y) else "there are none"
        raise InvalidInput(f"classifier: needs labels of two classes, {reason}")
    return X, y.astype(np.int64)


def _as_features(vectors: Any) -> Any:
    """The vectors in float64; sparse ones, which are counts, stay sparse."""
    if is_sparse(vectors):
        return vectors.astype(np.float64)
    X = np.asarray(vectors, np.float64)
    if X.ndim == 2:
        check_finite(X, np.arange(len(X)))
    return X
