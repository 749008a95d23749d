"""`winnow forget`: rows are removed from everything in the store, and a search of all its files proves it.

What is to go is written down first (`forgetting/`), so that a kill on the way ends in the same store once the command
runs again; until then nothing else works on the store. Last of all that note is removed.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.context import Context
from pipelines.errors import USER_ERRORS, RowsLeft
from pipelines.exports.export import export_selection
from pipelines.exports.folder import provenance_in
from pipelines.exports.options import ExportOptions
from pipelines.exports.place import UrlFolder, place_of
from pipelines.messages import counted, listed
from pipelines.report.write import PAGE, drop_pages, link_latest, make_report, page_of
from pipelines.runs import exports
from pipelines.stages.stage import record_run
from storage.catalog.publish import publish_catalog, rebuild_catalog
from storage.damage import KINDS, SET_ASIDE, damage_of, set_aside
from storage.errors import BadInput, StoreDamaged
from storage.files.lists import read_lines
from storage.ids import Ids, from_arrow, from_bytes, id_of_text, to_bytes, to_text
from storage.pool.condition import changeable, not_of_the_row
from storage.pool.forgotten import Forgotten, commit_forgotten
from storage.pool.ingest import parts
from storage.pool.snapshot import Snapshot
from storage.store import FORGETTING, Store, read_json, write_durably, write_json
from storage.upkeep.compact import drop_replaced, in_folder, retire_copies, unpack
from storage.upkeep.rewrite import Rows, packs_with, records_with, rewrite
from storage.upkeep.search import Patterns, files_that_hold, patterns_of

# Names, places and files that a line lists.
_LISTED = 10
# Kinds that no run makes again: a damaged one is not thrown away.
_NOT_MADE_AGAIN = frozenset({
    "labels", "rounds", "classifiers", "trials", "trial_cells", "trial_detectable", "trial_effects", "results",
    "comparisons", "forgotten",
})  # fmt: skip
# Kinds that people know by an id.
_HOLDERS = {"selections": "selection", "rounds": "round of labeling", "trials": "trial", "classifiers": "classifier"}


@dataclass(frozen=True, eq=False)
class Request:
    """Rows to forget, with all that must be known once they are gone.

    Attributes:
        rows: what goes.
        patterns: what is searched for at the end.
        places: `FILE:LINE` of each in the user's own files.
        holders: a line for each selection, export, trial and round that holds some.
        kinds: kind of record -> how many hold or quote some.
    """

    rows: Rows
    patterns: Patterns
    places: list[str]
    holders: list[str]
    kinds: dict[str, int]

    def lines(self) -> Iterator[str]:
        """What a user should know."""
        yield f"{counted(len(self.rows.ids), 'row')}: {listed(to_text(self.rows.ids)[:_LISTED])}" + _more(self.rows.ids)
        yield from self.holders
        if self.kinds:
            yield "records that hold or quote them: " + ", ".join(f"{n:,} {kind}" for kind, n in self.kinds.items())
        if self.places:
            yield "in your own files, which winnow does not edit:"
            yield from (f"    {place}" for place in self.places)


@dataclass
class Done:
    """What was done.

    Attributes:
        rows: how many rows were forgotten.
        rewritten: kind of record -> how many were written anew or removed.
        exports: what became of folders that held them.
        searched: files of the store that were searched at the end.
        without_text: rows that were searched without a text.
        outside: files outside the store that still hold some.
    """

    rows: int
    rewritten: Counter[str] = field(default_factory=Counter)
    exports: list[str] = field(default_factory=list)
    searched: int = 0
    without_text: int = 0
    outside: list[Path] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """What a user should know."""
        yield "written anew, or removed: " + (
            ", ".join(f"{n:,} {kind}" for kind, n in self.rewritten.items()) or "nothing"
        )
        yield from self.exports
        if self.rewritten["selections"]:
            yield "selections that held them are shorter now, under the same ids; the next run draws anew"
        if self.outside:
            yield (
                "outside the store they are still in: " + listed(map(str, self.outside[:_LISTED])) + _more(self.outside)
            )
        by_text = f"the texts of {self.rows - self.without_text:,}" if self.rows > self.without_text else "no text"
        yield (
            f"forgot {counted(self.rows, 'row')}: all {counted(self.searched, 'file')} of the store were searched for "
            f"their ids, {by_text} and their vectors, and nothing was found"
            + (f" ({self.without_text:,} have no text of their own to search for)" if self.without_text else "")
        )


def request(context: Context, names: Sequence[str], where: str | None = None, file: Path | None = None) -> Request:
    """What forgetting some rows would touch; nothing is changed, but what is damaged is put aside.

    Args:
        names: winnow's ids, or ids of the user's own files, each of which stands for all rows that ever had it.
        where: a condition on the rows of the pool as it is now, in the language of recipes.
        file: of further names, one a line.

    Raises:
        BadInput: a name is of no row, or nothing was named; or the condition is wrong.
        StoreDamaged: of what the pool consists of now, something is damaged.

    Cost: reads the texts of the pool's files and all records.
    """
    store = context.store
    _refuse_damaged_pool(context)
    _put_damaged_aside(store)
    wanted = [*names, *(line for line in (read_lines(file) if file is not None else ()) if line)]
    if not wanted and where is None:
        raise BadInput("name rows to forget: ids, --from FILE, or --where CONDITION")
    ids = [_ids_named(store, wanted)]
    if where is not None:
        suspect = not_of_the_row(where, context.pool.known_columns)
        if suspect is not None:
            raise BadInput(f"--where: {where!r} {changeable(suspect)}")
        snapshot = context.pool.snapshot
        ids.append(snapshot.ids[snapshot.where(where)])
    unique = np.unique(np.concatenate(ids))
    if not len(unique):
        raise BadInput(f"no row of the pool satisfies {where!r}; nothing to forget")
    bare = Rows(unique)
    patterns, beginnings = patterns_of(store, bare)
    places, given_ids = _places(store, bare)
    rows = Rows(unique, tuple(beginnings), frozenset(given_ids))
    kinds: Counter[str] = Counter()
    holders: list[str] = []
    held: set[str] = set()
    for kind, folder in records_with(store, rows):
        kinds[kind] += 1
        if kind in _HOLDERS and (count := _count(store, folder, rows)):
            name = folder.parent.name if kind == "trials" else folder.name
            holders.append(f"{counted(count, 'row')} in {_HOLDERS[kind]} {name}")
            held.add(name)
    holders += [f"exported to {path}" for path, selection in exports(store).items() if selection in held]
    return Request(rows, patterns, places, holders, dict(kinds))


def cut_off(store: Store) -> bool:
    """Whether rows are half forgotten."""
    return store.has(*FORGETTING)


def forget(context: Context, wanted: Request | None) -> Done:
    """Forget rows, or end what was begun.

    Args:
        wanted: None to end what a kill has cut off, see `cut_off`.

    Raises:
        StoreBusy: a run is under way.
        StoreDamaged: something is damaged that no run makes again.
        RowsLeft: the search at the end finds some; names the files.
    """
    store = context.store
    with store.alone("winnow forget", forgets=True):
        if wanted is not None and not store.has(*FORGETTING):
            _note(store, wanted)
        if not store.has(*FORGETTING):
            raise BadInput(
                "no `winnow forget` was cut off; name rows to forget: ids, --from FILE, or --where CONDITION"
            )
        _put_damaged_aside(store)
        rows, patterns = _noted(store)
        done = Done(len(rows.ids), without_text=patterns.without)
        commit_forgotten(store, rows.ids)
        _out_of_packs(store, rows)
        for kind, folder in records_with(store, rows):
            rewrite(store, kind, folder, rows)
            done.rewritten[kind] += 1
        shutil.rmtree(store.path(SET_ASIDE), ignore_errors=True)
        drop_pages(store)
        store.sweep()
        context.reopen_pool()
        _report_again(context)
        newest = rebuild_catalog(store)
        for path in newest.parent.iterdir():
            if path != newest:
                path.unlink()
        done.exports = [*_export_again(context, patterns), *_batches_again(context, rows)]
        searched = [path for path in _files(store.root) if FORGETTING[0] not in path.relative_to(store.root).parts[:1]]
        left = list(files_that_hold(searched, patterns))
        done.searched = len(searched)
        done.outside = list(files_that_hold(_outside(context), patterns))
        if left:
            raise RowsLeft(
                f"rows are still in {listed(map(str, left[:_LISTED]))}{_more(left)}. A file that is none of winnow's: "
                "move it out of the store; any other: please report this. Then `winnow forget --yes` again"
            )
        summary = (
            f"{counted(done.rows, 'row')} forgotten; none is in any of {counted(done.searched, 'file')} of the store"
        )
        facts = {
            "rows": done.rows,
            "searched": done.searched,
            **{f"{k}_rewritten": n for k, n in done.rewritten.items()},
        }
        record_run(context, "forget", None, summary=summary, facts=facts)
        publish_catalog(store)
        with store.scratch("forgetting") as away:
            store.path(*FORGETTING).rename(away / "rows")
    return done


def _refuse_damaged_pool(context: Context) -> None:
    """Raise `StoreDamaged` if something is damaged that the pool as it is now consists of."""
    store, current = context.store, context.pool.current
    if current is None:
        return
    snapshot = store.place("records", "snapshots", current)
    damage = damage_of("snapshots", snapshot) or next(
        filter(None, (damage_of("pool", store.place("pool", name)) for name in Snapshot(store, current).ingests)), None
    )
    if damage is not None:
        raise StoreDamaged(f"{damage}; `winnow run` makes it again, forget rows after that")


def _put_damaged_aside(store: Store) -> None:
    """Put aside what cannot be searched; the next run makes it again.

    Raises:
        StoreDamaged: it does not.
    """
    for kind, about in KINDS.items():
        for folder in list(about.folders(store)):
            if (damage := damage_of(kind, folder)) is None:
                continue
            if kind in _NOT_MADE_AGAIN:
                raise StoreDamaged(f"{damage}; take it from a backup, or move {folder} out of the store")
            set_aside(store, folder, damage)


def _out_of_packs(store: Store, rows: Rows) -> None:
    """Give what is in packs with rows folders of their own; a catalog that names these comes before the packs go."""
    for pack in packs_with(store, rows):
        unpack(store, pack)
    retire_copies(store)
    publish_catalog(store)
    drop_replaced(store)


def _more(things: Any) -> str:
    return f" and {len(things) - _LISTED:,} more" if len(things) > _LISTED else ""


def _ids_named(store: Store, names: Sequence[str]) -> Ids:
    """The rows that names mean, in any file ever taken in; an own id of several rows means all of them."""
    known = {name: id_of_text(name) for name in names}
    by_own: dict[str, set[bytes]] = {name: set() for name in names}
    present: set[bytes] = set()
    own = pa.array(list(by_own), pa.string())
    ids = {row_id for row_id in known.values() if row_id is not None}
    for ingest in store.committed("pool") if names else ():
        for path in parts(store, ingest):
            table = pq.read_table(path, columns=["id", "given_id"])
            present |= ids & set(to_bytes(from_arrow(table["id"])))
            table = table.filter(pc.is_in(table["given_id"], value_set=own))
            for row_id, given in zip(to_bytes(from_arrow(table["id"])), table["given_id"].to_pylist(), strict=True):
                by_own[given].add(row_id)
    forgotten = Forgotten(store)
    chosen: set[bytes] = set()
    for name, known_id in known.items():
        if known_id is not None and (known_id in present or not by_own[name]):
            if known_id not in present and forgotten.has(from_bytes([known_id]))[0]:
                raise BadInput(f"{name!r} was forgotten before")
            chosen.add(known_id)
        elif by_own[name]:
            chosen |= by_own[name]
        else:
            raise BadInput(f"{name!r} names no row of any file that was taken in")
    return from_bytes(sorted(chosen))


def _places(store: Store, rows: Rows) -> tuple[list[str], set[str]]:
    """`FILE:LINE` of rows in the user's files, those of the pool first, and the ids that they have there."""
    places: set[tuple[bool, str, int]] = set()
    given_ids: set[str] = set()
    files = [(path, True) for ingest in store.committed("pool") for path in parts(store, ingest)]
    files += [(store.path("records", "labels", name, "labels.parquet"), False) for name in store.records("labels")]
    files += [(store.path("records", "targets", name, "items.parquet"), False) for name in store.records("targets")]
    for path, is_pool in files:
        table = pq.read_table(path, columns=["id", "file", "line", *(["given_id"] if is_pool else [])])
        table = table.filter(pa.array(rows.are(from_arrow(table["id"]))))
        lines = zip(table["file"].to_pylist(), table["line"].to_pylist(), strict=True)
        places |= {(not is_pool, file, line) for file, line in lines}
        given_ids |= {name for name in table["given_id"].to_pylist() if name} if is_pool else set()
    return [f"{file}:{line}" for _, file, line in sorted(places)], given_ids


