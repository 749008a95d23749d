from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, Targets, select
from selection.scorers.committee import Bald, CommitteeKL, VoteEntropy
from selection.scorers.epig import Epig

RNG = np.random.default_rng(0)
# (members, rows, classes)
MEMBERS = [
    [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]],
    [[0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.5, 0.5]],
    [[0.1, 0.9], [0.55, 0.45], [0.2, 0.8], [0.5, 0.5]],
]
OF_TARGETS = [[[0.7, 0.3], [0.2, 0.8]], [[0.4, 0.6], [0.3, 0.7]], [[0.1, 0.9], [0.25, 0.75]]]
COMMITTEE = np.array(MEMBERS).transpose(1, 0, 2)


def targets(committee):
    m = len(committee)
    return Targets(np.ones((m, 2), np.float32), np.zeros(m, np.int64), ("t",), committee=committee)


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


def test_epig__known_answers() -> None:
    pool = Pool(committee=COMMITTEE, targets=targets(np.array(OF_TARGETS).transpose(1, 0, 2)))
    np.testing.assert_allclose(Epig().score(pool, rng=RNG), [0.0291637695, 0.0002378605, 0, 0], atol=1e-8)
    assert select(["epig"], pool, budget=1).rows.tolist() == [0]


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


def drawn(n, members, classes, seed=0):
    rng = np.random.default_rng(seed)
    committee = rng.dirichlet(np.full(classes, 0.5), (n, members)).astype(np.float32)
    committee[:5] = np.eye(classes)[rng.integers(0, classes, (5, members))]
    return committee


@pytest.mark.parametrize("step", [Bald(), CommitteeKL(), CommitteeKL(over="max"), VoteEntropy()], ids=str)
@pytest.mark.parametrize("shape", [(200, 1, 3), (200, 5, 2), (200, 7, 11)])
def test_score__as_the_naive_one(step, shape) -> None:
    committee = drawn(*shape)
    wanted = [naive(step, row) for row in committee.astype(np.float64)]
    np.testing.assert_allclose(step.score(Pool(committee=committee), rng=RNG), wanted, rtol=1e-6, atol=1e-6)


def test_vote_entropy__ties_go_to_the_lowest_class() -> None:
    tied = np.array([[[0.5, 0.5, 0.0], [0.4, 0.4, 0.2]], [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]])
    np.testing.assert_allclose(VoteEntropy().score(Pool(committee=tied), rng=RNG), [0, np.log(2)], rtol=1e-6)


def naive_information(rows, those):
    """The mean over targets of the mutual information, from the joint distribution itself."""
    scores = []
    for row in rows.astype(np.float64):
        each = []
        for target in those.astype(np.float64):
            joint = np.einsum("ma,mb->ab", row, target) / len(row)
            apart = np.outer(joint.sum(axis=1), joint.sum(axis=0))
            here = joint > 0
            each.append((joint[here] * np.log(joint[here] / apart[here])).sum())
        scores.append(np.mean(each))
    return np.array(scores)


@pytest.mark.parametrize("shape", [(40, 1, 3), (40, 5, 2), (40, 4, 6)])
def test_epig__as_the_naive_one(shape) -> None:
    committee, those = drawn(*shape), drawn(11, *shape[1:], seed=5)
    scores = Epig().score(Pool(committee=committee, targets=targets(those)), rng=RNG)
    np.testing.assert_allclose(scores, naive_information(committee, those), rtol=1e-5, atol=1e-7)


def test_epig__no_more_than_either_entropy_and_than_bald() -> None:
    committee = drawn(60, 5, 4)
    scores = Epig().score(Pool(committee=committee), rng=RNG)
    # The two labels are independent given the member, so neither tells more of the other than of the member.
    assert (scores <= Bald().score(Pool(committee=committee), rng=RNG) + 1e-6).all()
    assert (scores >= 0).all()


def test_epig__without_targets_a_sample_of_the_pool_stands_for_them() -> None:
    committee = drawn(80, 3, 4)
    pool = Pool(committee=committee)
    all_rows = Epig(targets=80).score(pool, rng=RNG)
    np.testing.assert_allclose(all_rows, naive_information(committee, committee), rtol=1e-5, atol=1e-7)
    assert np.array_equal(all_rows, Epig(targets=1000).score(pool, rng=np.random.default_rng(0)))
    few = [Epig(targets=9).score(pool, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(few[0], few[1])
    assert not np.array_equal(few[0], few[2])
    vectors_only = Targets(np.ones((1, 2), np.float32), np.zeros(1, np.int64), ("t",))
    with_targets = Pool(committee=committee, targets=vectors_only)
    assert np.array_equal(few[0], Epig(targets=9).score(with_targets, rng=np.random.default_rng(1)))


def test_epig__float16_sums_do_not_matter() -> None:
    committee = drawn(40, 4, 5)
    half = Epig().score(Pool(committee=committee.astype(np.float16)), rng=np.random.default_rng(0))
    whole = Epig().score(Pool(committee=committee), rng=np.random.default_rng(0))
    np.testing.assert_allclose(half, whole, atol=2e-3 * whole.max())


def test_epig__targets_of_another_committee_are_an_error() -> None:
    with pytest.raises(InvalidInput, match="2 members and 2 classes, but the pool's has 3 and 2"):
        Epig().score(Pool(committee=COMMITTEE, targets=targets(np.full((1, 2, 2), 0.5))), rng=RNG)
    with pytest.raises(InvalidInput, match="at least one target"):
        Epig().score(Pool(committee=COMMITTEE, targets=targets(np.empty((0, 3, 2)))), rng=RNG)


def test_options__are_checked() -> None:
    with pytest.raises(InvalidOption, match="over must be one of mean, max"):
        CommitteeKL(over="sum")
    with pytest.raises(InvalidOption, match="targets must be an integer >= 1"):
        Epig(targets=0)
    with pytest.raises(MissingInput, match="bald needs committee"):
        select(["bald"], Pool(probabilities=[[0.5, 0.5]]), budget=1)
