"""`winnow` commands in forks of a process that has imported everything, so that hundreds of them take a minute.

    python -m tests.torture.commands     # reads requests, a line of JSON each, and answers with a line each

It never opens DuckDB itself: a fork has none of its threads.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.torture.syscalls import KILL, supervised

ROOT = Path(__file__).resolve().parents[2]
GROWING = {"write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "ftruncate", "fallocate"}
DISK_FULL = GROWING | {"mkdir", "mkdirat", "symlink", "symlinkat"}

# From then on DuckDB's calls for the next catalog fail, and no others: its errors are no OSError.
OF_THE_CATALOG = {"catalog full": errno.ENOSPC, "catalog broken": errno.EIO}


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        code: its exit code; -9 where it was killed.
        said: its output and errors.
        calls: the calls that changed the disk, each as its name and the path in the project.
        hit: those that failed, or at which it was killed.
    """

    code: int
    said: str
    calls: list[str]
    hit: list[str]


class Commands:
    """Runs commands on a project, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, project: Path, *command: str, nth: int = 0, fault: str = "kill") -> Result:
        """Run a command.

        Args:
            nth: at which call that changes the disk something happens, from 1; 0 for none.
            fault: "kill"; the name of an error, which this call alone gives; "full" or "broken", a disk that is full,
                or gives errors of input and output, from then on; or one of `OF_THE_CATALOG`.
        """
        assert self._process.stdin
        assert self._process.stdout
        request = {"project": str(project), "command": command, "nth": nth, "fault": fault}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Result(**json.loads(self._process.stdout.readline()))


@contextmanager
def commands() -> Iterator[Commands]:
    """A process that runs commands."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.commands"],
        cwd=ROOT,
        env=os.environ | threads,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Commands(process)
    finally:
        process.kill()
        process.communicate()


def _answered(request: dict[str, Any]) -> dict[str, Any]:
    project, nth, fault = Path(request["project"]), request["nth"], request["fault"]

    def decide(number: int, call: str) -> int:
        name, path = call.split(" ", 1)
        if fault in OF_THE_CATALOG:
            return OF_THE_CATALOG[fault] if 0 < nth <= number and path.endswith("/next.duckdb") else 0
        if fault == "full":
            return errno.ENOSPC if 0 < nth <= number and name in DISK_FULL else 0
        if fault == "broken":
            return errno.EIO if 0 < nth <= number else 0
        if number != nth:
            return 0
        return KILL if fault == "kill" else int(getattr(errno, fault))

    def run() -> None:
        from pipelines.cli.main import main

        for descriptor in (1, 2):
            os.dup2(said.fileno(), descriptor)
        sys.argv = ["winnow", *request["command"], "--config", str(project)]
        try:
            main()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    with tempfile.TemporaryFile("w+") as said:
        ended = supervised(run, project, decide)
        said.seek(0)
        return {"code": ended.code, "said": said.read(), "calls": ended.calls, "hit": ended.hit}


def _serve() -> None:
    for module in ("altair", "duckdb", "faiss", "jinja2", "numba", "pyarrow.parquet", "pipelines.run", "vl_convert"):
        importlib.import_module(module)
    # A few records make a pack, so that a history of some nights has packs, and packs of packs.
    compact = importlib.import_module("storage.upkeep.compact")
    compact.FOLDERS, compact.PACKS = 3, 2
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answered(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
