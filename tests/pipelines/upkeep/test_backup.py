"""A copy of a store that is in use, in the order that docs/operations.md says, is a store."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.run import run_all
from storage.catalog.publish import rebuild_catalog
from storage.catalog.query import query_catalog
from storage.records import read_selection
from storage.store import Store
from tests.pipelines.conftest import make_light, opened
from tests.pipelines.upkeep.conftest import assert_sound

NIGHTS = """
import sys
import time
from pathlib import Path
from tests.pipelines.upkeep.conftest import night
print("ready", flush=True)
for number in range(10, 12):
    night(Path(sys.argv[1]), number)
"""
COPIES = 5
# Made again by `winnow catalog rebuild` and by the next run; hidden names are being written.
LEFT_OUT = shutil.ignore_patterns("catalog", "winnow.duckdb", "tmp", "locks", "records", ".*")


def copy(project: Path, target: Path) -> Path:
    """Records first, so that all that a record names is copied after it."""
    shutil.copytree(project, target, ignore=shutil.ignore_patterns("store"))
    shutil.copytree(project / "store" / "records", target / "store" / "records")
    shutil.copytree(project / "store", target / "store", symlinks=True, dirs_exist_ok=True, ignore=LEFT_OUT)
    return target


@pytest.mark.slow
def test_copy__of_a_store_in_use_is_sound(tmp_path: Path) -> None:
    project = make_light(tmp_path / "project")
    run_all(opened(project))
    copies = []
    command = [sys.executable, "-c", NIGHTS, str(project)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as nights:
        assert nights.stdout is not None
        assert nights.stdout.readline() == b"ready\n"
        while nights.poll() is None:
            if len(copies) < COPIES:
                copies.append(copy(project, tmp_path / f"copy-{len(copies)}"))
            time.sleep(0.1)
    assert nights.returncode == 0
    assert len(copies) > 1
    for each in copies:
        store = Store(each / "store")
        rebuild_catalog(store)
        lacking = "SELECT count(*) AS n FROM snapshot_files f ANTI JOIN pool_rows r USING (ingest)"
        assert query_catalog(store, lacking)["n"].to_pylist() == [0]
        named = {
            header["snapshot"] for header in (read_selection(store, name)[0] for name in store.records("selections"))
        }
        assert named <= set(store.records("snapshots"))
    assert_sound(copies[len(copies) // 2])
    run_all(opened(copies[len(copies) // 2]))
