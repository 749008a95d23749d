"""Time and size of a report: two nights of a pool of made-up rows, the second with some rows gone and some new.

    python benchmarks/report.py --rows 250000

Rows are words drawn at random, vectors are drawn around centres; nothing is downloaded. The time is that of the stage
`report` in the second `winnow run`, as its record has it: gathering, rendering, committing, in a process that imported
none of its packages before. The script of the plots is made once before.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CONFIG = """\
store: ./store
pool: {files: data/*.jsonl, vectors: vectors/pool.npy}
targets:
  asked: {files: targets/asked.jsonl, vectors: vectors/asked.npy, measure: 0.5}
recipes:
  near: {steps: [rds_plus], budget: 5000}
  mixed: {steps: [rds_plus], budget: 2000, quota: {by: source, balance: water_fill}}
  any: {steps: [random], budget: 5000}
"""
CENTRES, DIMENSION, SOURCES, TARGETS = 50, 256, 12, 200
WORDS = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"])


def main() -> None:
    """Make the project, run it twice, print a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        lines = write_project(project, rows)
        run(project)
        # Of the first file a tenth is gone; what is new comes in another.
        (project / "data" / "a.jsonl").write_text("".join(lines[len(lines) // 20 : len(lines) // 2]))
        (project / "data" / "c.jsonl").write_text("".join(lines[-len(lines) // 20 :]))
        run(project)
        records = sorted((project / "store" / "records" / "runs").iterdir())
        last = json.loads((records[-1] / "run.json").read_text("utf-8"))
        assert last["stage"] == "report", last
        changed = {name: last["facts"][name] for name in ("kept", "added", "dropped")}
        print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
        print(f"{'rows':>10} {'seconds':>8} {'MB':>6}  changes")
        print(f"{rows:>10,} {last['seconds']:>8.2f} {last['facts']['size_bytes'] / 1e6:>6.2f}  {changed}")


def write_project(project: Path, rows: int) -> list[str]:
    """Write configuration, rows, targets and vectors; gives the lines of all rows."""
    rng = np.random.default_rng(0)
    for name in ("data", "targets", "vectors"):
        (project / name).mkdir()
    (project / "winnow.yaml").write_text(CONFIG)
    centres = rng.normal(size=(CENTRES, DIMENSION)).astype(np.float32)

    def vectors(count: int, near: int) -> np.ndarray:
        noise = rng.normal(size=(count, DIMENSION)).astype(np.float32)
        return centres[rng.integers(near, size=count)] + 0.8 * noise

    lines = [line(rng, f"row-{number}", number % SOURCES) for number in range(rows)]
    half = len(lines) // 2
    (project / "data" / "a.jsonl").write_text("".join(lines[:half]))
    (project / "data" / "b.jsonl").write_text("".join(lines[half : -len(lines) // 20]))
    targets = [line(rng, f"target-{number}", 0) for number in range(TARGETS)]
    (project / "targets" / "asked.jsonl").write_text("".join(targets))
    for name, ids, near in (("pool", "row", CENTRES), ("asked", "target", 5)):
        count = rows if name == "pool" else TARGETS
        np.save(project / "vectors" / f"{name}.npy", vectors(count, near))
        (project / "vectors" / f"{name}.ids.txt").write_text("".join(f"{ids}-{i}\n" for i in range(count)))
    return lines


def line(rng: np.random.Generator, name: str, source: int) -> str:
    """A row of 20 to 200 made-up words."""
    words = WORDS[rng.integers(len(WORDS), size=int(rng.integers(20, 200)))].tolist()
    half = len(words) // 2
    row = {
        "id": name,
        "source": f"source-{source}",
        "prompt": " ".join([name, *words[:half]]),
        "response": " ".join(words[half:]),
    }
    return json.dumps(row) + "\n"


def run(project: Path) -> None:
    """`winnow run`."""
    from pipelines.report.page import vega

    vega()
    subprocess.run([sys.executable, "-m", "pipelines", "run"], cwd=project, check=True, capture_output=True)


if __name__ == "__main__":
    main()
