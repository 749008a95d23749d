"""The relations of a catalog, over a store small enough to check by hand."""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selection.encoders import Checkpoint, EncoderSpec, GradientSpec
from storage.catalog.publish import publish_catalog
from storage.duck import quoted
from storage.ids import from_bytes, to_arrow
from storage.pool.columns import ingest_columns
from storage.pool.ingest import FileSpec
from storage.pool.targets import ingest_targets
from storage.records import commit_metrics, commit_selection, read_selection
from storage.reports import CHANGES_SCHEMA
from storage.store import utc_now, write_json
from storage.vectors.index import IndexRecord
from storage.vectors.segments import commit_segment, describe_encoder
from tests.storage.catalog.conftest import rows
from tests.storage.catalog.test_schema import LISTED
from tests.storage.conftest import SmallStore, id_of


def test_examples__the_pool_as_it_is_now_without_repeats(full_store: Any) -> None:
    publish_catalog(full_store)
    result = rows(full_store, "SELECT prompt, response, source, line FROM examples ORDER BY prompt")
    assert result == [
        ("p1", "answer to p1", "a", 1),
        ("p2", "answer to p2", "a", 3),
        ("p3", "answer to p3", "a", 4),
        ("p4", "answer to p4", "b", 2),
        ("p5", "answer to p5", "b", 3),
    ]


def test_pool__every_row_is_accounted_for(full_store: Any) -> None:
    publish_catalog(full_store)
    per_file = (
        "SELECT split_part(file, '/', -1), \"read\", kept, duplicate, quarantined FROM snapshot_files ORDER BY file"
    )
    assert rows(full_store, per_file) == [("a.jsonl", 4, 3, 0, 1), ("b.jsonl", 3, 2, 1, 0)]
    assert rows(full_store, 'SELECT ingests, "read", kept, duplicate, quarantined FROM pools') == [(2, 7, 5, 1, 1)]
    kept = "SELECT d.source, d.line, k.source, k.line FROM duplicates d JOIN examples k ON k.ingest = kept_ingest AND k.line = kept_line"
    assert rows(full_store, kept) == [("b", 1, "a", 4)]
    assert rows(full_store, "SELECT split_part(file, '/', -1), line, excerpt FROM quarantine") == [("a.jsonl", 2, "{")]


def test_selection__items_with_their_text_in_rank_order(full_store: Any) -> None:
    publish_catalog(full_store)
    result = rows(full_store, "SELECT rank, prompt, kind, ref, year FROM selection('s2')")
    assert result == [
        (1, "p4", "target", "gsm8k", 2002.0),
        (2, "p3", "target", "gsm8k", None),
        (3, "p1", "target", "gsm8k", None),
    ]


def test_selection_diff__says_what_changed(full_store: Any) -> None:
    publish_catalog(full_store)
    result = rows(full_store, "SELECT prompt, change, rank_a, rank_b, source FROM selection_diff('s1', 's2')")
    assert result == [
        ("p4", "kept", 3, 1, "b"),
        ("p3", "added", None, 2, "a"),
        ("p1", "kept", 1, 3, "a"),
        ("p2", "dropped", 2, None, "a"),
    ]
    assert {row[1] for row in rows(full_store, "SELECT id, change FROM selection_diff('s1', 's1')")} == {"kept"}


