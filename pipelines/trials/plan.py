"""All that is decided before the first model of a trial is trained: rows, examples, tokens, cost, learning rate."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config.schema import RANDOM, SCRATCH
from pipelines.context import Context
from pipelines.costs import as_bytes
from pipelines.errors import TrialRefused
from pipelines.messages import counted
from pipelines.progress import duration
from pipelines.runs import code_version, peak_memory_bytes
from pipelines.trials.arms import Chosen, arm_rows, chosen_rows
from pipelines.trials.network import Network, Size, open_model_reader, size_of
from pipelines.trials.records import PLAN, known_part, part_table
from pipelines.trials.spec import SELECTION, TrialSpec
from pipelines.trials.text import Reader, Tokens, open_reader, packed, shortened, train_reader
from selection.types import Rows
from storage.damage import KINDS
from storage.ids import Ids, from_arrow, from_bytes, rows_of, to_arrow, to_bytes
from storage.pool.content import Turns, text_of
from storage.pool.snapshot import Snapshot
from storage.pool.token_counts import MISSING, commit_counts, read_counts
from storage.records import digest_of, write_items
from storage.store import utc_now, write_json

POOL = None
"""The target set that stands for the held-out rows of the pool."""
EPOCHS = 4
"""How often a selection is read where `tokens` is not set; more is worth less (Muennighoff et al. 2023)."""
TOKENIZER_ROWS = 100_000
# Seed of the order of batches, and how much of a full training a rate is tried with.
ORDER_SEED, SWEEP = 20_264_000, 4
FEW_EXAMPLES, FEW_STEPS = 30, 50
_TIMED_STEPS = 3


@dataclass(frozen=True, eq=False)
class Example:
    """An example to measure on.

    Attributes:
        target_set: its name; None for a held-out row of the pool.
        id: 16 bytes.
        tokens: as the model sees it.
        text: all of it.
    """

    target_set: str | None
    id: bytes
    tokens: Tokens
    text: str


@dataclass(frozen=True)
class Cost:
    """What a trial costs.

    Attributes:
        seconds: of all of it.
        step_seconds: of a step.
        memory_bytes: the most so far, once a step was made.
        parameters: of a model.
    """

    seconds: float
    step_seconds: float
    memory_bytes: int
    parameters: int


@dataclass(frozen=True, eq=False)
class Plan:
    """A trial before its first model.

    Attributes:
        size: how a model is trained.
        steps: of each model.
        selection_tokens: of the rows of the selection.
        rows: (arm, seed) -> the rows that it trains on.
        examples: to measure on, set by set, the pool's last.
        left_out: target set, "" for the pool -> why -> how many examples are not measured on.
        notes: what a reader should know.
        rate: the learning rate; 0 before it is chosen.
    """

    trial: TrialSpec
    snapshot: Snapshot
    reader: Reader
    size: Size
    steps: int
    selection_tokens: int
    rows: dict[tuple[str, int], Rows]
    examples: list[Example]
    left_out: dict[str, dict[str, int]]
    notes: list[str]
    rate: float = 0.0

    @property
    def tokens(self) -> int:
        """That each model is trained on."""
        return self.steps * self.size.step_tokens

    @property
    def epochs(self) -> float:
        """How often a model reads the selection."""
        return self.tokens / self.selection_tokens

    @property
    def models(self) -> int:
        """How many are trained."""
        return len(self.trial.arms) * self.trial.seeds

    def sequences(self, arm: str, seed: int, steps: int | None = None) -> tuple[Any, Any]:
        """What a model is trained on, in order; arms of the same rows get the same."""
        rows = np.sort(self.rows[arm, seed])
        read = self.reader.read(self.snapshot.turns_of(rows))
        rng = np.random.default_rng([ORDER_SEED, seed])
        return packed(read, (steps or self.steps) * self.size.batch, self.size.context, rng)

    def network(self, seed: int) -> Network:
        """A model before its training."""
        return Network(self.trial.model, self.size, self.reader.size, seed, lora=self.trial.lora)


def prepare(context: Context, trial: TrialSpec) -> Plan:
    """Draw the arms and read the examples.

    Raises:
        TrialRefused: there is too little to train on or to measure on.
    """
    chosen = chosen_rows(context, trial)
    size = size_of(trial.model, trial.size or "", lora=trial.lora)
    reader = _reader(chosen, trial, size)
    counts, tokenizer = _counts(context, chosen, reader)
    rows = arm_rows(context, trial, chosen, counts, tokenizer)
    selection_tokens = int(counts[chosen.rows].sum())
    steps = max(1, round((trial.tokens or EPOCHS * selection_tokens) / size.step_tokens))
    examples, left_out = _examples(context, trial, chosen, reader, rows, size.context)
    plan = Plan(trial, chosen.snapshot, reader, size, steps, selection_tokens, rows, examples, left_out, [])
    plan.notes.extend(_notes(plan, chosen, counts))
    return plan


def _reader(chosen: Chosen, trial: TrialSpec, size: Size) -> Reader:
    """The tokenizer: the model's, or one of the rows that any arm may draw, so that no arm has one of its own."""
    if trial.model != SCRATCH:
        return open_model_reader(trial.model)
    ids = chosen.snapshot.ids[chosen.eligible][:TOKENIZER_ROWS]  # ids are hashes, so the first are a random part
    return train_reader((text_of(turns) for _, batch in chosen.snapshot.turns(ids) for turns in batch), size.vocabulary)