def _count(store: Store, folder: Path, rows: Rows) -> int:
    """How many rows the items of a record hold."""
    with in_folder(store, folder) as files:
        tables = [files / f"{name}.parquet" for name in ("items", "rows", "examples")]
        path = next(path for path in tables if path.exists())
        ids = from_arrow(pq.read_table(path, columns=["id"])["id"])
    return len(np.unique(ids[rows.are(ids)]))


def _note(store: Store, wanted: Request) -> None:
    rows, patterns = wanted.rows, wanted.patterns
    with store.committing(*FORGETTING) as folder:
        write_json(
            folder / "rows.json",
            {
                "ids": to_text(rows.ids),
                "beginnings": list(rows.beginnings),
                "given_ids": sorted(rows.given_ids),
                "texts": list(patterns.texts),
                "without": patterns.without,
                "vectors": [vector.hex() for vector in patterns.vectors],
            },
        )


def _noted(store: Store) -> tuple[Rows, Patterns]:
    note = read_json(store.path(*FORGETTING, "rows.json"))
    ids = from_bytes(id_of_text(name) or b"" for name in note["ids"])
    vectors = tuple(bytes.fromhex(vector) for vector in note["vectors"])
    rows = Rows(ids, tuple(note["beginnings"]), frozenset(note["given_ids"]))
    return rows, Patterns(ids, tuple(note["texts"]), note["without"], vectors)


