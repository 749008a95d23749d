from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from storage.errors import NotInStore, StoreDamaged
from storage.store import Store, read_json, write_durably, write_json


def test_committing__is_there_whole_after_the_block_and_not_before(store: Store) -> None:
    with store.committing("records", "runs", "r1") as folder:
        write_json(folder / "run.json", {"a": 1})
        assert not store.has("records", "runs", "r1")
    assert read_json(store.path("records", "runs", "r1", "run.json")) == {"a": 1}
    assert list(store.path("tmp").iterdir()) == []


def test_committing__nothing_stays_when_the_block_raises(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"), store.committing("records", "runs", "r1") as folder:
        write_json(folder / "run.json", {"a": math.nan})
    assert store.records("runs") == []
    assert list(store.path("tmp").iterdir()) == []


def test_committing__second_writer_of_a_name_is_dropped(store: Store) -> None:
    for value in (1, 2):
        with store.committing("records", "runs", "r1") as folder:
            write_json(folder / "run.json", value)
    assert read_json(store.path("records", "runs", "r1", "run.json")) == 1
    assert list(store.path("tmp").iterdir()) == []


def test_committing__a_file_in_the_way_is_an_error(store: Store) -> None:
    store.path("records", "runs").mkdir(parents=True)
    store.path("records", "runs", "r1").write_text("in the way")
    with pytest.raises(OSError, match="r1"), store.committing("records", "runs", "r1") as folder:
        write_json(folder / "run.json", 1)


WAYS: dict[str, Callable[[Store, str], Any]] = {
    "committing": lambda store, name: store.committing("records", "runs", name),
    "replacing": lambda store, name: store.replacing("records", "runs", name),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_record__that_the_disk_refuses_is_an_error_and_whole_the_next_time(
    store: Store, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def write(name: str) -> None:
        with WAYS[way](store, name) as folder:
            write_json(folder / "run.json", name)

    store.path("records", "runs").mkdir(parents=True)
    for nth in count(1):
        refused = False
        with refusing(monkeypatch, nth) as calls:
            try:
                write(f"r{nth}")
            except OSError:
                refused = True
        if len(calls) < nth:
            break
        assert refused or calls[nth - 1] == "mkdir"  # of a folder that is there
        write(f"r{nth}")
        assert read_json(store.path("records", "runs", f"r{nth}", "run.json")) == f"r{nth}"
        assert list(store.path("tmp").iterdir()) == []
    assert nth > 6


def test_write_durably__what_the_disk_refuses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    for nth, call in enumerate(["mkdir", "fsync", "rename", "fsync"], start=2):
        path.write_text("before")
        with refusing(monkeypatch, nth) as calls, pytest.raises(OSError, match="refused"):
            write_durably(path, "after")
        assert calls[nth - 1] == call
        assert path.read_text() == ("after" if nth == 5 else "before")


@contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, nth: int) -> Iterator[list[str]]:
    """The nth call that changes the disk fails; the names of all calls."""
    calls: list[str] = []

    def call(name: str, original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == nth:
            raise OSError(errno.EIO, "refused")
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        for name in ("fsync", "mkdir", "rename", "replace"):
            patch.setattr(os, name, partial(call, name.replace("replace", "rename"), getattr(os, name)))
        yield calls


def test_records__sorted_and_without_hidden_names_or_files(store: Store) -> None:
    for name in ("b", "a", ".hidden"):
        store.path("records", "runs", name).mkdir(parents=True)
    store.path("records", "runs", "file").write_text("")
    assert store.records("runs") == ["a", "b"]
    assert store.records("selections") == []


def test_store__relative_root_survives_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "store"


def test_lock__second_holder_waits_and_learns_who_is_first(store: Store) -> None:
    holders: list[str] = []
    order: list[str] = []
    holding, may_end = threading.Event(), threading.Event()

    def first() -> None:
        with store.lock("embed", "first holder"):
            holding.set()
            may_end.wait(10)
            order.append("first")

    def second() -> None:
        with store.lock("embed", "second holder", lambda holder: (holders.append(holder), may_end.set())):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert holding.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second"]
    assert len(holders) == 1
    assert holders[0].startswith(f"first holder, process {os.getpid()} on ")


def test_lock__other_names_do_not_wait(store: Store) -> None:
    with store.lock("embed", "a"), store.lock("select", "b"):
        pass


def test_lock__is_free_when_its_holder_is_killed(store: Store) -> None:
    code = (
        "import sys, time; from storage.store import Store\n"
        "with Store(sys.argv[1]).lock('embed', 'doomed'):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(store.root)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
        process.wait()
    with store.lock("embed", "next", lambda _: pytest.fail("the dead still hold it")):
        pass


def test_write_json__nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": math.nan})


def test_read_json__missing_and_damaged_are_different_errors(tmp_path: Path) -> None:
    with pytest.raises(NotInStore, match=r"x\.json is missing"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(StoreDamaged, match=r"x\.json is not the JSON that was written"):
        read_json(tmp_path / "x.json")


def test_write_durably__replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write_durably(tmp_path / "a" / "x.txt", text)
    assert (tmp_path / "a" / "x.txt").read_text() == "two"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.txt"]
