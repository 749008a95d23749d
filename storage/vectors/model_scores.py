"""What a language model says of the rows of a pool, as columns.

The numbers lie in the segments of the model's passes (`storage.vectors.segments`), a row of rows.parquet for each id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from selection.types import SCORES as COLUMNS
from storage.checksums import verified
from storage.errors import NotInStore
from storage.ids import Ids, from_arrow, rows_of, to_arrow
from storage.store import Store
from storage.vectors.segments import ROWS, missing_ids, segment_folders

CAUSE = "cause"
"""The column that says why a row lacks numbers."""
SCORE_COLUMNS = {
    "id": pa.uuid(),
    "model": pa.string(),
    "fingerprint": pa.string(),
    **dict.fromkeys(COLUMNS, pa.float64()),
    CAUSE: pa.string(),
}


class ModelScores:
    """The columns of one model.

    Attributes:
        types: column -> its type, see `extra`.
    """

    def __init__(self, store: Store, model: str, title: str, names: Mapping[str, str]) -> None:
        """Name them; the numbers are read when they are asked for.

        Args:
            model: the fingerprint.
            title: what a person calls the model.
            names: column -> its name in the segments.
        """
        self.store, self.model, self.title, self.names = store, model, title, dict(names)
        self.types = dict.fromkeys(names, "number")

    def values(self, name: str, ids: Ids) -> npt.NDArray[np.float64]:
        """(n,) one column for ascending ids, NaN where there is no value.

        Raises:
            NotInStore: the model has not seen some of them.
        """
        return self._read([self.names[name]], ids)[self.names[name]]

    def table(self, ids: Ids, id_name: str) -> pa.Table:
        """All columns, behind the id as `id_name`; null where there is no value."""
        read = self._read(self.names.values(), ids)
        columns = {name: pa.array(read[stored], from_pandas=True) for name, stored in self.names.items()}
        return pa.table({id_name: to_arrow(ids), **columns})

    def _read(self, columns: Iterable[str], ids: Ids) -> dict[str, npt.NDArray[np.float64]]:
        if lacking := len(missing_ids(self.store, self.model, ids)):
            raise NotInStore(
                f"model {self.title}: {lacking:,} of {len(ids):,} rows have no token scores; `winnow run`, or the asset "
                f"{self.title}/token_scores, makes them"
            )
        values = {name: np.full(len(ids), np.nan) for name in columns}
        for file in self._files:
            table = pq.read_table(file, columns=["id", *values])
            rows = rows_of(from_arrow(table["id"]), ids)
            for name, column in values.items():
                column[rows[rows >= 0]] = table[name].to_numpy()[rows >= 0]
        return values

    @cached_property
    def _files(self) -> Sequence[Any]:
        return [verified(folder / ROWS) for folder in segment_folders(self.store, self.model)]
