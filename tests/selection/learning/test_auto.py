"""What chooses the steps of the next batch: literal cases of the rules, and what holds for any labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection import ArrayVectors, Pool, select
from selection.errors import InvalidInput
from selection.learning.auto import agreement_of, choose
from selection.registry import parse_steps

SPAM = ("spam", "fine")


@pytest.mark.parametrize("counts", [[0, 0], [0, 9], [9, 0]])
def test_choose__without_labels_of_two_classes_takes_typical_rows(counts) -> None:
    choice = choose(counts, None, SPAM)
    assert (choice.phase, choice.steps, choice.rare) == ("typical", None, None)
    assert choice.reason == "fewer than two classes have a label"


def test_choose__before_the_third_model_none_is_asked() -> None:
    even = choose([8, 12], None, SPAM)
    assert (even.phase, even.steps, even.rare) == ("typical", None, None)
    assert even.reason == "fewer than 3 models were fitted"
    rare = choose([2, 18], None, SPAM)
    assert (rare.phase, rare.steps, rare.rare) == ("random", ("random",), None)
    assert rare.reason == "fewer than 3 models were fitted; 2 of 20 labels are 'spam'"


def test_choose__models_that_do_not_agree_are_asked_only_for_a_rare_class() -> None:
    even = choose([8, 12], 0.594, SPAM)
    assert (even.phase, even.steps, even.rare) == ("typical", None, None)
    assert even.reason == "the last 3 models agree by kappa 0.59, 0.6 is needed to ask them"
    rare = choose([2, 18], 0.594, SPAM)
    # The labels are spread over exp(-0.1 ln 0.1 - 0.9 ln 0.9) = 1.38 classes, four times that are 6.
    assert rare.steps == ("margin", {"keep_top": {"times": 6}}, "facility_location")
    assert (rare.phase, rare.rare) == ("uncertain", "spam")
    because = "the last 3 models agree by kappa 0.59, which a rare class does not wait for; 2 of 20 labels are 'spam'"
    assert rare.reason == because
    assert choose([2, 18], 0.6, SPAM).reason == "the last 3 models agree by kappa 0.60; 2 of 20 labels are 'spam'"


def test_agreement_of__is_the_lowest_kappa_of_three_successive_models() -> None:
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert agreement_of([a, a]) is None
    assert agreement_of([a, None, a]) is None
    assert agreement_of([None, a, b, b]) == 0.5  # of a and b; b and b agree wholly
    assert agreement_of([a, b, b, b]) == 1.0


def test_choose__a_trusted_model_is_asked() -> None:
    choice = choose([10, 10], 0.6, SPAM)
    assert (choice.phase, choice.rare) == ("uncertain", None)
    assert choice.steps == ("margin", {"keep_top": {"times": 8}}, "facility_location")  # 4 for each of 2 classes
    assert choice.reason == "the last 3 models agree by kappa 0.60"


@pytest.mark.parametrize(
    ("counts", "rare"),
    [
        ([2, 14], None),  # 1 in 8, which is not less than 1 in 8
        ([2, 15], "spam"),
        ([1, 15], None),  # a single label: no model has seen the class
        ([40, 3], "fine"),
    ],
)
def test_choose__a_class_is_rare_below_a_quarter_of_an_even_share(counts, rare) -> None:
    choice = choose(counts, 1.0, SPAM)
    assert choice.rare == rare
    assert ("labels are" in choice.reason) == (rare is not None)


def test_choose__of_several_rare_classes_the_one_with_the_fewest_labels_then_the_first() -> None:
    assert choose([100, 3, 2, 2], 0.9, "abcd").rare == "c"


def test_choose__says_what_is_wrong() -> None:
    with pytest.raises(InvalidInput, match=r"a count >= 0 for each of 2 classes, got \[1, 2, 3\]"):
        choose([1, 2, 3], None, SPAM)
    with pytest.raises(InvalidInput, match=r"got \[-1, 2\]"):
        choose([-1, 2], None, SPAM)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=9), st.none() | st.floats(-1, 1))
def test_choose__any_labels_give_steps_that_fit_together(counts, agreement) -> None:
    names = [f"class {number}" for number in range(len(counts))]
    choice = choose(counts, agreement, names)
    if choice.steps is not None:
        parse_steps(choice.steps)
    if choice.phase == "uncertain":
        assert agreement is not None
        assert agreement >= 0.6 or choice.rare is not None
        share = [count / sum(counts) for count in counts if count]
        times = max(3, round(4 * math.exp(-sum(part * math.log(part) for part in share))))
        assert choice.steps[1] == {"keep_top": {"times": times}}
    if choice.rare is not None:
        parse_steps(choice.rare_steps)
        assert 2 <= counts[names.index(choice.rare)] < sum(counts) / (4 * len(counts))


def test_rare_steps__are_likely_rows_that_differ() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    likely = rng.permutation(40)
    P = np.stack([likely / 100, 1 - likely / 100], axis=1).astype(np.float32)
    pool = Pool(vectors=ArrayVectors(vectors), probabilities=P, classes=SPAM)
    picks = select(choose([2, 30], 1.0, SPAM).rare_steps, pool, budget=4, seed=0).rows
    assert likely[picks].min() >= 20  # 5 times 4 are kept of 40
