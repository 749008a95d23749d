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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from storage.checksums import seal, verified
from storage.errors import NotInStore, StoreBusy, StoreDamaged
from storage.packs import ROOT, Packs
from storage.scratch import scratch_folder, swap_folders, sweep

# The rows that are being forgotten, while they are.
FORGETTING = ("forgetting", "rows")


class Store:
    """One store folder.

    Args:
        root: the folder; made absolute, so that the store works from any working directory.
        on_notice: called with what a user should know, each sentence once; by default it is logged as a warning.

    Attributes:
        damaged: committed folders that were left out because they are damaged -> what is wrong with them.
        packs: the small records that lie together in packs.
        hidden: committed folders that are about to be removed, and are listed no more.

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
        self.hidden: frozenset[Path] = frozenset()
        self.packs = Packs(self.root / ROOT)
        self._is_alone = False
        self._vectors_are_swept = False
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

    def place(self, *parts: str) -> Path:
        """Where a committed folder lies; of a record in a pack its path there, see `storage.packs`."""
        packed = self._packed(parts[:-1]).get(parts[-1])
        return self.path(*parts) if packed is None else packed

    def places(self, *parts: str) -> dict[str, Path]:
        """Name -> where it lies, of each committed folder under a path."""
        folder, packed = self.path(*parts), self._packed(parts)
        return {name: packed.get(name) or folder / name for name in self.committed(*parts)}

    def _packed(self, parts: tuple[str, ...]) -> Mapping[str, Path]:
        return self.packs.places(parts[1]) if len(parts) == 2 and parts[0] == "records" else {}

    def has(self, *parts: str) -> bool:
        """Whether a record is committed."""
        return parts[-1] in self._packed(parts[:-1]) or self.path(*parts).is_dir()

    def records(self, kind: str) -> list[str]:
        """The committed records of one kind under `records/`, by name."""
        return self.committed("records", kind)

    def committed(self, *parts: str) -> list[str]:
        """The names of the committed folders under a path, sorted; empty where there are none."""
        try:
            entries = [*os.scandir(self.path(*parts))]
        except (FileNotFoundError, NotADirectoryError):
            entries = []
        names = {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
        names.update(self._packed(parts))
        return sorted(name for name in names if not self.hidden or self.place(*parts, name) not in self.hidden)

    def catalog_numbers(self) -> set[int]:
        """The numbers in use by catalogs, and by a log that an analyst's killed session left beside one."""
        folder = self.path("catalog")
        heads = (path.name.split(".")[0] for path in (folder.iterdir() if folder.is_dir() else ()))
        return {int(head) for head in heads if head.isdigit()}

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
    def replacing(self, *parts: str) -> Iterator[Path]:
        """A folder to write a committed record anew in; it takes the record's place at once when the block ends."""
        target = self.path(*parts)
        with self.scratch(parts[-1]) as folder:
            new = folder / "new"
            new.mkdir()
            yield new
            seal(new)
            sync_tree(new)
            swap_folders(new, target, folder / "before")
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
        with self.in_use(on_wait), _flocked(path, fcntl.LOCK_EX, on_wait) as file:
            _sign(file, holder)
            yield

    @contextmanager
    def in_use(self, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Keep `alone` away until the block ends; any number of processes may do so, and every lock does.

        Args:
            on_wait: called once with who is alone, if somebody is.

        Raises:
            StoreBusy: rows are half forgotten.
        """
        if self._is_alone:
            yield
            return
        with _flocked(self._whole(), fcntl.LOCK_SH, on_wait):
            self._require_no_rows_half_forgotten()
            yield

    @contextmanager
    def alone(self, holder: str, *, forgets: bool = False) -> Iterator[None]:
        """Hold the whole store: no other process has a lock of it, and whoever wants one waits until the block ends.

        Args:
            forgets: it may be one in which rows are half forgotten.

        Raises:
            StoreBusy: another process works on it; says who.
        """
        with self._whole().open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreBusy(f"{self.root} is in use: {self._holders()}; try again once that is done") from None
            if not forgets:
                self._require_no_rows_half_forgotten()
            _sign(file, holder)
            self._is_alone = True
            try:
                yield
            finally:
                self._is_alone = False
                file.truncate(0)

    def _require_no_rows_half_forgotten(self) -> None:
        if self.has(*FORGETTING):
            raise StoreBusy(
                f"a `winnow forget` was cut off, and {self.root} is half without its rows: "
                "`winnow forget --yes` ends it"
            )

    def _whole(self) -> Path:
        """The file whose lock stands for the whole store."""
        path = self.path("locks", "store.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _holders(self) -> str:
        """Who holds locks just now."""
        holders = []
        for path in sorted(self.path("locks").glob("*.lock")):
            with path.open("r") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    holders.append(file.read().strip() or "another process")
        return "; ".join(holders) or "a run is between two stages"

    def sweep(self) -> None:
        """Remove what killed writers left, once it is known that they are dead; beside vectors once in the life of this."""
        sweep(self.path("tmp"), hidden_only=False)
        for folder in (self.path("configs"), self.path("configs", "runs"), self.path("last")):
            sweep(folder)
        if not self._vectors_are_swept:  # there is a folder for each file of vectors that there ever was
            for folder in self.path("vectors").glob("*"):
                sweep(folder)
            self._vectors_are_swept = True


@contextmanager
def _flocked(path: Path, how: int, on_wait: Callable[[str], None] | None) -> Iterator[TextIO]:
    """The open file, locked; `on_wait` is called once with its present holder if it is not free at once."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                file.seek(0)
                on_wait(file.read().strip() or "another process")
            fcntl.flock(file, how)
        yield file


def _sign(file: TextIO, holder: str) -> None:
    """Write who holds a lock into its file."""
    file.seek(0)
    file.truncate()
    file.write(f"{holder}, process {os.getpid()} on {socket.gethostname()}, since {utc_now()}")
    file.flush()


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
