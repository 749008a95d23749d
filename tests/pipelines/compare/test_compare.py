"""`winnow compare`: selections beside each other, by the same measure."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.compare.compare import compare
from pipelines.compare.draws import _titles, random_rows
from pipelines.compare.overlap import jaccard, mean_over_draws, rank_biased
from pipelines.compare.page import render
from pipelines.compare.record import record_comparison
from pipelines.compare.tables import compare_tables
from pipelines.context import Context
from pipelines.named import selection_of
from pipelines.recipes.drawn import unit
from pipelines.stages.ingest import ingest
from selection.types import Array
from storage.catalog.query import query_catalog
from storage.ids import from_arrow, rows_of
from storage.records import read_selection
from tests.pipelines.conftest import Winnow, change, opened

MEASURED = {"rows", "mean_distance", "most_distance", "similarity_foxes"}


@pytest.fixture(scope="module")
def context(ran: Path) -> Context:
    return opened(ran)


@pytest.fixture(scope="module")
def recorded(context: Context) -> dict[str, Any]:
    return compare(context, ["near", "any"], seeds=None)


@pytest.fixture(scope="module")
def seeded(context: Context) -> dict[str, Any]:
    return compare(context, ["near", "any"], seeds=3)


def entry(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in document["selections"] if each["name"] == name)


def ids_of(context: Context, name: str) -> Any:
    return from_arrow(read_selection(context.store, selection_of(context.store, name))[1]["id"])


def pool_vectors(context: Context) -> Array:
    view = context.pool
    return unit(view.vectors(view.fingerprint("vectors"), view.snapshot).take(np.arange(len(view.snapshot.ids))))


class TestCompare:
    def test_measures_as_one_would_by_hand(self, context: Context, recorded: dict[str, Any]) -> None:
        vectors, view = pool_vectors(context), context.pool
        target_set = view.target_set("foxes")
        stored = view.target_encoders("vectors", ["foxes"])["foxes"]
        from storage.vectors.segments import StoredVectors

        examples = unit(StoredVectors(context.store, stored, target_set.ids).take(np.arange(len(target_set.ids))))
        assert recorded["sample_rows"] == len(vectors)  # so few rows are all of the sample
        for name in ("near", "any"):
            chosen = vectors[rows_of(ids_of(context, name), view.snapshot.ids)]
            nearest = [min(float(np.linalg.norm(row - other)) for other in chosen) for row in vectors]
            similar = [max(float(example @ other) for other in chosen) for example in examples]
            metrics = {key: value["mean"] for key, value in entry(recorded, name)["metrics"].items()}
            assert metrics["mean_distance"] == pytest.approx(np.mean(nearest), abs=2e-4)
            assert metrics["most_distance"] == pytest.approx(np.quantile(nearest, 0.95), abs=2e-4)
            assert metrics["similarity_foxes"] == pytest.approx(np.mean(similar), abs=2e-4)

    def test_overlap_and_mix_are_those_of_the_rows(self, context: Context, recorded: dict[str, Any]) -> None:
        near, any_ = (set(ids_of(context, name).tolist()) for name in ("near", "any"))
        assert recorded["overlap"][0][1] == round(len(near & any_) / len(near | any_), 4)
        assert recorded["overlap"][0][0] is None  # one draw has nothing to be compared with
        query = "SELECT source, count(*) / 10 AS share FROM selected_examples WHERE selection_id = ? GROUP BY source"
        shares = query_catalog(context.store, query, [selection_of(context.store, "near")]).to_pylist()
        shown = {line["source"]: line["shares"][0] for line in recorded["mix"] if line["shares"][0]}
        assert shown == {line["source"]: pytest.approx(line["share"]) for line in shares}

    def test_random_rows_have_the_same_metrics(self, recorded: dict[str, Any], seeded: dict[str, Any]) -> None:
        for document in (recorded, seeded):
            names = [each["name"] for each in document["selections"]]
            assert names == ["near", "any", "8 random rows", "10 random rows"]
            assert all(each["metrics"].keys() >= MEASURED for each in document["selections"])
            assert [each["random"] for each in document["selections"]] == [False, False, True, True]

    def test_random_rows_hold_nothing_that_a_target_asks(self, ran: Path, tmp_path: Path) -> None:
        project = shutil.copytree(ran, tmp_path / "copy", symlinks=True)
        change(project, "targets/foxes.jsonl", "data/a.jsonl")
        (draw,) = random_rows(opened(project), 60, 1)
        assert len(draw.ids) == 40  # the rows of the other file
        (draw,) = random_rows(opened(ran), 60, 1)
        assert len(draw.ids) == len(np.unique(draw.rows)) == 60

    def test_seeds_are_those_of_the_recipe_and_after(self, context: Context, seeded: dict[str, Any]) -> None:
        drawn = entry(seeded, "any")
        assert [draw["seed"] for draw in drawn["draws"]] == [0, 1, 2]
        assert [draw["selection"] for draw in drawn["draws"]] == [selection_of(context.store, "any"), None, None]
        distances = [draw["mean_distance"] for draw in drawn["draws"]]
        assert drawn["metrics"]["mean_distance"] == {
            "mean": pytest.approx(np.mean(distances), abs=1e-4),
            "std": pytest.approx(np.std(distances, ddof=1), abs=1e-4),
        }
        assert seeded["overlap"][0][0] == 1  # `near` draws nothing at random
        assert [("seconds" in draw) for draw in drawn["draws"]] == [False, True, True]

    def test_what_the_record_has_is_what_its_seed_draws(self, recorded: dict[str, Any], seeded: dict[str, Any]) -> None:
        for name in ("near", "any"):
            before, now = (entry(document, name)["draws"][0] for document in (recorded, seeded))
            assert {key: before[key] for key in (*MEASURED, "seed", "selection")} == {
                key: now[key] for key in (*MEASURED, "seed", "selection")
            }

    def test_nothing_is_stored(self, context: Context, seeded: dict[str, Any]) -> None:
        assert seeded["seeds"] == 3
        assert len(context.store.records("selections")) == 2

    def test_says_what_a_reader_should_know(self, seeded: dict[str, Any]) -> None:
        assert seeded["targets"] == [{"target_set": "foxes", "half": "selecting", "examples": 2}]
        assert any("foxes has no measuring half" in note for note in seeded["notes"])

    def test_rows_that_left_the_pool_are_counted(self, ran: Path, tmp_path: Path) -> None:
        project = shutil.copytree(ran, tmp_path / "copy", symlinks=True)
        before = opened(project)
        lost = ids_of(before, "any")[:1]
        (given_id,) = query_catalog(
            before.store,
            "SELECT given_id FROM selected_examples WHERE selection_id = ? AND rank = 1",
            [selection_of(before.store, "any")],
        )["given_id"].to_pylist()
        for file in (project / "data").iterdir():
            lines = [line for line in file.read_text().splitlines() if json.loads(line)["id"] != given_id]
            file.write_text("\n".join(lines) + "\n")
        ingest(opened(project))
        context = opened(project)
        assert rows_of(lost, context.pool.snapshot.ids)[0] == -1
        document = compare(context, ["any"], seeds=None)
        notes = document["notes"]
        assert "any: 1 rows are not in the pool any more; they count for overlap alone" in notes
        assert "any was drawn from an earlier state of the pool" in notes
        record_comparison(context.store, document)
        (draw,) = entry(document, "any")["draws"]
        query = "SELECT name, value FROM metrics WHERE selection_id = ? AND name LIKE 'compare%'"
        stored = query_catalog(context.store, query, [draw["selection"]]).to_pylist()
        assert {line["name"].removeprefix("compare_"): line["value"] for line in stored} == {
            key: draw[key] for key in MEASURED - {"rows"}
        }


def test_record__a_comparison_in_sql_is_the_document(context: Context, seeded: dict[str, Any]) -> None:
    kept = record_comparison(context.store, seeded)
    assert record_comparison(context.store, seeded | {"created_at": "2030-01-01T00:00:00"}) == kept  # one record

    def stored(columns: str, view: str) -> list[dict[str, Any]]:
        sql = f"SELECT {columns} FROM {view} WHERE comparison_id = ?"
        rows: list[dict[str, Any]] = query_catalog(context.store, sql, [kept]).to_pylist()
        return rows

    names = [each["name"] for each in seeded["selections"]]
    numbers = stored("number, name, random, draws, rows, mean_distance, mean_distance_std, seconds", "comparisons")
    assert numbers == [
        {
            "number": number,
            "name": each["name"],
            "random": each["random"],
            "draws": 3,
            "rows": each["metrics"]["rows"]["mean"],
            "mean_distance": each["metrics"]["mean_distance"]["mean"],
            "mean_distance_std": each["metrics"]["mean_distance"]["std"],
            "seconds": each["metrics"]["seconds"]["mean"],
        }
        for number, each in enumerate(seeded["selections"], 1)
    ]
    similar = {line["name"]: line["similarity"] for line in stored("*", "comparison_targets")}
    assert similar == {name: entry(seeded, name)["metrics"]["similarity_foxes"]["mean"] for name in names}
    overlaps = {(line["name"], line["other"]): line for line in stored("*", "comparison_overlaps")}
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            assert overlaps[name, other]["jaccard"] == seeded["overlap"][i][j]
            assert overlaps[name, other]["rank_biased_overlap"] == seeded["rank_biased_overlap"][i][j]
    mix = {(line["name"], line["source"]): line["share"] for line in stored("*", "comparison_sources")}
    assert mix == {(name, line["source"]): line["shares"][i] for i, name in enumerate(names) for line in seeded["mix"]}


def test_titles__of_a_sweep_leave_out_the_seed(light: Path) -> None:
    sweep = "sweep: {steps: {a: [random], b: [k_center]}, seed: [1, 12]}, budget: 8"
    change(light, "any: {steps: [random], budget: 8}", f"any: {{{sweep}}}")
    assert _titles(opened(light), ["any", "near", "any_a_seed1"]) == {
        "any_a_seed1": "any_a_seed1",
        "any_a_seed12": "any_a",
        "any_b_seed1": "any_b",
        "any_b_seed12": "any_b",
        "near": "near",
    }


IDS = st.lists(st.sets(st.integers(0, 20)), min_size=1, max_size=6)


@given(selections=IDS, data=st.data())
def test_jaccard__is_that_of_sets(selections: list[set[int]], data: st.DataObject) -> None:
    pairs = jaccard([np.array(sorted(each), np.int64) for each in selections])
    for i, a in enumerate(selections):
        for j, b in enumerate(selections):
            assert pairs[i, j] == pytest.approx(len(a & b) / len(a | b) if a | b else 1.0)
    owners = [data.draw(st.integers(0, 2)) for _ in selections]
    means = mean_over_draws(pairs, owners, 3)
    for first in range(3):
        for second in range(3):
            of = [
                pairs[i, j]
                for i in range(len(owners))
                for j in range(len(owners))
                if i != j and (owners[i], owners[j]) == (first, second)
            ]
            assert means[first][second] == (pytest.approx(np.mean(of), abs=1e-4) if of else None)


RANKED = st.lists(st.integers(0, 30), unique=True, max_size=40)


@given(a=RANKED, b=RANKED)
def test_rank_biased__is_its_definition(a: list[int], b: list[int]) -> None:
    value = rank_biased([np.array(a, np.int64), np.array(b, np.int64)])
    length = min(len(a), len(b))
    if not length:
        assert value[0, 1] == (not a and not b)
        return
    p = max(1 - 10 / length, 0.5)
    agreement = [len({*a[:depth]} & {*b[:depth]}) / depth for depth in range(1, length + 1)]
    naive = agreement[-1] * p**length
    naive += (1 - p) / p * sum(share * p**depth for depth, share in enumerate(agreement, 1))
    assert value[0, 1] == pytest.approx(naive)
    assert value[0, 1] == value[1, 0]
    assert 0 <= value[0, 1] <= 1 + 1e-12
    assert rank_biased([np.array(a, np.int64)] * 2)[0, 1] == pytest.approx(1)


class TestShown:
    def test_table_has_a_line_a_selection(self, seeded: dict[str, Any]) -> None:
        (_, numbers), (_, overlap), (_, mix), *notes = compare_tables(seeded)
        assert [line["selection"] for line in numbers] == [each["name"] for each in seeded["selections"]]
        assert re.fullmatch(r"0\.\d{3} ± 0\.\d{3}", numbers[1]["mean distance"])
        assert len(overlap) == 4
        assert mix[0]["source"] == "fox"
        assert len(notes) == len(seeded["notes"])

    def test_page_has_no_script_and_runs_no_text(self, seeded: dict[str, Any]) -> None:
        hostile = "<script>alert(1)</script>"
        page = render(seeded | {"mix": [{"source": hostile, "pool": 1.0, "shares": [1.0] * 4}]})
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "script-src &#39;none&#39;" in page or "script-src 'none'" in page
        assert "http://" not in page.replace("http://www.w3.org", "")
        for each in seeded["selections"]:
            assert each["name"] in page

    def test_command(self, winnow: Winnow, ran: Path, tmp_path: Path) -> None:
        ended = winnow("compare", "near", "any", "--json", "--out", tmp_path / "out", "-c", ran)
        assert ended.code == 0
        assert json.loads(ended.out) == json.loads((tmp_path / "out" / "compare.json").read_text())
        assert (tmp_path / "out" / "compare.html").read_text().startswith("<!doctype html>")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("naer",), "'naer' is neither a recipe with a selection nor a selection's id (did you mean `near`?)"),
            (("naer", "--seeds", "2"), "no recipe is called 'naer' (did you mean `near`?)"),
            (("near", "--encoder", "vektors"), "no encoder is called 'vektors' (did you mean `vectors`?)"),
        ],
    )
    def test_mistakes(self, winnow: Winnow, ran: Path, arguments: tuple[str, ...], message: str) -> None:
        ended = winnow("compare", *arguments, "-c", ran)
        assert ended.code == 2
        assert message in ended.err

    def test_a_recipe_that_cannot_be_drawn_is_named(self, winnow: Winnow, ran: Path, tmp_path: Path) -> None:
        project = shutil.copytree(ran, tmp_path / "copy", symlinks=True)
        change(project, "budget: 8", "budget: 900")
        ended = winnow("compare", "near", "any", "--seeds", "2", "-c", project)
        assert ended.code == 3
        assert "recipe any: budget must be in 0..80" in ended.err
