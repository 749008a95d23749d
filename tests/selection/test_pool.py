from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, MissingInput, Pool, Targets, select


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


class Frame:
    """As a data frame: it has a shape, but neither blocks nor a way to become an array."""

    shape = (2, 2)

    def __array__(self, *_, **__):
        raise TypeError("this frame holds several types")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vectors": [[1.0, 2.0], [3.0]]}, "vectors: must be an array or lists of equal lengths, got a list"),
        ({"vectors": "near"}, r"vectors: must have two axes \(rows, dimensions\), got a str without axes"),
        ({"vectors": {"a": [1.0]}}, "vectors: must have two axes .* got a dict without axes"),
        ({"vectors": Frame()}, r"vectors: must be an array .*, got a Frame \(this frame holds several types\)"),
        ({"vectors": [[None, 1.0]]}, "vectors: must be float16 or float32, got object"),
        ({"vectors": np.ones((2, 2), complex)}, "vectors: must be float16 or float32, got complex128"),
        ({"scores": 3}, "scores: must have one value a row, got a int without axes"),
        ({"scores": {1.0, 2.0}}, "scores: must have one value a row, got a set without axes"),
        ({"scores": [1.0, None]}, "scores: must be numbers, got object"),
        ({"probabilities": "p"}, "probabilities: must have 2 axes"),
        ({"probabilities": Frame()}, "probabilities: must be an array"),
        ({"labels": ["cat", "dog"]}, "labels: must be integers, got <U3"),
        ({"groups": "ab"}, "groups: must have one value a row, got a str without axes"),
        ({"groups": [["a"], ["b", "c"]]}, "groups: must be an array or lists of equal lengths"),
        ({"groups": np.array([{}, "b"], object)}, "groups: row 0 is a dict, must be a number or a string"),
        ({"texts": "one text"}, "texts: must be a list of strings, got a str"),
        ({"texts": 7}, "texts: must be a list of strings, got a int"),
        ({"texts": ["a", None]}, "texts: row 1 is a NoneType, must be a string"),
        ({"columns": [[1, 2]]}, "columns: must be a mapping of names to one value a row, got a list"),
        ({"columns": {3: [1, 2]}}, "columns: must be a mapping of names"),
        ({"columns": {"q": 3}}, "column 'q': must have one value a row, got a int without axes"),
        ({"columns": {"q": [1, 2], "r": [1]}}, "column 'r': 1 rows, but column 'q' has 2"),
        ({"columns": {"q": [[1], [2, 3]]}}, "column 'q': must be an array or lists of equal lengths"),
        ({"columns": None}, "a pool needs at least one input by row"),
        ({"scores": [1.0], "already_selected": "0"}, "already_selected: must have one value a row"),
        ({"scores": [1.0], "already_selected": ["0"]}, "already_selected: must be rows"),
        ({"scores": [1.0], "eligible": "yes"}, "eligible: must have one value a row"),
        ({"scores": [1.0], "targets": np.ones(3)}, "targets: vectors must have two axes .*, got shape"),
        ({"scores": [1.0], "targets": "maths"}, "targets: vectors must have two axes .*, got a str without axes"),
        ({"scores": [1.0], "targets": {"maths": np.ones((1, 2))}}, "targets: vectors must have two axes .* a dict"),
        ({"scores": [1.0], "targets": [["a"]]}, "targets: vectors must be float16 or float32, got <U1"),
        (
            {"vectors": np.ones((2, 3)), "targets": np.ones((1, 4))},
            "targets: 4 dimensions, but the pool's vectors have 3",
        ),
    ],
)
def test_pool__what_a_person_may_pass_by_mistake_is_named(given, message):
    with pytest.raises(InvalidInput, match=message):
        Pool(**given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sets": [0]}, "2 vectors need as many sets and ids, got 1 sets"),
        ({"sets": ["maths", "code"]}, "targets: sets: must be integers, got <U5"),
        ({"names": ("maths", "code")}, "2 vectors need as many sets and ids, got 0 sets"),
        ({"names": "maths"}, "targets: names: must be a list of strings, got a str"),
        ({"names": (1,)}, r"targets: names must be strings, got \(1,\)"),
        ({"sets": [0, 1], "names": ("maths",)}, r"sets must be in 0\.\.0, the indices of \('maths',\)"),
        ({"ids": ("a",)}, "2 vectors need as many sets and ids, got 2 sets and 1 ids"),
        ({"ids": 3}, "targets: ids: must be a list of strings, got a int"),
        ({"committee": np.ones((2, 3))}, "targets: committee must have three axes"),
        ({"committee": [[[1.0]], [[0.5]]]}, "targets: committee: row 1, member 0 sums to 0.5"),
    ],
)
def test_targets__what_a_person_may_pass_by_mistake_is_named(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        Targets([[1.0, 0.0], [0.0, 1.0]], **arguments)


def test_targets__sets_and_names_have_defaults():
    one = Targets([[1, 0], [0, 1]])
    assert (one.vectors.dtype, one.sets.tolist(), one.names) == (np.float32, [0, 0], ("target",))
    named = Targets([[1, 0], [0, 1]], names=["maths"], ids=["a", "b"])
    assert named.printable() == ("maths/a", "maths/b")
    numbered = Targets(np.eye(2, dtype=np.float16), [1, 0])
    assert (numbered.vectors.dtype, numbered.names) == (np.float16, ("0", "1"))


def test_pool__an_array_of_targets_is_one_set():
    X = np.eye(3, dtype=np.float32)
    rows = [
        select(["rds_plus"], Pool(vectors=X, targets=targets), budget=2).rows.tolist()
        for targets in (X[1:2], Targets(X[1:2]))
    ]
    assert rows == [[1, 0], [1, 0]]
    assert Pool(vectors=X, targets=[[0, 1, 0]]).get_targets().printable() == ("target/0",)


def test_pool__lists_and_other_peoples_arrays_are_taken():
    polars, torch = pytest.importorskip("polars"), pytest.importorskip("torch")
    pool = Pool(
        vectors=torch.eye(3, dtype=torch.float16),
        scores=(1, 2, 3),
        labels=polars.Series([0, -1, 1]),
        groups=["a", "b", None],
        texts=polars.Series(["x", "y", "z"]),
        columns={"n": [1, 2, 3], "s": polars.Series(["u", "v", "w"])},
    )
    assert pool.get_vectors().take(np.array([1])).tolist() == [[0, 1, 0]]
    assert pool.get_labels().tolist() == [0, -1, 1]
    assert pool.get_texts() == ["x", "y", "z"]
    assert pool.get_column("s").tolist() == ["u", "v", "w"]
    assert len(select(["stratified"], pool, budget=3).rows) == 3
    with pytest.raises(InvalidInput, match=r"vectors: must be an array .*, got a Tensor"):
        Pool(vectors=torch.eye(3, requires_grad=True))


def test_repr__is_one_short_line():
    pool = Pool(
        vectors=np.ones((1000, 4)), columns={"n": np.arange(1000)}, targets=np.ones((5, 4)), already_selected=[3]
    )
    assert repr(pool) == "Pool(1000 rows: vectors, targets, columns n; 1 already selected)"
    assert repr(pool.get_targets()) == "Targets(5 vectors of 4 dimensions in 1 sets)"
    assert repr(select(["top"], Pool(scores=[1, 3, 2]), budget=2)) == "Selection(2 rows: 1, 2)"
    assert (
        repr(select(["top"], Pool(scores=np.arange(10)), budget=9)) == "Selection(9 rows: 9, 8, 7, 6, 5, 4, 3, 2, ...)"
    )
