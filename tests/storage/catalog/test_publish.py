from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import uuid
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selection.encoders import EncoderSpec
from storage import ids as idlib
from storage.catalog import content as catalog_content
from storage.catalog import publish as catalog
from storage.catalog import schema
from storage.errors import BadInput, NotInStore, StoreDamaged
from storage.pool.columns import ingest_columns
from storage.pool.ingest import FileSpec
from storage.pool.targets import ingest_targets
from storage.records import commit_metrics, commit_selection, read_selection
from storage.store import Store, utc_now, write_json
from storage.vectors.index import IndexRecord
from storage.vectors.segments import commit_segment, describe

LISTED = [
    "pools",
    "ingests",
    "snapshots",
    "snapshot_files",
    "encoders",
    "embeddings",
    "indexes",
    "targets",
    "examples",
    "duplicates",
    "tombstones",
    "quarantine",
    "selections",
    "selection_items",
    "selected_examples",
    "latest_selections",
    "labels",
    "annotators",
    "label_conflicts",
    "label_quarantine",
    "label_imports",
    "label_events",
    "consensus",
    "models",
    "rounds",
    "round_items",
    "round_records",
    "metrics",
    "runs",
    "schema_version",
]


def rows(store: Store, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    with catalog.connect(store) as connection:
        return connection.execute(sql, params).fetchall()


def everything(store: Store) -> dict[str, list[Any]]:
    """All rows of all relations, and all definitions and comments."""
    relations = [
        name
        for (name,) in rows(
            store,
            "SELECT table_name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal",
        )
    ]
    held = {name: rows(store, f"SELECT * FROM {name} ORDER BY ALL") for name in relations}
    held[""] = rows(
        store,
        "SELECT view_name, sql, comment FROM duckdb_views() WHERE NOT internal UNION ALL "
        "SELECT table_name || '.' || column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal ORDER BY ALL",
    )
    return held


# ---- what is in it


def test_publish__empty_store_has_every_relation_with_no_rows(store: Store) -> None:
    catalog.publish(store)
    held = everything(store)
    assert set(LISTED) <= set(held)
    assert [name for name, found in held.items() if found and name not in ("", "schema_version")] == []
    assert held["schema_version"] == [(len(schema.STEPS),)]


def test_publish__every_relation_column_and_macro_has_a_comment(full_store: Any) -> None:
    catalog.publish(full_store)
    bare = rows(
        full_store,
        "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL UNION ALL "
        "SELECT view_name FROM duckdb_views() WHERE comment IS NULL AND NOT internal UNION ALL "
        "SELECT table_name || '.' || column_name FROM duckdb_columns() WHERE comment IS NULL AND NOT internal UNION ALL "
        "SELECT function_name FROM duckdb_functions() WHERE comment IS NULL AND NOT internal",
    )
    assert bare == []


def test_publish__only_the_users_own_fields_have_the_general_comment(full_store: Any) -> None:
    catalog.publish(full_store)
    general = rows(
        full_store, "SELECT DISTINCT column_name FROM duckdb_columns() WHERE comment LIKE 'A field of the pool%'"
    )
    assert general == [("year",)]


def test_examples__the_pool_as_it_is_now_without_repeats(full_store: Any) -> None:
    catalog.publish(full_store)
    found = rows(full_store, "SELECT prompt, response, source, line FROM examples ORDER BY prompt")
    assert found == [
        ("p1", "answer to p1", "a", 1),
        ("p2", "answer to p2", "a", 3),
        ("p3", "answer to p3", "a", 4),
        ("p4", "answer to p4", "b", 2),
        ("p5", "answer to p5", "b", 3),
    ]


def test_pool__every_row_is_accounted_for(full_store: Any) -> None:
    catalog.publish(full_store)
    per_file = (
        "SELECT split_part(file, '/', -1), \"read\", kept, duplicate, quarantined FROM snapshot_files ORDER BY file"
    )
    assert rows(full_store, per_file) == [("a.jsonl", 4, 3, 0, 1), ("b.jsonl", 3, 2, 1, 0)]
    assert rows(full_store, 'SELECT ingests, "read", kept, duplicate, quarantined FROM pools') == [(2, 7, 5, 1, 1)]
    kept = "SELECT d.source, d.line, k.source, k.line FROM duplicates d JOIN examples k ON k.ingest = kept_ingest AND k.line = kept_line"
    assert rows(full_store, kept) == [("b", 1, "a", 4)]
    assert rows(full_store, "SELECT split_part(file, '/', -1), line, excerpt FROM quarantine") == [("a.jsonl", 2, "{")]


def test_selection__items_with_their_text_in_rank_order(full_store: Any) -> None:
    catalog.publish(full_store)
    found = rows(full_store, "SELECT rank, prompt, kind, ref, year FROM selection('s2')")
    assert found == [
        (1, "p4", "target", "gsm8k", 2002.0),
        (2, "p3", "target", "gsm8k", None),
        (3, "p1", "target", "gsm8k", None),
    ]


def test_selection_diff__says_what_changed(full_store: Any) -> None:
    catalog.publish(full_store)
    found = rows(full_store, "SELECT prompt, change, rank_a, rank_b, source FROM selection_diff('s1', 's2')")
    assert found == [
        ("p4", "kept", 3, 1, "b"),
        ("p3", "added", None, 2, "a"),
        ("p1", "kept", 1, 3, "a"),
        ("p2", "dropped", 2, None, "a"),
    ]
    assert {row[1] for row in rows(full_store, "SELECT id, change FROM selection_diff('s1', 's1')")} == {"kept"}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("s1", "s2", (3, 3, 2, 0.5)),
        ("s1", "s1", (3, 3, 3, 1.0)),
        ("s1", "none", (3, 0, 0, 0.0)),
        ("x", "y", (0, 0, 0, None)),
    ],
)
def test_overlap__counts(full_store: Any, a: str, b: str, expected: tuple[Any, ...]) -> None:
    catalog.publish(full_store)
    assert rows(full_store, "FROM overlap(?, ?)", [a, b]) == [expected]


