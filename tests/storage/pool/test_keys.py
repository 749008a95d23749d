"""A key is a winnow id or the id that a row had in its file; it sets nothing where it names several rows."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.errors import BadInput
from storage.ids import Ids, from_bytes, rows_of, to_arrow, to_text
from storage.pool.keys import key_texts, match_keys, match_source

IDS = from_bytes(bytes([i]) * 16 for i in (1, 2, 3))
# Rows 0 and 1 were both called "twice"; row 2 stands in two files as "c" and "d"; an occurrence of row 0 has no id.
GIVEN = pa.chunked_array([["twice", None, "twice"], ["c", "d"]])
ROWS = np.array([0, 0, 1, 2, 2])


class TargetRows:
    """Rows in an order of their own, as those of a target set."""

    name = "targets"
    ids = IDS[[2, 0]]

    def occurrence_keys(self) -> tuple[Ids, pa.ChunkedArray]:
        return self.ids, pa.chunked_array([["last", "first"]])


def test_match_keys__by_both_ids() -> None:
    match = match_keys([to_text(IDS)[1], "c", "d", "nobody", "twice", str(uuid.UUID(int=0))], IDS, GIVEN, ROWS)
    assert match.rows.tolist() == [1, 2, 2, -1, -1, -1]
    assert match.ambiguous.tolist() == [False, False, False, False, True, False]
    assert match.unknown.tolist() == [False, False, False, True, False, True]
    assert match.examples(match.unknown, 1) == ["nobody"]
    rows, first = match.first()
    assert (rows.tolist(), first.tolist()) == ([1, 2], [0, 1])


def test_match_keys__an_id_in_a_file_that_looks_like_a_winnow_id() -> None:
    looks_like = str(uuid.UUID(int=7))
    match = match_keys([looks_like], IDS, pa.chunked_array([[looks_like]]), np.array([2]))
    assert match.rows.tolist() == [2]


def test_match_keys__winnows_id_goes_before_an_own_id() -> None:
    """A row was exported with winnow's id, edited and put back, with that as its own id."""
    first, second = to_text(IDS[:2])
    given, rows = pa.chunked_array([[first, second]]), np.array([2, 1])
    match = match_keys([first, first.replace("-", "").upper(), second], IDS, given, rows)
    assert match.rows.tolist() == [0, 0, 1]
    assert match.shadowed.tolist() == [True, False, False]
    assert match.counts.tolist() == [1, 1, 1]


def test_match_keys__several_rows_share_an_own_id_that_is_winnows_of_another() -> None:
    first = to_text(IDS[:1])[0]
    match = match_keys([first], IDS, pa.chunked_array([[first, first]]), np.array([1, 2]))
    assert (match.rows.tolist(), match.ambiguous.tolist(), match.shadowed.tolist()) == ([0], [False], [True])


def test_match_keys__winnows_id_alone() -> None:
    match = match_keys(["c", to_text(IDS)[1], "twice"], IDS, GIVEN, ROWS, only_winnow=True)
    assert (match.rows.tolist(), match.counts.tolist()) == ([-1, 1, -1], [0, 1, 0])
    match = match_keys(["c", "c"], IDS, GIVEN, ROWS, only_winnow=np.array([True, False]))
    assert match.rows.tolist() == [-1, 2]


@pytest.mark.parametrize("write", ["{{{}}}", "urn:uuid:{}"])
def test_match_keys__winnows_id_in_any_spelling(write: str) -> None:
    assert match_keys([write.format(to_text(IDS)[1])], IDS, GIVEN, ROWS).rows.tolist() == [1]


def test_match_keys__none() -> None:
    match = match_keys([], IDS, GIVEN, ROWS)
    assert (len(match.rows), len(match.unknown), len(match.first()[0])) == (0, 0, 0)


def test_match_source__rows_are_positions_among_the_ascending_ids() -> None:
    source = TargetRows()
    match = match_source(["last", "first"], source)
    assert match.rows.tolist() == rows_of(source.ids, np.sort(source.ids)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (to_arrow(IDS[:1]), to_text(IDS[:1])),
        (pa.array([b"\1" * 16]), to_text(IDS[:1])),
        (pa.array([7]), ["7"]),
        (pa.array(["x"], pa.large_string()), ["x"]),
        (pa.array(["x"], pa.string_view()), ["x"]),
        (pa.array(["x"]).dictionary_encode(), ["x"]),
        (pa.array([b"\1" * 16], pa.large_binary()), to_text(IDS[:1])),
    ],
)
def test_key_texts__of_every_type(column: Any, texts: list[str]) -> None:
    assert key_texts(pa.chunked_array([column]), "id", "columns: f").to_pylist() == texts


@pytest.mark.parametrize(
    ("column", "cause"),
    [
        (pa.array(["a", None]), "columns: f: 1 rows have no 'id'"),
        (pa.array([b"short"]), "binary, but not of the 16 bytes"),
        (pa.array([1.5]), "must be UUID, text or integer, got double"),
    ],
)
def test_key_texts__what_is_refused(column: Any, cause: str) -> None:
    with pytest.raises(BadInput, match=cause):
        key_texts(pa.chunked_array([column]), "id", "columns: f")
