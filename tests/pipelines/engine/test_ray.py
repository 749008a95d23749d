"""The Ray engine on a cluster of two machines, which this one simulates."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines import text_shards, vector_shards
from pipelines.engine import RayEngine, local
from pipelines.engine import ray as ray_module
from pipelines.engine.handshake import Handshake, handshake, versions
from pipelines.errors import EngineRefused, WorkerDied
from pipelines.messages import counted
from pipelines.run import run_all
from selection.kernels import facility_location
from storage.errors import BadInput
from storage.files import ranges, user_files
from storage.pool.ingest import FileSpec, ingest_file
from storage.records import read_selection
from storage.shards import Map, Report, in_turn
from storage.store import Store
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import Winnow, change, make_light, opened
from tests.pipelines.engine.test_local import die, die_once, name_process, refuse, run_out_of_memory, square
from tests.pipelines.test_vector_shards import (
    RECIPES,
    check_kernels,
    check_recipes,
    share_small_work,
    stored_vectors,
)

NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two machines of two cores; no process of it outlives the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            nodes.add_node(**NODE)
            yield nodes
        finally:
            started = [pid for pid in below(os.getpid()) if b"ray" in command_of(pid)]
            nodes.shutdown()
            for pid in started:  # agents of a machine would stay for a minute
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        assert wait_for(lambda: not any(b"ray" in command_of(pid) for pid in started))


def below(parent: int) -> list[int]:
    """The processes that a process started, and those that these did."""
    children = " ".join(path.read_text() for path in Path(f"/proc/{parent}/task").glob("*/children"))
    return [pid for child in map(int, children.split()) for pid in (child, *below(child))]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def wait_for(condition: Callable[[], object], seconds: float = 120) -> bool:
    until = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return bool(holds)


@pytest.fixture(scope="module")
def engine(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayEngine]:
    """A worker on each machine."""
    store = Store(tmp_path_factory.mktemp("ray") / "store")
    with RayEngine(store, address=cluster.address, workers=2) as engine:
        yield engine
    assert list(store.path("tmp").iterdir()) == []


def name_machine(shard: tuple[int, Path], report: Report) -> int:
    """Say on which machine and in which process it runs, and wait for a file."""
    import ray

    number, folder = shard
    report(1)
    (folder / f"{number} {os.getpid()} {ray.get_runtime_context().get_node_id()}").touch()
    assert wait_for((folder / "go").exists)
    return number


def killed_once(work: Callable[[Any, Report], Any], folder: Path, shard: Any, report: Report) -> Any:
    """Do the work, and the first time die before anybody knows."""
    result = work(shard, report)
    if not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result


# Recipes whose steps compare vectors on the workers.
WHERE_VECTORS_ARE = """\
  far: {steps: [k_center], budget: 30}
  typical: {steps: [{facility_location: {mode: reference, n_ref: 40}}], budget: 8}
  distinct: {steps: [{semdedup: {n_clusters: 3, eps: 0.05}}, random], budget: 8}
  like: {steps: [{class_probability: {of: good}}, top], budget: 8, probabilities: by_vectors}
  worded: {steps: [{class_probability: {of: good}}, top], budget: 8, probabilities: by_words}
"""
CLASSIFIERS = """classifiers:
  by_vectors: {classes: {good: {where: "source = 'fox'"}, other: {sample: 40}}}
  by_words: {features: ngrams, classes: {good: {targets: foxes}, other: {sample: 40}}, equal_classes: false}
