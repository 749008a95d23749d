"""A run with little memory: near what it takes it ends, with less it says so, and the next run goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from pipelines.check import check_lines
from pipelines.run import run_all
from storage.store import Store
from tests.pipelines.conftest import make_light, opened

pytestmark = [pytest.mark.slow, pytest.mark.torture]

GROUP = Path("/sys/fs/cgroup/memory")  # version 1, where a test may make a group of its own
WINNOW = [sys.executable, "-c", "from pipelines.cli.main import main; main()"]


def run(project: Path, *, data_bytes: int | None = None, group: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`winnow run`, with a limit of its own memory, or in a group that has one."""

    limits = ["true"]
    if data_bytes is not None:
        limits.append(f"ulimit -d {data_bytes >> 10}")
    if group is not None:
        limits.append(f"echo $$ > {group}/cgroup.procs")
    command = ["sh", "-c", " && ".join([*limits, 'exec "$@"']), "sh", *WINNOW, "run", "-c", str(project)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def peak(project: Path) -> int:
    """What a run took, by its own record."""
    run_id = Store(project / "store").records("runs")[-1]
    record = Store(project / "store").place("records", "runs", run_id) / "run.json"
    return int(json.loads(record.read_text())["peak_memory_bytes"])


@pytest.fixture
def group() -> Iterator[Path]:
    folder = GROUP / f"winnow-{uuid4().hex}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text("-1")
    except OSError as error:
        pytest.skip(f"no group of processes can be made: {error}")
    yield folder
    folder.rmdir()


def test_run__ends_in_what_the_last_one_took(tmp_path: Path, group: Path) -> None:
    first = make_light(tmp_path / "first")
    assert run(first).returncode == 0
    (group / "memory.limit_in_bytes").write_text(str(peak(first)))
    second = make_light(tmp_path / "second")
    ended = run(second, group=group)
    assert ended.returncode == 0, ended.stderr
    assert len(Store(second / "store").records("selections")) == 2


@pytest.mark.parametrize("megabytes", [500, 600, 700, 800, 900])
def test_run__without_memory_says_so_and_the_next_one_goes_on(tmp_path: Path, megabytes: int) -> None:
    project = make_light(tmp_path / "light")
    ended = run(project, data_bytes=megabytes << 20)
    if ended.returncode != 0:
        assert "Traceback" not in ended.stdout + ended.stderr
        assert ended.returncode in (3, 5)
        assert "memory" in ended.stdout + ended.stderr
    run_all(opened(project))
    assert [line for line in check_lines(opened(project), deep=True) if "damaged" in line] == []
    whole = make_light(tmp_path / "whole")
    run_all(opened(whole))
    assert Store(project / "store").records("selections") == Store(whole / "store").records("selections")