def test_selection_changes__by_run_with_causes_where_there_is_a_report(store: SmallStore) -> None:
    store.add_snapshot([store.add_file("a", ["p1", "p2", "p3", "p4"])])
    store.add_selection("s1", ["p1", "p2", "p3"], status=None)
    store.add_selection("s2", ["p4", "p3", "p1"], status=None)
    for night, selection in (("n1", "s1"), ("n2", "s1"), ("n3", "s2")):
        store.add_run("select", "mine", selection, invocation=night)
        store.add_run("select", "mine", "s2", "held_back", invocation=night)
    causes = {
        "recipe": ["mine"] * 2,
        "change": ["added", "dropped"],
        "cause": ["new_row", "gone"],
        "detail": [None, "why"],
    }
    ids = to_arrow(from_bytes([id_of("p4"), id_of("p2")]))
    with store.committing("records", "reports", "n3") as folder:
        verdict = {"state": "published", "line": "Published: 1 recipe, 3 rows.", "rows": 3, "recipes": 1}
        document = {"format": 1, "run": "n3", "created_at": "2026-01-01", "verdict": verdict, "recipes": []}
        (folder / "report.json").write_text(json.dumps(document))
        (folder / "report.html").write_text("<p>")
        pq.write_table(pa.table(causes | {"id": ids}, schema=CHANGES_SCHEMA), folder / "changes.parquet")
    # A report of an earlier version says no more than the cause.
    with store.committing("records", "reports", "n2") as folder:
        (folder / "report.json").write_text(json.dumps(document | {"run": "n2"}))
        (folder / "report.html").write_text("<p>")
        causes["recipe"] = ["another"] * 2
        earlier = pa.table(causes | {"id": ids}, schema=CHANGES_SCHEMA).drop_columns(["detail"])
        pq.write_table(earlier, folder / "changes.parquet")
    publish_catalog(store)
    details = "SELECT invocation, change, detail FROM change_causes ORDER BY ALL"
    assert rows(store, details) == [
        *(("n2", change, None) for change in ("added", "dropped")),
        *(("n3", "added", None), ("n3", "dropped", "why")),
    ]
    query = (
        "SELECT invocation, prompt, change, cause, c.rank, previous_rank, selection_id, previous "
        "FROM selection_changes c JOIN examples USING (id) WHERE recipe = 'mine' ORDER BY ALL"
    )
    assert rows(store, query) == [
        ("n2", "p1", "kept", None, 1, 1, "s1", "s1"),
        ("n2", "p2", "kept", None, 2, 2, "s1", "s1"),
        ("n2", "p3", "kept", None, 3, 3, "s1", "s1"),
        ("n3", "p1", "kept", None, 3, 1, "s2", "s1"),
        ("n3", "p2", "dropped", "gone", None, 2, "s2", "s1"),
        ("n3", "p3", "kept", None, 2, 3, "s2", "s1"),
        ("n3", "p4", "added", "new_row", 1, None, "s2", "s1"),
    ]
    assert rows(store, "SELECT invocation, state, recipes, rows FROM reports WHERE invocation = 'n3'") == [
        ("n3", "published", 1, 3)
    ]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("s1", "s2", (3, 3, 2, 0.5)),
        ("s1", "s1", (3, 3, 3, 1.0)),
    ],
)
def test_overlap__counts(full_store: Any, a: str, b: str, expected: tuple[Any, ...]) -> None:
    publish_catalog(full_store)
    assert rows(full_store, "FROM overlap(?, ?)", [a, b]) == [expected]


def test_selection__takes_the_name_of_a_recipe_and_refuses_another(full_store: Any) -> None:
    full_store.add_run("select", "mine", "s1", "held_back")
    publish_catalog(full_store)
    latest = "SELECT id FROM selection('{}')"
    assert rows(full_store, latest.format("mine")) == rows(full_store, latest.format("s2"))
    assert rows(full_store, "SELECT selection_of('mine'), selection_of('s1')") == [("s2", "s1")]
    for name in ("selection", "overlap", "selection_diff"):
        arguments = "'nosuch'" if name == "selection" else "'nosuch', 's1'"
        with pytest.raises(duckdb.Error, match="no recipe with a selection the name, nosuch"):
            rows(full_store, f"FROM {name}({arguments})")


def test_selected_examples__rows_of_an_older_pool_still_have_their_text(full_store: Any) -> None:
    (parent,) = full_store.records("snapshots")
    b = full_store.add_file("b", ["p3", "p4", "p5"], extra=[{"year": y} for y in (2001, 2002, 2003)])
    c = full_store.add_file("c", ["p1", "p9"])
    full_store.add_snapshot([b, c], parent)
    publish_catalog(full_store)
    assert rows(full_store, "SELECT prompt FROM examples ORDER BY prompt") == [
        ("p1",),
        ("p3",),
        ("p4",),
        ("p5",),
        ("p9",),
    ]
    # p1 stands in a file that went and in one that is there: the one that is there. p2 is gone from the pool, not from
    # sight.
    result = rows(full_store, "SELECT prompt, source FROM selection('s1')")
    assert result == [("p1", "c"), ("p2", "a"), ("p4", "b")]
    assert rows(full_store, "SELECT count(*) FROM snapshots") == [(2,)]
    gone = "SELECT t.snapshot = (SELECT snapshot FROM pools), prompt FROM tombstones t JOIN pool_rows USING (id)"
    assert rows(full_store, gone) == [(True, "p2")]


def test_selected_examples__an_id_that_nothing_explains_is_not_dropped(full_store: Any) -> None:
    full_store.add_selection("s3", ["p1", "never seen"])
    publish_catalog(full_store)
    assert rows(full_store, "SELECT rank, prompt FROM selection('s3')") == [(1, "p1"), (2, None)]


