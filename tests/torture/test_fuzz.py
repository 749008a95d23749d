"""Files of any bytes: an error of ours, or every row counted; read = kept + duplicate + quarantined."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from storage.errors import BadInput
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import take_snapshot
from storage.store import Store

# How long `make torture` goes on: WINNOW_FUZZ_S=3600 make torture
SECONDS = float(os.environ.get("WINNOW_FUZZ_S", "600"))

RECORDS = [
    {"id": "a", "prompt": "Name a river.", "response": "The Ob.", "score": 0.5},
    {"id": "b", "prompt": "Grüße? \u2028", "response": "", "score": None},
    {"id": "a", "prompt": "Name a river.", "response": "The Ob.", "score": 2},
    {"id": 3, "prompt": "\U0001f600", "response": "x", "score": 1e300},
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "id": "m"},
    {"text": "plain", "id": "t"},
]


def _lines() -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()


def _csv() -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "prompt", "response", "score"])
    writer.writeheader()
    writer.writerows(RECORDS[:4])
    return out.getvalue().encode()


def _table() -> pa.Table:
    return pa.Table.from_pylist([{**record, "id": str(record["id"])} for record in RECORDS[:4]])


def _parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(_table(), out)
    return out.getvalue()


def _arrow() -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_file(out, _table().schema) as writer:
        writer.write_table(_table())
    return out.getvalue()


WHOLE: dict[str, Callable[[], bytes]] = {
    "jsonl": _lines,
    "json": lambda: json.dumps(RECORDS, indent=1).encode(),
    "csv": _csv,
    "tsv": lambda: _csv().replace(b",", b"\t"),
    "txt": _lines,
    "parquet": _parquet,
    "arrow": _arrow,
    "jsonl.gz": lambda: gzip.compress(_lines()),
    "jsonl.zst": lambda: zstandard.compress(_lines()),
    "csv.gz": lambda: gzip.compress(_csv()),
}
PIECES = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\r",
    b"\n\n",
    b"\\u",
    b"\x1f\x8b",
)
PIECES += (b"PAR1", b"NaN", b"1e999", b"9" * 400, b"\xed\xa0\x80", b"null", b"[" * 1100, b"\x28\xb5\x2f\xfd", b"ARROW1")

# What a file of JSON Lines does not begin with: compressions, tables, marks of encodings.
NO_LINES = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"\xff\xfe", b"\xfe\xff")
NO_LINES += (b"\0\0\xfe\xff",)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes of a file changed, cut, repeated, moved, or others put in."""
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4, 16))):
        at, to = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        data = chance.choice(
            (
                data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :],
                data[:at] + chance.choice(PIECES) + data[at:],
                data[:at] + chance.choice(PIECES) + data[to:],
                data[:at] + data[to:],
                data[:to] + data[at:to] + data[to:],
                data[:at],
                data[:at] + chance.randbytes(chance.randrange(1, 40)) + data[at:],
            )
        )
    return data


def rows_of(kind: str, whole: bytes, data: bytes) -> int | None:
    """How many rows a file has, counted otherwise than the readers do; None where only they can tell."""
    if data == whole:
        return len(RECORDS if kind.startswith("json") else RECORDS[:4])
    if kind == "jsonl" and not data.startswith(NO_LINES):
        return sum(bool(line.strip()) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    return None


def read_one(folder: Path, seed: int) -> bool:
    """Read a mutated file; whether it could be read. All that the seed decides: the kind, the mutations, the options."""
    chance = random.Random(seed)
    kind = chance.choice(list(WHOLE))
    inner, _, compression = kind.partition(".")
    if compression and chance.random() < 0.5:  # the content rather than its wrapping
        pack = {"gz": gzip.compress, "zst": zstandard.compress}[compression]
        text = mutated(whole := WHOLE[inner](), chance)
        rows, data = rows_of(inner, whole, text), pack(text)
    else:
        data = mutated(whole := WHOLE[kind](), chance)
        rows = rows_of(kind, whole, data)
    path = folder / f"{seed}.{kind}"
    path.write_bytes(data)
    store = Store(folder / f"store-{seed}", on_notice=lambda _: None)
    try:
        ingest = ingest_file(store, FileSpec(str(path), keep_damaged=chance.random() < 0.5))
    except BadInput as error:
        if path.name not in str(error):
            raise AssertionError("the error does not name the file") from error
        return False
    finally:
        path.unlink()
    assert ingest.read == ingest.readable + ingest.quarantined
    assert rows in (None, ingest.read)
    snapshot = take_snapshot(store, [ingest])
    counts = snapshot.counts[ingest.id]
    assert counts["read"] == counts["kept"] + counts["duplicate"] + counts["quarantined"] == ingest.read
    assert counts["kept"] == len(snapshot)
    return True


def test_any_bytes__are_counted_or_refused(tmp_path: Path) -> None:
    results = [_read(tmp_path, seed) for seed in range(60)]
    assert 10 < sum(results) < 60


@pytest.mark.torture
@pytest.mark.slow
def test_any_bytes__for_as_long_as_was_asked_for(tmp_path: Path) -> None:
    until = time.monotonic() + SECONDS
    # Other seeds each day, and the day is in them: a failure names its seed.
    for seed in count(int(time.time()) // 86400 * 10**9):
        _read(tmp_path, seed)
        if time.monotonic() > until:
            return


def _read(folder: Path, seed: int) -> bool:
    try:
        return read_one(folder, seed)
    except Exception as error:
        raise AssertionError(f"seed {seed} of the fuzz of readers") from error
    finally:
        shutil.rmtree(folder / f"store-{seed}", ignore_errors=True)
