from __future__ import annotations

import json
import tempfile
import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.catalog.publish import publish_catalog
from storage.catalog.query import open_catalog, query_catalog
from storage.errors import BadInput
from storage.labels.log import LOG_SCHEMA, LabelImport, counted, import_labels, log_digest, read_import, read_log
from storage.pool.snapshot import Snapshot, open_snapshot
from tests.storage.conftest import SmallStore, id_of

CLASSES = ["a", "b"]


def snapshot_of(store: SmallStore) -> Snapshot:
    return open_snapshot(store, store.records("snapshots")[-1])


def put(
    store: SmallStore, name: str, labels: Sequence[Any], snapshot: Snapshot | None = None, **more: Any
) -> LabelImport:
    """Import `<name>` with one label a line."""
    file = store.root.parent / name
    file.write_text("".join(f"{json.dumps(label)}\n" for label in labels))
    options = {"classes": CLASSES, "snapshot": snapshot or snapshot_of(store)} | more
    return import_labels(store, "topics", str(file), **options)


def labels_of(store: SmallStore, *, counting: bool = False) -> list[tuple[Any, ...]]:
    log = read_log(store, "topics")
    columns = ["id", "annotator", "kind", "label"]
    rows = (counted(log) if counting else log).select(columns).to_pylist()
    names = {id_of(prompt): prompt for prompt in ("p1", "p2", "p3", "p4")}
    return [(names[row["id"].bytes], row["annotator"], row["kind"], row["label"]) for row in rows]


def quarantined(store: SmallStore, made: LabelImport) -> list[tuple[int, str]]:
    table = pq.read_table(store.path("records", "labels", made.id, "quarantine.parquet"))
    return list(zip(table["line"].to_pylist(), table["cause"].to_pylist(), strict=True))


@pytest.fixture
def pool(store: SmallStore) -> SmallStore:
    """Three rows, called r1, r2 and 3 in their file; a repeat of the first, called again; p4 twice called twin."""
    a = store.add_file("a", ["p1", "p2", "p3", "p1"], extra=[{"id": name} for name in ("r1", "r2", 3, "again")])
    b = store.add_file("b", ["p4", "p2 too"], extra=[{"id": "twin"}, {"id": "twin"}])
    store.add_snapshot([a, b])
    return store


# ---- rows by name


def test_import__rows_by_winnows_id_and_by_their_own(pool: SmallStore) -> None:
    ours = uuid.UUID(bytes=id_of("p2"))
    names = [str(ours), ours.hex.upper(), "r2", 3, "3", " r1 ", "again"]
    made = put(pool, "l.jsonl", [{"id": name, "label": "a", "annotator": str(i)} for i, name in enumerate(names)])
    assert (made.new, made.quarantined) == (7, 0)
    assert [row[0] for row in labels_of(pool)] == ["p2", "p2", "p2", "p3", "p3", "p1", "p1"]


def test_import__a_name_of_no_row_or_several_costs_that_label(pool: SmallStore) -> None:
    stranger = str(uuid.UUID(int=7))
    made = put(pool, "l.jsonl", [{"id": name, "label": "a"} for name in ("nobody", "twin", stranger, "r1")])
    assert labels_of(pool) == [("p1", "unknown", "class", "a")]
    assert (made.new, made.quarantined, made.unknown_ids, made.read) == (1, 3, 3, 4)
    assert quarantined(pool, made) == [
        (1, "'nobody' names no row of the pool"),
        (2, "'twin' names 2 rows of the pool"),
        (3, f"'{stranger}' names no row of the pool"),
    ]


def test_import__unknown_ids_are_tried_again_in_another_pool(pool: SmallStore) -> None:
    labels = [{"id": "r1", "label": "a"}, {"id": "late", "label": "b"}]
    first = put(pool, "l.jsonl", labels)
    assert (first.new, first.unknown_ids) == (1, 1)
    assert put(pool, "l.jsonl", labels).id == first.id
    c = pool.add_file("c", ["p2", "p4"], extra=[{"id": "x"}, {"id": "late"}])
    later = open_snapshot(pool, pool.add_snapshot([*pool.committed("pool"), c]))
    second = put(pool, "l.jsonl", labels, later)
    assert second.id != first.id
    assert (second.new, second.known, second.unknown_ids) == (1, 1, 0)
    assert put(pool, "l.jsonl", labels, later).new == 0
    assert len(pool.records("labels")) == 2
    assert [row[0] for row in labels_of(pool)] == ["p1", "p4"]
    publish_catalog(pool)
    assert query_catalog(pool, "FROM label_quarantine").num_rows == 0


