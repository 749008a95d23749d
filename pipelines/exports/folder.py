"""A folder that is written beside its place and swapped in at once, over nothing but what was exported before.

provenance.json names the files of an export with their sizes. A folder that has other files, or none of it, is a
user's and stays.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import WouldOverwrite
from storage.errors import StorageError
from storage.scratch import scratch_folder, swap_folders, sweep
from storage.store import read_json, sync_path, sync_tree

PROVENANCE = "provenance.json"
MARK = "winnow_export"


@dataclass(frozen=True)
class Staging:
    """Where an export is made.

    Attributes:
        content: becomes the export.
        scratch: an empty folder for whatever is needed on the way.
    """

    content: Path
    scratch: Path


def check_target(target: Path) -> None:
    """Refuse a place that holds anything but an earlier export.

    Raises:
        WouldOverwrite: it does; says what.
    """
    if not os.path.lexists(target):
        return
    advice = "name another folder with --out, or move it away"
    if not target.is_dir():
        raise WouldOverwrite(f"{target} is a file, and an export is a folder: {advice}")
    present = {str(path.relative_to(target)): path for path in target.rglob("*") if not path.is_dir()}
    if not present:
        return
    known = _files_of(target)
    if known is None:
        raise WouldOverwrite(f"{target} was not written by `winnow export`: {advice}")
    for name, path in sorted(present.items()):
        if name != PROVENANCE and (name not in known or path.lstat().st_size != known[name]):
            what = "was changed since" if name in known else "is no file of the export"
            raise WouldOverwrite(f"{target} is an earlier export, but {name} in it {what}: {advice}")


@contextmanager
def replacing(target: Path) -> Iterator[Staging]:
    """A staging folder beside the target; once the block ends it takes the target's place, unless the block raises.

    A target that holds the same bytes stays as it is.

    Raises:
        WouldOverwrite: see `check_target`; before the block and again after it.
    """
    check_target(target)
    prefix = f".{target.name}."
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, prefix=prefix)
    with scratch_folder(target.parent, prefix[:-1]) as beside:
        staging = Staging(beside / "export", beside / "scratch")
        staging.content.mkdir()
        staging.scratch.mkdir()
        yield staging
        if _same_files(staging.content, target):
            return  # a trainer's cache goes by the times of files
        sync_tree(staging.content)
        check_target(target)
        swap_folders(staging.content, target, beside / "before")
        sync_path(target.parent)


def provenance_of(folder: Path) -> dict[str, Any] | None:
    """The content of provenance.json of an export; None where the folder is none."""
    document: Any = None
    with suppress(StorageError):
        document = read_json(folder / PROVENANCE)
    return document if isinstance(document, dict) and MARK in document else None


def _files_of(folder: Path) -> dict[str, int] | None:
    """File -> size, of an export; None where the folder is none."""
    files = (provenance_of(folder) or {}).get("files")
    return {entry["file"]: entry["bytes"] for entry in files} if isinstance(files, list) else None


def _same_files(new: Path, target: Path) -> bool:
    names = [{str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} for root in (new, target)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(new, target, names[0], shallow=False)[1:])
