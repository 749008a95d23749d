"""An answer reaches the row that it was given for, or none."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from storage.ids import to_text
from storage.labels.batches import FORMATS, BatchItem, text_digest, write_batch
from storage.labels.log import import_labels, read_import, read_log
from storage.pool.snapshot import Snapshot, open_snapshot
from tests.storage.conftest import SmallStore, id_of
from tests.storage.labels.test_log import quarantined

NAMES = {id_of(f"p{i}"): f"p{i}" for i in range(1, 9)}


def printed(prompt: str) -> str:
    return str(uuid.UUID(bytes=id_of(prompt)))


@pytest.fixture
def pool(store: SmallStore) -> SmallStore:
    """Rows p1 .. p6, called 1 .. 4, `twin` and `twin`; round topics-0 sent p2, p3 and p4."""
    store.add_snapshot(
        [store.add_file("a", [f"p{i}" for i in range(1, 7)], extra=[{"id": i} for i in (1, 2, 3, 4, "twin", "twin")])]
    )
    store.add_round("topics", 0, ["p2", "p3", "p4"])
    return store


def newest(store: SmallStore) -> Snapshot:
    snapshots = [open_snapshot(store, name) for name in store.records("snapshots")]
    return max(snapshots, key=lambda snapshot: int(snapshot.header["created_ns"]))


def reached(store: SmallStore, *records: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The rows that have a label, and the causes why others have none."""
    file = store.root.parent / "back.jsonl"
    file.write_text("".join(json.dumps({"label": "a"} | record) + "\n" for record in records))
    made = import_labels(store, "topics", str(file), classes=["a"], snapshot=newest(store))
    rows = [NAMES[row_id.bytes] for row_id in read_log(store, "topics")["id"].to_pylist()]
    return rows, [cause for _, cause in quarantined(store, made)]


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ({"winnow_id": printed("p1")}, "p1"),
        ({"winnow_id": printed("p1"), "id": 2}, "p1"),  # the tool's number
        ({"winnow_id": printed("p1").upper(), "id": {"$oid": 7}}, "p1"),
        ({"id": printed("p1")}, "p1"),
        ({"id": printed("p1"), "given_id": "1"}, "p1"),
        ({"id": printed("p5"), "given_id": "twin"}, "p5"),
        ({"id": 17, "given_id": "2"}, "p2"),
        ({"id": 4, "given_id": "2"}, "p2"),
        ({"id": str(uuid.UUID(int=4)), "given_id": "2"}, "p2"),  # a tool that gives UUIDs
        ({"id": 3}, "p3"),
        ({"meta": {"winnow_id": printed("p2"), "round": "topics-0"}, "id": 1}, "p2"),
        ({"id": 1, "round": "of another store"}, "p1"),
        ({"winnow_id": printed("p2"), "given_id": "02", "text_digest": text_digest(id_of("p2"))}, "p2"),
        ({"winnow_id": printed("p2"), "given_id": "3", "text_digest": text_digest(id_of("p2"))}, "p2"),  # Excel's 03
        ({"id": 1, "prompt": " P1\r\n", "response": "answer to&nbsp;p1"}, "p1"),
        ({"id": 1, "text": "user: p1\nassistant: answer to p1"}, "p1"),
        ({"id": 1, "text": ""}, "p1"),
    ],
)
def test_recipients__the_row_of_an_answer(pool: SmallStore, record: dict[str, Any], row: str) -> None:
    assert reached(pool, record) == ([row], [])


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        ({"id": 1, "round": "topics-0"}, "round topics-0 did not send row '1'"),
        ({"winnow_id": printed("p1"), "round": "topics-0"}, f"round topics-0 did not send row '{printed('p1')}'"),
        ({"id": 2, "text": "p3"}, "row '2' has another text, which begins 'p2 answer to p2', not 'p3'"),
        ({"id": 2, "prompt": "p2", "response": "answer to p3"}, "row '2' has another text, .*, not 'answer to p3'"),
        ({"id": 2, "round": "topics-0", "prompt": "p4"}, "row '2' has another text"),
        (
            {"winnow_id": printed("p2"), "text_digest": text_digest(id_of("p3"))},
            f"text_digest is '{text_digest(id_of('p3'))}', that of row '{printed('p2')}' is",
        ),
        ({"id": 2, "text_digest": "1.0E+12"}, "text_digest is '1.0E\\+12', that of row '2' is"),
        (
            {"winnow_id": printed("p2"), "given_id": "3"},
            f"is row {printed('p2')}, but given_id '3' is row {printed('p3')}",
        ),
        ({"id": printed("p2"), "given_id": "3"}, "but given_id '3' is row"),
        ({"winnow_id": "2"}, "winnow_id '2' names no row of the pool"),
        ({"winnow_id": "7", "id": 2}, "winnow_id '7' names no row of the pool"),
        ({"id": 5, "given_id": "twin"}, "'twin' names 2 rows of the pool"),
        ({"id": 2, "annotator": "gold"}, "annotator is 'gold', which is winnow's name for known answers"),
        ({"id": 2, "annotator": " gold ", "skip": True}, "annotator is 'gold'"),
    ],
)  # fmt: skip
def test_recipients__an_answer_that_was_given_for_another_row(
    pool: SmallStore, record: dict[str, Any], cause: str
) -> None:
    rows, (got,) = reached(pool, record)
    assert rows == []
    assert re.search(cause, got), got


