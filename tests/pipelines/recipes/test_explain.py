"""A selection in two small tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.context import open_context
from pipelines.progress import Log
from pipelines.recipes.explain import FIRST_ROWS, excerpt, explain, ready_sql, why
from pipelines.run import run_all
from pipelines.stages.ingest import ingest
from pipelines.stages.select import select
from storage.catalog.query import query_catalog
from tests.pipelines.conftest import change


def test_explain__counts_by_source_and_first_rows_agree_with_sql(light: Path) -> None:
    context = open_context(light, Log(lambda _: None))
    near, _ = run_all(context)
    explained = explain(context, near.subject)
    counted = query_catalog(
        context.store,
        "SELECT source, count(*) AS selected FROM selected_examples WHERE selection_id = ? GROUP BY ALL",
        [near.subject],
    ).to_pylist()
    assert {one["source"]: one["selected"] for one in explained.by_source} == {
        one["source"]: one["selected"] for one in counted
    }
    assert all(one["share_of_pool"] == 0.125 for one in explained.by_source)
    pasted = query_catalog(context.store, ready_sql(near.subject)).to_pylist()
    assert [(one["rank"], one["source"], one["prompt"]) for one in explained.first_rows] == [
        (one["rank"], one["source"], one["prompt"]) for one in pasted[:FIRST_ROWS]
    ]
    assert explained.first_rows[0]["why"].startswith("target foxes/fox-10")
    assert explained.header["recipe"] == "near"


def test_explain__before_anything_is_published_and_of_an_empty_selection(light: Path) -> None:
    change(light, "budget: 8", "budget: 8, where: 1 = 2, allow_short: true")
    context = open_context(light, Log(lambda _: None))
    ingest(context)
    outcome = select(context, "any")
    explained = explain(context, outcome.subject)
    assert (explained.by_source, explained.first_rows) == ([], [])


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"kind": "kept", "ref": None, "ref_rank": None, "value": None}, "kept"),
        ({"kind": "stratum", "ref": "wiki", "ref_rank": None, "value": 3.0}, "stratum wiki"),
        ({"kind": "target_set", "ref": "a", "ref_rank": 2, "value": None}, "target_set a, 2nd in its list"),
        ({"kind": "neighbour", "ref": "id", "ref_rank": None, "value": -0.25}, "neighbour id, -0.250"),
    ],
)
def test_why__in_words(item: dict, words: str) -> None:
    assert why(item) == words


def test_excerpt__one_line_of_at_most_the_width() -> None:
    assert excerpt("a\n\tb") == "a b"
    assert excerpt("x" * 100) == "x" * 100
    assert excerpt("x" * 101) == "x" * 99 + "…"
