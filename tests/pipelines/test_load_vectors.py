"""Stored vectors for Python programs, of a project that ran: `storage.catalog.load`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selection import Pool, select
from selection.metrics import coverage
from storage.catalog.load import load_vectors
from storage.catalog.query import query_catalog
from storage.errors import NotInStore
from storage.store import Store


def test_load_vectors__in_the_order_of_the_ids(ran: Path) -> None:
    ids, vectors = load_vectors(ran / "store")
    assert vectors.shape == (80, 16)
    names = query_catalog(Store(ran / "store"), "SELECT given_id FROM examples ORDER BY id")["given_id"].to_pylist()
    stored = np.load(ran / "vectors" / "pool.npy")
    at = (ran / "vectors" / "pool.ids.txt").read_text().splitlines()
    expected = stored[[at.index(name) for name in names]]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(vectors.take(np.arange(80)), expected, atol=1e-3)
    result = select("k_center", Pool(vectors=vectors), budget=5)
    assert coverage(vectors, rows=result.rows).radius > 0
    assert len({ids[row] for row in result.rows}) == 5


def test_load_vectors__by_the_name_of_its_model(ran: Path) -> None:
    model = query_catalog(Store(ran / "store"), "SELECT model FROM encoders WHERE model LIKE '%pool.npy'")["model"][0]
    assert load_vectors(ran / "store", model.as_py())[1].shape == (80, 16)


def test_load_vectors__an_unknown_encoder(ran: Path) -> None:
    with pytest.raises(NotInStore, match=r"no encoder is called 'nosuch'; there are: .*pool\.npy"):
        load_vectors(ran / "store", "nosuch")


def test_load_vectors__no_store(tmp_path: Path) -> None:
    with pytest.raises(NotInStore, match="no catalog is published"):
        load_vectors(tmp_path / "nosuch")
