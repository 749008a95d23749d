from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.config.load import load_config
from pipelines.context import Context
from pipelines.progress import Log
from pipelines.recipes.draw import draw
from pipelines.recipes.drawn import Drawn, quota_groups
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.spec import resolve_spec
from pipelines.report.changes import DROPPED, changes, details, explained
from pipelines.run import run_all
from selection import Pool
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, make_light, opened, write_vectors

ANY = "any: {steps: [random], budget: 8}"


@pytest.fixture(scope="module")
def drawn_otherwise(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that draws a recipe twice, as two texts have it, and gives what changed."""
    project = make_light(tmp_path_factory.mktemp("changes") / "light")
    names = [f"{subject}-{n}" for subject in ("fox", "dog") for n in range(10)]
    (project / "denied.txt").write_text("\n".join(names) + "\n")
    run_all(opened(project), ["any"])

    def drawn(recipe: str) -> Drawn:
        config = load_config(project, {"recipes.any": yaml.safe_load(f"{{{recipe}}}")})
        context = Context(config, Store(project / "store"), Log(print))
        return Drawn(
            context.pool, draw(context, DrawInputs(context.pool, resolve_spec(context, "any")), "any").spec.selection_id
        )

    def draw_both(before: str, after: str) -> tuple[dict[str, Any], dict[str, Any], Drawn, Drawn]:
        first, second = drawn(before), drawn(after)
        return *changes(second.view, second, first), second, first

    return draw_both


@pytest.mark.parametrize(
    ("before", "after", "added", "dropped"),
    [
        ("steps: [random], budget: 30", "steps: [random], budget: 30, seed: 1", {"seed"}, {"seed"}),
        ("steps: [random], budget: 30", "steps: [random], budget: 40", {"budget"}, set()),
        ("steps: [random], budget: 30", "steps: [random], budget: 20", set(), {"budget"}),
        ("steps: [random], budget: 30", "steps: [{rs2: {}}], budget: 30", {"recipe"}, {"recipe"}),
        ("steps: [random], budget: 30", "steps: [random], budget: 30, deny: denied.txt", {"moved_up"}, {"denied"}),
        ("steps: [random], budget: 30, deny: denied.txt", "steps: [random], budget: 30", {"denied"}, {"pushed_out"}),
        ("steps: [random], budget: 30", "steps: [random], budget: 30, where: \"source <> 'fox'\"", {"moved_up"}, {"outside_where"}),
        (
            "steps: [random], budget: 30",
            "steps: [random], budget: 30, quota: {by: source, balance: water_fill}",
            {"quota"},
            {"quota"},
        ),
        ("steps: [random], budget: 8", "steps: [random], budget: 8", set(), set()),
    ],
)  # fmt: skip
def test_changes__the_cause_is_what_was_edited(
    drawn_otherwise: Any, before: str, after: str, added: set[str], dropped: set[str]
) -> None:
    counted, causes, now, last = drawn_otherwise(before, after)
    assert (set(causes["added"]), set(causes["dropped"])) == (added, dropped)
    assert counted["kept"] == len(np.intersect1d(now.ids, last.ids))
    assert counted["same_selection"] == (before == after)
    assert counted["kept_by_top_up"] is None
    assert sum(line["rows"] for line in counted["dropped_causes"]) == counted["dropped"]


@pytest.mark.slow
def test_changes__of_groups_of_the_quota_the_highest_ranked_as_many_as_it_gained(drawn_otherwise: Any) -> None:
    quota = "quota: {by: source, balance: water_fill}"
    _, causes, now, last = drawn_otherwise(
        f"steps: [random], budget: 30, {quota}", f"steps: [random], budget: 30, {quota}, where: \"source <> 'fox'\""
    )
    sources = now.snapshot.column("source")
    ours, theirs = (Counter(sources[drawn.rows].tolist()) for drawn in (now, last))
    added = [place for place, id_ in enumerate(now.ids.tolist()) if id_ not in set(last.ids.tolist())]
    for source, count in ours.items():
        of_source = [
            cause for place, cause in zip(added, causes["added"], strict=True) if sources[now.rows[place]] == source
        ]
        gained = max(count - theirs[source], 0)
        assert of_source == ["quota"] * min(gained, len(of_source)) + ["moved_up"] * max(len(of_source) - gained, 0)


def test_quota_groups__are_those_of_the_quota_itself(drawn_otherwise: Any) -> None:
    recipe = "steps: [random], budget: 30, quota: {by: source, shares: {fox: 0.2, rest: 0.8}}"
    _, _, now, _ = drawn_otherwise(recipe, recipe)
    quota = now.spec.constraints.quota
    group, names = quota.groups(Pool(columns={"source": now.snapshot.column("source")}))
    ours, our_names = quota_groups(now.view, now, quota)
    assert [our_names[place] for place in ours] == [names[place] for place in group]


def test_changes__a_top_up_says_what_it_kept(tmp_path: Path) -> None:
    project = make_light(tmp_path / "light")
    change(project, ANY, "any: {steps: [random], budget: 8, mode: top_up}")
    (first,) = run_all(opened(project), ["any"])
    change(project, "budget: 8, mode", "budget: 12, mode")
    (second,) = run_all(opened(project), ["any"])
    view = opened(project).pool
    counted, causes = changes(view, Drawn(view, second.subject), Drawn(view, first.subject))
    assert (counted["kept"], counted["kept_by_top_up"], counted["kept_at_same_rank"]) == (8, 8, 8)
    assert second.metrics["kept_by_top_up"] == second.metrics["also_in_last"] == 8
    assert (second.metrics["drawn"], second.metrics["not_in_last"], second.metrics["dropped_from_last"]) == (4, 4, 0)
    assert set(causes["added"]) == {"budget"}


def test_changes__a_row_says_which_target_pulled_it_that_is_gone(tmp_path: Path) -> None:
    project = make_light(tmp_path / "light")
    (first,) = run_all(opened(project), ["near"])
    write_rows(project / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 102)])
    write_vectors(project / "vectors" / "foxes.npy", ["fox-100", "fox-102"])
    (second,) = run_all(opened(project), ["near"])
    view = opened(project).pool
    now, before = Drawn(view, second.subject), Drawn(view, first.subject)
    dropped = before.ids[~np.isin(before.ids, now.ids)]
    causes = explained(view, dropped, before, now, DROPPED)
    pulled = dict(zip(before.ids.tolist(), before.items["ref"].to_pylist(), strict=True))
    told = dict(zip(dropped.tolist(), zip(causes, details(dropped, causes, before, now), strict=True), strict=True))
    assert told == {
        id_: ("its_target", "foxes/fox-101") if pulled[id_] == "foxes/fox-101" else ("score", "targets") for id_ in told
    }
    assert ("its_target", "foxes/fox-101") in told.values()
