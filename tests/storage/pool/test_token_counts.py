from __future__ import annotations

from pathlib import Path

import numpy as np

from storage.ids import from_bytes
from storage.pool.token_counts import MISSING, commit_counts, read_counts
from storage.store import Store


def ids_of(*names: str) -> np.ndarray:
    return from_bytes(name.encode().ljust(16, b"x") for name in names)


def test_counts__by_id_and_tokenizer_whatever_the_segment(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit_counts(store, "t1", ids_of("b", "a"), np.array([2, 1]))
    commit_counts(store, "t1", ids_of("c"), np.array([0]))
    commit_counts(store, "t2", ids_of("a"), np.array([9]))
    assert read_counts(store, "t1", ids_of("c", "a", "d", "b")).tolist() == [0, 1, MISSING, 2]
    assert read_counts(store, "t2", ids_of("a", "b")).tolist() == [9, MISSING]
    assert read_counts(store, "t3", ids_of("a")).tolist() == [MISSING]


def test_commit_counts__the_same_again_is_one_segment(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit_counts(store, "t", ids_of("b", "a"), np.array([2, 1]))
    commit_counts(store, "t", ids_of("a", "b"), np.array([1, 2]))
    assert len(store.committed("tokens", "t")) == 1
