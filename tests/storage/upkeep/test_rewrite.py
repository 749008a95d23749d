"""What a record is without some rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.checksums import verified
from storage.ids import from_bytes, to_arrow, to_bytes, to_text
from storage.store import Store, read_json, write_json
from storage.upkeep.rewrite import GONE, Rows, records_with, rewrite
from storage.vectors.segments import NORMS, ROWS, commit_segment, segment_folders, verify_segments

IDS = from_bytes([bytes([number]) * 16 for number in range(1, 5)])
NAMES = to_text(IDS)
GOING = Rows(IDS[1:2], ("the fox jumps over",))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def without(store: Store) -> list[str]:
    """Rewrite all records; the kinds that changed. Once more changes nothing."""
    changed = []
    for kind, folder in records_with(store, GOING):
        rewrite(store, kind, folder, GOING)
        changed.append(kind)
    assert list(records_with(store, GOING)) == []
    return changed


def test_rewrite__rows_quotes_and_references_of_tables(store: Store) -> None:
    tables = {
        "labels": pa.table({"id": to_arrow(IDS), "comment": ["a", "b", "so the fox jumps over", None]}),
        "quarantine": pa.table(
            {"excerpt": ['{"prompt": "the fox jumps over 3"}', "the dog"], "cause": [NAMES[1], "x"]}
        ),
    }
    with store.committing("records", "labels", "a") as folder:
        for name, table in tables.items():
            pq.write_table(table, folder / f"{name}.parquet")
        write_json(folder / "import.json", {"new": 4})
    untouched = (store.path("records", "labels", "a", "import.json")).read_bytes()
    assert without(store) == ["labels"]
    folder = store.path("records", "labels", "a")
    assert pq.read_table(verified(folder / "labels.parquet")).to_pydict() == {
        "id": to_arrow(IDS[[0, 2, 3]]).to_pylist(),
        "comment": ["a", None, None],
    }
    assert pq.read_table(folder / "quarantine.parquet").to_pydict() == {
        "excerpt": ["", "the dog"],
        "cause": [None, "x"],
    }
    assert (folder / "import.json").read_bytes() == untouched


def test_rewrite__ids_and_quotes_in_json(store: Store) -> None:
    document = {"ids": NAMES, "by": {NAMES[1]: 1, NAMES[2]: 2}, "error": 'line 3: "the fox jumps over 3" is no label'}
    with store.committing("records", "runs", "a") as folder:
        write_json(folder / "run.json", document)
    with store.committing("records", "runs", "b") as folder:
        write_json(folder / "run.json", {"stage": "x"})
    assert without(store) == ["runs"]
    kept = read_json(store.path("records", "runs", "a", "run.json"))
    assert kept == {"ids": [NAMES[0], *NAMES[2:]], "by": {NAMES[2]: 2}, "error": GONE}


def test_rewrite__a_segment_is_one_of_the_other_rows(store: Store) -> None:
    vectors = np.eye(4, dtype=np.float32)
    failed = np.array([False, False, False, True])
    scores = pa.table({"nll_sum": [1.0, 2.0, 3.0]})
    commit_segment(store, "e", IDS, vectors, {}, failed=failed, table=scores, norms=np.ones((4, 1)))
    commit_segment(store, "e", IDS[1:2], vectors[1:2], {"failed": {NAMES[1]: "no tokens"}})
    commit_segment(store, "other", IDS[2:], vectors[2:], {})
    assert without(store) == ["segments", "segments"]
    (folder,) = segment_folders(store, "e")
    assert to_bytes(np.load(folder / "keys.npy")) == to_bytes(IDS[[0, 2]])
    assert np.array_equal(np.load(folder / "vectors.npy"), vectors[[0, 2]].astype(np.float16))
    assert pq.read_table(folder / ROWS)["nll_sum"].to_pylist() == [1.0, 3.0]
    assert pq.read_table(folder / NORMS)["id"].to_pylist() == to_arrow(IDS[[0, 2]]).to_pylist()
    assert (verify_segments(store, "e"), read_json(folder / "segment.json")["n_failed"]) == (2, 1)


@pytest.mark.parametrize("finished", [True, False])
def test_rewrite__a_trial_that_is_not_finished_begins_anew(store: Store, finished: bool) -> None:
    parts = {"plan": "trial.json", "cell-a-0": "cell.json"} | ({"effects": "effects.json"} if finished else {})
    for part, file in parts.items():
        with store.committing("records", "trials", "t", part) as folder:
            write_json(folder / file, {"trial_id": "t"})
            if part == "plan":
                pq.write_table(pa.table({"id": to_arrow(IDS)}), folder / "rows.parquet")
    assert without(store) == (["trials"] if finished else ["trials", "trial_cells"])
    assert store.committed("records", "trials", "t") == (sorted(parts) if finished else [])
    if finished:
        assert len(pq.read_table(store.path("records", "trials", "t", "plan", "rows.parquet"))) == 3


def test_rewrite__a_reader_of_the_old_files_keeps_them(store: Store) -> None:
    commit_segment(store, "e", IDS, np.eye(4, dtype=np.float32), {})
    (folder,) = segment_folders(store, "e")
    open_before = np.load(folder / "keys.npy", mmap_mode="r")
    without(store)
    assert to_bytes(np.asarray(open_before)) == to_bytes(IDS)
    assert json.loads((folder / "checksums.json").read_text())["crc32"].keys() >= {"keys.npy", "segment.json"}
