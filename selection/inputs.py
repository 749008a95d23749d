"""The inputs of a pool: checked and brought into one form when it is made, restricted when a subpool is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from selection.errors import InvalidInput
from selection.types import Array, Input, Pool, RowBlocks, Rows, Targets, Vectors
from selection.vectors import ArrayBlocks, ArrayVectors, restricted


def normalise(pool: Pool) -> None:
    """Check every input of a new pool and put it into the form that steps read.

    Raises:
        InvalidInput: names the input, and the row where there is one.
    """
    given = {name: FORMS[name](getattr(pool, name)) for name in FORMS if getattr(pool, name) is not None}
    columns = {name: _flat(f"column {name!r}", values) for name, values in pool.columns.items()}

    n = _common_length(given, columns)
    if "keys" not in given:
        given["keys"] = np.arange(n, dtype=np.uint64)
    given["columns"] = columns
    given["already_selected"] = _already_selected(pool.already_selected, n)
    given["_size"] = n
    if pool.targets is not None and "vectors" in given:
        _check_dimensions(pool.targets, given["vectors"])
    for name, value in given.items():
        object.__setattr__(pool, name, value)


def subpool(pool: Pool, rows: Rows) -> Pool:
    """See `Pool.take`."""
    rows = np.asarray(rows)
    if rows.ndim != 1 or not (np.issubdtype(rows.dtype, np.integer) or not len(rows)):
        raise InvalidInput(f"take: rows must be a flat array of integers, got {rows.dtype} of shape {rows.shape}")
    rows = rows.astype(np.int64)
    if len(rows) and (rows[0] < 0 or rows[-1] >= len(pool) or (np.diff(rows) <= 0).any()):
        raise InvalidInput(f"take: rows must be ascending, unique and in 0..{len(pool) - 1}")
    here: dict[str, Any] = {"targets": pool.targets}
    for name in ("vectors", "probabilities", "committee"):
        value = getattr(pool, name)
        here[name] = None if value is None else restricted(value, rows)
    for name in ("scores", "labels", "groups", "keys", "eligible"):
        value = getattr(pool, name)
        here[name] = None if value is None else value[rows]
    here["texts"] = None if pool.texts is None else [pool.texts[row] for row in rows.tolist()]
    here["columns"] = {name: values[rows] for name, values in pool.columns.items()}
    here["already_selected"] = np.isin(rows, pool.get_already_selected(), assume_unique=True)
    return Pool(**here)


def _vectors(value: Any) -> Vectors:
    if isinstance(value, Vectors):
        return value
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.ndim != 2:
        raise InvalidInput(f"vectors: must have two axes (rows, dimensions), got shape {array.shape}")
    if array.dtype not in (np.float16, np.float32):
        if array.dtype.kind not in "fiu":
            raise InvalidInput(f"vectors: must be float16 or float32, got {array.dtype}")
        # Stored vectors are float16 or float32; others become the nearest float32, and exactness refers to these.
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    return ArrayVectors(array)


def _blocks(name: str, axes: int) -> Callable[[Any], RowBlocks]:
    def form(value: Any) -> RowBlocks:
        blocks: RowBlocks = value if hasattr(value, "blocks") else ArrayBlocks(np.asarray(value))
        if len(blocks.shape) != axes:
            raise InvalidInput(f"{name}: must have {axes} axes, the first by row, got shape {blocks.shape}")
        return blocks

    return form


def _scores(value: Any) -> Array:
    scores = _flat("scores", value)
    if scores.dtype.kind not in "fiub":
        raise InvalidInput(f"scores: must be numbers, got {scores.dtype}")
    with np.errstate(over="ignore"):
        scores = scores.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise InvalidInput(f"scores: row {{row}} is {scores[bad[0]]}, must be finite", row=int(bad[0]))
    return scores


def _labels(value: Any) -> Array:
    return _integers("labels", value).astype(np.int64)


def _keys(value: Any) -> Array:
    return _integers("keys", value).astype(np.uint64, copy=False)


def _integers(name: str, value: Any) -> Array:
    array = _flat(name, value)
    if len(array) and array.dtype.kind not in "iu":
        raise InvalidInput(f"{name}: must be integers, got {array.dtype}")
    return array


def _eligible(value: Any) -> Array:
    array = _flat("eligible", value)
    if len(array) and array.dtype != bool:
        raise InvalidInput(f"eligible: must be a mask of true and false, one a row, got {array.dtype}")
    return array.astype(bool)


def _flat(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.ndim != 1:
        raise InvalidInput(f"{name}: must have one value a row, got shape {array.shape}")
    return array


def _common_length(given: dict[str, Any], columns: dict[str, Array]) -> int:
    lengths = {name: _length(value) for name, value in given.items()}
    lengths |= {f"column {name!r}": len(values) for name, values in columns.items()}
    if not lengths:
        raise InvalidInput(f"a pool needs at least one input by row: {', '.join(FORMS)} or columns")
    first, n = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != n:
            raise InvalidInput(f"{name}: {length} rows, but {first} has {n}")
    return n


def _length(value: Any) -> int:
    return int(value.shape[0]) if hasattr(value, "shape") else len(value)


def _already_selected(value: Array | Sequence[int] | None, n: int) -> Rows:
    if value is None:
        return np.empty(0, np.int64)
    rows = _flat("already_selected", value)
    if rows.dtype == bool:
        if len(rows) != n:
            raise InvalidInput(f"already_selected: a mask of {len(rows)} rows for a pool of {n}")
        return np.flatnonzero(rows).astype(np.int64)
    if len(rows) and rows.dtype.kind not in "iu":
        raise InvalidInput(f"already_selected: must be rows (integers) or a mask, got {rows.dtype}")
    ordered = np.sort(rows.astype(np.int64))
    outside = ordered[(ordered < 0) | (ordered >= n)]
    if len(outside):
        raise InvalidInput(f"already_selected: row {outside[0]} is outside 0..{n - 1}")
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise InvalidInput("already_selected: row {row} is given twice", row=int(twice[0]))
    return ordered


def _check_dimensions(targets: Targets, vectors: Vectors) -> None:
    here, there = vectors.shape[1], np.shape(targets.vectors)[1]
    if here != there and vectors.shape[0]:
        raise InvalidInput(f"targets: {there} dimensions, but the pool's vectors have {here}: not the same encoder")


def check_target_committee(committee: Array, m: int) -> None:
    """Raise `InvalidInput` unless this is `Targets.committee` of m targets."""
    from selection.kernels.probabilities import checked

    if np.ndim(committee) != 3 or len(committee) != m:
        raise InvalidInput(
            f"targets: committee must have three axes (targets, members, classes) and {m} targets, got shape "
            f"{np.shape(committee)}"
        )
    checked(committee, None, "targets: committee")


def available(pool: Pool) -> str:
    """What the pool holds, for a message: "vectors, labels, columns length, source"."""
    names = [str(i) for i in Input if i in pool.given and i is not Input.COLUMNS]
    if pool.columns:
        names.append("columns " + ", ".join(sorted(pool.columns)))
    return ", ".join(names) or "nothing"


# Inputs with one entry a row: what brings each into the form that steps read. The first given decides the length.
FORMS: dict[str, Callable[[Any], Any]] = {
    "vectors": _vectors,
    "scores": _scores,
    "probabilities": _blocks("probabilities", 2),
    "committee": _blocks("committee", 3),
    "labels": _labels,
    "groups": lambda value: _flat("groups", value),
    "texts": lambda value: value,
    "keys": _keys,
    "eligible": _eligible,
}
