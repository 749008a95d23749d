"""Quotas, groups and token budgets of a recipe, from winnow.yaml to SQL."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.context import open_context
from pipelines.errors import HeldBack, RecipesFailed
from pipelines.progress import Log
from pipelines.reproduce import reproduce
from pipelines.run import run_all
from selection import InvalidBudget, InvalidOption
from selection.encoders import load_token_counter
from storage.catalog.query import query_catalog
from storage.errors import BadInput
from storage.ids import from_text
from storage.pool.token_counts import read_counts
from storage.store import Store
from tests.tiny_models import tiny_llama

CONFIG = """\
store: ./store
pool: {files: data/*.jsonl}
recipes:
"""

SHARES = "{steps: [random], budget: 20, quota: {by: source, shares: {wiki: 0.5, forum: 0.3, rest: 0.2}}}"
CAPS = "{steps: [random], budget: 30, quota: {by: source, caps: 0.4}, group_by: talk, max_per_group: 2}"
BANDS = "{steps: [random], budget: 12, quota: {by: n_tokens, bands: [10, 30], caps: {..10: 2, 10..30: 4}}}"
TOKENS = (
    "{steps: [{column: {field: n_tokens}}], budget: {tokens: 500, column: n_tokens}, quota: {by: source, caps: 0.5}}"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """100 rows: 60 wiki, 25 forum, 15 code; talks of three rows; 1 to 50 tokens."""
    (tmp_path / "data").mkdir()
    sources = ["wiki"] * 60 + ["forum"] * 25 + ["code"] * 15
    rows = [
        {
            "prompt": f"question {n}",
            "response": "yes",
            "source": source,
            "talk": f"t{n // 3}",
            "n_tokens": 1 + n * 7 % 50,
        }
        for n, source in enumerate(sources)
    ]
    (tmp_path / "data" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(project: Path, **recipes: str) -> dict[str, Any]:
    """Run these recipes; the rows of each with their columns, in rank order, and what was said."""
    (project / "winnow.yaml").write_text(CONFIG + "".join(f"  {name}: {text}\n" for name, text in recipes.items()))
    said: list[str] = []
    run_all(open_context(project / "winnow.yaml", Log(said.append)))
    chosen = {
        name: query_catalog(
            Store(project / "store"),
            "SELECT e.source, e.extra ->> 'talk' AS talk, (e.extra ->> 'n_tokens')::INT AS n_tokens, i.id, i.kind, i.rank "
            "FROM selection_items i JOIN latest_selections l USING (selection_id) JOIN examples e USING (id) "
            "WHERE l.recipe = ? ORDER BY i.rank",
            [name],
        ).to_pylist()
        for name in recipes
    }
    return chosen | {"said": said}


def facts(project: Path, recipe: str) -> dict[str, Any]:
    (record,) = query_catalog(
        Store(project / "store"), "SELECT facts FROM latest_selections WHERE recipe = ?", [recipe]
    ).to_pylist()
    return dict(json.loads(record["facts"]))


def test_run__shares_caps_bands_and_tokens(project: Path) -> None:
    done = run(project, shares=SHARES, caps=CAPS, bands=BANDS, tokens=TOKENS)

    assert Counter(row["source"] for row in done["shares"]) == {"wiki": 10, "forum": 6, "code": 4}
    assert {row["kind"] for row in done["shares"]} == {"draw"}
    assert {key: value for key, value in facts(project, "shares").items() if key.startswith("quota_")} == {
        "quota_forum": 6,
        "quota_wiki": 10,
        "quota_rest": 4,
    }
    assert max(Counter(row["source"] for row in done["caps"]).values()) <= 12
    assert max(Counter(row["talk"] for row in done["caps"]).values()) <= 2
    assert len(done["caps"]) == 30
    lengths = [row["n_tokens"] for row in done["bands"]]
    assert sum(n < 10 for n in lengths) <= 2
    assert sum(10 <= n < 30 for n in lengths) <= 4
    by_source = Counter[str]()
    for row in done["tokens"]:
        by_source[row["source"]] += row["n_tokens"]
    assert max(by_source.values()) <= 250
    assert facts(project, "tokens")["tokens"] == by_source.total() <= 500
    assert [row["n_tokens"] for row in done["tokens"]] == sorted(
        (row["n_tokens"] for row in done["tokens"]), reverse=True
    )


@pytest.mark.slow
def test_run__the_quota_is_part_of_what_a_selection_is(project: Path) -> None:
    first = run(project, a=SHARES)["a"]
    other = run(project, a=SHARES.replace("wiki: 0.5, forum: 0.3", "wiki: 0.3, forum: 0.5"))["a"]
    assert Counter(row["source"] for row in other) == {"forum": 10, "wiki": 6, "code": 4}
    ids = query_catalog(Store(project / "store"), "SELECT selection_id FROM selections")[0].to_pylist()
    assert len(ids) == 2
    # The order in which the groups are written is no difference.
    again = run(project, a=SHARES.replace("wiki: 0.5, forum: 0.3", "forum: 0.3, wiki: 0.5"))
    assert [row["id"] for row in again["a"]] == [row["id"] for row in first]
    assert len(query_catalog(Store(project / "store"), "SELECT selection_id FROM selections")) == 2
    context = open_context(project / "winnow.yaml", Log(lambda _: None))
    assert "the same 20 rows in the same order" in reproduce(context, ids[0])
    assert "the same 20 rows in the same order" in reproduce(context, ids[1])


@pytest.mark.slow
def test_run__top_up_counts_what_is_kept(project: Path) -> None:
    first = run(project, a=CAPS.replace("budget: 30", "budget: 15"))["a"]
    both = run(project, a=CAPS.replace("budget: 30", "budget: 30, mode: top_up"))["a"]
    assert [row["id"] for row in both[:15]] == [row["id"] for row in first]
    assert [row["kind"] for row in both] == ["kept"] * 15 + ["draw"] * 15
    assert max(Counter(row["source"] for row in both).values()) <= 12
    assert max(Counter(row["talk"] for row in both).values()) <= 2

    tokens = TOKENS.replace("column: {field: n_tokens}", "random: {}").replace(", quota: {by: source, caps: 0.5}", "")
    first = run(project, b=tokens)["b"]
    both = run(project, b=tokens.replace("tokens: 500", "tokens: 900").replace("}}],", "}}], mode: top_up,"))["b"]
    assert [row["id"] for row in both[: len(first)]] == [row["id"] for row in first]
    assert facts(project, "b")["tokens"] == sum(row["n_tokens"] for row in both) <= 900
    assert sum(row["n_tokens"] for row in both) > 850


def test_run__impossible_limits_name_groups_and_numbers(project: Path) -> None:
    cases = [
        (
            "budget: 20, quota: {by: source, shares: {code: 0.8, wiki: 0.2}}",
            InvalidBudget,
            r"the quota by source cannot be met, in rows: code has 15 for a share of 16\.",
        ),
        ("budget: 40, group_by: talk", InvalidBudget, r"max_per_group 1 of talk leaves 34 rows for a budget of 40"),
        (
            "budget: 5, quota: {by: source, caps: {wikis: 3}}",
            InvalidOption,
            r"no row has source 'wikis'; there are: code, forum, wiki",
        ),
        ("budget: 5, group_by: lang", BadInput, "no column 'lang'; known are "),
    ]
    for options, kind, message in cases:
        with pytest.raises(RecipesFailed, match=message) as caught:
            run(project, a=f"{{steps: [random], {options}}}")
        assert isinstance(caught.value.errors["a"], kind)
    short = run(project, a="{steps: [random], budget: 40, group_by: talk, allow_short: true}")
    assert len(short["a"]) == 34


def test_run__a_token_budget_that_the_pool_cannot_fill(project: Path) -> None:
    whole = "{steps: [random], budget: {tokens: 9000, column: n_tokens}}"
    with pytest.raises(RecipesFailed, match=r"100 candidates have 2,550 tokens for a budget of 9,000") as caught:
        run(project, a=whole)
    assert isinstance(caught.value.errors["a"], InvalidBudget | HeldBack)
    done = run(project, a=whole.replace("}}", "}, allow_short: true}"))
    assert len(done["a"]) == 100
    assert any("selection/a: drew 100 rows" in line for line in done["said"])


@pytest.mark.slow
def test_run__a_tokenizer_counts_each_row_once(project: Path) -> None:
    tiny_llama(project / "trainer")
    recipe = "{steps: [random], budget: {tokens: 600, tokenizer: ./trainer}, quota: {by: tokens, bands: [12], caps: {..12: 20}}}"
    first = run(project, a=recipe)
    store = Store(project / "store")
    (tokenizer,) = store.committed("tokens")
    segments = store.committed("tokens", tokenizer)
    counter = load_token_counter(str(project / "trainer"))
    ids = from_text(str(row["id"]) for row in first["a"])
    counts = read_counts(store, tokenizer, ids)
    texts = query_catalog(store, "SELECT id, prompt, response FROM examples").to_pylist()
    turns = {row["id"]: [("user", row["prompt"]), ("assistant", row["response"])] for row in texts}
    assert counts.tolist() == counter.counts([turns[row["id"]] for row in first["a"]])[0].tolist()
    assert facts(project, "a")["tokens"] == counts.sum() <= 600
    assert 0 < counts[counts < 12].sum() <= 20
    assert counts.sum() > 550

    # One more file: only its rows are counted, and the same tokenizer elsewhere is the same.
    (project / "data" / "b.jsonl").write_text(json.dumps({"prompt": "one more", "response": "row"}) + "\n")
    (project / "trainer").rename(project / "moved")
    second = run(project, a=recipe.replace("./trainer", "./moved"))
    (fresh,) = set(store.committed("tokens", tokenizer)) - set(segments)
    assert len(np.load(store.path("tokens", tokenizer, fresh, "keys.npy"))) == 1
    assert len({row["id"] for row in first["a"]} ^ {row["id"] for row in second["a"]}) <= 4
    context = open_context(project / "winnow.yaml", Log(lambda _: None))
    selection = query_catalog(store, "SELECT selection_id FROM latest_selections")[0].to_pylist()[0]
    assert "in the same order" in reproduce(context, selection)
