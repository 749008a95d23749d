"""The store's folder: where things lie, how a record is committed, who holds a lock.

A record is a folder. It is written under `tmp/`, flushed to disk and renamed into place: the rename is the commit
point, so a record is there whole or not at all, whatever kills the writer. Names are hashes of what the record depends
on (or a fresh ULID), so two writers of the same record collide harmlessly.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.checksums import seal, verified
from storage.errors import NotInStore, StoreDamaged
from storage.scratch import scratch_folder, sweep


class Store:
    """One store folder.

    Args:
        root: the folder; made absolute, so that the store works from any working directory.
        on_notice: called with what a user should know, each sentence once; by default it is logged as a warning.

    Attributes:
        damaged: committed folders that were left out because they are damaged -> what is wrong with them.

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()) / "store")
    >>> with store.committing("records", "runs", "r1") as folder:
    ...     write_json(folder / "run.json", {"ok": True})
    >>> store.records("runs")
    ['r1']
    """

    def __init__(self, root: Path | str, on_notice: Callable[[str], object] | None = None) -> None:
        self.root = Path(root).expanduser().absolute()
        self.damaged: dict[Path, str] = {}
        self._on_notice = on_notice or logging.getLogger("winnow").warning
        self._said: set[str] = set()

    def notice(self, sentence: str) -> None:
        """Say something that a user should know, once."""
        if sentence not in self._said:
            self._said.add(sentence)
            self._on_notice(sentence)

    def path(self, *parts: str) -> Path:
        """A path inside the store; nothing is created."""
        return self.root.joinpath(*parts)

    def has(self, *parts: str) -> bool:
        """Whether a record is committed."""
        return self.path(*parts).is_dir()

    def records(self, kind: str) -> list[str]:
        """The committed records of one kind under `records/`, by name."""
        return self.committed("records", kind)

    def committed(self, *parts: str) -> list[str]:
        """The names of the committed folders under a path, sorted; empty where there are none."""
        folder = self.path(*parts)
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """An empty folder under `tmp/` to write in, removed when the block ends."""
        with scratch_folder(self.path("tmp"), name) as folder:
            yield folder

    @contextmanager
    def committing(self, *parts: str) -> Iterator[Path]:
        """A folder to write a record in; committed as `parts` when the block ends, dropped when it raises.

        If the record is already there, what was written is dropped: a name is a hash of all that the record depends on.
        """
        target = self.path(*parts)
        with self.scratch(parts[-1]) as folder:
            yield folder
            seal(folder)
            sync_tree(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.rename(target)
            except OSError:
                # A record is never empty, so renaming onto one that is there fails: it was committed before.
                if not target.is_dir():
                    raise
            sync_path(target.parent)

    @contextmanager
    def lock(self, name: str, holder: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the store-wide lock `name`; a second holder waits until the first is done or dies.

        Args:
            name: what is locked: a stage or "catalog".
            holder: shown to a waiting process, for example "winnow run (embed)".
            on_wait: called once with the present holder if the lock is not free at once.

        `flock` is released by the kernel when the process dies, so a kill leaves no lock behind. It does not hold on
        every network filesystem; there, commits stay safe (they are renames) and work may be done twice.
        """
        path = self.path("locks", f"{name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None:
                    file.seek(0)
                    on_wait(file.read().strip() or "another process")
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            file.truncate()
            file.write(f"{holder}, process {os.getpid()} on {socket.gethostname()}, since {utc_now()}")
            file.flush()
            yield

    def sweep(self) -> None:
        """Remove what killed writers left, once it is known that they are dead."""
        sweep(self.path("tmp"), hidden_only=False)
        for folder in (self.path("configs"), self.path("configs", "runs"), *self.path("vectors").glob("*")):
            sweep(folder)


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, keys in their order, which can mean something; NaN is refused, since JSON has none."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """Read a record's JSON.

    Raises:
        NotInStore: the file is missing.
        StoreDamaged: it does not parse, or is not what was committed.
    """
    try:
        return json.loads(verified(path).read_text("utf-8"))
    except FileNotFoundError:
        raise NotInStore(f"{path} is missing") from None
    except (ValueError, RecursionError, IsADirectoryError, NotADirectoryError) as error:
        raise StoreDamaged(f"{path} is not the JSON that was written: {error}") from error


def read_array(path: Path) -> npt.NDArray[Any]:
    """A record's .npy array, memory-mapped.

    Raises:
        StoreDamaged: it is missing, not an array, or not what was committed.
    """
    try:
        return np.asarray(np.load(verified(path), mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise StoreDamaged(f"{path} is missing") from None
    except (ValueError, EOFError, IsADirectoryError, NotADirectoryError) as error:
        raise StoreDamaged(f"{path} is not the array that was written: {error}") from error


def write_durably(path: Path, text: str) -> None:
    """Write a file beside its place and rename it in, so that a reader never sees half of it."""
    with scratch_folder(path.parent, f".{path.name}") as folder:
        beside = folder / "text"
        beside.write_text(text, "utf-8")
        sync_path(beside)
        beside.replace(path)
    sync_path(path.parent)


def sync_tree(folder: Path) -> None:
    """Flush every file below a folder, and the folders, to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            sync_path(Path(parent, name))
        sync_path(Path(parent))


def sync_path(path: Path) -> None:
    """Flush a file to disk, or a folder's entries, so that a rename outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
