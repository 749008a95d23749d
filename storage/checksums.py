"""Checksums of committed files: written with each record, compared once a process before a file is used.

`checksums.json` of a folder holds the CRC-32 of each of its files. It finds what disks and copies do: flipped bits, cut
and emptied files. It is no signature. Folders of earlier versions have none, and are taken as they are.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from storage.errors import StoreDamaged

FILE = "checksums.json"

_BLOCK_BYTES = 1 << 20

State = tuple[int, int, int]
# Folder -> its checksums, and file -> its checksum, each as of a state of the file on disk.
_sums_of_folder: dict[Path, tuple[State, dict[str, str]]] = {}
_sum_of_file: dict[Path, tuple[State, str]] = {}


def seal(folder: Path) -> None:
    """Write the checksums of all files of a folder, and of those below it."""
    for parent, _, names in os.walk(folder):
        if names:
            Path(parent, FILE).write_text(seal_of(Path(parent, name) for name in sorted(names)), "utf-8")


def seal_of(files: Iterable[Path]) -> str:
    """The content of `checksums.json` beside some files."""
    return _content({path.name: _crc32(path) for path in files})


def seal_with(folder: Path, new: Path) -> str:
    """The content of `checksums.json` of a folder to which a file has come; those of the others are taken over."""
    try:
        known = sums_of(folder)
    except StoreDamaged:
        known = {}
    return _content(
        {name: value for name, value in known.items() if (folder / name).exists()} | {new.name: _crc32(new)}
    )


def _content(sums: dict[str, str]) -> str:
    return json.dumps({"crc32": sums}, indent=1) + "\n"


def verified(path: Path) -> Path:
    """The path of a committed file, once its bytes are known to be those that were committed.

    Raises:
        StoreDamaged: they are not, or the file is missing; names it.

    Cost: reads the file once in the life of a process, while it stays as it is; 0.3 s a GB.
    """
    expected = sums_of(path.parent).get(path.name)
    if expected is None:
        return path
    try:
        state = _state(path)
        known = _sum_of_file.get(path)
        actual = known[1] if known and known[0] == state else _crc32(path)
        _sum_of_file[path] = (state, actual)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreDamaged(f"{path} is missing") from None
    except IsADirectoryError:
        raise StoreDamaged(f"{path} is a folder, not the file that was committed") from None
    if actual != expected:
        what = "is empty" if state[0] == 0 else "is not what was committed (its checksum differs)"
        raise StoreDamaged(f"{path} {what}")
    return path


def sums_of(folder: Path) -> dict[str, str]:
    """File -> checksum of a committed folder; empty where there are none.

    Raises:
        StoreDamaged: they cannot be read.
    """
    path = folder / FILE
    try:
        state = _state(path)
        known = _sums_of_folder.get(folder)
        if known is None or known[0] != state:
            sums = json.loads(path.read_text("utf-8"))["crc32"]
            _sums_of_folder[folder] = known = (state, {str(name): str(value) for name, value in sums.items()})
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, IsADirectoryError) as error:
        raise StoreDamaged(f"{path} does not hold the checksums that were written: {_words(error)}") from error
    return known[1]


def _words(error: Exception) -> str:
    return f"no {error}" if isinstance(error, LookupError) else str(error)


def _state(path: Path) -> State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _crc32(path: Path) -> str:
    value = 0
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            value = zlib.crc32(buffer[:size], value)
    return f"{value:08x}"
