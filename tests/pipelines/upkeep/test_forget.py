"""Nothing of a row is left in a store that has all kinds of records: by a search that knows nothing of winnow's."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.check import check_lines
from pipelines.errors import HeldBack, RowsLeft
from pipelines.reproduce import reproduce
from pipelines.run import run_all, run_and_report
from pipelines.stages.fit import fit
from pipelines.stages.ingest import ingest
from pipelines.stages.pull import pull
from pipelines.stages.push import push
from pipelines.upkeep import forget as module
from pipelines.upkeep.forget import cut_off, forget, request
from storage import store as store_module
from storage.catalog.publish import rebuild_catalog
from storage.catalog.query import open_catalog, query_catalog
from storage.damage import KINDS
from storage.errors import BadInput, StoreBusy
from storage.ids import from_arrow
from storage.pool.snapshot import open_snapshot
from storage.records import read_selection
from storage.store import Store
from storage.upkeep import rewrite
from tests.conftest import row, write_rows
from tests.pipelines.conftest import Winnow, make_light, opened
from tests.pipelines.test_damage import finish, flip
from tests.quick import torture_last

pytestmark = pytest.mark.slow

# Of the row fox-3: all that only it has.
TEXT = "the fox jumps over 3 lazy fox 3"
EXPORTS = "exports: {chat: {recipe: near, to: messages, out: out/near}}\n"


@pytest.fixture(scope="session")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For looking only: two rounds of labeling, columns, an export, a report, a repeat, a row that is unreadable."""
    project = make_light(tmp_path_factory.mktemp("forget") / "light")
    with (project / "data" / "a.jsonl").open("a") as file:
        file.write(json.dumps(row(3, "fox")) + "\n" + json.dumps({"note": TEXT, "id": 7}) + "\n")
    write_rows(project / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101)])
    text = (project / "winnow.yaml").read_text().replace("pool:\n", "pool:\n  max_bad_fraction: 0.1\n")
    (project / "winnow.yaml").write_text(text + EXPORTS)
    finish(project)
    run_and_report(opened(project))
    return project


