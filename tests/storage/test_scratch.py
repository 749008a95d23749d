"""What killed writers leave is swept; what living ones write is not, on this machine or another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import scratch
from storage.scratch import STALE_S, scratch_folder, sweep
from storage.store import Store, write_durably, write_json

HOLD = """
import sys, time
from pathlib import Path
from storage.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), sys.argv[2]) as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a folder below `tmp_path / "tmp"`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "tmp"), ".held"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def held_by(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def make_old(path: Path) -> None:
    then = time.time() - STALE_S - 60
    for each in (*path.rglob("*"), path):
        os.utime(each, (then, then))


def test_sweep__a_living_holders_folder_stays_however_old(holder: subprocess.Popen[str]) -> None:
    folder = held_by(holder)
    make_old(folder)
    sweep(folder.parent, hidden_only=False)
    assert (folder / "half").exists()


def test_sweep__a_dead_holders_folder_goes_at_once(holder: subprocess.Popen[str]) -> None:
    folder = held_by(holder)
    holder.kill()
    holder.wait()
    assert folder.exists(), "nothing was left: this test tests nothing"
    sweep(folder.parent)
    assert not folder.exists()


def test_sweep__what_this_process_writes_stays(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, ".mine") as folder:
        sweep(tmp_path, hidden_only=False)
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("old", [False, True])
def test_sweep__a_folder_of_another_machine_goes_only_once_nothing_in_it_has_changed_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, old: bool
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(scratch, "_machine", lambda: "0123456789ab")
        with scratch_folder(tmp_path, "pool") as mine:
            name = mine.name
    folder = tmp_path / name
    folder.mkdir()
    (folder / "half").write_text("x")
    if old:
        make_old(folder)
    sweep(tmp_path, hidden_only=False)
    assert folder.exists() is not old
    if not old:  # it was begun long ago, but is still written to
        make_old(tmp_path)
        (folder / "half").write_text("more")
        sweep(tmp_path, hidden_only=False)
        assert folder.exists()


def test_sweep__another_machines_living_folder_stays_where_locks_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_machine", lambda: "0123456789ab")
    with scratch_folder(tmp_path, "pool") as folder:
        monkeypatch.setattr(scratch, "_machine", lambda: "ba9876543210")
        make_old(folder)
        sweep(tmp_path, hidden_only=False)
        assert folder.exists()


@pytest.mark.parametrize(
    "name", [".config.yaml.4711.0a1b2c3d", ".0a1b.yaml.1.ffffffff", ".encoder.json.0123456789ab.77.00000000"]
)
def test_sweep__files_of_earlier_versions_go_after_a_day(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("half")
    sweep(tmp_path)
    assert (tmp_path / name).exists()
    make_old(tmp_path / name)
    sweep(tmp_path)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["mine.yaml", ".gitignore", ".notes.12.txt", "a.1.0a1b2c3d", ".hidden"])
def test_sweep__a_users_files_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    make_old(tmp_path / name)
    sweep(tmp_path)
    assert (tmp_path / name).exists()


def test_sweep__what_is_not_there_is_no_error(tmp_path: Path) -> None:
    sweep(tmp_path / "nothing")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    sweep(tmp_path, hidden_only=False)


def test_sweep__without_locks_of_folders_a_day_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(scratch.fcntl, "flock", no_locks)
    with scratch_folder(tmp_path, "pool") as folder:
        sweep(tmp_path, hidden_only=False)
        assert folder.exists()
        make_old(folder)
        sweep(tmp_path, hidden_only=False)
        assert not folder.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from storage import store as module
from storage.store import Store, write_durably
store = Store(sys.argv[1])
def die(path): os.kill(os.getpid(), signal.SIGKILL)
module.sync_path = die
if sys.argv[2] == "config":
    write_durably(store.path("configs", "c.yaml"), "text")
elif sys.argv[2] == "encoder":
    write_durably(store.path("vectors", "e", "encoder.json"), "text")
else:
    with store.committing("records", "runs", "r") as folder:
        (folder / "run.json").write_text("{}")
"""


@pytest.mark.parametrize("what", ["config", "encoder", "record"])
def test_store__the_next_start_sweeps_what_a_kill_left(tmp_path: Path, what: str) -> None:
    store = Store(tmp_path / "store")
    for _ in range(3):
        subprocess.run([sys.executable, "-c", KILLED, str(store.root), what], check=False)
    left = [path for path in store.root.rglob("*") if path.is_file()]
    assert len(left) >= 3, "the kills left nothing: this test tests nothing"
    store.sweep()
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    write_durably(store.path("configs", "c.yaml"), "text")
    with store.committing("records", "runs", "r") as folder:
        write_json(folder / "run.json", {})
    assert store.records("runs") == ["r"]


def test_store__a_long_name_can_be_written(tmp_path: Path) -> None:
    write_durably(tmp_path / ("n" * 250), "text")
    assert (tmp_path / ("n" * 250)).read_text() == "text"
