from __future__ import annotations

import json
import math
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from storage import records
from storage.errors import NotInStore, StoreDamaged
from storage.ids import from_arrow, to_arrow, to_text
from storage.records import (
    commit_metrics,
    commit_record,
    commit_run,
    commit_selection,
    digest_of,
    new_run_id,
    next_number,
    read_selection,
)
from storage.store import Store

N = 1000


@pytest.fixture
def items() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "rank": pa.array(np.arange(1, N + 1, dtype=np.uint32)),
            "id": to_arrow(np.frombuffer(rng.bytes(16 * N), "S16")),
            "gain": pa.array(rng.random(N, np.float32)),
            "kind": pa.array(["target"] * N),
            "ref": pa.array([None, "gsm8k"] * (N // 2)),
            "ref_rank": pa.array(rng.integers(1, 9, N), pa.int32()),
            "value": pa.array([None, 0.5] * (N // 2), pa.float32()),
        }
    )


def test_digest_of__canonical_json_by_hand() -> None:
    import hashlib

    text = '{"a":[1,2.5,null],"ü":"x"}'.encode()
    assert digest_of({"ü": "x", "a": [1, 2.5, None]}) == hashlib.blake2b(text, digest_size=16).hexdigest()


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, -math.inf]])
def test_digest_of__no_json_no_digest(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest_of(value)


def test_new_run_id__in_order_of_time_and_unique() -> None:
    made = []
    for _ in range(50):
        made += [new_run_id() for _ in range(20)]
        time.sleep(0.0005)
    assert made == sorted(made)
    assert len(set(made)) == 1000
    assert {len(run_id) for run_id in made} == {26}


def test_new_run_id__begins_with_the_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    number = 0
    for letter in new_run_id()[:10]:
        number = number * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(letter)
    assert before <= number <= time.time_ns() // 1_000_000 + 1


def test_selection__comes_back_as_committed(store: Store, items: pa.Table) -> None:
    header = {"selection_id": "s1", "recipe": "math", "steps": [{"rds_plus": {"k": 3}}], "seed": 7, "index": None}
    assert commit_selection(store, header, items) == "s1"
    committed, rows = read_selection(store, "s1")
    assert rows.equals(items)
    assert committed.pop("created_at")
    assert committed == header | {"n_items": N}


def test_selection__empty(store: Store, items: pa.Table) -> None:
    commit_selection(store, {"selection_id": "s1"}, items[:0])
    header, rows = read_selection(store, "s1")
    assert header["n_items"] == 0
    assert rows.equals(items[:0])


def test_selection__twice_is_one_record_the_first(store: Store, items: pa.Table) -> None:
    commit_selection(store, {"selection_id": "s1", "recipe": "first"}, items)
    commit_selection(store, {"selection_id": "s1", "recipe": "second"}, items)
    assert store.records("selections") == ["s1"]
    assert read_selection(store, "s1")[0]["recipe"] == "first"
    assert list(store.path("tmp").iterdir()) == []


def test_selection__ids_are_uuid_and_in_rank_order_on_disk(store: Store, items: pa.Table) -> None:
    commit_selection(store, {"selection_id": "s1"}, items)
    written = pq.read_table(store.path("records", "selections", "s1", "items.parquet"))
    assert written.column_names == ["selection_id", *items.column_names]
    assert written.schema.field("id").type == pa.uuid()
    assert written["rank"].to_pylist() == list(range(1, N + 1))
    assert pc.unique(written["selection_id"]).to_pylist() == ["s1"]


def test_selection__ids_as_plain_16_bytes_are_taken_too(store: Store, items: pa.Table) -> None:
    plain = items.set_column(1, "id", items["id"].combine_chunks().storage)
    commit_selection(store, {"selection_id": "s1"}, plain)
    assert read_selection(store, "s1")[1].equals(items)


def test_commit_selection__id_twice_is_refused_by_name(store: Store, items: pa.Table) -> None:
    ids = from_arrow(items["id"]).copy()
    ids[500] = ids[3]
    with pytest.raises(ValueError, match=f"{to_text(ids[3:4])[0]} comes more than once"):
        commit_selection(store, {"selection_id": "s1"}, items.set_column(1, "id", to_arrow(ids)))
    assert store.records("selections") == []


@pytest.mark.parametrize("ranks", [range(N), range(N, 0, -1), [1, *range(1, N)]])
def test_commit_selection__ranks_must_be_1_to_n(store: Store, items: pa.Table, ranks: range) -> None:
    with pytest.raises(ValueError, match=r"ranks must be 1 \.\. 1000"):
        commit_selection(store, {"selection_id": "s1"}, items.set_column(0, "rank", pa.array(ranks, pa.uint32())))


def test_commit_selection__missing_column_is_named(store: Store, items: pa.Table) -> None:
    with pytest.raises(ValueError, match=r"miss the columns \['gain'\]"):
        commit_selection(store, {"selection_id": "s1"}, items.drop_columns(["gain"]))


def test_read_selection__unknown_id(store: Store) -> None:
    with pytest.raises(NotInStore, match="no selection 'nope'"):
        read_selection(store, "nope")


def test_read_selection__cut_short_is_damage(store: Store, items: pa.Table) -> None:
    commit_selection(store, {"selection_id": "s1"}, items)
    path = store.path("records", "selections", "s1", "items.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreDamaged, match=r"items\.parquet is not what was committed"):
        read_selection(store, "s1")
    path.with_name("checksums.json").unlink()  # as an earlier version committed it
    with pytest.raises(StoreDamaged, match=r"items\.parquet cannot be read"):
        read_selection(store, "s1")


def test_read_selection__other_number_of_items_is_damage(store: Store, items: pa.Table) -> None:
    commit_selection(store, {"selection_id": "s1"}, items)
    pq.write_table(items[:10], store.path("records", "selections", "s1", "items.parquet"))
    store.path("records", "selections", "s1", "checksums.json").unlink()
    with pytest.raises(StoreDamaged, match=r"items\.parquet holds 10 items, .*selection\.json says 1000"):
        read_selection(store, "s1")


def test_commit_run__is_the_json_given(store: Store) -> None:
    run = {"run_id": new_run_id(), "stage": "select", "status": "failed", "error": "ValueError: no"}
    assert commit_run(store, run) == run["run_id"]
    assert json.loads(store.path("records", "runs", run["run_id"], "run.json").read_text()) == run


def test_commit_metrics__same_values_are_one_record(store: Store) -> None:
    first = commit_metrics(store, "s1", {"loss": 1})
    assert commit_metrics(store, "s1", {"loss": 1.0}) == first
    assert commit_metrics(store, "s1", {"loss": 2.0}) != first
    assert len(store.records("metrics")) == 2


def test_commit_metrics__nan_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        commit_metrics(store, "s1", {"loss": math.nan})
    assert store.records("metrics") == []


def test_next_number__counts_on_and_reads_no_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(name: str) -> int:
        number = next_number(store, "health_measurements")
        commit_record(store, "health_measurement", {"health_measurement_id": name, "number": number}, {})
        return number

    assert [commit("a"), commit("b")] == [1, 2]
    with monkeypatch.context() as patch:
        patch.setattr(records, "readable", lambda *_: pytest.fail("a record was read"))
        assert [commit("c"), next_number(store, "health_measurements"), commit("d")] == [3, 4, 5]


@pytest.mark.parametrize("content", [None, "", "[1", "[2, 1]", '{"a": 1}', '[9, 3, "0"]'])
def test_next_number__what_is_lost_or_behind_is_counted_again(store: Store, content: str | None) -> None:
    for number, name in ((3, "a"), (7, "b"), (None, "c")):
        header = {"health_measurement_id": name, "measures": {}, "reasons": {}}
        shape = dict.fromkeys(("encoder", "snapshot"), "x") | dict.fromkeys(("pool_rows", "rows", "dimension"), 1)
        given = header | shape | ({} if number is None else {"number": number})
        commit_record(store, "health_measurement", given, {"groups": pa.table({"group": ["a"]})})
    if content is not None:
        store.path("last").mkdir()
        store.path("last", "health_measurements").write_text(content)
    assert next_number(store, "health_measurements") == 8
