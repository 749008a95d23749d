"""Draw a round of labeling.

A batch has up to four arms: rows that the project's steps choose, rows drawn at random from everything that may be sent
out (they never train the model and so measure it honestly), gold rows, whose answer is known, and with `steps: auto`
rows that are likely of a rare class. The random arm is drawn first, from the whole pool, so that what the steps choose
does not show in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.config.schema import Recipe, StepList
from pipelines.labeling.assignment import assign
from pipelines.labeling.inputs import Arm, LabelingInputs
from pipelines.labeling.model import ProjectModel
from pipelines.labeling.project import ProjectState, Round
from pipelines.labeling.spending import SpendingLimit, labels_wanted, share_of
from pipelines.recipes.draw import draw
from pipelines.recipes.spec import recipe_spec
from pipelines.recipes.tokens import count_tokens
from pipelines.runs import code_version
from selection.learning.annotators import NONE
from selection.learning.auto import RARE_SHARE, Choice, choose
from selection.learning.stopping import Advice
from selection.noise import hash_uniform
from selection.streams import stable_hash
from selection.types import Floats, Input
from storage.ids import Ids, from_arrow, hash_keys, rows_of, to_arrow, to_text
from storage.labels.batches import VERSION as BATCH_VERSION
from storage.labels.rounds import commit_round, sent_ids
from storage.records import digest_of, read_selection

RANDOM = StepList.of("random")


@dataclass(frozen=True)
class _ArmItems:
    """The rows of one arm of a batch.

    Attributes:
        gain: (b,) of the selection; None for gold rows.
        chance: that each row had to be in it, where it is known.
        cost: of all labels that it wants.
    """

    arm: str
    ids: Ids
    gain: Floats | None = None
    selection_id: str | None = None
    chance: float | None = None
    cost: float = 0.0


@dataclass
class _Remaining:
    """What a round may still take: rows, and money where the budget is in money."""

    rows: int
    money: float | None
    arms: list[_ArmItems] = field(default_factory=list)

    @property
    def drawn_before(self) -> str | None:
        """The selection that was drawn last; None if none was."""
        return next((arm.selection_id for arm in reversed(self.arms) if arm.selection_id is not None), None)

    def add(self, arm: _ArmItems) -> None:
        """Take what an arm takes."""
        self.arms.append(arm)
        self.rows -= len(arm.ids)
        if self.money is not None:
            self.money -= arm.cost


def draw_round(state: ProjectState, model: ProjectModel, advice: Advice) -> Round | str:
    """Draw the next round and commit it; or say why there is nothing to send.

    Raises:
        SelectionError: the steps cannot be run.
    """
    settings, number = state.settings, max((header["round"] + 1 for header in state.rounds), default=0)
    remaining = _remaining(state)
    if remaining.rows == 0 or (remaining.money is not None and remaining.money <= 0):
        return "the budget is spent"
    if settings.budget is not None and settings.budget.tokenizer is not None:
        count_tokens(state.context, settings.budget.tokenizer, state.snapshot)
    n_random = min(remaining.rows, _in_round(settings.random_share, settings.batch_size, number))
    n_gold = _in_round(settings.gold_share, settings.batch_size, number) if settings.gold else 0
    n_gold = min(remaining.rows - n_random, n_gold)

    if n_random:
        # From everything that may be sent out, without a quota.
        recipe = settings.recipe(RANDOM, n_random, number, quota=None, targets=())
        remaining.add(_draw_arm(state, model, recipe, "random", remaining))
    remaining.add(_gold_arm(state, n_gold, number, remaining.money))
    steps, choice = _steps(state, model)
    n_rare = min(remaining.rows, _in_round(RARE_SHARE, settings.batch_size, number)) if choice and choice.rare else 0
    if choice and n_rare:
        recipe = settings.recipe(StepList.of(*choice.rare_steps), n_rare, number, quota=None, targets=())
        remaining.add(_draw_arm(state, model, recipe, "rare", remaining))
    if remaining.rows:
        predicts = settings.quota is not None and settings.quota.predicts
        quota = None if predicts and not model.ready else settings.quota  # nothing predicts a class yet
        recipe = settings.recipe(steps, remaining.rows, number, quota=quota, targets=settings.targets)
        remaining.add(_draw_arm(state, model, recipe, "strategy", remaining))
    arms = [arm for arm in remaining.arms if len(arm.ids)]
    if not arms:
        return "nothing can be paid from what is left" if remaining.money is not None else "no row is left to send out"
    items = _batch_items(state, model, remaining.arms, number)
    return _commit(state, model, advice, steps, choice, {arm.arm: arm.selection_id for arm in arms}, items)


def _steps(state: ProjectState, model: ProjectModel) -> tuple[StepList, Choice | None]:
    """The steps of a round and, where the project leaves them to the labels, why."""
    settings = state.settings
    if not isinstance(settings.steps, str):
        return settings.steps if model.ready else settings.cold_start, None
    counts = np.bincount(model.training.labels, minlength=len(settings.classes))
    choice = choose(counts, model.agreement if model.ready else None, settings.classes)
    return settings.cold_start if choice.steps is None else StepList.of(*choice.steps), choice


def choice_text(header: Round) -> str:
    """How a round's rows were chosen and why, where the project leaves that to its labels; else nothing."""
    choice = header.get("choice")
    if choice is None:
        return ""
    rows = {"typical": "typical rows", "random": "rows at random", "uncertain": "uncertain rows"}[choice["phase"]]
    rare = f" and likely rows of {choice['rare']!r}" if choice["rare"] else ""
    return f"{rows}{rare}: {choice['reason']}"


