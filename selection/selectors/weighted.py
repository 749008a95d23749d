"""What selectors with a column of weights have in common."""

from __future__ import annotations

from typing import ClassVar

from selection.step import Selector, check_name
from selection.types import Input


class Weighted(Selector):
    """A selector over vectors, or what else `covers` says, whose option `weights` may name a column."""

    __slots__ = ()

    covers: ClassVar[Input] = Input.VECTORS
    weights: str | None

    def check_weights(self) -> None:
        """Refuse a name that no column can have."""
        if self.weights is not None:
            check_name(self.name, "weights", self.weights)

    @property
    def needs(self) -> frozenset[Input]:
        """What is covered, and columns where one holds weights."""
        return frozenset({self.covers} | (set() if self.weights is None else {Input.COLUMNS}))

    @property
    def columns(self) -> frozenset[str]:
        """The column of weights."""
        return frozenset() if self.weights is None else frozenset({self.weights})