def test_selected_examples__rows_of_an_older_pool_still_have_their_text(full_store: Any) -> None:
    (parent,) = full_store.records("snapshots")
    b = full_store.add_file("b", ["p3", "p4", "p5"], extra=[{"year": y} for y in (2001, 2002, 2003)])
    c = full_store.add_file("c", ["p1", "p9"])
    full_store.add_snapshot([b, c], parent)
    catalog.publish(full_store)
    assert rows(full_store, "SELECT prompt FROM examples ORDER BY prompt") == [
        ("p1",),
        ("p3",),
        ("p4",),
        ("p5",),
        ("p9",),
    ]
    # p1 stands in a file that went and in one that is there: the one that is there. p2 is gone from the pool, not from sight.
    found = rows(full_store, "SELECT prompt, source FROM selection('s1')")
    assert found == [("p1", "c"), ("p2", "a"), ("p4", "b")]
    assert rows(full_store, "SELECT count(*) FROM snapshots") == [(2,)]
    gone = "SELECT t.snapshot = (SELECT snapshot FROM pools), prompt FROM tombstones t JOIN pool_rows USING (id)"
    assert rows(full_store, gone) == [(True, "p2")]


def test_selected_examples__an_id_that_nothing_explains_is_not_dropped(full_store: Any) -> None:
    full_store.add_selection("s3", ["p1", "never seen"])
    catalog.publish(full_store)
    assert rows(full_store, "SELECT rank, prompt FROM selection('s3')") == [(1, "p1"), (2, None)]


