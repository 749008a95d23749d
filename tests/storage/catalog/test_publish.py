from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from storage import checksums
from storage.catalog import content as catalog_content
from storage.catalog import schema
from storage.catalog.publish import publish_catalog, rebuild_catalog
from storage.catalog.query import open_catalog, query_catalog
from storage.errors import BadInput
from storage.records import commit_metrics
from storage.store import Store, write_json
from tests.quick import quick_first
from tests.storage.catalog.conftest import everything, rows


def test_rebuild__equals_what_many_publishes_made(full_store: Any) -> None:
    for number in range(5):
        full_store.add_selection(f"t{number}", ["p1", "p5"], recipe=f"r{number % 2}")
        full_store.add_file(f"n{number}", [f"q{number}"], extra=[{"n": number}])
        full_store.add_snapshot(full_store.committed("pool"), full_store.records("snapshots")[0])
        commit_metrics(full_store, f"t{number}", {"loss": number})
        publish_catalog(full_store)
    published = everything(full_store)
    rebuild_catalog(full_store)
    assert everything(full_store) == published
    assert len(published["selections"]) == 7


def test_publish__reads_only_the_records_that_are_new(full_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_catalog(full_store)
    read: list[Path] = []
    original = catalog_content.read_record
    monkeypatch.setattr(catalog_content, "read_record", lambda kind, path: (read.append(path), original(kind, path))[1])
    full_store.add_selection("s3", ["p1"], status=None)
    publish_catalog(full_store)
    assert [path.name for path in read] == ["s3"]
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]


def test_publish__a_record_that_was_removed_is_gone(full_store: Any) -> None:
    publish_catalog(full_store)
    shutil.rmtree(full_store.path("records", "selections", "s1"))
    publish_catalog(full_store)
    assert rows(full_store, "SELECT DISTINCT selection_id FROM selection_items") == [("s2",)]
    assert rows(full_store, "SELECT selection_id FROM selections") == [("s2",)]


def test_publish__records_that_came_and_went_leave_nothing_in_the_file(full_store: Any) -> None:
    for number in range(4):
        for part in range(25):
            commit_metrics(full_store, "s1", {"loss": number, "part": part})
        publish_catalog(full_store)
        assert rows(full_store, "SELECT DISTINCT value FROM metrics WHERE name = 'loss'") == [(number,)]
        assert rows(full_store, "SELECT max(count) FROM pragma_storage_info('metrics')") == [(50,)]
        shutil.rmtree(full_store.path("records", "metrics"))
    publish_catalog(full_store)
    assert rows(full_store, "SELECT * FROM metrics") == []
    with pytest.raises(duckdb.ConstraintException), _a_copy(full_store) as connection:
        connection.execute("INSERT INTO metrics (metrics_id, name) VALUES ('m', 'n'), ('m', 'n')")


