"""What a recipe is drawn from, `probabilities` included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from pipelines.classifiers.resolve import open_source
from pipelines.pool_view import PoolView
from pipelines.recipes.inputs import DrawInputs, Mask
from pipelines.recipes.spec import SelectionSpec
from pipelines.recipes.targets import target_texts
from pipelines.workers import Workers
from selection import Targets
from selection.types import Floats, Input, RowBlocks, Rows


class LearnedInputs(DrawInputs):
    """The probabilities, committee and labels that a recipe's steps need, from where its spec says."""

    def __init__(self, view: PoolView, spec: SelectionSpec, without: Mapping[str, Mask] | None = None) -> None:
        assert spec.probabilities is not None
        super().__init__(view, spec, without)
        self.source = open_source(view, spec.probabilities, view.snapshot_of(spec.snapshot))

    def use(self, workers: Workers) -> None:
        """Let other processes read the pool, for the source too."""
        super().use(workers)
        self.source.workers = workers

    @property
    def texts_are_read(self) -> bool:
        """Whether a draw reads the texts of the whole pool, for its steps or for the source."""
        return super().texts_are_read or self.source.reads_texts

    @property
    def labels(self) -> Rows | None:
        """(n,) class numbers of the rows that train, -1 elsewhere; only for steps that need them."""
        return self.source.labels() if Input.LABELS in self.spec.inputs else None

    @cached_property
    def probabilities(self) -> RowBlocks | Floats:
        """(n, C)."""
        return self.source.probabilities()

    @property
    def classes(self) -> Sequence[str]:
        """Those of the source."""
        return self.source.classes

    @cached_property
    def committee(self) -> RowBlocks | None:
        """(n, members, C)."""
        return self.source.committee()

    @cached_property
    def exclusions(self) -> Mapping[str, Mask]:
        """Rows of which nothing is known."""
        return {"without_probabilities": self.source.unknown(), **self.without}

    def on_targets(self, targets: Targets) -> Targets:
        """The targets with what the committee says of them, where a step needs one."""
        if Input.COMMITTEE not in self.spec.inputs:
            return targets
        assert self.spec.encoder is not None  # since there are targets
        committee = self.source.committee_of(self.spec.encoder, targets.vectors, lambda: target_texts(self))
        return replace(targets, committee=committee)

    def header(self) -> dict[str, Any]:
        """Where the file of probabilities lies, if they are of a file."""
        assert self.spec.probabilities is not None
        url = self.spec.probabilities.get("url")
        return super().header() | ({} if url is None else {"probabilities_file": url})


def recipe_inputs(view: PoolView, spec: SelectionSpec, without: Mapping[str, Mask] | None = None) -> DrawInputs:
    """What the recipe of a spec is drawn from; `without` as in `DrawInputs`."""
    return (DrawInputs if spec.probabilities is None else LearnedInputs)(view, spec, without)