def test_selection_drops_and_finds__what_filters_tell(full_store: Any) -> None:
    ids = from_bytes([full_store.id_of("p1"), full_store.id_of("p2")])
    report = {
        "id": to_arrow(ids),
        "kind": ["a", "b"],
        "ref": ["r", None],
        "value": [0.5, None],
        "step": ["one", "two"],
    }
    items = read_selection(full_store, "s1")[1]
    result = pa.table(report).slice(0, 1)
    commit_selection(full_store, {"selection_id": "s9", "recipe": "mine"}, items, pa.table(report), result)
    publish_catalog(full_store)
    columns = "selection_id, step, kind, ref, value"
    assert rows(full_store, f"SELECT {columns} FROM selection_finds") == [("s9", "one", "a", "r", 0.5)]
    assert rows(full_store, f"SELECT {columns} FROM selection_drops ORDER BY step") == [
        ("s9", "one", "a", "r", 0.5),
        ("s9", "two", "b", None, None),
    ]


def test_pools__an_older_snapshot_that_comes_back_is_the_latest(full_store: Any) -> None:
    first = full_store.committed("pool")
    full_store.add_snapshot([*first, full_store.add_file("c", ["p9"])])
    publish_catalog(full_store)
    assert rows(full_store, "SELECT kept FROM pools") == [(6,)]
    full_store.add_snapshot(first)  # its record was there; only the run is new
    publish_catalog(full_store)
    assert rows(full_store, "SELECT kept FROM pools") == [(5,)]


def test_pools__an_ingest_that_was_held_back_does_not_count(full_store: Any) -> None:
    (good,) = full_store.records("snapshots")
    full_store.add_file("c", ["p9"])
    bad = full_store.add_snapshot(full_store.committed("pool"))
    newest = full_store.records("runs")[-1]
    shutil.rmtree(full_store.path("records", "runs", newest))
    full_store.add_run("ingest", None, bad, "held_back")
    publish_catalog(full_store)
    assert rows(full_store, "SELECT snapshot FROM pools") == [(good,)]


def test_latest_selections__newest_per_recipe_whose_checks_passed(full_store: Any) -> None:
    full_store.add_selection("s3", ["p5"], status="held_back")
    full_store.add_selection("s4", ["p5", "p1"], status=None)
    full_store.add_selection("s5", ["p5", "p2"], recipe="other")
    publish_catalog(full_store)
    latest = "SELECT recipe, selection_id FROM latest_selections ORDER BY recipe"
    assert rows(full_store, latest) == [("mine", "s2"), ("other", "s5")]
    full_store.add_selection("s1", ["p1", "p2", "p4"])  # drawn again: no new record, a new run
    publish_catalog(full_store)
    assert rows(full_store, latest) == [("mine", "s1"), ("other", "s5")]


def test_latest_selections__two_recipes_that_draw_the_same_have_one_row_each(full_store: Any) -> None:
    full_store.add_selection("s2", ["p4", "p3", "p1"], recipe="twin")
    publish_catalog(full_store)
    latest = rows(full_store, "SELECT recipe, selection_id FROM latest_selections ORDER BY recipe")
    assert latest == [("mine", "s2"), ("twin", "s2")]


def test_metrics_and_runs__are_rows(full_store: Any) -> None:
    commit_metrics(full_store, "s1", {"loss": 1.5, "accuracy": 0.25})
    publish_catalog(full_store)
    metrics = rows(full_store, "SELECT selection_id, name, value FROM metrics ORDER BY name")
    assert metrics == [("s1", "accuracy", 0.25), ("s1", "loss", 1.5)]
    assert rows(full_store, "SELECT stage, status, subject, facts->>'x' FROM runs WHERE stage = 'ingest'") == [
        ("ingest", "ok", full_store.records("snapshots")[0], "1")
    ]


def test_selections__fields_without_a_column_are_in_the_record(full_store: Any) -> None:
    publish_catalog(full_store)
    result = rows(
        full_store, "SELECT steps->>0, budget, n_items, record->>'recipe' FROM selections WHERE selection_id = 's1'"
    )
    assert result == [("random", 3, 3, "mine")]


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
    publish_catalog(store)
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
    names = ", ".join(quoted(name) for name in expected)
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
    publish_catalog(store)
    assert rows(store, "SELECT year + 1 FROM examples") == [(2021.0,)]
    assert rows(store, "SELECT prompt, year, gone FROM pool_rows ORDER BY prompt") == [
        ("p1", None, True),
        ("p2", 2020.0, None),
    ]


