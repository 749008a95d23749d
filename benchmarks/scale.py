"""A large pool from end to end, then a night with 1 % more rows: `python benchmarks/scale.py --rows 1000000`.

Rows are short made-up conversations of eight sources in files of a million, beside vectors of 128 dimensions (2,000
clusters, float16). `winnow run` draws five recipes: at random, at random by quotas, near to 200 targets (rds_plus), far
apart (k_center), and at random without near copies (semdedup). Then files of rows and vectors of 1 % more rows come in,
and it runs again.

Prints for each stage the seconds that `winnow plan --rows` predicts before the first run; seconds by the clock and of
the processor (all processes); and the most memory: private to the processes, and with the files that they map, which
the kernel takes back when it needs the room. Then the disk by folder of the store. 10M rows take 20 GB of the folder
for temporary files, or of `--folder`.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.context import open_context
from pipelines.progress import Log
from pipelines.projection import Projection

DIMENSION, CLUSTERS, TARGETS = 128, 2_000, 200
ROWS_A_FILE = 1_000_000
SEED = 7
SAMPLE_S = 0.2
CONFIG = """\
store: ./store
pool:
  files: data/*.jsonl
  vectors: [{vectors}]
targets:
  asked: {{files: targets/asked.jsonl, vectors: targets/asked.npy}}
recipes:
  any: {{steps: [random], budget: {large}}}
  even: {{steps: [random], budget: {large}, quota: {{by: source, caps: 0.2}}}}
  near: {{steps: [rds_plus], budget: {large}}}
  apart: {{steps: [k_center], budget: {small}}}
  distinct: {{steps: [semdedup, random], budget: {large}}}
"""


class Project:
    """A project of made-up rows that grows."""

    def __init__(self, folder: Path, rows: int, dimension: int = DIMENSION, targets: int = TARGETS) -> None:
        self.folder, self.rows, self.dimension = folder, rows, dimension
        self.centers = np.random.default_rng(SEED).normal(size=(CLUSTERS, dimension)).astype(np.float32)
        for name in ("data", "vectors", "targets"):
            (folder / name).mkdir()
        self._write("targets/asked", "targets/asked", 0, targets)
        for number, start in enumerate(range(0, rows, ROWS_A_FILE)):
            self.add(f"part-{number:03d}", start, min(ROWS_A_FILE, rows - start))

    def add(self, name: str, start: int, count: int) -> None:
        """A file of rows and one of their vectors."""
        self._write(f"data/{name}", f"vectors/{name}", start, count)
        vectors = ", ".join(sorted(f"vectors/{path.name}" for path in self.folder.glob("vectors/*.npy")))
        config = CONFIG.format(vectors=vectors, large=self.rows // 20, small=max(min(self.rows // 100, 1_000), 1))
        (self.folder / "winnow.yaml").write_text(config)

    def _write(self, data: str, vectors: str, start: int, count: int) -> None:
        rng = np.random.default_rng([SEED, start, count])
        prefix = data.partition("/")[0]
        array = np.lib.format.open_memmap(
            self.folder / f"{vectors}.npy", "w+", np.dtype(np.float16), (count, self.dimension)
        )
        with (self.folder / f"{data}.jsonl").open("w") as rows, (self.folder / f"{vectors}.ids.txt").open("w") as ids:
            for first in range(0, count, 50_000):
                n = min(50_000, count - first)
                cluster = rng.integers(CLUSTERS, size=n)
                noise = rng.normal(size=(n, self.dimension)).astype(np.float32)
                array[first : first + n] = self.centers[cluster] + noise * rng.uniform(0.1, 0.8, (n, 1))
                for number, group in zip(range(start + first, start + first + n), cluster.tolist(), strict=True):
                    rows.write(_row(f"{prefix}-{number}", number, group))
                    ids.write(f"{prefix}-{number}\n")
        array.flush()


def _row(key: str, number: int, cluster: int) -> str:
    return (
        f'{{"id": "{key}", "source": "source-{cluster % 8}", '
        f'"prompt": "Of what kind is number {number}, and what follows it in list {cluster}?", '
        f'"response": "It is of kind {cluster}; {number + 1} follows it, and then {number + 2}."}}\n'
    )


# ---- measuring


@dataclass
class Use:
    """What a stage took.

    Attributes:
        private: most bytes of memory that belong to the processes alone.
        resident: most bytes of memory, with mapped files.
    """

    title: str
    seconds: float = 0.0
    cpu: float = 0.0
    private: int = 0
    resident: int = 0


@dataclass
class Processes:
    """A process and those that it started, looked at again and again."""

    pid: int
    private: int = 0
    resident: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Note the most memory, until `stop`."""
        while not self._ended.wait(SAMPLE_S):
            sizes = [_memory(pid) for pid in self._tree()]
            self.private = max(self.private, sum(private for private, _ in sizes))
            self.resident = max(self.resident, sum(resident for _, resident in sizes))

    def stop(self) -> None:
        self._ended.set()

    def cpu(self) -> float:
        """Seconds of the processor, also of children that have ended."""
        return sum(_cpu(pid) for pid in self._tree())

    def _tree(self) -> list[int]:
        pids = [self.pid]
        for pid in pids:
            for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    pids += map(int, tasks.read_text().split())
                except OSError:
                    continue
        return pids


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> tuple[int, int]:
    """Bytes that are private to a process, and all that are resident."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    kb = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return 1024 * (kb.get("RssAnon", 0) + kb.get("RssShmem", 0)), 1024 * kb.get("VmRSS", 0)


# What `winnow --verbose run` says at the end of each stage, behind the line that names it.
_STAGE_ENDED = re.compile(r"^  [\d.,]+ s, at most .* of memory so far")


def run_night(folder: Path) -> list[Use]:
    """`winnow run`; what each stage took, and the start and end of the process as stages of their own."""
    winnow = [sys.executable, "-c", "from pipelines.cli.main import main; main()"]
    command = [*winnow, "--verbose", "run", "--config", str(folder / "winnow.yaml")]
    started, uses, said = time.perf_counter(), [], "start"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        processes = Processes(process.pid)
        threading.Thread(target=processes.watch, daemon=True).start()
        assert process.stderr is not None
        cpu = 0.0
        for line in process.stderr:
            print(f"    {line.rstrip()}", flush=True)
            if _STAGE_ENDED.match(line):
                now, used = time.perf_counter(), processes.cpu()
                use = Use(said.partition(": ")[0], now - started, used - cpu, processes.private, processes.resident)
                uses.append(use)
                print(f"    {use.title}: {use.cpu:.1f} CPU s, {use.private / 2**20:,.0f} MiB", flush=True)
                started, cpu, processes.private, processes.resident = now, used, 0, 0
            elif not line.startswith("  "):
                said = line
        processes.stop()
    if process.returncode:
        raise SystemExit(f"the night failed with code {process.returncode}")
    return uses


def usage(store: Path) -> Counter[str]:
    """Folder of the store -> bytes."""
    sizes: Counter[str] = Counter()
    for parent, _, names in os.walk(store):
        parts = Path(parent).relative_to(store).parts
        sizes["/".join(parts[: 2 if parts[:1] == ("records",) else 1]) or "."] += sum(
            Path(parent, name).lstat().st_size for name in names
        )
    return sizes


def predicted(folder: Path, rows: int) -> dict[str, float]:
    """Stage -> seconds of a first run here, as `winnow plan --rows` has it before anything was measured."""
    cores = len(os.sched_getaffinity(0))
    context = open_context(folder / "winnow.yaml", Log(lambda _: None))
    seconds: dict[str, float] = {}
    for stage in Projection(context, rows, cores, None, probe=False).stages():
        title = stage.title.partition(": ")[0]
        seconds[title] = seconds.get(title, 0.0) + stage.waited
    return seconds


def print_nights(nights: list[list[Use]], plan: dict[str, float], rows: int, new: int) -> None:
    """A line for each stage, what was predicted for the first night and both nights beside each other."""
    columns = ("s", "CPU s", "private MiB", "resident MiB")
    print(f"\n{'':28}{'':11} {f'{rows:,} rows':^46} {f'{new:,} more':^46}")
    print(f"{'stage':28}{'predicted s':>11} " + " ".join(f"{name:>11}" for name in columns + columns))
    titles = dict.fromkeys(use.title for night in nights for use in night)
    for title in titles:
        cells = [next((_cells(use) for use in night if use.title == title), " " * 47) for night in nights]
        print(f"{title:28}{plan.get(title, 0.0):11.1f} " + " ".join(cells))
    totals = [
        Use(
            "all",
            sum(use.seconds for use in night),
            sum(use.cpu for use in night),
            max(use.private for use in night),
            max(use.resident for use in night),
        )
        for night in nights
    ]
    print(f"{'all':28}{sum(plan.values()):11.1f} " + " ".join(map(_cells, totals)))


def _cells(use: Use) -> str:
    return f"{use.seconds:11.1f} {use.cpu:11.1f} {use.private / 2**20:11,.0f} {use.resident / 2**20:11,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where to work, on a disk with room; temporary by default")
    options = parser.parse_args()
    rows, new = options.rows, max(options.rows // 100, 1)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, started = Path(name), time.perf_counter()
        project = Project(folder, rows)
        size = sum(path.stat().st_size for path in folder.glob("*/*"))
        print(f"{rows:,} rows made in {time.perf_counter() - started:.0f} s: {size / 1e6:,.0f} MB of files", flush=True)
        plan, nights, disk = predicted(folder, rows), [], []
        for night in range(2):
            if night:
                project.add("night", rows, new)
            nights.append(run_night(folder))
            disk.append(usage(folder / "store"))
        print_nights(nights, plan, rows, new)
        print(f"\n{'MB in the store':28}{'first':>11} {'second':>11}")
        for kind in sorted(disk[1], key=disk[1].__getitem__, reverse=True):
            print(f"{kind:28}{disk[0][kind] / 1e6:11,.1f} {disk[1][kind] / 1e6:11,.1f}")
        print(f"{'all':28}{disk[0].total() / 1e6:11,.1f} {disk[1].total() / 1e6:11,.1f}")


if __name__ == "__main__":
    main()
