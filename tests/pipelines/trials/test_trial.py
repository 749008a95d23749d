"""A trial from a selection to a verdict, with models of a few thousand weights."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.errors import TrialRefused
from pipelines.named import selection_of
from pipelines.orchestration.definitions import build_definitions
from pipelines.report.gather import gather
from pipelines.report.page import render
from pipelines.run import run_trial
from pipelines.trials.cells import Cells
from pipelines.trials.records import NOT_TRIED, cell_losses, finished_trial, part_table, trial_line, trial_of
from pipelines.trials.trial import set_options
from storage.catalog.query import query_catalog
from storage.ids import from_arrow
from storage.store import read_json
from tests.pipelines.conftest import change, opened
from tests.pipelines.orchestration.conftest import materialize


def only_trial(store) -> str:
    (trial_id,) = store.records("trials")
    return trial_id


def only_effects(store):
    return finished_trial(store, only_trial(store))


def test_trial__rows_of_the_targets_subject_help(tried) -> None:
    store = opened(tried).store
    trial = trial_of(store, selection_of(store, "chosen"))
    assert trial is not None
    assert trial["verdict"] == "helped"
    assert trial["line"].startswith("chosen: helped against random. sums: loss lower by ")
    (on_sums, on_pool) = trial["effects"]
    assert (on_sums["target_set"], on_pool["target_set"]) == ("sums", None)
    assert on_sums["low"] > 0
    assert on_pool["verdict"] != "helped"  # the pool holds other subjects too
    assert trial_line(store, "0" * 32) == NOT_TRIED


def test_trial__effect_is_that_of_the_recorded_losses(tried) -> None:
    store, effects = opened(tried).store, only_effects(opened(tried).store)
    trial_id = only_trial(store)
    sets = part_table(store, trial_id, "plan", "examples")["target_set"].to_pylist()
    on_sums = np.array([name == "sums" for name in sets])
    random, chosen = (cell_losses(store, trial_id, arm, 3)[:, on_sums] for arm in ("random", "selection"))
    assert effects["effects"][0]["mean"] == pytest.approx(float((random - chosen).mean()))
    assert effects["effects"][0]["examples"] == int(on_sums.sum())


def test_trial__no_arm_trains_on_a_row_that_measures(tried) -> None:
    store = opened(tried).store
    trial_id = only_trial(store)
    rows = part_table(store, trial_id, "plan", "rows")
    measured = from_arrow(part_table(store, trial_id, "plan", "examples")["id"])
    assert not np.isin(from_arrow(rows["id"]), measured).any()
    assert set(rows["arm"].to_pylist()) == {"random", "random_again", "selection"}
    by_arm = {
        (arm, seed): sum(
            a == arm and s == seed for a, s in zip(*(rows[k].to_pylist() for k in ("arm", "seed")), strict=True)
        )
        for arm in ("random", "selection")
        for seed in range(3)
    }
    assert min(by_arm.values()) > 20  # as many tokens, so about as many rows


def test_trial__killed_between_cells_it_goes_on(project, monkeypatch) -> None:
    trained: list[str] = []
    genuine = Cells._trained

    def until_killed(self, seed, arm, on_step):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(f"{arm}-{seed}")
        return genuine(self, seed, arm, on_step)

    monkeypatch.setattr(Cells, "_trained", until_killed)
    context = opened(project)
    with pytest.raises(KeyboardInterrupt):
        run_trial(context, "any")
    trial_id = only_trial(context.store)
    before = cell_losses(context.store, trial_id, "random", 3)
    again: list[str] = []
    monkeypatch.setattr(
        Cells,
        "_trained",
        lambda self, seed, arm, on_step: again.append(f"{arm}-{seed}") or genuine(self, seed, arm, on_step),
    )
    document = run_trial(opened(project), "any")
    assert trained == ["random-0", "random-1", "random-2", "random_again-0"]
    assert again == ["random_again-1", "random_again-2", "selection-0", "selection-1", "selection-2"]
    assert np.array_equal(cell_losses(context.store, trial_id, "random", 3), before)
    assert document["trial_id"] == trial_id
    again.clear()
    assert run_trial(opened(project), "any") == document  # a finished trial costs nothing
    assert not again


@pytest.mark.slow
def test_trial__a_control_equal_to_the_selection_gives_exactly_zero(project) -> None:
    change(project, "trials: {", "trials: {against: [top_score, longest, random_per_source, any], ")
    document = run_trial(opened(project), "chosen")
    effects = {(effect["against"], effect["target_set"]): effect for effect in document["effects"]}
    equal = effects["top_score", "sums"]
    assert (equal["mean"], equal["low"], equal["high"], equal["verdict"]) == (0, 0, 0, "no evidence")
    assert {against for against, _ in effects} == {"random", "top_score", "longest", "random_per_source", "any"}
    # Its rows are all of one source, so random rows of its sources are of the same subject.
    assert abs(effects["random_per_source", "sums"]["mean"]) < effects["random", "sums"]["mean"] / 2


def test_trial__nothing_to_measure_on(project, winnow) -> None:
    change(project, ", measure: 0.8", "")
    ended = winnow("trial", "any", "-c", project)
    assert ended.code == 2
    assert "set `targets.sums.measure: 0.5` in winnow.yaml, then: winnow run any" in ended.err


def test_trial__what_takes_too_long_is_refused(tried) -> None:
    context = set_options(opened(tried), {"tokens": 10**12})
    with pytest.raises(
        TrialRefused, match=r"the trial would take about .*`trials.limit_minutes` is 60: set `trials.tokens: "
    ):
        run_trial(context, "any")


def test_trial__a_control_that_cannot_be_drawn_is_named(tried) -> None:
    context = set_options(opened(tried), {"against": ("top_score",)})
    with pytest.raises(
        TrialRefused, match="top_score takes the rows with the highest scores, and the steps random score"
    ):
        run_trial(context, "any")


def test_trial__estimate_keeps_nothing(tried, winnow) -> None:
    ended = winnow("trial", "any", "--estimate", "-c", tried)
    assert ended.code == 0
    assert "9 models (3 arms, 3 seeds)" in ended.out
    only_trial(opened(tried).store)  # that of another selection


def test_trial__unknown_selection(tried, winnow) -> None:
    ended = winnow("trial", "chosn", "-c", tried)
    assert ended.code == 2
    assert "chosen" in ended.err


def test_trial__in_sql(tried) -> None:
    store = opened(tried).store

    def rows(query):
        return query_catalog(store, query).to_pylist()

    (trial,) = rows("SELECT recipe, verdict, seeds, model, size, line FROM trials")
    assert (trial["recipe"], trial["verdict"], trial["seeds"]) == ("chosen", "helped", 3)
    assert trial["line"] == only_effects(store)["line"]
    assert rows("SELECT arm, count(*) AS n FROM trial_cells GROUP BY arm ORDER BY arm") == [
        {"arm": "random", "n": 3},
        {"arm": "random_again", "n": 3},
        {"arm": "selection", "n": 3},
    ]
    assert rows("SELECT target_set, verdict FROM trial_effects ORDER BY target_set NULLS LAST")[0] == {
        "target_set": "sums",
        "verdict": "helped",
    }
    assert rows("SELECT recipe, trial FROM latest_selections ORDER BY recipe") == [
        {"recipe": "any", "trial": "not tried"},
        {"recipe": "chosen", "trial": "helped"},
    ]
    assert rows("SELECT count(*) AS n FROM trial_detectable WHERE effect > 0") == [{"n": 2}]


def test_trial__on_the_card_and_in_the_report(tried, tmp_path, winnow) -> None:
    line = only_effects(opened(tried).store)["line"]
    for recipe, said in (("chosen", line), ("any", NOT_TRIED)):
        assert winnow("export", recipe, "--out", tmp_path / recipe, "-c", tried).code == 0
        assert read_json(tmp_path / recipe / "provenance.json")["trial"] == said
    document, _ = gather(opened(tried))
    trials = {recipe["name"]: recipe["trial"] for recipe in document["recipes"]}
    assert trials["chosen"]["line"] == line
    assert trials["any"] == {"line": NOT_TRIED, "effects": []}
    page = render(document)
    assert line in page.replace("&#39;", "'")
    assert "Not tried: nobody has looked." in page


@pytest.mark.slow
def test_trial_asset__shows_the_verdict_and_the_nightly_job_leaves_it_out(tried) -> None:
    definitions = build_definitions(tried / "winnow.yaml")
    job = definitions.resolve_job_def("reselect")
    keys = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
    assert "selection/chosen" in keys
    assert "trial/chosen" not in keys
    result = materialize(tried, ["trial/chosen"])
    assert result.success
    (made,) = result.asset_materializations_for_node("trial__chosen")
    assert made.metadata["verdict"].value == "helped"
    passed = sorted(check.check_name for check in result.get_asset_check_evaluations() if check.passed)
    assert passed == ["made", "not_hurt"]
