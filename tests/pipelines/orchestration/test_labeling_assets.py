"""The assets and the job of a labeling project."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from pipelines.orchestration.definitions import build_definitions
from tests.pipelines.conftest import change
from tests.pipelines.orchestration.conftest import LABELING_KEYS, materialize


def test_definitions__three_assets_a_project_with_checks_lineage_and_a_job(labeling: Path) -> None:
    definitions = build_definitions(labeling / "winnow.yaml")
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    nodes = {key.to_user_string(): graph.get(key) for key in graph.materializable_asset_keys if key.path[0] == "a-b"}
    assert sorted(nodes) == LABELING_KEYS
    parents = {name: sorted(key.to_user_string() for key in node.parent_keys) for name, node in nodes.items()}
    assert parents == {
        "a-b/labels": ["pool"],
        "a-b/model": ["a-b/labels", "vectors/embeddings"],
        "a-b/batch": ["a-b/model", "vectors/embeddings"],
    }
    checked = {check.asset_key.to_user_string() for check in graph.asset_check_keys}
    for name, node in nodes.items():
        assert node.description, name
        assert node.kinds, name
        assert (node.group_name, list(node.owners)) == ("label_a_b", ["team:data"])
        assert name in checked
    job = definitions.resolve_job_def("label_a_b").asset_layer.selected_asset_keys
    assert sorted(key.to_user_string() for key in job) == LABELING_KEYS
    others = definitions.resolve_job_def("reselect").asset_layer.selected_asset_keys
    assert not {key.to_user_string() for key in others} & set(LABELING_KEYS)


def test_materialize__labels_that_cannot_be_read_leave_recipes_and_catalog_green(light: Path) -> None:
    labeling = "labeling: {kinds: {classes: [fox, other], steps: [entropy], batch_size: 4, labels: labels/*}}\n"
    change(light, "schedule:", labeling + "schedule:")
    change(light, "[random], budget: 8", "[entropy, top], budget: 8, probabilities: kinds")
    (light / "labels").mkdir()
    (light / "labels" / "a.docx").write_bytes(b"no labels")
    keys = ["pool", "vectors/embeddings", "vectors/target_embeddings", "catalog"]
    keys += ["selection/near", "selection/any", "kinds/labels", "kinds/model", "kinds/batch"]
    result = materialize(light, keys)
    assert result.success
    failed = {
        (check.asset_key.to_user_string(), check.check_name): str(check.metadata["detail"].value)
        for check in result.get_asset_check_evaluations()
        if not check.passed
    }
    assert {asset for asset, _ in failed} == {"kinds/labels", "kinds/model", "kinds/batch", "selection/any"}
    assert "a.docx" in failed["kinds/labels", "made"]
    assert failed["kinds/model", "made"] == "pull kinds: failed; what depends on it stays as it was"
    assert failed["selection/any", "made"].startswith("pull kinds: failed")
