"""Which engine a configuration names."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.engine import engine_for
from pipelines.engine.local import WORTH_BYTES
from storage.shards import in_turn
from tests.pipelines.conftest import change, opened


@pytest.mark.parametrize(("size", "workers", "expected"), [(WORTH_BYTES - 1, 2, 1), (10**12, 1, 1), (10**12, 3, 3)])
def test_processes__start_only_for_large_work(light: Path, size: int, workers: int, expected: int) -> None:
    change(light, "pool:\n", f"engine: {{workers: {workers}}}\npool:\n")
    with engine_for(opened(light), size) as (parallel, at_once):
        assert at_once == expected
        assert (parallel is in_turn) == (expected == 1)


def test_ray__is_asked_for_nothing_before_there_is_work(light: Path) -> None:
    change(light, "pool:\n", "engine: {kind: ray, address: 'nowhere:1'}\npool:\n")
    with engine_for(opened(light), 0) as (parallel, _):
        assert list(parallel(lambda *_: 0, [], int)) == []