def test_recipients__a_text_that_a_tool_cut(store: SmallStore) -> None:
    long = "word " * 100
    store.add_snapshot([store.add_file("a", [f"{long}1", "p2"], extra=[{"id": 1}, {"id": 2}])])
    file = store.root.parent / "back.jsonl"
    records = [{"id": 1, "text": long[:300] + "…", "label": "a"}, {"id": 2, "text": "p", "label": "a"}]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    made = import_labels(store, "topics", str(file), classes=["a"], snapshot=newest(store))
    assert (made.new, made.quarantined) == (1, 1)


def test_recipients__an_own_id_of_another_row_now(pool: SmallStore) -> None:
    """The row was sent out, then its text was edited in the pool: the label is of the text that was sent."""
    pool.add_snapshot([pool.add_file("b", ["p8"], extra=[{"id": 2}])])
    record = {"winnow_id": printed("p2"), "given_id": "2", "prompt": "p2", "round": "topics-0"}
    assert reached(pool, record) == (["p2"], [])


def test_recipients__another_row_has_winnows_id_as_its_own(pool: SmallStore) -> None:
    """A row was exported, edited and put back with winnow's id as its own."""
    pool.add_snapshot([*pool.committed("pool"), pool.add_file("b", ["p8"], extra=[{"id": printed("p1")}])])
    snapshot = newest(pool)
    assert reached(pool, {"id": printed("p1")}) == (["p1"], [])
    assert to_text(snapshot.ids[snapshot.match([printed("p1")]).rows]) == [printed("p1")]


def test_recipients__what_was_not_given_for_its_row_is_not_looked_up_again(pool: SmallStore) -> None:
    reached(pool, {"id": 1, "round": "topics-0"}, {"id": "late"})
    (name,) = pool.records("labels")
    made = read_import(pool, name)
    assert (made.quarantined, made.unknown_ids) == (2, 1)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", FORMATS)
def test_recipients__a_batch_of_any_format_and_version_comes_back(
    pool: SmallStore, tmp_path: Path, kind: str, version: int
) -> None:
    """Also when the tool puts a number of its own into `id`, and Label Studio around it all."""
    items = [
        BatchItem(
            id=id_of(prompt),
            turns=[("user", prompt), ("assistant", f"answer to {prompt}")],
            round_id="topics-0",
            given_id=prompt[1:],
        )
        for prompt in ("p2", "p3", "p4")
    ]
    (file, *_) = write_batch(tmp_path / "batch", kind, items, ["a"], version=version)
    if kind == "label_studio":
        tasks = json.loads(file.read_text())
        result = {"from_name": "label", "type": "choices", "value": {"choices": ["a"]}}
        for number, task in enumerate(tasks, start=1):
            task |= {"id": number, "annotations": [{"id": number, "result": [result]}]}
            task["data"]["id"] = number
        file.write_text(json.dumps(tasks))
    elif kind == "jsonl":
        records = [json.loads(line) | {"label": "a"} for line in file.read_text().splitlines()]
        for number, record in enumerate(records, start=1):
            record["id"] = number if version == 2 else record["id"]
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        header, *lines = file.read_text().splitlines()
        cells = [line.split(",") for line in lines]
        at = header.split(",").index("label")
        for row in cells:
            row[at] = "a"
        file.write_text("\n".join([header, *(",".join(row) for row in cells)]))
    made = import_labels(pool, "topics", str(file), classes=["a"], snapshot=newest(pool))
    assert (made.new, made.quarantined) == (3, 0)
    assert [NAMES[row.bytes] for row in read_log(pool, "topics")["id"].to_pylist()] == ["p2", "p3", "p4"]
