"""A model for each arm and seed of a trial, each committed when it is trained and measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from pipelines.config.schema import RANDOM
from pipelines.context import Context
from pipelines.trials.plan import Plan
from pipelines.trials.records import cell_name, commit_part, known_part, part_table
from pipelines.trials.spec import AGAIN


class Cells:
    """The models of a trial, with progress over all of them."""

    def __init__(self, context: Context, plan: Plan) -> None:
        self._context, self._plan = context, plan
        self._done = 0
        self._total = plan.models * plan.tokens

    def train(self, arms: Iterable[str]) -> None:
        """Train and measure the models of some arms that are not there yet."""
        for arm in arms:
            for seed in range(self._plan.trial.seeds):
                self._cell(arm, seed)

    def _cell(self, arm: str, seed: int) -> None:
        plan, store = self._plan, self._context.store
        trial_id, cell = plan.trial.trial_id, cell_name(arm, seed)
        if known_part(store, "trial_cells", trial_id, cell) is None:
            begun, began = self._done, time.monotonic()
            last, losses = self._alike(arm, seed) or self._trained(seed, arm, self._step)
            document = {
                "arm": arm,
                "seed": seed,
                "rows": len(plan.rows[arm, seed]),
                "train_loss": last,
                "loss": {name or "": float(losses[places].mean()) for name, places in self._by_set().items()},
                "seconds": round(time.monotonic() - began, 3),
            }
            commit_part(store, "trial_cells", trial_id, cell, document, {"losses": self._table(arm, seed, losses)})
            self._done = begun
        self._done += plan.tokens
        self._context.report.progress(self._task, self._done, self._total, "tokens")

    def _alike(self, arm: str, seed: int) -> tuple[float, np.ndarray] | None:
        """The losses of a model of the same rows and seed, which would be the same; None where there is none."""
        plan, store, trial_id = self._plan, self._context.store, self._plan.trial.trial_id
        rows = np.sort(plan.rows[arm, seed])
        for other in plan.trial.arms:
            if other == arm or {arm, other} == {RANDOM, AGAIN}:
                continue
            if np.array_equal(rows, np.sort(plan.rows[other, seed])):
                document = known_part(store, "trial_cells", trial_id, cell_name(other, seed))
                if document is not None:
                    losses = part_table(store, trial_id, cell_name(other, seed), "losses")["loss"].to_numpy()
                    return float(document["train_loss"]), losses
        return None

    def _trained(self, seed: int, arm: str, on_step: Callable[[], None]) -> tuple[float, np.ndarray]:
        plan = self._plan
        network = plan.network(seed)
        last = network.train(*plan.sequences(arm, seed), plan.rate, on_step)
        return last, network.losses([example.tokens for example in plan.examples])

    def _step(self) -> None:
        self._done += self._plan.size.step_tokens
        self._context.report.progress(self._task, self._done, self._total, "tokens")

    @property
    def _task(self) -> str:
        return f"trial of {self._plan.trial.recipe}"

    def _by_set(self) -> dict[str | None, list[int]]:
        places: dict[str | None, list[int]] = {}
        for place, example in enumerate(self._plan.examples):
            places.setdefault(example.target_set, []).append(place)
        return places

    def _table(self, arm: str, seed: int, losses: np.ndarray) -> pa.Table:
        sets = [example.target_set for example in self._plan.examples]
        return pa.table(
            {
                "arm": pa.array([arm] * len(sets), pa.string()),
                "seed": pa.array([seed] * len(sets), pa.int32()),
                "target_set": pa.array(sets, pa.string()),
                "example": pa.array(range(len(sets)), pa.int32()),
                "loss": pa.array(losses, pa.float64()),
            }
        )
