from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidOption, MissingInput, Pool, select
from selection.scorers.committee import Bald, CommitteeKL, VoteEntropy
from tests.selection.scorers.committees import COMMITTEE, random_committee

RNG = np.random.default_rng(0)


# Equal to scikit-activeml 1.0.1 (KL, vote entropy), modAL 0.4.2.1 (vote entropy, highest KL), small-text 1.4.1 (BALD).
@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Bald(), [0.2894888769, 0.0352532612, 0, 0]),
        (CommitteeKL(), [0.2894888769, 0.0352532612, 0, 0]),
        (CommitteeKL(over="max"), [0.5506612477, 0.069500468, 0, 0]),
        (VoteEntropy(), [0.6365141683, 0.6365141683, 0, 0]),
    ],
    ids=str,
)
def test_score__known_answers(step, expected) -> None:
    scores = step.score(Pool(committee=COMMITTEE), rng=RNG)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-7)


def entropy(p):
    p = p[p > 0]
    return -(p * np.log(p)).sum()


def naive(step, row):
    mean = row.mean(axis=0)
    if step.name == "bald":
        return entropy(mean) - np.mean([entropy(p) for p in row])
    if step.name == "committee_kl":
        each = [sum(a * np.log(a / b) for a, b in zip(p, mean, strict=True) if a > 0) for p in row]
        return max(each) if step.over == "max" else np.mean(each)
    return entropy(np.bincount(row.argmax(axis=1), minlength=row.shape[1]) / len(row))


@pytest.mark.parametrize("step", [Bald(), CommitteeKL(), CommitteeKL(over="max"), VoteEntropy()], ids=str)
@pytest.mark.parametrize("shape", [(200, 1, 3), (200, 5, 2), (200, 7, 11)])
def test_score__is_the_naive_result(step, shape) -> None:
    committee = random_committee(*shape)
    expected = [naive(step, row) for row in committee.astype(np.float64)]
    np.testing.assert_allclose(step.score(Pool(committee=committee), rng=RNG), expected, rtol=1e-6, atol=1e-6)


def test_vote_entropy__ties_go_to_the_lowest_class() -> None:
    tied = np.array([[[0.5, 0.5, 0.0], [0.4, 0.4, 0.2]], [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]])
    np.testing.assert_allclose(VoteEntropy().score(Pool(committee=tied), rng=RNG), [0, np.log(2)], rtol=1e-6)


def test_options__are_checked() -> None:
    with pytest.raises(InvalidOption, match="over must be one of mean, max"):
        CommitteeKL(over="sum")
    with pytest.raises(MissingInput, match="bald needs committee"):
        select(["bald"], Pool(probabilities=[[0.5, 0.5]]), budget=1)
