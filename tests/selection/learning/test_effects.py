"""Effects: known answers, a literal reference, properties, and honesty on simulated losses."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from selection.errors import InvalidInput
from selection.learning.effects import (
    adjusted_verdicts,
    crossed_effect,
    detectable_effect,
    holm,
    mean_squares,
    paired_effect,
)
from selection.types import Doubles

FOUR_SEEDS = [[0.2, 0.1, 0.3, 0.2, 0.25], [0.15, 0.1, 0.2, 0.2, 0.3], [0.3, 0.05, 0.25, 0.25, 0.2]]
FOUR_SEEDS += [[0.2, 0.2, 0.2, 0.15, 0.3]]
CASES = [
    (
        [[0.3, 0.1, 0.25, 0.05], [0.2, 0.15, 0.3, -0.05], [0.35, 0.05, 0.2, 0.1]],
        (0.000833333, 0.042777778, 0.005277778),
        (0.166666667, 0.056519417, 2.389460477, -0.042217317, 0.375550651),
        "no evidence",
    ),
    (
        FOUR_SEEDS,
        (0.0005, 0.013, 0.003416667),
        (0.205, 0.022453656, 2.347787741, 0.120887617, 0.289112383),
        "helped",
    ),
    (
        [[-0.1, -0.2, -0.15], [-0.12, -0.22, -0.1], [-0.2, -0.18, -0.16]],
        (0.001011111, 0.003811111, 0.001611111),
        (-0.158888889, 0.018888889, 1.224266632, -0.31631747, -0.001460307),
        "hurt",
    ),
]


@pytest.mark.parametrize(("differences", "squares", "numbers", "verdict"), CASES)
def test_crossed_effect__known_answers(differences, squares, numbers, verdict) -> None:
    known = mean_squares(differences)
    assert (known.seed, known.example, known.rest) == pytest.approx(squares, abs=1e-8)
    effect = crossed_effect(differences)
    assert (effect.mean, effect.se, effect.df, effect.low, effect.high) == pytest.approx(numbers, rel=1e-6)
    assert effect.verdict == verdict


def test_crossed_effect__without_spread_the_interval_is_the_point() -> None:
    effect = crossed_effect([[1.0] * 3] * 2)
    assert (effect.mean, effect.se, effect.low, effect.high, effect.verdict) == (1.0, 0.0, 1.0, 1.0, "helped")
    tenths = crossed_effect(np.full((3, 7), 0.1))  # which no float holds
    assert tenths.se == 0
    assert tenths.verdict == "helped"


def test_crossed_effect__of_tiny_numbers() -> None:
    tiny, plain = (crossed_effect([[size, 0.0], [0.0, 0.0]]) for size in (1e-150, 1.0))
    assert tiny.df == pytest.approx(plain.df)
    assert (tiny.low * 1e150, tiny.high * 1e150) == pytest.approx((plain.low, plain.high))
    assert crossed_effect([[1.10061174e-155, 0.0], [0.0, 0.0]]).verdict == "no evidence"


def test_detectable_effect__known_answer() -> None:
    null = crossed_effect(np.array(FOUR_SEEDS) - 0.205)
    assert detectable_effect(null, 0.8) == pytest.approx(0.107080474, rel=1e-7)
    with pytest.raises(InvalidInput, match="power must be above 0 and below 1, got 1"):
        detectable_effect(null, 1)


def test_holm__known_answer() -> None:
    assert holm([0.004, 0.03, 0.02, 0.5]) == pytest.approx([0.016, 0.06, 0.06, 0.5])
    assert holm([]) == []


def literal_interval(table: list[list[float]]) -> tuple[float, float]:
    """The two-way table by its definition: sums over cells, one by one."""
    from scipy import stats

    seeds, examples = len(table), len(table[0])
    cells = list(itertools.product(range(seeds), range(examples)))
    mean = sum(table[s][i] for s, i in cells) / (seeds * examples)
    of_seed = [sum(table[s]) / examples for s in range(seeds)]
    of_example = [sum(table[s][i] for s in range(seeds)) / seeds for i in range(examples)]
    ms_seed = examples * sum((value - mean) ** 2 for value in of_seed) / (seeds - 1)
    ms_example = seeds * sum((value - mean) ** 2 for value in of_example) / (examples - 1)
    left = sum((table[s][i] - of_seed[s] - of_example[i] + mean) ** 2 for s, i in cells)
    df_rest = (seeds - 1) * (examples - 1)
    ms_rest = left / df_rest
    total = max(ms_seed + ms_example - ms_rest, ms_rest)
    df = total**2 / (ms_seed**2 / (seeds - 1) + ms_example**2 / (examples - 1) + ms_rest**2 / df_rest)
    half = stats.t.ppf(0.975, df) * math.sqrt(total / (seeds * examples))
    return mean - half, mean + half


@settings(max_examples=40, deadline=None)
@given(seeds=st.integers(2, 5), examples=st.integers(2, 12), seed=st.integers(0, 99))
def test_crossed_effect__as_a_literal_reference(seeds, examples, seed) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(seeds, examples)) + rng.normal(size=(1, examples)) + seed % 3 * rng.normal(size=(seeds, 1))
    effect = crossed_effect(table)
    assert (effect.low, effect.high) == pytest.approx(literal_interval(table.tolist()), rel=1e-6, abs=1e-9)
    assert (effect.p < 0.05) == (effect.verdict != "no evidence")


tables = arrays.arrays(
    np.float64, st.tuples(st.integers(2, 4), st.integers(2, 6)), elements=st.floats(-10, 10, allow_subnormal=False)
)


@settings(max_examples=40, deadline=None)
@given(tables)
def test_crossed_effect__exchanged_arms_flip_the_sign_and_nothing_else(table) -> None:
    ours, theirs = crossed_effect(table), crossed_effect(-table)
    assert (theirs.mean, theirs.low, theirs.high) == (-ours.mean, -ours.high, -ours.low)
    assert (theirs.se, theirs.df, theirs.p) == (ours.se, ours.df, ours.p)


@settings(max_examples=20, deadline=None)
@given(tables, st.integers(0, 99))
def test_crossed_effect__order_of_seeds_and_examples_is_irrelevant(table, seed) -> None:
    seeds, examples = map(np.random.default_rng(seed).permutation, table.shape)
    ours, theirs = crossed_effect(table), crossed_effect(table[seeds][:, examples])
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_crossed_effect__equal_arms_give_exactly_zero() -> None:
    losses = np.random.default_rng(0).normal(3, 1, (5, 40))
    effect = crossed_effect(losses - losses)
    assert (effect.mean, effect.low, effect.high, effect.verdict) == (0.0, 0.0, 0.0, "no evidence")
    assert effect.p == 1


@pytest.mark.parametrize("bad", [[[1.0, 2.0]], [[1.0], [2.0]], [1.0, 2.0], [[1.0, float("nan")], [1.0, 2.0]]])
def test_crossed_effect__refuses_what_is_no_table(bad) -> None:
    with pytest.raises(InvalidInput, match=r"2 seeds or more on 2 examples or more|example 1 is nan"):
        crossed_effect(bad)


def test_paired_effect__as_scipy() -> None:
    from scipy import stats

    ours, theirs = [0.61, 0.64, 0.6], [0.58, 0.6, 0.59]
    effect = paired_effect(np.subtract(ours, theirs))
    reference = stats.ttest_rel(ours, theirs)
    assert effect.p == pytest.approx(reference.pvalue)
    assert (effect.low, effect.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    with pytest.raises(InvalidInput, match="2 seeds or more"):
        paired_effect([0.1])


def test_adjusted_verdicts__many_targets_ask_for_more() -> None:
    borderline = crossed_effect(CASES[2][0])
    assert adjusted_verdicts([borderline]) == ["hurt"]
    assert adjusted_verdicts([borderline, borderline, crossed_effect(FOUR_SEEDS)]) == [
        "no evidence",
        "no evidence",
        "helped",
    ]


def simulated(rng: np.random.Generator, effect: float = 0.0, seeds: int = 5, examples: int = 100) -> Doubles:
    """Differences of two arms, as losses of the examples under models of several seeds make them.

    Examples differ in how hard they are and seeds in how well they train; both fall out of the difference, and what is
    left is how an arm suits a seed and an example.
    """
    hard, lucky = rng.normal(3, 1, (1, examples)), rng.normal(0, 0.2, (seeds, 1))
    control, chosen = (
        hard
        + lucky
        + rng.normal(0, 0.02, (seeds, 1))
        + rng.normal(0, 0.1, (1, examples))
        + rng.normal(0, 0.1, (seeds, examples))
        for _ in range(2)
    )
    return control - (chosen - effect)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("planted", "verdict", "least"), [(0.15, "helped", 95), (0, "no evidence", 90), (-0.15, "hurt", 95)]
)
def test_honesty__planted_subsets_are_judged_as_they_are(planted, verdict, least, seed) -> None:
    rng = np.random.default_rng(seed)
    verdicts = [crossed_effect(simulated(rng, planted)).verdict for _ in range(100)]
    assert verdicts.count(verdict) >= least


def test_honesty__an_effect_of_the_stated_size_is_seen_as_often_as_stated() -> None:
    rng = np.random.default_rng(5)
    stated = np.mean([detectable_effect(crossed_effect(simulated(rng))) for _ in range(200)])
    seen = [crossed_effect(simulated(rng, float(stated))).verdict == "helped" for _ in range(400)]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.1)