def test_selection_drops_and_finds__what_filters_tell(full_store: Any) -> None:
    ids = idlib.from_bytes([full_store.id_of("p1"), full_store.id_of("p2")])
    told = {
        "id": idlib.to_arrow(ids),
        "kind": ["a", "b"],
        "ref": ["r", None],
        "value": [0.5, None],
        "step": ["one", "two"],
    }
    items = read_selection(full_store, "s1")[1]
    found = pa.table(told).slice(0, 1)
    commit_selection(full_store, {"selection_id": "s9", "recipe": "mine"}, items, pa.table(told), found)
    catalog.publish(full_store)
    columns = "selection_id, step, kind, ref, value"
    assert rows(full_store, f"SELECT {columns} FROM selection_finds") == [("s9", "one", "a", "r", 0.5)]
    assert rows(full_store, f"SELECT {columns} FROM selection_drops ORDER BY step") == [
        ("s9", "one", "a", "r", 0.5),
        ("s9", "two", "b", None, None),
    ]


def test_pools__an_older_snapshot_that_comes_back_is_the_latest(full_store: Any) -> None:
    first = full_store.committed("pool")
    full_store.add_snapshot([*first, full_store.add_file("c", ["p9"])])
    catalog.publish(full_store)
    assert rows(full_store, "SELECT kept FROM pools") == [(6,)]
    full_store.add_snapshot(first)  # its record was there; only the run is new
    catalog.publish(full_store)
    assert rows(full_store, "SELECT kept FROM pools") == [(5,)]


def test_pools__an_ingest_that_was_held_back_does_not_count(full_store: Any) -> None:
    (good,) = full_store.records("snapshots")
    full_store.add_file("c", ["p9"])
    bad = full_store.add_snapshot(full_store.committed("pool"))
    newest = full_store.records("runs")[-1]
    shutil.rmtree(full_store.path("records", "runs", newest))
    full_store.add_run("ingest", None, bad, "held_back")
    catalog.publish(full_store)
    assert rows(full_store, "SELECT snapshot FROM pools") == [(good,)]


def test_latest_selections__newest_per_recipe_whose_checks_passed(full_store: Any) -> None:
    full_store.add_selection("s3", ["p5"], status="held_back")
    full_store.add_selection("s4", ["p5", "p1"], status=None)
    full_store.add_selection("s5", ["p5", "p2"], recipe="other")
    catalog.publish(full_store)
    latest = "SELECT recipe, selection_id FROM latest_selections ORDER BY recipe"
    assert rows(full_store, latest) == [("mine", "s2"), ("other", "s5")]
    full_store.add_selection("s1", ["p1", "p2", "p4"])  # drawn again: no new record, a new run
    catalog.publish(full_store)
    assert rows(full_store, latest) == [("mine", "s1"), ("other", "s5")]


def test_latest_selections__two_recipes_that_draw_the_same_have_one_row_each(full_store: Any) -> None:
    full_store.add_selection("s2", ["p4", "p3", "p1"], recipe="twin")
    catalog.publish(full_store)
    latest = rows(full_store, "SELECT recipe, selection_id FROM latest_selections ORDER BY recipe")
    assert latest == [("mine", "s2"), ("twin", "s2")]


def test_metrics_and_runs__are_rows(full_store: Any) -> None:
    commit_metrics(full_store, "s1", {"loss": 1.5, "accuracy": 0.25})
    catalog.publish(full_store)
    metrics = rows(full_store, "SELECT selection_id, name, value FROM metrics ORDER BY name")
    assert metrics == [("s1", "accuracy", 0.25), ("s1", "loss", 1.5)]
    assert rows(full_store, "SELECT stage, status, subject, facts->>'x' FROM runs WHERE stage = 'ingest'") == [
        ("ingest", "ok", full_store.records("snapshots")[0], "1")
    ]


def test_selections__fields_without_a_column_are_in_the_record(full_store: Any) -> None:
    catalog.publish(full_store)
    found = rows(
        full_store, "SELECT steps->>0, budget, n_items, record->>'recipe' FROM selections WHERE selection_id = 's1'"
    )
    assert found == [("random", 3, 3, "mine")]


