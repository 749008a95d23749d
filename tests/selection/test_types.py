from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, MissingInput, Pool, Reason, Targets
from selection.types import RetrievedRows


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "a pool needs at least one input by row"),
        ({"scores": [1.0, 2.0], "labels": [0]}, "labels: 1 rows, but scores has 2"),
        ({"scores": [1.0], "columns": {"q": [1, 2]}}, "column 'q': 2 rows, but scores has 1"),
        ({"scores": [1.0, np.nan]}, "scores: row 1 is nan, must be finite"),
        ({"scores": [1.0, 1e39]}, "scores: row 1 is inf, must be finite"),
        ({"scores": ["a"]}, "scores: must be numbers"),
        ({"scores": [[1.0]]}, r"scores: must have one value a row, got shape \(1, 1\)"),
        ({"vectors": np.ones(3)}, r"vectors: must have two axes \(rows, dimensions\), got shape \(3,\)"),
        ({"vectors": np.array([["a"]])}, "vectors: must be float16 or float32, got <U1"),
        ({"probabilities": np.ones(3)}, "probabilities: must have 2 axes"),
        ({"committee": np.ones((3, 2))}, "committee: must have 3 axes"),
        ({"labels": [0.5]}, "labels: must be integers, got float64"),
        ({"keys": [0.5]}, "keys: must be integers, got float64"),
        ({"scores": [1.0], "eligible": [1]}, "eligible: must be a mask of true and false"),
        ({"scores": [1.0], "already_selected": [1]}, r"already_selected: row 1 is outside 0\.\.0"),
        ({"scores": [1.0], "already_selected": [-1]}, r"already_selected: row -1 is outside 0\.\.0"),
        ({"scores": [1.0, 2.0], "already_selected": [1, 1]}, "already_selected: row 1 is given twice"),
        ({"scores": [1.0, 2.0], "already_selected": [0.0]}, "already_selected: must be rows"),
        ({"scores": [1.0, 2.0], "already_selected": [True]}, "already_selected: a mask of 1 rows for a pool of 2"),
        (
            {"vectors": np.ones((2, 3)), "targets": Targets(np.ones((1, 4)), np.zeros(1, int), ("t",))},
            "targets: 4 dimensions, but the pool's vectors have 3",
        ),
    ],
)
def test_pool__a_wrong_input_is_named(given, message):
    with pytest.raises(InvalidInput, match=message):
        Pool(**given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3)), [0], ("t",)), "2 vectors need as many sets and ids, got 1 sets"),
        ((np.ones((1, 3)), [1], ("t",)), r"sets must be in 0\.\.0"),
        ((np.ones(3), [0], ("t",)), "vectors must have two axes"),
        ((np.array([[1.0], [np.nan]]), [0, 0], ("t",)), "targets: vector 1 holds a value that is not finite"),
    ],
)
def test_targets__a_wrong_input_is_named(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        Targets(*arguments)


def test_pool__already_selected_is_brought_into_one_form():
    rows = Pool(scores=np.ones(5), already_selected=[3, 1]).get_already_selected()
    assert rows.tolist() == [1, 3]
    assert rows.dtype == np.int64
    assert Pool(scores=np.ones(3), already_selected=[False, True, False]).get_already_selected().tolist() == [1]


def test_pool__keys_are_row_numbers_by_default():
    pool = Pool(scores=np.ones(3))
    assert pool.get_keys().tolist() == [0, 1, 2]
    assert pool.get_keys().dtype == np.uint64


def test_pool__take_carries_everything_over():
    pool = Pool(
        scores=np.arange(4),
        labels=[-1, 2, -1, 3],
        groups=np.array(list("abcd")),
        texts=["w", "x", "y", "z"],
        columns={"q": np.arange(4) * 10},
        keys=np.arange(4) + 100,
        probabilities=np.arange(8).reshape(4, 2),
        already_selected=[0, 3],
        eligible=[True, False, True, True],
    ).take(np.array([1, 2, 3]))
    assert len(pool) == 3
    assert pool.get_scores().tolist() == [1, 2, 3]
    assert pool.get_labels().tolist() == [2, -1, 3]
    assert pool.get_groups().tolist() == ["b", "c", "d"]
    assert pool.get_texts() == ["x", "y", "z"]
    assert pool.get_column("q").tolist() == [10, 20, 30]
    assert pool.get_keys().tolist() == [101, 102, 103]
    assert pool.get_probabilities().take(np.array([0])).tolist() == [[2, 3]]
    assert pool.get_already_selected().tolist() == [2]
    assert pool.candidates.tolist() == [False, True, False]


def test_pool__take_wants_ascending_rows():
    pool = Pool(scores=np.arange(4))
    for rows in ([1, 0], [1, 1], [4], [-1]):
        with pytest.raises(InvalidInput, match=r"ascending, unique and in 0\.\.3"):
            pool.take(np.array(rows))


def test_pool__asking_for_what_is_not_there_says_so():
    pool = Pool(scores=np.ones(2), columns={"a": np.ones(2)})
    with pytest.raises(MissingInput, match="the pool has no vectors"):
        pool.get_vectors()
    with pytest.raises(MissingInput, match="the pool has no column 'b'; it has \\['a'\\]"):
        pool.get_column("b")


def test_reason__rows_are_translated_and_names_are_not():
    reason = Reason.of("anchor", 2, ref=[1, -1]).translated(np.array([10, 20]))
    assert reason.ref.tolist() == [20, -1]
    named = Reason.of("target", 2, ref=[1, 0], names=("a", "b")).translated(np.array([10, 20]))
    assert named.ref.tolist() == [1, 0]
    assert named.text() == ["b", "a"]


def test_found__is_told_of_the_rows_asked_for_in_their_order():
    found = RetrievedRows("anchors", np.array([5, 2, 9]), Reason.of("anchor", 3, ref=np.array([50, 20, 90])))
    asked = found.of(np.array([9, 3, 2, 11]))  # nothing is told of 3 and 11
    assert (asked.rows.tolist(), asked.reason.ref.tolist()) == ([9, 2], [90, 20])
