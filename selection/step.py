"""The three kinds of step. A step is a frozen dataclass: its fields are its options, JSON-plain, checked when it is made.

A third party's step subclasses one of these, is named in the entry-point group `winnow.steps`, and meets `check_step`
of `selection.checks`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeGuard

import numpy as np

from selection.errors import InvalidOption
from selection.pool import Pool
from selection.types import Array, Capacity, FilterReport, Input, Rows, Selection

Kind = Literal["filter", "scorer", "selector"]


class Step:
    """What every step declares. `needs` and the like are properties, so that they may depend on an option.

    Attributes:
        name: how a recipe names the step.
        open_options: the one field that takes the whole mapping of options, for a step whose option names are free.
        open_steps: the options of `open_options` are themselves steps, each with a weight: a number, options with a
            `weight` among them, or a list of these.
        text_option: the field that a text sets, for a step that may be written as {name: text}.
        inner_options: the fields that name another step.
        added_options: the fields that records name only where their value is not the default, since there are
            selections from before there was such an option.
        row_options: the fields that may name a row, by number in the pool that the draw began with. A recipe may name
            it by id, as {id: ...}, which becomes the number before the step runs.
    """

    __slots__ = ()

    name: ClassVar[str]
    kind: ClassVar[Kind]
    open_options: ClassVar[str | None] = None
    open_steps: ClassVar[bool] = False
    text_option: ClassVar[str | None] = None
    inner_options: ClassVar[tuple[str, ...]] = ()
    added_options: ClassVar[tuple[str, ...]] = ()
    row_options: ClassVar[tuple[str, ...]] = ()

    @property
    def needs(self) -> frozenset[Input]:
        """The inputs without which the step cannot run."""
        return frozenset()

    @property
    def columns(self) -> frozenset[str]:
        """The named columns that the step reads."""
        return frozenset()

    @property
    def expressions(self) -> frozenset[str]:
        """Those of `columns` that are SQL expressions: a recipe evaluates them."""
        return frozenset()

    @property
    def searches(self) -> bool:
        """Whether `Vectors.nearest` may go through an approximate index. Every other step gets vectors without one."""
        return False

    @property
    def drops(self) -> bool:
        """Whether the step may leave rows out, so that a budget of all rows is more than there are: a filter, or a scorer
        that has no score for some rows.
        """
        return False

    def invalid(self, reason: str, option: str | None = None) -> InvalidOption:
        """The error for an option of this step; several where `option` is None."""
        return InvalidOption(reason, step=self.name, option=option)

    @property
    def algorithm(self) -> int:
        """Which version of the step's algorithm these options draw by.

        A step whose algorithm has changed has an option `version`, the newest by default. It gives that here where the
        change matters with its other options, else 1: then records say nothing of versions.
        """
        return 1


class Filter(Step):
    """A smaller pool from a pool.

    Attributes:
        bars: a row that it drops may not stay in a selection from before either (`selection.sticky`); a row that
            another filter drops is only not wanted.
    """

    __slots__ = ()
    kind: ClassVar[Kind] = "filter"
    bars: ClassVar[bool] = False

    @property
    def drops(self) -> bool:
        """Always."""
        return True

    @abstractmethod
    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """The candidates to keep: unique rows in any order. Rows that are already selected stay without being named.

        Args:
            pool: the candidates; never written to.
            budget: how many the recipe is to select in the end.
            rng: the only source of randomness.
        """

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, FilterReport | None]:
        """The rows that `keep` gives, and a report of them; the runner calls this.

        A filter that knows why it drops or keeps a row overrides this method. Its report is `DroppedRows` (the
        duplicates that it leaves out, each with the row that it repeats) or `RetrievedRows` (the rows that it keeps,
        each with the row that it was searched from). The report need not hold every row; None where there is nothing
        to report.
        """
        return self.keep(pool, budget, rng=rng), None


class Scorer(Step):
    """One score a row."""

    __slots__ = ()
    kind: ClassVar[Kind] = "scorer"

    @abstractmethod
    def score(self, pool: Pool, *, rng: np.random.Generator) -> Array:
        """(n,) float32, finite, higher = take first; of every row, also of the already selected ones.

        Where the scorer says that it `drops` rows, -inf is the score of a row to drop.
        """


class Selector(Step):
    """Rows from a pool."""

    __slots__ = ()
    kind: ClassVar[Kind] = "selector"

    @property
    def nested(self) -> bool:
        """A smaller budget gives the first rows of a larger one."""
        return False

    @property
    def incremental(self) -> bool:
        """2 picks, then 2 more with those already selected, equal 4 picks (same seed and round)."""
        return False

    @property
    def caps_inside(self) -> bool:
        """Whether it keeps to capacities of groups itself, by `select_within`; else its picks are walked along."""
        return False

    def select_within(
        self, pool: Pool, capacities: Sequence[Capacity], expected: int, *, rng: np.random.Generator
    ) -> tuple[Selection, float]:
        """Choose until the last capacity, that of the whole, is full, or there is nothing that fits.

        Args:
            capacities: written to.
            expected: about how many rows there will be.

        Returns:
            the selection, and what groups left over by closing before a row that did not fit.
        """
        raise NotImplementedError(f"{self.name} does not keep to capacities itself")

    @abstractmethod
    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """Choose among `pool.candidates`.

        Args:
            pool: the candidates; never written to.
            budget: 1 .. the number of candidates. Fewer rows are given only where the method itself has no more.
            rng: the only source of randomness.

        Returns:
            rows in pick order, a gain and a reason for each.
        """


def check_choice(step: str, option: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise `InvalidOption` unless `value` is one of `allowed`."""
    allowed = list(allowed)
    if value not in allowed:
        raise InvalidOption(f"{option} must be one of {', '.join(allowed)}, got {value!r}", step=step, option=option)