def test_import__a_row_sent_out_is_known_after_it_left_the_pool(pool: SmallStore) -> None:
    pool.add_round("topics", 0, ["p1", "p2"])
    other = open_snapshot(pool, pool.add_snapshot([pool.add_file("c", ["p9"])]))
    labels = [{"id": str(uuid.UUID(bytes=id_of(prompt))), "label": "a"} for prompt in ("p1", "p3")]
    made = put(pool, "l.jsonl", labels, other)
    assert (labels_of(pool), made.unknown_ids) == ([("p1", "unknown", "class", "a")], 1)


# ---- once


def test_import__the_same_file_twice_changes_nothing(pool: SmallStore) -> None:
    labels = [{"id": "r1", "label": "a"}, {"id": "r2", "label": "nope"}]
    first = put(pool, "l.jsonl", labels)
    before = log_digest(read_log(pool, "topics"))
    second = put(pool, "l.jsonl", labels)
    copy = put(pool, "copy.jsonl", labels)
    assert second == copy == replace(first, new=0, known=1)
    assert pool.records("labels") == [first.id]
    assert log_digest(read_log(pool, "topics")) == before
    assert read_import(pool, first.id) == first


def test_import__a_file_that_grew_adds_what_is_new(pool: SmallStore) -> None:
    labels = [{"id": "r1", "label": "a"}, {"id": "r2", "label": "b"}]
    put(pool, "l.jsonl", labels[:1])
    made = put(pool, "l.jsonl", labels)
    assert (made.new, made.known) == (1, 1)
    assert [row[0] for row in labels_of(pool)] == ["p1", "p2"]


def test_import__a_change_of_mind_and_back_in_a_file_that_grows(pool: SmallStore) -> None:
    labels = [{"id": "r1", "label": name} for name in "aba"]
    for count in (1, 2, 3):
        put(pool, "l.jsonl", labels[:count])
    assert [row[3] for row in labels_of(pool)] == ["a", "b", "a"]
    assert labels_of(pool, counting=True) == [("p1", "unknown", "class", "a")]


def test_import__a_file_edited_in_place_counts_as_its_latest_state(pool: SmallStore) -> None:
    states = [[{"id": "r1", "label": name}, {"id": "r2", "label": "b"}] for name in "abab"]
    for state in states:
        made = put(pool, "l.jsonl", state)
        assert (made.new > 0, put(pool, "l.jsonl", state).new) == (True, 0)
        assert {row[0]: row[3] for row in labels_of(pool, counting=True)} == {"p1": state[0]["label"], "p2": "b"}
    grown = [*states[0], {"id": 3, "label": "a"}]
    assert put(pool, "l.jsonl", grown).new == 2
    assert {row[0]: row[3] for row in labels_of(pool, counting=True)} == {"p1": "a", "p2": "b", "p3": "a"}
    publish_catalog(pool)
    assert query_catalog(pool, "SELECT label FROM labels ORDER BY label")["label"].to_pylist() == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"label": "a"}, {"skip": True}),
        ({"label": "a", "time": "2026-01-01"}, {"label": "b", "time": "2026-01-02"}),
        ({"rating": 1}, {"rating": 2}),
        ({"label": "a", "cost": 2.0}, {"label": "b", "cost": 3.0}),
    ],
)
def test_import__back_at_an_earlier_state_whatever_it_says(pool: SmallStore, first: Any, second: Any) -> None:
    """An older copy of the file is put back: it is what the file says now, and nothing is paid twice."""
    said = []
    for entry in (first, second, first, second):
        put(pool, "l.jsonl", [{"id": "r1"} | entry])
        said.append(counted(read_log(pool, "topics")).select(["kind", "label", "rating"]).to_pylist())
    assert said[0] == said[2]
    assert said[1] == said[3]
    log = read_log(pool, "topics")
    assert len(log) == 4
    assert sum(log["cost"].to_pylist()) == 5.0 if "cost" in first else log["cost"].null_count == 4


