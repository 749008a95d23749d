"""Draw a round of labeling and write its batch.

A batch has three arms: rows that the project's steps choose, rows drawn at random from everything that may be sent out
(they never train the model and so measure it honestly), and gold rows, whose answer is known. The random arm is drawn
first, from the whole pool, so that what the steps choose does not show in it.
"""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.config.schema import Recipe
from pipelines.labeling.costs import payable, prices, purse, share_of, wanted
from pipelines.labeling.inputs import sent
from pipelines.labeling.model import ProjectModel
from pipelines.labeling.project import ProjectState, Round
from pipelines.recipes import draw as selecting
from pipelines.recipes import spec as drawing
from pipelines.recipes.spec import Arm
from pipelines.runs import code_version
from selection.learning.annotators import NONE
from selection.learning.stopping import Advice
from selection.noise import hash_uniform
from selection.registry import parse_steps, required
from selection.run import stable_hash
from selection.types import Input
from storage import ids as idlib
from storage.ids import Ids
from storage.labels.batches import BatchItem, write_batch
from storage.labels.rounds import commit_round
from storage.pool.snapshot import open_snapshot
from storage.records import digest_of, read_selection

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Part:
    """One arm of a batch.

    Attributes:
        gain: (b,) of the selection; None for gold rows.
        share: the chance that each row had to be in it, where it is known.
        cost: of all labels that it wants.
    """

    arm: str
    ids: Ids
    gain: Floats | None = None
    selection_id: str | None = None
    share: float | None = None
    cost: float = 0.0


def draw_round(at: ProjectState, learn: ProjectModel, advice: Advice) -> Round | str:
    """Draw the next round and commit it; or say why there is nothing to send.

    Raises:
        SelectionError: the steps cannot be run.
    """
    project, store = at.project, at.context.store
    number = len(at.rounds)
    size = project.batch_size
    left = at.left
    if left is not None and project.budget is not None and project.budget.rows is not None:
        size, left = min(size, int(left)), None
    if size == 0 or (left is not None and left <= 0):
        return "the budget is spent"
    if project.budget is not None and project.budget.tokenizer is not None:
        selecting.count_tokens(at.context, project.budget.tokenizer, at.snapshot)
    n_random = min(size, _in_round(project.random_share, project.batch_size, number))
    n_gold = min(size - n_random, _in_round(project.gold_share, project.batch_size, number)) if project.gold else 0

    chance = _drawn(at, learn, project.recipe(["random"], n_random, number), "random", left) if n_random else None
    parts = [chance] if chance is not None else []
    left = None if left is None else left - sum(part.cost for part in parts)
    gold = _gold(at, n_gold, number, left)
    parts.append(gold)
    left = None if left is None else left - gold.cost
    steps = project.steps if learn.ready else project.cold_start
    count = size - sum(len(part.ids) for part in parts)
    if count:
        recipe = project.recipe(steps, count, number)
        parts.append(_drawn(at, learn, recipe, "strategy", left, apart=chance.selection_id if chance else None))
    if not any(len(part.ids) for part in parts):
        return "nothing can be paid from what is left" if left is not None else "no row is left to send out"
    items = _items(at, learn, parts, number)
    model = learn.commit() if learn.ready else None
    selections = {part.arm: part.selection_id for part in parts if len(part.ids)}
    header = {
        "project": at.name,
        "round": number,
        "steps": steps,
        "phase": "active" if learn.ready else "cold_start",
        "snapshot": at.snapshot.id,
        "encoder": learn.encoder,
        "model": model,
        "labels": at.answers.digest,
        "label_imports": at.answers.imports,
        "selection_id": selections.get("strategy"),
        "random_selection_id": selections.get("random"),
    }
    drawn_from = {
        **header,
        "items": idlib.to_text(idlib.from_arrow(items["id"])),
        "wanted": items["annotators"].to_pylist(),
    }
    del drawn_from["label_imports"]
    header |= {
        "round_id": digest_of(drawn_from),
        "spent": at.spent,
        "metrics": learn.metrics,
        "advice": {"stop": advice.stop, "reasons": list(advice.reasons)},
        "lease_until": (at.moment + timedelta(hours=project.lease_hours)).isoformat(timespec="seconds"),
        "classes": list(project.classes),
        "format": project.format,
        "code_version": code_version(),
    }
    commit_round(store, header, items)
    return header


def write_file(at: ProjectState, one: Round) -> str:
    """Write a round's batch where it is not there; what people have made of it since is left as it is. Gives the path."""
    items = at.items(one)
    ids = idlib.from_arrow(items["id"])
    snapshot = open_snapshot(at.context.store, one["snapshot"])
    turns = {
        found: conversation
        for some, conversations in snapshot.turns(ids)
        for found, conversation in zip(some.tolist(), conversations, strict=True)
    }
    batch = [
        BatchItem(
            id=raw,
            turns=turns[key],
            round_id=one["round_id"],
            prediction=item["prediction"],
            probability=item["probability"],
            model=one["model"],
        )
        for raw, key, item in zip(idlib.to_bytes(ids), ids.tolist(), items.to_pylist(), strict=True)
    ]
    folder = Path(at.project.out)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
        made = write_batch(Path(beside) / f"{at.name}-{one['round']:04d}", one["format"], batch, one["classes"])
        for file in made:
            target = folder / file.name
            if not target.exists():
                file.rename(target)
            elif not filecmp.cmp(file, target, shallow=False):
                at.context.report.say(f"{target} has changed since it was written, and is left as it is")
    return str(folder / made[0].name)


