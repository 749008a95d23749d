"""A share of the budget for each stratum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from selection.allocation import ALLOCATIONS, allocate
from selection.groups import strata
from selection.pool import Pool
from selection.registry import inner_selector
from selection.run_selector import select_in_strata
from selection.step import Selector, check_choice, check_integer, check_name
from selection.streams import child, stable_hash
from selection.types import Input, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratified(Selector):
    """Divide the budget among strata, then select inside each.

    Args:
        by: the column that holds the strata; `pool.groups` by default. Null is a stratum of its own.
        alloc: shares "proportional" to the strata's candidates, "equal", or "sqrt" of their number.
        min_per_stratum: rows that each stratum gives at least, or all it has.
        within: the selector inside a stratum.

    Picks of the strata are interleaved, so the first half of a selection is nearly as stratified as the whole.
    `ref` of a reason is the stratum, `rank` the place in it, `value` and gain those of the selector inside.

    Not for: columns with nearly as many values as the budget: what each stratum gives is then mostly rounding.

    Cost: a sort of the column, and that of the selector inside.
    """

    by: str | None = None
    alloc: str = "proportional"
    min_per_stratum: int = 0
    within: str | Mapping[str, Any] = "random"
    name: ClassVar[str] = "stratified"
    inner_options: ClassVar[tuple[str, ...]] = ("within",)

    def __post_init__(self) -> None:
        check_name(self.name, "by", self.by, optional=True)
        check_choice(self.name, "alloc", self.alloc, ALLOCATIONS)
        check_integer(self.name, "min_per_stratum", self.min_per_stratum, least=0)
        self.inner()

    def inner(self) -> Selector:
        """The selector inside a stratum."""
        return inner_selector(self.name, "within", self.within)

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
        stratum, names = strata(pool.get_groups() if self.by is None else pool.get_column(self.by))
        sizes = np.bincount(stratum[pool.candidates], minlength=len(names)).tolist()
        counts = allocate(sizes, budget, self.alloc, minimum=self.min_per_stratum)
        # A generator for each stratum's name: a new stratum leaves the draw of the others as it is.
        parts = (
            (i, np.flatnonzero(stratum == i).astype(np.int64), counts[i], child(rng, stable_hash(names[i])))
            for i in np.flatnonzero(counts).tolist()
        )
        return select_in_strata(self.inner(), pool, parts, names)
