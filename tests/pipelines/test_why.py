"""`winnow why`: what becomes of a row by name, by its file and line, and as JSON; `test_why_reference` has the rules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.run import run_all
from pipelines.why import why
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import Winnow, change, opened, write_vectors


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


@pytest.mark.slow
def test_why__names_the_target_that_pulled_a_row(light: Path) -> None:
    names = {"foxes": ["fox-100", "fox-101"], "dogs": ["dog-100", "dog-101"]}
    write_rows(light / "targets" / "dogs.jsonl", [row(n, "dog") for n in (100, 101)])
    write_vectors(light / "vectors" / "dogs.npy", names["dogs"])
    dogs = "targets:\n  dogs: {files: targets/dogs.jsonl, vectors: vectors/dogs.npy}\n"
    change(light, "targets:\n", dogs)
    steps = ["rds_max", "rds_mean", "rds_plus", "rds_plus: {per: query}", "tsds", "interests: {n_clusters: 3}", "betr"]
    recipes = [f"  r{n}: {{steps: [{step}], budget: 9, allow_short: true}}\n" for n, step in enumerate(steps)]
    change(light, "recipes:\n", "recipes:\n" + "".join(recipes))
    run_all(opened(light))
    context = opened(light)
    vectors = {}
    for path in (light / "vectors").glob("*.npy"):
        own = np.load(path).astype(float)
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        vectors |= dict(zip(path.with_suffix(".ids.txt").read_text().split(), own, strict=True))
    prompts = {
        f"{set_name}/{name}": row(int(name[4:]), name[:3])["prompt"] for set_name in names for name in names[set_name]
    }
    for recipe, step in enumerate(steps):
        chosen = 0
        for name in (f"{subject}-{number}" for subject in SUBJECTS for number in range(10)):
            (answer,) = why(context, name, f"r{recipe}")
            if answer.rule != "chosen":
                continue
            chosen += 1
            detail = answer.detail
            by_reason = step in ("rds_plus: {per: query}", "tsds")
            target = detail["ref" if by_reason else "nearest_target"]
            assert (detail["ref_text"] if by_reason else detail["target_text"]).startswith(prompts[target]), (
                step,
                name,
            )
            allowed = names[detail["ref"]] if step == "rds_plus" else [each for own in names.values() for each in own]
            cosines = {each: float(vectors[name] @ vectors[each]) for each in allowed}
            if not by_reason:  # vectors are stored as float16
                assert cosines[target.partition("/")[2]] == pytest.approx(max(cosines.values()), abs=2e-3), (step, name)
                assert detail["similarity"] == pytest.approx(max(cosines.values()), abs=2e-3)
        assert chosen > 3, step


def test_why__of_subtasks_names_the_one_that_won_and_its_nearest_target(light: Path) -> None:
    write_rows(light / "targets" / "mix.jsonl", [row(102, "fox"), row(102, "dog")])
    write_vectors(light / "vectors" / "mix.npy", ["fox-102", "dog-102"])
    change(light, "targets:\n", "targets:\n  mix: {files: targets/mix.jsonl, vectors: vectors/mix.npy}\n")
    change(light, "near: {steps: [rds_plus]", "near: {steps: [{rds_max: {per: subtask}}, top]")
    run_all(opened(light), ["near"])
    context = opened(light)
    sets = {"foxes": ("fox-100", "fox-101"), "mix": ("fox-102", "dog-102")}
    nearest_sets = set()
    for number in range(10):
        (answer,) = why(context, f"fox-{number}", "near")
        if answer.rule != "chosen":
            continue
        detail = answer.detail
        own = vector_of(f"fox-{number}")
        cosines = {f"{name}/{each}": float(own @ vector_of(each)) for name, ids in sets.items() for each in ids}
        foxes = {name: cosine for name, cosine in cosines.items() if name.startswith("foxes/")}
        assert detail["subtask"] == "foxes"
        assert detail["subtask_similarity"] == pytest.approx(np.mean([*foxes.values()]), abs=2e-3)
        assert detail["nearest_target"] == max(foxes, key=foxes.__getitem__)
        nearest_sets.add(max(cosines, key=cosines.__getitem__).partition("/")[0])
    assert nearest_sets == {"foxes", "mix"}  # the nearest target alone would have named another set


def vector_of(name: str) -> np.ndarray:
    """As `write_vectors` has it, of length 1."""
    subject, number = name.split("-")
    vector = np.eye(16)[SUBJECTS.index(subject)] + np.random.default_rng(int(number)).normal(size=16) * 0.2
    return np.asarray(vector / np.linalg.norm(vector))


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
