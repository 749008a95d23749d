"""`winnow check`: what of the store is not as it should be, and what this version would read or draw otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.context import Context, kept_config_damage
from pipelines.messages import counted
from pipelines.runs import last_run
from selection.registry import recorded_steps
from storage.catalog.query import published_file
from storage.checksums import verified
from storage.damage import KINDS, check_folder, has_checksums, read_record, set_aside_records
from storage.errors import StorageError, StoreDamaged
from storage.packs import COPIES, INDEX
from storage.pool.ingest import differences
from storage.records import read_selection
from storage.reports import PAGES, page_damage
from storage.store import Store
from storage.vectors.index import index_damage, unused_parts
from storage.vectors.index_parts import PARTS, part_damage
from storage.vectors.segments import description_damage, segment_damage

# How a line begins that says what is damaged.
DAMAGED = "damaged: "


def check_lines(context: Context, *, deep: bool = False) -> Iterator[str]:
    """What was seen, a line each; at least one.

    Args:
        deep: compare every file of the store with its checksum; else the small ones that describe the others are read.
    """
    yield from _deep_lines(context) if deep else _record_lines(context)
    yield from _set_aside_lines(context)
    yield from _difference_lines(context)
    yield from _algorithm_lines(context)


def _record_lines(context: Context) -> Iterator[str]:
    store = context.store
    for kind, about in KINDS.items():
        for folder in about.folders(store) if about.file else ():
            try:
                read_record(kind, folder)
            except StoreDamaged as error:
                yield f"{DAMAGED}{error}"


def _deep_lines(context: Context) -> Iterator[str]:
    store = context.store
    folders = [(kind, folder) for kind, about in KINDS.items() for folder in about.folders(store)]
    seen: Counter[str] = Counter()
    for number, (kind, folder) in enumerate(folders, start=1):
        context.report.progress("compare with checksums", number, len(folders), "folders")
        damages = check_folder(kind, folder)
        more = None if damages else _further_damage(store, kind, folder)
        damages = [more] if more else damages
        yield from (f"{DAMAGED}{damage}" for damage in damages)
        seen["damaged" if damages else "whole" if has_checksums(kind, folder) else "no checksum"] += 1
    yield from _damaged_packs(store)
    for encoder in store.committed("vectors"):
        if damage := description_damage(store, encoder):
            yield f"{DAMAGED}{damage}"
    yield from (f"{DAMAGED}{damage}" for damage in _damages_of_files(store))
    yield f"{seen['whole']:,} of {counted(len(folders), 'folder')} are as they were committed"
    if seen["no checksum"]:
        yield f"{seen['no checksum']:,} of an earlier version have no checksum; they can be read"
    if seen["damaged"]:
        yield f"{seen['damaged']:,} are damaged: `winnow run` puts them aside, and makes again what it needs of them"
    yield from (f"{store.path(PARTS, part)}: no index names it; it may be removed" for part in unused_parts(store))


def _damages_of_files(store: Store) -> Iterator[str]:
    """What is wrong with the files that are no records, and what to do."""
    for page in sorted(store.path(PAGES).glob("*.html")):
        if damage := page_damage(page):
            yield f"{damage}; `winnow report {page.stem}` makes it again"
    for path in sorted(store.path("configs").glob("*.yaml")):
        if damage := kept_config_damage(path):
            yield f"{damage}; what it held is needed for no result: remove it"
    kept = {path.stem for path in store.path("configs").glob("*.yaml")}
    for path in sorted(store.path("configs", "runs").glob("*")):
        # The digest, and below it the newest record of a run when this one began.
        if (
            not path.name.startswith(".")
            and path.read_bytes().partition(b"\n")[0].decode("utf-8", "replace") not in kept
        ):
            yield f"{path} names no configuration that is kept; unless its run is under way, remove it"
    newest = published_file(store)
    try:
        if newest is not None:
            verified(newest)
    except StoreDamaged as error:
        yield f"{error}; `winnow catalog rebuild` makes it anew"


def _damaged_packs(store: Store) -> Iterator[str]:
    """What of packs is damaged and costs nothing: an index, copies of rows for SQL, a pack that another one replaces."""
    for kind in (*KINDS, COPIES):
        for pack in store.packs.of(kind):
            paths = pack.folder.iterdir() if kind == COPIES else [pack.folder / INDEX]
            yield from (f"{damage}; the next run makes it again" for damage in _damages(paths))
        for pack in store.packs.of(kind, replaced=True):
            damages = _damages(pack.folder.iterdir())
            yield from (
                f"{damage}; its records are in a later pack, and it goes with older catalogs" for damage in damages
            )


def _damages(paths: Iterable[Path]) -> Iterator[str]:
    for path in sorted(paths):
        try:
            verified(path)
        except StoreDamaged as error:
            yield f"{DAMAGED}{error}"


def _further_damage(store: Store, kind: str, folder: Path) -> str | None:
    """What is wrong with a folder whose files are as they were committed."""
    if kind == "segments":
        return segment_damage(folder)
    if kind == "indexes":
        return index_damage(store, folder.name)
    return part_damage(folder) if kind == "index_parts" else None


def _set_aside_lines(context: Context) -> Iterator[str]:
    records = set_aside_records(context.store)
    for record in records:
        again = " (made again since)" if context.store.path(record["path"]).exists() else ""
        yield f"set aside {record['set_aside_at']}: {record['damage']}{again}"
    if records:
        yield f"{counted(len(records), 'damaged record')} in {context.store.path('set-aside')}, as they were found"


def _difference_lines(context: Context) -> Iterator[str]:
    config = context.config
    specs = config.pool.specs(config.root)
    otherwise = 0
    for number, spec in enumerate(specs, start=1):
        context.report.progress("compare with how files are read now", number, len(specs), "files")
        try:
            difference = differences(context.store, spec)
        except StorageError as error:
            yield f"{spec.file}: {error}"
            continue
        if difference:
            otherwise += 1
            yield (
                f"{difference.file}: an earlier version read it by other rules; now {difference.read_otherwise:,} rows "
                f"would have another id and {difference.readable:,} more could be read"
            )
    yield f"{len(specs) - otherwise:,} of {len(specs):,} files are as this version reads them"
    if otherwise:
        yield "they stay as they are; to read them again: winnow run --reread"


def _algorithm_lines(context: Context) -> Iterator[str]:
    """The recipes whose last selection was drawn by another version of a step's algorithm than the next one will be."""
    for name, recipe in context.config.recipes.items():
        run = last_run(context.store, "select", name)
        if run is None:
            continue
        try:
            recorded = recorded_steps(read_selection(context.store, run["subject"])[0]["steps"])
        except StorageError:  # gone, or damaged and said above
            continue
        drawn_by = {step.name: step.algorithm for step in recorded}
        for step in recipe.steps.parsed:
            before = drawn_by.get(step.name, step.algorithm)
            if before != step.algorithm:
                yield (
                    f"recipe {name}: drawn by version {before} of {step.name}; the next run draws it anew by version"
                    f" {step.algorithm}, unless the recipe says `version: {before}`"
                )