def _remaining(state: ProjectState) -> _Remaining:
    """What the next round may take of the budget."""
    budget, left = state.settings.budget, state.left
    if left is not None and budget is not None and budget.rows is not None:
        return _Remaining(min(state.settings.batch_size, int(left)), None)
    return _Remaining(state.settings.batch_size, left)


def _draw_arm(
    state: ProjectState,
    model: ProjectModel,
    recipe: Recipe,
    name: str,
    remaining: _Remaining,
) -> _ArmItems:
    """One arm, drawn and committed as any selection."""
    settings, pool = state.settings, state.context.pool
    money = remaining.money
    limit = None if money is None else SpendingLimit.of(settings.budget, money, settings.overlap)
    spec = replace(recipe_spec(pool, recipe), encoder=model.encoder)
    arm = Arm(
        project=state.name,
        classes=list(settings.classes),
        aggregate=settings.aggregate,
        adjudicator=settings.adjudicator,
        label_digest=state.annotations.digest,
        rounds=state.round_ids,
        open_rounds=[header["round_id"] for header in state.open_rounds],
        other_selection=remaining.drawn_before,
        classifier=model.classifier if spec.inputs & {Input.PROBABILITIES, Input.COMMITTEE} else None,
        members=settings.members if Input.COMMITTEE in spec.inputs else 0,
        limit=limit,
    )
    spec = replace(spec, arm=arm.record())
    inputs = LabelingInputs(pool, spec, arm, state.annotations)
    result = draw(state.context, inputs, f"labeling/{state.name}")
    gain = read_selection(state.context.store, spec.selection_id)[1]["gain"].to_numpy()
    eligible = result.metrics["eligible"]
    return _ArmItems(
        arm=name,
        ids=result.ids,
        gain=gain,
        selection_id=spec.selection_id,
        chance=len(result.ids) / eligible if name == "random" and eligible else None,
        cost=_cost(state, limit, result.ids),
    )


def _gold_arm(state: ProjectState, count: int, number: int, money: float | None) -> _ArmItems:
    """Rows with a known answer that were not sent out yet, by hash noise; fewer where they run out."""
    annotations, snapshot = state.annotations, state.snapshot
    gold = annotations.ids[annotations.gold != NONE]
    ids = np.setdiff1d(gold, sent_ids(state.context.store, state.round_ids))
    ids = ids[rows_of(ids, snapshot.ids) >= 0]
    rng = np.random.default_rng([state.settings.seed, number, stable_hash("gold")])
    ids = ids[np.argsort(-hash_uniform(hash_keys(ids), rng), kind="stable")][:count]
    limit = None if money is None else SpendingLimit.of(state.settings.budget, money)
    if limit is not None:
        ids = ids[: limit.affordable(rows_of(ids, snapshot.ids), snapshot)]
    return _ArmItems("gold", ids, cost=_cost(state, limit, ids))


def _cost(state: ProjectState, limit: SpendingLimit | None, ids: Ids) -> float:
    return 0.0 if limit is None else limit.total(rows_of(ids, state.snapshot.ids), state.snapshot)


