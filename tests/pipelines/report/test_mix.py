"""The mix of a selection: languages told by words or by a column, and a quota over predicted classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.gather import gather
from pipelines.run import run_and_report
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, opened
from tests.pipelines.report.conftest import Nights

GERMAN = "Wie hoch ist der Berg, und wie alt ist das Haus auf dem Berg?"
ENGLISH = "How old is the house on the hill, and who is the man that lives in it?"


def test_language__told_by_words_on_a_sample(light: Path) -> None:
    write_rows(light / "data" / "a.jsonl", [row(n, "fox") | {"prompt": f"{GERMAN} {n}"} for n in range(10)])
    write_rows(light / "data" / "b.jsonl", [row(n, "dog") | {"prompt": f"{ENGLISH} {n}"} for n in range(10)])
    write_rows(
        light / "data" / "c.jsonl", [row(n, "system") | {"prompt": f"x = {n}", "response": ""} for n in range(5)]
    )
    change(light, "any: {steps: [random], budget: 8}", "any: {steps: [random], budget: 25}")
    run_and_report(opened(light))
    language = part(light, "any")["language"]
    assert (language["column"], language["rows"], language["pool_rows"]) == (None, 25, 25)
    assert [(line["group"], line["selected"], line["share_of_pool"]) for line in language["lines"]] == [
        ("English", 10, 0.4),
        ("German", 10, 0.4),
        ("cannot be told", 5, 0.2),
    ]


def test_language__as_a_column_says(light: Path) -> None:
    for name in ("a", "b"):
        path = light / "data" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_rows(path, [each | {"lang": "de" if name == "a" else "en"} for each in rows])
    run_and_report(opened(light))
    language = part(light, "near")["language"]
    assert language["column"] == "lang"
    assert {line["group"]: line["share_of_pool"] for line in language["lines"]} == {"de": 0.5, "en": 0.5}
    assert sum(line["selected"] for line in language["lines"]) == language["rows"] == 10


def test_language__texts_of_the_selection_are_compared_with_the_pool(nights: Nights) -> None:
    for recipe in nights.second["recipes"]:
        language = recipe["mix"]["language"]
        assert language["rows"] == recipe["rows"]
        assert sum(line["selected"] for line in language["lines"]) == language["rows"]


@pytest.mark.slow
def test_quota__predicted_classes_are_shown_against_what_was_taken(light: Path) -> None:
    quality = "classifiers:\n  kinds: {features: ngrams, classes: {good: {targets: foxes}, other: {sample: 20}}}\n"
    change(light, "recipes:\n", quality + "recipes:\n")
    quota = "quota: {by: predicted_class, shares: {'0': 0.25, '1': 0.75}}, probabilities: kinds"
    change(light, "any: {steps: [random], budget: 8}", f"any: {{steps: [random], budget: 8, {quota}}}")
    run_and_report(opened(light))
    shown = part(light, "any")["quota"]
    assert (shown["by"], shown["rule"], shown["groups"]) == ("predicted_class", "shares", 2)
    assert [(line["group"], line["selected"], line["wanted"], line["share_of_pool"]) for line in shown["lines"]] == [
        ("1 other", 6, 6.0, None),
        ("0 good", 2, 2.0, None),
    ]
    page = (light / "store" / "report.html").read_text("utf-8")
    assert "By the quota: predicted class (shares)" in page


def part(project: Path, recipe: str) -> dict[str, Any]:
    """The mix of a recipe, in the document of the newest report."""
    document, _ = gather(opened(project))
    mix: dict[str, Any] = next(each["mix"] for each in document["recipes"] if each["name"] == recipe)
    return mix