def test_extra_fields__any_name_is_a_safe_column(store: Any) -> None:
    fields: dict[str, Any] = {
        "ID": "not mine",
        "Prompt": "upper",
        "rank": 1.5,
        'we"ird; DROP TABLE x': True,
        "it's": "quote",
        "a/b~c": "pointer",
        "$x": "path",
        "": "empty",
        "A": "one",
        "a": "two",
        "mixed": "text",
        "nested": {"deep": [1]},
    }
    a = store.add_file("a", ["p1"], extra=[fields])
    b = store.add_file("b", ["p2"], extra=[{"mixed": 7}])
    store.add_snapshot([a, b])
    store.add_selection("s1", ["p1", "p2"])
    catalog.publish(store)
    expected = {
        "ID_": "not mine",
        "Prompt_": "upper",
        'we"ird; DROP TABLE x': True,
        "it's": "quote",
        "a/b~c": "pointer",
        "$x": "path",
        "_": "empty",
        "A": "one",
        "a_": "two",
        "mixed": "text",
        "nested": '{"deep":[1]}',
    }
    names = ", ".join(schema.quoted(name) for name in expected)
    for view in ("examples", "selected_examples"):
        assert rows(store, f"SELECT {names} FROM {view} WHERE prompt = 'p1'") == [tuple(expected.values())]
        assert rows(store, f"SELECT mixed FROM {view} WHERE prompt = 'p2'") == [("7",)]
    assert rows(store, 'SELECT "rank" FROM examples WHERE "rank" IS NOT NULL') == [(1.5,)]
    assert rows(store, "SELECT prompt, rank, rank_ FROM selected_examples ORDER BY rank") == [
        ("p1", 1, 1.5),
        ("p2", 2, None),
    ]


def test_extra_fields__types_are_those_of_the_pool_as_it_is_now(store: Any) -> None:
    old = store.add_file("old", ["p1"], extra=[{"year": "MMXX", "gone": True}])
    new = store.add_file("new", ["p2"], extra=[{"year": 2020}])
    store.add_snapshot([old])
    store.add_snapshot([new])
    catalog.publish(store)
    assert rows(store, "SELECT year + 1 FROM examples") == [(2021.0,)]
    assert rows(store, "SELECT prompt, year, gone FROM pool_rows ORDER BY prompt") == [
        ("p1", None, True),
        ("p2", 2020.0, None),
    ]


def test_extra_fields__keys_that_are_data_do_not_make_a_catalog_of_columns(store: Any) -> None:
    extra = {f"key_{i:04d}": i for i in range(500)}
    store.add_snapshot([store.add_file("a", ["p1"], extra=[extra])])
    catalog.publish(store)
    (count,) = rows(store, "SELECT count(*) FROM duckdb_columns() WHERE table_name = 'examples'")[0]
    assert count < 250
    assert rows(store, "SELECT extra->>'key_0499' FROM examples") == [("499",)]


def test_columns__the_users_own_are_columns_of_the_examples(full_store: Any, tmp_path: Path) -> None:
    ids = [str(uuid.UUID(bytes=full_store.id_of(prompt))) for prompt in ("p1", "p4", "unknown")]
    pq.write_table(
        pa.table({"id": ids, "difficulty": [0.5, 1.5, 9.0], "year": ["a", "b", "c"]}), tmp_path / "c.parquet"
    )
    digest = ingest_columns(full_store, str(tmp_path / "c.parquet"))
    full_store.add_snapshot(full_store.committed("pool"), columns=[digest])
    catalog.publish(full_store)
    # `year` of the columns stands before the field of that name.
    found = rows(full_store, "SELECT prompt, difficulty, year, year_ FROM examples ORDER BY prompt")
    assert found == [
        ("p1", 0.5, "a", None),
        ("p2", None, None, None),
        ("p3", None, None, None),
        ("p4", 1.5, "b", 2002.0),
        ("p5", None, None, 2003.0),
    ]
    assert rows(full_store, "SELECT prompt, difficulty FROM selection('s1')") == [
        ("p1", 0.5),
        ("p2", None),
        ("p4", 1.5),
    ]


