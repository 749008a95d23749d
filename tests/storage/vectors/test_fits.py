"""A fit keeps its id, and the encoder its name, when a row of its sample was forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from storage.ids import from_bytes, to_bytes
from storage.store import Store
from storage.upkeep.rewrite import Rows, records_with, rewrite
from storage.vectors.fits import Fit, commit_fit, stored_fit


def test_stored_fit__keeps_its_id_without_a_row_of_its_sample(tmp_path: Path) -> None:
    store, ids = Store(tmp_path), from_bytes([bytes([number]) * 16 for number in range(1, 5)])
    fit = Fit("key", ids, committed=False)
    commit_fit(store, fit, {"mean": np.ones(3)}, {})
    rows = Rows(ids[1:2])
    for kind, folder in list(records_with(store, rows)):
        rewrite(store, kind, folder, rows)
    stored = stored_fit(store, "key")
    assert stored is not None
    assert stored.id == fit.id
    assert to_bytes(stored.ids) == [bytes([number]) * 16 for number in (1, 3, 4)]