def _report_again(context: Context) -> None:
    """Write the last report anew, if it went: `report.html` leads to it."""
    link = context.store.path(PAGE)
    if link.is_symlink() and not link.exists():
        link.unlink()
        try:
            link_latest(context.store, page_of(context.store, make_report(context)))
        except Exception as error:  # noqa: BLE001 - the rows have to go; only a description is missing
            context.report.say(f"warning: the last report is gone with its rows: {type(error).__name__}: {error}")


def _export_again(context: Context, patterns: Patterns) -> Iterator[str]:
    """Write the exports anew that hold rows."""
    for place in map(place_of, exports(context.store)):
        try:
            with _local(context.store, place) as folder:
                if not any(files_that_hold(_files(folder), patterns)):
                    continue
                provenance = provenance_in(folder) or {}
            options = ExportOptions(**provenance["export"] | {"columns": tuple(provenance["export"]["columns"])})
            yield export_selection(context, provenance["selection"], options, str(place)).summary
        except (*USER_ERRORS, OSError, LookupError, TypeError) as error:
            yield f"{place} may still hold rows, and could not be written again: {error}"


@contextmanager
def _local(store: Store, place: Path | UrlFolder) -> Iterator[Path]:
    """The files of an export on this machine: where they are, or copies of those at a URL."""
    if isinstance(place, Path):
        yield place
        return
    with store.scratch("export") as folder:
        place.fetch(folder)
        yield folder