def _counts(context: Context, chosen: Chosen, reader: Reader) -> tuple[Rows, str]:
    """(n,) the tokens of each row that an arm may hold; and the fingerprint under which the store keeps them."""
    fingerprint = digest_of({"trial": 1, "tokenizer": reader.raw.to_str(), "begin": reader.begin})
    wanted = chosen.eligible.copy()
    wanted[chosen.rows] = True
    ids = chosen.snapshot.ids
    uncounted = ids[wanted & (read_counts(context.store, fingerprint, ids) == MISSING)]
    done = 0
    for batch, turns in chosen.snapshot.turns(uncounted) if len(uncounted) else ():
        sizes = np.array([len(row.ids) for row in reader.read(turns)], np.int64)
        commit_counts(context.store, fingerprint, batch, sizes)
        done += len(batch)
        context.report.progress("count the tokens of the pool", done, len(uncounted))
    return read_counts(context.store, fingerprint, ids), fingerprint


def _examples(
    context: Context,
    trial: TrialSpec,
    chosen: Chosen,
    reader: Reader,
    rows: dict[tuple[str, int], Rows],
    length: int,
) -> tuple[list[Example], dict[str, dict[str, int]]]:
    """The examples to measure on, and how many are left out and why.

    Raises:
        TrialRefused: no target set has two examples left.
    """
    every = list(_all_examples(context, trial, chosen.snapshot, chosen.held_out, reader, length))
    trained = np.unique(np.concatenate(list(rows.values())))
    copies = _near_copies(chosen.snapshot, chosen.snapshot.ids[trained], [example.text for example in every])
    left_out: dict[str, dict[str, int]] = {}
    kept = []
    for place, example in enumerate(every):
        causes = left_out.setdefault(example.target_set or "", {"copies_of_training_rows": 0, "without_answer": 0})
        if place in copies:
            causes["copies_of_training_rows"] += 1
        elif not example.tokens.answer[1:].any():
            causes["without_answer"] += 1
        else:
            kept.append(example)
    for target in trial.targets:
        count = sum(example.target_set == target for example in kept)
        if count < 2:
            why = ", ".join(f"{number:,} {cause.replace('_', ' ')}" for cause, number in left_out[target].items())
            raise TrialRefused(
                f"{counted(count, 'example')} of {target!r} left to measure on ({why}): a trial needs two at least, and "
                f"some dozens to see anything; let `targets.{target}.measure` set more aside, or leave the set out of "
                "`trials.targets`"
            )
    return kept, left_out


def _all_examples(
    context: Context, trial: TrialSpec, snapshot: Snapshot, held_out: Rows, reader: Reader, length: int
) -> Iterator[Example]:
    for name, record in trial.targets.items():
        target_set = context.pool.target_set_of(record)
        places = target_set.measuring
        turns = [target_set.conversations[place] for place in places.tolist()]
        yield from _read_examples(name, target_set.ids[places], turns, reader, length)
    yield from _read_examples(POOL, snapshot.ids[held_out], snapshot.turns_of(held_out), reader, length)


def _read_examples(
    name: str | None, ids: Ids, turns: Sequence[Turns], reader: Reader, length: int
) -> Iterator[Example]:
    for id_, row, tokens in zip(to_bytes(ids), turns, reader.read(turns), strict=True):
        yield Example(name, id_, shortened(tokens, length), text_of(row))


def _near_copies(snapshot: Snapshot, trained: Ids, texts: Sequence[str]) -> set[int]:
    """The places of the texts that a row holds, all of it or most of its n-grams, by the rules of `decontamination`."""
    from selection.kernels.contamination import Contamination

    held: Iterable[str] = (text_of(turns) for _, batch in snapshot.turns(trained) for turns in batch)
    return {match.target for match in Contamination(texts).matches(held)}


