"""Several annotators: a consensus label for each row, how accurate each annotator is, which rows to label again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from selection.errors import InvalidInput, InvalidOption
from selection.types import Array, Doubles, Floats, Mask, RowBlocks, Rows

NONE = -1

# The prior: votes of each annotator on each class that are assumed before the first real vote, and the share of them
# that is right. If most rows have one label, the votes alone cannot separate annotators from classes: "a single class,
# named at random" explains them as well, and would win without the prior.
PRIOR_VOTES = 20.0
PRIOR_ACCURACY = 0.9

# Posteriors this close are a tie, and the lowest class wins: symmetric votes may differ in the last bits.
TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Votes:
    """Which annotator gave which row which class; at most one vote of an annotator on a row.

    Attributes:
        rows, annotators, labels: (v,) int64 >= 0, aligned.

    Raises:
        InvalidInput: the lengths differ, a value is negative, or an annotator voted twice on a row.
    """

    rows: Rows
    annotators: Rows
    labels: Rows

    def __post_init__(self) -> None:
        for name in ("rows", "annotators", "labels"):
            values = np.asarray(getattr(self, name))
            if values.ndim != 1 or (len(values) and values.dtype.kind not in "iu"):
                raise InvalidInput(f"votes: {name} must be a flat array of integers, got {values.dtype} {values.shape}")
            if len(values) != len(self.rows):
                raise InvalidInput(f"votes: {len(self.rows)} rows, but {len(values)} {name}")
            if len(values) and values.min() < 0:
                raise InvalidInput(f"votes: {name} must be >= 0, got {values.min()}")
            object.__setattr__(self, name, values.astype(np.int64))
        order = np.lexsort((self.annotators, self.rows))
        twice = (np.diff(self.rows[order]) == 0) & (np.diff(self.annotators[order]) == 0)
        if twice.any():
            first = order[int(twice.argmax())]
            raise InvalidInput(f"votes: annotator {self.annotators[first]} voted twice on row {self.rows[first]}")

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Consensus:
    """One label for each row.

    Attributes:
        labels: (n,) int64, -1 = no vote.
        confidence: (n,) float32 in 0..1, the label's share of the votes or its posterior; 0 for a row without a label.
        count: (n,) int64 votes.
        annotator_accuracy: (A,) float32: how often each annotator gives the consensus, or the true class by their
            estimated confusion; NaN for an annotator without votes.
        tied: (n,) bool, rows for which another class is as good; their label is the lowest of these classes.
    """

    labels: Rows
    confidence: Floats
    count: Rows
    annotator_accuracy: Floats
    tied: Mask


@dataclass(frozen=True, eq=False)
class DawidSkene:
    """The joint estimate of true classes and annotators' confusions.

    Attributes:
        posterior: (r, C) the probability of each class for each row with votes.
        prior: (C,) the frequency of each class.
        confusion: (A, C, C): the probability that annotator a gives a row of true class c each class.
        iterations: how many iterations ran.
    """

    posterior: Doubles
    prior: Doubles
    confusion: Doubles
    iterations: int


@dataclass(frozen=True, eq=False)
class Bounds:
    """How often each annotator agrees with a reference, (A,) float64 in 0..1: an interval and its middle."""

    lower: Doubles
    mean: Doubles
    upper: Doubles

    def accepted(self, epsilon: float = 0.9) -> Mask:
        """(A,) bool: the annotators whose upper bound is at least `epsilon` times the best one (IEThresh)."""
        return np.asarray(self.upper >= epsilon * self.upper.max(initial=0))


def majority(votes: Votes, n_rows: int, n_classes: int) -> Consensus:
    """The class with the most votes; ties to the lowest class, and marked.

    >>> votes = Votes(np.array([0, 0, 0, 2]), np.array([0, 1, 2, 0]), np.array([1, 0, 1, 0]))
    >>> majority(votes, 3, 2).labels
    array([ 1, -1,  0])

    Cost: O(v + voted rows * C).
    """
    n_annotators = int(votes.annotators.max(initial=-1)) + 1
    voted, share = _shares(votes, n_rows, n_annotators, n_classes)
    consensus = _consensus(votes, n_rows, voted, share)
    agreed = np.bincount(votes.annotators, consensus.labels[votes.rows] == votes.labels, minlength=n_annotators)
    count = np.bincount(votes.annotators, minlength=n_annotators)
    accuracy = np.where(count > 0, agreed / np.maximum(count, 1), np.nan)
    return replace(consensus, annotator_accuracy=accuracy.astype(np.float32))


def dawid_skene(
    votes: Votes,
    n_rows: int,
    n_annotators: int,
    n_classes: int,
    *,
    votes_before: float = PRIOR_VOTES,
    accuracy_before: float = PRIOR_ACCURACY,
    max_iterations: int = 50,
    tolerance: float = 1e-6,
) -> Consensus:
    """The most probable class of each row given every annotator's estimated confusion; ties to the lowest class, and marked.

    The accuracy of an annotator is the probability of giving the right class, weighted by the estimated class
    frequencies.

    Args:
        votes_before: the prior: how many votes on each class every annotator is assumed to have given before. It keeps
            the classes apart if most rows have one label.
        accuracy_before: the share of these that is right, in 1 / C .. 1; the others are spread over the other classes.

    Other arguments and cost as `estimate_confusion`.
    """
    if not votes_before > 0:
        raise InvalidOption(f"votes_before > 0, got {votes_before}", step="dawid_skene", option="votes_before")
    if not (1 / n_classes if n_classes > 1 else 0) < accuracy_before < 1:
        raise InvalidOption(
            f"accuracy_before must be above 1/{n_classes} (guessing) and below 1, got {accuracy_before}",
            step="dawid_skene",
            option="accuracy_before",
        )
    wrong = (1 - accuracy_before) / max(n_classes - 1, 1)
    voted, share = _shares(votes, n_rows, n_annotators, n_classes)
    estimate = estimate_confusion(
        Votes(np.searchsorted(voted, votes.rows), votes.annotators, votes.labels),
        share,
        n_annotators,
        alpha=votes_before * np.where(np.eye(n_classes, dtype=np.bool_), accuracy_before, wrong),
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    consensus = _consensus(votes, n_rows, voted, estimate.posterior)
    accuracy = np.einsum("c,acc->a", estimate.prior, estimate.confusion)
    accuracy[np.bincount(votes.annotators, minlength=n_annotators) == 0] = np.nan
    return replace(consensus, annotator_accuracy=accuracy.astype(np.float32))


def estimate_confusion(
    votes: Votes,
    start: Doubles,
    n_annotators: int,
    *,
    alpha: float | Doubles = 1.0,
    max_iterations: int = 50,
    tolerance: float = 1e-6,
) -> DawidSkene:
    """Estimate true classes and annotators' confusions by expectation maximisation.

    Args:
        votes: with rows 0 .. r-1.
        start: (r, C) first posterior: the shares of the votes.
        alpha: >= 0, the smoothing: a number added to each count of a confusion, or (C, C), [true class, class given].
        max_iterations: >= 1.
        tolerance: stop when no posterior changed by more than this.

    Source: Dawid and Skene 1979, with the smoothing `alpha`. Cost: O(iterations * v * C) and A * C**2 floats.
    """
    if not (np.all(np.asarray(alpha) >= 0) and max_iterations >= 1 and tolerance >= 0):
        raise InvalidOption(
            f"alpha >= 0, max_iterations >= 1, tolerance >= 0, got {alpha}, {max_iterations}, {tolerance}",
            step="dawid_skene",
        )
    n_classes = start.shape[1]
    posterior = start
    prior = np.full(n_classes, 1 / n_classes)
    confusion = np.full((n_annotators, n_classes, n_classes), 1 / n_classes)
    iterations = 0
    while iterations < max_iterations and len(start):
        iterations += 1
        prior = posterior.mean(axis=0)
        counts = np.zeros((n_annotators, n_classes, n_classes))  # [annotator, class given, true class]
        np.add.at(counts, (votes.annotators, votes.labels), posterior[votes.rows])
        confusion = alpha + counts.transpose(0, 2, 1)
        total = confusion.sum(axis=2, keepdims=True)
        confusion = np.where(total > 0, confusion / np.where(total > 0, total, 1), 1 / n_classes)
        # Logarithms: many votes on one row would underflow. A class of prior or confusion 0 is impossible: -inf.
        with np.errstate(divide="ignore"):
            log = np.tile(np.log(prior), (len(posterior), 1))
            np.add.at(log, votes.rows, np.log(confusion)[votes.annotators, :, votes.labels])
        log -= log.max(axis=1, keepdims=True)
        before, posterior = posterior, np.exp(log)
        posterior /= posterior.sum(axis=1, keepdims=True)
        if np.abs(posterior - before).max() <= tolerance:
            break
    return DawidSkene(posterior, prior, confusion, iterations)


def agreement_bounds(votes: Votes, reference: Rows, n_annotators: int, *, alpha: float = 0.05) -> Bounds:
    """How often each annotator gives the reference label, as a t interval of level 1 - alpha.

    Args:
        reference: (n,) int64, -1 = none: gold labels, or a consensus. A consensus of a single vote is the annotator's
            own: set such rows to -1 (`np.where(consensus.count > 1, consensus.labels, -1)`).
        alpha: 0 < alpha < 1.

    Every annotator starts with one agreement and one disagreement, so that an annotator with few votes has a wide
    interval and is tried. Source: Donmez, Carbonell and Schneider 2009 (IEThresh).
    """
    from scipy.stats import t

    if not 0 < alpha < 1:
        raise InvalidOption(f"alpha must be in 0 < alpha < 1, got {alpha!r}", step="agreement", option="alpha")
    has_reference = reference[votes.rows] >= 0
    annotators = votes.annotators[has_reference]
    agrees = (reference[votes.rows] == votes.labels)[has_reference]
    right = np.bincount(annotators, agrees, minlength=n_annotators) + 1
    count = np.bincount(annotators, minlength=n_annotators) + 2
    mean = right / count
    deviation = np.sqrt(mean * (1 - mean) * count / (count - 1))
    half_width = t.ppf(1 - alpha / 2, count - 1) * deviation / np.sqrt(count)
    return Bounds(np.maximum(mean - half_width, 0), mean, np.minimum(mean + half_width, 1))


def relabel_scores(consensus: Consensus, probabilities: RowBlocks | Array | None = None) -> Floats:
    """(n,) float32 in 0..1: how doubtful each label is; 0 for a row without a label.

    The score is 1 minus the mean support of the label, where the model's probability of the label counts as another
    vote besides those of the annotators. A single vote for a class that the model gives probability 0 scores 0.5; each
    annotator who agrees lowers the score.

    Args:
        probabilities: (n, C) of a model, best of one that did not see the row's label
            (`selection.learning.classifier.out_of_fold`). Only labelled rows are read.
    """
    rows = np.flatnonzero(consensus.labels >= 0)
    score = np.zeros(len(consensus.labels), np.float32)
    count = consensus.count[rows].astype(np.float64)
    support = count * consensus.confidence[rows]
    if probabilities is not None and len(rows):
        P = probabilities[rows] if isinstance(probabilities, np.ndarray) else probabilities.take(rows)
        support += P[np.arange(len(rows)), consensus.labels[rows]]
        count += 1
    score[rows] = 1 - support / np.maximum(count, 1)
    return score


def _shares(votes: Votes, n_rows: int, n_annotators: int, n_classes: int) -> tuple[Rows, Doubles]:
    """The rows with votes, ascending, and (r, C) the share of each class in their votes."""
    for name, values, limit in (
        ("row", votes.rows, n_rows),
        ("annotator", votes.annotators, n_annotators),
        ("label", votes.labels, n_classes),
    ):
        if len(values) and values.max() >= limit:
            raise InvalidInput(f"votes: {name} {values.max()} is outside 0..{limit - 1}")
    voted, place = np.unique(votes.rows, return_inverse=True)
    counts = np.zeros((len(voted), n_classes))
    np.add.at(counts, (place, votes.labels), 1)
    return voted, counts / counts.sum(axis=1, keepdims=True)


def _consensus(votes: Votes, n_rows: int, voted: Rows, support: Doubles) -> Consensus:
    labels = np.full(n_rows, NONE, np.int64)
    confidence = np.zeros(n_rows, np.float32)
    tied = np.zeros(n_rows, np.bool_)
    if len(voted):
        is_best = support >= support.max(axis=1, keepdims=True) - TIE
        best = is_best.argmax(axis=1)
        tied[voted] = is_best.sum(axis=1) > 1
        labels[voted] = best
        confidence[voted] = support[np.arange(len(voted)), best]
    count = np.bincount(votes.rows, minlength=n_rows).astype(np.int64)
    return Consensus(labels, confidence, count, np.empty(0, np.float32), tied)
