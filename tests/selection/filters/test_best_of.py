from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, InvalidRecipe, MissingInput, Pool, select
from selection.filters.best_of import BestOf

RNG = np.random.default_rng(0)
PROMPTS = np.array(["sum", "sort", "sum", None, "sort", "sum", None], object)
REWARD = np.array([0.5, 2.0, 0.75, -9.0, 2.0, 0.75, -8.0])


def pool(**changes: Any) -> Pool:
    return Pool(**{"columns": {"prompt": PROMPTS, "reward": REWARD}} | changes)


def kept(given: Pool, **options: Any) -> list[int]:
    return BestOf(**{"by": "prompt", "score": "reward"} | options).keep(given, 1, rng=RNG).tolist()


def test_keep__the_best_of_each_prompt_ties_to_the_lowest_row_and_rows_without_a_prompt():
    assert kept(pool()) == [1, 2, 3, 6]


def test_keep__by_the_scores_of_the_step_before():
    s = select(
        [{"column": {"field": "reward", "descending": False}}, {"best_of": {"by": "prompt"}}, "random"],
        pool(),
        budget=4,
    )
    assert sorted(s.rows.tolist()) == [0, 1, 3, 6]


def test_select__then_another_selector_and_the_record_says_what_was_better():
    eligible = [False, *[True] * 6]
    X = np.eye(7, dtype=np.float32)
    given = pool(eligible=eligible, vectors=X, targets=X[[5, 2]])
    s = select([{"best_of": {"by": "prompt", "score": "reward"}}, "rds_plus"], given, budget=2)
    assert s.rows.tolist() == [1, 2]  # row 5 is a worse answer, so target 5 takes the lowest of the others
    (report,) = s.dropped
    assert report.step == "best_of"
    assert dict(zip(report.rows.tolist(), report.reason.ref.tolist(), strict=True)) == {4: 1, 5: 2}
    assert dict(zip(report.rows.tolist(), report.reason.value.tolist(), strict=True)) == {4: 2.0, 5: 0.75}
    assert set(report.reason.kind.tolist()) == {"better"}


def test_keep__a_group_with_an_already_selected_row_has_its_row():
    assert kept(pool(already_selected=[0])) == [1, 3, 6]
    assert kept(pool(already_selected=[0, 5, 1])) == [3, 6]
    assert kept(pool(already_selected=[3])) == [1, 2, 6]  # without a value it is in no group


def test_keep__labelled_rows_stay_for_later_steps_and_compete_like_others():
    labels = np.array([1, -1, -1, -1, -1, -1, -1])
    given = pool(labels=labels, vectors=np.eye(7, dtype=np.float32))
    s = select([{"best_of": {"by": "prompt", "score": "reward"}}, "random"], given, budget=4)
    assert sorted(s.rows.tolist()) == [1, 2, 3, 6]


@pytest.mark.parametrize(
    "values",
    [np.array([3.0, np.nan, 3.0, np.nan, 1.0, 3.0, 2.0]), np.array([3, None, 3, float("nan"), "1", 3.0, 2], object)],
)
def test_keep__numbers_and_mixed_values_are_groups_too(values):
    assert kept(Pool(columns={"prompt": values, "reward": REWARD})) == [1, 2, 3, 4, 6]


@pytest.mark.parametrize("seed", range(60))
def test_keep__is_the_definition(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 40))
    by = rng.choice(np.array(["a", "b", "c", "", " a", None, None], object), n)
    score = rng.integers(0, 4, n).astype(rng.choice(["f2", "f4", "i8", "?"]))
    eligible, taken = rng.random(n) < 0.8, np.flatnonzero(rng.random(n) < 0.1)
    expected = []
    for row in range(n):
        if not eligible[row] or row in taken:
            continue
        rivals = [r for r in range(n) if by[r] is not None and by[r] == by[row] and (eligible[r] or r in taken)]
        beaten = any(r in taken or (-float(score[r]), r) < (-float(score[row]), row) for r in rivals if r != row)
        if not beaten:
            expected.append(row)
    given = Pool(columns={"prompt": by, "reward": score}, eligible=eligible, already_selected=taken)
    assert kept(given) == expected


@pytest.mark.parametrize(("bad", "says"), [(np.nan, "row 4 is nan"), (None, "row 4 is None"), ("9", "row 4 is '9'")])
def test_keep__a_score_that_is_no_number_is_named(bad, says):
    reward = REWARD.astype(object)
    reward[4] = bad
    given = pool(columns={"prompt": PROMPTS, "reward": reward})
    with pytest.raises(InvalidInput, match=says):
        select([{"best_of": {"by": "prompt", "score": "reward"}}, "random"], given, budget=1)
    with pytest.raises(InvalidInput, match="row 0 is 'sum', must be a number"):
        select([{"best_of": {"by": "reward", "score": "prompt"}}, "random"], pool(), budget=1)


def test_options__what_is_missing_or_no_name_is_an_error():
    with pytest.raises(InvalidOption, match="by"):
        select([{"best_of": {"score": "reward"}}, "random"], pool(), budget=1)
    with pytest.raises(InvalidOption, match="best_of: score must be a name, got 3"):
        BestOf(by="prompt", score=3)
    with pytest.raises(MissingInput, match="best_of needs column 'question'"):
        select([{"best_of": {"by": "question", "score": "reward"}}, "random"], pool(), budget=1)
    with pytest.raises(MissingInput, match="best_of needs scores"):
        select([{"best_of": {"by": "prompt"}}, "random"], pool(), budget=1)
    with pytest.raises(InvalidRecipe, match="nothing uses the scores of 'column'"):
        select(
            [{"column": {"field": "reward"}}, {"best_of": {"by": "prompt", "score": "reward"}}, "random"],
            pool(),
            budget=1,
        )
