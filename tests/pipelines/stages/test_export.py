"""Entries of `exports`: what `winnow run` and Dagster write, and what leaves the last export as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config.load import load_config
from pipelines.errors import ConfigError, RecipesFailed
from pipelines.run import run_all
from pipelines.runs import last_run
from tests.pipelines.conftest import change, opened
from tests.pipelines.orchestration.conftest import materialize

EXPORTS = """
exports:
  chat: {recipe: any, to: messages, trainer: axolotl, out: out/chat, columns: [rank], shards: 2}
  names: {recipe: near, to: ids}
"""


@pytest.fixture
def exporting(light: Path) -> Path:
    with (light / "winnow.yaml").open("a") as file:
        file.write(EXPORTS)
    return light


def selection_in(folder: Path) -> str:
    selection: str = json.loads((folder / "provenance.json").read_text())["selection"]
    return selection


def test_run_all__writes_the_exports_of_the_recipes_that_it_drew(exporting: Path) -> None:
    said: list[str] = []
    context = opened(exporting, said)
    run_all(context, ["any"])
    assert not (exporting / "exports").exists()
    last = last_run(context.store, "export", "chat")
    assert last is not None
    assert last["facts"]["rows"] == 8
    assert last["subject"] == selection_in(exporting / "out/chat")
    assert said[-1] == f"export/chat: 8 rows written to {exporting}/out/chat"


def test_run_all__what_fails_leaves_the_last_export_as_it_was(exporting: Path) -> None:
    run_all(opened(exporting), ["any"])
    before = selection_in(exporting / "out/chat")
    change(exporting, "budget: 8", "budget: 8, seed: 1, min_overlap: 1.0")
    with pytest.raises(RecipesFailed, match="overlap_above_floor"):
        run_all(opened(exporting), ["any"])
    assert selection_in(exporting / "out/chat") == before

    change(exporting, "min_overlap: 1.0", "min_overlap: 0.0")
    change(exporting, "to: messages, trainer: axolotl", "to: text")
    with pytest.raises(RecipesFailed, match="export chat: 8 of 8 rows of any cannot be exported as text") as error:
        run_all(opened(exporting), ["any"])
    assert (list(error.value.errors), list(error.value.exports)) == ([], ["chat"])
    assert selection_in(exporting / "out/chat") == before
    assert (exporting / "out/chat/axolotl.yaml").exists()


@pytest.mark.slow
def test_materialize__an_asset_for_each_entry_behind_its_recipe(exporting: Path) -> None:
    change(exporting, "near: {steps: [rds_plus]", "near: {steps: [random]")
    assert materialize(exporting, ["pool", "selection/any", "selection/near", "export/chat", "export/names"]).success
    before = selection_in(exporting / "out/chat")
    change(exporting, "budget: 8", "budget: 8, seed: 1, min_overlap: 1.0")
    result = materialize(exporting, ["pool", "selection/any", "export/chat"])
    assert not result.success
    assert selection_in(exporting / "out/chat") == before
    change(exporting, "trainer: axolotl", "trainer: trl")
    assert not materialize(exporting, ["pool", "selection/any", "export/chat"]).success
    assert sorted(path.name for path in (exporting / "exports/names").iterdir()) == [
        "README.md",
        "data",
        "provenance.json",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("to: ids", "to: idz", "winnow.yaml:14: exports.names.to: must be one of messages, .* found 'idz'"),
        ("recipe: near", "recipe: nea", "exports.names.recipe: no recipe is called 'nea'"),
        ("trainer: axolotl", "trainer: axolot", "exports.chat.trainer: must be one of .*did you mean `axolotl`"),
        ("to: messages", "to: alpaca", "exports.chat.trainer: axolotl reads messages, text, not 'alpaca'"),
        ("shards: 2", "shard: 2", "exports.chat.shard: unknown key"),
        ("to: ids", "to: ids, out: out/chat", "exports.names.out: is the folder of the export 'chat' too"),
        ("to: ids", "to: ids, columns: [a, a]", "exports.names.columns: 'a' comes twice"),
        ("to: ids", "to: ids, allow_left_out: 2", "exports.names.allow_left_out: must be at most 1"),
        ("pool:\n", "encoders: {export: {model: org/name}}\npool:\n", "encoders.export: `export` is what the assets"),
    ],
)
def test_config__mistakes_are_found_before_any_work(exporting: Path, old: str, new: str, message: str) -> None:
    change(exporting, old, new)
    with pytest.raises(ConfigError, match=message):
        load_config(exporting)


def test_config__without_exports_has_the_digest_that_it_had(light: Path, exporting: Path) -> None:
    assert "exports" in load_config(exporting).model_dump()
    text = (exporting / "winnow.yaml").read_text().replace(EXPORTS, "")
    (light / "winnow.yaml").write_text(text)
    assert "exports" not in load_config(light).model_dump()
