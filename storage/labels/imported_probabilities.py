"""Class probabilities of rows of the pool from a user's Parquet file, keyed by id.

The file has a column of keys and either one number column for each class, by its name, or one column of lists with a
number for each class in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selection.types import Doubles, Floats, Mask
from storage.errors import BadInput
from storage.files.tables import read_parquet
from storage.files.user_files import opened_as, unchanged, url_digest
from storage.pool.keys import WINNOW_ID, key_texts, match_source
from storage.pool.snapshot import Snapshot
from storage.store import Store

# How far a row's sum may be from 1; what is nearer is scaled.
TOLERANCE = 1e-3


def probabilities_id(store: Store, url: str) -> str:
    """Digest of the file's present content."""
    return url_digest(store, url)


def probability_classes(store: Store, url: str, id_field: str) -> tuple[str, ...]:
    """The classes of a file whose columns name them: every column but the key. Those of a column of lists are numbers.

    Raises:
        BadInput: the file cannot be read, or has a column that is neither; names it.
    """
    where = f"probabilities: {url}"
    with unchanged(store, url) as (file, _):
        table = _table(file, id_field, where)
    names = [name for name in table.column_names if name != id_field]
    if len(names) == 1 and _is_list(table.schema.field(names[0]).type):
        lengths = pc.drop_null(pc.list_value_length(table[names[0]]))
        return tuple(str(number) for number in range(lengths[0].as_py() if len(lengths) else 0))
    for name in names:
        kind = table.schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
            raise BadInput(
                f"{where}: column {name!r} holds {kind}, no numbers; every column but the key {id_field!r} is the "
                "probability of a class"
            )
    if len(names) < 2:
        raise BadInput(
            f"{where} must have a column for each of two classes or more, or one of lists; it has "
            f"{', '.join(names) or 'none'} beside the key {id_field!r}"
        )
    return tuple(names)


def read_probabilities(
    store: Store, url: str, id_field: str, classes: Sequence[str], snapshot: Snapshot, digest: str | None = None
) -> tuple[Floats, Mask]:
    """The probabilities of a snapshot's rows.

    Args:
        id_field: the column of keys: winnow's ids, or those that rows have in their files.
        classes: C names.
        digest: that the file must have; any by default.

    Returns:
        (n, C) float32, each row of sum 1; and (n,) which rows the file names, the others have equal probabilities. Of
        several keys of one row the first counts.

    Raises:
        BadInput: the file cannot be read, lacks a column, or holds what is no probability; names the key.

    Cost: the file in memory.
    """
    where = f"probabilities: {url}"
    with opened_as(store, url, digest) if digest else unchanged(store, url) as (file, _):
        table = _table(file, id_field, where)
    keys = key_texts(table[id_field], id_field, where).to_pylist()
    values = _values(table, [name for name in table.column_names if name != id_field], classes, where)
    total = values.sum(axis=1)
    invalid = np.flatnonzero(~(np.isfinite(total) & (values >= 0).all(axis=1) & (np.abs(total - 1) <= TOLERANCE)))
    if len(invalid):
        raise BadInput(
            f"{where}: {keys[invalid[0]]!r} has {values[invalid[0]].tolist()}, which are no probabilities of sum 1"
        )
    rows, first = match_source(keys, snapshot, only_winnow=id_field == WINNOW_ID).first()
    known = np.zeros(len(snapshot), np.bool_)
    known[rows] = True
    probabilities = np.full((len(snapshot), len(classes)), 1 / len(classes), np.float32)
    probabilities[rows] = values[first] / total[first, None]
    return probabilities, known


def _table(file: BinaryIO, id_field: str, where: str) -> pa.Table:
    """The file in memory, with the column of keys."""
    try:
        table = read_parquet(file)
    except ValueError as error:
        raise BadInput(f"{where} {error}") from error
    if id_field not in table.column_names:
        raise BadInput(f"{where} has no column {id_field!r} to key by; it has {', '.join(table.column_names)}")
    return table


def _values(table: pa.Table, names: Sequence[str], classes: Sequence[str], where: str) -> Doubles:
    """(r, C)."""
    if set(classes) <= set(names):
        try:
            return np.stack([table[name].cast(pa.float64()).to_numpy() for name in classes], axis=1)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadInput(f"{where}: the columns of the classes must be numbers: {error}") from error
    if len(names) == 1 and _is_list(table.schema.field(names[0]).type):
        return _of_lists(table[names[0]], names[0], len(classes), where)
    raise BadInput(
        f"{where} must have one column for each class ({', '.join(classes)}), or one column of lists; it has "
        f"{', '.join(names) or 'none'}"
    )


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(kind) for test in tests)


def _of_lists(column: pa.ChunkedArray, name: str, n_classes: int, where: str) -> Doubles:
    """(r, n_classes) of lists of any kind."""
    lengths = pc.fill_null(pc.list_value_length(column), -1)
    if pc.any(pc.not_equal(lengths, n_classes)).as_py():
        raise BadInput(f"{where}: the lists of {name!r} must have {n_classes} numbers, one a class")
    try:
        flat = pc.list_flatten(column).cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"{where}: the lists of {name!r} must hold numbers: {error}") from error
    return np.asarray(flat.to_numpy()).reshape(len(column), n_classes)
