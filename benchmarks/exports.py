"""How fast a selection is exported, and with how much memory: `python benchmarks/exports.py [--rows N]`.

A pool of made-up chats of one to three rounds, a tenth of them with tools; half of its rows, and a twentieth, are
exported in some shapes. Each export runs in a process of its own; the peak of memory is the process's.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

FILES = 4
WORDS = [f"word{number}" for number in range(5000)]
CASES = [("few", "messages"), ("many", "messages"), ("many", "alpaca"), ("many", "ids"), ("many", "hf")]

EXPORT = """
import resource, sys, time
from pathlib import Path
from pipelines.context import open_context
from pipelines.exports.export import export_selection
from pipelines.exports.options import ExportOptions
from pipelines.progress import Log
folder, recipe, shape = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
context = open_context(folder, Log(lambda line: None))
start = time.monotonic()
report = export_selection(context, recipe, ExportOptions(to=shape, shuffle=1), folder / "out")
seconds = time.monotonic() - start
print(report.rows, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def make_pool(folder: Path, rows: int) -> None:
    """Chats, and two recipes that take some of them."""
    draw = random.Random(0)
    (folder / "data").mkdir()
    for number in range(FILES):
        with (folder / "data" / f"{number}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(rows // FILES):
                texts = [
                    " ".join(draw.choices(WORDS, k=draw.randint(20, 80))) for _ in range(draw.choice([2, 2, 4, 6]))
                ]
                turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
                tools = {"tools": [{"type": "function", "function": {"name": "f"}}]} if draw.random() < 0.1 else {}
                file.write(json.dumps({"messages": turns, "license": draw.choice(["MIT", "CC0"])} | tools) + "\n")
    recipes = "".join(
        f"  {name}: {{steps: [random], budget: {rows // share}}}\n" for name, share in (("few", 20), ("many", 2))
    )
    (folder / "winnow.yaml").write_text(f"pool: {{files: data/*.jsonl}}\nrecipes:\n{recipes}")


def main() -> None:
    """Print a line for each export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000, help="of the pool")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pool(folder, rows)
        subprocess.run([sys.executable, "-m", "pipelines", "run", "-c", name], check=True, capture_output=True)
        print(f"{'shape':10} {'rows':>9} {'seconds':>8} {'rows/s':>8} {'peak MB':>8}")
        for recipe, shape in CASES:
            run = subprocess.run(
                [sys.executable, "-c", EXPORT, name, recipe, shape], check=True, capture_output=True, text=True
            )
            count, seconds, peak = map(float, run.stdout.split())
            print(f"{shape:10} {count:9,.0f} {seconds:8.1f} {count / seconds:8,.0f} {peak:8,.0f}")


if __name__ == "__main__":
    main()
