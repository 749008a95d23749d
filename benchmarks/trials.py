"""What trials say of ways to choose: small models on each way's rows and on controls, for several target sets.

    python benchmarks/trials.py --pool DIR --targets FILE ... --cache DIR [--retrieve NAME REGEX] [--out DIR]
        [--rows 12000] [--budgets 16384 32768] [--epochs 4] [--seeds 5] [--size tiny] [--part 0/2] [--report]

The pool is so many rows of the folder's JSON Lines files (id, source, prompt, response; `.gz` too) by hash of their
ids. Rows without an answer, those that hold an example of a target set and those that are held out to measure on are
left out. Half of each target set steers, the other half measures.

Each way of choosing draws its rows once for each budget in tokens, as a recipe does. For each seed, models train on
these rows and on those of controls with as many tokens: `random`, `random_per_source` (the rows' own mix of sources),
`longest`, and a second random arm, which says what could have been seen. Ways that look at no target are trained once
and measured on all sets. Models, controls and effects are those of `winnow trial`.

Everything is kept in the cache, model by model: a benchmark that is killed goes on. So the same command can run beside
itself, `--part 0/2` and `--part 1/2`; `--report` writes the tables of what is there. Seed comes after seed, then the
controls per source, budget after budget. The tables are `trials.md` and `trials.json` of `--out`. Verdicts are adjusted
by Holm over all effects against the same control.

`--retrieve` measures what each way finds: a row is relevant to the target set NAME if its text of the regular
expression's group 1 in its id is that of some target. All relevant rows of the files join the sample for that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

# Models are small: several processes use the cores better than threads inside each. Set before numpy loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from targeted import embedded, records
from trial_tables import HELD_OUT, Arm, Cell, Record, detectable_of, effects_of, markdown

from pipelines.config.schema import LONGEST, PER_SOURCE, RANDOM, SCRATCH
from pipelines.progress import Terminal
from pipelines.trials.arms import AGAIN_SEED, RANDOM_SEED, source_mix
from pipelines.trials.network import SIZES, Network
from pipelines.trials.plan import EPOCHS, ORDER_SEED
from pipelines.trials.spec import AGAIN
from pipelines.trials.text import END, Reader, Tokens, open_reader, packed, shortened, train_reader
from selection import Pool, Targets, TokenBudget, select
from selection.constraints import COUNTED_TOKENS
from selection.encoders import ModelSpec, TokenScorer, load_token_scorer
from selection.kernels.contamination import Contamination
from selection.kernels.ngrams import Ngrams
from selection.registry import Spec, parse_steps, required
from selection.types import SCORES, Input
from storage.pool.content import text_of
from storage.pool.ingest import FileSpec
from storage.pool.targets import ingest_targets
from storage.records import digest_of
from storage.store import Store

Array = npt.NDArray[Any]
Turns = list[tuple[str, str]]

METHODS: Mapping[str, list[Spec]] = {
    "rds_plus": ["rds_plus"],
    "rds_max": ["rds_max"],
    "betr": ["betr"],
    "interests": ["interests"],
    "dsir": ["dsir"],
    "diversity_filter": ["ifd", "diversity_filter"],
    "facility_location": ["facility_location"],
    "k_center": ["k_center"],
    "perplexity middle": [{"perplexity": {"prefer": "middle"}}],
    "ifd": ["ifd"],
    LONGEST: [{"column": {"field": COUNTED_TOKENS}}],
}
HELD_OUT_ROWS = 100
DIMENSIONS, BUCKETS = 384, 2**18
# Texts at once: little is lost where it is stopped.
BATCH = 1000
# Rows at random by which the model of `ifd` and `perplexity` is trained, in tokens; and how much longer its context is.
SCORER_TOKENS, SCORER_CONTEXT, SCORER_SEED = 500_000, 4, 20_265_000
# Draws of a way whose smaller draw does not begin its larger one, until its tokens are those of the budget.
TRIES = 4
# Part of every key in the cache. Increase it whenever the same files would give other numbers.
VERSION = 1


@dataclass(frozen=True, eq=False)
class Data:
    """What is chosen from, and what steers and measures.

    Attributes:
        records: of the sample, and those that only `--retrieve` looks at.
        eligible, relevant: (n,) bool: those that a trial may draw; those that `--retrieve` looks for.
        held_out: rows that only measure.
        steering, measuring: target set -> the turns of its examples.
    """

    records: list[dict[str, str]]
    eligible: Array
    relevant: Array
    held_out: Array
    steering: Mapping[str, list[Turns]]
    measuring: Mapping[str, list[Turns]]

    @cached_property
    def digest(self) -> str:
        """Of all that is here."""
        masks = [mask.tolist() for mask in (self.eligible, self.relevant, self.held_out)]
        text = json.dumps([self.records, masks, self.steering, self.measuring])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @cached_property
    def ids(self) -> list[str]:
        """(n,)."""
        return [row["id"] for row in self.records]

    @cached_property
    def keys(self) -> Array:
        """(n,) uint64, for draws at random."""
        return hashes_of(self.ids)

    @cached_property
    def turns(self) -> list[Turns]:
        """(n,) as rows of a store."""
        return [[("user", row["prompt"]), ("assistant", row["response"])] for row in self.records]

    @cached_property
    def texts(self) -> list[str]:
        """(n,) what vectors and n-grams are of."""
        return [text_of(turns) for turns in self.turns]

    @cached_property
    def texts_of_sets(self) -> Mapping[str, list[str]]:
        """Target set -> the texts of the examples that steer."""
        return {name: [text_of(turns) for turns in examples] for name, examples in self.steering.items()}

    @cached_property
    def sources(self) -> Array:
        """(n,) str."""
        return np.array([row["source"] for row in self.records])


def hashes_of(ids: Sequence[str]) -> Array:
    """(n,) uint64."""
    return np.array([int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=7).digest()) for id_ in ids], np.uint64)


def read_data(options: argparse.Namespace) -> Data:
    """The pool and the target sets.

    Where a row holds an example of a target set, or what it asks, no trial draws it.
    """
    store = Store(options.cache / "store")
    sets = {
        name: ingest_targets(store, name, [FileSpec(url=str(path.absolute()))], 0.5)
        for name, path in ((path.name.partition(".")[0], path) for path in options.targets)
    }
    every = [row for path in sorted(options.pool.glob("*.jsonl*")) for row in records(path) if row["response"].strip()]
    order = np.argsort(hashes_of([row["id"] for row in every]), kind="stable")
    sampled = np.isin(np.arange(len(every)), order[: options.rows])
    relevant = np.zeros(len(every), np.bool_)
    if options.retrieve:
        name, regex = options.retrieve
        wanted = {group(regex, sets[name].given_ids[place]) for place in sets[name].selecting.tolist()} - {None}
        relevant = np.array([group(regex, row["id"]) in wanted for row in every])
    places = order[(sampled | relevant)[order]]  # by hash, so that the last that are sampled are rows at random
    sampled, relevant = sampled[places], relevant[places]
    rows = [every[place] for place in places.tolist()]
    examples = chain(*(target.conversations for target in sets.values()))
    copies = Contamination([text for turns in examples for text in (text_of(turns), turns[0][1])])
    eligible = sampled.copy()
    eligible[[match.row for match in copies.matches(f"{row['prompt']}\n{row['response']}" for row in rows)]] = False
    held_out = np.flatnonzero(eligible)[-min(HELD_OUT_ROWS, options.rows // 20) :]
    eligible[held_out] = False
    return Data(
        rows,
        eligible,
        relevant,
        held_out,
        {name: [target.conversations[place] for place in target.selecting] for name, target in sets.items()},
        {name: [target.conversations[place] for place in target.measuring] for name, target in sets.items()},
    )


def group(regex: str, id_: str | None) -> str | None:
    """Group 1 of a regular expression in an id."""
    match = re.search(regex, id_ or "")
    return match[1] if match else None


def minilm(texts: Sequence[str], _: Sequence[str], cache: Path) -> Array:
    """(n, 384) MiniLM's vectors."""
    report = Terminal()
    parts = []
    for start in range(0, len(texts), BATCH):
        report.progress("MiniLM", start, len(texts), "texts")
        parts.append(embedded(texts[start : start + BATCH], cache))
    return np.concatenate(parts)