def check_integer(step: str, option: str, value: Any, *, least: int, optional: bool = False) -> None:
    """Raise `InvalidOption` unless `value` is an integer of at least `least`, or None if it is optional."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidOption(f"{option} must be an integer >= {least}, got {value!r}", step=step, option=option)


def check_clusters(step: str, value: Any) -> None:
    """Raise `InvalidOption` unless `n_clusters` is "sqrt" or an integer of at least 1."""
    if value == "sqrt":
        return
    if isinstance(value, str):
        raise InvalidOption(f"n_clusters must be 'sqrt' or a number, got {value!r}", step=step, option="n_clusters")
    check_integer(step, "n_clusters", value, least=1)


def check_number(
    step: str,
    option: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Raise `InvalidOption` unless `value` is a finite number within the bounds."""
    bound = f" > {above:g}" if above is not None else f" >= {least:g}" if least is not None else ""
    if not is_number(value) or (above is not None and value <= above) or (least is not None and value < least):
        raise InvalidOption(f"{option} must be a finite number{bound}, got {value!r}", step=step, option=option)
    if (below is not None and value >= below) or (most is not None and value > most):
        low = f"{above:g} < " if above is not None else f"{least:g} <= " if least is not None else ""
        high = f"< {below:g}" if below is not None else f"<= {most:g}"
        raise InvalidOption(f"{option} must be in {low}{option} {high}, got {value!r}", step=step, option=option)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_version(step: str, value: Any, *, newest: int) -> None:
    """Raise `InvalidOption` unless `value` is a version of the step's algorithm."""
    if isinstance(value, bool) or value not in range(1, newest + 1):
        raise InvalidOption(f"version must be in 1..{newest}, got {value!r}", step=step, option="version")


def check_flag(step: str, option: str, value: Any) -> None:
    """Raise `InvalidOption` unless `value` is true or false."""
    if not isinstance(value, bool):
        raise InvalidOption(f"{option} must be true or false, got {value!r}", step=step, option=option)


def check_name(step: str, option: str, value: Any, *, optional: bool = False) -> None:
    """Raise `InvalidOption` unless `value` is a non-empty string, or None if it is optional."""
    if not (isinstance(value, str) and value) and not (optional and value is None):
        raise InvalidOption(f"{option} must be a name, got {value!r}", step=step, option=option)
