"""What can go wrong in a selection, as one small tree.

    SelectionError
    |- UnknownStep      (KeyError-like lookup of a step name; lists the known ones)
    |- InvalidOption    (an option of a step is out of its range, or unknown)
    |- InvalidRecipe    (the steps do not fit together: a selector before a scorer, no selector at all)
    |- MissingInput     (a step needs an input that the pool does not have)
    |- InvalidInput     (an input is there but wrong: NaN, a length, a row out of range)
    `- InvalidBudget    (negative, or more than the pool can give)

Every class is also a `ValueError`, so a caller who knows nothing of this tree still catches it.
"""


class SelectionError(ValueError):
    """Base of all errors that `selection` raises for a user's input."""


class UnknownStep(SelectionError):
    """No step has this name."""


class InvalidOption(SelectionError):
    """A step's option is unknown or out of range."""


class InvalidRecipe(SelectionError):
    """The steps cannot run in this order."""


class MissingInput(SelectionError):
    """A step needs an input that the pool does not hold."""


class InvalidInput(SelectionError):
    """An input of the pool is malformed: a wrong length, a NaN, a row out of range."""


class InvalidBudget(SelectionError):
    """The budget is negative or more than the pool can give."""
