"""A share of the budget for each stratum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from selection.allocation import ALLOCATIONS, allocate
from selection.errors import InvalidOption, rows_of_parent
from selection.groups import strata
from selection.step import Selector, check_choice, check_integer, check_name
from selection.streams import child
from selection.types import Input, Pool, Reason, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratified(Selector):
    """Divide the budget among strata, then select inside each.

    Args:
        by: the column that tells the strata; `pool.groups` by default. Null is a stratum of its own.
        alloc: shares "proportional" to the strata's candidates, "equal", or "sqrt" of their number.
        min_per_stratum: rows that each stratum gives at least, or all it has.
        within: the selector inside a stratum.

    Picks of the strata are interleaved, so the first half of a selection is nearly as stratified as the whole.
    `ref` of a reason is the stratum, `rank` the place in it, `value` and gain those of the selector inside.
    """

    by: str | None = None
    alloc: str = "proportional"
    min_per_stratum: int = 0
    within: str | Mapping[str, Any] = "random"
    name: ClassVar[str] = "stratified"

    def __post_init__(self) -> None:
        if self.by is not None:
            check_name(self.name, "by", self.by)
        check_choice(self.name, "alloc", self.alloc, ALLOCATIONS)
        check_integer(self.name, "min_per_stratum", self.min_per_stratum, least=0)
        self.inner()

    def inner(self) -> Selector:
        """The selector inside a stratum."""
        from selection.registry import build_step

        if not isinstance(self.within, str | Mapping):
            raise InvalidOption(
                f"within must be a selector's name or {{name: options}}, got {self.within!r}",
                step=self.name,
                option="within",
            )
        step = build_step(self.within)
        if not isinstance(step, Selector):
            raise InvalidOption(
                f"within must be a selector, {step.name!r} is a {step.kind}", step=self.name, option="within"
            )
        return step

    @property
    def needs(self) -> frozenset[Input]:
        """The groups or the column, and what the inner selector needs."""
        return self.inner().needs | {Input.GROUPS if self.by is None else Input.COLUMNS}

    @property
    def columns(self) -> frozenset[str]:
        """The column of the strata, and those of the inner selector."""
        return self.inner().columns | ({self.by} if self.by is not None else frozenset())

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.run import run_selector, stable_hash

        stratum, names = strata(pool.get_groups() if self.by is None else pool.get_column(self.by))
        sizes = np.bincount(stratum[pool.candidates], minlength=len(names)).tolist()
        counts = allocate(sizes, budget, self.alloc, minimum=self.min_per_stratum)
        # A generator for each stratum's name: a new stratum leaves the draw of the others as it is.
        step = self.inner()
        parts: list[tuple[int, Rows, Selection]] = []
        for i in np.flatnonzero(counts).tolist():
            rows = np.flatnonzero(stratum == i).astype(np.int64)
            with rows_of_parent(rows):
                picked = run_selector(step, pool.take(rows), counts[i], rng=child(rng, stable_hash(names[i])))
                parts.append((i, rows, picked))
        rows = np.concatenate([rows[picked.rows] for _, rows, picked in parts])
        gain = np.concatenate([picked.gain for _, _, picked in parts])
        value = np.concatenate([picked.reason.value for _, _, picked in parts])
        ref = np.concatenate([np.full(len(picked.rows), i) for i, _, picked in parts])
        rank = np.concatenate([np.arange(len(picked.rows)) for _, _, picked in parts])
        order = np.lexsort((ref, (rank + 0.5) / np.bincount(ref)[ref]))
        reason = Reason.of("stratum", len(rows), ref=ref[order], rank=rank[order], value=value[order], names=names)
        return Selection(rows[order], gain[order], reason)
