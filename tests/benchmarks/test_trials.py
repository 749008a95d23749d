"""The benchmark of trials: its effects and order of models, and a run on a made-up pool that is stopped and goes on."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import trials
from trial_tables import ALL, HELD_OUT, Arm, Cell, control_of, effects_of, markdown

from pipelines.config.schema import LONGEST, PER_SOURCE, RANDOM

PLACES = {"x": np.arange(20), "y": np.arange(20, 40), HELD_OUT: np.arange(40, 60)}
BUDGET, SEEDS = 100, 3
NEAR_X, NEAR_Y, COVER = Arm("near", "V", "x"), Arm("near", "V", "y"), Arm("cover", "V")


def made_losses(*, seeds: int = SEEDS) -> dict[Cell, Any]:
    """Losses by which `near` helps on its own set by 1, and `cover` hurts by 1 everywhere."""
    rng = np.random.default_rng(0)
    gain = {NEAR_X: PLACES["x"], NEAR_Y: PLACES["y"]}
    losses = {}
    for seed in range(seeds):
        for arm in (Arm(RANDOM), Arm(LONGEST), NEAR_X, NEAR_Y, COVER, control_of(NEAR_X, PER_SOURCE)):
            values = 5 + rng.normal(scale=0.1, size=60)
            values[gain.get(arm, np.empty(0, int))] -= 1
            losses[Cell(arm, BUDGET, seed)] = values + (arm == COVER)
    return losses


def effects(losses: dict[Cell, Any]) -> list[dict[str, Any]]:
    return effects_of(losses, PLACES, [NEAR_X, NEAR_Y, COVER, Arm(LONGEST)], [BUDGET], SEEDS)


def verdicts(of: list[dict[str, Any]], way: str, against: str = RANDOM) -> dict[str, str]:
    return {e["measured_on"]: e["verdict"] for e in of if (e["way"], e["against"]) == (way, against)}


def test_effects_of__each_set_is_measured_by_the_model_of_its_own_rows() -> None:
    of = effects(made_losses())
    assert verdicts(of, "near, V") == {"x": "helped", "y": "helped", ALL: "helped", HELD_OUT: "no evidence"}
    assert verdicts(of, "cover, V") == dict.fromkeys(("x", "y", ALL, HELD_OUT), "hurt")
    (on_x,) = (e for e in of if (e["way"], e["measured_on"], e["against"]) == ("near, V", "x", RANDOM))
    assert on_x["mean"] == pytest.approx(1, abs=0.1)
    assert on_x["p"] < on_x["p_adjusted"]


def test_effects_of__seeds_and_controls_that_are_not_trained_yet_are_left_out() -> None:
    losses = made_losses()
    del losses[Cell(NEAR_Y, BUDGET, 2)]
    of = effects(losses)
    assert {e["seeds"] for e in of if e["way"] == "near, V"} == {2}
    assert {e["seeds"] for e in of if e["way"] == "cover, V"} == {3}
    assert verdicts(of, "near, V", PER_SOURCE) == {}  # of y there is none
    assert verdicts(of, "longest", LONGEST) == {}
    assert effects(made_losses(seeds=1)) == []


def test_markdown__a_row_for_each_way_and_the_losses_among_them() -> None:
    text = markdown(effects(made_losses()), [], [])
    assert "| near, V | 2 / 0 / 0 | 2 / 0 / 0 |" in text
    assert "| cover, V | 0 / 0 / 2 | 0 / 0 / 2 |" in text


def test_cells_of__what_sees_no_target_is_trained_once() -> None:
    arms = trials.arms_of(["V", "W"], ["x", "y"])
    cells = trials.cells_of(arms, [1, 2], 2)
    assert len(cells) == len(set(cells))
    assert sum(cell.arm == Arm("k_center", "V") for cell in cells) == 2 * 2
    assert sum(cell.arm.method == "rds_plus" and cell.arm.control is None for cell in cells) == 2 * 2 * 2 * 2
    assert sum(cell.arm.method == "dsir" and cell.arm.control is None for cell in cells) == 2 * 2 * 2
    seeds = [cell.seed for cell in cells if cell.arm.control is None]
    assert seeds == sorted(seeds)


def write_files(folder: Path) -> None:
    """Rows of three kinds, each of words of its own, and target sets of two of them."""
    rng = random.Random(0)
    words = {kind: [f"{kind}{number}" for number in range(60)] for kind in "xyz"}
    (folder / "pool").mkdir()
    for kind in "xyz":
        rows = [
            {
                "id": f"{kind}-{number}",
                "source": kind,
                "prompt": " ".join(rng.choices(words[kind], k=12)),
                "response": " ".join(rng.choices(words[kind], k=10)),
            }
            for number in range(94)
        ]
        (folder / "pool" / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:70]))
        (folder / f"{kind}_set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[70:]))


@pytest.mark.slow
def test_main__a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    chosen = ("rds_plus", "interests", "dsir", "diversity_filter", LONGEST)
    monkeypatch.setattr(trials, "METHODS", {method: trials.METHODS[method] for method in chosen})
    command = ["--pool", tmp_path / "pool", "--targets", tmp_path / "x_set.jsonl", tmp_path / "y_set.jsonl"]
    command += ["--cache", tmp_path / "cache", "--out", tmp_path / "out", "--retrieve", "x_set", r"(\d)$"]
    command += ["--vectors", "n-grams", "--rows", 200, "--budgets", 1024, "--epochs", 1, "--seeds", 2]
    arguments = list(map(str, command))

    assert trials.main(arguments) == 0
    written = {name: (tmp_path / "out" / name).read_bytes() for name in ("trials.json", "trials.md")}
    ways = {effect["way"] for effect in json.loads(written["trials.json"])["effects"]}
    assert ways == {arm.way for arm in trials.arms_of(["n-grams"], ["x_set", "y_set"])}
    cells = sorted((tmp_path / "cache" / "losses").iterdir())
    for cell in cells[:2]:
        cell.unlink()
    made = []
    losses = trials.Bench._losses
    monkeypatch.setattr(trials.Bench, "_losses", lambda *given: made.append(given) or losses(*given))
    assert trials.main(arguments) == 0
    assert len(made) == 2
    assert {name: (tmp_path / "out" / name).read_bytes() for name in written} == written
