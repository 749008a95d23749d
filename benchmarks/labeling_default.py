r"""The default of a labeling project beside fixed strategies, on many labelled sets.

    python benchmarks/labeling_default.py --folder SETS --embeddings CACHE --out runs.jsonl \
        --cold sst2 trec6 --rare agnews:Business trec6:NUM

A set is a pair of files NAME_train.jsonl.gz and NAME_test.jsonl.gz in the folder, as `active.py` reads them; its
protocols `cold` and `rare` say what a run does. The four budgets are 50, 100, 200 and 400 labels (of 6 classes or fewer
25, 50, 100 and 200; of 40 or more 1, 2, 4 and 8 times the number of classes, of 100 or more 1, 2, 3 and 5 times); of
rare classes 100, 200, 350 and 500, of which 50 are there at first, 5 of the rare class. Pools have --rows rows, drawn
anew by each seed.

The table has, for each set and budget, average precision with random rows, then the mean difference of each strategy to
it; * where the 95 % interval over the seeds leaves out 0. Below it: how far `auto` is from the best fixed strategy of
each set, and how many rows of the rare class were labelled. With --peers the table also has strategies of other
libraries, run by these libraries.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from active import (
    AUTO,
    RANDOM,
    Array,
    Part,
    Run,
    Task,
    cold_task,
    difference,
    play,
    rare_task,
    read_part,
    without_texts_of,
)
from labeling_peers import PEERS

from selection.learning import auto
from selection.learning.classifier import build_classifier

STRATEGIES = (RANDOM, AUTO, "facility_location", "margin", "entropy", "badge", "fass", "tcm")
PLOTTED = (RANDOM, AUTO, "facility_location", "margin")
AP = "average precision"
START, POSITIVES, SHARE = 50, 5, 0.01
Runs = dict[str, dict[str, dict[int, Run]]]


def auto_version() -> str:
    """Of the rules of `auto`: runs by others are not reused."""
    return hashlib.sha256(inspect.getsource(auto).encode()).hexdigest()[:8]


def schedule_of(name: str, train: Part) -> tuple[int, list[int]]:
    """Rows of a batch, and the four numbers of labels to measure at."""
    if ":" in name:
        return 25, [100, 200, 350, 500]
    classes = len(np.unique(train.labels))
    if classes >= 40:
        return classes, [classes * times for times in ((1, 2, 4, 8) if classes < 100 else (1, 2, 3, 5))]
    first = 50 if classes > 6 else 25
    return first, [first * times for times in (1, 2, 4, 8)]


def task_of(name: str, train: Part, test: Part, rows: int, seed: int) -> Task:
    """The task of a set, or of `set:rare class`, for one seed."""
    _, _, rare = name.partition(":")
    batch, budgets = schedule_of(name, train)
    if not rare:
        share = min(0.8, rows / len(train.labels))
        return cold_task(train, test, Namespace(pool=share, batch=batch, budgets=budgets), seed)
    is_rare = train.labels == rare
    rest = np.random.default_rng([seed, 2]).permutation(np.flatnonzero(~is_rare))[:rows]
    kept = np.sort(np.concatenate([np.flatnonzero(is_rare), rest]))
    part = Part(train.vectors[kept], train.labels[kept], [])
    options = Namespace(rare=rare, share=SHARE, start=START, positives=POSITIVES, batch=batch, budgets=budgets)
    return rare_task(part, test, options, seed)


def values(runs: Mapping[int, Run], seeds: Sequence[int], measure: str, budgets: Sequence[int]) -> Array:
    """(seeds, budgets)."""
    return np.array([[runs[s].values[measure][runs[s].labels.index(b)] for b in budgets] for s in seeds])


def report(runs: Runs, budgets: Mapping[str, Sequence[int]]) -> None:
    """The table, and what it says of `auto`."""
    gaps, worse, finds = [], [], []
    for name, by_strategy in runs.items():
        seeds = sorted(set.intersection(*(set(of) for of in by_strategy.values())))
        print(f"\n{name}, {len(seeds)} seeds{'':12}" + "".join(f"{b:>16} labels" for b in budgets[name]))
        base = values(by_strategy[RANDOM], seeds, AP, budgets[name])
        print(f"{RANDOM:30}" + "".join(f"{value:>23.3f}" for value in base.mean(axis=0)))
        means = {}
        for strategy in [s for s in (*STRATEGIES, *PEERS) if s in by_strategy and s != RANDOM]:
            mine = values(by_strategy[strategy], seeds, AP, budgets[name])
            means[strategy] = float(mine.mean())
            line = f"{strategy:30}"
            for at, b in enumerate(budgets[name]):
                mean, low, high = difference(mine[:, at], base[:, at])
                line += f"{f'{mean:+.3f} [{low:+.3f}, {high:+.3f}]':>22}" + ("*" if low > 0 or high < 0 else " ")
                if strategy == AUTO and high < 0:
                    worse.append(f"{name} at {b}")
            print(line)
        fixed = {s: m for s, m in means.items() if s != AUTO and s not in PEERS} | {RANDOM: float(base.mean())}
        best = max(fixed, key=lambda s: fixed[s])
        gaps.append(means[AUTO] - fixed[best])
        print(f"mean of the budgets: auto {means[AUTO]:.3f}, best fixed {best} {fixed[best]:.3f}")
        if ":" in name:
            of = {s: values(by_strategy[s], seeds, "found", budgets[name]) - POSITIVES for s in (RANDOM, AUTO)}
            times = of[AUTO].mean(axis=0) / of[RANDOM].mean(axis=0)
            finds.append(times[-1])
            print("rare rows beyond the first 5, times random: " + ", ".join(f"{t:.1f}" for t in times))
    print(f"\nauto worse than random (interval below 0): {', '.join(worse) or 'nowhere'}")
    print(f"auto minus the best fixed strategy of each set, mean over {len(gaps)} sets: {statistics.fmean(gaps):+.4f}")
    if finds:
        print(f"rare rows with all labels, times random: {min(finds):.1f} to {max(finds):.1f}")


def plot(runs: Runs, file: Path) -> None:
    """Draw the learning curves: average precision by labels, the mean over the seeds, a chart for each set."""
    import altair as alt

    points = [
        {"set": name, "strategy": strategy, "labels": run.labels[at], "average precision": run.values[AP][at]}
        for name, by_strategy in runs.items()
        for strategy in PLOTTED
        for run in by_strategy[strategy].values()
        for at in range(len(run.labels))
    ]
    charts = (
        alt.Chart(alt.Data(values=points))
        .mark_line(strokeWidth=1.5)
        .encode(
            alt.X("labels:Q").title(None),
            alt.Y("average precision:Q", aggregate="mean").scale(zero=False).title(None),
            alt.Color("strategy:N").sort(list(PLOTTED)).title(None),
            alt.Facet("set:N", columns=4).sort(list(runs)).title(None),
        )
        .properties(width=150, height=100)
        .resolve_scale(x="independent", y="independent")
    )
    charts.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True, help="folder of the cached vectors")
    parser.add_argument("--cold", nargs="*", default=[], metavar="SET")
    parser.add_argument("--rare", nargs="*", default=[], metavar="SET:CLASS")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, choices=STRATEGIES)
    parser.add_argument("--peers", action="store_true", help="also strategies of other libraries, of the extra `bench`")
    parser.add_argument("--rows", type=int, default=3000, help="of a pool")
    parser.add_argument("--most", type=int, default=8000, help="texts of a training file; of a test file 2,000")
    parser.add_argument("--classifier", type=json.loads, default={"logistic_regression": {"calibrated": False}})
    parser.add_argument("--out", type=Path, required=True, help="results, JSON Lines; a run goes on with what is there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the learning curves, as .png or .svg")
    options = parser.parse_args()
    strategies = [*options.strategies, *(PEERS if options.peers else ())]
    learner, key = build_classifier(options.classifier), json.dumps([options.classifier, options.rows, options.most])
    keys = dict.fromkeys(strategies, key) | {AUTO: key + auto_version()}
    names = [*options.cold, *options.rare]
    parts = {}
    for name in names:
        train = read_part(options.folder / f"{name.partition(':')[0]}_train.jsonl.gz", options.embeddings, options.most)
        test = read_part(options.folder / f"{name.partition(':')[0]}_test.jsonl.gz", options.embeddings, 2000)
        parts[name] = train, without_texts_of(test, train)
    runs: Runs = {name: {} for name in names}
    for line in options.out.open() if options.out.exists() else ():
        entry = json.loads(line)
        run = Run(**entry["run"])
        if run.key == keys.get(run.strategy) and entry["set"] in runs and run.seed < options.seeds:
            runs[entry["set"]].setdefault(run.strategy, {})[run.seed] = run
    left = [
        (name, seed, strategy)
        for seed in range(options.seeds)
        for name in names
        for strategy in strategies
        if seed not in runs[name].get(strategy, {})
    ]
    begin = time.perf_counter()
    for number, (name, seed, strategy) in enumerate(left, 1):
        task = task_of(name, *parts[name], options.rows, seed)
        run = replace(play(task, strategy, learner, seed, PEERS.get(strategy)), key=keys[strategy])
        runs[name].setdefault(strategy, {})[seed] = run
        with options.out.open("a") as file:
            file.write(json.dumps({"set": name, "run": vars(run)}) + "\n")
        took = time.perf_counter() - begin
        left_s = took / number * (len(left) - number)
        print(
            f"{name} {strategy} seed {seed}: {number} of {len(left)}, {left_s / 60:.0f} minutes left", file=sys.stderr
        )
    if options.plot:
        plot(runs, options.plot)
    report(runs, {name: schedule_of(name, parts[name][0])[1] for name in names})


if __name__ == "__main__":
    main()