"""


@pytest.mark.slow
def test_results__are_those_of_one_process_in_order(
    engine: RayEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done: list[int] = []
    assert list(engine.map(square, range(9), done.append)) == list(in_turn(square, range(9), int))
    assert sum(done) == sum(range(9))
    with pytest.raises(BadInput, match=r"^row 3 is no number$"):
        list(engine.map(refuse, range(9), int))
    assert list(engine.map(refuse, [1, 2], int)) == [1, 2]
    with pytest.raises(WorkerDied, match=r"^7: ran out of memory on the Ray worker on .* want of memory"):
        list(engine.map(run_out_of_memory, [7], int))
    assert list(engine.map(die_once, [(number, tmp_path) for number in range(5)], int)) == [0, 1, 2, 3, 4]
    assert (tmp_path / "died").exists()
    with pytest.raises(WorkerDied, match=r"tries: the workers that worked on it died 3 times, the last on .* Ray says"):
        list(engine.map(die, [tmp_path / "tries"], int))
    assert (tmp_path / "tries").read_text() == "x" * local.TRIES
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_run__has_the_same_store_and_selections_from_any_engine(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WORTH_BYTES", 0)
    for module, name in ((ranges, "BLOCK_BYTES"), (ranges, "MIN_BYTES"), (user_files, "BLOCK_BYTES")):
        monkeypatch.setattr(module, name, 700)
    monkeypatch.setattr(vector_shards, "PART_ROWS", 20)
    share_small_work(monkeypatch)
    monkeypatch.setattr(facility_location, "CHUNK_ROWS", 20)
    works: set[str] = set()
    for places, name in (
        (vector_shards.StoredParts, "__call__"),
        (vector_shards.StoredParts, "groups"),
        (text_shards.SnapshotTexts, "__call__"),
    ):
        monkeypatch.setattr(places, name, _noting(works, getattr(places, name)))
    runs = set()
    kinds = [
        ("kind: local", 1),
        ("kind: local", 2),
        *((f"kind: ray, address: '{cluster.address}'", n) for n in (1, 2, 8)),
    ]
    for number, (kind, workers) in enumerate(kinds):
        project = make_light(tmp_path / str(number))
        change(project, "pool:\n", f"engine: {{{kind}, workers: {workers}}}\npool:\n")
        change(project, "recipes:\n", f"{CLASSIFIERS}recipes:\n{WHERE_VECTORS_ARE}")
        works.clear()
        said: list[str] = []
        run_all(opened(project, said))
        assert {line for line in said if line.startswith("Ray: ")} == (
            {f"Ray: {counted(workers, 'worker')} on a cluster of 4 cores and 0 cards"} if "ray" in kind else set()
        )
        pool, store = project / "store" / "pool", Store(project / "store")
        chosen = [str(read_selection(store, name)[1].to_pylist()) for name in store.records("selections")]
        parts = sorted((str(path.relative_to(pool)), path.read_bytes()) for path in pool.glob("*/*.parquet"))
        assert len(parts) > 4
        runs.add((*store.records("selections"), *chosen, *store.records("snapshots"), *parts))
        of_texts = {"_bytes_of_rows"} if workers > 1 or "ray" in kind else set()
        of_vectors = {"_refreshed_of_part", "_bounds_of_part", "_of_points", "_of_group"} if "ray" in kind else set()
        assert of_texts | of_vectors <= works
        assert works == of_texts or "ray" in kind
    assert len(runs) == 1


def _noting(works: set[str], call: Callable[..., Any]) -> Callable[..., Any]:
    def noted(places: Any, work: Any, *arguments: Any) -> Any:
        works.add(getattr(work, "func", work).__name__)
        return call(places, work, *arguments)

    return noted


@pytest.mark.slow
def test_vectors_in_parts__of_a_worker_that_is_killed(
    engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_shards, "PART_ROWS", 50)
    share_small_work(monkeypatch)
    vectors = stored_vectors(Store(tmp_path / "store"))
    killing: Map = lambda work, *rest: engine.map(partial(killed_once, work, tmp_path), *rest)  # noqa: E731
    check_kernels(vectors, engine.map, tmp_path)
    check_recipes(RECIPES[-2:], vectors, killing, tmp_path)
    assert (tmp_path / "killed").exists()


@pytest.mark.slow
def test_ingest__of_a_worker_that_is_killed(engine: RayEngine, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_rows(path, [row(n, s) for s in SUBJECTS for n in range(10)])
    expected = ingest_file(Store(tmp_path / "whole"), FileSpec(str(path)))
    seen: list[int] = []
    killing: Map = lambda work, *rest: engine.map(partial(killed_once, work, tmp_path), *rest)  # noqa: E731
    made = ingest_file(Store(tmp_path / "store"), FileSpec(str(path)), on_rows=seen.append, parallel=killing)
    assert (tmp_path / "killed").exists()
    assert (made.id, made.readable, sum(seen)) == (expected.id, 80, 80)
    folders = [tmp_path / store / "pool" / made.id for store in ("whole", "store")]
    assert len({(folder / "part-00000.parquet").read_bytes() for folder in folders}) == 1
    assert len({tuple(sorted(path.name for path in folder.iterdir())) for folder in folders}) == 1


@pytest.mark.slow
def test_a_machine__with_other_code_or_another_store_is_refused(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def other_code(store: Store) -> Iterator[Handshake]:
        with handshake(store) as asked:
            yield replace(asked, versions=versions() | {"winnow": "9.9"})

    @contextmanager
    def other_store(store: Store) -> Iterator[Handshake]:
        with handshake(store) as asked:
            yield replace(asked, probe=asked.probe.with_name("elsewhere"))

    class Copied(Handshake):
        """What is sent to a worker names a copy of the folder."""

        def __reduce__(self) -> tuple[type[Handshake], tuple[Any, ...]]:
            return Handshake, (self.versions, self.probe.with_name("copy"), self.token)

    @contextmanager
    def copied_store(store: Store) -> Iterator[Handshake]:
        with handshake(store) as asked:
            shutil.copytree(asked.probe, asked.probe.with_name("copy"))
            yield Copied(asked.versions, asked.probe, asked.token)

    not_shared = "does not see this store"
    refused = ((other_code, r"has winnow .*, not 9\.9"), (other_store, not_shared), (copied_store, not_shared))
    for planted, cause in refused:
        monkeypatch.setattr(ray_module, "handshake", planted)
        with RayEngine(Store(tmp_path / "store"), address=cluster.address, workers=1) as ray:
            for _ in range(2):
                with pytest.raises(EngineRefused, match=rf"^the Ray worker on .* {cause}"):
                    list(ray.map(square, range(9), int))


@pytest.mark.slow
def test_workers__end_with_the_work_that_failed(cluster: Any, tmp_path: Path) -> None:
    other = RayEngine(Store(tmp_path / "store"), address=cluster.address, workers=1)

    def stop_when_it_works() -> None:
        assert wait_for(lambda: list(tmp_path.glob("[0-9]*")))
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), ThreadPoolExecutor() as threads, other as ray:
        threads.submit(list, ray.map(name_process, [tmp_path], int))
        stop_when_it_works()
    (pid,) = tmp_path.glob("[0-9]*")
    assert wait_for(lambda: not Path("/proc", pid.name).exists(), seconds=30)


@pytest.mark.slow
@pytest.mark.torture
def test_a_machine_that_goes__has_its_shards_done_by_another(cluster: Any, engine: RayEngine, tmp_path: Path) -> None:
    (node,) = cluster.worker_nodes
    done: list[int] = []
    with ThreadPoolExecutor() as threads:
        result = threads.submit(
            list, engine.map(name_machine, [(number, tmp_path) for number in range(4)], done.append)
        )
        assert wait_for(lambda: any(path.name.endswith(node.node_id) for path in tmp_path.iterdir()))
        assert wait_for(lambda: sum(done) == 2)  # both machines report while they work
        (there,) = (path for path in tmp_path.iterdir() if path.name.endswith(node.node_id))
        cluster.remove_node(node)
        process = Path("/proc", there.name.split()[1], "cmdline")  # of a dead one without a parent it is empty
        assert wait_for(lambda: not process.exists() or not process.read_bytes())  # it outlives its machine by a moment
        (tmp_path / "go").touch()
        assert result.result(120) == [0, 1, 2, 3]
    assert len([path for path in tmp_path.iterdir() if path.name != "go"]) == 5
    assert sum(done) == 4


def test_without_ray__says_what_to_install(light: Path, winnow: Winnow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    change(light, "pool:\n", "engine: {kind: ray}\npool:\n")
    ended = winnow("run", "-c", light)
    assert ended.code == 2
    assert "pip install 'winnow-pool[ray]'" in ended.err
    assert "pip install 'winnow-pool[ray]'" in winnow("failures", "-c", light).out
