"""What can go wrong in a selection, as one small tree.

    SelectionError
    |- UnknownStep      (KeyError-like lookup of a step name; lists the known ones)
    |- InvalidOption    (an option of a step is out of its range, or unknown)
    |- InvalidRecipe    (the steps do not fit together: a selector before a scorer, no selector at all)
    |- MissingInput     (a step needs an input that the pool does not have)
    |- InvalidInput     (an input is there but wrong: NaN, a length, a row out of range)
    |- InvalidBudget    (negative, or more than the pool can give)
    |- ServerFailed     (a server of embeddings refuses, or gives what is no answer)
    `- BrokenStep       (a step gave what no step may give: a row twice, a NaN score; a fault of the step, not of its input)

Every class is also a `ValueError`, so a caller who knows nothing of this tree still catches it. Apart from them stands
ServerUnavailable, an `OSError` like a disk that refuses: the same call may work later.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt


class SelectionError(ValueError):
    """Base of all errors that `selection` raises for a user's input. Its text is "step: reason", or the reason alone.

    Args:
        reason: what is wrong.
        step: whose options or inputs are wrong: a step's name, or "quota", "budget", "recipe", "encoder", "tokenizer",
            "classifier" and the like; None for what concerns the whole call.
        option: the one option that is wrong; None where several are, or no option is.
    """

    def __init__(self, reason: str, *, step: str | None = None, option: str | None = None) -> None:
        super().__init__(reason if step is None else f"{step}: {reason}")
        self.reason = reason
        self.step = step
        self.option = option


class UnknownStep(SelectionError):
    """No step has this name."""


class InvalidOption(SelectionError):
    """A step's option is unknown or out of range."""


class InvalidRecipe(SelectionError):
    """The steps cannot run in this order."""


class MissingInput(SelectionError):
    """A step needs an input that the pool does not hold."""


class InvalidInput(SelectionError):
    """An input of the pool is malformed: a wrong length, a NaN, a row out of range.

    Args:
        message: what is wrong; "{row}" in it stands for the row.
        row: the row to blame, if there is one: a caller who knows its id can add it.
    """

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message if row is None else message.replace("{row}", str(row)))
        self.template = message
        self.row = row


class TemplateRefusal(SelectionError):
    """A tokenizer's chat template does not take a conversation.

    Args:
        reason: the template's own words.
    """

    WORDS = "the chat template refuses it"

    def __init__(self, reason: object) -> None:
        super().__init__(f"{self.WORDS}: {reason}")


class InvalidBudget(SelectionError):
    """The budget is negative or more than the pool can give."""


class ServerFailed(SelectionError):
    """A server of embeddings refuses a request, or gives what is no answer.

    Args:
        reason: where it was asked, and its own words; without the key.
        status: of its HTTP answer; None where its answer was no answer.
    """

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class ServerUnavailable(ConnectionError):
    """A server of embeddings cannot be reached, or is too busy or too slow, also when it is asked again.

    Args:
        reason: where it was asked, and what happened; without the key.
        status: of its HTTP answer; None where there was none.
    """

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class BrokenStep(SelectionError):
    """A step gave what no step may give."""


@contextmanager
def rows_of_parent(rows: npt.NDArray[np.int64]) -> Iterator[None]:
    """Name a bad row by its row in the parent pool: row i of the subpool is row `rows[i]` of the parent."""
    try:
        yield
    except InvalidInput as error:
        if error.row is None:
            raise
        raise InvalidInput(error.template, row=int(rows[error.row])) from error
