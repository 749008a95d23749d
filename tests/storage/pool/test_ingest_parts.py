"""A file that is cut into parts has the rows, lines and counts of the file read whole; tests of processes are in pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput
from storage.files import ranges, user_files
from storage.pool.ingest import FileSpec, Ingest, ingest_file, parts
from storage.shards import R, Report, S
from storage.store import Store

RECORDS = [
    *({"prompt": f"q{n}", "response": "" if n % 5 == 0 else "a", "n": n, f"k{n % 3}": n / 2} for n in range(60)),
    {"prompt": ""},
    {"other": 1},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}], "n": "text"},
]


def last_first(work: Callable[[S, Report], R], shards: list[S], report: Report) -> Iterator[R]:
    """A map that makes the last result first."""
    results = {place: work(shards[place], report) for place in reversed(range(len(shards)))}
    return (results[place] for place in range(len(shards)))


def another_machine(work: Callable[[S, Report], R], shards: list[S], report: Report) -> Iterator[R]:
    """A map where nobody has the file open; every shard was begun by a worker that was given up, and is done twice."""
    for shard in shards:
        elsewhere: Any = replace(shard, paths=("/proc/0/fd/0", *shard.paths[1:]))  # type: ignore[type-var]
        for folder in (elsewhere.pool, elsewhere.quarantine):
            (folder / ".half").write_bytes(b"PAR1")
        work(elsewhere, int)
        yield work(elsewhere, report)


def write(path: Path) -> Path:
    lines = [json.dumps(record) for record in RECORDS]
    lines[7:7] = ["", "{broken", "   "]
    lines[40:40] = ["[1, 2]", "\x00"]
    path.write_text("\n".join(lines) + "\n")
    return path


def cut_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    for name, value in {"BLOCK_BYTES": step, "MIN_BYTES": step, "MAX_BYTES": step}.items():
        monkeypatch.setattr(ranges, name, value)
    monkeypatch.setattr(user_files, "BLOCK_BYTES", step)


def contents(store: Store, ingest: Ingest) -> list[Any]:
    files = [*parts(store, ingest.id), store.path("quarantine", ingest.id, "rows.parquet")]
    counts = asdict(ingest)
    for name in ("seconds", "created_at"):
        del counts[name]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return [rows, counts, store.committed("quarantine")]


@pytest.mark.parametrize("step", [100, 777, 1200])
def test_parts__are_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    spec = FileSpec(str(write(tmp_path / "a.jsonl")))
    whole = Store(tmp_path / "whole")
    expected = contents(whole, ingest_file(whole, spec))
    assert len(expected[0]) == len(RECORDS) + 3
    cut_at(monkeypatch, step)
    seen: list[int] = []
    cut = Store(tmp_path / "cut")
    ingest = ingest_file(cut, spec, on_rows=seen.append, parallel=last_first)
    assert len(parts(cut, ingest.id)) > 1
    assert sorted(path.name for path in cut.path("quarantine", ingest.id).iterdir() if "parquet" in path.name) == [
        "rows.parquet"
    ]
    assert contents(cut, ingest) == expected
    assert sum(seen) == ingest.read


def test_parts__are_read_by_name_on_another_machine_and_what_it_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl")
    spec, whole, cut = FileSpec(str(path)), Store(tmp_path / "whole"), Store(tmp_path / "cut")
    expected = contents(whole, ingest_file(whole, spec))
    cut_at(monkeypatch, 777)
    ingest = ingest_file(cut, spec, parallel=another_machine)
    assert contents(cut, ingest) == expected
    kept = [path.name for kind in ("pool", "quarantine") for path in cut.path(kind, ingest.id).iterdir()]
    assert [name for name in kept if name.startswith(".")] == []


def test_parts__of_a_url_are_read_where_it_was_fetched_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, spec = fsspec.filesystem("memory"), FileSpec("memory:///pool/a.jsonl")
    whole, cut = Store(tmp_path / "whole"), Store(tmp_path / "cut")
    try:
        fs.pipe("/pool/a.jsonl", write(tmp_path / "a.jsonl").read_bytes())
        expected = contents(whole, ingest_file(whole, spec))
        cut_at(monkeypatch, 777)
        assert contents(cut, ingest_file(cut, spec, parallel=another_machine)) == expected
    finally:
        fs.store.clear()
    assert list(cut.path("tmp").iterdir()) == []


def test_parts__of_a_file_that_another_machine_does_not_see(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")

    def without_the_file(work: Callable[[S, Report], R], shards: list[S], report: Report) -> Iterator[R]:
        path.write_text("{}")
        return another_machine(work, shards, report)

    store = Store(tmp_path / "store")
    with pytest.raises(BadInput, match=r"a\.jsonl: .* sees no such file, or another one\. .* under the same paths"):
        ingest_file(store, FileSpec(str(path)), parallel=without_the_file)
    assert store.committed("pool") == []


def test_a_stated_field__may_be_in_any_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "t", "name" if n == 30 else "x": "s"}) + "\n" for n in range(60)))
    cut_at(monkeypatch, 200)
    store = Store(tmp_path / "store")
    assert ingest_file(store, FileSpec(str(path), fields={"source": "name"})).readable == 60
    with pytest.raises(BadInput, match=r"fields\.source: no row has a field 'label'; found: name, text, x"):
        ingest_file(store, FileSpec(str(path), fields={"source": "label"}))
    assert len(store.committed("pool")) == 1
