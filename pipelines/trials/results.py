"""A user's own scores of models that were trained on selections elsewhere, judged over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.context import Context
from pipelines.messages import counted, listed
from pipelines.named import selection_of
from selection.learning.effects import Effect, adjusted_verdicts, paired_effect
from storage.damage import readable
from storage.errors import BadInput
from storage.records import digest_of, read_selection
from storage.store import Store, utc_now, write_json

SEED = "seed"
ONE_SEED = "no verdict: one seed says nothing of how much seeds vary"


def add_result(context: Context, name: str, file: Path, lower: Sequence[str] = ()) -> list[str]:
    """Keep the scores of a file for a selection; gives lines for the user, with a verdict for each pair of selections.

    Args:
        name: as in `pipelines.named.selection_of`.
        file: JSON: `{"seed": 1, "mmlu": 0.61}`, or a list of such, or one a line.
        lower: the scores of which lower ones are better.

    Raises:
        BadInput: the file holds something else; says where.
        NotInStore: there is no such selection.
    """
    selection = selection_of(context.store, name)
    scores = read_scores(file)
    names = sorted({key for entry in scores for key in entry} - {SEED})
    unknown = [each for each in lower if each not in names]
    if unknown:
        raise BadInput(f"--lower: {file} has no score {unknown[0]!r}; there are: {listed(names)}")
    document = {"selection_id": selection, "scores": scores, "lower": sorted(lower)}
    result = digest_of(document)
    if not context.store.has("records", "results", result):
        with context.store.committing("records", "results", result) as folder:
            write_json(folder / "result.json", {"result_id": result, "created_at": utc_now(), **document})
    seeds = counted(len(scores), "seed")
    return [f"{seeds} with {listed(names)} kept for selection {selection}", *judged(context.store, selection)]


def read_scores(file: Path) -> list[dict[str, Any]]:
    """The scores of a file, by seed.

    Raises:
        BadInput: see `add_result`.
    """
    text = file.read_text("utf-8")
    try:
        entries = json.loads(text)
    except ValueError:
        try:
            entries = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise BadInput(f"{file} is neither JSON nor JSON lines: {error}") from error
    entries = [entries] if isinstance(entries, dict) else entries
    if not isinstance(entries, list) or not entries:
        raise BadInput(f'{file} must hold scores by seed, as {{"seed": 1, "mmlu": 0.61}}, or a list of such')
    for number, entry in enumerate(entries, start=1):
        _check(f"{file}: entry {number}", entry)
    seeds = [entry[SEED] for entry in entries]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise BadInput(f"{file}: seed {twice[0]} comes {seeds.count(twice[0])} times; a seed is a model")
    return sorted(entries, key=lambda entry: int(entry[SEED]))


def _check(place: str, entry: Any) -> None:
    if not isinstance(entry, dict) or not _is_whole(entry.get(SEED)):
        raise BadInput(f'{place}: needs "seed", a whole number that names the model, got {json.dumps(entry)[:80]}')
    if len(entry) == 1:
        raise BadInput(f'{place}: holds no score beside "seed"')
    for name, value in entry.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadInput(f"{place}: {name!r} must be a finite number, got {json.dumps(value)[:80]}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def judged(store: Store, selection: str) -> Iterator[str]:
    """A line for each other selection with scores and each score that both have, by the seeds that both have."""
    every, lower = results(store)
    ours = every[selection]
    others = [other for other in every if other != selection]
    for other in others:
        yield from _against(store, selection, other, ours, every[other], lower)
    if not others:
        yield "no other selection has scores yet: add those of a control, such as a random recipe's, with the same seeds"


def _against(
    store: Store,
    selection: str,
    other: str,
    ours: Mapping[tuple[str, int], float],
    theirs: Mapping[tuple[str, int], float],
    lower: set[str],
) -> Iterator[str]:
    title = f"{_title(store, selection)} against {_title(store, other)}"
    differences: dict[str, list[float]] = {}
    for name, seed in sorted(set(ours) & set(theirs)):
        sign = -1 if name in lower else 1
        differences.setdefault(name, []).append(sign * (ours[name, seed] - theirs[name, seed]))
    if not differences:
        yield f"{title}: no score of a seed that both have"
    several = {name: paired_effect(values) for name, values in differences.items() if len(values) > 1}
    verdicts = dict(zip(several, adjusted_verdicts(list(several.values())), strict=True))
    for name, values in differences.items():
        line = f"{title}, {name}: "
        yield line + (
            _judgement(verdicts[name], several[name], len(values))
            if name in several
            else f"{ONE_SEED} ({values[0]:+.4g})"
        )


def _judgement(verdict: str, effect: Effect, seeds: int) -> str:
    return (
        f"{verdict}: better by {effect.mean:.4g} [{effect.low:.4g}, {effect.high:.4g}] over {counted(seeds, 'seed')}, "
        "paired, 95 % interval"
    )


def results(store: Store) -> tuple[dict[str, dict[tuple[str, int], float]], set[str]]:
    """Selection -> (score, seed) -> value, a later file over an earlier one; and the scores of which lower is better."""
    documents = [readable(store, "results", name) for name in store.records("results")]
    known = sorted((each for each in documents if each is not None), key=lambda each: each["created_at"])
    values: dict[str, dict[tuple[str, int], float]] = {}
    lower: set[str] = set()
    for document in known:
        lower |= set(document.get("lower", []))
        for entry in document["scores"]:
            scores = {(name, entry[SEED]): float(value) for name, value in entry.items() if name != SEED}
            values.setdefault(document["selection_id"], {}).update(scores)
    return values, lower


def _title(store: Store, selection: str) -> str:
    header, _ = read_selection(store, selection)
    return f"{header['recipe']} {selection[:8]}"
