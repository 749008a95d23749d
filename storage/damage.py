"""Damaged records: what is wrong with one, in words that name the file; and the place where it is put aside.

What can be made again is put aside by the stage that makes it again (`committed_whole`). What cannot is put aside when
the catalog is published. Nothing is thrown away: `set-aside/` holds each folder under its path in the store, and beside
it a text that says what was found. Whoever only reads leaves it out (`readable`), and says so once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage import checksums
from storage.checksums import verified
from storage.errors import StoreDamaged
from storage.packing import undamaged_records, write_pack
from storage.packs import Pack, pack_of
from storage.store import Store, sync_path, utc_now

SET_ASIDE = "set-aside"

_NULL = type(None)
_TEXT, _WHOLE, _NUMBER = str, int, (int, float)
_TEXT_OR_NOT, _OBJECT_OR_NOT = (str, _NULL), (dict, _NULL)
_INT64 = range(-(2**63), 2**63)

# What a value of a record has to be: a type, or several; [shape], a list of these; {key: shape}, an object with at
# least these keys, `key?` for those that may be missing; {str: shape}, an object of any keys.
Shape = Any


@dataclass(frozen=True)
class Kind:
    """A kind of committed folder.

    Attributes:
        root: where its folders are.
        depth: how many levels below.
        file: its JSON file; None where it has none.
        shape: of that file, as far as winnow relies on it.
        needs: its other files.
        prefix: of the names of its folders.
    """

    root: tuple[str, ...]
    file: str | None
    shape: Shape = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    depth: int = 1
    prefix: str = ""

    def folders(self, store: Store) -> Iterator[Path]:
        """The committed folders."""
        names: list[tuple[str, ...]] = [()]
        for _ in range(self.depth - 1):
            names = [(*name, entry) for name in names for entry in store.committed(*self.root, *name)]
        places = (place for name in names for place in store.places(*self.root, *name).items())
        return (place for name, place in places if name.startswith(self.prefix))


_COUNTS = dict.fromkeys(("read", "kept", "duplicate", "quarantined", "empty_responses"), _WHOLE)
_CHECK = {"name": _TEXT, "passed": bool, "detail": _TEXT}
KINDS: Mapping[str, Kind] = {
    "pool": Kind(
        ("pool",),
        "ingest.json",
        {
            **dict.fromkeys(("id", "url", "digest", "encoding", "created_at"), _TEXT),
            **dict.fromkeys(("size_bytes", "read", "readable", "quarantined", "empty_responses"), _WHOLE),
            "fields": _OBJECT_OR_NOT,
            "source": _TEXT_OR_NOT,
            "damage": _TEXT_OR_NOT,
            "seconds": _NUMBER,
            "shapes": {str: _WHOLE},
            "extra_columns": {str: _TEXT},
            "rules?": _WHOLE,
            "name?": _TEXT,
            "roles?": _OBJECT_OR_NOT,
            "notices?": {str: _WHOLE},
        },
        ("part-00000.parquet",),
    ),
    "quarantine": Kind(("quarantine",), None, {}, ("rows.parquet",)),
    "snapshots": Kind(
        ("records", "snapshots"),
        "snapshot.json",
        {
            "snapshot": _TEXT,
            "ingests": [_TEXT],
            "files": {str: _TEXT},
            "counts": {str: _COUNTS},
            "parent": _TEXT_OR_NOT,
            "columns": [_TEXT],
            "created_ns": _WHOLE,
            "number?": _WHOLE,
            **dict.fromkeys(("rows", "duplicates", "tombstones"), _WHOLE),
        },
        ("ids.npy", "rows.npy", "duplicates.parquet", "tombstones.parquet"),
    ),
    "columns": Kind(
        ("records", "columns"),
        "columns.json",
        {"types": {str: _TEXT}, **dict.fromkeys(("url", "id_field"), _TEXT)},
        ("columns.parquet",),
    ),
    "targets": Kind(("records", "targets"), "targets.json", {"name": _TEXT, "rows": _WHOLE}, ("items.parquet",)),
    "segments": Kind(
        ("vectors",),
        "segment.json",
        {"n_rows": _WHOLE, "n_failed": _WHOLE, "checksums": {str: _TEXT}, "failed?": {str: _TEXT}},
        ("vectors.npy", "keys.npy", "failed.npy"),
        depth=2,
        prefix="seg-",
    ),
    "shared": Kind(
        ("vectors",),
        "shared.json",
        {"shares": [{"encoder": _TEXT, "segment": _TEXT}]},
        ("keys.npy", "sources.npy"),
        depth=2,
        prefix="shared-",
    ),
    "plans": Kind(
        ("vectors",), "plan.json", {"bounds": [_WHOLE], "batch_tokens": _WHOLE}, ("ids.npy",), depth=2, prefix="plan-"
    ),
    "maps": Kind(
        ("vectors",), "map.json", {"frame": [_NUMBER], "explained": _NUMBER}, ("axes.npy",), depth=2, prefix="map-"
    ),
    "cells": Kind(("vectors",), "cells.json", {"encoder": _TEXT}, ("centroids.npy",), depth=2, prefix="cells-"),
    "health_measurements": Kind(
        ("records", "health_measurements"),
        "health_measurement.json",
        {
            **dict.fromkeys(("health_measurement_id", "encoder", "snapshot", "created_at"), _TEXT),
            **dict.fromkeys(("number", "pool_rows", "rows", "dimension"), _WHOLE),
            "measures": {str: (*_NUMBER, _NULL)},
            "reasons": {str: _TEXT},
        },
        ("groups.parquet",),
    ),
    "indexes": Kind(
        ("indexes",),
        "index.json",
        {
            **dict.fromkeys(("index", "encoder", "snapshot", "content", "ids", "kind", "device", "created_at"), _TEXT),
            **dict.fromkeys(("cells", "n_rows", "n_dead", "dimension", "trained_on", "nprobe", "seed"), _WHOLE),
            "recall_at_10": _NUMBER,
            "recall_sample": _WHOLE,
            "parent": _TEXT_OR_NOT,
            "number?": _WHOLE,
            "parts?": [_TEXT],
        },
    ),
    "index_parts": Kind(
        ("index_parts",),
        "part.json",
        {"part": _TEXT, "encoder": _TEXT, "base": _TEXT_OR_NOT, "rows": _WHOLE},
        ("part.faiss", "keys.npy"),
    ),
    "tokens": Kind(("tokens",), None, {}, ("keys.npy", "counts.npy"), depth=2),
    "selections": Kind(
        ("records", "selections"),
        "selection.json",
        {"recipe?": _TEXT, "n_items?": _WHOLE, "facts?": dict},
        ("items.parquet",),
    ),
    "contaminations": Kind(
        ("records", "contaminations"),
        "contamination.json",
        {"contamination_id": _TEXT, "snapshot": _TEXT, "facts": {str: _NUMBER}},
        ("matches.parquet", "recall.parquet"),
    ),
    "embedding_recalls": Kind(
        ("records", "embedding_recalls"),
        "embedding_recall.json",
        dict.fromkeys(("embedding_recall_id", "encoder"), _TEXT),
        ("recall.parquet",),
    ),
    "metrics": Kind(("records", "metrics"), "metrics.json", {"selection_id": _TEXT, "values": {str: _NUMBER}}),
    "labels": Kind(
        ("records", "labels"),
        "import.json",
        {
            **dict.fromkeys(("id", "project", "url", "digest", "snapshot", "created_at"), _TEXT),
            **dict.fromkeys(("number", "read", "new", "known", "quarantined", "unknown_ids", "unlabelled"), _WHOLE),
            "fields": _OBJECT_OR_NOT,
            "classes": [_TEXT],
            "gold": bool,
            "damage": _TEXT_OR_NOT,
            "tied_votes?": _TEXT,
        },
        ("labels.parquet", "quarantine.parquet"),
    ),
    "rounds": Kind(
        ("records", "rounds"),
        "round.json",
        {"project": _TEXT, "round": _WHOLE, "round_id": _TEXT, "created_at": _TEXT, "advice?": _OBJECT_OR_NOT},
        ("items.parquet",),
    ),
    "models": Kind(
        ("records", "models"),
        "model.json",
        {"project": _TEXT, "number?": _WHOLE},
        ("consensus.parquet", "predictions.parquet"),
    ),
    "classifiers": Kind(
        ("records", "classifiers"),
        "classifier.json",
        {
            **dict.fromkeys(("classifier_id", "name", "snapshot", "created_at"), _TEXT),
            "classes": [_TEXT],
            "features": dict,
            "seed": _WHOLE,
            "number": _WHOLE,
            "metrics": {str: _NUMBER},
            "targets": {str: _TEXT},
        },
        ("examples.parquet",),
    ),
    "trials": Kind(
        ("records", "trials"),
        "trial.json",
        {
            **dict.fromkeys(("trial_id", "selection_id", "recipe", "snapshot", "model", "created_at"), _TEXT),
            **dict.fromkeys(("seeds", "selection_tokens", "training_tokens", "steps", "parameters"), _WHOLE),
            **dict.fromkeys(("rate", "epochs", "estimated_seconds"), _NUMBER),
            "notes": [_TEXT],
            "targets": {str: _TEXT},
            "against": dict,
            "left_out": {str: {str: _WHOLE}},
        },
        ("rows.parquet", "examples.parquet"),
        depth=2,
        prefix="plan",
    ),
    "trial_cells": Kind(
        ("records", "trials"),
        "cell.json",
        {
            **dict.fromkeys(("trial_id", "arm", "created_at"), _TEXT),
            **dict.fromkeys(("seed", "rows"), _WHOLE),
            **dict.fromkeys(("seconds", "train_loss"), _NUMBER),
        },
        ("losses.parquet",),
        depth=2,
        prefix="cell-",
    ),
    "trial_detectable": Kind(
        ("records", "trials"),
        "detectable.json",
        {"trial_id": _TEXT, "detectable": [{"effect": _NUMBER}]},
        depth=2,
        prefix="detectable",
    ),
    "trial_effects": Kind(
        ("records", "trials"),
        "effects.json",
        {
            **dict.fromkeys(("trial_id", "selection_id", "recipe", "verdict", "line", "created_at"), _TEXT),
            "effects": [{"against": _TEXT, "verdict": _TEXT, "mean": _NUMBER, "low": _NUMBER, "high": _NUMBER}],
        },
        depth=2,
        prefix="effects",
    ),
    "results": Kind(
        ("records", "results"),
        "result.json",
        {**dict.fromkeys(("result_id", "selection_id", "created_at"), _TEXT), "scores": [{"seed": _WHOLE}]},
    ),
    "fits": Kind(("records", "fits"), "fit.json", {"fit": _TEXT, "rows": _WHOLE}, ("ids.npy", "mean.npy")),
    "forgotten": Kind(
        ("records", "forgotten"), "forgotten.json", {"rows": _WHOLE, "created_at": _TEXT}, ("hashes.npy",)
    ),
    "reports": Kind(
        ("records", "reports"),
        "report.json",
        {"format": _WHOLE, "run": _TEXT, "created_at": _TEXT, "verdict": {"state": _TEXT, "line": _TEXT}},
        (),
    ),
    "comparisons": Kind(
        ("records", "comparisons"),
        "comparison.json",
        {
            **dict.fromkeys(("comparison_id", "snapshot", "created_at"), _TEXT),
            "selections": [{"name": _TEXT, "random": bool, "metrics": {str: dict}, "draws": [dict]}],
            "targets": [{"target_set": _TEXT, "half": _TEXT, "examples": _WHOLE}],
            "overlap": [[(*_NUMBER, _NULL)]],
            "rank_biased_overlap": [[(*_NUMBER, _NULL)]],
            "mix": [{"source": _TEXT, "pool": _NUMBER, "shares": [_NUMBER]}],
        },
    ),
    "runs": Kind(
        ("records", "runs"),
        "run.json",
        {
            **dict.fromkeys(("target?", "subject?", "invocation?", "started_at?", "summary?", "error?"), _TEXT_OR_NOT),
            "stage": _TEXT,
            "status": _TEXT,
            "seconds?": _NUMBER,
            "checks?": [_CHECK],
            "facts?": dict,
        },
    ),
}


def read_record(kind: str, folder: Path) -> dict[str, Any]:
    """The JSON of a committed folder, verified, and of the shape that its kind has.

    Raises:
        StoreDamaged: it is not; names the file.
    """
    about = KINDS[kind]
    assert about.file is not None
    path = folder / about.file
    pack = pack_of(folder)
    document = _read_object(path) if pack is None else pack.record(folder.name).record
    if wrong := _misfit(document, about.shape, ""):
        raise StoreDamaged(f"{path}: {wrong}")
    return document


def damage_of(kind: str, folder: Path) -> str | None:
    """What is wrong with a committed folder, in words that name the file; None if nothing is.

    Cost: reads its files once in the life of a process; of folders without checksums, as far as is needed to see that
    they are complete.
    """
    return next(_damages(kind, folder), None)


def check_folder(kind: str, folder: Path) -> list[str]:
    """All that is wrong with a committed folder, each in words that name the file."""
    return list(_damages(kind, folder))


def _damages(kind: str, folder: Path) -> Iterator[str]:
    about = KINDS[kind]
    if (pack := pack_of(folder)) is not None:
        yield from _damages_in_pack(kind, pack, folder)
        return
    checks: list[Callable[[], object]] = []
    if about.file is not None:
        checks.append(partial(read_record, kind, folder))
    try:
        names = {*about.needs, *checksums.sums_of(folder)} - {about.file}
        names |= _further_files(kind, folder)
        for below in sorted(folder.iterdir()):
            names |= {f"{below.name}/{name}" for name in checksums.sums_of(below)} if below.is_dir() else set()
    except StoreDamaged as error:
        yield str(error)
        return
    checks += [partial(check_file, folder / name) for name in sorted(names)]
    for check in checks:
        try:
            check()
        except StoreDamaged as error:
            yield str(error)


def _damages_in_pack(kind: str, pack: Pack, folder: Path) -> Iterator[str]:
    try:
        read_record(kind, folder)
        tables = pack.record(folder.name).tables
    except StoreDamaged as error:
        yield str(error)
        return
    for file in sorted({*KINDS[kind].needs, *tables}):
        try:
            pack.table(folder.name, file)
        except StoreDamaged as error:
            yield str(error)


def _further_files(kind: str, folder: Path) -> set[str]:
    """The files that only some folders of a kind have: a snapshot's columns, the rows of an index without parts."""
    try:
        if kind == "snapshots":
            columns = read_record(kind, folder)["columns"]
            return {f"column_rows/{name}.{suffix}" for name in columns for suffix in ("npy", "parquet")}
        if kind == "indexes" and not read_record(kind, folder).get("parts"):
            return {"index.faiss", "rowmap.npy", "keys.npy"}
    except StoreDamaged:  # said by another check
        pass
    return set()