@contextlib.contextmanager
def _a_copy(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a copy of the published catalog, which may be written."""
    path = store.path("tmp", "copy.duckdb")
    path.parent.mkdir(exist_ok=True)
    shutil.copyfile(store.path("winnow.duckdb"), path)
    with duckdb.connect(str(path)) as connection:
        yield connection


def test_publish__comments_are_those_of_this_version(full_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    comments = "SELECT table_name, comment FROM duckdb_tables() UNION SELECT column_name, comment FROM duckdb_columns()"
    publish_catalog(full_store)
    expected = sorted(rows(full_store, comments), key=str)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "RELATION_COMMENTS", {**schema.RELATION_COMMENTS, "runs": "as it was said before"})
        patched.setattr(schema, "column_comment", lambda relation, column: f"{relation}, {column}")
        publish_catalog(full_store)
        assert ("runs", "as it was said before") in rows(full_store, comments)
    publish_catalog(full_store)
    assert sorted(rows(full_store, comments), key=str) == expected


def test_publish__file_is_read_only_small_and_alone(full_store: Any) -> None:
    path = publish_catalog(full_store)
    assert path == full_store.path("catalog", "0001.duckdb")
    assert path.stat().st_mode & 0o777 == 0o444
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["0001.duckdb", "checksums.json"]
    assert list(full_store.path("tmp").iterdir()) == []
    assert str(full_store.path("winnow.duckdb").readlink()) == "catalog/0001.duckdb"


@pytest.mark.slow
def test_publish__keeps_the_last_five(full_store: Any) -> None:
    for _ in range(7):
        publish_catalog(full_store)
    names = sorted(entry.name for entry in full_store.path("catalog").glob("*.duckdb"))
    assert set(names) <= checksums.sums_of(full_store.path("catalog")).keys()
    assert names == [f"{number:04d}.duckdb" for number in range(3, 8)]


def test_publish__an_open_reader_keeps_its_snapshot(full_store: Any) -> None:
    publish_catalog(full_store)
    with open_catalog(full_store) as old:
        for number in range(7):
            full_store.add_selection(f"t{number}", ["p1"])
            publish_catalog(full_store)
            with open_catalog(full_store) as new:
                assert new.execute("SELECT count(*) FROM selections").fetchall() == [(3 + number,)]
        assert old.execute("SELECT count(*) FROM selections").fetchall() == [(2,)]
        assert old.execute("SELECT count(*) FROM selection_items").fetchall() == [(6,)]


@pytest.mark.slow
def test_publish__an_analysts_leftover_log_does_not_hurt(full_store: Any) -> None:
    path = publish_catalog(full_store)
    path.chmod(0o644)
    code = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute('CREATE TABLE mine AS SELECT 1'); "
        "c.execute('DELETE FROM selections'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(full_store.path("winnow.duckdb"))], check=False)
    assert list(full_store.root.rglob("*.wal")), "the analyst's session left no log: this test tests nothing"
    full_store.add_selection("s3", ["p1"])
    publish_catalog(full_store)
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # even if the numbers begin again, no new file may lie beside the old log
    assert rebuild_catalog(full_store).name == "0003.duckdb"
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]


@pytest.mark.slow
def test_publish__an_analyst_who_holds_the_file_for_writing_does_not_hurt(full_store: Any) -> None:
    path = publish_catalog(full_store)
    path.chmod(0o644)
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); c.execute('CREATE TABLE mine AS SELECT 1'); "
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as analyst:
        assert analyst.stdout is not None
        assert analyst.stdout.readline() == b"open\n"
        full_store.add_selection("s3", ["p1"])
        publish_catalog(full_store)
        assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]
        analyst.kill()


def test_publish__a_damaged_catalog_is_made_anew(full_store: Any) -> None:
    path = publish_catalog(full_store)
    path.chmod(0o644)
    path.write_bytes(b"not a database" * 1000)
    publish_catalog(full_store)
    assert rows(full_store, "SELECT count(*) FROM selections") == [(2,)]


@pytest.mark.slow
def test_publish__a_catalog_of_another_schema_version_is_made_anew(
    full_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_catalog(full_store)
    before = everything(full_store)
    step = "ALTER TABLE selections ADD COLUMN code_branch VARCHAR;"
    with monkeypatch.context() as newer:
        newer.setattr(schema, "STEPS", (*schema.STEPS, step))
        newer.setattr(schema, "COLUMN_COMMENTS", {**schema.COLUMN_COMMENTS, "code_branch": "The branch."})
        write_json(
            full_store.path("records", "selections", "s1", "selection.json"),
            {"selection_id": "s1", "recipe": "mine", "steps": [], "code_branch": "main"},
        )
        full_store.path("records", "selections", "s1", "checksums.json").unlink()
        publish_catalog(full_store)
        # Rows of records that an older version had published are filled in too: nothing was carried over.
        assert rows(full_store, "SELECT code_branch FROM selections WHERE selection_id = 's1'") == [("main",)]
        assert rows(full_store, "SELECT version FROM schema_version") == [(len(schema.STEPS),)]
    publish_catalog(full_store)  # by the older version again
    after = everything(full_store)
    assert after["schema_version"] == before["schema_version"]
    assert after["selection_items"] == before["selection_items"]


@pytest.mark.parametrize("size", quick_first(1, [100_000, 0, 300_000, 1_000_000]))
def test_publish__a_full_disk_leaves_the_published_catalog(full_store: Any, size: int) -> None:
    """No file can grow beyond `size`: writing fails as it does on a full disk."""
    publish_catalog(full_store)
    before = everything(full_store)
    full_store.add_selection("s3", ["p1"])
    code = (
        "import sys; from storage.catalog.publish import publish_catalog; from storage.store import Store; "
        "publish_catalog(Store(sys.argv[1]))"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    done = subprocess.run(
        [sys.executable, "-c", code, str(full_store.root)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "File too large" in done.stderr, done.stderr
    assert everything(full_store) == before
    assert list(full_store.path("tmp").iterdir()) == []
    publish_catalog(full_store)
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]


@pytest.mark.parametrize(
    "step", quick_first(1, ["sync_tree", "content.create_views", "content.comment", "Path.symlink_to"])
)
def test_publish__an_error_at_any_step_leaves_the_published_catalog(
    full_store: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    publish_catalog(full_store)
    before = everything(full_store)
    full_store.add_selection("s3", ["p1"])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(f"storage.catalog.publish.{step}", full)
        with pytest.raises(OSError, match="No space left"):
            publish_catalog(full_store)
    assert everything(full_store) == before
    publish_catalog(full_store)
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]


def test_rebuild__what_the_disk_refuses_duckdb_is_an_error_of_the_disk(
    full_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise duckdb.IOException("IO Error: no room")

    monkeypatch.setattr("storage.catalog.publish.content.comment", full)
    with pytest.raises(OSError, match="no room"):
        rebuild_catalog(full_store)


@pytest.mark.slow
def test_store_moved__rebuild_mends_the_paths(full_store: Any, tmp_path: Path) -> None:
    publish_catalog(full_store)
    before = rows(full_store, "SELECT * FROM selected_examples ORDER BY ALL")
    full_store.root.rename(tmp_path / "elsewhere's [new] place")
    moved = Store(tmp_path / "elsewhere's [new] place")
    with pytest.raises(BadInput, match="winnow catalog rebuild"):
        query_catalog(moved, "SELECT * FROM selected_examples")
    rebuild_catalog(moved)
    assert rows(moved, "SELECT * FROM selected_examples ORDER BY ALL") == before
    assert rows(moved, "SELECT count(*) FROM examples") == [(5,)]
