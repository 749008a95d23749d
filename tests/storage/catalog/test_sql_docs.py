"""The queries of docs/sql.md run and show something; those of docs/cookbook.md name what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from storage.catalog import schema
from storage.catalog.publish import publish_catalog
from storage.ids import from_bytes, to_arrow
from storage.labels.classifiers import commit_classifier
from tests.storage.conftest import id_of

DOCS = Path(__file__).parents[3] / "docs" / "sql.md"
COOKBOOK = DOCS.with_name("cookbook.md")


def blocks(language: str, page: Path = DOCS) -> list[str]:
    """The code of one language in the page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def add_classifier(store: Any) -> None:
    ids = to_arrow(from_bytes([id_of("p1"), id_of("p2")]))
    examples = {"id": ids, "class": ["good", "other"], "target_set": ["tasks", None], "held_out": [True, False]}
    header = {
        "classifier_id": "c0",
        "name": "quality",
        "classes": ["good", "other"],
        "features": {"ngrams": 8},
        "estimator": "logistic_regression",
        "seed": 0,
        "snapshot": "s",
        "targets": {"tasks": "t"},
        "metrics": {"examples": 2, "held_out": 1, "accuracy": 1.0},
        "notes": [],
    }
    commit_classifier(store, header, pa.table(examples))


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
    full_store.add_round("topics", 0, ["p1", "p2"], assigned=[["ann"], ["ann", "bob"]])
    full_store.add_model("topics", "m0", {"p1": "billing"})
    full_store.add_contamination("c0", ["p1"])
    add_classifier(full_store)
    publish_catalog(full_store)
    monkeypatch.chdir(full_store.root.parent)
    return full_store


def test_docs__every_query_runs_and_shows_something(documented: Any) -> None:
    queries = [block for block in blocks("sql") if "ATTACH" not in block]
    assert len(queries) == 3
    with duckdb.connect("store/winnow.duckdb", read_only=True) as connection:
        for query in queries:
            for statement in connection.extract_statements(query):
                result = connection.execute(statement).fetchall()
                assert result or statement.type == duckdb.StatementType.SET, query
    written = [json.loads(line)["messages"] for line in Path("train.jsonl").read_text().splitlines()]
    assert [messages[0] for messages in written] == [{"role": "user", "content": name} for name in ("p4", "p3", "p1")]
    assert json.loads(Path("labelled.jsonl").read_text())["label"] == "billing"
    assert documented.path("winnow.duckdb").exists()


@pytest.mark.usefixtures("documented")
def test_cookbook__every_query_runs() -> None:
    """That each gives rows is for tests/pipelines/test_cookbook.py, which needs a project that ran."""
    queries = blocks("sql", COOKBOOK)
    assert len(queries) >= 50
    with duckdb.connect("store/winnow.duckdb", read_only=True) as connection:
        for query in queries:
            connection.execute(query).fetchall()


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