def first_damage(store: Store) -> str | None:
    """What is wrong with the first damaged folder, in words that name the file; None if none is damaged.

    Cost: reads the store, Parquet files without checksums as well.
    """
    for kind, about in KINDS.items():
        for folder in about.folders(store):
            if damage := damage_of(kind, folder):
                return damage
            for path in () if has_checksums(kind, folder) else sorted(folder.rglob("*.parquet")):
                try:
                    pq.read_table(path)
                except (pa.ArrowException, OSError) as error:
                    return f"{path} cannot be read: {error}"
    return None


def has_checksums(kind: str, folder: Path) -> bool:
    """Whether the content of a committed folder can be compared with what was committed."""
    return kind == "segments" or pack_of(folder) is not None or bool(checksums.sums_of(folder))


def check_file(path: Path) -> None:
    """Raise `StoreDamaged` for a file that is not as it was committed; without a checksum, for one that is incomplete."""
    verified(path)
    if not path.is_file():
        raise StoreDamaged(f"{path} is {'a folder' if path.is_dir() else 'missing'}")
    try:
        if path.suffix == ".parquet":
            pq.read_metadata(path)
        elif path.suffix == ".npy":
            np.load(path, mmap_mode="r", allow_pickle=False)
    except (pa.ArrowException, ValueError, EOFError, OSError) as error:
        raise StoreDamaged(f"{path} cannot be read: {error}") from error


