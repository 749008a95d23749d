"""`winnow plan`: what a run would do."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.plan import plan_lines
from pipelines.run import run_all
from tests.pipelines.conftest import change, opened


def test_plan_lines__changed_columns_are_a_changed_pool(light: Path) -> None:
    def write(score: float) -> None:
        pq.write_table(pa.table({"id": ["fox-1"], "score": [score]}), light / "scores.parquet")

    write(1.0)
    change(light, "pool:\n", "pool:\n  columns: scores.parquet\n")
    run_all(opened(light))
    assert plan_lines(opened(light))[-1] == "selection/any: drawn already, nothing to do"
    write(2.0)
    assert plan_lines(opened(light))[-1] == "the rest is known once the pool has been read"


def test_plan_lines__files_of_the_same_bytes_are_one(light: Path) -> None:
    (light / "data" / "copy.jsonl").write_bytes((light / "data" / "a.jsonl").read_bytes())
    run_all(opened(light))
    lines = plan_lines(opened(light))
    assert lines[:2] == ["pool: 3 files, 0 of them new or changed", "snapshot: 80 rows"]
