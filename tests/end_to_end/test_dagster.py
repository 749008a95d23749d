"""Everything as a user of the UI does it: start it, cancel a run, materialize all assets, query the catalog."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from storage.store import Store
from tests.end_to_end.dagster_client import serving, wait_for
from tests.pipelines.conftest import change

ASSETS = [
    "catalog",
    "pool",
    "report",
    "selection/any",
    "selection/even",
    "selection/near",
    "tiny/embeddings",
    "tiny/health",
    "tiny/target_embeddings",
    "tiny/vector_index",
]


@pytest.mark.slow
def test_ui__all_assets_materialized_over_graphql_fill_the_catalog(project: Path) -> None:
    change(project, "recipes:\n", "index: {kind: ivf}\nrecipes:\n")
    with serving(project) as dagster:
        assert dagster.asset_keys() == ASSETS
        with Store(project / "store").lock("ingest", "a test"):
            cancelled = dagster.launch(["pool"])
            wait_for(lambda: "ExecutionStepStartEvent" in dagster.step_events(cancelled, "pool"), timeout_s=120)
            dagster.cancel(cancelled)
            assert dagster.wait(cancelled, timeout_s=60) == "CANCELED"
        run_id = dagster.launch(ASSETS)
        status = dagster.wait(run_id, timeout_s=600)
        events = dagster.events(run_id)
        refused = [
            dagster.status("/graphql?query=mutation{x}"),
            dagster.status("/", host="evil.example"),
            dagster.status("/graphql", b"{}", origin="http://evil.example"),
        ]
        answered = dagster.status("/")

    assert (refused, answered) == ([403, 403, 403], 200)
    failures = [event for event in events if event["__typename"] == "ExecutionStepFailureEvent"]
    assert (status, failures) == ("SUCCESS", [])
    made = {"/".join(event["assetKey"]["path"]) for event in events if event["__typename"] == "MaterializationEvent"}
    assert sorted(made) == ASSETS
    checks = [event["evaluation"] for event in events if event["__typename"] == "AssetCheckEvaluationEvent"]
    assert len(checks) == 35
    assert all(check["success"] for check in checks)

    with duckdb.connect(str(project / "store" / "winnow.duckdb"), read_only=True) as catalog:
        selections = catalog.sql("SELECT recipe, n_items FROM latest_selections ORDER BY recipe").fetchall()
        invocations = catalog.sql("SELECT count(DISTINCT invocation) FROM runs").fetchall()
        selected = catalog.sql(
            "SELECT count(*), count(DISTINCT e.id), count(prompt) FROM selected_examples e "
            "JOIN latest_selections USING (selection_id)"
        ).fetchall()
    assert selections == [("any", 10), ("even", 10), ("near", 10)]
    assert invocations == [(1,)]
    rows, _, with_text = selected[0]
    assert (rows, with_text) == (30, 30)
