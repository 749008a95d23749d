from __future__ import annotations

import itertools
import json
import random
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput, NotInStore
from storage.ids import from_bytes, rows_of, to_bytes, to_text
from storage.pool import ingest as ingest_module
from storage.pool.columns import ingest_columns
from storage.pool.ingest import FileSpec, Ingest, ingest_file
from storage.pool.record_formats import identity
from storage.pool.snapshot import Snapshot, open_snapshot, take_snapshot
from storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def add(store: Store, path: Path, records: Sequence[dict[str, Any]]) -> Ingest:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return ingest_file(store, FileSpec(str(path)))


def text_id(text: str) -> bytes:
    return identity([("text", text)])


def row(snapshot: Snapshot, text: str) -> int:
    return int(rows_of(from_bytes([text_id(text)]), snapshot.ids)[0])


def test_take_snapshot__rows_are_ascending_unique_ids(store: Store, tmp_path: Path):
    a = add(store, tmp_path / "a.jsonl", [{"text": t} for t in ("x", "y", "x")])
    b = add(store, tmp_path / "b.jsonl", [{"text": t} for t in ("y", "z")])
    snapshot = take_snapshot(store, [b, a.id, a])
    assert to_bytes(snapshot.ids) == sorted(map(text_id, "xyz"))
    assert len(snapshot) == 3
    assert snapshot.ingests == sorted([a.id, b.id])
    assert snapshot.counts[a.id] | {"kept": 0, "duplicate": 0} == {
        "read": 3, "kept": 0, "duplicate": 0, "quarantined": 0, "empty_responses": 0,
    }  # fmt: skip
    for counts in snapshot.counts.values():
        assert counts["read"] == counts["kept"] + counts["duplicate"] + counts["quarantined"]
    assert sum(counts["duplicate"] for counts in snapshot.counts.values()) == snapshot.header["duplicates"] == 2


def test_take_snapshot__every_occurrence_that_does_not_stand_for_its_id_is_listed(store: Store, tmp_path: Path):
    a = add(
        store, tmp_path / "a.jsonl", [{"text": "x", "source": "later", "id": 1}, {"text": "y", "source": "s", "id": 2}]
    )
    b = add(
        store, tmp_path / "b.jsonl", [{"text": "x", "source": "early", "id": 3}, {"text": "y", "source": "s", "id": 4}]
    )
    snapshot = take_snapshot(store, [a, b])
    first, second = sorted([a, b], key=lambda i: i.id)
    result = pq.read_table(snapshot.folder / "duplicates.parquet").to_pylist()
    given = {a.id: "2", b.id: "4"}
    assert sorted(result, key=lambda r: r["source"]) == [
        {"snapshot": snapshot.id, "id": result[0]["id"].__class__(bytes=text_id("x")), "ingest": a.id, "file": a.url, "line": 1,
         "source": "later", "given_id": "1", "kept_ingest": b.id, "kept_line": 1},
        {"snapshot": snapshot.id, "id": result[0]["id"].__class__(bytes=text_id("y")), "ingest": second.id, "file": second.url,
         "line": 2, "source": "s", "given_id": given[second.id], "kept_ingest": first.id, "kept_line": 2},
    ]  # fmt: skip
    assert snapshot.column("source")[row(snapshot, "x")] == "early"


def test_one_file_or_seven_in_any_order__same_ids_and_same_representatives(store: Store, tmp_path: Path):
    rng = random.Random(0)
    records = [{"text": f"t{rng.randrange(150)}", "source": f"s{rng.randrange(5)}", "id": i} for i in range(400)]
    single = take_snapshot(store, [add(store, tmp_path / "all.jsonl", records)])
    expected = {}
    for record in records:
        expected[record["text"]] = min(expected.get(record["text"], "z"), record["source"])
    assert [single.column("source")[row(single, text)] for text in expected] == list(expected.values())
    for turn in range(3):
        rng.shuffle(records)
        ingests = [add(store, tmp_path / f"{turn}-{i}.jsonl", records[i::7]) for i in range(7)]
        rng.shuffle(ingests)
        seven = take_snapshot(store, ingests)
        assert (seven.ids == single.ids).all()
        assert seven.column("source").tolist() == single.column("source").tolist()
        assert seven.header["duplicates"] == single.header["duplicates"] == 400 - len(expected)
    assert seven.id == take_snapshot(store, ingests[::-1]).id


def test_turns__streamed_in_storage_order_representatives_only(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ingest_module, "GROUP_ROWS", 3)
    texts = [f"t{i}" for i in range(10)]
    ingests = [
        add(store, tmp_path / "a.jsonl", [{"text": t} for t in texts]),
        add(store, tmp_path / "b.jsonl", [{"text": t} for t in ("t3", "new", "t4")]),
    ]
    snapshot = take_snapshot(store, ingests)
    wanted = from_bytes(sorted(map(text_id, ["t3", "t9", "new"])))
    result = list(snapshot.turns(wanted))
    pairs = [pair for ids, turns in result for pair in zip(to_bytes(ids), turns, strict=True)]
    assert sorted(pairs) == sorted((text_id(t), [("text", t)]) for t in ("t3", "t9", "new"))
    everything = [i for ids, _ in snapshot.turns(snapshot.ids) for i in to_bytes(ids)]
    assert sorted(everything) == to_bytes(snapshot.ids)
    assert [i for i, _ in pairs] == [i for i in everything if i in {p[0] for p in pairs}]
    assert list(snapshot.turns(snapshot.ids[:0])) == []
    with pytest.raises(NotInStore, match="has no row"):
        next(snapshot.turns(from_bytes([bytes(16)])))


