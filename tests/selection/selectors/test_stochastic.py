from __future__ import annotations

import itertools

import numpy as np
import pytest

from selection import InvalidOption, Pool, select
from selection.scorers.combine import ranks
from selection.selectors import stochastic
from selection.selectors.stochastic import Power, Softmax, Softrank, inclusion_probabilities
from tests.quick import quick_first

STEPS = [Softmax(), Power(), Softrank()]
SCORES = [0.9, 0.5, 0.3, 0.1, 0.0]
GUMBEL = [-0.3, 0.4, 1.2, 0.1, 2.0]
FIRST_DRAW = {
    "softmax": [0.325200047, 0.2179881105, 0.1784735698, 0.1461218002, 0.1322164725],
    "power": [0.5, 0.2777777778, 0.1666666667, 0.0555555556, 0.0],
    "softrank": [0.4379562044, 0.2189781022, 0.1459854015, 0.1094890511, 0.0875912409],
}
OF_TWO = {
    "softmax": [0.5916974424, 0.4409148077, 0.3719678231, 0.311280498, 0.2841394289],
    "power": [0.821719457, 0.6274509804, 0.407239819, 0.1435897436, 0.0],
    "softrank": [0.7315028419, 0.4749879788, 0.3326343694, 0.2547300856, 0.2061447242],
}
TOP_TWO = {"softmax": [4, 2], "power": [2, 1], "softrank": [4, 2]}


def draw(step, scores, budget, seed=0, **inputs):
    return select([step], Pool(scores=np.array(scores), **inputs), budget=budget, seed=seed)


def assert_law(counts, expected=None):
    """A chi-square test; the seeds are fixed, so it does not fail by bad luck."""
    from scipy import stats

    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_select__known_noise_gives_the_known_rows(step, monkeypatch) -> None:
    uniform = np.exp(-np.exp(-np.array(GUMBEL)))
    monkeypatch.setattr(stochastic, "hash_uniform", lambda *_: uniform)
    assert draw(step, SCORES, 2).rows.tolist() == TOP_TWO[step.name]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_select__reasons_carry_the_known_inclusion_probabilities(step) -> None:
    for budget, known in ((1, FIRST_DRAW), (2, OF_TWO)):
        seen = set()
        for seed in range(20):
            picked = draw(step, SCORES, budget, seed)
            np.testing.assert_allclose(picked.reason.value, np.array(known[step.name])[picked.rows], rtol=2e-6)
            assert picked.gain.tolist() == np.array(SCORES, np.float32)[picked.rows].tolist()
            assert picked.reason.rank.tolist() == list(range(budget))
            assert set(picked.reason.kind) == {"weighted_draw"}
            seen |= set(picked.rows.tolist())
        assert len(seen) > 2


@pytest.mark.parametrize(
    "step", quick_first(1, [Power(), Softmax(beta=2), Power(beta=0.5), Softrank(), Softrank(beta=2)]), ids=str
)
def test_select__the_order_of_the_picks_follows_its_law(step) -> None:
    scores = [0.9, 0.5, 0.3, 0.1, 0.05]
    weight = {
        "softmax": np.exp(np.array(scores) * step.beta),
        "power": np.array(scores) ** step.beta,
        "softrank": np.arange(1.0, 6) ** -step.beta,
    }[step.name]
    draws = 1500
    counts = dict.fromkeys(itertools.permutations(range(5), 2), 0)
    for seed in range(draws):
        first, second = draw(step, scores, 2, seed).rows.tolist()
        counts[first, second] += 1
    total = weight.sum()
    expected = [draws * weight[i] / total * weight[j] / (total - weight[i]) for i, j in counts]
    assert_law(list(counts.values()), expected)


def test_select__noise_follows_the_key_and_keys_are_independent() -> None:
    # One draw over many rows is as many draws: with two classes of weight, the share of each follows the law.
    n = 20_000
    scores = np.where(np.arange(n) % 2 == 0, 3.0, 1.0)
    picked = draw(Power(), scores, 500, keys=np.arange(n) * 7 + 3)
    even = int((picked.rows % 2 == 0).sum())
    assert_law([even, 500 - even], [375, 125])
    # The estimated chances of two kinds of row add up to the budget, in nearly the proportion of the weights.
    value = {int(row % 2): float(v) for row, v in zip(picked.rows, picked.reason.value, strict=True)}
    assert n / 2 * (value[0] + value[1]) == pytest.approx(500, rel=1e-5)
    assert value[0] / value[1] == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("step", quick_first(1, [Softmax(beta=0), Power(beta=0), Softrank(beta=0)]), ids=str)
def test_select__beta_0_is_uniform(step) -> None:
    counts = np.zeros(5)
    for seed in range(1200):
        picked = draw(step, SCORES, 2, seed)
        counts[picked.rows] += 1
        assert picked.reason.value == pytest.approx([0.4, 0.4])
    assert_law(counts)


@pytest.mark.parametrize("step", [Softmax(beta=1e9), Power(beta=1e9), Softrank(beta=1e9), Power(beta=1e299)], ids=str)
def test_select__a_very_large_beta_is_top(step) -> None:
    scores = np.random.default_rng(0).random(50)
    assert draw(step, scores, 10).rows.tolist() == np.argsort(-scores)[:10].tolist()
    assert draw(step, scores, 10).reason.value == pytest.approx(np.ones(10))


