"""Files that a user names: which they are, what their bytes hash to, how they are opened.

A file is a local path or an fsspec URL; `datasets` folders stand for their data files.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from glob import glob, has_magic
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import orjson

from storage.errors import BadInput, NothingMatches
from storage.files import readers
from storage.files.blocks import BLOCK_BYTES
from storage.files.remote import file_system, is_url, missing_bucket, reason
from storage.store import Store

_NO_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def expand(patterns: Sequence[str], base: Path) -> list[str]:
    """The files that patterns name: paths, globs, folders and fsspec URLs; sorted, each once.

    A folder stands for every file below it that can be read; one written by `datasets` for its data files.

    Raises:
        NothingMatches: a pattern names nothing.
        BadInput: it names what is no file, such as a pipe, or a link that leads back to itself, or a file whose name is
            no text.
    """
    files: set[str] = set()
    for pattern in patterns:
        remote = is_url(pattern) and not pattern.startswith("file://")
        matches = _expand_remote(pattern) if remote else _expand_local(pattern.removeprefix("file://"), base)
        if not matches:
            where = "" if remote else f" (looked in {base})"
            raise NothingMatches(f"nothing to read matches {pattern!r}{where}")
        for name in matches:
            _require_text(name)
        files.update(matches)
    return sorted(files)


def check_is_file(path: Path | str) -> None:
    """Refuse what would block or never end when it is read; what is not there is for others to say.

    Raises:
        BadInput: it is a pipe, a socket, a device, or a link that leads back to itself.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadInput(f"{path} is a link that leads back to itself") from None
        return
    if (kind := stat.S_IFMT(mode)) in _NO_FILES:
        raise BadInput(f"{path} is {_NO_FILES[kind]}, which cannot be read as a file; copy what it gives into one")


def default_source_of(url: str) -> str:
    """The source of rows that name none: the file's stem; for a folder written by `datasets`, that folder's name."""
    path = Path(url)
    if path.suffix == ".arrow" and _datasets_files(folder := path.parent):
        return f"{folder.parent.name}/{folder.name}" if (folder.parent / "dataset_dict.json").exists() else folder.name
    return readers.stem(url)


def file_digest(file: BinaryIO, on_block: Callable[[bytes], object] | None = None) -> str:
    """blake2b-128 of a file's bytes, in hex; the file is left at its beginning.

    Args:
        on_block: called with the file's bytes, `BLOCK_BYTES` at a time.
    """
    digest = blake2b(digest_size=16)
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
        if on_block is not None:
            on_block(block)
    file.seek(0)
    return digest.hexdigest()


@contextmanager
def opened(store: Store, url: str) -> Iterator[BinaryIO]:
    """The file for reading; a remote one is fetched once into the store, where other machines see it by its `name`.

    Raises:
        BadInput: it cannot be opened.
    """
    with ExitStack() as stack:
        try:
            if not is_url(url):
                check_is_file(url)
                file: BinaryIO = stack.enter_context(Path(url).open("rb"))
            else:
                import fsspec

                fetched = stack.enter_context(store.scratch("fetched")) / "file"
                file = stack.enter_context(fetched.open("w+b"))
                with fsspec.open(url, "rb", compression=None) as remote:
                    shutil.copyfileobj(remote, file, BLOCK_BYTES)
                file.seek(0)
        except BadInput:
            raise
        except Exception as error:  # what a file system of fsspec raises, nobody says
            raise BadInput(f"{url}: cannot be opened: {reason(url, error)}") from error
        yield file


def _require_text(name: str) -> None:
    """Records and the catalog hold names as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadInput(f"the name of the file {os.fsencode(name)!r} is not UTF-8 text; rename it") from None


@dataclass(frozen=True)
class FileState:
    """What changes when an open file is written to, and how many names it has: replacing it takes one away."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    names: int

    @classmethod
    def of(cls, file: BinaryIO) -> FileState:
        """The state of an open file now."""
        return cls._of(os.fstat(file.fileno()))

    @classmethod
    def _of(cls, now: os.stat_result) -> FileState:
        return cls(now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_nlink)

    def is_at(self, path: str) -> bool:
        """Whether a file of this size and time is at a path of this machine, which may be another one."""
        try:
            now = self._of(Path(path).stat())
        except OSError:
            return False
        return (now.size, now.modified_ns) == (self.size, self.modified_ns)

    def require(self, file: BinaryIO, url: str) -> None:
        """Raise `BadInput` if the file was written to since. One that was replaced is still open as it was."""
        now = FileState.of(file)
        if now.names != self.names:
            now = replace(now, changed_ns=self.changed_ns, names=self.names)
        if now != self:
            raise _changed(url)