def test_extra_fields__keys_that_are_data_do_not_make_a_catalog_of_columns(store: Any) -> None:
    extra = {f"key_{i:04d}": i for i in range(500)}
    store.add_snapshot([store.add_file("a", ["p1"], extra=[extra])])
    publish_catalog(store)
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
    publish_catalog(full_store)
    # `year` of the columns stands before the field of that name.
    result = rows(full_store, "SELECT prompt, difficulty, year, year_ FROM examples ORDER BY prompt")
    assert result == [
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
    ids = np.sort(from_bytes(full_store.id_of(prompt) for prompt in ("p1", "p2", "p3")))
    details = {
        "device": "cpu",
        "tokens": 30,
        "truncated": 1,
        "seconds": 0.5,
        "created_at": utc_now(),
        "batch_tokens": 9,
    }
    failed = np.array([False, False, True])
    commit_segment(full_store, "e1", ids, vectors, details, failed=failed)
    publish_catalog(full_store)  # before the encoder is described
    assert rows(full_store, "SELECT * FROM encoders") == []
    spec = asdict(EncoderSpec(model="org/model", revision="main", pooling="mean", template="plain", max_tokens=512))
    described = {"encoder": "e1", "spec": spec, "dimension": 4, "max_tokens": 256, "notes": [], "created_at": utc_now()}
    describe_encoder(full_store, "e1", described)
    checkpoints = [Checkpoint(model=f"org/c{n}") for n in (1, 2)]
    several = asdict(GradientSpec(checkpoints=checkpoints, dims=8))
    describe_encoder(full_store, "e2", {"encoder": "e2", "spec": several, "dimension": 16, "created_at": utc_now()})
    moved = {"encoder": "e3", "spec": spec | {"postprocess": {"method": "center"}}, "base": "e1", "fit": "f"}
    describe_encoder(full_store, "e3", moved | {"dimension": 4, "created_at": utc_now()})
    index = {
        "index": "i1", "encoder": "e1", "snapshot": "s", "content": "c", "ids": "x", "kind": "flat", "cells": 0, "n_rows": 2,
        "n_dead": 0, "dimension": 4, "trained_on": 2, "nprobe": 0, "recall_at_10": 1.0, "recall_sample": 2, "seed": 0,
        "parent": None, "device": "cpu", "created_at": utc_now(), "number": 1, "parts": [],
    }  # fmt: skip
    assert set(index) == {field.name for field in fields(IndexRecord)}
    with full_store.committing("indexes", "i1") as folder:
        write_json(folder / "index.json", index)
    publish_catalog(full_store)
    sql = "SELECT encoder, model, revision, pooling, template, max_tokens, dtype, dimension FROM encoders"
    assert rows(full_store, f"{sql} WHERE encoder = 'e1'") == [
        ("e1", "org/model", "main", "mean", "plain", 256, "float32", 4)
    ]
    sql = """
        SELECT encoder, kind, model, models->>'$[1]', base, fit, options->>'dims', options->>'$.postprocess.method'
        FROM encoders ORDER BY ALL"""
    assert rows(full_store, sql) == [
        ("e1", "hidden_states", "org/model", None, None, None, None, None),
        ("e2", "gradients", None, "org/c2", None, None, "8", None),
        ("e3", "hidden_states", "org/model", None, "e1", "f", None, "center"),
    ]
    sql = "SELECT encoder, n_rows, n_failed, tokens, truncated, device, seconds FROM embeddings"
    assert rows(full_store, sql) == [("e1", 2, 1, 30, 1, "cpu", 0.5)]
    sql = "SELECT \"index\", encoder, kind, n_rows, recall_at_10, record->>'recall_sample' FROM indexes"
    assert rows(full_store, sql) == [("i1", "e1", "flat", 2, 1.0, "2")]


def test_targets__are_rows(full_store: Any, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "what", "response": "that"}\n')
    made = ingest_targets(full_store, "exam", [FileSpec(str(tmp_path / "t.jsonl"))])
    publish_catalog(full_store)
    assert rows(full_store, "SELECT targets, target_set, prompt, response, line FROM targets") == [
        (made.id, "exam", "what", "that", 1)
    ]


def test_views__attached_to_an_analysts_own_file(full_store: Any, tmp_path: Path) -> None:
    publish_catalog(full_store)
    with duckdb.connect(str(tmp_path / "mine.duckdb")) as connection:
        connection.execute(f"ATTACH '{full_store.path('winnow.duckdb')}' AS w (READ_ONLY)")
        for name in LISTED:
            connection.execute(f"SELECT count(*) FROM w.{name}")
        connection.execute("USE w")
        connection.execute("CREATE TABLE mine.notes AS SELECT id, 'good' AS note FROM selection('s1')")
        assert connection.execute("SELECT count(*) FROM mine.notes JOIN examples USING (id)").fetchall() == [(3,)]