def _drawn(
    at: ProjectState, learn: ProjectModel, recipe: Recipe, arm: str, left: float | None, apart: str | None = None
) -> _Part:
    """One arm, drawn and committed as any selection."""
    project = at.project
    if arm == "random":  # from everything that may be sent out, without a quota
        recipe = recipe.model_copy(update={"quota": None, "targets": ()})
    elif recipe.constraints.needs and not learn.ready:  # nothing predicts a class yet
        recipe = recipe.model_copy(update={"quota": None})
    needs = required(parse_steps(recipe.steps))[0] | recipe.constraints.needs
    fitted = bool(needs & {Input.PROBABILITIES, Input.COMMITTEE})
    given = purse(project.budget, left, project.overlap) if left is not None else None
    what = replace(
        drawing.resolve_recipe(at.context, recipe),
        encoder=learn.encoder,
        arm=Arm(
            project=at.name,
            classes=list(project.classes),
            aggregate=project.aggregate,
            labels=at.answers.digest,
            rounds=[one["round_id"] for one in at.rounds],
            open=[one["round_id"] for one in at.open],
            apart=apart,
            classifier=learn.classifier if fitted else None,
            members=project.members if Input.COMMITTEE in needs else 0,
            purse=given,
        ),
    )
    made = selecting.run_selection(at.context, what, recipe, f"labeling/{at.name}", at.answers)
    gain = read_selection(at.context.store, what.selection_id)[1]["gain"].to_numpy()
    eligible = made.facts["eligible"]
    return _Part(
        arm=arm,
        ids=made.ids,
        gain=gain,
        selection_id=what.selection_id,
        share=len(made.ids) / eligible if arm == "random" and eligible else None,
        cost=_cost(at, given, made.ids),
    )


def _gold(at: ProjectState, count: int, number: int, left: float | None) -> _Part:
    """Rows with a known answer that were not sent out yet, by hash noise; fewer where they run out."""
    answers, store = at.answers, at.context.store
    ids = np.setdiff1d(answers.ids[answers.gold != NONE], sent(store, [one["round_id"] for one in at.rounds]))
    ids = ids[idlib.rows_of(ids, at.snapshot.ids) >= 0]
    rng = np.random.default_rng([at.project.seed, number, stable_hash("gold")])
    ids = ids[np.argsort(-hash_uniform(idlib.keys(ids), rng), kind="stable")][:count]
    given = purse(at.project.budget, left, 0.0) if left is not None else None
    if given is not None:
        ids = ids[: payable(given, idlib.rows_of(ids, at.snapshot.ids), at.snapshot)]
    return _Part("gold", ids, cost=_cost(at, given, ids))


def _cost(at: ProjectState, given: dict[str, Any] | None, ids: Ids) -> float:
    if given is None:
        return 0.0
    price = prices(given, at.snapshot)[idlib.rows_of(ids, at.snapshot.ids)]
    return float((price * wanted(len(ids), given["overlap"])).sum())


def _items(at: ProjectState, learn: ProjectModel, parts: Sequence[_Part], number: int) -> pa.Table:
    """The rows of a batch: those of the steps in their order, the others hidden among them."""
    strategy = [part for part in parts if part.arm == "strategy"]
    others = [part for part in parts if part.arm != "strategy"]
    total = sum(len(part.ids) for part in parts)
    ordered = [*others, *strategy]
    hidden = sum(len(part.ids) for part in others)
    rng = np.random.default_rng([at.project.seed, number, stable_hash("places")])
    places = rng.permutation(total)
    places = np.concatenate([places[:hidden], np.sort(places[hidden:])])
    order = np.argsort(places, kind="stable")

    ids = np.concatenate([part.ids for part in ordered])
    overlap = [
        np.ones(len(p.ids), np.uint8) if p.arm == "gold" else wanted(len(p.ids), at.project.overlap) for p in ordered
    ]
    score = [
        part.gain if part.arm == "strategy" and part.gain is not None else np.full(len(part.ids), np.nan)
        for part in ordered
    ]
    share = [np.full(len(part.ids), np.nan if part.share is None else part.share) for part in ordered]
    label = np.full(total, None, object)
    probability = np.full(total, np.nan)
    if learn.ready:
        some, P = learn.probabilities(ids)
        at_row = idlib.rows_of(ids, some)
        known = at_row >= 0
        label[known] = np.array(at.project.classes, object)[P.argmax(axis=1)][at_row[known]]
        probability[known] = P.max(axis=1, initial=0)[at_row[known]]
    return pa.table(
        {
            "rank": pa.array(np.arange(1, total + 1, dtype=np.uint32)),
            "id": idlib.to_arrow(ids[order]),
            "arm": pa.array(
                np.repeat([p.arm for p in ordered], [len(p.ids) for p in ordered])[order].tolist(), pa.string()
            ),
            "annotators": pa.array(np.concatenate(overlap)[order], pa.uint8()),
            "prediction": pa.array(label[order].tolist(), pa.string()),
            "probability": pa.array(probability[order], pa.float32(), from_pandas=True),
            "score": pa.array(np.concatenate(score)[order], pa.float32(), from_pandas=True),
            "inclusion_probability": pa.array(np.concatenate(share)[order], pa.float32(), from_pandas=True),
        }
    )


def _in_round(share: float, size: int, number: int) -> int:
    """How many rows of a round are of an arm, so that its part of all rounds together is its share.

    >>> [_in_round(0.25, 10, number) for number in range(4)]
    [2, 3, 2, 3]
    """
    return share_of(share, (number + 1) * size) - share_of(share, number * size)
