"""How sound an encoder's vectors are: what was measured, and the cells by which it is measured.

    records/health_measurements/<id>/   health_measurement.json, groups.parquet (`GROUP_COLUMNS`)
    vectors/<encoder>/cells-<hash>/     centroids.npy, (64, d) float32 of norm 1; cells.json: what they were fitted on

The cells of an encoder are fitted once and kept, so that what different days say of its groups compares. Their name is
a hash of the encoder and the method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from selection.types import Floats
from storage.damage import committed_whole, read_record
from storage.records import commit_record, digest_of, next_number, read_items, record_folder
from storage.store import Store, read_array, utc_now, write_json

KIND = "health_measurement"
GROUP_COLUMNS = {
    "group_by": pa.string(),
    "group": pa.string(),
    "rows": pa.int64(),
    "cell": pa.int64(),
    "share": pa.float64(),
    "share_of_sample": pa.float64(),
}
CELLS_VERSION = 1


def commit_health(store: Store, header: Mapping[str, Any], groups: pa.Table) -> None:
    """Commit a measurement; the same `health_measurement_id` twice is one record, the first.

    Args:
        header: JSON-plain, with `health_measurement_id`, `encoder` and `measures`. `number` is given here.
        groups: `GROUP_COLUMNS`, a group of rows each.
    """
    with store.lock("health_measurements", "recording the health of vectors"):
        number = next_number(store, f"{KIND}s")
        commit_record(store, KIND, {**header, "number": number}, {"groups": groups.cast(pa.schema(GROUP_COLUMNS))})


def read_health(store: Store, measurement: str) -> dict[str, Any]:
    """The header of a measurement, and `groups`: its rows of `GROUP_COLUMNS`.

    Raises:
        NotInStore: there is none of this id.
        StoreDamaged: it is not whole.
    """
    folder = record_folder(store, KIND, measurement)
    groups = read_items(folder / "groups.parquet", GROUP_COLUMNS).to_pylist()
    return read_record(f"{KIND}s", folder) | {"groups": groups}


def frozen_cells(
    store: Store, encoder: str, fit: Callable[[], Floats] | None, about: Mapping[str, Any]
) -> Floats | None:
    """(cells, d) float32 the centroids of an encoder's cells; None if it has none.

    Args:
        fit: gives them where the store has none yet, and they are kept; None looks for them only.
        about: JSON-plain, what they were fitted on, for the record.
    """
    name = "cells-" + digest_of({"encoder": encoder, "method": "spherical k-means", "version": CELLS_VERSION})
    if not committed_whole(store, "cells", encoder, name):
        if fit is None:
            return None
        with store.committing("vectors", encoder, name) as folder:
            np.save(folder / "centroids.npy", fit(), allow_pickle=False)
            write_json(folder / "cells.json", {**about, "encoder": encoder, "created_at": utc_now()})
    centroids: Floats = read_array(store.path("vectors", encoder, name, "centroids.npy"))
    return centroids