def _batches_again(context: Context, rows: Rows) -> Iterator[str]:
    """Take rows out of the files of batches, with what people wrote beside them."""
    for project in context.config.labeling.values():
        for path in _files(Path(project.out)):
            text = path.read_text("utf-8", errors="replace")
            if any(name in text for name in rows.names) and (without := _batch_without(path, text, rows)) is not None:
                write_durably(path, without)
                yield f"{path}: written without them"


def _batch_without(path: Path, text: str, rows: Rows) -> str | None:
    """The text of a batch's file without some rows; None for a file of another kind."""
    if path.suffix == ".jsonl":
        return "".join(line for line in text.splitlines(keepends=True) if not rows.quoted_in([line]).any())
    if path.suffix == ".csv":
        out = io.StringIO()
        lines = csv.reader(io.StringIO(text))
        csv.writer(out).writerows(line for line in lines if not any(cell in rows.names for cell in line))
        return out.getvalue()
    if path.suffix == ".json":
        with suppress(ValueError):
            tasks = json.loads(text)
            kept = [task for task in tasks if not any(name in json.dumps(task) for name in rows.names)]
            return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
    return None


def _outside(context: Context) -> Iterator[Path]:
    """Files outside the store that winnow wrote."""
    local = [place for place in map(place_of, exports(context.store)) if isinstance(place, Path)]
    folders = [*local, *(Path(project.out) for project in context.config.labeling.values())]
    for folder in dict.fromkeys([*folders, Path(context.config.root) / ".winnow"]):
        yield from _files(folder)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