def ngram_sketch(texts: Sequence[str], pool: Sequence[str], _: Path) -> Array:
    """(n, 384) hashed words and pairs of words, weighted by their rarity in the pool, with random signs; unit length.

    Source: Weinberger et al. 2009 (feature hashing).
    """
    ngrams = Ngrams(BUCKETS)
    held = np.zeros(BUCKETS, np.int64)
    for block in ngrams.blocks(pool):
        held += np.bincount(np.unique(np.stack([block.place, block.bucket]), axis=1)[1], minlength=BUCKETS)
    rng = np.random.default_rng(0)
    weight = np.log((len(pool) + 1) / (held + 1)) * rng.choice([-1.0, 1.0], BUCKETS)
    column = rng.integers(0, DIMENSIONS, BUCKETS)
    sketch = np.zeros((len(texts), DIMENSIONS))
    for block in ngrams.blocks(texts):
        np.add.at(sketch, (block.rows[block.place], column[block.bucket]), weight[block.bucket])
    lengths = np.linalg.norm(sketch, axis=1, keepdims=True)
    return (sketch / np.where(lengths > 0, lengths, 1)).astype(np.float32)


VECTORS: Mapping[str, Callable[[Sequence[str], Sequence[str], Path], Array]] = {
    "MiniLM": minilm,
    "n-grams": ngram_sketch,
}


