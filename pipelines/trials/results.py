"""A user's own scores of models that were trained on selections elsewhere, judged over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.context import Context
from pipelines.messages import counted, listed
from pipelines.named import selection_of
from selection.learning.effects import adjusted_verdicts, paired_effect
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
    judgements = judged(context.store, document)
    if not context.store.has("records", "results", result):
        effects = [asdict(each) for each in judgements if each.name is not None]
        with context.store.committing("records", "results", result) as folder:
            record = {"result_id": result, "created_at": utc_now(), **document, "effects": effects}
            write_json(folder / "result.json", record)
    kept = f"{counted(len(scores), 'seed')} with {listed(names)} kept for selection {selection}"
    return [kept, *_lines(context.store, selection, judgements)]


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


@dataclass(frozen=True)
class Judgement:
    """What the scores of two selections say of one score, paired by seed.

    Attributes:
        other_selection_id: the selection that it is compared with.
        name: the score; None if no seed of both has one in common.
        seeds: how many both have.
        mean: the difference, positive = this selection is better; low, high: its interval of 95 %.
        p: two-sided, of no difference.
        verdict: helped, no evidence or hurt, adjusted for the number of scores; None of one seed, as `low`, `high` and
            `p`.
    """

    other_selection_id: str
    name: str | None = None
    seeds: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    verdict: str | None = None


def judged(store: Store, added: Mapping[str, Any]) -> list[Judgement]:
    """Each other selection with scores and each score that both have, by the seeds that both have, with an added result."""
    every, lower = results(store, added)
    ours = every.pop(added["selection_id"])
    return [judgement for other, theirs in every.items() for judgement in _against(other, ours, theirs, lower)]


def _against(
    other: str, ours: Mapping[tuple[str, int], float], theirs: Mapping[tuple[str, int], float], lower: set[str]
) -> list[Judgement]:
    differences: dict[str, list[float]] = {}
    for name, seed in sorted(set(ours) & set(theirs)):
        sign = -1 if name in lower else 1
        differences.setdefault(name, []).append(sign * (ours[name, seed] - theirs[name, seed]))
    several = {name: paired_effect(values) for name, values in differences.items() if len(values) > 1}
    verdicts = dict(zip(several, adjusted_verdicts(list(several.values())), strict=True))
    judgements = []
    for name, values in differences.items():
        judgement = Judgement(other, name, len(values), values[0])
        if effect := several.get(name):
            judgement = Judgement(
                other, name, len(values), effect.mean, effect.low, effect.high, effect.p, verdicts[name]
            )
        judgements.append(judgement)
    return judgements or [Judgement(other)]


def _lines(store: Store, selection: str, judgements: Sequence[Judgement]) -> Iterator[str]:
    """A line for each judgement, or what there is to do for one."""
    if not judgements:
        yield "no other selection has scores yet: add those of a control, such as a random recipe's, with the same seeds"
    for each in judgements:
        title = f"{_title(store, selection)} against {_title(store, each.other_selection_id)}"
        if each.name is None:
            yield f"{title}: no score of a seed that both have"
        elif each.verdict is None:
            yield f"{title}, {each.name}: {ONE_SEED} ({each.mean:+.4g})"
        else:
            yield (
                f"{title}, {each.name}: {each.verdict}: better by {each.mean:.4g} [{each.low:.4g}, {each.high:.4g}] over "
                f"{counted(each.seeds, 'seed')}, paired, 95 % interval"
            )


def results(store: Store, added: Mapping[str, Any]) -> tuple[dict[str, dict[tuple[str, int], float]], set[str]]:
    """Selection -> (score, seed) -> value, a later file over an earlier one; and the scores of which lower is better.

    Args:
        added: a result that comes last.
    """
    documents = [readable(store, "results", name) for name in store.records("results")]
    known = sorted((each for each in documents if each is not None), key=lambda each: each["created_at"])
    known.append(dict(added))
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
