"""The guess of an encoding, and the error that makes it."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest

from storage.errors import BadInput
from storage.files.encodings import likely_encodings
from storage.pool.ingest import FileSpec, check_bad_fraction, ingest_file
from storage.store import Store

TEXTS = {
    "cp1252": "Die Straße führt über “Köln” nach Süden, où l’été est doux.\n",
    "gb18030": "从前有一座山，山上有一座庙，庙里有一个老和尚。\n",
    "shift_jis": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n",
    "cp1251": "Все счастливые семьи похожи друг на друга.\n",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_likely_encodings__names_the_encoding_among_those_that_fit(encoding: str) -> None:
    data = TEXTS[encoding].encode(encoding)
    names = likely_encodings(io.BytesIO(data))
    assert encoding in names
    assert likely_encodings(io.BytesIO(gzip.compress(data))) == names


def test_check_bad_fraction__a_latin_1_file_suggests_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps({"text": "Grüße aus Köln"}, ensure_ascii=False).encode("latin-1") + b"\n")
    store = Store(tmp_path / "store")
    ingest = ingest_file(store, FileSpec(str(path)))
    with pytest.raises(BadInput, match="the file is not UTF-8; beside `files:`, say `encoding: cp1252`"):
        check_bad_fraction([ingest], 0.01, store)
    assert ingest_file(store, FileSpec(str(path), encoding="cp1252")).readable == 1
