from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection import InvalidInput, InvalidOption
from selection.blocks import ArrayBlocks
from selection.learning.annotators import (
    Votes,
    agreement_bounds,
    dawid_skene,
    estimate_confusion,
    majority,
    relabel_scores,
)

TABLE = [[0, 0, 1], [1, 1, 1], [0, 0, 0], [1, 0, 1], [-1, 1, 0]]
SHARES = np.array([[2, 1], [0, 3], [3, 0], [1, 2], [1.5, 1.5]]) / 3


def votes_of(table: list[list[int]]) -> Votes:
    rows, annotators = np.nonzero(np.array(table) >= 0)
    return Votes(rows, annotators, np.array(table)[rows, annotators])


def test_majority__ties_go_to_the_lowest_class() -> None:
    consensus = majority(votes_of(TABLE), 6, 2)
    assert consensus.labels.tolist() == [0, 1, 0, 1, 0, -1]
    assert consensus.tied.tolist() == [False, False, False, False, True, False]
    assert consensus.count.tolist() == [3, 3, 3, 3, 2, 0]
    np.testing.assert_allclose(consensus.confidence, [2 / 3, 1, 1, 2 / 3, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(consensus.annotator_accuracy, [1, 3 / 5, 4 / 5], rtol=1e-6)


def test_dawid_skene__known_first_and_fifth_iteration() -> None:
    votes = votes_of(TABLE)
    first = estimate_confusion(votes, SHARES, 3, max_iterations=1)
    np.testing.assert_allclose(first.prior, [0.5, 0.5], rtol=1e-12)
    expected = np.array([[[6, 3], [3, 6]], [[6, 3], [4, 5]], [[5, 4], [3, 6]]]) / 9
    np.testing.assert_allclose(first.confusion, expected, rtol=1e-12)
    posterior = np.array([[4, 2], [1, 5], [5, 1], [2, 4], [3, 3]]) / 6
    np.testing.assert_allclose(first.posterior, posterior, rtol=1e-12)

    fifth = estimate_confusion(votes, SHARES, 3, max_iterations=5)
    confusion = [
        [[0.5577792969, 0.4422207031], [0.4422207031, 0.5577792969]],
        [[0.5906306154, 0.4093693846], [0.5204804957, 0.4795195043]],
        [[0.4795195043, 0.5204804957], [0.4093693846, 0.5906306154]],
    ]
    np.testing.assert_allclose(fifth.confusion, confusion, atol=1e-10)
    posterior = np.array([0.5577792969, 0.3736103191, 0.6263896809, 0.4422207031, 0.5])
    np.testing.assert_allclose(fifth.posterior[:, 0], posterior, atol=1e-10)


def test_dawid_skene__a_symmetric_row_is_a_tie() -> None:
    consensus = dawid_skene(votes_of(TABLE), 7, 4, 2, max_iterations=5)
    assert consensus.labels.tolist() == [0, 1, 0, 1, 0, -1, -1]
    assert consensus.tied.nonzero()[0].tolist() == [4]
    assert math.isnan(consensus.annotator_accuracy[3])
    assert consensus.annotator_accuracy[0] > consensus.annotator_accuracy[1] == consensus.annotator_accuracy[2] > 0.8


def naive_dawid_skene(table: list[list[int]], n_classes: int, iterations: int) -> np.ndarray:
    L = np.array(table)
    T = np.array([[(row == c).sum() / (row >= 0).sum() for c in range(n_classes)] for row in L])
    for _ in range(iterations):
        prior = T.mean(axis=0)
        confusion = np.ones((L.shape[1], n_classes, n_classes))
        for i, row in enumerate(L):
            for a, given_ in enumerate(row):
                if given_ >= 0:
                    confusion[a, :, given_] += T[i]
        confusion /= confusion.sum(axis=2, keepdims=True)
        for i, row in enumerate(L):
            T[i] = prior * np.prod([confusion[a, :, g] for a, g in enumerate(row) if g >= 0], axis=0)
        T /= T.sum(axis=1, keepdims=True)
    return T


@given(st.integers(0, 50), st.integers(2, 4), st.integers(1, 4))
def test_dawid_skene__is_the_literal_one(seed: int, n_classes: int, iterations: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(-1, n_classes, (9, 4))
    table[:, 0] = np.maximum(table[:, 0], 0)
    start = np.array([[(row == c).sum() / (row >= 0).sum() for c in range(n_classes)] for row in table])
    estimate = estimate_confusion(votes_of(table.tolist()), start, 4, max_iterations=iterations, tolerance=0)
    np.testing.assert_allclose(estimate.posterior, naive_dawid_skene(table.tolist(), n_classes, iterations), atol=1e-12)


def test_dawid_skene__outvotes_a_careless_pair() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    good = np.where(rng.random((300, 2)) < 0.9, truth[:, None], rng.integers(0, 3, (300, 2)))
    table = np.concatenate([good, rng.integers(0, 3, (300, 3))], axis=1)
    votes = votes_of(table.tolist())
    clever, plain = dawid_skene(votes, 300, 5, 3), majority(votes, 300, 3)
    assert (clever.labels == truth).mean() > (plain.labels == truth).mean() + 0.05
    assert clever.annotator_accuracy[:2].min() > 0.85 > 0.5 > clever.annotator_accuracy[2:].max()


@pytest.mark.parametrize(("n_rows", "n_classes"), [(40, 4), (300, 30)])
def test_dawid_skene__keeps_the_classes_apart_where_most_rows_have_one_vote(n_rows: int, n_classes: int) -> None:
    gained = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, n_classes, n_rows)
        slip = rng.random((n_rows, 3)) > [0.97, 0.9, 0.8]
        said = np.where(slip, rng.integers(0, n_classes, (n_rows, 3)), truth[:, None])
        asked = rng.permuted(np.tile([True, False, False], (n_rows, 1)), axis=1)
        asked[: n_rows // 5] |= rng.random((n_rows // 5, 3)) < 0.5
        votes = votes_of(np.where(asked, said, -1).tolist())
        clever, plain = dawid_skene(votes, n_rows, 3, n_classes), majority(votes, n_rows, n_classes)
        gained.append((clever.labels == truth).mean() - (plain.labels == truth).mean())
    assert np.mean(gained) > -0.02
    assert min(gained) > -0.15


def test_dawid_skene__unanimous_votes_and_no_votes() -> None:
    none = Votes(np.empty(0, int), np.empty(0, int), np.empty(0, int))
    assert dawid_skene(none, 3, 2, 2).labels.tolist() == [-1, -1, -1] == majority(none, 3, 2).labels.tolist()
    assert dawid_skene(votes_of([[2, 2], [2, 2]]), 2, 2, 4).labels.tolist() == [2, 2]


def test_agreement_bounds__a_t_interval_with_one_right_and_one_wrong_to_start() -> None:
    from scipy.stats import t

    votes = votes_of([[0, 1, -1], [1, 1, -1], [0, 0, -1], [0, 1, -1]])
    bounds = agreement_bounds(votes, np.array([0, 1, 0, -1]), 3)
    for a, right in enumerate([[1, 1, 1], [0, 1, 1], []]):
        seen = np.array([0, 1, *right])
        half = t.interval(0.95, len(seen) - 1, seen.mean(), seen.std(ddof=1) / math.sqrt(len(seen)))
        np.testing.assert_allclose(
            [bounds.lower[a], bounds.mean[a], bounds.upper[a]], [max(half[0], 0), seen.mean(), 1]
        )
    assert bounds.accepted().tolist() == [True, True, True]


def test_agreement_bounds__one_who_is_often_wrong_is_not_accepted() -> None:
    truth = np.arange(200) % 2
    votes = votes_of(np.stack([truth, 1 - truth], axis=1).tolist())
    assert agreement_bounds(votes, truth, 2).accepted().tolist() == [True, False]


def test_relabel_scores__the_model_is_one_more_vote() -> None:
    consensus = majority(votes_of([[0, -1, -1], [0, 0, 0], [0, 0, 1], [1, -1, -1]]), 5, 2)
    P = np.array([[0, 1], [0, 1], [0.5, 0.5], [0, 1], [0.5, 0.5]], np.float32)
    expected = np.array([1 / 2, 1 / 4, 1 - 2.5 / 4, 0, 0], np.float32)
    np.testing.assert_allclose(relabel_scores(consensus, P), expected, atol=1e-6)
    np.testing.assert_array_equal(relabel_scores(consensus, P), relabel_scores(consensus, ArrayBlocks(P)))
    np.testing.assert_allclose(relabel_scores(consensus), [0, 0, 1 / 3, 0, 0], atol=1e-6)


def test_votes__bad_ones_are_refused() -> None:
    with pytest.raises(InvalidInput, match="2 rows, but 1 labels"):
        Votes(np.array([0, 1]), np.array([0, 0]), np.array([0]))
    with pytest.raises(InvalidInput, match=">= 0, got -1"):
        Votes(np.array([0]), np.array([0]), np.array([-1]))
    with pytest.raises(InvalidInput, match="integers"):
        Votes(np.array([0.5]), np.array([0]), np.array([0]))
    with pytest.raises(InvalidInput, match="annotator 3 voted twice on row 1"):
        Votes(np.array([1, 0, 1]), np.array([3, 3, 3]), np.array([0, 0, 1]))
    votes = votes_of(TABLE)
    with pytest.raises(InvalidInput, match=r"row 4 is outside 0\.\.3"):
        majority(votes, 4, 2)
    with pytest.raises(InvalidInput, match=r"label 1 is outside 0\.\.0"):
        majority(votes, 5, 1)
    with pytest.raises(InvalidInput, match=r"annotator 2 is outside 0\.\.1"):
        dawid_skene(votes, 5, 2, 2)
    with pytest.raises(InvalidOption, match="votes_before"):
        dawid_skene(votes, 5, 3, 2, votes_before=0)
    with pytest.raises(InvalidOption, match="alpha"):
        estimate_confusion(votes, SHARES, 3, alpha=-1)
    with pytest.raises(InvalidOption, match="alpha"):
        agreement_bounds(votes, np.zeros(5, int), 3, alpha=0)


@pytest.mark.parametrize("votes_before", [0.5, 5.0, 20.0])
@pytest.mark.parametrize("accuracy_before", [0.6, 0.9])
def test_dawid_skene__prior_is_as_many_votes(votes_before: float, accuracy_before: float) -> None:
    # One annotator, whose 30 votes are all of class 0: nothing tells that they are wrong, so the prior says how often.
    votes = Votes(np.arange(30), np.zeros(30, int), np.zeros(30, int))
    given = {"votes_before": votes_before, "accuracy_before": accuracy_before}
    accuracy = float(dawid_skene(votes, 30, 1, 2, **given).annotator_accuracy[0])
    exact = (30 + votes_before * accuracy_before) / (30 + votes_before)
    assert accuracy == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("accuracy_before", [0.5, 1.0, 0.2])
def test_dawid_skene__a_prior_no_better_than_guessing_is_refused(accuracy_before: float) -> None:
    votes = Votes(np.zeros(1, int), np.zeros(1, int), np.zeros(1, int))
    with pytest.raises(InvalidOption, match=r"above 1/2 \(guessing\) and below 1"):
        dawid_skene(votes, 1, 1, 2, accuracy_before=accuracy_before)
