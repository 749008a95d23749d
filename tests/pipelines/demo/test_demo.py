"""The demo on the user's own file; the harvested one is in test_harvest.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config.load import load_config
from pipelines.demo.demo import prepare
from storage.errors import BadInput
from tests.conftest import row, write_rows


@pytest.mark.parametrize(("rows", "targets", "budget"), [(3, 1, 1), (40, 4, 10), (600, 20, 100)])
def test_prepare__a_small_file_gives_fewer_targets_and_a_smaller_budget(
    tmp_path: Path, rows: int, targets: int, budget: int
) -> None:
    write_rows(tmp_path / "mine.jsonl", [row(n, "fox") for n in range(rows)])
    said: list[str] = []
    prepare(tmp_path / "demo", 1500, tmp_path / "mine.jsonl", said.append)

    config = load_config(tmp_path / "demo")
    assert [recipe.budget for recipe in config.recipes.values()] == [budget] * 3
    lines = (tmp_path / "demo" / "targets" / "own.jsonl").read_text().splitlines()
    prompts = {json.loads(line)["prompt"] for line in lines}
    assert len(lines) == len(prompts) == targets
    assert prompts <= {row(n, "fox")["prompt"] for n in range(rows)}
    assert said == [
        f"no targets were given, so {targets} of the {rows} rows of {tmp_path}/mine.jsonl, drawn at random, stand for them"
    ]


def test_prepare__the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", [row(n, "fox") for n in range(30)])
    prepare(tmp_path / "demo", 1500, tmp_path / "mine.jsonl", lambda _: None)
    edited = tmp_path / "demo" / "winnow.yaml"
    edited.write_text(edited.read_text() + "# mine\n")
    prepare(tmp_path / "demo", 1500, tmp_path / "mine.jsonl", lambda _: None)
    assert edited.read_text().endswith("# mine\n")


def test_prepare__a_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("\n")
    with pytest.raises(BadInput, match=r"mine\.jsonl: there are no readable rows"):
        prepare(tmp_path / "demo", 1500, tmp_path / "mine.jsonl", lambda _: None)


def test_prepare__for_a_trial_a_part_of_the_targets_only_measures(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", [row(n, "fox") for n in range(200)])
    prepare(tmp_path / "demo", 1500, tmp_path / "mine.jsonl", lambda _: None, trial=True)
    config = load_config(tmp_path / "demo")
    assert config.targets["own"].measure == 0.6
    assert config.trials is not None
    assert config.trials.size == "tiny"
