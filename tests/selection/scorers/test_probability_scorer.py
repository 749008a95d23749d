from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, MissingInput, Pool
from selection.scorers.committee import Bald, CommitteeKL, VoteEntropy
from selection.scorers.epig import Epig
from selection.scorers.expected_gradient_length import ExpectedGradientLength
from selection.scorers.uncertainty import Entropy, ExpectedCost, LeastConfidence, Margin
from selection.types import Input

RNG = np.random.default_rng(0)
OF_CLASSIFIER = [
    LeastConfidence(),
    Margin(),
    Entropy(),
    ExpectedCost(cost=[[0, 1], [1, 0]]),
    ExpectedGradientLength(),
]
OF_COMMITTEE = [Bald(), CommitteeKL(), VoteEntropy(), Epig()]


def pool_of(p):
    p = np.asarray(p)
    return Pool(vectors=np.ones((len(p), 2), np.float32), probabilities=p, committee=np.stack([p, p], axis=1))


@pytest.mark.parametrize("step", OF_CLASSIFIER + OF_COMMITTEE, ids=lambda step: step.name)
def test_score__a_row_that_is_no_distribution_is_named(step):
    member = "" if step in OF_CLASSIFIER else ", member 0"
    source = "probabilities" if step in OF_CLASSIFIER else "committee"
    with pytest.raises(InvalidInput, match=f"{source}: row 1{member} sums to 1.2, must sum to 1"):
        step.score(pool_of([[0.5, 0.5], [0.6, 0.6], [0.5, 0.5]]), rng=RNG)
    with pytest.raises(InvalidInput, match=f"{source}: row 2{member} holds -0.5, must be finite and >= 0"):
        step.score(pool_of([[0.5, 0.5], [0.5, 0.5], [1.5, -0.5]]), rng=RNG)


@pytest.mark.parametrize("step", OF_CLASSIFIER + OF_COMMITTEE, ids=lambda step: step.name)
def test_score__is_float32_of_every_row_in_any_order(step):
    p = np.random.default_rng(1).dirichlet([1.0, 1.0], 30)
    scores = step.score(pool_of(p), rng=RNG)
    assert (scores.dtype, scores.shape) == (np.float32, (30,))
    if step.name != "epig":  # its targets are drawn by key
        assert np.array_equal(step.score(pool_of(p[::-1]), rng=RNG), scores[::-1])
    assert step.score(pool_of(np.empty((0, 2))), rng=RNG).shape == (0,)


def test_needs__the_source_of_the_probabilities():
    for step in OF_CLASSIFIER:
        assert Input.PROBABILITIES in step.needs
    for step in OF_COMMITTEE:
        assert step.needs == {Input.COMMITTEE}
        with pytest.raises(MissingInput, match="committee"):
            step.score(Pool(probabilities=[[0.5, 0.5]]), rng=RNG)