def test_import__the_latest_time_in_an_edited_file_counts(pool: SmallStore) -> None:
    late, early = ({"id": "r1", "label": name, "time": f"2026-01-0{day}"} for name, day in (("a", 9), ("b", 3)))
    put(pool, "l.jsonl", [late])
    put(pool, "l.jsonl", [early, late])
    assert labels_of(pool, counting=True) == [("p1", "unknown", "class", "a")]
    assert put(pool, "l.jsonl", [late]).new == 0
    put(pool, "l.jsonl", [early])
    assert labels_of(pool, counting=True) == [("p1", "unknown", "class", "b")]


def test_import__files_that_agree_by_turns(pool: SmallStore) -> None:
    """A file comes to say what another says already, and back."""
    for name, label in (("x", "a"), ("y", "b"), ("x", "b"), ("x", "a")):
        put(pool, f"{name}.jsonl", [{"id": "r1", "label": label, "annotator": "ann"}])
        assert labels_of(pool, counting=True) == [("p1", "ann", "class", label)]


def test_import__files_that_hold_the_same_labels_never_say_them_again(pool: SmallStore) -> None:
    first, second, third = (
        {"id": "r1", "label": name, "time": f"2026-01-0{day}"} for name, day in (("a", 1), ("b", 2), ("a", 3))
    )
    put(pool, "all.jsonl", [first, second, third])
    for rotated in ([first], [second], [first], [first, second]):
        put(pool, "latest.jsonl", rotated)
    assert len(labels_of(pool)) == 3
    put(pool, "old.jsonl", [first, second])
    put(pool, "old.jsonl", [first, second, {"id": "r2", "label": "b"}])
    assert [row[3] for row in labels_of(pool, counting=True)] == ["a", "b"]


def test_import__a_line_that_leaves_the_file_stays_a_label(pool: SmallStore) -> None:
    put(pool, "l.jsonl", [{"id": "r1", "label": "a"}, {"id": "r2", "label": "b"}])
    put(pool, "l.jsonl", [{"id": "r2", "label": "b"}])
    assert labels_of(pool, counting=True) == [("p1", "unknown", "class", "a"), ("p2", "unknown", "class", "b")]


def test_import__another_project_class_list_or_mapping_is_another_import(pool: SmallStore) -> None:
    labels = [{"id": "r1", "label": "a", "verdict": "b"}, {"id": "r2", "label": "c", "verdict": "b"}]
    snapshot = snapshot_of(pool)
    first = put(pool, "l.jsonl", labels)
    assert (first.new, first.quarantined) == (1, 1)
    more = put(pool, "l.jsonl", labels, classes=["a", "b", "c"])
    assert (more.new, more.known, more.quarantined) == (1, 1, 0)
    assert put(pool, "l.jsonl", labels, fields={"label": "verdict"}).new == 2
    file = str(pool.root.parent / "l.jsonl")
    assert import_labels(pool, "other", file, classes=CLASSES, snapshot=snapshot).new == 1
    assert len(read_log(pool, "other")) == 1
    assert len(read_log(pool, "topics")) == 4


