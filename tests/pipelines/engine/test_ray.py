"""The Ray engine on a cluster of two machines, which this machine simulates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.engine import RayEngine
from pipelines.engine.local import TRIES
from pipelines.errors import WorkerDied
from storage.errors import BadInput
from storage.shards import in_turn
from storage.store import Store
from tests.pipelines.engine.test_local import die, die_once, refuse, run_out_of_memory, square

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
        try:
            nodes.add_node(**SMALL)
            yield nodes
        finally:
            nodes.shutdown()


def engine(cluster: Any, folder: Path, workers: int | None = 2) -> RayEngine:
    return RayEngine(Store(folder / "store"), address=cluster.address, workers=workers)


def test_results__are_those_of_one_process_in_order(cluster: Any, tmp_path: Path) -> None:
    done: list[int] = []
    with engine(cluster, tmp_path) as ray:
        assert list(ray.map(square, range(9), done.append)) == list(in_turn(square, range(9), int))
        assert sum(done) == sum(range(9))
        with pytest.raises(BadInput, match=r"^row 3 is no number$"):
            list(ray.map(refuse, range(9), int))
        assert list(ray.map(refuse, [1, 2], int)) == [1, 2]
        with pytest.raises(WorkerDied, match=r"^7: ran out of memory on the Ray worker on .* want of memory"):
            list(ray.map(run_out_of_memory, [7], int))
        assert list(ray.map(die_once, [(number, tmp_path) for number in range(5)], int)) == [0, 1, 2, 3, 4]
        assert (tmp_path / "died").exists()
        with pytest.raises(
            WorkerDied, match=r"tries: the workers that worked on it died 3 times, the last on .*Ray says"
        ):
            list(ray.map(die, [tmp_path / "tries"], int))
        assert (tmp_path / "tries").read_text() == "x" * TRIES
