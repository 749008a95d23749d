"""Labeling projects in Dagster: assets, jobs and the sensor for new labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from pipelines.orchestration.assets import build_definitions
from storage.labels.rounds import ITEM_COLUMNS, commit_round
from storage.store import Store
from tests.pipelines.conftest import change

SECTION = "labeling:\n  a-b: {classes: [x, y], steps: [entropy], labels: 'labels/*.jsonl'}\n"
KEYS = ["a-b/batch", "a-b/labels", "a-b/model"]


@pytest.fixture
def project(light: Path) -> Path:
    with (light / "winnow.yaml").open("a") as file:
        file.write(SECTION)
    (light / "labels").mkdir()
    return light


def look(project: Path, cursor: str | None) -> Any:
    (sensor,) = (one for one in build_definitions(project / "winnow.yaml").sensors or () if one.name == "new_labels")
    assert isinstance(sensor, dg.SensorDefinition)
    return sensor(dg.build_sensor_context(cursor=cursor))


def test_definitions__three_assets_a_project_with_checks_lineage_and_a_job(project: Path) -> None:
    definitions = build_definitions(project / "winnow.yaml")
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    nodes = {key.to_user_string(): graph.get(key) for key in graph.materializable_asset_keys if key.path[0] == "a-b"}
    assert sorted(nodes) == KEYS
    parents = {name: sorted(key.to_user_string() for key in node.parent_keys) for name, node in nodes.items()}
    assert parents == {
        "a-b/labels": ["pool"],
        "a-b/model": ["a-b/labels", "vectors/embeddings"],
        "a-b/batch": ["a-b/model", "vectors/vector_index"],
    }
    checked = {check.asset_key.to_user_string() for check in graph.asset_check_keys}
    for name, node in nodes.items():
        assert node.description, name
        assert node.kinds, name
        assert (node.group_name, list(node.owners)) == ("label_a_b", ["team:data"])
        assert name in checked
    job = definitions.resolve_job_def("label_a_b").asset_layer.selected_asset_keys
    assert sorted(key.to_user_string() for key in job) == KEYS
    others = definitions.resolve_job_def("reselect").asset_layer.selected_asset_keys
    assert not {key.to_user_string() for key in others} & set(KEYS)


def test_definitions__the_encoder_of_a_project_has_its_assets_without_a_recipe(project: Path) -> None:
    change(project, "near: {steps: [rds_plus], budget: 10}", "near: {steps: [random], budget: 10}")
    keys = build_definitions(project / "winnow.yaml").resolve_asset_graph().materializable_asset_keys
    assert {"vectors/embeddings", "vectors/vector_index"} <= {key.to_user_string() for key in keys}


def test_sensor__asks_at_first_at_each_change_and_when_a_lease_has_ended(project: Path) -> None:
    first = look(project, None)
    assert [request.job_name for request in first.run_requests] == ["label_a_b"]
    cursor = first.cursor
    assert isinstance(look(project, cursor), dg.SkipReason)

    (project / "labels" / "one.jsonl").write_text(json.dumps({"id": "fox-1", "label": "x"}) + "\n")
    seen = look(project, cursor)
    assert len(seen.run_requests) == 1
    assert isinstance(look(project, seen.cursor), dg.SkipReason)

    empty = pa.table({name: pa.array([], kind) for name, kind in ITEM_COLUMNS.items()})
    store = Store(project / "store")
    header = {"project": "a-b", "round": 0, "lease_until": "2999-01-01T00:00:00+00:00"}
    commit_round(store, header | {"round_id": "1" * 32}, empty)
    assert isinstance(look(project, seen.cursor), dg.SkipReason)  # still out
    commit_round(store, header | {"round_id": "2" * 32, "round": 1, "lease_until": "2001-01-01T00:00:00+00:00"}, empty)
    assert len(look(project, seen.cursor).run_requests) == 1


def test_sensor__new_files_does_not_look_at_labels(project: Path) -> None:
    def files(cursor: str | None) -> Any:
        (sensor,) = (one for one in build_definitions(project / "winnow.yaml").sensors or () if one.name == "new_files")
        assert isinstance(sensor, dg.SensorDefinition)
        return sensor(dg.build_sensor_context(cursor=cursor))

    cursor = files(None).cursor
    (project / "labels" / "one.jsonl").write_text("{}\n")
    assert isinstance(files(cursor), dg.SkipReason)