def committed_whole(store: Store, kind: str, *names: str) -> bool:
    """Whether a folder is committed and whole. A damaged one is put aside, so that the caller can make it again."""
    if not store.has(*KINDS[kind].root, *names):
        return False
    folder = store.place(*KINDS[kind].root, *names)
    damage = damage_of(kind, folder)
    if damage is not None:
        set_aside(store, folder, damage)
    return damage is None


def readable(store: Store, kind: str, *names: str, whole: bool = False) -> dict[str, Any] | None:
    """The JSON of a committed folder; None where it is damaged, which is said once and remembered for the catalog.

    Args:
        whole: all of its files count, not its JSON alone.
    """
    folder = store.place(*KINDS[kind].root, *names)
    damage = damage_of(kind, folder) if whole else None
    try:
        document = read_record(kind, folder)
    except StoreDamaged as error:
        damage = damage or str(error)
    if damage is not None:
        note(store, folder, damage)
        return None
    return document


def note(store: Store, folder: Path, damage: str) -> None:
    """Say that a folder is left out, and remember it for the next catalog, which puts it aside."""
    if folder not in store.damaged:
        store.damaged[folder] = damage
        store.notice(f"{damage}; it is left out")


def set_aside(store: Store, path: Path, damage: str) -> Path:
    """Move a damaged folder, or file, to its place under `set-aside/`; gives that place.

    Of a record in a pack, a copy of the pack: what is whole in it is packed anew, and read from where it was until
    then.
    """
    pack = pack_of(path)
    with store.lock(SET_ASIDE, f"putting {path.name} aside"):
        source = path if pack is None else pack.folder
        first = store.path(SET_ASIDE, *source.relative_to(store.root).parts)
        first.parent.mkdir(parents=True, exist_ok=True)
        number, target = 1, first
        while target.exists():
            number += 1
            target = first.with_name(f"{first.name}.{number}")
        about = {"path": str(path.relative_to(store.root)), "damage": damage, "set_aside_at": utc_now()}
        if source.exists() if pack is None else store.packs.counts(pack):  # else another process was faster
            target.with_name(f"{target.name}.found.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
            if pack is None:
                path.rename(target)
            else:
                shutil.copytree(source, target)
                write_pack(store, source.parent.name, undamaged_records(pack), [pack])
            sync_path(target.parent)
    store.damaged.pop(path, None)
    store.notice(f"{damage}; put aside in {target}")
    return target


def set_aside_records(store: Store) -> list[dict[str, Any]]:
    """What was put aside: `path` in the store, `damage` in words, `set_aside_at`; sorted by path."""
    notes = sorted(store.path(SET_ASIDE).rglob("*.found.json"))
    records = []
    for path in notes:
        try:
            records.append(_read_object(path))
        except StoreDamaged as error:
            records.append({"path": str(path), "damage": str(error), "set_aside_at": ""})
    return records


def _read_object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(verified(path).read_text("utf-8"), parse_constant=_no_number)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreDamaged(f"{path} is missing") from None
    except IsADirectoryError:
        raise StoreDamaged(f"{path} is a folder, not a file") from None
    except (ValueError, RecursionError) as error:
        empty = "is empty" if path.stat().st_size == 0 else f"is not the JSON that was written: {error}"
        raise StoreDamaged(f"{path} {empty}") from error
    if not isinstance(document, dict):
        raise StoreDamaged(f"{path} holds {type(document).__name__}, not an object")
    return document


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _misfit(value: Any, shape: Shape, where: str) -> str | None:
    """Why a value is not of a shape; None if it is."""
    if isinstance(shape, dict):
        return _misfit_of_object(value, shape, where)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is {_shown(value)}, not a list"
        return _first(_misfit(each, shape[0], f"{where}[{number}]") for number, each in enumerate(value))
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return f"{where} is {_shown(value)}, not {' or '.join(_KINDS[kind] for kind in kinds)}"
    is_too_large = isinstance(value, int) and value not in _INT64
    return f"{where} is {_shown(value)}, outside the 64-bit integers" if is_too_large else None


def _misfit_of_object(value: Any, shape: dict[Any, Shape], where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where or 'it'} is {_shown(value)}, not an object"
    if set(shape) == {str}:
        return _first(_misfit(each, shape[str], f"{where}.{key}") for key, each in value.items())
    missing = [key for key in shape if not key.endswith("?") and key not in value]
    if missing:
        return f"{where or 'it'} lacks {', '.join(map(repr, missing))}"
    known = [(key.removesuffix("?"), kind) for key, kind in shape.items()]
    return _first(_misfit(value[key], kind, f"{where}.{key}".lstrip(".")) for key, kind in known if key in value)


_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    _NULL: "null",
}


def _first(misfits: Iterator[str | None]) -> str | None:
    return next((misfit for misfit in misfits if misfit), None)


def _shown(value: Any) -> str:
    return json.dumps(value)[:60]
