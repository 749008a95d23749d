"""Where an export lies: a folder of this machine, or one at a URL (s3, gs, hf), which fsspec writes.

No folder at a URL can be swapped at once. While files go up, its provenance.json says `unfinished`; it is written
again, without that, after the last of them. So an export whose provenance.json is not `unfinished` is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.errors import BadExport, PipelineError
from pipelines.exports.folder import (
    MARK,
    PROVENANCE,
    Staging,
    check_files,
    check_target,
    files_of,
    provenance_of,
    replacing,
)
from storage.files.remote import file_system, is_url, reason
from storage.store import Store

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class UrlFolder:
    """A folder at a URL.

    Raises:
        BadExport: from each method, where the file system cannot; names the URL and the cause.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> str:
        return f"{self.url}/{name}"

    def check(self) -> None:
        """Refuse a place that holds anything but an earlier export; see `check_target`."""
        with self._reasons():
            sizes, provenance = self._sizes(), self.provenance()
        unfinished = bool(provenance and provenance.get(UNFINISHED))
        check_files(str(self), sizes, files_of(provenance), sizes_count=not unfinished)

    def provenance(self) -> dict[str, Any] | None:
        """The content of provenance.json of an export; None where the folder is none."""
        return provenance_of(self._read(PROVENANCE))

    def fetch(self, folder: Path) -> None:
        """Copy all files into a folder of this machine."""
        with self._reasons():
            for name in self._sizes():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(self._path(name), str(folder / name))

    def replace(self, content: Path) -> None:
        """Write the files of a folder over those of an earlier export; the same files again write nothing."""
        text = (content / PROVENANCE).read_bytes()
        if self._read(PROVENANCE) == text:
            return
        new = {str(path.relative_to(content)) for path in content.rglob("*") if path.is_file()} - {PROVENANCE}
        with self._reasons():
            old = self._sizes().keys() - {PROVENANCE}
            files = [{"file": name, "bytes": None} for name in sorted(new | old)]
            mark = {MARK: json.loads(text)[MARK], UNFINISHED: True, "files": files}
            self._files.pipe_file(self._path(PROVENANCE), json.dumps(mark).encode())
            for name in sorted(new):
                self._files.put_file(str(content / name), self._path(name))
            for name in sorted(old - new):
                self._files.rm_file(self._path(name))
            self._files.pipe_file(self._path(PROVENANCE), text)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        return file_system(self.url)

    @property
    def _files(self) -> Any:
        return self._opened[0]

    def _path(self, name: str) -> str:
        return f"{self._opened[1].rstrip('/')}/{name}"

    def _sizes(self) -> dict[str, int]:
        """File -> its bytes."""
        self._files.invalidate_cache()
        entries = self._files.find(self._opened[1], detail=True)
        return {path.removeprefix(self._path("")): int(info["size"]) for path, info in entries.items()}

    def _read(self, name: str) -> bytes | None:
        with self._reasons():
            try:
                return bytes(self._files.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    @contextmanager
    def _reasons(self) -> Iterator[None]:
        try:
            yield
        except PipelineError:
            raise
        except Exception as error:  # what a file system of fsspec raises, nobody says
            raise BadExport("out", f"{self.url}: {reason(self.url, error)}") from error


def place_of(out: str | Path) -> Path | UrlFolder:
    """The place that a user names."""
    name = str(out).removeprefix("file://")
    return UrlFolder(name.rstrip("/")) if is_url(name) else Path(name).expanduser().absolute()


def check_place(place: Path | UrlFolder) -> None:
    """Refuse a place that holds anything but an earlier export.

    Raises:
        WouldOverwrite: it does; says what.
        BadExport: a URL cannot be looked into.
    """
    place.check() if isinstance(place, UrlFolder) else check_target(place)


@contextmanager
def writing(store: Store, place: Path | UrlFolder) -> Iterator[Staging]:
    """A staging folder; once the block ends it takes the place of an earlier export, unless the block raises.

    Raises:
        WouldOverwrite, BadExport: see `check_place`; before the block and again after it.
    """
    if isinstance(place, Path):
        with replacing(place) as staging:
            yield staging
        return
    place.check()
    with store.scratch("export") as folder:
        staging = Staging(folder / "export", folder / "scratch")
        staging.content.mkdir()
        staging.scratch.mkdir()
        yield staging
        place.check()
        place.replace(staging.content)