def test_encoders_embeddings_indexes__are_rows(full_store: Any) -> None:
    vectors = np.eye(3, 4, dtype=np.float32)
    ids = np.sort(idlib.from_bytes(full_store.id_of(prompt) for prompt in ("p1", "p2", "p3")))
    facts = {"device": "cpu", "tokens": 30, "truncated": 1, "seconds": 0.5, "created_at": utc_now(), "batch_tokens": 9}
    failed = np.array([False, False, True])
    commit_segment(full_store, "e1", ids, vectors, facts, failed=failed)
    catalog.publish(full_store)  # before the encoder is described
    assert rows(full_store, "SELECT * FROM encoders") == []
    spec = asdict(EncoderSpec(model="org/model", revision="main", pooling="mean", template="plain", max_tokens=512))
    described = {"encoder": "e1", "spec": spec, "dimension": 4, "max_tokens": 256, "notes": [], "created_at": utc_now()}
    describe(full_store, "e1", described)
    index = {
        "index": "i1", "encoder": "e1", "snapshot": "s", "content": "c", "ids": "x", "kind": "flat", "cells": 0, "n_rows": 2,
        "n_dead": 0, "dimension": 4, "trained_on": 2, "nprobe": 0, "recall_at_10": 1.0, "recall_sample": 2, "seed": 0,
        "parent": None, "device": "cpu", "created_at": utc_now(),
    }  # fmt: skip
    assert set(index) == {field.name for field in fields(IndexRecord)}
    with full_store.committing("indexes", "i1") as folder:
        write_json(folder / "index.json", index)
    catalog.publish(full_store)
    sql = "SELECT encoder, model, revision, pooling, template, max_tokens, dtype, dimension FROM encoders"
    assert rows(full_store, sql) == [("e1", "org/model", "main", "mean", "plain", 256, "float32", 4)]
    sql = "SELECT encoder, n_rows, n_failed, tokens, truncated, device, seconds FROM embeddings"
    assert rows(full_store, sql) == [("e1", 2, 1, 30, 1, "cpu", 0.5)]
    sql = "SELECT \"index\", encoder, kind, n_rows, recall_at_10, record->>'recall_sample' FROM indexes"
    assert rows(full_store, sql) == [("i1", "e1", "flat", 2, 1.0, "2")]


def test_targets__are_rows(full_store: Any, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "what", "response": "that"}\n')
    made = ingest_targets(full_store, "exam", [FileSpec(str(tmp_path / "t.jsonl"))])
    catalog.publish(full_store)
    assert rows(full_store, "SELECT targets, target_set, prompt, response, line FROM targets") == [
        (made.id, "exam", "what", "that", 1)
    ]


# ---- publishing


def test_rebuild__equals_what_many_publishes_made(full_store: Any) -> None:
    for number in range(5):
        full_store.add_selection(f"t{number}", ["p1", "p5"], recipe=f"r{number % 2}")
        full_store.add_file(f"n{number}", [f"q{number}"], extra=[{"n": number}])
        full_store.add_snapshot(full_store.committed("pool"), full_store.records("snapshots")[0])
        commit_metrics(full_store, f"t{number}", {"loss": number})
        catalog.publish(full_store)
    published = everything(full_store)
    catalog.rebuild(full_store)
    assert everything(full_store) == published
    assert len(published["selections"]) == 7


def test_publish__reads_only_the_records_that_are_new(full_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.publish(full_store)
    read: list[Path] = []
    original = catalog_content.read_json
    monkeypatch.setattr(catalog_content, "read_json", lambda path: (read.append(path), original(path))[1])
    full_store.add_selection("s3", ["p1"], status=None)
    catalog.publish(full_store)
    assert [path.parent.name for path in read] == ["s3"]
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]


def test_publish__a_record_that_was_removed_is_gone(full_store: Any) -> None:
    catalog.publish(full_store)
    shutil.rmtree(full_store.path("records", "selections", "s1"))
    catalog.publish(full_store)
    assert rows(full_store, "SELECT DISTINCT selection_id FROM selection_items") == [("s2",)]
    assert rows(full_store, "SELECT selection_id FROM selections") == [("s2",)]


