"""What is wrong with a damaged record, and where it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from storage.catalog.publish import publish_catalog, rebuild_catalog
from storage.catalog.query import query_catalog
from storage.damage import (
    KINDS,
    check_folder,
    committed_whole,
    damage_of,
    read_record,
    readable,
    set_aside,
    set_aside_records,
)
from storage.errors import BadInput, StoreDamaged
from storage.pool.snapshot import open_snapshot, take_snapshot
from storage.records import commit_metrics, commit_run, commit_selection, known_selection, read_selection
from storage.store import Store, write_json
from tests.quick import quick_first
from tests.storage.conftest import SmallStore

RUN = {"stage": "select", "status": "ok"}


def write_record(store: Store, kind: str, name: str, content: Any) -> Path:
    """A record of a kind with any JSON, as an earlier version wrote it: without checksums."""
    folder = store.path(*KINDS[kind].root, name)
    folder.mkdir(parents=True)
    write_json(folder / str(KINDS[kind].file), content)
    return folder


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (RUN | {"target": None, "seconds": 1, "later": {"x": 1}}, None),
        (RUN | {"checks": [{"name": "a", "passed": True, "detail": "d", "blocking": False}]}, None),
        ({"stage": "select"}, "it lacks 'status'"),
        (RUN | {"status": 1}, "status is 1, not text"),
        (RUN | {"seconds": "long"}, 'seconds is "long", not a whole number or a number'),
        (RUN | {"seconds": True}, "seconds is true, not a whole number or a number"),
        (RUN | {"seconds": 2**63}, "seconds is 9223372036854775808, outside the 64-bit integers"),
        (RUN | {"checks": {}}, "checks is {}, not a list"),
        (RUN | {"checks": [{"name": "a", "detail": ""}]}, r"checks\[0\] lacks 'passed'"),
        (RUN | {"facts": [1]}, r"facts is \[1\], not an object"),
        ([RUN], "holds list, not an object"),
        ("text", "holds str, not an object"),
        (None, "holds NoneType, not an object"),
    ],
)
def test_read_record__says_what_is_wrong(store: Store, content: Any, cause: str | None) -> None:
    folder = write_record(store, "runs", "r", content)
    if cause is None:
        assert read_record("runs", folder) == content
        return
    with pytest.raises(StoreDamaged, match=rf"runs/r/run\.json.*{cause}"):
        read_record("runs", folder)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "is empty"),
        (b"{", "is not the JSON"),
        (b"\xff", "is not the JSON"),
        (b"\x00" * 40, "is not the JSON"),
        (b"[" * 200_000, "is not the JSON"),
        (b'{"stage": "a", "status": "ok", "seconds": NaN}', "is not the JSON.*NaN is no number"),
        (b'{"stage": "a", "status": "ok", "seconds": ' + b"9" * 5000 + b"}", "is not the JSON"),
    ],
)
def test_read_record__bytes_that_are_no_json(store: Store, data: bytes, cause: str) -> None:
    folder = write_record(store, "runs", "r", {})
    (folder / "run.json").write_bytes(data)
    with pytest.raises(StoreDamaged, match=rf"run\.json {cause}"):
        read_record("runs", folder)


def test_readable__is_said_once_and_the_next_catalog_puts_it_aside(full_store: SmallStore) -> None:
    said: list[str] = []
    store = Store(full_store.root, on_notice=said.append)
    folder = write_record(store, "runs", "r", RUN | {"status": 1})
    assert readable(store, "runs", "r") is readable(store, "runs", "r") is None
    assert said == [f"{folder / 'run.json'}: status is 1, not text; it is left out"]
    publish_catalog(store)
    assert not folder.exists()
    assert said[1].endswith(f"put aside in {store.path('set-aside', 'records', 'runs', 'r')}")
    (record,) = set_aside_records(store)
    assert record["path"] == "records/runs/r"
    assert "status is 1" in record["damage"]
    assert json.loads(store.path("set-aside", "records", "runs", "r", "run.json").read_text())["status"] == 1


def test_set_aside__the_same_name_again_keeps_both(store: Store) -> None:
    for number in range(3):
        set_aside(store, write_record(store, "runs", "r", {"n": number}), f"damage {number}")
    assert [record["damage"] for record in set_aside_records(store)] == ["damage 1", "damage 2", "damage 0"]
    kept = sorted(store.path("set-aside", "records", "runs").glob("*/run.json"))
    assert [json.loads(path.read_text())["n"] for path in kept] == [0, 1, 2]


def test_set_aside__another_process_was_faster(store: Store) -> None:
    folder = write_record(store, "runs", "r", {})
    set_aside(store, folder, "first")
    set_aside(store, folder, "second")
    assert [record["damage"] for record in set_aside_records(store)] == ["first"]


def test_committed_whole__a_snapshot_is_made_again(full_store: SmallStore) -> None:
    (name,) = full_store.records("snapshots")
    before = open_snapshot(full_store, name)
    ids, ingests = before.ids.tolist(), before.ingests
    path = full_store.path("records", "snapshots", name, "ids.npy")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match=r"ids\.npy is not what was committed"):
        _ = open_snapshot(full_store, name).ids
    again = take_snapshot(full_store, ingests)
    assert (again.id, again.ids.tolist()) == (name, ids)


def test_known_selection__a_damaged_one_goes_out_of_the_way(full_store: SmallStore) -> None:
    path = full_store.path("records", "selections", "s1", "items.parquet")
    path.write_bytes(path.read_bytes()[:50])
    assert known_selection(full_store, "s1") is None
    assert known_selection(full_store, "never") is None
    assert not full_store.has("records", "selections", "s1")
    assert known_selection(full_store, "s2") is not None


LARGE = 2**63


@pytest.mark.parametrize("seed", quick_first(1, [LARGE, "text", -LARGE - 1, 10**30, [1], {"a": 1}, 1e300]))
def test_catalog__a_selection_that_it_cannot_hold_stops_nothing(full_store: SmallStore, seed: Any) -> None:
    _, items = read_selection(full_store, "s1")
    commit_selection(full_store, {"selection_id": "bad", "recipe": "mine", "steps": ["random"], "seed": seed}, items)
    for make in (publish_catalog, rebuild_catalog, publish_catalog):
        make(full_store)
        assert query_catalog(full_store, "SELECT selection_id FROM selections ORDER BY ALL").to_pylist() == [
            {"selection_id": "s1"},
            {"selection_id": "s2"},
        ]
    (record,) = set_aside_records(full_store)
    assert "selections/bad/selection.json has a value of a wrong type" in record["damage"]


@pytest.mark.parametrize(
    ("kind", "content"),
    quick_first(
        1,
        [
            ("runs", RUN | {"started_at": "yesterday"}),
            ("runs", RUN | {"seconds": "x"}),
            ("metrics", {"selection_id": "s1", "values": {"loss": "low"}}),
            ("metrics", {"selection_id": "s1", "values": [1]}),
            ("rounds", {"project": "p", "round": LARGE, "round_id": "x", "created_at": "2026-01-01"}),
            ("models", {"project": 5}),
            ("labels", {"id": "x"}),
            ("snapshots", {"snapshot": "x", "created_ns": LARGE}),
            ("pool", {"url": "x"}),
            ("indexes", {"index": "x"}),
            ("columns", {"types": []}),
        ],
    ),
)
def test_catalog__any_record_that_it_cannot_hold_stops_nothing(
    full_store: SmallStore, kind: str, content: dict[str, Any]
) -> None:
    publish_catalog(full_store)
    write_record(full_store, kind, "bad", content)
    for make in (publish_catalog, rebuild_catalog):
        make(full_store)
        assert query_catalog(full_store, "SELECT count(*) AS n FROM selected_examples").to_pylist() == [{"n": 6}]
    aside = [record["path"] for record in set_aside_records(full_store)]
    assert aside == ([] if kind == "columns" else ["/".join((*KINDS[kind].root, "bad"))])  # of no table


@pytest.mark.parametrize("file", ["items.parquet", "selection.json"])
def test_catalog__a_selection_that_was_published_and_is_damaged_since(full_store: SmallStore, file: str) -> None:
    publish_catalog(full_store)
    path = full_store.path("records", "selections", "s1", file)
    path.write_bytes(path.read_bytes()[:-40])
    rebuild_catalog(full_store)
    assert query_catalog(full_store, "SELECT DISTINCT selection_id FROM selection_items").to_pylist() == [
        {"selection_id": "s2"}
    ]


def test_sql__a_damaged_file_under_a_view_is_named(full_store: SmallStore) -> None:
    publish_catalog(full_store)
    path = full_store.path("records", "selections", "s2", "items.parquet")
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)
    with pytest.raises((StoreDamaged, BadInput), match=r"selections/s2/items\.parquet"):
        query_catalog(full_store, "FROM selection_items")
    with pytest.raises(BadInput, match="nothing"):
        query_catalog(full_store, "SELECT nothing FROM selections")


def test_check_folder__names_every_file(full_store: SmallStore) -> None:
    folder = full_store.path("records", "snapshots", full_store.records("snapshots")[0])
    assert check_folder("snapshots", folder) == []
    (folder / "rows.npy").write_bytes(b"")
    (folder / "duplicates.parquet").unlink()
    damages = check_folder("snapshots", folder)
    assert [Path(damage.split(" is ")[0]).name for damage in damages] == ["duplicates.parquet", "rows.npy"]
    assert damage_of("snapshots", folder) == damages[0]
    assert not committed_whole(full_store, "snapshots", folder.name)


def test_metrics_and_runs__are_put_aside_and_do_not_come_back(full_store: SmallStore) -> None:
    metrics = commit_metrics(full_store, "s1", {"loss": 1.0})
    run = commit_run(full_store, RUN)
    for kind, name, file in (("metrics", metrics, "metrics.json"), ("runs", run, "run.json")):
        full_store.path("records", kind, name, file).write_bytes(b"")
    publish_catalog(full_store)
    publish_catalog(full_store)
    assert len(set_aside_records(full_store)) == 2