def test_select__scores_and_beta_beyond_all_reason_give_rows() -> None:
    for step in (Softmax(beta=1e308), Power(beta=1e308), Softrank(beta=1e308)):
        picked = draw(step, [3e38, -3e38, 1e-45, 0.0, 2.0], 4)
        assert len(set(picked.rows.tolist())) == 4
        assert np.isfinite(picked.reason.value).all()


def test_power__rows_of_no_score_come_last_and_uniformly() -> None:
    scores = [0.0, 0.2, -5.0, 0.7, 0.0, 0.0]
    counts = np.zeros(6)
    for seed in range(1000):
        picked = draw(Power(), scores, 4, seed)
        assert set(picked.rows[:2].tolist()) == {1, 3}
        counts[picked.rows[2:]] += 1
        assert picked.reason.value == pytest.approx([1, 1, 0.5, 0.5])
    assert_law(counts[[0, 2, 4, 5]])
    assert set(draw(Power(), scores, 2).rows.tolist()) == {1, 3}


def test_power__the_unit_of_the_score_does_not_matter_and_for_softmax_its_zero() -> None:
    scores = np.random.default_rng(0).random(60)
    assert draw(Power(), scores, 9).rows.tolist() == draw(Power(), scores * 1024, 9).rows.tolist()
    whole = np.round(scores * 64) / 64
    assert draw(Softmax(), whole, 9).rows.tolist() == draw(Softmax(), whole + 8, 9).rows.tolist()
    assert draw(Softrank(), scores, 9).rows.tolist() == draw(Softrank(), scores**3 - 5, 9).rows.tolist()


def test_softrank__equal_scores_have_equal_chances() -> None:
    picked = draw(Softrank(), [1.0, 5.0, 1.0, 1.0], 1, seed=3)
    law = (ranks(-np.array([1.0, 5.0, 1.0, 1.0], np.float32)) * 4 + 0.5) ** -1.0
    assert law.tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])
    assert picked.reason.value[0] == pytest.approx((law / law.sum())[picked.rows[0]])
    counts = np.zeros(4)
    for seed in range(1200):
        counts[draw(Softrank(), [1.0, 5.0, 1.0, 1.0], 1, seed).rows] += 1
    assert_law(counts, 1200 * law / law.sum())


def test_softrank__is_not_incremental() -> None:
    """Ranks move up when others are taken, so it does not claim to be; softmax and power are, see the contract."""
    assert (Softmax.incremental, Power.incremental, Softrank().incremental) == (True, True, False)
    scores = np.random.default_rng(1).random(60)
    differs = 0
    for seed in range(20):
        whole = draw(Softrank(), scores, 12, seed).rows
        rest = draw(Softrank(), scores, 4, seed, already_selected=whole[:8]).rows
        differs += whole[8:].tolist() != rest.tolist()
    assert differs


def exact(weights, budget):
    """By every order of the draws."""
    chance = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), budget):
        left, p = np.ones(len(weights), bool), 1.0
        for i in order:
            p *= weights[i] / weights[left].sum()
            left[i] = False
        chance[list(order)] += p
    return chance


@pytest.mark.parametrize("budget", [1, 2, 6])
def test_inclusion_probabilities__exact_for_1_and_2_and_all(budget) -> None:
    for seed in range(10):
        weights = np.random.default_rng(seed).exponential(size=6) ** 3
        np.testing.assert_allclose(inclusion_probabilities(np.log(weights), budget), exact(weights, budget), rtol=1e-9)


@pytest.mark.parametrize("unequal", [0.1, 1, 3])
def test_inclusion_probabilities__estimate_near_the_exact_ones_of_few_rows(unequal) -> None:
    for n, budget in ((4, 3), (5, 3), (7, 3), (7, 5), (8, 4)):
        for seed in range(5):
            weights = np.random.default_rng(seed).exponential(size=n) ** unequal
            estimate = inclusion_probabilities(np.log(weights), budget)
            assert np.abs(estimate - exact(weights, budget)).max() < 0.03
            assert estimate.sum() == pytest.approx(budget, abs=1e-4)


def test_inclusion_probabilities__estimate_near_the_frequencies_of_many_rows() -> None:
    rng = np.random.default_rng(0)
    log_weights = 1.5 * rng.normal(size=300)
    counts = np.zeros(300)
    draws = 20_000
    for _ in range(draws):
        counts[np.argpartition(-(log_weights + rng.gumbel(size=300)), 20)[:20]] += 1
    estimate = inclusion_probabilities(log_weights, 20)
    # Four standard deviations of the frequencies, beside an error of the estimate of 0.003.
    assert (np.abs(counts / draws - estimate) < 0.003 + 4 * np.sqrt(estimate * (1 - estimate) / draws)).all()


def test_inclusion_probabilities__any_weights() -> None:
    rng = np.random.default_rng(0)
    for trial in range(500):
        n = int(rng.integers(1, 12))
        log_weights = rng.normal(size=n) * 10.0 ** rng.uniform(-3, 300)
        log_weights[rng.random(n) < 0.1 * (trial % 3)] = -np.inf
        for budget in range(1, n + 1):
            chance = inclusion_probabilities(log_weights, budget)
            assert ((chance >= 0) & (chance <= 1)).all()
            assert chance.sum() == pytest.approx(budget, abs=1e-3)


@pytest.mark.parametrize("beta", [-1, float("nan"), float("inf"), "1", True])
def test_options__beta_must_be_a_number_of_at_least_0(beta) -> None:
    for step in (Softmax, Power, Softrank):
        with pytest.raises(InvalidOption, match="beta must be a finite number >= 0"):
            step(beta=beta)
