"""What the filter `decontaminate: {similarity}` finds of planted examples: measured at each draw, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.pool_view import PoolView
from pipelines.recipes.contamination import question_of
from pipelines.recipes.planted_rows import (
    ALONE,
    INSIDE,
    PLANTS,
    Carriers,
    PlantedRow,
    PlantedTexts,
    _disguised,
    _reworded,
    _within,
    planted_rows,
)
from pipelines.recipes.spec import resolve_spec
from pipelines.run import run_all
from pipelines.stages.decontaminate import decontaminate
from pipelines.stages.embedding_recall import SEED, recall_check
from pipelines.stages.publish import publish
from pipelines.stages.select import select
from selection.encoders import load_encoder
from storage.catalog.query import query_catalog
from storage.pool.content import Turns, text_of
from storage.store import Store
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import change, make_light, opened

THRESHOLD = 0.97
CONFIG = f"""\
store: ./store
pool: {{files: data/*.jsonl}}
encoders:
  tiny: {{model: ./model, max_tokens: 64, store: float32}}
targets: {{foxes: targets/foxes.jsonl, dogs: targets/dogs.jsonl}}
recipes:
  near: {{steps: [{{decontaminate: {{similarity: {THRESHOLD}}}}}, random], budget: 10, allow_short: true}}
  by_texts: {{steps: [decontaminate, random], budget: 10, allow_short: true}}
"""


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A project with an encoder that was run once; for looking only."""
    folder = tmp_path_factory.mktemp("recall") / "project"
    folder.mkdir()
    (folder / "model").symlink_to(model)
    (folder / "winnow.yaml").write_text(CONFIG, "utf-8")
    write_rows(folder / "data" / "a.jsonl", [row(n, subject) for subject in SUBJECTS[:5] for n in range(8)])
    write_rows(folder / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101, 3)])
    write_rows(folder / "targets" / "dogs.jsonl", [row(n, "dog") for n in range(200, 200 + PLANTS + 3)])
    run_all(opened(folder))
    return folder


def rows_of(project: Path, sql: str) -> list[dict[str, Any]]:
    return query_catalog(Store(project / "store"), sql).to_pylist()  # type: ignore[no-any-return]


def plants_of(view: PoolView) -> tuple[list[PlantedRow], Carriers]:
    sets = view.target_sets(view.config.targets)
    carriers = Carriers.of(view.snapshot, SEED, without=np.empty(0, np.int64))
    return planted_rows([(each, each.selecting) for each in sets], carriers.turns, seed=SEED), carriers


def test_embedding_recall__is_that_of_a_literal_search(encoded: Path) -> None:
    view = opened(encoded).pool
    planted, carriers = plants_of(view)
    model = load_encoder(view.config.encoders["tiny"])

    def unit(conversations: Sequence[Turns]) -> Any:
        vectors = model.encode([model.text_of(turns) for turns in conversations])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    plants, bare = unit([each.turns for each in planted]), unit(carriers.turns)
    measured = rows_of(encoded, "SELECT * FROM embedding_recall")
    assert {each["selection_id"] for each in measured} == {resolve_spec(opened(encoded), "near").selection_id}
    kinds = ("verbatim", "rewrapped", "case_and_punctuation", "numbers_replaced")
    assert {(each["target_set"], each["form"], each["kind"]) for each in measured} == {
        (name, form, kind) for name in ("foxes", "dogs") for form in (ALONE, INSIDE) for kind in kinds
    }
    for each in measured:
        number = ["foxes", "dogs"].index(each["target_set"])
        target_set = view.target_set(each["target_set"])
        examples = unit(target_set.conversations)
        own = [
            i
            for i, plant in enumerate(planted)
            if (plant.target_set, plant.form, plant.kind) == (number, each["form"], each["kind"])
        ]
        assert each["planted"] == len(own) == min(PLANTS, len(target_set))
        assert each["found"] == (plants[own] @ examples.T >= THRESHOLD).any(axis=1).sum()
        assert each["recall"] == each["found"] / each["planted"]
        asked = {question_of(turns) for turns in target_set.conversations}
        clean = [i for i, turns in enumerate(carriers.turns) if not any(text in text_of(turns) for text in asked)]
        assert each["negatives"] == len(clean)
        assert each["false_positives"] == (bare[clean] @ examples.T >= THRESHOLD).any(axis=1).sum()
        assert each["threshold"] == THRESHOLD
    assert all(each["recall"] == 1 for each in measured if (each["form"], each["kind"]) == (ALONE, "verbatim"))
    assert any(each["recall"] < 1 for each in measured)
    assert any(each["false_positives"] for each in measured)


def test_embedding_recall__an_unchanged_recipe_encodes_nothing_nor_does_another_threshold(
    encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.stages.encode.load_vectorizer", None)
    again = select(opened(encoded), "near")
    change(encoded, f"similarity: {THRESHOLD}", "similarity: 0.5")
    other = select(opened(encoded), "near")
    change(encoded, "similarity: 0.5", f"similarity: {THRESHOLD}")
    assert again.subject != other.subject
    assert again.checks[-1].detail == f"least: foxes: 3 of 3 at a cosine of {THRESHOLD}; floor 0.95"
    inside, alone = (again.metrics[f"embedding_recall_{form}"] for form in (INSIDE, ALONE))
    assert isinstance(inside, float)
    assert isinstance(alone, float)
    # How many inside are as near as that is by chance: the tokenizer of the model is trained anew, and differs each
    # time.
    assert 0 <= inside < other.metrics[f"embedding_recall_{INSIDE}"]
    assert inside < alone <= 1
    assert other.metrics["embedding_recall_alone"] == 1 == other.metrics["embedding_false_positives"]
    assert not any(name.startswith("embedding") for name in select(opened(encoded), "by_texts").metrics)


def test_embedding_recall__what_cannot_be_measured_stops_no_draw(
    encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise OSError("no such model")

    monkeypatch.setattr("pipelines.stages.embedding_recall.embed_with", broken)
    change(encoded, f"similarity: {THRESHOLD}", "similarity: 0.6")
    said: list[str] = []
    outcome = select(opened(encoded, said), "near")
    change(encoded, "similarity: 0.6", f"similarity: {THRESHOLD}")
    assert outcome.status == "ok"
    assert not any(name.startswith("embedding") for name in outcome.metrics)
    assert "near: what its rule on vectors finds of planted examples could not be measured: no such model" in said


def test_embedding_recall__of_ones_own_vectors_nothing_is_measured(tmp_path: Path) -> None:
    light = make_light(tmp_path / "light")
    change(light, "[rds_plus], budget: 10", "[{decontaminate: {similarity: 0.9}}, random], budget: 4, targets: [foxes]")
    (outcome,) = run_all(opened(light), ["near"])
    assert not any(name.startswith("embedding") for name in outcome.metrics)
    assert rows_of(light, "SELECT * FROM embedding_recall") == []


def test_decontaminate__the_rule_of_the_pool_is_measured_with_paraphrases(encoded: Path) -> None:
    reworded = {"example": "fox-100", "text": "which animal sleeps all day"}
    write_rows(encoded / "paraphrases.jsonl", [reworded])
    settings = (
        f"{{embedding: {{encoder: tiny, threshold: {THRESHOLD}}}, against: [foxes], paraphrases: paraphrases.jsonl}}"
    )
    change(encoded, "recipes:\n", f"decontamination: {settings}\nrecipes:\n")
    outcome = decontaminate(opened(encoded))
    publish(opened(encoded))
    change(encoded, f"decontamination: {settings}\n", "")
    measured = rows_of(encoded, "SELECT * FROM contamination_embedding_recall")
    assert {each["contamination_id"] for each in measured} == {outcome.subject}
    assert {
        (each["target_set"], each["kind"], each["planted"]) for each in measured if each["kind"] == "paraphrase"
    } == {("foxes", "paraphrase", 1)}
    of_recipe = rows_of(
        encoded,
        f"SELECT * EXCLUDE (selection_id) FROM embedding_recall WHERE target_set = 'foxes' AND threshold = {THRESHOLD}",
    )
    without_id = [{k: v for k, v in each.items() if k != "contamination_id"} for each in measured]
    assert [each for each in without_id if each["kind"] != "paraphrase"] == of_recipe
    assert outcome.checks[-1].detail == f"least: foxes: 3 of 3 at a cosine of {THRESHOLD}; floor 0.95"
    assert outcome.metrics["embedding_recall_alone"] == pytest.approx(
        sum(each["found"] for each in measured if each["form"] == ALONE)
        / sum(each["planted"] for each in measured if each["form"] == ALONE),
        abs=1e-4,
    )


def test_reworded__takes_the_place_of_all_that_is_asked() -> None:
    turns = [("system", "be brief"), ("user", "why"), ("assistant", "so"), ("user", "when")]
    assert _reworded(turns, "warum") == [("system", "be brief"), ("user", "warum"), ("assistant", "so")]
    assert _reworded([("text", "why")], "warum") == [("text", "warum")]
    assert _reworded([("assistant", "so")], "also") == [("assistant", "also")]


def test_planted_rows__hold_their_examples_in_place_and_are_the_same_again(encoded: Path) -> None:
    view = opened(encoded).pool
    planted, carriers = plants_of(view)
    assert planted == plants_of(view)[0]
    verbatim = [each for each in planted if each.kind == "verbatim"]
    examples = {each: view.target_set(name).conversations for each, name in enumerate(("foxes", "dogs"))}
    held = {text_of(turns) for turns in carriers.turns}
    for each in verbatim:
        if each.form == ALONE:
            assert each.turns in examples[each.target_set]
        else:
            (question,) = [asked for asked in map(question_of, examples[each.target_set]) if asked in each.turns[0][1]]
            assert text_of(each.turns).replace(f"\n\n{question}\n\n", "") in held
    texts = PlantedTexts("planted", [each.turns for each in planted])
    ids, conversations = next(texts.turns(texts.ids[:5]))
    assert sorted(ids.tolist()) == sorted(set(texts.ids[:5].tolist()))
    assert all(
        turns == planted[texts.ids.tolist().index(i)].turns
        for i, turns in zip(ids.tolist(), conversations, strict=True)
    )


def test_recall_check__warns_where_examples_themselves_are_not_similar_enough() -> None:
    measured = {"target_set": "foxes", "form": ALONE, "kind": "verbatim", "threshold": 0.9, "planted": 20, "found": 18}
    check = recall_check([measured | {"recall": 0.9}, measured | {"form": INSIDE, "found": 0, "recall": 0.0}])
    assert (check.passed, check.blocking) == (False, False)
    assert check.detail == "below: foxes: 18 of 20 at a cosine of 0.9; floor 0.95"
    assert recall_check([]).passed


def test_disguised__all_that_the_user_says_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    shout = lambda text, rng: text.upper() if text.islower() else None  # noqa: E731
    turns = [("system", "be brief"), ("user", "why"), ("assistant", "so"), ("user", "WHEN"), ("assistant", "now")]
    assert _disguised(turns, shout, rng) == [("system", "be brief"), ("user", "WHY"), *turns[2:]]
    assert _disguised([("text", "why")], shout, rng) == [("text", "WHY")]
    assert _disguised([("assistant", "so")], shout, rng) == [("assistant", "SO")]
    assert _disguised([("user", "WHEN"), ("assistant", "now")], shout, rng) is None
    assert _within([("system", "s"), ("user", "")], "why", rng) == [("system", "s"), ("user", "\n\nwhy\n\n")]