def _batch_items(state: ProjectState, model: ProjectModel, arms: Sequence[_ArmItems], number: int) -> pa.Table:
    """The rows of a batch: those of the steps, the last of the arms, in their order, the others hidden among them."""
    sizes = [len(arm.ids) for arm in arms]
    hidden = sum(len(arm.ids) for arm in arms if arm.arm != "strategy")
    order = _places(sum(sizes), hidden, [state.settings.seed, number])

    ids = np.concatenate([arm.ids for arm in arms])
    label, probability = _predictions(model, ids)
    wanted = [labels_wanted(len(arm.ids), 0.0 if arm.arm == "gold" else state.settings.overlap) for arm in arms]
    score = [np.full(len(arm.ids), np.nan) if arm.arm != "strategy" or arm.gain is None else arm.gain for arm in arms]
    chance = [np.full(len(arm.ids), np.nan if arm.chance is None else arm.chance) for arm in arms]
    names = np.repeat([arm.arm for arm in arms], sizes)
    items = pa.table(
        {
            "rank": pa.array(np.arange(1, len(ids) + 1, dtype=np.uint32)),
            "id": to_arrow(ids[order]),
            "arm": pa.array(names[order].tolist(), pa.string()),
            "annotators": pa.array(np.concatenate(wanted)[order], pa.uint8()),
            "prediction": pa.array(label[order].tolist(), pa.string()),
            "probability": pa.array(probability[order], pa.float32(), from_pandas=True),
            "score": pa.array(np.concatenate(score)[order], pa.float32(), from_pandas=True),
            "inclusion_probability": pa.array(np.concatenate(chance)[order], pa.float32(), from_pandas=True),
        }
    )
    limit = SpendingLimit.of(state.settings.budget)
    if limit is not None:
        prices = limit.costs(state.snapshot)[rows_of(ids[order], state.snapshot.ids)]
        items = items.append_column("price", pa.array(prices, pa.float64(), from_pandas=True))
    people = state.settings.annotators
    if not people:
        return items
    answered = state.annotations.answered_by(ids[order])
    seed = [state.settings.seed, number]
    assigned = assign(ids[order], np.concatenate(wanted)[order].astype(np.int64), people, answered, seed=seed)
    return items.append_column("assigned", pa.array(assigned, pa.list_(pa.string())))


def _places(total: int, hidden: int, seed: Sequence[int]) -> npt.NDArray[np.int64]:
    """The order of a batch: the first `hidden` rows anywhere, the others in their own order."""
    places = np.random.default_rng([*seed, stable_hash("places")]).permutation(total)
    places = np.concatenate([places[:hidden], np.sort(places[hidden:])])
    return np.argsort(places, kind="stable")


def _predictions(model: ProjectModel, ids: Ids) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.float64]]:
    """(len(ids),) the class that the model predicts and its probability; None and NaN where it says nothing."""
    label = np.full(len(ids), None, object)
    probability = np.full(len(ids), np.nan)
    if model.ready:
        predicted, P = model.probabilities(ids)
        rows = rows_of(ids, predicted)
        known = rows >= 0
        label[known] = np.array(model.state.settings.classes, object)[P.argmax(axis=1)][rows[known]]
        probability[known] = P.max(axis=1, initial=0)[rows[known]]
    return label, probability


def _commit(
    state: ProjectState,
    model: ProjectModel,
    advice: Advice,
    steps: StepList,
    choice: Choice | None,
    selections: dict[str, str | None],
    items: pa.Table,
) -> Round:
    """Commit a round; gives its header."""
    header: Round = {
        "project": state.name,
        "round": len(state.rounds),
        "steps": steps.written,
        "phase": "active" if model.ready else "cold_start",
        "snapshot": state.snapshot.id,
        "encoder": model.encoder,
        "model": model.commit() if model.ready else None,
        "labels": state.annotations.digest,
        "label_imports": state.annotations.imports,
        "selection_id": selections.get("strategy"),
        "random_selection_id": selections.get("random"),
    }
    if choice is not None:
        header |= {"choice": {"phase": choice.phase, "rare": choice.rare, "reason": choice.reason}}
        header |= {"rare_selection_id": selections.get("rare")}
    depends_on: dict[str, Any] = {key: value for key, value in header.items() if key != "label_imports"}
    depends_on["items"] = to_text(from_arrow(items["id"]))
    depends_on["wanted"] = items["annotators"].to_pylist()
    if "assigned" in items.column_names:
        depends_on["assigned"] = items["assigned"].to_pylist()
    header |= {
        "round_id": digest_of(depends_on),
        "spent": state.spent,
        "metrics": model.metrics,
        "advice": {"stop": advice.stop, "reasons": list(advice.reasons)},
        "lease_until": (state.now + timedelta(hours=state.settings.lease_hours)).isoformat(timespec="seconds"),
        "classes": list(state.settings.classes),
        "format": state.settings.format,
        "batch_version": BATCH_VERSION,
        "code_version": code_version(),
    }
    commit_round(state.context.store, header, items)
    return header


def _in_round(share: float, size: int, number: int) -> int:
    """How many rows of a round are of an arm, so that its part of all rounds together is its share.

    >>> [_in_round(0.25, 10, number) for number in range(4)]
    [2, 3, 2, 3]
    """
    return share_of(share, (number + 1) * size) - share_of(share, number * size)
