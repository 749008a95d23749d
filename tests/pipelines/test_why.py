"""`winnow why`: what becomes of a row by name, by its file and line, and as JSON; `test_why_reference` has the rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.run import run_all
from pipelines.why import why
from tests.conftest import SUBJECTS
from tests.pipelines.conftest import Winnow, change, opened


def test_why__of_the_whole_pool_is_what_the_record_says(ran: Path) -> None:
    context = opened(ran)
    for recipe, budget in (("near", 10), ("any", 8)):
        answers = [why(context, name, recipe)[0] for name in (f"{s}-{n}" for s in SUBJECTS for n in range(10))]
        ranks = sorted(answer.detail["rank"] for answer in answers if answer.rule == "chosen")
        assert ranks == list(range(1, budget + 1))
        assert {answer.rule for answer in answers} == {"chosen", "beyond_budget"}


def test_why__a_row_by_its_beginning_and_as_json(ran: Path, winnow: Winnow) -> None:
    (answer,) = why(opened(ran), "fox-3", "near")
    ended = winnow("why", answer.id[:10], "--recipe", "near", "--json", "--config", ran)
    assert ended.code == 0
    printed = json.loads(ended.out)
    assert (printed["id"], printed["rule"]) == (answer.id, answer.rule)


def test_why__a_row_by_its_file_and_line(ran: Path) -> None:
    context = opened(ran)
    rows = (ran / "data" / "a.jsonl").read_text().splitlines()
    for name in ("a.jsonl:4", "data/a.jsonl:4", f"{ran / 'data' / 'a.jsonl'}:4"):
        assert why(context, name, "near") == why(context, json.loads(rows[3])["id"], "near")


def test_why__a_row_that_could_not_be_read(light: Path) -> None:
    data = light / "data" / "a.jsonl"
    data.write_text(data.read_text() + "{broken\n")
    change(light, "pool:\n", "pool:\n  max_bad_fraction: 0.5\n")
    run_all(opened(light))
    (answer,) = why(opened(light), "a.jsonl:41")
    assert (answer.id, answer.rule, answer.detail["line"]) == (None, "unreadable", 41)
    assert answer.detail["cause"]
    assert answer.detail["excerpt"] == "{broken"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-row"], "no row of the pool is called 'no-such-row'"),
        (["a.jsonl:999"], "no file of the pool that is called 'a.jsonl' has a row at line 999"),
        (["fox-3", "-r", "naer"], "neither a recipe"),
    ],
)
def test_why__a_mistake_is_said(ran: Path, winnow: Winnow, arguments: list[str], message: str) -> None:
    ended = winnow("why", *arguments, "--config", ran)
    assert ended.code == 2
    assert message in ended.err