def _notes(plan: Plan, chosen: Chosen, counts: Rows) -> Iterator[str]:
    if plan.epochs > EPOCHS * 1.05:
        yield (
            f"each model reads the selection {plan.epochs:.1f} times: beyond {EPOCHS} times repetition is worth less, "
            "so lower `trials.tokens` or try a larger selection"
        )
    if plan.steps < FEW_STEPS and plan.trial.model == SCRATCH:
        yield (
            f"a model takes {counted(plan.steps, 'step')} of {plan.size.step_tokens:,} tokens, too few to learn much from "
            "scratch: `trials.tokens` or a smaller `trials.size` gives it more"
        )
    if chosen.held_out_of_selection:
        yield f"{counted(chosen.held_out_of_selection, 'row')} of the selection are held out to measure on"
    for target, causes in plan.left_out.items():
        copies = causes["copies_of_training_rows"]
        if copies:
            yield f"{target or 'held-out rows'}: {counted(copies, 'example')} left out: an arm trains on a near-copy"
        count = sum((example.target_set or "") == target for example in plan.examples)
        if target and count < FEW_EXAMPLES:
            yield f"{target}: {counted(count, 'example')} to measure on, with which little can be seen"
    for arm in plan.trial.arms:
        tokens = int(counts[plan.rows[arm, 0]].sum())
        if tokens < 0.9 * plan.selection_tokens:
            yield f"{arm}: only {tokens:,} tokens, the selection has {plan.selection_tokens:,}; it is repeated more often"


