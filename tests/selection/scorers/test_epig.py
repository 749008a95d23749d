from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, Pool, Targets, select
from selection.scorers.committee import Bald
from selection.scorers.epig import Epig
from tests.selection.scorers.committees import COMMITTEE, random_committee

RNG = np.random.default_rng(0)
OF_TARGETS = [[[0.7, 0.3], [0.2, 0.8]], [[0.4, 0.6], [0.3, 0.7]], [[0.1, 0.9], [0.25, 0.75]]]


def targets(committee):
    m = len(committee)
    return Targets(np.ones((m, 2), np.float32), np.zeros(m, np.int64), ("t",), committee=committee)


def test_epig__known_answers() -> None:
    pool = Pool(committee=COMMITTEE, targets=targets(np.array(OF_TARGETS).transpose(1, 0, 2)))
    np.testing.assert_allclose(Epig().score(pool, rng=RNG), [0.0291637695, 0.0002378605, 0, 0], atol=1e-8)
    assert select(["epig"], pool, budget=1).rows.tolist() == [0]


def naive_information(rows, others):
    """The mean over targets of the mutual information, from the joint distribution itself."""
    scores = []
    for row in rows.astype(np.float64):
        each = []
        for target in others.astype(np.float64):
            joint = np.einsum("ma,mb->ab", row, target) / len(row)
            independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
            positive = joint > 0
            each.append((joint[positive] * np.log(joint[positive] / independent[positive])).sum())
        scores.append(np.mean(each))
    return np.array(scores)


@pytest.mark.parametrize("shape", [(40, 1, 3), (40, 5, 2), (40, 4, 6)])
def test_epig__is_the_naive_result(shape) -> None:
    committee, others = random_committee(*shape), random_committee(11, *shape[1:], seed=5)
    scores = Epig().score(Pool(committee=committee, targets=targets(others)), rng=RNG)
    np.testing.assert_allclose(scores, naive_information(committee, others), rtol=1e-5, atol=1e-7)


def test_epig__no_more_than_either_entropy_and_than_bald() -> None:
    committee = random_committee(60, 5, 4)
    scores = Epig().score(Pool(committee=committee), rng=RNG)
    # The two labels are independent given the member, so neither tells more of the other than of the member.
    assert (scores <= Bald().score(Pool(committee=committee), rng=RNG) + 1e-6).all()
    assert (scores >= 0).all()


def test_epig__without_targets_a_sample_of_the_pool_stands_for_them() -> None:
    committee = random_committee(80, 3, 4)
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
    committee = random_committee(40, 4, 5)
    float16 = Epig().score(Pool(committee=committee.astype(np.float16)), rng=np.random.default_rng(0))
    float32 = Epig().score(Pool(committee=committee), rng=np.random.default_rng(0))
    np.testing.assert_allclose(float16, float32, atol=2e-3 * float32.max())


def test_epig__targets_of_another_committee_are_an_error() -> None:
    with pytest.raises(InvalidInput, match="2 members and 2 classes, but the pool's has 3 and 2"):
        Epig().score(Pool(committee=COMMITTEE, targets=targets(np.full((1, 2, 2), 0.5))), rng=RNG)
    with pytest.raises(InvalidInput, match="at least one target"):
        Epig().score(Pool(committee=COMMITTEE, targets=targets(np.empty((0, 3, 2)))), rng=RNG)


def test_epig__options_out_of_range_are_refused() -> None:
    for count in (0, 2.5, True):
        with pytest.raises(InvalidOption, match="epig: targets must be an integer >= 1"):
            Epig(targets=count)
