"""What lies in a store, as things that stay or go whole, and what each of them names.

A record names what it needs by ids in its JSON: a selection its snapshot, encoder and targets, a snapshot its ingests.
An id anywhere in the JSON counts, so that a key which comes later is followed too, and nothing that is needed goes. The
few keys that tell where a record came from, not what it needs, are listed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from storage.checksums import FILE as CHECKSUMS
from storage.checksums import verified
from storage.damage import SET_ASIDE
from storage.errors import StoreDamaged
from storage.packs import is_packed, pack_of
from storage.store import Store
from storage.vectors.index_parts import PARTS

Key = tuple[str, str]

# Kinds in the order in which they are removed: whatever names another thing goes before it.
REMOVABLE = (
    "reports",
    "metrics",
    "embedding_recalls",
    "health_measurements",
    "selections",
    "models",
    "classifiers",
    "contaminations",
    "indexes",
    "index_parts",
    "snapshots",
    "columns",
    "targets",
    "fits",
    "ingests",
    "tokens",
    "segments",
    "encoders",
    "configs",
    "set aside",
)
# Stay whole for ever: people made them, or paid for them.
LASTING = {
    "labels": "labels",
    "rounds": "a round of labeling",
    "comparisons": "a comparison",
    "trials": "a trial",
    "results": "scores of models",
    "forgotten": "by which forgotten rows are refused",
}
# Kinds whose JSON names nothing that they need.
_STAND_ALONE = frozenset(
    {"reports", "metrics", "embedding_recalls", "health_measurements", "labels", "targets", "fits", "segments"}
    | {"configs", "set aside"}
)
# Keys that say where a record came from.
_ORIGINS = frozenset({"parent"})
_ORIGINS_OF = {"indexes": {"snapshot"}, "contaminations": {"snapshot"}, "encoders": {"snapshot"}}
# Of a selection that adds to another, that one's rows count, not what it was drawn from; of an encoder that shares
# vectors with another, that one's segments.
_ROWS_ONLY = frozenset({"previous", "shares"})


@dataclass(frozen=True)
class Item:
    """A thing that stays or goes whole.

    Attributes:
        kind, name: which; of a segment, the encoder's name comes first.
        paths: its folders, or its file, in the order in which they go.
        modified: seconds since the epoch, when it was written.
    """

    kind: str
    name: str
    paths: tuple[Path, ...]
    modified: float

    @property
    def key(self) -> Key:
        return self.kind, self.name

    @cached_property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(size_of(path) for path in self.paths)

    def needs(self) -> Iterator[tuple[str, bool]]:
        """Names in its JSON, and whether what they name is needed with all that it needs in turn.

        Raises:
            StoreDamaged: the JSON cannot be read.
        """
        origins = _ORIGINS | _ORIGINS_OF.get(self.kind, set())
        for document in () if self.kind in _STAND_ALONE else self.documents():
            yield from _names(document, origins, whole=True)

    def documents(self) -> Iterator[Any]:
        """The content of its JSON files.

        Raises:
            StoreDamaged: one cannot be read.
        """
        patterns = {"trials": ["**/*.json"], "encoders": ["*.json", "shared-*/*.json"]}.get(self.kind, ["*.json"])
        for folder in self.paths:
            if (pack := pack_of(folder)) is not None:
                yield pack.record(folder.name).record
                return
            for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
                if path.name != CHECKSUMS:
                    try:
                        yield json.loads(verified(path).read_text("utf-8"))
                    except (ValueError, RecursionError) as error:
                        raise StoreDamaged(f"{path} is not the JSON that was written: {error}") from error


def items(store: Store) -> dict[Key, Item]:
    """All that lies in a store, but the records of runs, which are its history, and the catalog.

    Cost: lists the folders.
    """
    kinds = [kind for kind in store.committed("records") if kind != "runs"]
    entries = [
        *((kind, name, _record_paths(store, kind, name)) for kind in kinds for name in store.records(kind)),
        *(("ingests", name, paths) for name, paths in _ingests(store)),
        *(("indexes", name, [store.path("indexes", name)]) for name in store.committed("indexes")),
        *((PARTS, name, [store.path(PARTS, name)]) for name in store.committed(PARTS)),
        *(("tokens", name, [store.path("tokens", name)]) for name in store.committed("tokens")),
        *(("encoders", name, [store.path("vectors", name)]) for name in store.committed("vectors")),
        *(
            ("segments", f"{encoder}/{name}", [store.path("vectors", encoder, name)])
            for encoder in store.committed("vectors")
            for name in store.committed("vectors", encoder)
            if name.startswith("seg-")
        ),
        *(("configs", path.stem, [path]) for path in _files(store.path("configs"))),
        *(("configs", path.name, [path]) for path in _files(store.path("configs", "runs"))),
        *(("set aside", str(path.relative_to(store.root)), [path]) for path in _set_aside(store)),
    ]
    every = (Item(kind, name, tuple(paths), max(map(_modified, paths))) for kind, name, paths in entries)
    return {item.key: item for item in every}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; of a record in a pack, of the folder that it was."""
    if (pack := pack_of(path)) is not None:
        return pack.record(path.name).size_bytes
    if not path.is_dir():
        return path.lstat().st_size if os.path.lexists(path) else 0
    return sum(Path(parent, name).lstat().st_size for parent, _, names in os.walk(path) for name in names)


def _modified(path: Path) -> float:
    pack = pack_of(path)
    return path.lstat().st_mtime if pack is None else pack.record(path.name).modified


def _record_paths(store: Store, kind: str, name: str) -> list[Path]:
    """Where a record lies; of one that was packed lately its folder too."""
    paths = [store.place("records", kind, name), store.path("records", kind, name)]
    return [path for path in dict.fromkeys(paths) if is_packed(path) or path.is_dir()]


def _ingests(store: Store) -> Iterator[tuple[str, list[Path]]]:
    """Ingests; of one whose removal was cut off, only the quarantine is there."""
    for name in sorted({*store.committed("pool"), *store.committed("quarantine")}):
        yield name, [path for path in (store.path("pool", name), store.path("quarantine", name)) if path.is_dir()]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))


def _set_aside(store: Store) -> list[Path]:
    """What was put aside, and the texts that say why."""
    paths = []
    for note in sorted(store.path(SET_ASIDE).rglob("*.found.json")):
        folder = note.with_name(note.name.removesuffix(".found.json"))
        paths += [path for path in (folder, note) if os.path.lexists(path)]
    return paths


def _names(value: Any, origins: set[str] | frozenset[str], *, whole: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(value, str):
        yield value, whole
    elif isinstance(value, list):
        for each in value:
            yield from _names(each, origins, whole=whole)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key, whole
            if key not in origins:
                yield from _names(each, origins, whole=whole and key not in _ROWS_ONLY)
