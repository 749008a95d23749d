"""The archived project: its inputs and the store that was made from them, in one file that unpacks anywhere.

Records and the kept configuration name files by absolute path: the store was made in `MADE_IN`. When it is
unpacked, that folder is replaced by the new one in JSON and YAML. Parquet files are kept byte for byte, so that
their column `file` still names the old one. The catalog is left out: `winnow catalog rebuild` makes it from the
records. So are locks, which name a machine, and checksums.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).with_name("golden.tar.xz")
MADE_IN = Path("/tmp/golden-project")
_TEXT = (".json", ".yaml")
_LEFT_OUT = ("store/catalog", "store/locks", "store/tmp", "store/winnow.duckdb")


def pack(project: Path, archive: Path = ARCHIVE) -> None:
    """Write a project, which lies in `MADE_IN`, as an archive; the same files give the same bytes."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(project.rglob("*")):
            name = path.relative_to(project).as_posix()
            # Where it is unpacked, paths in it are others, and so are checksums.
            if name.startswith(_LEFT_OUT) or path.name == "checksums.json":
                continue
            entry = tarfile.TarInfo(name)
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
                continue
            content = path.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    archive.write_bytes(lzma.compress(inner.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def unpack(project: Path, archive: Path = ARCHIVE) -> None:
    """Write the archived project into a new folder."""
    for name, content in _members(archive):
        path = project / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        named = content.replace(str(MADE_IN).encode(), str(project).encode()) if path.suffix in _TEXT else content
        path.write_bytes(named)


def unpack_inputs(project: Path, archive: Path = ARCHIVE) -> None:
    """Write only what a user brings: no store, no batches, no labels, and none of the candidates that come later."""
    for name, content in _members(archive):
        made = name.startswith(("store", "labeling/", "labels/")) or name in ("labeling", "labels", "data/later.jsonl")
        if content is not None and not made:
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _members(archive: Path) -> list[tuple[str, bytes | None]]:
    with tarfile.open(archive, "r:xz") as tar:
        found = []
        for entry in tar:
            file = tar.extractfile(entry) if entry.isfile() else None
            found.append((entry.name, file.read() if file else None))
    return found
