from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from selection import (
    ArrayVectors,
    BrokenStep,
    Filter,
    Input,
    InvalidBudget,
    InvalidInput,
    InvalidOption,
    MissingInput,
    Pool,
    Reason,
    Scorer,
    Selection,
    Selector,
    Targets,
    select,
)
from selection.blocks import SubVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep(Filter):
    rows: tuple[int, ...]
    name: ClassVar[str] = "keep"

    def keep(self, pool, budget, *, rng):
        return np.array(self.rows, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch(Selector):
    """Takes the first candidates and remembers the pool that it saw."""

    seen: list
    name: ClassVar[str] = "watch"

    def select(self, pool, budget, *, rng):
        self.seen.append((pool, rng))
        rows = np.flatnonzero(pool.candidates)[:budget]
        reason = Reason.of("neighbour", len(rows), ref=rows)
        return Selection(rows, np.zeros(len(rows), np.float32), reason)


@pytest.mark.parametrize(
    ("pool", "budget", "message"),
    [
        (
            {},
            6,
            r"^budget must be in 0\.\.5 \(pool 5 rows, already selected 0\), got 6; allow_short takes what there is$",
        ),
        ({}, -1, r"^budget must be in 0\.\.5 \(pool 5 rows, already selected 0\), got -1$"),
        ({"already_selected": [1]}, 5, r"budget must be in 0\.\.4 \(pool 5 rows, already selected 1\), got 5"),
        (
            {"already_selected": [1], "eligible": [True, True, False, True, True]},
            4,
            r"budget must be in 0\.\.3 \(pool 5 rows, already selected 1, not eligible 1\), got 4",
        ),
        ({}, 2.5, r"budget must be an integer in 0\.\.5 .*got 2\.5"),
        ({}, True, "budget must be an integer"),
    ],
)
def test_select__budget_is_checked(pool, budget, message):
    with pytest.raises(InvalidBudget, match=message):
        select(["random"], Pool(scores=np.ones(5), **pool), budget=budget)


def test_select__allow_short_gives_what_there_is():
    selection = select(["top"], Pool(scores=np.arange(5), already_selected=[0]), budget=9, allow_short=True)
    assert selection.rows.tolist() == [4, 3, 2, 1]
    assert selection.exhausted
    assert not select(["top"], Pool(scores=np.arange(5)), budget=5, allow_short=True).exhausted
    none = select(["top"], Pool(scores=np.arange(2), already_selected=[0, 1]), budget=1, allow_short=True)
    assert len(none.rows) == 0
    assert none.exhausted


def test_select__all_missing_inputs_are_named_before_any_work():
    seen = []
    steps = [
        {"column": {"field": "quality"}},
        "keep_top",
        {"stratified": {"by": "source", "within": "rds_plus"}},
    ]
    with pytest.raises(MissingInput) as error:
        select(steps, Pool(labels=np.zeros(5, int), columns={"length": np.ones(5)}), budget=99)
    assert str(error.value) == (
        "column needs column 'quality'; stratified needs targets; stratified needs vectors; "
        "stratified needs column 'source'. The pool has labels, columns length"
    )
    assert not seen


def test_select__seed_and_round_must_be_counts():
    for wrong in ({"seed": -1}, {"seed": 1.5}, {"round": -2}, {"round": True}):
        with pytest.raises(InvalidOption, match=f"{next(iter(wrong))} must be an integer >= 0"):
            select(["random"], Pool(scores=np.ones(3)), budget=1, **wrong)


def test_select__steps_never_see_ineligible_rows():
    seen = []
    eligible = np.array([True, False, True, False, True, True])
    pool = Pool(scores=np.arange(6), eligible=eligible, already_selected=[1, 4])
    selection = select([Watch(seen=seen)], pool, budget=2)
    frame = seen[0][0]
    assert frame.get_scores().tolist() == [0, 1, 2, 4, 5]
    assert frame.eligible is None
    assert frame.get_already_selected().tolist() == [1, 3]
    assert selection.rows.tolist() == [0, 2]
    assert selection.reason.ref.tolist() == [0, 2]  # rows of the caller's frame


def test_select__a_filter_keeps_already_selected_and_labelled_rows_in_row_order():
    seen = []
    labels = np.array([-1, 5, -1, -1, 6, -1, -1, -1])
    pool = Pool(scores=np.arange(8), labels=labels, already_selected=[6])
    selection = select([Keep(rows=(7, 2)), Watch(seen=seen)], pool, budget=2)
    frame = seen[0][0]
    assert frame.get_scores().tolist() == [1, 2, 4, 6, 7]
    assert frame.get_labels().tolist() == [5, -1, 6, -1, -1]
    assert frame.candidates.tolist() == [False, True, False, False, True]
    assert selection.rows.tolist() == [2, 7]


def test_select__a_later_filter_cannot_bring_a_dropped_labelled_row_back():
    pool = Pool(scores=np.arange(8), labels=[-1, 5, -1, -1, 6, -1, -1, -1])
    # The frame after the first filter is rows 1, 2, 4, 7; the second names all of it.
    rows = select([Keep(rows=(7, 2)), Keep(rows=(0, 1, 2, 3)), "top"], pool, budget=9, allow_short=True).rows
    assert rows.tolist() == [7, 2]


def test_select__a_filter_drops_labelled_rows_where_all_are_labelled():
    seen = []
    pool = Pool(scores=np.arange(4), labels=[0, 1, 0, 1])
    select([Keep(rows=(1, 2)), Watch(seen=seen)], pool, budget=1)
    assert seen[0][0].get_scores().tolist() == [1, 2]


def test_select__two_filters_translate_rows_back():
    pool = Pool(scores=np.arange(20), already_selected=[0])
    rows = select([Keep(rows=tuple(range(10, 20))), Keep(rows=(3, 5, 7)), "top"], pool, budget=3).rows
    # After the first filter the frame is rows 0, 10, 11, ...; places 3, 5, 7 in it are rows 12, 14, 16.
    assert rows.tolist() == [16, 14, 12]


def test_select__a_bad_row_is_named_in_the_callers_frame():
    vectors = np.ones((10, 2), np.float32)
    vectors[8] = np.nan
    eligible = np.ones(10, bool)
    eligible[:3] = False
    pool = Pool(
        vectors=vectors,
        eligible=eligible,
        targets=Targets(np.ones((1, 2)), [0], ("t",)),
        groups=np.array([0, 1] * 5),
    )
    for steps in (["rds_plus"], [{"stratified": {"within": "rds_plus"}}], [Keep(rows=(3, 4, 5, 6)), "rds_max"]):
        with pytest.raises(InvalidInput, match="row 8 ") as error:
            select(steps, pool, budget=2)
        assert error.value.row == 8


def test_select__every_step_and_round_has_its_own_stream():
    def first_number(steps, **more):
        seen = []
        select([*steps, Watch(seen=seen)], Pool(scores=np.ones(5)), budget=1, **more)
        return seen[0][1].random()

    numbers = {
        first_number([]),
        first_number([], seed=1),
        first_number([], round=1),
        first_number([Keep(rows=(0, 1))]),
    }
    assert len(numbers) == 4
    assert first_number([]) == first_number([])


class Scores(Scorer):
    name = "scores"

    def __init__(self, scores):
        self.scores = scores

    def score(self, pool, *, rng):
        return np.asarray(self.scores)


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        ([1.0, np.nan, 2.0], InvalidInput, "scores: the score of row 1 is nan"),
        ([1.0, 2.0, 1e300], InvalidInput, "scores: the score of row 2 is inf"),
        ([1.0, 2.0], BrokenStep, r"scores: needs one score for each of 3 rows, got shape \(2,\)"),
    ],
)
def test_select__scores_are_checked(scores, error, message):
    with pytest.raises(error, match=message):
        select([Scores(scores)], Pool(keys=np.arange(3)), budget=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gives(Selector):
    rows: list
    gain: list
    name: ClassVar[str] = "gives"

    def select(self, pool, budget, *, rng):
        return Selection(np.array(self.rows), np.array(self.gain), Reason.of("score", len(self.gain)))


@pytest.mark.parametrize(
    ("rows", "gain", "message"),
    [
        ([0, 0], [1, 1], "gives: gave row 0 more than once"),
        ([0, 9], [1, 1], r"gives: rows must be in 0\.\.3, got 0\.\.9"),
        ([-1, 0], [1, 1], r"gives: rows must be in 0\.\.3, got -1\.\.0"),
        ([0, 3], [1, 1], "gives: gave row 3, which is already selected"),
        ([0.0, 1.0], [1, 1], "gives: rows must be a flat array of integers"),
        ([0, 1, 2], [1, 1, 1], "gives: gave 3 rows for a budget of 2"),
        ([0, 1], [1], "gives: needs one finite gain for each of 2 rows"),
        ([0, 1], [1, np.nan], "gives: needs one finite gain"),
    ],
)
def test_select__what_a_selector_gives_is_checked(rows, gain, message):
    with pytest.raises(BrokenStep, match=message):
        select([Gives(rows=rows, gain=gain)], Pool(keys=np.arange(4), already_selected=[3]), budget=2)


def test_select__a_selector_that_finds_too_few_is_not_topped_up():
    pool = Pool(keys=np.arange(4))
    with pytest.raises(InvalidBudget, match="gives found only 1 rows for a budget of 2; allow_short takes these"):
        select([Gives(rows=[1], gain=[0])], pool, budget=2)
    short = select([Gives(rows=[1], gain=[0])], pool, budget=2, allow_short=True)
    assert short.rows.tolist() == [1]
    assert short.exhausted


def test_select__filter_rows_are_checked():
    with pytest.raises(BrokenStep, match="keep: gave row 1 more than once"):
        select([Keep(rows=(1, 1)), "random"], Pool(keys=np.arange(4)), budget=1)


class Indexed(ArrayVectors):
    """Vectors with an index that finds row 0 only."""

    def nearest(self, queries, k, within=None):
        rows = np.full((len(queries), k), -1)
        rows[:, 0] = 0
        return np.where(rows == 0, 1, -np.inf).astype(np.float32), rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches(Filter):
    """Keeps the nearest rows of row 3."""

    searches: bool
    name: ClassVar[str] = "searches"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def keep(self, pool, budget, *, rng):
        return pool.get_vectors().nearest(np.array([[3]], np.float32), 2)[1][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest(Selector):
    name: ClassVar[str] = "nearest"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def select(self, pool, budget, *, rng):
        rows = pool.get_vectors().nearest(np.ones((1, 1), np.float32), budget)[1][0]
        return Selection(rows, np.zeros(budget, np.float32), Reason.of("score", budget))


class Half(SubVectors):
    """As vectors in a store: no array."""

    def __init__(self, values):
        super().__init__(Indexed(np.array(values, np.float32)[:, None]), np.arange(len(values)))


def test_select__only_a_step_that_says_so_searches_an_index():
    pool = Pool(vectors=Half([4, 1, 2, 3]))
    assert select([Searches(searches=False), "random"], pool, budget=2).rows.tolist() in ([0, 3], [3, 0])
    assert select([Nearest()], pool, budget=2).rows.tolist() == [0, 3]
    with pytest.raises(BrokenStep, match=r"rows must be in 0\.\.3, got -1"):
        select([Searches(searches=True), "random"], pool, budget=1)  # it was given what the index found
    kept = {"random_subpool": {"rows": 4}}
    assert select([Searches(searches=False), kept, Nearest()], pool, budget=2).rows.tolist() == [0, 3]


def test_select__a_step_after_one_that_searches_is_exact():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class All(Searches):
        def keep(self, pool, budget, *, rng):
            assert pool.get_vectors().nearest(np.ones((1, 1), np.float32), 2)[1].tolist() == [[0, -1]]
            return np.arange(len(pool))

    assert select([All(searches=True), Nearest()], Pool(vectors=Half([4, 1, 2, 3])), budget=3).rows.tolist() == [
        0,
        3,
        2,
    ]


def test_import__is_light():
    code = (
        "import sys, selection; heavy = {'numba', 'torch', 'scipy', 'sklearn', 'faiss', 'dagster', 'duckdb', 'polars', "
        "'pyarrow', 'sentence_transformers'} & set(sys.modules); print(heavy or '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("", "")
