"""A folder that is written beside its place and swapped in at once, over nothing but what was exported before.

provenance.json names the files of an export with their sizes. A folder that has other files, or none of it, is a
user's and stays.
"""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import WouldOverwrite
from storage.scratch import scratch_folder, swap_folders, sweep
from storage.store import sync_path, sync_tree

PROVENANCE = "provenance.json"
MARK = "winnow_export"
_ADVICE = "name another folder with --out, or move it away"


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
    if not target.is_dir():
        raise WouldOverwrite(f"{target} is a file, and an export is a folder: {_ADVICE}")
    sizes = {str(path.relative_to(target)): path.lstat().st_size for path in target.rglob("*") if not path.is_dir()}
    check_files(str(target), sizes, files_of(provenance_in(target)))


def check_files(
    target: str, sizes: Mapping[str, int], known: Mapping[str, int] | None, *, sizes_count: bool = True
) -> None:
    """Refuse files that are not those of an earlier export.

    Args:
        sizes: file -> bytes, of those that lie there.
        known: of those that its provenance.json names; None where it has none.
        sizes_count: whether a file of another size is another file.

    Raises:
        WouldOverwrite: says which.
    """
    if sizes and known is None:
        raise WouldOverwrite(f"{target} was not written by `winnow export`: {_ADVICE}")
    for name, size in sorted(sizes.items()):
        if known is None or name == PROVENANCE or (name in known and (size == known[name] or not sizes_count)):
            continue
        what = "was changed since" if name in known else "is no file of the export"
        raise WouldOverwrite(f"{target} is an earlier export, but {name} in it {what}: {_ADVICE}")


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


def provenance_in(folder: Path) -> dict[str, Any] | None:
    """The content of provenance.json of an export; None where the folder is none."""
    with suppress(OSError):
        return provenance_of((folder / PROVENANCE).read_bytes())
    return None


def provenance_of(text: bytes | None) -> dict[str, Any] | None:
    """The content of a provenance.json; None if there is none, or it is not that of an export."""
    document: Any = None
    with suppress(ValueError):
        document = json.loads(text or b"")
    return document if isinstance(document, dict) and MARK in document else None


def files_of(provenance: Mapping[str, Any] | None) -> dict[str, int] | None:
    """File -> bytes, of an export; None where there is none."""
    files = (provenance or {}).get("files")
    return {entry["file"]: entry["bytes"] for entry in files} if isinstance(files, list) else None


def _same_files(new: Path, target: Path) -> bool:
    names = [{str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} for root in (new, target)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(new, target, names[0], shallow=False)[1:])
