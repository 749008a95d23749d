"""Folders to write in, removed when their block ends; what a killed writer left is known by its dead holder and swept.

A holder keeps a shared lock (`flock`) on its folder, which the kernel drops when the process dies. The name says on
which machine, since its last start, the holder runs: within one kernel the lock decides. A folder of another machine,
or of an earlier version, may have a holder that no lock shows; it goes once nothing in it has changed for a day.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

STALE_S = 24 * 3600

# Of any version: name, machine (not in earlier versions), process, random digits.
_LEFTOVER = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")
_NAME_CHARS = 100


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """An empty folder below `parent` to write in, removed when the block ends."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{name[:_NAME_CHARS]}.{_machine()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    with ExitStack() as held:
        with _locked(parent, fcntl.LOCK_SH):  # nobody sweeps before the folder is locked
            folder.mkdir()
            held.enter_context(_locked(folder, fcntl.LOCK_SH))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path, *, hidden_only: bool = True, prefix: str = "") -> None:
    """Remove what dead holders left below a folder.

    Args:
        hidden_only: only hidden names of the form that writers give; else everything is a leftover.
        prefix: only names that begin with it.
    """
    with suppress(OSError), _locked(parent, fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
        if locked is False:  # others are making folders just now
            return
        for entry in list(os.scandir(parent)):
            is_ours = entry.name.startswith(prefix) and (not hidden_only or _LEFTOVER.fullmatch(entry.name))
            if is_ours and not entry.is_symlink():
                with suppress(OSError):  # committed by its writer in the meantime
                    _remove_if_dead(Path(entry.path))


_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def swap_folders(new: Path, target: Path, before: Path) -> None:
    """Put a folder in the place of another, or of none, at once; what was there lies at `before`, or at `new`, then."""
    if not target.exists():
        new.rename(target)
        return
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        swapped = rename(_HERE, os.fsencode(new), _HERE, os.fsencode(target), _EXCHANGE) == 0
    except AttributeError:  # not Linux, or an old C library
        swapped = False
    if not swapped:  # the file system does not exchange: for a moment there is no folder
        target.rename(before)
        new.rename(target)


def _remove_if_dead(path: Path) -> None:
    if not path.is_dir():
        if _idle_s(path) > STALE_S:
            path.unlink()
        return
    with _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
        is_dead = locked is True and path.name.split(".")[-3:-2] == [_machine()]
        if is_dead or (locked is not False and _idle_s(path) > STALE_S):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[bool | None]:
    """Hold a lock on a folder; gives False where another holds it, None where the filesystem has no such locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, how)
            locked: bool | None = True
        except BlockingIOError:
            locked = False
        except OSError:
            locked = None
        yield locked
    finally:
        os.close(descriptor)


def _idle_s(path: Path) -> float:
    """Seconds since anything at or below a path was changed."""
    changed = [path.lstat().st_mtime]
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                changed.append(os.lstat(Path(parent, name)).st_mtime)
    return time.time() - max(changed)


@cache
def _machine() -> str:
    """12 hex digits that name this machine since it was started; its name alone where the system does not say."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        started = socket.gethostname()
    return hashlib.blake2b(started.encode(), digest_size=6).hexdigest()