def test_growing__one_more_file_leaves_the_rest_untouched(store: Store, tmp_path: Path):
    a = add(store, tmp_path / "a.jsonl", [{"text": "x"}])
    before = {path: path.stat().st_mtime_ns for path in store.path("pool").rglob("*")}
    first = take_snapshot(store, [a])
    b = add(store, tmp_path / "b.jsonl", [{"text": "y"}])
    assert not ingest_file(store, FileSpec(a.url)).new
    second = take_snapshot(store, [a, b], parent=first.id)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (second.parent, second.header["tombstones"], len(second)) == (first.id, 0, 2)
    assert len(open_snapshot(store, first.id)) == 1


def test_a_changed_file__new_rows_in_and_vanished_rows_tombstoned_with_the_cause(store: Store, tmp_path: Path):
    stays = add(store, tmp_path / "stays.jsonl", [{"text": "s"}, {"text": "also in both"}])
    goes = add(store, tmp_path / "goes.jsonl", [{"text": "g"}])
    old = add(store, tmp_path / "a.jsonl", [{"text": "x"}, {"text": "y"}, {"text": "also in both"}])
    first = take_snapshot(store, [stays, goes, old])
    new = add(store, tmp_path / "a.jsonl", [{"text": "y"}, {"text": "z"}])
    assert new.id != old.id
    second = take_snapshot(store, [stays, new], parent=first.id)
    assert set(to_bytes(second.ids)) == set(map(text_id, ["s", "also in both", "y", "z"]))
    tombstones = {
        r["id"].bytes: (r["ingest"], r["reason"])
        for r in pq.read_table(second.folder / "tombstones.parquet").to_pylist()
    }
    assert tombstones == {
        text_id("x"): (old.id, f"{new.url} changed and holds it no more"),
        text_id("g"): (goes.id, f"{goes.url} left the pool"),
    }
    assert second.header["tombstones"] == 2


def test_take_snapshot__twice_is_once(store: Store, tmp_path: Path):
    a = add(store, tmp_path / "a.jsonl", [{"text": "x"}])
    b = add(store, tmp_path / "b.jsonl", [{"text": "y"}])
    taken = [take_snapshot(store, ingests).id for ingests in ([a], [a, b], [a])]
    assert taken[0] == taken[2]
    assert store.records("snapshots") == sorted(set(taken))


def test_take_snapshot__what_is_not_there(store: Store, tmp_path: Path):
    a = add(store, tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(NotInStore):
        take_snapshot(store, ["no-such-ingest"])
    with pytest.raises(NotInStore, match="no snapshot 'nope'"):
        take_snapshot(store, [a], parent="nope")
    with pytest.raises(NotInStore, match="no columns 'nope'"):
        take_snapshot(store, [a], columns=["nope"])
    with pytest.raises(BadInput, match="needs at least one ingest"):
        take_snapshot(store, [])
    assert store.records("snapshots") == []


def test_a_pool_without_rows(store: Store, tmp_path: Path):
    snapshot = take_snapshot(store, [add(store, tmp_path / "a.jsonl", [])])
    assert len(snapshot.ids) == 0
    assert list(snapshot.turns(snapshot.ids)) == []
    assert snapshot.column("source").shape == snapshot.where("true").shape == (0,)


def test_no_duplicates__every_table_is_still_there(store: Store, tmp_path: Path):
    snapshot = take_snapshot(store, [add(store, tmp_path / "a.jsonl", [{"text": "x"}])])
    assert len(pq.read_table(snapshot.folder / "duplicates.parquet")) == 0
    assert len(pq.read_table(snapshot.folder / "tombstones.parquet")) == 0


@pytest.mark.parametrize("sources", list(itertools.permutations("abc")))
def test_representative__lowest_source_then_ingest_then_line(store: Store, tmp_path: Path, sources: tuple[str, ...]):
    records = [{"text": "x", "source": source, "id": i} for i, source in enumerate((*sources, "a"))]
    snapshot = take_snapshot(store, [add(store, tmp_path / "f.jsonl", records)])
    assert snapshot.column("given_id").tolist() == [str(sources.index("a"))]


def test_columns_in_the_id__other_columns_other_snapshot_same_rows(store: Store, tmp_path: Path):
    a = add(store, tmp_path / "a.jsonl", [{"text": "x", "id": "k"}])
    pq.write_table(pa.table({"id": ["k"], "score": [1.0]}), tmp_path / "c.parquet")
    plain = take_snapshot(store, [a])
    scored = take_snapshot(store, [a], columns=[ingest_columns(store, str(tmp_path / "c.parquet"))])
    assert plain.id != scored.id
    assert np.array_equal(plain.ids, scored.ids)


def test_rows_of_names__ids_as_printed_own_ids_and_those_of_repeats(store: Store, tmp_path: Path):
    a = add(
        store, tmp_path / "a.jsonl", [{"text": "x", "id": "one"}, {"text": "y", "id": 2}, {"text": "x", "id": "again"}]
    )
    b = add(store, tmp_path / "b.jsonl", [{"text": "z", "id": "2"}, {"text": "w"}])
    snapshot = take_snapshot(store, [a, b])
    printed = to_text(from_bytes([text_id("w")]))[0]
    x, y, z, w = (row(snapshot, text) for text in "xyzw")
    names = ["one", "again", "2", printed, printed.replace("-", ""), "none", str(uuid.UUID(int=5))]
    result = snapshot.rows_of_names(names)
    assert result == dict(zip(names, [[x], [x], sorted([y, z]), [w], [w], [], []], strict=True))
    assert snapshot.rows_of_names([]) == {}
