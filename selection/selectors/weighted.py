"""The base of selectors with a column of weights."""

from __future__ import annotations

from typing import ClassVar

from selection.step import Selector, check_name
from selection.types import Input


class Weighted(Selector):
    """A selector whose option `weights` may name a column. `covers` is the input from which distances are computed."""

    __slots__ = ()

    covers: ClassVar[Input] = Input.VECTORS
    weights: str | None

    def check_weights(self) -> None:
        """Raise `InvalidOption` unless `weights` is None or may be the name of a column."""
        check_name(self.name, "weights", self.weights, optional=True)

    @property
    def needs(self) -> frozenset[Input]:
        """The covered input; with `weights` also columns."""
        return frozenset({self.covers} | (set() if self.weights is None else {Input.COLUMNS}))

    @property
    def columns(self) -> frozenset[str]:
        """The column of weights."""
        return frozenset() if self.weights is None else frozenset({self.weights})
