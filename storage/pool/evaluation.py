"""A user's SQL condition, evaluated in a process of its own, within limits of time and memory.

DuckDB neither counts nor interrupts what a single function builds: `repeat('x', 3000000000)` or `range(1000000000)`
takes the memory of the machine. A process can be watched from outside and ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import pyarrow as pa

from storage.pool import evaluation_process

# A scan reads some 100,000 rows a second from a slow disk; ten times that leaves room for a costly expression.
LEAST_S, ROWS_PER_S = 60.0, 10_000
# Texts in flight on many threads; a subquery may keep something of each row. Never more than half of what there is.
LEAST_BYTES, BYTES_PER_ROW = 4 * 2**30, 4096

_POLL_S = 0.05


class ConditionFailed(Exception):
    """A condition cannot be evaluated; the message is DuckDB's."""


class OverLimit(ConditionFailed):
    """A condition needs more time or memory than it may have; the message says which."""


def matching_examples(
    opening: Sequence[str], tables: Mapping[str, pa.Table], view: str, condition: str, *, rows: int
) -> pa.Table:
    """The column `id` of the view `examples` where one SQL expression is true; see `_evaluated`."""
    return _evaluated(opening, tables, view, {"condition": condition}, rows)


def values_of_examples(
    opening: Sequence[str], tables: Mapping[str, pa.Table], view: str, expression: str, *, rows: int
) -> pa.Table:
    """The column `id` of the view `examples`, and as `value` what one SQL expression gives, a number; see `_evaluated`."""
    return _evaluated(opening, tables, view, {"expression": expression}, rows)


def _evaluated(
    opening: Sequence[str], tables: Mapping[str, pa.Table], view: str, asked: Mapping[str, str], rows: int
) -> pa.Table:
    """What the process of `evaluation_process` answers.

    Args:
        opening: statements that open what the condition may see, and close all else.
        tables: name -> what the view reads beside it.
        view: the statement that makes the view.
        rows: of the pool, by which the time is limited.

    Raises:
        ConditionFailed: DuckDB refuses it.
        OverLimit: it needs more time or memory than it may have.

    Cost: starts a process, about 0.4 s.
    """
    memory, time_s = min(memory_bytes() // 2, LEAST_BYTES + rows * BYTES_PER_ROW), LEAST_S + rows / ROWS_PER_S
    # The answer is on stdout, where DuckDB would draw its bar.
    opening = ["SET enable_progress_bar = false", f"SET memory_limit = '{memory}B'", *opening]
    parts = {name: _stream(table) for name, table in tables.items()}
    header = {
        "opening": opening,
        "tables": {name: len(part) for name, part in parts.items()},
        "view": view,
        **asked,
        "cpu_s": int(time_s * (os.cpu_count() or 1)) + 1,
    }
    request = b"".join([json.dumps(header).encode(), b"\n", *parts.values()])
    code, answer, said = _run(request, memory, time_s)
    if code == evaluation_process.REFUSED:
        raise ConditionFailed(said.decode("utf-8", "replace"))
    if code != 0:
        raise RuntimeError(f"the process that evaluates it ended with {code}: {said.decode('utf-8', 'replace')}")
    return pa.ipc.open_stream(answer).read_all()


def _run(request: bytes, memory: int, time_s: float) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of the process.

    Raises:
        OverLimit: it was ended, by its limits or from outside.
    """
    # Not the working folder, whose files are the user's: nothing of theirs is imported.
    folders = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    command = [sys.executable, "-P", "-m", evaluation_process.__name__]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}
    # Files, not pipes: this process only has to watch.
    with TemporaryFile() as asked, TemporaryFile() as answer, TemporaryFile() as said:
        asked.write(request)
        asked.seek(0)
        with subprocess.Popen(command, stdin=asked, stdout=answer, stderr=said, env=environment) as process:  # noqa: S603
            try:
                _watch(process, memory, time_s)
            except BaseException:
                process.kill()
                raise
        if process.returncode < 0:
            raise OverLimit(f"its process was ended by signal {-process.returncode}; is there enough memory?")
        answer.seek(0)
        said.seek(0)
        return process.returncode, answer.read(), said.read()


def _watch(process: subprocess.Popen[bytes], memory: int, time_s: float) -> None:
    """Return when a process has ended.

    Raises:
        OverLimit: it is over a limit.
    """
    until = time.monotonic() + time_s
    while True:
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() > until:
                raise OverLimit(f"it takes more than {time_s:.0f} s") from None
            if resident_bytes(process.pid) > memory:
                raise OverLimit(f"it takes more than {memory / 2**30:.1f} GiB of memory") from None
        else:
            return


def memory_bytes() -> int:
    """Of the machine, or of the container if that has less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(file).read_text()))
        except (OSError, ValueError):  # there is none, or it says `max`
            continue
    return total


def resident_bytes(pid: int) -> int:
    """Of a process; 0 if the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, LookupError):
        return 0


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