@contextmanager
def unchanged(store: Store, url: str) -> Iterator[tuple[BinaryIO, FileState]]:
    """The file for reading, and its state: whatever is read in the block is of this one state.

    Who commits in the block what was read so far calls `require` of the state before.

    Raises:
        BadInput: it cannot be opened, or somebody wrote to it before the block ended.
    """
    with opened(store, url) as file:
        # The clock of a filesystem moves in steps: a change within a step after the last one leaves the times alone.
        age_s = time.time() - os.fstat(file.fileno()).st_mtime
        if 0 <= age_s < _CLOCK_STEP_S:
            time.sleep(_CLOCK_STEP_S - age_s)
        state = FileState.of(file)
        yield file, state
        state.require(file, url)


@contextmanager
def opened_as(store: Store, url: str, digest: str) -> Iterator[tuple[BinaryIO, FileState]]:
    """The file for reading, of which the digest was taken before; see `unchanged`.

    Raises:
        BadInput: it cannot be opened, or it has changed since.

    Cost: takes the digest again, unless this is the very state of the file of which it was taken.
    """
    with unchanged(store, url) as (file, state):
        if _digests.get((url, state)) != digest and file_digest(file) != digest:
            raise _changed(url)
        yield file, state


def url_digest(store: Store, url: str) -> str:
    """The digest of a file's present content.

    Raises:
        BadInput: it cannot be opened, or somebody wrote to it meanwhile.

    Cost: reads the file once in the life of a process, while it stays as it is; a remote one each time.
    """
    with unchanged(store, url) as (file, state):
        digest = _digests.get((url, state)) or file_digest(file)
    if not is_url(url):
        _digests[url, state] = digest
    return digest


def _changed(url: str) -> BadInput:
    return BadInput(f"{url}: the file changed while it was read; run again when it is complete")


_digests: dict[tuple[str, FileState], str] = {}
_CLOCK_STEP_S = 0.02


def _expand_local(pattern: str, base: Path) -> list[str]:
    path = base / Path(pattern).expanduser()
    if path.is_dir():
        return [str(file) for file in _files_below(path.absolute())]
    check_is_file(path)
    if path.exists() or not has_magic(pattern):
        return [os.path.normpath(path.absolute())] if path.is_file() else []
    if "**" in path.parts:
        # Before the glob, which would follow a folder that holds itself until the system stops it.
        named = itertools.takewhile(lambda part: not has_magic(part), Path(pattern).expanduser().parts)
        _check_links(base.joinpath(*named), [], set())
    # The base is a name, whatever signs it has.
    names = glob(str(Path(pattern).expanduser()), root_dir=base, recursive=True)  # noqa: PTH207
    matches = [os.path.normpath((base / match).absolute()) for match in names]
    files: list[str] = []
    for match in matches:
        check_is_file(match)
        files += _expand_local(match, base) if Path(match).is_dir() else [match]
    return files


def _files_below(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Args: above: the folders that were gone through to this one, without links."""
    if names := _datasets_files(folder):
        yield from (folder / name for name in names)
        return
    above = _entered(folder, above)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files_below(entry, above)
        elif _is_data(entry.name):
            check_is_file(entry)
            yield entry


def _check_links(folder: Path, above: Sequence[str], checked: set[str]) -> None:
    """Refuse a folder below which a link leads back; `checked` holds folders, without links, where none does."""
    above = _entered(folder, tuple(above))
    if above[-1] in checked or not folder.is_dir():
        return
    for entry in folder.iterdir():
        if not entry.name.startswith(".") and entry.is_dir():
            _check_links(entry, above, checked)
    checked.add(above[-1])


def _entered(folder: Path, above: tuple[str, ...]) -> tuple[str, ...]:
    """The folders gone through, with this one.

    Raises:
        BadInput: it is one of those above it.
    """
    real = os.path.realpath(folder)
    if real in above:
        raise BadInput(f"{folder} is a link to a folder that holds it: {real}; name the folders or files without it")
    return (*above, real)


def _datasets_files(folder: Path) -> list[str]:
    """The data files of a folder written by `datasets`, which may keep cache files beside them; else none."""
    try:
        state = orjson.loads((folder / "state.json").read_bytes())
        return [str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _is_data(name: str) -> bool:
    base = name.rpartition("/")[2]
    described = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
    return readers.extension(base) in readers.EXTENSIONS and base not in described and not base.startswith("cache-")


def _expand_remote(pattern: str) -> list[str]:
    try:
        fs, path = file_system(pattern)
        if has_magic(path):
            matches = fs.glob(path)
        elif fs.isdir(path):
            matches = [file for file in fs.find(path) if _is_data(file)]
        else:
            matches = [path] if fs.exists(path) else []
        files = [str(fs.unstrip_protocol(match)) for match in matches if fs.isfile(match)]
        bucket = None if files else missing_bucket(pattern)
    except Exception as error:  # what a file system of fsspec raises, nobody says
        raise BadInput(f"{pattern!r} cannot be listed: {reason(pattern, error)}") from error
    if bucket is not None:
        raise BadInput(f"{pattern!r} cannot be listed: there is no bucket {bucket!r}")
    return files
