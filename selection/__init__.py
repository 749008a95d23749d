"""What to choose: algorithms over arrays.

>>> import numpy as np
>>> from selection import Pool, select
>>> select(["top"], Pool(scores=np.array([0.1, 0.9, 0.5])), budget=2).rows
array([1, 2])
"""

from selection.constraints import Constraints, Quota, TokenBudget
from selection.errors import (
    BrokenStep,
    InvalidBudget,
    InvalidInput,
    InvalidOption,
    InvalidRecipe,
    MissingInput,
    SelectionError,
    UnknownStep,
)
from selection.pool import Pool, Targets
from selection.registry import build_step, parse_steps, required, step_names, step_spec
from selection.run import select
from selection.step import Filter, Scorer, Selector, Step
from selection.sticky import Sticky
from selection.types import DroppedRows, Input, Reason, RetrievedRows, Selection, Vectors
from selection.vectors import ArrayVectors

__all__ = [
    "ArrayVectors",
    "BrokenStep",
    "Constraints",
    "DroppedRows",
    "Filter",
    "Input",
    "InvalidBudget",
    "InvalidInput",
    "InvalidOption",
    "InvalidRecipe",
    "MissingInput",
    "Pool",
    "Quota",
    "Reason",
    "RetrievedRows",
    "Scorer",
    "Selection",
    "SelectionError",
    "Selector",
    "Step",
    "Sticky",
    "Targets",
    "TokenBudget",
    "UnknownStep",
    "Vectors",
    "build_step",
    "parse_steps",
    "required",
    "select",
    "step_names",
    "step_spec",
]
