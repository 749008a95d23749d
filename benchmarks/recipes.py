"""Single recipes over a large pool, each by a `winnow run` of its own: `python benchmarks/recipes.py [--rows 1000000]`.

Rows and vectors are those of `scale.py`, of 384 dimensions, with 500 targets; they are taken in first. Prints for each
recipe the seconds of its stage by the clock and of the processor, and its most memory: private, and with mapped files.
The stage opens the vectors, compares them with their checksums, and looks for rows that hold what a target asks.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

from scale import Project, run_night

DIMENSION, TARGETS = 384, 500
# Recipe -> its steps, and the part of the rows that it takes.
RECIPES = {
    "random": ("random", 1000),
    "rds_plus": ("rds_plus", 10),
    "k_center": ("k_center", 100),
    "facility_location": ("{facility_location: {mode: reference, n_ref: 2048}}", 1000),
}


def main() -> None:
    """Print a line for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--folder", type=Path, help="where to work, on a disk with room; temporary by default")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {options.rows:,} x {DIMENSION}")
    lines = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        Project(folder, options.rows, DIMENSION, TARGETS)
        config = folder / "winnow.yaml"
        before, _, _ = config.read_text().partition("recipes:")
        for recipe in dict.fromkeys(["random", *options.recipes]):  # the first takes everything in
            steps, part = RECIPES[recipe]
            config.write_text(f"{before}recipes:\n  one: {{steps: [{steps}], budget: {options.rows // part}}}\n")
            (use,) = (use for use in run_night(folder) if use.title == "selection/one")
            mib = f"{use.private / 2**20:12,.0f} {use.resident / 2**20:13,.0f}"
            lines.append(f"{recipe:20}{use.seconds:8.1f} {use.cpu:8.1f} {mib}")
    print(f"\n{'recipe':20}{'s':>8} {'CPU s':>8} {'private MiB':>12} {'resident MiB':>13}", *lines, sep="\n")


if __name__ == "__main__":
    main()
