from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput, NotInStore, StoreDamaged
from storage.ids import from_bytes, rows_of, to_bytes, to_text
from storage.pool import ingest as ingest_module
from storage.pool.columns import ingest_columns
from storage.pool.content import identity
from storage.pool.ingest import FileSpec, Ingest, ingest_file
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
    b = add(store, tmp_path / "b.jsonl", [{"text": "x", "source": "early", "id": 3}, {"text": "y", "id": 4}])
    a = add(store, tmp_path / "a.jsonl", [{"text": "x", "source": "later", "id": 1}, {"text": "y", "id": 2}] * 2)
    snapshot = take_snapshot(store, [b, a])
    result = pq.read_table(snapshot.folder / "duplicates.parquet").to_pylist()
    listed = [(r["id"].bytes, r["file"], r["line"], r["source"], r["given_id"], r["kept_line"]) for r in result]
    x, y = text_id("x"), text_id("y")
    assert sorted(listed) == sorted(
        [
            (x, a.url, 3, "later", "1", 1),
            (x, b.url, 1, "early", "3", 1),
            (y, a.url, 4, "a", "2", 2),
            (y, b.url, 2, "b", "4", 2),
        ]
    )
    assert {r["kept_ingest"] for r in result} == {a.id}
    assert {r["snapshot"] for r in result} == {snapshot.id}


PREFER: dict[tuple[str, ...], Callable[[Any], Any]] = {
    (): lambda o: (o["file"], o["line"]),
    ("newest",): lambda o: [-ord(letter) for letter in o["file"]] + [-o["line"]],
    ("s3", "s1"): lambda o: ({"s3": 0, "s1": 1}.get(o["source"], 2), o["file"], o["line"]),
}


@pytest.mark.parametrize("prefer", PREFER)
def test_representative__is_the_first_by_the_rule_whatever_else_the_files_hold(
    store: Store, tmp_path: Path, prefer: tuple[str, ...]
):
    rng = random.Random(0)
    occurrences = [
        {
            "text": f"t{rng.randrange(60)}",
            "source": f"s{rng.randrange(5)}",
            "id": i,
            "file": f"{i % 7}",
            "line": i // 7 + 1,
        }
        for i in range(210)
    ]
    expected = {
        text: min((o for o in occurrences if o["text"] == text), key=PREFER[prefer])
        for text in {o["text"] for o in occurrences}
    }
    for unrelated in range(3):
        files = {
            name: [o for o in occurrences if o["file"] == name] + [{"text": f"{name} {i}"} for i in range(unrelated)]
            for name in "0123456"
        }
        ingests = [add(store, tmp_path / f"{name}.jsonl", records) for name, records in files.items()]
        rng.shuffle(ingests)
        snapshot = take_snapshot(store, ingests, prefer=prefer)
        given = snapshot.column("given_id")
        assert {text: given[row(snapshot, text)] for text in expected} == {t: str(o["id"]) for t, o in expected.items()}
        assert snapshot.id == take_snapshot(store, ingests[::-1], prefer=prefer).id
        assert snapshot.header["duplicates"] == 210 - len(expected)


def test_equal_files_at_two_paths__are_both_counted(store: Store, tmp_path: Path):
    (tmp_path / "two").mkdir()
    files = [tmp_path / "x.jsonl", tmp_path / "two" / "x.jsonl"]
    first, second = (add(store, path, [{"text": "x"}, {"text": "y"}]) for path in files)
    both = take_snapshot(store, [first, second])
    assert [counts["kept"] for counts in (both.counts[first.id], both.counts[second.id])] in ([2, 0], [0, 2])
    assert sum(counts["read"] for counts in both.counts.values()) == 4
    assert set(take_snapshot(store, [second]).column("file")) == {str(files[1])}


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


def test_columns_in_the_id__other_columns_other_snapshot_same_rows(store: Store, tmp_path: Path):
    a = add(store, tmp_path / "a.jsonl", [{"text": "x", "id": "k"}])
    pq.write_table(pa.table({"id": ["k"], "score": [1.0]}), tmp_path / "c.parquet")
    plain = take_snapshot(store, [a])
    scored = take_snapshot(store, [a], columns=[ingest_columns(store, str(tmp_path / "c.parquet"))])
    assert plain.id != scored.id
    assert np.array_equal(plain.ids, scored.ids)