@pytest.fixture
def full(all_kinds: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    project = tmp_path / "full"
    shutil.copytree(all_kinds, project, symlinks=True)
    for run in (project / "store" / "records" / "runs").iterdir():  # its exports are its own
        path = run / "run.json"
        path.write_text(path.read_text().replace(str(all_kinds), str(project)))
        (run / "checksums.json").unlink()
    rebuild_catalog(Store(project / "store"))
    return project


def id_of(project: Path, name: str) -> str:
    table = query_catalog(Store(project / "store"), f"SELECT id::VARCHAR AS id FROM examples WHERE given_id = '{name}'")
    return str(table["id"][0])


def holding(project: Path, *texts: str) -> set[str]:
    """The files below a project's store, and its exports and batches, that hold an id or a text: everything as Python
    prints it, and all bytes."""
    return {str(path.relative_to(project)) for path in _files(project) if any(_holds(path, text) for text in texts)}


def _files(project: Path) -> Iterator[Path]:
    for folder in ("store", "out", "labeling"):
        yield from (path for path in (project / folder).rglob("*") if path.is_file() and not path.is_symlink())


def _holds(path: Path, text: str) -> bool:
    raw = path.read_bytes()
    forms = [text.encode()]
    if len(text) == 36 and text.count("-") == 4:
        forms.append(uuid.UUID(text).bytes)
    if path.suffix == ".parquet":
        raw += str(pq.read_table(path).to_pylist()).encode()
        raw += b"".join(b"UUID('%b')" % text.encode() for _ in [0] if text in raw.decode("utf-8", "replace"))
    return any(form in raw for form in forms)


def assert_readable(project: Path) -> None:
    """No file is damaged, every relation of the catalog can be read whole."""
    assert [line for line in check_lines(opened(project), deep=True) if "damaged" in line] == []
    with open_catalog(Store(project / "store")) as catalog:
        for (name,) in catalog.execute("SHOW TABLES").fetchall():
            catalog.execute(f'FROM "{name}"').fetchall()


def kinds(paths: set[str]) -> set[str]:
    return {"/".join(path.split("/")[1:3]) if "/records/" in path else path.split("/")[1] for path in paths}


def test_forget__nothing_is_left_in_any_file(full: Path) -> None:
    name = id_of(full, "fox-3")
    before = holding(full, name, TEXT)
    assert kinds(before) >= {
        *("pool", "quarantine", "vectors", "index_parts", "tokens", "near"),
        *(f"records/{kind}" for kind in ("snapshots", "selections", "labels", "rounds", "models", "reports")),
    }
    assert any(path.startswith("labeling/") for path in before)
    wanted = request(opened(full), ["fox-3"])
    assert wanted.patterns.texts == (TEXT,)
    done = forget(opened(full), wanted)
    assert holding(full, name, TEXT) == set()
    assert done.outside == []
    in_store = [path for path in _files(full) if path.is_relative_to(full / "store")]
    assert (
        done.searched == len(in_store) - 4
    )  # the record of the run, and another catalog with its checksum, came later
    assert not cut_off(Store(full / "store"))
    assert_readable(full)
    run_and_report(opened(full))
    for stage in (pull, fit, push):
        stage(opened(full), "kinds")
    assert holding(full, name, TEXT) == set()
    assert_readable(full)


def test_forget__an_older_snapshot_is_what_a_new_one_is(full: Path) -> None:
    store = Store(full / "store")
    before = opened(full).pool.snapshot
    duplicates = before.header["duplicates"]
    forget(opened(full), request(opened(full), ["fox-3"]))
    rewritten = open_snapshot(store, before.id)
    run_all(opened(full))
    fresh = opened(full).pool.snapshot
    assert fresh.id != rewritten.id
    assert np.array_equal(fresh.ids, rewritten.ids)
    assert np.array_equal(fresh.occurrences, rewritten.occurrences)
    assert fresh.header["counts"] == rewritten.header["counts"]
    assert (rewritten.header["rows"], rewritten.header["duplicates"]) == (79, duplicates - 1)
    for name in ("score", "source"):
        assert np.array_equal(fresh.column(name), rewritten.column(name), equal_nan=name == "score")
    pools = query_catalog(store, 'SELECT "read", kept, duplicate, quarantined FROM pools').to_pylist()
    assert pools == [{"read": 82, "kept": 79, "duplicate": 0, "quarantined": 3}]
    quarantine = query_catalog(store, "SELECT line, excerpt FROM quarantine ORDER BY line").to_pylist()
    assert quarantine == [{"line": line, "excerpt": ""} for line in (4, 41, 42)]


def test_forget__selections_are_shorter_under_their_ids_and_the_next_run_draws_anew(full: Path) -> None:
    store = Store(full / "store")
    latest = "SELECT selection_id AS id FROM latest_selections WHERE recipe = 'near'"
    selection = query_catalog(store, latest)["id"][0].as_py()
    row_id, before = id_of(full, "fox-3"), read_selection(store, selection)[1]
    wanted = request(opened(full), [row_id])
    assert f"1 row in selection {selection}" in wanted.holders
    assert f"exported to {full}/out/near" in wanted.holders
    assert any(line.startswith("1 row in round of labeling ") for line in wanted.holders)
    assert wanted.places[:2] == ["data/a.jsonl:4", "data/a.jsonl:41"]
    forget(opened(full), wanted)
    assert query_catalog(store, latest)["id"][0].as_py() == selection
    header, items = read_selection(store, selection)
    kept = [item for item in before["id"].to_pylist() if str(item) != row_id]
    assert items["id"].to_pylist() == kept
    assert items["rank"].to_pylist() == list(range(1, len(kept) + 1))
    assert (header["n_items"], header["forgotten"]) == (len(before) - 1, 1)
    exported = (full / "out" / "near" / "data" / "train.jsonl").read_text().splitlines()
    assert len(exported) == len(kept)
    with pytest.raises(HeldBack, match="Rows of its pool were forgotten on request"):
        reproduce(opened(full), selection)
    run_all(opened(full))
    anew = query_catalog(store, latest)["id"][0].as_py()
    assert anew != selection
    assert "the same 10 rows" in reproduce(opened(full), anew)


def test_forget__says_what_it_would_do_and_does_nothing(full: Path, winnow: Winnow) -> None:
    before = {path: path.read_bytes() for path in _files(full) if path.parent.name != "locks"}
    said = winnow("forget", "fox-3", "-c", full).out
    assert "1 row: " in said
    assert "data/a.jsonl:41" in said
    assert "nothing was changed" in said
    assert {path: path.read_bytes() for path in _files(full) if path.parent.name != "locks"} == before


def test_forget__a_row_that_comes_in_again_is_refused_counted_and_said(full: Path, winnow: Winnow) -> None:
    row_id = id_of(full, "fox-3")
    assert winnow("forget", "fox-3", "--yes", "-c", full).code == 0
    write_rows(full / "data" / "z.jsonl", [row(3, "fox"), row(77, "fox")])
    write_rows(full / "targets" / "foxes.jsonl", [row(100, "fox"), row(3, "fox"), row(101, "fox")])
    done = winnow("run", "any", "-c", full)
    assert "note: forgotten on request, and refused: 1 row" in done.err
    refused = "SELECT line, excerpt FROM quarantine WHERE file = 'data/z.jsonl' AND cause LIKE 'forgotten%'"
    assert query_catalog(Store(full / "store"), refused).to_pylist() == [{"line": 1, "excerpt": ""}]
    pools = query_catalog(Store(full / "store"), 'SELECT "read", kept, quarantined FROM pools').to_pylist()
    assert pools == [{"read": 84, "kept": 80, "quarantined": 4}]
    assert holding(full, row_id, TEXT) == set()
    assert "was forgotten before" in winnow("forget", row_id, "--yes", "-c", full).err


def killed_at(patch: pytest.MonkeyPatch, where: Any, name: str, times: int) -> None:
    """The process is killed when a function is called for the so many-th time."""
    count, function = 0, getattr(where, name)

    def killed(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == times:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    patch.setattr(where, name, killed)


KILLS = [
    *((store_module, "swap_folders", times) for times in (3, 1, 12, 2, 4, 6, 9)),
    *((module, name, 1) for name in ("commit_forgotten", "rebuild_catalog", "files_that_hold", "record_run")),
]


@pytest.mark.parametrize(("where", "name", "times"), torture_last(3, KILLS))
def test_forget__killed_ends_when_it_is_run_again(
    full: Path, winnow: Winnow, where: Any, name: str, times: int
) -> None:
    row_id = id_of(full, "fox-3")
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, where, name, times)
        with pytest.raises(KeyboardInterrupt):
            forget(opened(full), request(opened(full), ["fox-3"]))
    for command in (["run"], ["gc", "--delete"]):
        refused = winnow(*command, "-c", full)
        assert refused.code == 5
        assert "`winnow forget --yes` ends it" in refused.err
    assert "forgot 1 row" in winnow("forget", "fox-3", "--yes", "-c", full).out
    assert holding(full, row_id, TEXT) == set()
    assert_readable(full)
    pools = query_catalog(Store(full / "store"), 'SELECT "read", kept, duplicate, quarantined FROM pools').to_pylist()
    assert pools == [{"read": 82, "kept": 79, "duplicate": 0, "quarantined": 3}]
    assert winnow("run", "any", "-c", full).code == 0


def test_forget__what_is_damaged_and_in_no_pool_of_today_is_put_aside_and_goes(full: Path, winnow: Winnow) -> None:
    row_id, before = id_of(full, "fox-3"), set(Store(full / "store").committed("pool"))
    path = full / "data" / "a.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert winnow("run", "-c", full).code == 0
    snapshot = opened(full).pool.snapshot
    (old,) = before - set(snapshot.ingests)
    flip(full / "store" / "pool" / old / "part-00000.parquet")
    said = winnow("forget", "fox-3", "--yes", "-c", full)
    assert said.code == 0
    assert f"{old}/part-00000.parquet is not what was committed (its checksum differs); put aside in" in said.err
    assert holding(full, row_id, TEXT) == set()
    assert not (full / "store" / "set-aside").exists()
    assert_readable(full)


def test_forget__waits_for_a_run_where_the_pool_of_today_is_damaged(full: Path, winnow: Winnow) -> None:
    row_id, ingest = id_of(full, "fox-3"), opened(full).pool.snapshot.ingests[0]
    flip(full / "store" / "pool" / ingest / "part-00000.parquet")
    refused = winnow("forget", "fox-3", "--yes", "-c", full)
    assert refused.code == 2
    assert f"{ingest}/part-00000.parquet is not what was committed" in refused.err
    assert "`winnow run` makes it again" in refused.err
    assert winnow("run", "any", "-c", full).code == 0
    assert winnow("forget", "fox-3", "--yes", "-c", full).code == 0
    assert holding(full, row_id, TEXT) == set()


MADE_AGAIN = sorted(KINDS.keys() - module._NOT_MADE_AGAIN, key=lambda kind: (kind not in ("pool", "snapshots"), kind))


@pytest.mark.parametrize("kind", torture_last(2, MADE_AGAIN))
def test_forget__damage_after_a_kill_is_put_aside_and_a_run_makes_it_again(
    full: Path, winnow: Winnow, kind: str
) -> None:
    row_id, store = id_of(full, "fox-3"), Store(full / "store")
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, module, "commit_forgotten", 1)
        with pytest.raises(KeyboardInterrupt):
            forget(opened(full), request(opened(full), ["fox-3"]))
    for folder in KINDS[kind].folders(store):
        flip(max((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size))
    ended = winnow("forget", "--yes", "-c", full)
    assert ended.code == 0
    assert [path for path in holding(full, row_id, TEXT) if path not in ended.out] == []
    assert winnow("run", "-c", full).code == 0
    assert holding(full, row_id) == set()
    # What is read again quotes the row that was unreadable, which has no id to be refused by.
    assert kinds(holding(full, TEXT)) <= {"quarantine"}
    shutil.rmtree(store.path("set-aside"), ignore_errors=True)  # the whole half of an ingest that was made again
    assert_readable(full)


@pytest.mark.parametrize(
    ("damaged", "code", "says"),
    [
        ("records/selections/*/items.parquet", 0, "; put aside in "),
        ("quarantine/*/rows.parquet", 0, "; put aside in "),
        ("tokens/*/*/keys.npy", 0, "; put aside in "),
        ("records/labels/*/labels.parquet", 2, "; take it from a backup, or move "),
        ("records/comparisons/*/comparison.json", 2, "; take it from a backup, or move "),
    ],
)
def test_forget__other_records_that_are_damaged(full: Path, winnow: Winnow, damaged: str, code: int, says: str) -> None:
    assert winnow("compare", "near", "any", "--record", "-c", full).code == 0
    path = min((full / "store").glob(damaged))
    flip(path)
    ended = winnow("forget", "fox-3", "--yes", "-c", full)
    assert ended.code == code
    assert f"{path} is not what was committed (its checksum differs){says}" in ended.err
    assert path.exists() == (code != 0)


def test_forget__says_where_a_row_is_left(full: Path, winnow: Winnow, monkeypatch: pytest.MonkeyPatch) -> None:
    note = full / "store" / "my notes.txt"
    note.write_text(f"ask about {TEXT}")
    refused = winnow("forget", "fox-3", "--yes", "-c", full)
    assert refused.code == 2
    assert f"rows are still in {note}. A file that is none of winnow's: move it out" in refused.err
    note.unlink()
    monkeypatch.setattr(module, "rewrite", lambda *_: None)
    assert "forgot 1 row" in winnow("forget", "--yes", "-c", full).out


@pytest.mark.parametrize(
    "kind",
    torture_last(2, ["labels", "segments", "pool", "rounds", "selections", "tokens", "index_parts", "snapshots"]),
)
def test_forget__the_search_finds_what_a_rewrite_leaves(full: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    wanted = request(opened(full), ["fox-3"])
    monkeypatch.setitem(rewrite._SPECIAL, kind, lambda *_: {})  # type: ignore[arg-type]
    with pytest.raises(RowsLeft, match="rows are still in"):
        forget(opened(full), wanted)


def test_request__by_condition_by_file_and_all_versions_of_an_own_id(full: Path) -> None:
    ids = {str(name) for name in request(opened(full), [], "source = 'dog' AND given_id < 'dog-2'").rows.names}
    assert ids == {id_of(full, "dog-0"), id_of(full, "dog-1")}
    write_rows(full / "data" / "z.jsonl", [{**row(5, "dog"), "prompt": "another text under the same id of its own"}])
    ingest(opened(full))
    (full / "gone.txt").write_text("dog-5\nfox-1\n")
    wanted = request(opened(full), [id_of(full, "fox-2").upper()], file=full / "gone.txt")
    assert len(wanted.rows.ids) == 4
    assert wanted.rows.given_ids == {"dog-5", "fox-1", "fox-2"}


def test_request__mistakes(full: Path, winnow: Winnow) -> None:
    for arguments, message in (
        ((["nobody"],), "'nobody' names no row of any file that was taken in"),
        (([],), "name rows to forget: ids, --from FILE, or --where CONDITION"),
        (([], "source = 'cat'"), "no row of the pool satisfies \"source = 'cat'\""),
        (([], "random() > 0.5"), "--where: 'random() > 0.5' "),
        (([], "lenght(prompt) > 3"), "where: 'lenght(prompt) > 3' failed: "),
    ):
        with pytest.raises(BadInput, match=re.escape(message)):
            request(opened(full), *arguments)
    wanted = request(opened(full), ["fox-3"])
    with Store(full / "store").lock("select-near", "winnow select near"), pytest.raises(StoreBusy, match="select near"):
        forget(opened(full), wanted)
    assert len(from_arrow(pq.read_table(next((full / "store" / "pool").rglob("*.parquet")))["id"])) > 0
    assert winnow("forget", "nobody", "-c", full).code == 2


def test_forget__an_export_at_a_url_is_written_again(tmp_path: Path) -> None:
    project = make_light(tmp_path / "light")
    with (project / "winnow.yaml").open("a") as config:
        config.write("exports: {names: {recipe: near, to: ids, out: memory://forgotten/near}}\n")
    files = fsspec.filesystem("memory")
    try:
        run_all(opened(project))

        def exported() -> list[str]:
            lines = files.cat_file("/forgotten/near/data/train.jsonl").splitlines()
            return [json.loads(line)["id"] for line in lines]

        first, *others = exported()
        wanted = request(opened(project), [first])
        assert "exported to memory://forgotten/near" in wanted.holders
        forget(opened(project), wanted)
        assert exported() == others
    finally:
        files.rm("/forgotten", recursive=True)
