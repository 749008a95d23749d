"""What a spec is drawn from: what it names in the store, and what labels or a model say of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.pool_view import PoolView
from pipelines.recipes.spec import SelectionSpec
from pipelines.workers import Workers
from selection import Targets
from selection.types import Floats, Input, RowBlocks, Rows
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.vectors.segments import StoredVectors

Mask = npt.NDArray[np.bool_]


class DrawInputs:
    """What a spec names in the store, opened when a draw asks for it. A plain recipe has nothing else.

    Subclasses add what a labeling project or a classifier says of the rows.

    Args:
        without: further rules -> (n,) the rows that each keeps out, beside those of the spec.

    Attributes:
        workers: other processes that read the pool; None for this one alone.
    """

    workers: Workers | None = None

    def __init__(self, view: PoolView, spec: SelectionSpec, without: Mapping[str, Mask] | None = None) -> None:
        self.view, self.spec, self.without = view, spec, dict(without or {})

    @cached_property
    def snapshot(self) -> Snapshot:
        """The pool, with the columns of token scores that the recipe reads."""
        return self.view.with_scores(self.view.snapshot_of(self.spec.snapshot), self.spec.scores)

    def use(self, workers: Workers) -> None:
        """Let other processes read the pool."""
        self.workers = workers

    @property
    def texts_are_read(self) -> bool:
        """Whether a draw reads the texts of the whole pool."""
        return Input.TEXTS in self.spec.inputs

    @cached_property
    def vectors(self) -> StoredVectors | None:
        """The vectors of the snapshot's rows, where the recipe needs some.

        Raises:
            NotInStore: some are missing.
        """
        if self.spec.encoder is None:
            return None
        return self.view.vectors(self.spec.encoder, self.snapshot, self.spec.index)

    @cached_property
    def target_sets(self) -> list[TargetSet]:
        """The target sets to match, in the recipe's order."""
        return [self.view.target_set_of(targets_id) for targets_id in self.spec.targets.values()]

    @cached_property
    def held_out(self) -> list[TargetSet]:
        """The target sets whose questions no chosen row may hold."""
        return [self.view.target_set_of(targets_id) for targets_id in self.spec.held_out]

    @cached_property
    def outside_where(self) -> Mask:
        """(n,) the rows that do not meet the recipe's condition. Cost: DuckDB's, in a process of its own."""
        if self.spec.where is None:
            return np.zeros(len(self.snapshot), np.bool_)
        return ~self.snapshot.where(self.spec.where)

    @property
    def labels(self) -> Rows | None:
        """(n,) class numbers of the rows that train, -1 elsewhere."""
        return None

    @property
    def labelled(self) -> Rows | None:
        """The rows with a label, ascending: steps keep their distance from them and do not choose them again."""
        return None

    @property
    def probabilities(self) -> RowBlocks | Floats | None:
        """(n, C) of the classes."""
        return None

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes; none where they are not known."""
        return ()

    @property
    def committee(self) -> RowBlocks | None:
        """(n, members, C) of the classes."""
        return None

    @property
    def exclusions(self) -> Mapping[str, Mask]:
        """Rule -> (n,) the rows that it keeps out of the draw, in the order in which the rules are applied."""
        return self.without

    def on_targets(self, targets: Targets) -> Targets:
        """The targets with what a committee says of them."""
        return targets

    def affordable(self, rows: Rows) -> int:
        """How many of the picked rows, in their order, can be paid."""
        return len(rows)

    def header(self) -> dict[str, Any]:
        """What the record of the selection says of these inputs."""
        return {"label_imports": None}