def test_match__ids_as_printed_own_ids_and_those_of_repeats(store: Store, tmp_path: Path):
    a = add(
        store, tmp_path / "a.jsonl", [{"text": "x", "id": "one"}, {"text": "y", "id": 2}, {"text": "x", "id": "again"}]
    )
    b = add(store, tmp_path / "b.jsonl", [{"text": "z", "id": "2"}, {"text": "w"}])
    snapshot = take_snapshot(store, [a, b])
    printed = to_text(from_bytes([text_id("w")]))[0]
    x, w = (row(snapshot, text) for text in "xw")
    names = ["one", "again", "2", printed, printed.replace("-", ""), "none", str(uuid.UUID(int=5))]
    result = snapshot.match(names)
    assert result.rows.tolist() == [x, x, -1, w, w, -1, -1]
    assert result.counts.tolist() == [1, 1, 2, 1, 1, 0, 0]
    assert len(snapshot.match([]).rows) == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_rows_named__lists_as_editors_write_them(store: Store, tmp_path: Path, encoding: str):
    snapshot = take_snapshot(
        store, [add(store, tmp_path / "a.jsonl", [{"text": t, "id": f"\u00e9{t}"} for t in "xyz"])]
    )
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "ids.txt").write_bytes(f"{mark}\u00e9x\r\n\r\n \u00e9z \r\n".encode(encoding))
    rows, unknown = snapshot.rows_named(tmp_path / "ids.txt")
    assert (sorted(rows.tolist()), unknown) == (sorted([row(snapshot, "x"), row(snapshot, "z")]), 0)


def test_match__winnows_id_names_its_row_though_another_has_it_as_its_own(store: Store, tmp_path: Path):
    printed = to_text(from_bytes([text_id("x")]))[0]
    file = add(store, tmp_path / "a.jsonl", [{"text": "x", "id": "1"}, {"text": "x, mended", "id": printed}])
    snapshot = take_snapshot(store, [file])
    assert snapshot.match([printed]).rows.tolist() == [row(snapshot, "x")]


def test_rows_named__lists_of_any_editor_and_what_a_line_may_not_name(store: Store, tmp_path: Path):
    lines = [{"text": "x", "id": "one"}, {"text": "y", "id": "2"}, {"text": "z", "id": "2"}, {"text": "x", "id": "é"}]
    snapshot = take_snapshot(store, [add(store, tmp_path / "a.jsonl", lines)])
    path, x = tmp_path / "ids.txt", row(snapshot, "x")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("one\r\n\r\né\r\nnobody\r\n".encode(encoding))
        rows, unknown = snapshot.rows_named(path, strict=False)
        assert (rows.tolist(), unknown) == ([x, x], 1)
    with pytest.raises(BadInput, match=r"ids.txt: line 4: 'nobody' names no row of the pool; an id names exactly one"):
        snapshot.rows_named(path)
    path.write_text("one\n2\n")
    with pytest.raises(BadInput, match=r"ids.txt: line 2: '2' names 2 rows of the pool"):
        snapshot.rows_named(path, strict=False)


def test_given_ids__of_the_occurrence_that_is_kept(store: Store, tmp_path: Path):
    lines = [{"text": "x", "id": "one"}, {"text": "y"}, {"text": "x", "id": "again"}, {"text": "z", "id": 3}]
    snapshot = take_snapshot(store, [add(store, tmp_path / "a.jsonl", lines)])
    wanted = from_bytes([text_id(text) for text in "zyx"])
    assert snapshot.given_ids(wanted) == ["3", None, "one"]


def flip(store: Store, ingest: Ingest, place: int) -> None:
    """Change a byte of an ingest's rows."""
    path = store.path("pool", ingest.id, "part-00000.parquet")
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_turns__files_without_a_wanted_row_are_not_read(store: Store, tmp_path: Path):
    a, b, c = (add(store, tmp_path / f"{n}.jsonl", [{"text": f"{n}{i}"} for i in range(3)]) for n in "abc")
    snapshot = take_snapshot(store, [a, b, c])
    flip(store, b, 10)
    for name, ingest in (("a", a), ("c", c), ("b", b)):
        wanted = snapshot.ids[[row(snapshot, f"{name}{i}") for i in (0, 2)]]
        if ingest is b:
            with pytest.raises(StoreDamaged, match=f"{b.id}/part-00000.parquet is not what was committed"):
                list(snapshot.turns(wanted))
        else:
            texts = [turns[0][1] for _, batch in snapshot.turns(wanted) for turns in batch]
            assert texts == [f"{name}0", f"{name}2"]


@pytest.mark.parametrize("place", [-1, -20])
def test_shards__a_file_whose_end_is_damaged_is_named(store: Store, tmp_path: Path, place: int):
    a, b = (add(store, tmp_path / f"{n}.jsonl", [{"text": f"{n}{i}"} for i in range(3)]) for n in "ab")
    snapshot = take_snapshot(store, [a, b])
    flip(store, b, place)
    with pytest.raises(StoreDamaged, match=f"{b.id}/part-00000.parquet is not what was committed"):
        [turns for shard in snapshot.shards(1) for turns in snapshot.turns_in(shard)]


def test_turns__a_file_with_rows_of_another_count_is_damage(store: Store, tmp_path: Path):
    ingest = add(store, tmp_path / "a.jsonl", [{"text": f"{i}"} for i in range(3)])
    snapshot = take_snapshot(store, [ingest])
    folder = store.path("pool", ingest.id)
    pq.write_table(pq.read_table(folder / "part-00000.parquet")[:2], folder / "part-00000.parquet")
    (folder / "checksums.json").unlink()  # as an earlier version committed it
    with pytest.raises(StoreDamaged, match="the files of the pool do not have the 3 rows of it"):
        list(snapshot.turns(snapshot.ids))