def test_publish__file_is_read_only_small_and_alone(full_store: Any) -> None:
    path = catalog.publish(full_store)
    assert path == full_store.path("catalog", "0001.duckdb")
    assert path.stat().st_mode & 0o777 == 0o444
    assert [entry.name for entry in path.parent.iterdir()] == ["0001.duckdb"]
    assert list(full_store.path("tmp").iterdir()) == []
    assert str(full_store.path("winnow.duckdb").readlink()) == "catalog/0001.duckdb"


def test_publish__keeps_the_last_five(full_store: Any) -> None:
    for _ in range(7):
        catalog.publish(full_store)
    names = sorted(entry.name for entry in full_store.path("catalog").iterdir())
    assert names == [f"{number:04d}.duckdb" for number in range(3, 8)]


def test_publish__an_open_reader_keeps_its_snapshot(full_store: Any) -> None:
    catalog.publish(full_store)
    with catalog.connect(full_store) as old:
        for number in range(7):
            full_store.add_selection(f"t{number}", ["p1"])
            catalog.publish(full_store)
            with catalog.connect(full_store) as new:
                assert new.execute("SELECT count(*) FROM selections").fetchall() == [(3 + number,)]
        assert old.execute("SELECT count(*) FROM selections").fetchall() == [(2,)]
        assert old.execute("SELECT count(*) FROM selection_items").fetchall() == [(6,)]


def test_publish__an_analysts_leftover_log_does_not_hurt(full_store: Any) -> None:
    path = catalog.publish(full_store)
    path.chmod(0o644)
    code = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute('CREATE TABLE mine AS SELECT 1'); "
        "c.execute('DELETE FROM selections'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(full_store.path("winnow.duckdb"))], check=False)
    assert list(full_store.root.rglob("*.wal")), "the analyst's session left no log: this test tests nothing"
    full_store.add_selection("s3", ["p1"])
    catalog.publish(full_store)
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # even if the numbers begin again, no new file may lie beside the old log
    assert catalog.rebuild(full_store).name == "0003.duckdb"
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]


def test_publish__an_analyst_who_holds_the_file_for_writing_does_not_hurt(full_store: Any) -> None:
    path = catalog.publish(full_store)
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
        catalog.publish(full_store)
        assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]
        analyst.kill()


def test_publish__a_damaged_catalog_is_made_anew(full_store: Any) -> None:
    path = catalog.publish(full_store)
    path.chmod(0o644)
    path.write_bytes(b"not a database" * 1000)
    catalog.publish(full_store)
    assert rows(full_store, "SELECT count(*) FROM selections") == [(2,)]


