"""The local engine: results in order, whatever the number of processes; a killed worker costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.engine import LocalEngine
from pipelines.engine.local import TRIES
from pipelines.errors import WorkerDied
from storage.errors import BadInput
from storage.shards import in_turn

Report = Callable[[int], object]


def square(shard: int, report: Report) -> int:
    report(shard)
    return shard * shard


def refuse(shard: int, _: Report) -> int:
    if shard == 3:
        raise BadInput("row 3 is no number")
    return shard


def run_out_of_memory(shard: int, _: Report) -> int:
    raise MemoryError(f"shard {shard}")


def die_once(shard: tuple[int, Path], _: Report) -> int:
    number, folder = shard
    if number == 2 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(shard: Path, _: Report) -> int:
    with shard.open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def name_process(shard: Path, _: Report) -> int:
    (shard / str(os.getpid())).touch()
    time.sleep(60)
    return 0


def show_settings(folder: Path, _: Report) -> tuple[str, str]:
    """The card and the threads of a worker, once both are there."""
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 120
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]


def test_results__are_those_of_one_process_in_order() -> None:
    done: list[int] = []
    with LocalEngine(2) as engine:
        assert list(engine.map(square, range(9), done.append)) == list(in_turn(square, range(9), int))
        assert sum(done) == sum(range(9))
        with pytest.raises(BadInput, match="row 3"):
            list(engine.map(refuse, range(9), int))
        assert list(engine.map(refuse, [1, 2], int)) == [1, 2]
        with pytest.raises(MemoryError, match="shard 7"):
            list(engine.map(run_out_of_memory, [7], int))


def test_a_killed_worker__has_its_shard_done_by_another(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        assert list(engine.map(die_once, [(number, tmp_path) for number in range(5)], int)) == [0, 1, 2, 3, 4]
        assert (tmp_path / "died").exists()
        with pytest.raises(WorkerDied, match=r"killed 3 times.*engine: \{workers: 1\}"):
            list(engine.map(die, [tmp_path / "tries"], int))
        assert (tmp_path / "tries").read_text() == "x" * TRIES


def test_workers__have_a_card_each_and_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    with LocalEngine(2, ["3", "GPU-5"]) as engine:
        settings = list(engine.map(show_settings, [tmp_path] * 2, int))
    assert sorted(settings) == [("3", threads), ("GPU-5", threads)]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers__end_with_the_process_that_started_them(tmp_path: Path, sent: signal.Signals) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored\n"
        "from pathlib import Path; from pipelines.engine import LocalEngine\n"
        "from tests.pipelines.engine.test_local import name_process\n"
        f"with LocalEngine(2) as engine: list(engine.map(name_process, [Path({str(tmp_path)!r})] * 2, int))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    process.send_signal(sent)
    process.wait(60)
    until = time.monotonic() + 60
    while any(Path("/proc", str(worker)).exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [worker for worker in workers if Path("/proc", str(worker)).exists()]