def cost_of(plan: Plan, limit_minutes: float) -> Cost:
    """What a trial costs, by a few steps with tokens at random.

    Raises:
        TrialRefused: it would take longer than the limit, or more memory than there is.
    """
    began = time.monotonic()
    network = plan.network(0)
    loading = time.monotonic() - began
    memory = 4 * network.parameters + 12 * network.trained_parameters  # weights; gradients and the two moments of AdamW
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if network.device == "cpu" and memory > available:
        raise TrialRefused(
            f"training {plan.trial.model} takes {as_bytes(memory)} at least, and there are {as_bytes(available)}: take a "
            "smaller `trials.model`" + ("" if plan.trial.lora else ", or `trials.lora: true`")
        )
    rng = np.random.default_rng(0)
    shape = (plan.size.batch, network.context)
    ids, answer = rng.integers(0, plan.reader.size, shape, np.int32), np.ones(shape, np.bool_)
    network.train(ids, answer, plan.size.rates[0])  # the first step compiles and allocates
    times = []
    for _ in range(_TIMED_STEPS):
        began = time.monotonic()
        network.train(ids, answer, plan.size.rates[0])
        times.append(time.monotonic() - began)
    step = float(np.median(times))
    sample = [example.tokens for example in plan.examples[:: max(1, len(plan.examples) // 32)]]
    began = time.monotonic()
    network.losses(sample)
    measuring = (time.monotonic() - began) / len(sample) * len(plan.examples)
    model = loading + plan.steps * step + measuring
    rates = len(plan.size.rates) * (loading + plan.steps / SWEEP * step + measuring)
    cost = Cost(plan.models * model + rates, step, _peak(network.device), network.parameters)
    if cost.seconds > 60 * limit_minutes:
        _refuse(plan, cost, limit_minutes)
    return cost


def _peak(device: str) -> int:
    if device == "cpu":
        return peak_memory_bytes()
    import torch

    return int(torch.cuda.max_memory_allocated())


def _refuse(plan: Plan, cost: Cost, limit_minutes: float) -> None:
    part = 60 * limit_minutes / cost.seconds
    tokens = int(plan.tokens * part * 0.9)
    smaller = "a smaller `trials.size`" if plan.trial.size in ("small", "large") else "a smaller `trials.model`"
    remedy = [f"set `trials.tokens: {tokens}`"] if tokens > FEW_STEPS * plan.size.step_tokens else []
    remedy += [smaller] if plan.trial.size != "tiny" else []
    remedy += [f"fewer seeds (`trials.seeds: {3}`)"] if plan.trial.seeds > 3 else []
    remedy += [f"`trials.limit_minutes: {int(cost.seconds / 60) + 1}`, if you can wait"]
    raise TrialRefused(
        f"the trial would take about {duration(cost.seconds)} ({plan.models} models of {plan.tokens:,} tokens, "
        f"{cost.step_seconds:.2g} s a step), and `trials.limit_minutes` is {limit_minutes:g}: {', or '.join(remedy)}"
    )


def described(plan: Plan, cost: Cost) -> Iterator[str]:
    """A trial in a few lines, before it begins."""
    trial = plan.trial
    measured = [f"{sum(example.target_set == name for example in plan.examples):,} of {name}" for name in trial.targets]
    held_out = sum(example.target_set is POOL for example in plan.examples)
    controls = ", ".join(["random", *trial.against])
    yield (
        f"{len(plan.rows[SELECTION, 0]):,} rows with {plan.selection_tokens:,} tokens, against {controls} with as many; "
        f"measured on {', '.join(measured)} and {held_out:,} held-out rows"
    )
    yield (
        f"{plan.models} models ({len(trial.arms)} arms, {trial.seeds} seeds) of {cost.parameters / 1e6:.1f} million "
        f"parameters and {plan.tokens:,} tokens each: the selection {plan.epochs:.1f} times"
    )
    yield f"about {duration(cost.seconds)}, {cost.step_seconds:.2g} s a step; at most {as_bytes(cost.memory_bytes)} of memory so far"
    yield from (f"note: {note}" for note in plan.notes)


def chosen_rate(context: Context, plan: Plan) -> float:
    """The learning rate after which the random control does best, tried with a part of the steps.

    Measured on the held-out rows of the pool; where there are none, by the loss at the end of the training.
    """
    steps = max(1, plan.steps // SWEEP)
    ids, answer = plan.sequences(RANDOM, 0, steps)
    held_out = [example.tokens for example in plan.examples if example.target_set is POOL]
    losses = []
    for number, rate in enumerate(plan.size.rates):
        context.report.progress("choose the learning rate", number, len(plan.size.rates), "models")
        network = plan.network(0)
        last = network.train(ids, answer, rate)
        losses.append(float(network.losses(held_out).mean()) if held_out else last)
    return plan.size.rates[int(np.nanargmin(losses))]


def commit_plan(context: Context, plan: Plan, cost: Cost) -> None:
    """Keep a plan, so that a trial that is killed goes on with it."""
    ids = plan.snapshot.ids
    arms = [(arm, seed, rows) for (arm, seed), rows in plan.rows.items()]
    rows = pa.table(
        {
            "arm": pa.array([arm for arm, _, rows in arms for _ in rows], pa.string()),
            "seed": pa.array([seed for _, seed, rows in arms for _ in rows], pa.int32()),
            "id": to_arrow(ids[np.concatenate([rows for _, _, rows in arms])]),
        }
    )
    examples = pa.table(
        {
            "target_set": pa.array([example.target_set for example in plan.examples], pa.string()),
            "id": to_arrow(from_bytes(example.id for example in plan.examples)),
            "tokens": pa.array([int(example.tokens.answer[1:].sum()) for example in plan.examples], pa.int32()),
        }
    )
    trial = plan.trial
    document = trial.record() | {
        "created_at": utc_now(),
        "selection_id": trial.selection,
        "snapshot": plan.snapshot.id,
        "parameters": cost.parameters,
        "selection_tokens": plan.selection_tokens,
        "training_tokens": plan.tokens,
        "steps": plan.steps,
        "epochs": round(plan.epochs, 3),
        "rate": plan.rate,
        "estimated_seconds": round(cost.seconds, 1),
        "memory_bytes": cost.memory_bytes,
        "left_out": plan.left_out,
        "notes": plan.notes,
        "code_version": code_version(),
    }
    with context.store.committing("records", "trials", trial.trial_id, PLAN) as folder:
        write_items(folder / "rows.parquet", "trial_id", trial.trial_id, rows)
        write_items(folder / "examples.parquet", "trial_id", trial.trial_id, examples)
        if trial.model == SCRATCH:
            plan.reader.raw.save(str(folder / "tokenizer.json"))
        write_json(folder / "trial.json", document)


def known_plan(context: Context, trial: TrialSpec) -> Plan | None:
    """The plan of a trial that has begun; None where it has not."""
    document = known_part(context.store, "trials", trial.trial_id, PLAN)
    if document is None:
        return None
    folder = Path(context.store.path(*KINDS["trials"].root, trial.trial_id, PLAN))
    snapshot = context.pool.snapshot_of(document["snapshot"])
    size = size_of(trial.model, trial.size or "", lora=trial.lora)
    reader = open_reader(str(folder / "tokenizer.json")) if trial.model == SCRATCH else open_model_reader(trial.model)
    arms = part_table(context.store, trial.trial_id, PLAN, "rows")
    numbers = rows_of(from_arrow(arms["id"]), snapshot.ids)
    names, seeds = np.array(arms["arm"].to_pylist()), arms["seed"].to_numpy()
    rows = {(arm, seed): numbers[(names == arm) & (seeds == seed)] for arm in trial.arms for seed in range(trial.seeds)}
    listed = part_table(context.store, trial.trial_id, PLAN, "examples")
    ids = from_arrow(listed["id"])
    wanted = set(zip(listed["target_set"].to_pylist(), to_bytes(ids), strict=True))
    held_out = rows_of(
        ids[np.array([name is POOL for name in listed["target_set"].to_pylist()], np.bool_)], snapshot.ids
    )
    every = _all_examples(context, trial, snapshot, np.sort(held_out), reader, size.context)
    examples = [example for example in every if (example.target_set, example.id) in wanted]
    return Plan(
        trial,
        snapshot,
        reader,
        size,
        document["steps"],
        document["selection_tokens"],
        rows,
        examples,
        document["left_out"],
        document["notes"],
        document["rate"],
    )
