"""A file that is cut into parts has the rows, lines and counts of the file read whole; tests of processes are in pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

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


def test_a_stated_field__may_be_in_any_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "t", "name" if n == 30 else "x": "s"}) + "\n" for n in range(60)))
    cut_at(monkeypatch, 200)
    store = Store(tmp_path / "store")
    assert ingest_file(store, FileSpec(str(path), fields={"source": "name"})).readable == 60
    with pytest.raises(BadInput, match=r"fields\.source: no row has a field 'label'; found: name, text, x"):
        ingest_file(store, FileSpec(str(path), fields={"source": "label"}))
    assert len(store.committed("pool")) == 1
