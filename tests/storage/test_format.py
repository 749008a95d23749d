from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage.errors import NewerStore, StoreDamaged
from storage.format import FILE, FORMAT, check_format, note_format
from storage.store import Store


def test_format__is_noted_once_and_raised_for_an_earlier_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    check_format(store)  # one without the file is an earlier one
    for before in (None, {"format": 1}):
        if before is not None:
            store.path(FILE).write_text(json.dumps(before))
        note_format(store)
        assert json.loads(store.path(FILE).read_text()) == {"format": FORMAT}
        check_format(store)
    written = store.path(FILE).stat().st_mtime_ns
    note_format(store)
    assert store.path(FILE).stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            json.dumps({"format": FORMAT + 1}),
            NewerStore,
            f"later version of winnow .store format {FORMAT + 1}; this one",
        ),
        ("", StoreDamaged, "does not say"),
        ("[]", StoreDamaged, "does not say"),
        ('{"format": "2"}', StoreDamaged, "does not say"),
    ],
)
def test_format__what_is_not_known_is_refused_and_kept(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    store = Store(tmp_path)
    store.path(FILE).write_text(text)
    for function in (check_format, note_format):
        if function is note_format and error is NewerStore:
            continue
        with pytest.raises(error, match=message):
            function(store)
    assert store.path(FILE).read_text() == text
