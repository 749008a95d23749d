from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput, NotInStore
from storage.ids import from_bytes, to_bytes
from storage.pool.content import identity
from storage.pool.ingest import FileSpec
from storage.pool.targets import ITEMS_SCHEMA, TargetSet, ingest_targets, open_targets
from storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def spec(path: Path, *records: Any, **options: Any) -> FileSpec:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records))
    return FileSpec(str(path), **options)


def test_targets__file_order_exact_repeats_once(store: Store, tmp_path: Path):
    a = spec(tmp_path / "a.jsonl", {"prompt": "z", "id": 1}, {"prompt": "b", "response": "r"}, {"prompt": "z", "id": 3})
    b = spec(tmp_path / "b.jsonl", {"prompt": "b", "response": "r"}, {"text": "t", "id": "x"})
    targets = ingest_targets(store, "dev", [a, b])
    turns = [[("user", "z"), ("assistant", "")], [("user", "b"), ("assistant", "r")], [("text", "t")]]
    assert to_bytes(targets.ids) == [identity(t) for t in turns]
    assert targets.given_ids == ["1", None, "x"]
    assert (targets.name, len(targets)) == ("dev", 3)
    assert (targets.header["read"], targets.header["rows"], targets.header["empty_responses"]) == (5, 3, 2)
    wanted = from_bytes(sorted([identity(turns[2]), identity(turns[0])]))
    assert [(to_bytes(i), t) for i, t in targets.turns(wanted)] == [
        ([identity(turns[0]), identity(turns[2])], [turns[0], turns[2]])
    ]
    folder = store.path("records", "targets", targets.id)
    assert pq.read_schema(folder / "items.parquet").equals(ITEMS_SCHEMA)
    with duckdb.connect() as connection:
        result = connection.execute(
            "SELECT target_set, prompt, line FROM read_parquet(?)", [str(folder / "items.parquet")]
        )
        assert result.fetchall() == [("dev", "z", 1), ("dev", "b", 2), ("dev", "t", 2)]


def test_targets__twice_is_once_and_anything_else_is_another(store: Store, tmp_path: Path):
    a = spec(tmp_path / "a.jsonl", {"text": "one", "body": "two"})
    first = ingest_targets(store, "dev", [a])
    assert ingest_targets(store, "dev", [a]).id == first.id == open_targets(store, first.id).id
    others = {
        ingest_targets(store, "other", [a]).id,
        ingest_targets(store, "dev", [FileSpec(a.url, fields={"text": "body"})]).id,
        ingest_targets(store, "dev", [spec(tmp_path / "a.jsonl", {"text": "three"})]).id,
    }
    assert len(others | {first.id}) == 4


def test_targets__a_bad_row_is_an_error_with_file_line_and_cause(store: Store, tmp_path: Path):
    bad = spec(tmp_path / "a.jsonl", {"text": "one"}, {"prompt": ["x"]})
    with pytest.raises(BadInput, match=r"targets 'dev': .*a\.jsonl line 2: prompt is a list, not text"):
        ingest_targets(store, "dev", [bad])
    with pytest.raises(BadInput, match="no rows in"):
        ingest_targets(store, "dev", [spec(tmp_path / "b.jsonl")])
    with pytest.raises(BadInput, match=r"fields\.id: no row has a field 'uid'"):
        ingest_targets(store, "dev", [spec(tmp_path / "c.jsonl", {"text": "x"}, fields={"id": "uid"})])
    with pytest.raises(BadInput, match=r"targets 'dev': .*unknown name 'txt'"):
        ingest_targets(store, "dev", [spec(tmp_path / "c.jsonl", {"text": "x"}, fields={"txt": "uid"})])
    assert store.records("targets") == []


def test_targets__what_is_not_there(store: Store, tmp_path: Path):
    with pytest.raises(NotInStore):
        open_targets(store, "none")
    targets = ingest_targets(store, "dev", [spec(tmp_path / "a.jsonl", {"text": "x"})])
    with pytest.raises(NotInStore):
        next(targets.turns(from_bytes([bytes(16)])))


def numbered(path: Path, numbers: range) -> FileSpec:
    return spec(path, *({"prompt": f"question {n}", "response": "r", "id": n} for n in numbers))


def measuring(targets: TargetSet) -> set[str | None]:
    return {targets.given_ids[place] for place in targets.measuring.tolist()}


def test_targets__without_measure_all_examples_select(store: Store, tmp_path: Path):
    targets = ingest_targets(store, "dev", [numbered(tmp_path / "a.jsonl", range(4))])
    assert targets.measures is None
    assert targets.selecting.tolist() == [0, 1, 2, 3]
    assert targets.measuring.tolist() == []


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_targets__a_share_measures_and_stays_when_others_come(store: Store, tmp_path: Path, share: float):
    few = ingest_targets(store, "dev", [numbered(tmp_path / "a.jsonl", range(200))], share)
    many = ingest_targets(store, "dev", [numbered(tmp_path / "b.jsonl", range(400))], share)
    assert few.id != ingest_targets(store, "dev", [numbered(tmp_path / "a.jsonl", range(200))]).id
    assert len(few.measuring) == pytest.approx(200 * share, abs=25)
    assert measuring(few) == measuring(many) & set(few.given_ids)
    assert sorted([*few.measuring, *few.selecting]) == list(range(200))
    assert open_targets(store, few.id).measuring.tolist() == few.measuring.tolist()


def test_targets__a_larger_share_holds_a_smaller(store: Store, tmp_path: Path):
    file = numbered(tmp_path / "a.jsonl", range(50))
    half, most = (measuring(ingest_targets(store, "dev", [file], share)) for share in (0.5, 0.75))
    assert half < most


def test_targets__files_measure__an_example_of_both_only_measures(store: Store, tmp_path: Path):
    a, b = numbered(tmp_path / "a.jsonl", range(4)), numbered(tmp_path / "b.jsonl", range(3, 6))
    targets = ingest_targets(store, "dev", [a, b], [b.url])
    assert measuring(targets) == {"3", "4", "5"}
    with pytest.raises(BadInput, match=r"targets 'dev': `measure` of 4 examples leaves none to select by"):
        ingest_targets(store, "dev", [a], [a.url])


def test_targets__a_share_that_leaves_none_to_measure(store: Store, tmp_path: Path):
    with pytest.raises(BadInput, match=r"`measure` of 3 examples leaves none that only measures"):
        ingest_targets(store, "dev", [numbered(tmp_path / "a.jsonl", range(3))], 1e-9)
