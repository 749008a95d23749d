"""How rows fall into groups: by the values of a column, by bands of a number, by the class that a model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from selection.blocks import restricted
from selection.errors import InvalidInput, rows_of_parent
from selection.kernels.probabilities import tiles
from selection.pool import Pool
from selection.types import Array, Doubles, Input, Rows

NO_GROUP = -1
_LISTED = 8


def strata(values: Array) -> tuple[Rows, tuple[str, ...]]:
    """The stratum of each row, and the strata's names in ascending order of their values, null last.

    >>> strata(np.array(["b", None, "a", "b"], object))
    (array([1, 2, 0, 1]), ('a', 'b', 'null'))
    """
    if values.dtype.kind != "O":
        distinct, stratum = np.unique(values, return_inverse=True)
        has_nan = distinct.dtype.kind == "f" and len(distinct) > 0 and bool(np.isnan(distinct[-1]))
        names = [str(value) for value in distinct.tolist()]
        return stratum.astype(np.int64), (*names[:-1], "null") if has_nan else tuple(names)
    code, codes = _codes(values)
    ordered = sorted(codes, key=_sort_key)
    place = np.empty(len(codes), np.int64)
    place[[codes[value] for value in ordered]] = np.arange(len(codes))
    return place[code], tuple("null" if value is None else str(value) for value in ordered)


def by_value(values: Array) -> Rows:
    """The group of each row by the values of a column, `NO_GROUP` for missing ones; in no order, so without sorting texts.

    >>> by_value(np.array(["b", None, "a", "b"], object)), by_value(np.array([7.0, np.nan, 7.0]))
    (array([ 0, -1,  2,  0]), array([ 0, -1,  0]))
    """
    if values.dtype.kind == "O":
        group, codes = _codes(values)
        missing = group == codes.get(None, NO_GROUP)
    else:
        group = np.unique(values, return_inverse=True)[1].astype(np.int64)
        missing = np.asarray(values != values)  # noqa: PLR0124 - NaN alone differs from itself
    return np.where(missing, NO_GROUP, group)


def banded(by: str, values: Array, edges: Sequence[float]) -> tuple[Rows, tuple[str, ...]]:
    """The band of each value and the bands' names, missing values last.

    >>> banded("length", np.array([5., 200., np.nan]), [200, 1000])
    (array([0, 1, 3]), ('..200', '200..1000', '1000..', 'null'))
    """
    if values.dtype.kind not in "iufb":
        raise InvalidInput(f"quota: bands need a numeric column, {by!r} is {values.dtype}")
    numbers = values.astype(np.float64)
    band = np.searchsorted(np.asarray(edges, np.float64), numbers, side="right")
    band[np.isnan(numbers)] = len(edges) + 1
    written = [f"{edge:g}" if edge != int(edge) else str(int(edge)) for edge in edges]
    inner = tuple(f"{low}..{high}" for low, high in pairwise(written))
    return band.astype(np.int64), (f"..{written[0]}", *inner, f"{written[-1]}..", "null")


def predicted_class(pool: Pool) -> tuple[Rows, tuple[str, ...]]:
    """The class of each row: its label, or else that of highest probability, the lowest of equals. And the classes' names.

    Raises:
        InvalidInput: a row of probabilities is no distribution or a label beyond the classes; names the row.

    Cost: the probabilities of the rows without a label.
    """
    probabilities = pool.get_probabilities()
    classes = probabilities.shape[1]
    group = np.full(len(pool), NO_GROUP) if pool.labels is None else np.maximum(pool.get_labels(), NO_GROUP)
    beyond = np.flatnonzero(group >= classes)
    if len(beyond):
        raise InvalidInput(f"labels: row {{row}} is {group[beyond[0]]}, of {classes} classes", row=int(beyond[0]))
    unlabelled = np.flatnonzero(group == NO_GROUP).astype(np.int64)
    with rows_of_parent(unlabelled):
        for rows, tile in tiles(restricted(probabilities, unlabelled), Input.PROBABILITIES):
            group[unlabelled[rows]] = np.argmax(tile, axis=1)
    return group.astype(np.int64), tuple(str(number) for number in range(classes))


def cost_by_group(group: Rows, pool: Pool, cost: Doubles, count: int) -> tuple[Doubles, Doubles]:
    """(count,) the cost of what is already selected in each group, and (count,) of its candidates."""

    def total(rows: Array) -> Doubles:
        grouped = rows[group[rows] != NO_GROUP]
        return np.bincount(group[grouped], weights=cost[grouped], minlength=count).astype(np.float64)

    return total(pool.get_already_selected()), total(np.flatnonzero(pool.candidates))


def listed(names: Sequence[str], between: str = ", ") -> str:
    """The first few names, and how many more.

    >>> listed(["a", "b"]), listed([str(i) for i in range(10)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, and 2 more')
    """
    more = len(names) - _LISTED
    return between.join([*names[:_LISTED], f"and {more:,} more"] if more > 0 else names)


def _codes(values: Array) -> tuple[Rows, dict[Any, int]]:
    """A number for each value, in order of appearance, None for any null; NaN is the value that differs from itself."""
    codes: dict[Any, int] = {}
    plain = (None if value is None or value != value else value for value in values.tolist())  # noqa: PLR0124
    return np.array([codes.setdefault(value, len(codes)) for value in plain], np.int64), codes


def _sort_key(value: Any) -> tuple[bool, str, Any]:
    if isinstance(value, bool | int | float):
        return (value is None, "", value)
    return (value is None, type(value).__name__, str(value))
