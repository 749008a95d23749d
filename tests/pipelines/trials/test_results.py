"""Scores of models trained elsewhere: kept, judged over seeds, and bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.trials.results import read_scores
from storage.catalog.query import query_catalog
from storage.errors import BadInput
from tests.pipelines.conftest import opened


def write(path: Path, scores: object) -> Path:
    path.write_text(json.dumps(scores))
    return path


def test_result__judged_over_seeds_against_others(drawn, tmp_path, winnow) -> None:
    ours = [{"seed": s, "mmlu": 0.6 + s / 100, "loss": 2.0 + s / 10} for s in range(3)]
    theirs = [{"seed": s, "mmlu": 0.55 + s / 90, "loss": 1.9 + s / 10} for s in range(3)]
    alone = winnow("result", "add", "chosen", write(tmp_path / "a.json", ours), "-c", drawn)
    assert alone.code == 0
    assert "no other selection has scores yet" in alone.out
    added = winnow("result", "add", "any", write(tmp_path / "b.json", theirs), "--lower", "loss", "-c", drawn)
    lines = added.out.splitlines()
    assert "any " in lines[1]
    assert any(", mmlu: hurt: better by -0.048" in line for line in lines)
    assert any(", loss: helped: better by 0.1 [0.1, 0.1] over 3 seeds" in line for line in lines)
    rows = query_catalog(opened(drawn).store, "SELECT count(*) AS n, bool_or(lower_is_better) AS low FROM results")
    assert rows.to_pylist() == [{"n": 12, "low": True}]
    effects = query_catalog(opened(drawn).store, "SELECT * FROM result_effects ORDER BY name").to_pylist()
    assert [(e["recipe"], e["other_recipe"], e["name"], e["seeds"], e["verdict"]) for e in effects] == [
        ("any", "chosen", "loss", 3, "helped"),
        ("any", "chosen", "mmlu", 3, "hurt"),
    ]
    assert effects[0]["mean"] == pytest.approx(0.1)
    assert effects[1]["low"] < effects[1]["mean"] < effects[1]["high"] < 0

    winnow("result", "add", "chosen", write(tmp_path / "c.json", [{"seed": 0, "loss": 1.0}]), "-c", drawn)
    newest = query_catalog(
        opened(drawn).store, "SELECT recipe, name, mean FROM result_effects ORDER BY name"
    ).to_pylist()
    assert newest[0] == {"recipe": "chosen", "name": "loss", "mean": pytest.approx((0.9 - 0.1 - 0.1) / 3)}


def test_result__one_seed_gives_no_verdict(drawn, tmp_path, winnow) -> None:
    for recipe, score in (("chosen", 0.6), ("any", 0.5)):
        ended = winnow("result", "add", recipe, write(tmp_path / "m.json", {"seed": 1, "gsm": score}), "-c", drawn)
    assert "gsm: no verdict: one seed says nothing of how much seeds vary (-0.1)" in ended.out
    query = "SELECT seeds, mean, low, verdict FROM result_effects WHERE name = 'gsm'"
    (effect,) = query_catalog(opened(drawn).store, query).to_pylist()
    assert effect == {"seeds": 1, "mean": pytest.approx(-0.1), "low": None, "verdict": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is neither JSON nor JSON lines"),
        ("[]", "must hold scores by seed"),
        ('{"mmlu": 1}', 'entry 1: needs "seed", a whole number'),
        ('{"seed": 1}', 'holds no score beside "seed"'),
        ('{"seed": 1, "mmlu": "high"}', "'mmlu' must be a finite number, got \"high\""),
        ('{"seed": 1, "mmlu": NaN}', "must be a finite number"),
        ('{"seed": 1, "a": 1}\n{"seed": 1, "a": 2}', "seed 1 comes 2 times"),
    ],
)
def test_read_scores__says_what_is_wrong(tmp_path, text, message) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(BadInput) as caught:
        read_scores(tmp_path / "m.json")
    assert message in str(caught.value)
