"""The search of the pool for evaluation texts: what it records, what it keeps out, how its recall is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import HeldBack, NothingYet
from pipelines.plan import plan_lines
from pipelines.recipes.spec import resolve_spec
from pipelines.reproduce import reproduce
from pipelines.run import prepare, read_pool, run_all
from pipelines.runs import runs
from pipelines.stages.decontaminate import decontaminate
from pipelines.stages.ingest import ingest
from pipelines.stages.publish import publish
from pipelines.stages.push import push
from pipelines.stages.select import select
from storage.catalog.query import query_catalog
from storage.errors import BadInput
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, make_light, opened, write_vectors

CONFIG = """\
store: ./store
pool: {files: data/*.jsonl}
targets: {foxes: targets/foxes.jsonl, dogs: targets/dogs.jsonl}
decontamination: {}
recipes:
  any: {steps: [random], budget: 80}
"""

HIDDEN = "One day THE FOX\njumps -- over 100, lazy fox (2)! Why?"


def make_project(folder: Path) -> Path:
    """80 rows and one more, which holds a question of `foxes` within a longer text."""
    light = make_light(folder)
    (light / "winnow.yaml").write_text(CONFIG)
    write_rows(light / "targets" / "dogs.jsonl", [row(n, "dog") for n in (200, 201, 202)])
    write_rows(light / "data" / "c.jsonl", [row(0, "fox") | {"id": "hidden", "prompt": HIDDEN}])
    return light


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own, not run yet."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was run once; for looking only."""
    project = make_project(tmp_path_factory.mktemp("searched") / "project")
    run_all(opened(project))
    return project


def rows_of(project: Path, sql: str) -> list[dict[str, Any]]:
    return query_catalog(Store(project / "store"), sql).to_pylist()  # type: ignore[no-any-return]


def test_run_all__rows_that_hold_evaluation_texts_are_left_out_and_stand_in_sql(searched: Path) -> None:
    context = opened(searched)
    recorded = list(runs(context.store))[::-1]
    assert [run["stage"] for run in recorded] == ["ingest", "decontaminate", "select", "publish"]
    assert recorded[2]["facts"]["contaminated"] == 1
    assert "(kept out: 1 contaminated)" in recorded[2]["summary"]
    sql = "SELECT e.given_id, c.* FROM contamination c JOIN examples e USING (id)"
    (match,) = rows_of(searched, sql)
    assert (match["given_id"], match["target_set"], match["example_name"]) == ("hidden", "foxes", "fox-100")
    assert (match["rule"], match["score"]) == ("exact", 1.0)
    text = f"{HIDDEN}\nfox 0"
    assert text[match["start"] : match["stop"]] == match["excerpt"] == "THE FOX\njumps -- over 100, lazy fox (2"
    joined = rows_of(searched, "SELECT t.given_id FROM contamination c JOIN targets t ON t.id = c.example")
    assert [each["given_id"] for each in joined] == ["fox-100"]
    assert rows_of(searched, "SELECT * FROM selection_items WHERE id IN (SELECT id FROM contamination)") == []
    assert "in the same order" in reproduce(opened(searched), resolve_spec(context, "any").selection_id)


def test_run_all__what_was_searched_is_not_searched_again(project: Path) -> None:
    ingest(opened(project))
    assert "decontamination: 81 rows to search for evaluation texts" in plan_lines(opened(project))
    decontaminate(opened(project))
    assert "decontamination: searched already, nothing to do" in plan_lines(opened(project))
    said: list[str] = []
    decontaminate(opened(project, said))
    assert said == []
    change(project, "decontamination: {}", "decontamination: {threshold: 0.5}")
    decontaminate(opened(project, said))
    assert any(line.startswith("search 81 rows for 5 evaluation texts") for line in said)


def test_select__ids_change_with_the_setting_alone(project: Path) -> None:
    ingest(opened(project))
    change(project, "decontamination: {}\n", "")
    without = resolve_spec(opened(project), "any")
    assert "contamination" not in without.record()
    (project / "winnow.yaml").write_text(CONFIG)
    with_it = resolve_spec(opened(project), "any")
    assert with_it.selection_id != without.selection_id
    assert type(with_it).from_record(json.loads(json.dumps(with_it.record())) | {"recipe": "any"}) == with_it


def test_select__before_the_search_says_what_to_do(project: Path) -> None:
    ingest(opened(project))
    with pytest.raises(NothingYet, match=r"the pool was not searched yet for evaluation texts.* run `winnow run`"):
        select(opened(project), "any")


def test_publish__a_damaged_search_is_put_aside_and_made_again(project: Path) -> None:
    run_all(opened(project))
    store = Store(project / "store")
    (name,) = store.records("contaminations")
    store.path("records", "contaminations", name, "matches.parquet").write_bytes(b"PAR1")
    publish(opened(project))
    assert rows_of(project, "SELECT * FROM contamination") == []
    run_all(opened(project))
    assert len(rows_of(project, "SELECT * FROM contamination")) == 1


def test_decontaminate__files_that_are_no_targets(project: Path) -> None:
    write_rows(project / "more.jsonl", [row(3, "answer"), row(500, "text")])
    change(project, "decontamination: {}", "decontamination: {against: [dogs], files: {more: more.jsonl}}")
    (outcome,) = run_all(opened(project))
    names = rows_of(project, "SELECT target_set, example_name, rule FROM contamination")
    assert names == [{"target_set": "more", "example_name": "answer-3", "rule": "exact"}]
    assert outcome.metrics["contaminated"] == 1


def test_decontaminate__recall_of_each_set_and_disguise(searched: Path) -> None:
    recall = rows_of(searched, "SELECT * FROM contamination_recall")
    assert {(each["target_set"], each["kind"]) for each in recall} >= {
        (name, kind)
        for name in ("foxes", "dogs")
        for kind in ("verbatim", "rewrapped", "case_and_punctuation", "numbers_replaced")
    }
    for each in recall:
        assert each["planted"] == (2 if each["target_set"] == "foxes" else 3)
        assert each["recall"] == each["found"] / each["planted"]
        assert each["promised"] == (each["kind"] != "numbers_replaced")
        assert each["recall"] == 1 or not each["promised"]
        assert each["negatives"] > 80


def test_decontaminate__a_recall_below_the_floor_holds_back_what_follows(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selection import plants

    monkeypatch.setattr(plants, "PROMISED", (*plants.PROMISED, "numbers_replaced"))
    with pytest.raises(
        HeldBack, match=r"recall_above_floor: below: foxes, numbers_replaced: 0 of 2; dogs, .* floor 0.95"
    ):
        run_all(opened(project))
    change(project, "decontamination: {}", "decontamination: {recall_floor: 0}")
    run_all(opened(project))


def test_decontaminate__paraphrases_of_a_file_are_measured(project: Path) -> None:
    lines = [
        {"example": "fox-100", "text": "Over one hundred lazy foxes and two a fox leaps."},
        {"example": "fox-101", "text": "the fox jumps over 101 lazy fox 3"},
    ]
    file = project / "paraphrases.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    change(project, "decontamination: {}", "decontamination: {paraphrases: paraphrases.jsonl}")
    run_all(opened(project))
    (each,) = rows_of(project, "SELECT * FROM contamination_recall WHERE kind = 'paraphrase'")
    assert (each["planted"], each["found"], each["promised"]) == (2, 1, False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "a"}, r"line 1: needs `example`, an id, and `text`; got the fields text"),
        (
            {"example": "fox-100", "text": 3},
            r"line 1: needs `example`, an id, and `text`; got the fields example, text",
        ),
        ({"example": "fox-7", "text": "a"}, r"line 1: 'fox-7' names no example; it must name one"),
        ([1], r"line 1: must be an object with .example. and .text., got \[1\]"),
    ],
    ids=["no_example", "no_text", "unknown", "no_object"],
)
def test_decontaminate__wrong_paraphrases(project: Path, line: Any, message: str) -> None:
    (project / "paraphrases.jsonl").write_text(json.dumps(line) + "\n")
    change(project, "decontamination: {}", "decontamination: {paraphrases: paraphrases.jsonl}")
    ingest(opened(project))
    with pytest.raises(BadInput, match=rf"decontamination\.paraphrases: .*{message}"):
        decontaminate(opened(project))


def test_decontaminate__by_vectors(light: Path) -> None:
    text = "decontamination: {embedding: {encoder: vectors, threshold: 0.8}}\nrecipes:\n"
    change(light, "recipes:\n", text)
    outcomes = run_all(opened(light), ["any"])
    matches = rows_of(
        light, "SELECT e.source, c.rule, c.score, c.start, c.excerpt FROM contamination c JOIN examples e USING (id)"
    )
    assert matches
    assert {(each["source"], each["rule"], each["start"], each["excerpt"]) for each in matches} == {
        ("fox", "embedding", None, None)
    }
    assert all(0.8 <= each["score"] <= 1 for each in matches)
    assert outcomes[0].metrics["contaminated"] == len(matches)


def test_push__a_batch_leaves_out_what_holds_evaluation_texts(light: Path) -> None:
    write_rows(light / "data" / "a.jsonl", [row(0, "fox") | {"prompt": HIDDEN}, *(row(n, "dog") for n in range(10))])
    (light / "data" / "b.jsonl").unlink()
    write_vectors(light / "vectors" / "pool.npy", ["fox-0", *(f"dog-{n}" for n in range(10))])
    project = "labeling:\n  kinds: {classes: [fox, dog], steps: [entropy], cold_start: [random], batch_size: 11}\n"
    change(light, "recipes:\n", f"decontamination: {{}}\n{project}recipes:\n")
    context = opened(light)
    read_pool(context, ["vectors"])
    prepare(context, ["vectors"])
    push(context, "kinds")
    publish(context)
    assert rows_of(light, "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM round_items") == [{"n": 10, "ids": 10}]
    assert rows_of(light, "SELECT id FROM round_items WHERE id IN (SELECT id FROM contamination)") == []
    facts = rows_of(light, "SELECT DISTINCT (facts->>'contaminated')::INT AS n FROM selections")
    assert facts == [{"n": 1}]