def test_import__two_at_once_are_harmless(pool: SmallStore) -> None:
    shared = [{"id": "r1", "label": "a"}, {"id": "r2", "label": "b"}]
    makers = [
        threading.Thread(
            target=put, args=(pool, f"l{i}.jsonl", [*shared, {"id": 3, "label": "a", "annotator": str(i)}])
        )
        for i in range(6)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(read_log(pool, "topics")) == 8
    numbers = sorted(read_import(pool, name).number for name in pool.records("labels"))
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_log__an_event_that_two_imports_stored_is_there_once(pool: SmallStore) -> None:
    first = put(pool, "l.jsonl", [{"id": "r1", "label": "a"}])
    with pool.committing("records", "labels", "twin") as folder:
        for name in ("labels.parquet", "quarantine.parquet"):
            (folder / name).write_bytes(pool.path("records", "labels", first.id, name).read_bytes())
        content = json.loads(pool.path("records", "labels", first.id, "import.json").read_text())
        (folder / "import.json").write_text(json.dumps(content | {"id": "twin"}))
    assert len(read_log(pool, "topics")) == 1
    publish_catalog(pool)
    assert query_catalog(pool, "FROM labels").num_rows == 1


def test_log__of_a_project_without_labels(store: SmallStore) -> None:
    log = read_log(store, "topics")
    assert (len(log), log.schema) == (0, LOG_SCHEMA)
    assert counted(log).schema == LOG_SCHEMA
    assert len(log_digest(log)) == 32


def test_import__what_cannot_be_read(pool: SmallStore, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be opened"):
        import_labels(pool, "topics", str(tmp_path / "none.jsonl"), classes=CLASSES, snapshot=snapshot_of(pool))
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    made = import_labels(pool, "topics", str(tmp_path / "cut.jsonl.gz"), classes=CLASSES, snapshot=snapshot_of(pool))
    assert made.damage is not None
    assert (made.new, quarantined(pool, made)) == (0, [(1, made.damage)])


# ---- what counts


def test_counted__the_latest_of_each_annotator_on_each_row(pool: SmallStore) -> None:
    put(
        pool,
        "l.jsonl",
        [
            {"id": "r1", "annotator": "ann", "label": "a", "time": "2026-01-02"},
            {"id": "r1", "annotator": "ann", "label": "b", "time": "2026-01-01"},  # earlier, though below
            {"id": "r1", "annotator": "bob", "label": "a"},
            {"id": "r1", "annotator": "bob", "label": "b"},  # no times: the later line
            {"id": "r2", "annotator": "ann", "label": "a", "time": "2026-01-01"},
            {"id": "r2", "annotator": "ann", "skip": True, "time": "2026-01-02"},
            {"id": "r2", "annotator": "bob", "skip": True, "time": "2026-01-01"},
            {"id": "r2", "annotator": "bob", "label": "b", "time": "2026-01-02"},
            {"id": 3, "annotator": "ann", "ignore": True, "time": "2026-01-01"},
            {"id": 3, "annotator": "ann", "label": "a", "time": "2026-01-02"},
            {"id": 3, "annotator": "ann", "rating": 2, "comment": "x", "time": "2026-01-03"},
        ],
    )
    assert sorted(labels_of(pool, counting=True), key=str) == [
        ("p1", "ann", "class", "a"),
        ("p1", "bob", "class", "b"),
        ("p2", "ann", "skip", None),
        ("p2", "bob", "class", "b"),
        ("p3", "ann", "class", "a"),
        ("p3", "ann", "ignore", None),
        ("p3", "ann", "rating", None),
        ("p3", "ann", "text", "x"),
    ]


def test_counted__a_label_without_a_time_was_given_when_it_was_imported(pool: SmallStore) -> None:
    put(pool, "old.jsonl", [{"id": "r1", "label": "a", "time": "2020-01-01"}])
    put(pool, "new.jsonl", [{"id": "r1", "label": "b"}])
    assert labels_of(pool, counting=True) == [("p1", "unknown", "class", "b")]
    put(pool, "future.jsonl", [{"id": "r1", "label": "a", "time": "2100-01-01"}])
    put(pool, "last.jsonl", [{"id": "r1", "label": "b", "seconds": 3}])
    assert labels_of(pool, counting=True) == [("p1", "unknown", "class", "a")]


def test_import__known_answers_are_no_votes(pool: SmallStore) -> None:
    made = put(pool, "gold.jsonl", [{"id": "r1", "label": "a", "annotator": "ann"}, {"id": "r2", "skip": 1}], gold=True)
    assert made.gold
    assert labels_of(pool) == [("p1", "gold", "gold", "a"), ("p2", "unknown", "skip", None)]


# ---- laws

_NAMES = ["r1", "r2", "3", "nobody"]
_LABEL = st.fixed_dictionaries(
    {"id": st.sampled_from(_NAMES), "annotator": st.sampled_from(["ann", "bob"])},
    optional={
        "label": st.sampled_from(["a", "b", "c"]),
        "skip": st.just(True),
        "ignore": st.just(True),
        "rating": st.integers(1, 3),
        "comment": st.sampled_from(["x", "y"]),
        "cost": st.floats(0, 9),
    },
)  # fmt: skip


def at(number: int) -> str:
    return (datetime.fromisoformat("2026-01-01") + timedelta(seconds=number)).isoformat()


def small_pool(folder: str) -> SmallStore:
    store = SmallStore(Path(folder) / "store")
    store.add_snapshot([store.add_file("a", ["p1", "p2", "p3"], extra=[{"id": name} for name in _NAMES[:3]])])
    return store


def of_import(store: SmallStore) -> dict[str, Any]:
    """The log without where its events stood."""
    log = read_log(store, "topics").drop_columns(["file", "line"])
    return {"log": log.to_pylist(), "counted": counted(log).to_pylist(), "digest": log_digest(log)}


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(_LABEL, max_size=12), st.data())
def test_import__in_any_order_and_twice_gives_the_same_log(labels: list[dict[str, Any]], data: st.DataObject) -> None:
    """Of events that say when they happened."""
    timed = [label | {"time": at(number)} for number, label in enumerate(labels)]
    # Files overlap: each holds some of the labels, together all.
    files = [
        timed,
        *data.draw(st.lists(st.lists(st.sampled_from(timed), unique_by=id), max_size=3) if timed else st.just([])),
    ]
    order = [*data.draw(st.permutations(range(len(files)))), *data.draw(st.lists(st.sampled_from(range(len(files)))))]
    logs = []
    for numbers in (range(len(files)), order):
        with tempfile.TemporaryDirectory() as folder:
            store = small_pool(folder)
            for number in numbers:
                put(store, f"l{number}.jsonl", files[number])
            logs.append(of_import(store))
    assert logs[0] == logs[1]


@pytest.mark.slow
@settings(max_examples=20)
@given(
    st.lists(
        st.lists(_LABEL | _LABEL.flatmap(lambda x: st.integers(0, 3).map(lambda n: x | {"time": at(n)}))), max_size=4
    )
)
def test_labels__sql_and_python_count_the_same(files: list[list[dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = small_pool(folder)
        for number, labels in enumerate(files):
            made = put(store, f"l{number}.jsonl", labels)
            assert made.read == len(labels)
        expected = counted(read_log(store, "topics"))
        publish_catalog(store)
        with open_catalog(store) as connection:
            counted_events = connection.execute("SELECT event FROM labels ORDER BY event").fetchall()
            assert [event for (event,) in counted_events] == sorted(expected["event"].to_pylist())
            sent = connection.execute("SELECT count(*) FROM label_events").fetchall()
        assert sent == [(len(read_log(store, "topics")),)]


# ---- a file that is edited in place


def test_import__a_file_that_goes_back_counts_as_it_is_now(pool: SmallStore) -> None:
    for label in ("a", "b", "a", "b", "b", "a"):
        put(pool, "l.jsonl", [{"id": "r1", "label": label, "annotator": "ann"}, {"id": "r2", "label": "b"}])
        assert labels_of(pool, counting=True)[-1][3] in (label, "b")
        assert ("p1", "ann", "class", label) in labels_of(pool, counting=True)
    put(pool, "l.jsonl", [{"id": "r1", "label": "a", "annotator": "ann"}, {"id": 3, "label": "b"}])
    assert ("p1", "ann", "class", "a") in labels_of(pool, counting=True)


def test_import__going_back_wins_over_the_time_of_what_it_replaced(pool: SmallStore) -> None:
    for label, day in (("a", 1), ("b", 2), ("a", 1)):
        put(pool, "l.jsonl", [{"id": "r1", "label": label, "annotator": "ann", "time": f"2024-01-0{day}"}])
    assert labels_of(pool, counting=True) == [("p1", "ann", "class", "a")]


def test_import__another_files_older_label_does_not_come_back(pool: SmallStore) -> None:
    old = [{"id": "r1", "label": "a", "annotator": "ann"}]
    put(pool, "old.jsonl", old)
    put(pool, "new.jsonl", [{"id": "r1", "label": "b", "annotator": "ann"}])
    put(pool, "old.jsonl", [*old, {"id": "r2", "label": "a"}])
    assert ("p1", "ann", "class", "b") in labels_of(pool, counting=True)


def test_import__a_change_of_mind_inside_a_file_is_said_once(pool: SmallStore) -> None:
    twice = [{"id": "r1", "label": label, "annotator": "ann"} for label in ("a", "b")]
    put(pool, "l.jsonl", twice)
    made = put(pool, "l.jsonl", [*twice, {"id": "r2", "label": "a", "annotator": "ann"}])
    assert (made.new, labels_of(pool, counting=True)[0]) == (1, ("p1", "ann", "class", "b"))
