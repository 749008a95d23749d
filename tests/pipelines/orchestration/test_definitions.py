"""All that Dagster shows of one project."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest

from pipelines.orchestration.definitions import build_definitions
from tests.pipelines.conftest import change
from tests.pipelines.orchestration.conftest import KEYS, materialize


@pytest.mark.parametrize("kind", ["own vectors", "a model"])
def test_definitions__every_asset_is_described_owned_and_checked(light: Path, project: Path, kind: str) -> None:
    definitions = build_definitions((light if kind == "own vectors" else project) / "winnow.yaml")
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    checked = {check.asset_key for check in graph.asset_check_keys}
    assert len(graph.materializable_asset_keys) == len(KEYS) + (kind == "a model")
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description, key
        assert node.kinds, key
        assert node.group_name in {"pool", "vectors", "selections", "catalog"}, key
        assert node.owners == ["team:data"], key
        assert key in checked, key
    for asset in definitions.assets or ():
        assert isinstance(asset, dg.AssetsDefinition)
        for spec in asset.check_specs:
            path = spec.asset_key.path  # a failed recipe stops no other, nor do vectors that are not sound
            assert spec.blocking == (path[0] != "selection" and path[-1] != "health"), spec
            assert spec.description, spec


def test_definitions__lineage_and_a_code_version_that_follows_the_recipe(light: Path) -> None:
    def versions() -> dict[str, str | None]:
        graph = build_definitions(light / "winnow.yaml").resolve_asset_graph()
        return {
            key.to_user_string(): graph.get(key).code_version
            for key in graph.materializable_asset_keys
            if key.path[0] == "selection"
        }

    graph = build_definitions(light / "winnow.yaml").resolve_asset_graph()
    assert sorted(key.to_user_string() for key in graph.materializable_asset_keys) == KEYS
    parents = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.materializable_asset_keys
    }
    assert parents["selection/near"] == ["pool", "vectors/embeddings", "vectors/target_embeddings"]
    assert parents["selection/any"] == ["pool"]
    assert parents["catalog"] == ["selection/any", "selection/near", "vectors/health"]

    before = versions()
    change(light, "budget: 8", "budget: 9")
    after = versions()
    assert before["selection/near"] == after["selection/near"]
    assert before["selection/any"] != after["selection/any"]


def test_definitions__a_wrong_configuration_is_its_message(light: Path) -> None:
    change(light, "budget: 8", "bugdet: 8")
    with pytest.raises(ValueError, match=r"recipes\.any\.bugdet: unknown key"):
        build_definitions(light / "winnow.yaml")


def test_definitions__the_encoder_of_a_project_has_its_assets_without_a_recipe(labeling: Path) -> None:
    change(labeling, "near: {steps: [rds_plus], budget: 10}", "near: {steps: [random], budget: 10}")
    keys = build_definitions(labeling / "winnow.yaml").resolve_asset_graph().materializable_asset_keys
    assert "vectors/embeddings" in {key.to_user_string() for key in keys}


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize(
    ("steps", "kind", "indexed"),
    [
        ("rds_plus", "auto", False),
        ("rds_plus", "ivf", True),
        ("{outliers: {drop: 0.1}}, rds_plus", "auto", True),
        ("{outliers: {drop: 0.1}}, rds_plus", "flat", False),
    ],
)
def test_definitions__an_index_where_a_step_searches_or_the_user_asks(
    labeling: Path, steps: str, kind: str, *, indexed: bool, blocking: bool
) -> None:
    change(labeling, "{steps: [rds_plus]", f"{{steps: [{steps}]")
    health = f"index: {{kind: {kind}}}\nhealth: {{blocking: {str(blocking).lower()}}}\nrecipes:\n"
    change(labeling, "recipes:\n", health)
    graph = build_definitions(labeling / "winnow.yaml").resolve_asset_graph()
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.materializable_asset_keys
    }
    sound = {"vectors/embeddings", *(["vectors/health"] if blocking else [])}
    assert parents.get("vectors/vector_index") == (sound if indexed else None)
    for asset in ("selection/near", "a-b/batch"):  # nothing is drawn with vectors that a blocking check refused
        assert parents[asset] >= ({"vectors/vector_index"} if indexed else sound)


def test_definitions__a_project_whose_steps_search_has_an_index(labeling: Path) -> None:
    change(labeling, "steps: [entropy]", "steps: [anchors, entropy]")
    keys = build_definitions(labeling / "winnow.yaml").resolve_asset_graph().materializable_asset_keys
    assert "vectors/vector_index" in {key.to_user_string() for key in keys}


@pytest.mark.slow
def test_definitions__no_run_chooses_another_project(light: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(light, elsewhere)
    job = build_definitions(light / "winnow.yaml").resolve_job_def("reselect")
    configuration = {
        "resources": {
            "project": {"config": {"config_path": str(elsewhere / "winnow.yaml")}},
            "io_manager": {"config": {"base_dir": str(tmp_path / "written")}},
        }
    }
    with dg.instance_for_test() as instance:
        result = job.execute_in_process(configuration, instance=instance, asset_selection=[dg.AssetKey("pool")])
    assert result.success
    assert (light / "store" / "pool").is_dir()
    assert not (elsewhere / "store").exists()
    assert not (tmp_path / "written").exists()


def test_definitions__a_recipe_depends_on_what_gives_it_probabilities(labeling: Path) -> None:
    change(labeling, "near: {steps: [rds_plus],", "near: {steps: [entropy], probabilities: a-b,")
    change(labeling, "any: {steps: [random],", "any: {steps: [bald], probabilities: good,")
    with (labeling / "winnow.yaml").open("a") as file:
        file.write("classifiers:\n  good: {classes: {fit: {targets: foxes}, other: {sample: 9}}}\n")
    definitions = build_definitions(labeling / "winnow.yaml")
    graph = definitions.resolve_asset_graph()
    parents = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.materializable_asset_keys
    }
    assert parents["selection/near"] == ["a-b/model", "pool"]
    assert parents["selection/any"] == ["good/classifier", "pool"]
    assert parents["good/classifier"] == ["pool", "vectors/embeddings", "vectors/target_embeddings"]
    nightly = definitions.resolve_job_def("reselect").asset_layer.selected_asset_keys
    assert dg.AssetKey(["good", "classifier"]) in nightly
    assert dg.AssetKey(["a-b", "model"]) not in nightly


def test_definitions__a_classifier_is_materialized_before_its_recipe(light: Path) -> None:
    change(light, "any: {steps: [random],", "any: {steps: [bald], probabilities: good,")
    with (light / "winnow.yaml").open("a") as file:
        file.write("classifiers:\n  good: {features: ngrams, classes: {fit: {targets: foxes}, other: {sample: 9}}}\n")
    result = materialize(light, ["pool", "good/classifier", "selection/any"])
    assert result.success
    metadata = result.asset_materializations_for_node("good__classifier")[0].metadata
    assert str(metadata["summary"].value).startswith("fitted to 4 examples (2 fit, 2 other); on 2 held out ")
