"""Which rows of a stream to label: each row is decided when it arrives. The budget is the share of rows to label.

A rule holds the options. Its state is plain data (`dataclasses.asdict` gives JSON, the class takes it back), so that it
can continue later. Sources: `VariableUncertainty` Zliobaite et al. 2014; `Biqf` Kottke, Krempl and Spiliopoulou 2015.

>>> rule = Biqf(budget=0.5)
>>> state, asked = BiqfState(), []
>>> for utility in (0.2, 0.9, 0.1, 0.8):
...     ask, state = rule.decide(state, utility)
...     asked.append(ask)
>>> asked
[True, True, False, True]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selection.errors import InvalidInput, InvalidOption
from selection.step import check_integer, check_number


@dataclass(frozen=True, slots=True)
class VariableUncertaintyState:
    """The state of `VariableUncertainty`.

    Attributes:
        threshold: a row is asked for if its highest probability is below this.
        labelled: how many of the last `window` rows were asked for, where the weight of older rows fades.
    """

    threshold: float = 1.0
    labelled: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableUncertainty:
    """Ask for a row if the model is less sure of it than a threshold that falls after each question, else rises.

    So the threshold follows the stream when the model or the data drift. While the budget is spent, no row is asked for
    and the threshold stays.

    Args:
        budget: the share of rows to label, > 0 and <= 1.
        step: the share by which the threshold moves, > 0 and < 1.
        window: the number of rows over which the budget is kept, >= 1.

    Cost: O(1) a row.
    """

    budget: float = 0.1
    step: float = 0.01
    window: int = 100

    def __post_init__(self) -> None:
        _check_share("budget", self.budget)
        _check_share("step", self.step)
        if self.step >= 1:
            raise InvalidOption(f"step must be below 1, got {self.step!r}", step="stream", option="step")
        check_integer("stream", "window", self.window, least=1)

    def decide(self, state: VariableUncertaintyState, uncertainty: float) -> tuple[bool, VariableUncertaintyState]:
        """Whether to ask for the label of the next row, and the state after it.

        Args:
            state: the state after the previous row; `VariableUncertaintyState()` before the first row.
            uncertainty: 1 - the highest probability (`least_confidence`), 0..1.

        Raises:
            InvalidInput: the uncertainty is not in 0..1.
        """
        if not 0 <= uncertainty <= 1:
            raise InvalidInput(f"stream: uncertainty must be in 0..1, got {uncertainty!r}")
        ask, threshold = False, state.threshold
        if state.labelled / self.window < self.budget:
            ask = 1 - uncertainty < threshold
            threshold *= 1 - self.step if ask else 1 + self.step
        labelled = state.labelled * (self.window - 1) / self.window + ask
        return ask, VariableUncertaintyState(threshold, labelled)


@dataclass(frozen=True, slots=True)
class BiqfState:
    """The state of `Biqf`.

    Attributes:
        recent: the utilities of the last `window` rows, oldest first.
        seen: how many rows have arrived.
        asked: how many of them were asked for.
    """

    recent: Sequence[float] = ()
    seen: int = 0
    asked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Biqf:
    """Ask for a row if its utility reaches a quantile of the last utilities (balanced incremental quantile filter).

    The utility may have any unit. The threshold is lowered if fewer rows were asked for than the budget allows, and
    raised if more were, so the budget is met in the long run.

    Args:
        budget: the share of rows to label, > 0 and <= 1.
        window: the number of last rows whose quantile is taken, >= 1.
        tolerance: by how many labels the count must be off to move the threshold by the whole range of the window, > 0.

    Cost: O(window) a row.
    """

    budget: float = 0.1
    window: int = 100
    tolerance: float = 50

    def __post_init__(self) -> None:
        _check_share("budget", self.budget)
        check_integer("stream", "window", self.window, least=1)
        check_number("stream", "tolerance", self.tolerance, above=0)

    def decide(self, state: BiqfState, utility: float) -> tuple[bool, BiqfState]:
        """Whether to ask for the label of the next row, and the state after it.

        Args:
            state: the state after the previous row; `BiqfState()` before the first row.
            utility: any finite score of the row, higher = more useful to label.

        Raises:
            InvalidInput: the utility is not finite.
        """
        if not math.isfinite(utility):
            raise InvalidInput(f"stream: utility must be finite, got {utility!r}")
        recent = (*state.recent, float(utility))[-self.window :]
        seen = state.seen + 1
        ask = utility >= self.threshold(recent, seen, state.asked)
        return bool(ask), BiqfState(recent, seen, state.asked + bool(ask))

    def threshold(self, recent: Sequence[float], seen: int, asked: int) -> float:
        """The utility at which a row is asked for; `recent` and `seen` already include the row, `asked` does not.

        >>> Biqf(budget=0.5, tolerance=10).threshold([0.0, 1.0, 0.5], 3, 1)
        0.45
        """
        quantile = float(np.quantile(recent, 1 - self.budget))
        return quantile - (max(recent) - min(recent)) * (self.budget * seen - asked) / self.tolerance


def _check_share(option: str, value: float) -> None:
    check_number("stream", option, value, above=0)
    if value > 1:
        raise InvalidOption(f"{option} must be at most 1, got {value!r}", step="stream", option=option)