class Bench:
    """What is made once, draws and models; each is kept in the cache.

    Attributes:
        tokens, counts: of each row.
        arms: every way of choosing, on all that it can see.
        examples: to measure on.
        places: of the examples of each target set, and of the held-out rows.
    """

    def __init__(self, options: argparse.Namespace, data: Data) -> None:
        self.options, self.data = options, data
        self.size = SIZES[options.size]
        self.report = Terminal()
        self._key = [VERSION, data.digest, options.size]
        self.reader = self._reader()
        self.tokens = self.reader.read(data.turns)
        self.counts = np.array([len(row.ids) for row in self.tokens], np.int64)
        self.examples, self.places = self._examples()
        self.arms = arms_of(options.vectors, list(data.steering))

    def path(self, kind: str, suffix: str, *depends_on: Any) -> Path:
        """Where something that depends on these things is kept."""
        folder = self.options.cache / kind
        folder.mkdir(parents=True, exist_ok=True)
        return Path(folder / f"{digest_of([*self._key, *depends_on])}{suffix}")

    def _reader(self) -> Reader:
        path = self.path("tokenizers", ".json")
        if not path.exists():
            texts = (self.data.texts[row] for row in np.flatnonzero(self.data.eligible).tolist())
            train_reader(texts, self.size.vocabulary).raw.save(str(path))
        return open_reader(str(path))

    def _examples(self) -> tuple[list[Tokens], dict[str, Array]]:
        groups = {name: self.reader.read(turns) for name, turns in self.data.measuring.items()}
        groups[HELD_OUT] = [self.tokens[row] for row in self.data.held_out.tolist()]
        examples: list[Tokens] = []
        places: dict[str, Array] = {}
        for name, rows in groups.items():
            short = [shortened(row, self.size.context) for row in rows]
            answered = [row for row in short if row.answer[1:].any()]
            places[name] = np.arange(len(examples), len(examples) + len(answered))
            examples += answered
        return examples, places

    # What ways of choosing see.

    @cached_property
    def vectors(self) -> Mapping[str, Mapping[str, Array]]:
        """Kind of vectors -> target set, "" for the pool -> (n, d)."""
        every = {"": self.data.texts, **self.data.texts_of_sets}
        pool = [self.data.texts[row] for row in np.flatnonzero(self.data.eligible).tolist()]
        return {
            kind: {
                name: kept(
                    self.path("vectors", ".npy", kind, name),
                    partial(make, texts, pool, self.options.cache / "embedded"),
                )
                for name, texts in every.items()
            }
            for kind, make in VECTORS.items()
            if kind in self.options.vectors
        }

    @cached_property
    def scores(self) -> Mapping[str, Array]:
        """Column -> (n,): what a model that is trained on the pool says of each row."""
        values = kept(self.path("scores", ".npy", SCORER_TOKENS, SCORER_CONTEXT), self._scores)
        return dict(zip(SCORES, values.T, strict=True))

    def _scores(self) -> Array:
        scorer = self._scorer()
        values = []
        for start in range(0, len(self.data.turns), BATCH):
            self.report.progress("token scores", start, len(self.data.turns))
            values.append(scorer.scores(self.data.turns[start : start + BATCH]).values)
        return np.concatenate(values)

    def _scorer(self) -> TokenScorer:
        """A model like those of the trial but for its longer context, trained on rows at random, each read once."""
        from transformers import PreTrainedTokenizerFast

        context = SCORER_CONTEXT * self.size.context
        size = replace(self.size, context=context, batch=max(1, self.size.batch // SCORER_CONTEXT))
        eligible = np.flatnonzero(self.data.eligible)
        steps = max(1, min(SCORER_TOKENS, int(self.counts[eligible].sum())) // size.step_tokens)
        self.report.say(f"train a model on {steps * size.step_tokens:,} tokens of the pool, for ifd and perplexity")
        network = Network(SCRATCH, size, self.reader.size, SCORER_SEED)
        rng = np.random.default_rng(SCORER_SEED)
        rows = [self.tokens[row] for row in eligible.tolist()]
        network.train(*packed(rows, steps * size.batch, context, rng), size.rates[1])
        folder = self.path("scorers", "")
        network.module.save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=self.reader.raw, eos_token=END).save_pretrained(folder)
        return load_token_scorer(ModelSpec(model=str(folder), max_tokens=context))

    # Draws.

    def pool(self, steps: Sequence[Spec], arm: Arm, eligible: Array) -> Pool:
        """What the steps need of the pool; rows without a score that they go by cannot be drawn."""
        inputs, columns = required(parse_steps(steps))
        data = self.data
        given: dict[str, Any] = {}
        if arm.vectors is not None:
            given["vectors"] = self.vectors[arm.vectors][""]
        if arm.vectors is not None and arm.target is not None:
            given["targets"] = Targets(self.vectors[arm.vectors][arm.target])
        if Input.TARGET_TEXTS in inputs and arm.target is not None:
            given |= {"texts": data.texts, "target_texts": data.texts_of_sets[arm.target]}
        scores = {name: self.scores[name] for name in sorted(columns & set(SCORES))}
        known = np.all([eligible, *(np.isfinite(score) for score in scores.values())], axis=0)
        return Pool(
            columns={"source": data.sources, COUNTED_TOKENS: self.counts}
            | {name: np.where(known, score, 0) for name, score in scores.items()},
            keys=data.keys,
            eligible=known,
            **given,
        )

    def rows(self, cell: Cell) -> Array:
        """The rows that a model is trained on, in pick order. A way draws them once for all seeds, as a recipe does."""
        arm, budget, seed = cell
        if arm.method in (RANDOM, AGAIN) or arm.control is not None:
            draw = (AGAIN_SEED if arm.method == AGAIN else RANDOM_SEED) + seed
            return kept(self.path("rows", ".npy", asdict(arm), budget, draw), partial(self._random, arm, budget, draw))
        steps = METHODS[arm.method]
        return kept(self.path("rows", ".npy", asdict(arm), budget, steps), partial(self._chosen, arm, budget, steps))

    def _random(self, arm: Arm, budget: int, draw: int) -> Array:
        """A random control, as `pipelines.trials.arms` draws it."""
        quota = None
        if arm.control == PER_SOURCE:
            quota = source_mix(self.data.sources, self.rows(Cell(replace(arm, control=None), budget, 0)), self.counts)
        pool = self.pool([RANDOM], Arm(RANDOM), self.data.eligible)
        return select([RANDOM], pool, budget=tokens_of(budget), seed=draw, quota=quota, allow_short=True).rows

    def _chosen(self, arm: Arm, budget: int, steps: Sequence[Spec]) -> Array:
        self.report.say(f"draw {arm.way} for {arm.target or 'no target'}, {budget:,} tokens")
        pool = self.pool(steps, arm, self.data.eligible)
        if parse_steps(steps)[-1].nested:
            return select(steps, pool, budget=tokens_of(budget), allow_short=True).rows
        # Its draws are of so many rows: try numbers of rows until their tokens are about those of the budget.
        count = max(1, int(budget / self.counts[pool.candidates].mean()))
        for _ in range(TRIES):
            rows = select(steps, pool, budget=count, allow_short=True).rows
            count = max(1, round(count * budget / int(self.counts[rows].sum())))
        return rows[np.cumsum(self.counts[rows]) <= budget]

    def retrieved(self, arm: Arm) -> Array:
        """The first picks of a way among all rows, as many as are relevant."""
        steps, count = METHODS[arm.method], int(self.data.relevant.sum())

        def pick() -> Array:
            return select(
                steps, self.pool(steps, arm, np.ones(len(self.data.ids), np.bool_)), budget=count, allow_short=True
            ).rows

        return kept(self.path("retrieved", ".npy", asdict(arm), steps, count), pick)

    # Models.

    def steps(self, budget: int) -> int:
        """Of each model."""
        return max(1, round(self.options.epochs * budget / self.size.step_tokens))

    @cached_property
    def rates(self) -> dict[int, float]:
        """Budget -> the learning rate after which the random control of the first seed does best on held-out rows."""
        rates = {}
        for budget in self.options.budgets:
            cell = Cell(Arm(RANDOM), budget, 0)
            losses = [kept(self.losses_path(cell, r), partial(self._losses, cell, r)) for r in self.size.rates]
            rates[budget] = self.size.rates[int(np.argmin([each[self.places[HELD_OUT]].mean() for each in losses]))]
        return rates

    def losses_path(self, cell: Cell, rate: float) -> Path:
        """Where the losses of a model are kept: arms of the same rows share them."""
        ids = sorted(self.data.ids[row] for row in self.rows(cell).tolist())
        return self.path("losses", ".npy", ids, self.steps(cell.budget), cell.seed, rate)

    def _losses(self, cell: Cell, rate: float) -> Array:
        """(examples,) of a model that is trained on the cell's rows."""
        network = Network(SCRATCH, self.size, self.reader.size, cell.seed)
        read = [self.tokens[row] for row in np.sort(self.rows(cell)).tolist()]
        rng = np.random.default_rng([ORDER_SEED, cell.seed])
        network.train(*packed(read, self.steps(cell.budget) * self.size.batch, self.size.context, rng), rate)
        return network.losses(self.examples)

    def train(self, cells: Sequence[Cell]) -> None:
        """Train and measure the models that are not there yet."""
        paths = {cell: self.losses_path(cell, self.rates[cell.budget]) for cell in cells}
        part, parts = self.options.part
        missing = [cell for cell in cells if not paths[cell].exists()][part::parts]
        for done, cell in enumerate(missing):
            self.report.progress("train", done, len(missing), "models")
            kept(paths[cell], partial(self._losses, cell, self.rates[cell.budget]))

    def known(self, cells: Sequence[Cell]) -> dict[Cell, Array]:
        """The losses of the models that are there."""
        paths = {cell: self.losses_path(cell, self.rates[cell.budget]) for cell in cells}
        return {cell: np.load(path) for cell, path in paths.items() if path.exists()}


def kept(path: Path, make: Callable[[], Array]) -> Array:
    """An array out of the cache; made where it is not there."""
    if not path.exists():
        given = make()
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        with unfinished.open("wb") as file:
            np.save(file, given)
        unfinished.rename(path)
    return np.asarray(np.load(path))


def tokens_of(budget: int) -> TokenBudget:
    """A budget in the tokens of the trial's tokenizer."""
    return TokenBudget(tokens=budget, column=COUNTED_TOKENS)


def arms_of(kinds: Sequence[str], targets: Sequence[str]) -> list[Arm]:
    """Every way of choosing, on all that it can see: kinds of vectors, target sets."""
    arms = []
    for method, steps in METHODS.items():
        inputs, _ = required(parse_steps(steps))
        seen = kinds if Input.VECTORS in inputs else [None]
        steering = targets if inputs & {Input.TARGETS, Input.TARGET_TEXTS} else [None]
        arms += [Arm(method, kind, target) for kind in seen for target in steering]
    return arms


def cells_of(arms: Sequence[Arm], budgets: Sequence[int], seeds: int) -> list[Cell]:
    """Seed after seed, the controls that all share first; then the controls per source, budget after budget."""
    shared = [Arm(RANDOM), Arm(AGAIN), *arms]
    own = [replace(arm, control=PER_SOURCE) for arm in arms if arm.method != LONGEST]
    return [
        *(Cell(arm, budget, seed) for seed in range(seeds) for budget in budgets for arm in shared),
        *(Cell(arm, budget, seed) for budget in budgets for seed in range(seeds) for arm in own),
    ]


def retrieval(bench: Bench) -> list[Record]:
    """What each way finds, from the first picks."""
    if not bench.options.retrieve:
        return []
    target, relevant = bench.options.retrieve[0], bench.data.relevant
    size = {"target": target, "rows": len(relevant), "picks": int(relevant.sum())}
    arms = [arm for arm in bench.arms if arm.target in (None, target)]
    return [{"way": arm.way, **size, "share": float(relevant[bench.retrieved(arm)].mean())} for arm in arms]


def part_of(text: str) -> tuple[int, int]:
    """`0/2`."""
    part, _, parts = text.partition("/")
    return int(part), int(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is not there yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True, metavar="DIR")
    parser.add_argument("--targets", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR")
    parser.add_argument("--retrieve", nargs=2, metavar=("NAME", "REGEX"))
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--budgets", type=int, nargs="+", default=[16_384, 32_768])
    parser.add_argument("--epochs", type=float, default=EPOCHS, help="how often a model reads its rows")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--vectors", nargs="+", choices=VECTORS, default=list(VECTORS))
    parser.add_argument("--part", type=part_of, default=(0, 1))
    parser.add_argument("--report", action="store_true", help="write the tables of what is there")
    options = parser.parse_args(arguments)
    names = [path.name.partition(".")[0] for path in options.targets]
    if options.retrieve and options.retrieve[0] not in names:
        parser.error(f"--retrieve: {options.retrieve[0]!r} is no target set; there are: {', '.join(names)}")
    bench = Bench(options, read_data(options))
    cells = cells_of(bench.arms, options.budgets, options.seeds)
    if not options.report:
        bench.train(cells)
    losses = bench.known(cells)
    effects = effects_of(losses, bench.places, bench.arms, options.budgets, options.seeds)
    seen = detectable_of(losses, bench.places, options.budgets, options.seeds)
    retrieved = retrieval(bench)
    options.out.mkdir(parents=True, exist_ok=True)
    facts = described(bench, len(losses), len(cells))
    document = {"facts": facts, "effects": effects, "detectable": seen, "retrieval": retrieved}
    (options.out / "trials.json").write_text(json.dumps(document, indent=1), "utf-8")
    text = facts + "\n\n" + markdown(effects, seen, retrieved)
    (options.out / "trials.md").write_text(text, "utf-8")
    print(text)
    return 0


def described(bench: Bench, models: int, planned: int) -> str:
    """What was run, in a sentence or two."""
    data, options = bench.data, bench.options
    eligible = data.eligible
    budgets = ", ".join(
        f"{budget:,} tokens ({bench.steps(budget)} steps, rate {bench.rates[budget]:g})" for budget in options.budgets
    )
    return (
        f"{int(eligible.sum()):,} rows with {int(bench.counts[eligible].sum()):,} tokens; budgets {budgets}; models of "
        f"size `{options.size}`, {options.epochs:g} epochs, {options.seeds} seeds; {models:,} of {planned:,} models."
    )


if __name__ == "__main__":
    sys.exit(main())
