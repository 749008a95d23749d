"""`winnow reproduce`: a recorded selection drawn again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import HeldBack
from pipelines.reproduce import reproduce
from pipelines.run import run_all
from storage.records import read_selection
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, opened, write_vectors


def test_reproduce__target_sets_keep_their_turns(light: Path) -> None:
    write_rows(light / "targets" / "dogs.jsonl", [row(n, "dog") for n in (100, 101)])
    write_vectors(light / "vectors" / "dogs.npy", ["dog-100", "dog-101"])
    foxes = "  foxes: {files: targets/foxes.jsonl, vectors: vectors/foxes.npy}\n"
    change(light, foxes, foxes + foxes.replace("foxes", "dogs"))
    context = opened(light)
    (outcome,) = run_all(context, ["near"])
    assert read_selection(context.store, outcome.subject)[1]["ref"][0].as_py() == "foxes"
    assert "the same 10 rows in the same order" in reproduce(opened(light), outcome.subject)


def test_reproduce__of_a_changed_record_is_held_back(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outcome,) = run_all(opened(light), ["any"])
    context = opened(light)
    header, items = read_selection(context.store, outcome.subject)
    reversed_ = items.set_column(1, "id", items["id"].take(list(range(len(items)))[::-1]))
    monkeypatch.setattr("pipelines.reproduce.read_selection", lambda *_: (header, reversed_))
    with pytest.raises(HeldBack, match=r"is not reproduced: 8 of 8 rows are the same\. It was drawn by"):
        reproduce(context, outcome.subject)
