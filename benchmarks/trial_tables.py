"""The effects of `benchmarks/trials.py` with their verdicts, as records and as tables of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.config.schema import LONGEST, PER_SOURCE, RANDOM
from pipelines.trials.spec import AGAIN
from selection.learning.effects import adjusted_verdicts, crossed_effect, detectable_effect, holm

Array = npt.NDArray[Any]
Record = dict[str, Any]

SHARED = (RANDOM, AGAIN, LONGEST)
"""Controls that do not depend on what they are compared with."""
ALL, HELD_OUT = "all target sets", "held-out rows"


@dataclass(frozen=True)
class Arm:
    """Rows to train on.

    Attributes:
        method: a way of choosing, or a control.
        vectors: of which kind it sees; None for none.
        target: which set it sees; None for none.
        control: the control with the mix of the rows that `method` chose; None for these rows themselves.
    """

    method: str
    vectors: str | None = None
    target: str | None = None
    control: str | None = None

    @property
    def way(self) -> str:
        """The method and its vectors."""
        return self.method if self.vectors is None else f"{self.method}, {self.vectors}"


class Cell(NamedTuple):
    """A model: its rows, their number of tokens, and the seed."""

    arm: Arm
    budget: int
    seed: int


def control_of(arm: Arm, control: str) -> Arm:
    """The control of an arm."""
    return Arm(control) if control in SHARED else Arm(arm.method, arm.vectors, arm.target, control)


def effects_of(
    losses: Mapping[Cell, Array], places: Mapping[str, Array], arms: Sequence[Arm], budgets: Sequence[int], seeds: int
) -> list[Record]:
    """The effects of every way against every control, with verdicts.

    Args:
        losses: of the models that there are; (examples,) each. An effect needs two seeds of which none is missing.
        places: of the examples of each target set, and of the `HELD_OUT` rows.
        arms: of all ways; a way that sees a target has an arm for each set.
        seeds: how many there may be.

    Verdicts are adjusted for all effects against a control: on target sets, on all of them together, and on held-out
    rows apart.
    """
    ways: dict[str, list[Arm]] = {}
    for arm in arms:
        ways.setdefault(arm.way, []).append(arm)
    records = []
    for control in (RANDOM, PER_SOURCE, LONGEST):
        for budget in budgets:
            for way, own in ways.items():
                for measured_on, table in _differences(losses, places, own, control, budget, seeds).items():
                    record = {"way": way, "measured_on": measured_on, "budget": budget, "against": control}
                    shape = {"seeds": table.shape[0], "examples": table.shape[1]}
                    records.append(record | shape | {"effect": crossed_effect(table)})
    return _judged(records)


def _differences(
    losses: Mapping[Cell, Array],
    places: Mapping[str, Array],
    arms: Sequence[Arm],
    control: str,
    budget: int,
    seeds: int,
) -> dict[str, Array]:
    """What is measured on -> (seeds, examples) the control's loss less the way's.

    A target set is measured by the model of the rows that were chosen for it; held-out rows by the mean over the sets.
    """
    by_seed = []
    for seed in range(seeds):
        pairs = {arm.target: (Cell(control_of(arm, control), budget, seed), Cell(arm, budget, seed)) for arm in arms}
        if all(cell in losses and other in losses and cell != other for other, cell in pairs.values()):
            by_seed.append({target: losses[other] - losses[cell] for target, (other, cell) in pairs.items()})
    if len(by_seed) < 2:
        return {}
    tables = {
        name: np.array([own[name if name in own else None][rows] for own in by_seed])
        for name, rows in places.items()
        if name != HELD_OUT
    }
    held_out = np.array([np.mean(list(own.values()), axis=0)[places[HELD_OUT]] for own in by_seed])
    return {**tables, ALL: np.concatenate(list(tables.values()), axis=1), HELD_OUT: held_out}


def _judged(records: Sequence[Record]) -> list[Record]:
    families: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        kind = record["measured_on"] if record["measured_on"] in (ALL, HELD_OUT) else "a target set"
        families.setdefault((record["against"], kind), []).append(record)
    for family in families.values():
        effects = [record.pop("effect") for record in family]
        adjusted = holm([effect.p for effect in effects])
        for record, effect, p, verdict in zip(family, effects, adjusted, adjusted_verdicts(effects), strict=True):
            numbers = {name: value for name, value in asdict(effect).items() if np.isfinite(value)}
            record.update(numbers, p_adjusted=p, verdict=verdict)
    return list(records)


def detectable_of(
    losses: Mapping[Cell, Array], places: Mapping[str, Array], budgets: Sequence[int], seeds: int
) -> list[Record]:
    """The smallest effect on each target set that would be seen with power 0.8, by the two random arms."""
    records = []
    for budget in budgets:
        pairs = [(Cell(Arm(RANDOM), budget, seed), Cell(Arm(AGAIN), budget, seed)) for seed in range(seeds)]
        spread = np.array([losses[a] - losses[b] for a, b in pairs if a in losses and b in losses])
        for name, rows in places.items() if len(spread) > 1 else ():
            effect = detectable_effect(crossed_effect(spread[:, rows]))
            records.append({"measured_on": name, "budget": budget, "effect": effect})
    return records


def markdown(effects: Sequence[Record], detectable: Sequence[Record], retrieval: Sequence[Record]) -> str:
    """All tables, each below a heading."""
    on_sets = [e for e in effects if e["measured_on"] not in (ALL, HELD_OUT)]
    against_random = [e for e in effects if e["against"] == RANDOM]
    parts = []
    for control in dict.fromkeys(e["against"] for e in effects):
        chosen = [e for e in effects if e["measured_on"] == ALL and e["against"] == control]
        parts += [f"### All target sets together, against {control}", effect_table(chosen)]
    parts += ["### How often: helped / no evidence / hurt, over target sets and budgets", count_table(on_sets)]
    for name in dict.fromkeys(e["measured_on"] for e in against_random if e["measured_on"] != ALL):
        chosen = [e for e in against_random if e["measured_on"] == name]
        seen = [f"{d['effect']:.2f} with {d['budget']:,} tokens" for d in detectable if d["measured_on"] == name]
        parts += [
            f"### On {name}, against random",
            f"{chosen[0]['examples']} examples. Could be seen: {', '.join(seen)}.",
            effect_table(chosen),
        ]
    if retrieval:
        size = retrieval[0]
        picks, rows = size["picks"], size["rows"]
        parts += [
            f"### What is retrieved for {size['target']}",
            f"Relevant rows among the first {picks:,} picks; {picks:,} of {rows:,} are, by chance {picks / rows:.1%}.",
            retrieval_table(retrieval),
        ]
    return "\n\n".join(parts) + "\n"


def effect_table(effects: Sequence[Record]) -> str:
    """A line for each way, a column for each budget: the effect, its interval and the verdict.

    >>> print(effect_table([{"way": "ifd", "budget": 9, "mean": 0.1, "low": 0.05, "high": 0.15, "verdict": "helped"}]))
    | way | 9 tokens |
    |---|---|
    | ifd | 0.10 [0.05, 0.15] helped |
    """
    by_way: dict[str, dict[int, str]] = {}
    for e in effects:
        text = f"{e['mean']:.2f} [{e['low']:.2f}, {e['high']:.2f}] {e['verdict']}"
        by_way.setdefault(e["way"], {})[e["budget"]] = text
    budgets = sorted({e["budget"] for e in effects})
    lines = [[way, *(texts.get(budget, "") for budget in budgets)] for way, texts in by_way.items()]
    return table(["way", *(f"{budget:,} tokens" for budget in budgets)], lines)


def count_table(effects: Sequence[Record]) -> str:
    """A line for each way, a column for each control: how often it helped / no evidence / hurt.

    >>> verdicts = ("helped", "helped", "hurt")
    >>> print(count_table([{"way": "ifd", "against": "random", "verdict": verdict} for verdict in verdicts]))
    | way | random |
    |---|---|
    | ifd | 2 / 0 / 1 |
    """
    controls = list(dict.fromkeys(e["against"] for e in effects))
    counts: dict[str, dict[str, list[int]]] = {}
    for e in effects:
        own = counts.setdefault(e["way"], {}).setdefault(e["against"], [0, 0, 0])
        own[("helped", "no evidence", "hurt").index(e["verdict"])] += 1
    lines = [[way, *(" / ".join(map(str, own.get(c, []))) for c in controls)] for way, own in counts.items()]
    return table(["way", *controls], lines)


def retrieval_table(retrieval: Sequence[Record]) -> str:
    """A line for each way."""
    return table(["way", "relevant"], [[record["way"], f"{record['share']:.1%}"] for record in retrieval])


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    every = [header, ["---"] * len(header), *lines]
    return "\n".join(
        "| " + " | ".join(line) + " |" if line[0] != "---" else "|" + "|".join(line) + "|" for line in every
    )