def test_publish__a_catalog_of_another_schema_version_is_made_anew(
    full_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.publish(full_store)
    before = everything(full_store)
    step = "ALTER TABLE selections ADD COLUMN code_branch VARCHAR;"
    with monkeypatch.context() as newer:
        newer.setattr(schema, "STEPS", (*schema.STEPS, step))
        newer.setattr(schema, "COLUMN_COMMENTS", {**schema.COLUMN_COMMENTS, "code_branch": "The branch."})
        write_json(
            full_store.path("records", "selections", "s1", "selection.json"),
            {"selection_id": "s1", "recipe": "mine", "steps": [], "code_branch": "main"},
        )
        catalog.publish(full_store)
        # Rows of records that an older version had published are filled in too: nothing was carried over.
        assert rows(full_store, "SELECT code_branch FROM selections WHERE selection_id = 's1'") == [("main",)]
        assert rows(full_store, "SELECT version FROM schema_version") == [(len(schema.STEPS),)]
    catalog.publish(full_store)  # by the older version again
    after = everything(full_store)
    assert after["schema_version"] == before["schema_version"]
    assert after["selection_items"] == before["selection_items"]


@pytest.mark.parametrize("size", [0, 100_000, 300_000, 1_000_000])
def test_publish__a_full_disk_leaves_the_published_catalog(full_store: Any, size: int) -> None:
    """No file can grow beyond `size`: writing fails as it does on a full disk."""
    catalog.publish(full_store)
    before = everything(full_store)
    full_store.add_selection("s3", ["p1"])
    code = (
        "import sys; from storage import catalog; from storage.store import Store; catalog.publish(Store(sys.argv[1]))"
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
    assert done.returncode != 0, done.stderr
    assert everything(full_store) == before
    assert list(full_store.path("tmp").iterdir()) == []
    catalog.publish(full_store)
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]


@pytest.mark.parametrize("step", ["content.create_views", "content.comment", "sync_tree", "Path.symlink_to"])
def test_publish__an_error_at_any_step_leaves_the_published_catalog(
    full_store: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    catalog.publish(full_store)
    before = everything(full_store)
    full_store.add_selection("s3", ["p1"])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(f"storage.catalog.publish.{step}", full)
        with pytest.raises(OSError, match="No space left"):
            catalog.publish(full_store)
    assert everything(full_store) == before
    catalog.publish(full_store)
    assert rows(full_store, "SELECT count(*) FROM selections") == [(3,)]


def test_rebuild__what_the_disk_refuses_duckdb_is_an_error_of_the_disk(
    full_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise duckdb.IOException("IO Error: no room")

    monkeypatch.setattr("storage.catalog.publish.content.comment", full)
    with pytest.raises(OSError, match="no room"):
        catalog.rebuild(full_store)


def test_store_moved__rebuild_mends_the_paths(full_store: Any, tmp_path: Path) -> None:
    catalog.publish(full_store)
    before = rows(full_store, "SELECT * FROM selected_examples ORDER BY ALL")
    full_store.root.rename(tmp_path / "elsewhere's [new] place")
    moved = Store(tmp_path / "elsewhere's [new] place")
    with pytest.raises(BadInput, match="winnow catalog rebuild"):
        catalog.query(moved, "SELECT * FROM selected_examples")
    catalog.rebuild(moved)
    assert rows(moved, "SELECT * FROM selected_examples ORDER BY ALL") == before
    assert rows(moved, "SELECT count(*) FROM examples") == [(5,)]


# ---- reading


def test_connect__nothing_published_says_what_to_do(store: Store) -> None:
    with pytest.raises(NotInStore, match="winnow run"):
        catalog.connect(store)


def test_connect__a_damaged_file_says_what_to_do(full_store: Any) -> None:
    path = catalog.publish(full_store)
    path.chmod(0o644)
    path.write_text("no database")
    with pytest.raises(StoreDamaged, match=r"not a valid DuckDB .*\n.*winnow catalog rebuild"):
        catalog.query(full_store, "SELECT 1")
    catalog.rebuild(full_store)
    assert rows(full_store, "SELECT count(*) FROM examples") == [(5,)]


def test_connect__is_read_only(full_store: Any) -> None:
    catalog.publish(full_store)
    with catalog.connect(full_store) as connection, pytest.raises(duckdb.Error, match="read-only"):
        connection.execute("CREATE TABLE mine AS SELECT 1")


def test_connect__from_any_working_folder(full_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.publish(full_store)
    monkeypatch.chdir("/")
    assert rows(full_store, "SELECT count(*) FROM examples") == [(5,)]


def test_query__gives_arrow_with_ids_as_printed(full_store: Any) -> None:
    catalog.publish(full_store)
    table = catalog.query(
        full_store, "SELECT id, rank FROM selection_items WHERE selection_id = ? ORDER BY rank", ["s1"]
    )
    assert isinstance(table, pa.Table)
    assert table.num_rows == 3
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", table["id"][0].as_py())


def test_query__named_values(full_store: Any) -> None:
    catalog.publish(full_store)
    assert catalog.query(full_store, "SELECT $a + 1 AS x", {"a": 1}).to_pylist() == [{"x": 2}]


def test_query__unknown_table_lists_the_known_ones(full_store: Any) -> None:
    catalog.publish(full_store)
    with pytest.raises(BadInput, match=r"nope[^$]*The catalog has: .*examples.*selections"):
        catalog.query(full_store, "FROM nope")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM runs", "nope"),
        ("SELECT 'x'::INT", "Could not convert"),
        ("", ""),
    ],
)
def test_query__duckdbs_error_is_the_users(full_store: Any, sql: str, said: str) -> None:
    catalog.publish(full_store)
    if said:
        with pytest.raises(BadInput, match=said):
            catalog.query(full_store, sql)
    else:
        assert catalog.query(full_store, sql).num_rows == 0


def test_connect__a_long_query_draws_no_bar_into_the_output(full_store: Any) -> None:
    catalog.publish(full_store)
    with catalog.connect(full_store) as connection:
        assert connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]


def test_views__attached_to_an_analysts_own_file(full_store: Any, tmp_path: Path) -> None:
    catalog.publish(full_store)
    with duckdb.connect(str(tmp_path / "mine.duckdb")) as connection:
        connection.execute(f"ATTACH '{full_store.path('winnow.duckdb')}' AS w (READ_ONLY)")
        for name in LISTED:
            connection.execute(f"SELECT count(*) FROM w.{name}")
        connection.execute("USE w")
        connection.execute("CREATE TABLE mine.notes AS SELECT id, 'good' AS note FROM selection('s1')")
        assert connection.execute("SELECT count(*) FROM mine.notes JOIN examples USING (id)").fetchall() == [(3,)]


# ---- docs/sql.md

DOCS = Path(__file__).parents[3] / "docs" / "sql.md"


def blocks(language: str) -> list[str]:
    """The code of one language in the page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def documented(full_store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A published store with two recipes and a labeling project, in the working folder as `store`."""
    full_store.add_selection("s3", ["p5", "p1"], recipe="other")
    full_store.add_labels(
        "topics",
        [
            {"id": "p1", "label": "billing", "annotator": "ann"},
            {"id": "p1", "label": "card", "annotator": "bob"},
            {"id": "p2", "label": "unheard of"},
        ],
        ["billing", "card"],
    )
    full_store.add_round("topics", 0, ["p1", "p2"])
    full_store.add_model("topics", "m0", {"p1": "billing"})
    catalog.publish(full_store)
    monkeypatch.chdir(full_store.root.parent)
    return full_store


def test_docs__every_query_runs_and_shows_something(documented: Any) -> None:
    queries = [block for block in blocks("sql") if "ATTACH" not in block]
    assert len(queries) == 16
    with duckdb.connect("store/winnow.duckdb", read_only=True) as connection:
        for query in queries:
            for statement in connection.extract_statements(query):
                found = connection.execute(statement).fetchall()
                assert found or statement.type == duckdb.StatementType.SET, query
    assert [json.loads(line)["prompt"] for line in Path("train.jsonl").read_text().splitlines()] == ["p4", "p3", "p1"]
    assert json.loads(Path("labelled.jsonl").read_text())["label"] == "billing"
    assert documented.path("winnow.duckdb").exists()


@pytest.mark.usefixtures("documented")
def test_docs__own_tables_beside_the_catalog() -> None:
    (block,) = [block for block in blocks("sql") if "ATTACH" in block]
    with duckdb.connect("mine.duckdb") as connection:
        assert connection.execute(block).fetchall() == [(False, "p4"), (False, "p3"), (False, "p1")]


@pytest.mark.usefixtures("documented")
def test_docs__the_python_runs() -> None:
    (block,) = blocks("python")
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["table"].num_rows == 2


def test_docs__list_every_view_and_macro_with_its_comment() -> None:
    items = re.findall(r"^- `(\w+)`: (.*(?:\n  .*)*)", DOCS.read_text("utf-8"), re.MULTILINE)
    listed = {name: " ".join(text.split()) for name, text in items}
    assert listed == schema.RELATION_COMMENTS
