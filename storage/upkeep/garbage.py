"""What of a store may go: everything old that nothing kept needs; and its removal, which a kill leaves whole.

A catalog without it is published first, so that no view names a file that is not there. Then each thing is moved away
by one rename, whatever names another thing before that one: at any moment all that is there has all that it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from storage.catalog.publish import publish_catalog
from storage.checksums import verified
from storage.errors import StoreDamaged
from storage.ids import Ids, from_arrow, rows_of
from storage.packs import COPIES, is_packed
from storage.store import Store, read_array, sync_path
from storage.upkeep.compact import PACKED, drop_replaced, without
from storage.upkeep.items import LASTING, REMOVABLE, Item, Key, items

YOUNG = "young"
NEEDED = "needed by what is kept"


@dataclass(frozen=True)
class Sorted:
    """What of a store stays and what may go.

    Attributes:
        kept: each thing that stays, and why.
        removable: what may go, in the order in which it goes.
    """

    kept: list[tuple[Item, str]]
    removable: list[Item]


def sort_out(store: Store, roots: Mapping[str, str], since: float) -> Sorted:
    """What stays and what may go.

    Args:
        roots: names of things that stay -> why; what they need stays too.
        since: seconds since the epoch; what was written later stays, and what it needs.

    Raises:
        StoreDamaged: the JSON of a record that stays cannot be read, so that it is not known what it needs.

    Cost: reads the JSON of all records, and the ids of segments and snapshots.
    """
    every = items(store)
    why = _reached(every, roots, since)
    for key, item in every.items():
        if key not in why and not why.keys().isdisjoint(_about(item)):
            why[key] = NEEDED
    _keep_segments(store, every, why, since)
    kept = [(item, why[key]) for key, item in every.items() if key in why]
    gone = [item for key, item in every.items() if key not in why]
    encoders = {item.name for item in gone if item.kind == "encoders"}
    gone = [item for item in gone if item.kind != "segments" or item.name.split("/")[0] not in encoders]
    return Sorted(kept, sorted(gone, key=lambda item: REMOVABLE.index(item.kind)))


def remove(store: Store, removable: Iterable[Item]) -> None:
    """Remove things, as this module says; whoever holds the store alone calls it.

    Killed on the way, the next one goes on.
    """
    removable = list(removable)
    for kind in (*PACKED, COPIES):
        of_records = "ingests" if kind == COPIES else kind
        without(store, kind, {item.name for item in removable if item.kind == of_records})
    folders = [(item.kind, path) for item in removable for path in item.paths if not is_packed(path)]
    store.hidden = frozenset(path for _, path in folders)
    try:
        publish_catalog(store)
    finally:
        store.hidden = frozenset()
    for kind, path in folders:
        with store.scratch(f"gc-{kind}") as away:
            path.rename(away / path.name)
            sync_path(path.parent)
    drop_replaced(store)


def _reached(every: Mapping[Key, Item], roots: Mapping[str, str], since: float) -> dict[Key, str]:
    """Why each thing stays that is a root, is young, or that one of these needs."""
    keys = _keys_of_names(every)
    why: dict[Key, str] = {key: roots[name] for name in roots for key in keys.get(name, ())}
    for key, item in every.items():
        if key not in why and item.kind not in REMOVABLE:
            why[key] = LASTING.get(item.kind, "of a kind that this version does not know")
        elif key not in why and item.modified >= since and item.kind != "segments":
            why[key] = YOUNG
    followed: set[Key] = set()
    open_ends = list(why)
    while open_ends:
        key = open_ends.pop()
        if key in followed:
            continue
        followed.add(key)
        for name, whole in every[key].needs():
            for other in keys.get(name, ()):
                why.setdefault(other, NEEDED)
                if whole and other not in followed:
                    open_ends.append(other)
    return why


def _keys_of_names(every: Mapping[Key, Item]) -> dict[str, list[Key]]:
    """Things by the names that records use."""
    keys: dict[str, list[Key]] = {}
    for key, item in every.items():
        keys.setdefault(item.name, []).append(key)
        if item.kind == "fits":  # encoders name a fit by what it was fitted on, its folder is another name
            for document in item.documents():
                keys.setdefault(document["fit"], []).append(key)
    return keys


def _about(item: Item) -> list[Key]:
    """What a thing tells about, with which it stays and goes."""
    if item.kind == "metrics":
        return [("selections", next(iter(item.documents()))["selection_id"])]
    return [("selections", item.name), ("contaminations", item.name)] if item.kind == "embedding_recalls" else []


def _keep_segments(store: Store, every: Mapping[Key, Item], why: dict[Key, str], since: float) -> None:
    """Keep the segments of kept encoders that are young, or hold a row of a kept snapshot or an example of a target."""
    segments = [
        item for item in every.values() if item.kind == "segments" and ("encoders", item.name.split("/")[0]) in why
    ]
    try:
        needed = _with_needed_ids(segments, every, why) if segments else set()
    except StoreDamaged as damage:
        store.notice(f"{damage}: which vectors it needs is not known, so those of all encoders that stay do")
        needed = {item.key for item in segments}
    for item in segments:
        if item.key in needed:
            why[item.key] = NEEDED
        elif item.modified >= since:
            why[item.key] = YOUNG


def _with_needed_ids(segments: Iterable[Item], every: Mapping[Key, Item], why: Mapping[Key, str]) -> set[Key]:
    """The segments that hold a needed id."""
    needed, holders = _needed_ids(every, why), set()
    for item in segments:
        arrays = [read_array(item.paths[0] / name) for name in ("keys.npy", "failed.npy")]
        if any((rows_of(array, needed) >= 0).any() for array in arrays):
            holders.add(item.key)
    return holders


def _needed_ids(every: Mapping[Key, Item], why: Mapping[Key, str]) -> Ids:
    """Ids of which vectors are needed, ascending."""
    ids = [np.empty(0, "S16")]
    for key, item in every.items():
        if item.kind == "snapshots" and key in why:
            ids.append(read_array(item.paths[0] / "ids.npy"))
        elif item.kind == "targets":
            ids.append(from_arrow(pq.read_table(verified(item.paths[0] / "items.parquet"), columns=["id"])["id"]))
    return np.unique(np.concatenate(ids))
