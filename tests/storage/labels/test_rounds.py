from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from storage.errors import NotInStore, StoreDamaged
from storage.ids import from_bytes, to_arrow
from storage.labels.rounds import ADDED_COLUMNS, ITEM_COLUMNS, commit_round, read_round_items, read_rounds
from storage.store import Store
from tests.storage.conftest import SmallStore, id_of


def items(**columns: Any) -> pa.Table:
    n = len(columns.get("rank", [1, 2]))
    given = {
        "rank": [1, 2],
        "id": to_arrow(from_bytes([id_of("p1"), id_of("p2")][:n])),
        "arm": ["strategy", "gold"],
        "annotators": [1, 2],
        "prediction": ["a", None],
        "probability": [0.5, None],
        "score": [1.5, None],
        "inclusion_probability": pa.nulls(n),
    } | columns
    return pa.table(given)


def test_round__is_read_back_as_it_was_committed(store: Store) -> None:
    header = {"round_id": "R", "project": "topics", "round": 0, "steps": [{"power": {"beta": 2}}], "spent": 1.5}
    assert commit_round(store, header, items()) == "R"
    commit_round(store, header | {"spent": 9}, items())  # the first stands
    (committed,) = read_rounds(store, "topics")
    assert committed == header | {"n_items": 2, "created_at": committed["created_at"]}
    table = read_round_items(store, "R")
    assert {name: table.schema.field(name).type for name in table.column_names} == ITEM_COLUMNS | ADDED_COLUMNS
    assert table.to_pylist()[0] | {"id": None} == {
        "rank": 1, "id": None, "arm": "strategy", "annotators": 1, "prediction": "a", "probability": 0.5, "score": 1.5,
        "inclusion_probability": None, "assigned": None, "price": None,
    }  # fmt: skip


def test_round__says_who_a_row_was_given_to(store: Store) -> None:
    assigned = pa.array([["ann", "bob"], ["bob"]])
    commit_round(store, {"round_id": "R", "project": "topics", "round": 0}, items(assigned=assigned))
    assert read_round_items(store, "R")["assigned"].to_pylist() == [["ann", "bob"], ["bob"]]


def test_rounds__of_one_project_by_number(store: SmallStore) -> None:
    for project, number in (("topics", 10), ("topics", 2), ("other", 1), ("topics", 0)):
        store.add_round(project, number, ["p1"])
    assert [header["round"] for header in read_rounds(store, "topics")] == [0, 2, 10]
    assert read_rounds(store, "none") == []


def test_round__an_empty_one_is_a_record(store: Store) -> None:
    commit_round(store, {"round_id": "R", "project": "topics", "round": 0}, items().slice(0, 0))
    assert len(read_round_items(store, "R")) == 0


@pytest.mark.parametrize(
    ("columns", "cause"),
    [
        ({"rank": [2, 1]}, "round R: ranks must be 1 .. 2"),
        ({"arm": ["strategy", "best"]}, "round R: arm must be one of strategy, random, gold, rare, got 'best'"),
        ({"id": to_arrow(from_bytes([id_of("p1")] * 2))}, "comes more than once"),
    ],
)
def test_round__what_is_refused(store: Store, columns: dict[str, Any], cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        commit_round(store, {"round_id": "R", "project": "topics", "round": 0}, items(**columns))
    with pytest.raises(ValueError, match="miss the columns"):
        commit_round(store, {"round_id": "R", "project": "topics", "round": 0}, items().drop_columns(["score"]))
    assert not store.has("records", "rounds", "R")


def test_round__missing_and_damaged(store: SmallStore) -> None:
    with pytest.raises(NotInStore, match="no round 'R'"):
        read_round_items(store, "R")
    name = store.add_round("topics", 0, ["p1"])
    store.path("records", "rounds", name, "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreDamaged, match="items"):
        read_round_items(store, name)
