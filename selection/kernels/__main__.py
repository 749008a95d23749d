"""Compile the loops of every step beforehand, so that no first call waits: `python -m selection.kernels`.

Where numba keeps what it compiles: see `compiled.jit.cache_folder`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from selection.checks import make_inputs
from selection.errors import InvalidOption
from selection.pool import Pool
from selection.registry import BUILT_IN, build_step, find_step
from selection.run import select
from selection.step import Filter, Scorer, Step

# Options that lead to loops which the defaults do not need.
OPTIONS: tuple[dict[str, dict[str, Any]], ...] = (
    {"facility_location": {"mode": "exact"}},
    {"facility_location": {"mode": "knn"}},
    {"facility_location": {"mode": "reference", "n_ref": 20}},
    {"facility_location": {"mode": "stochastic"}},
    {"k_center": {"first": "farthest_from_mean"}},
    {"kmeans_pp": {"local_trials": 2}},
    {"probcover": {"classes": 3}},
    {"semdedup": {"rule": "component"}},
)


def steps() -> Iterator[Step]:
    """One of each built-in step that needs no options, and those of OPTIONS."""
    for cls in map(find_step, BUILT_IN):
        with suppress(InvalidOption, TypeError):  # it needs options
            yield cls()
    yield from map(build_step, OPTIONS)


def main() -> int:
    """Run each step on a tiny pool."""
    from selection.metrics import coverage

    started, count = time.perf_counter(), 0
    for step in list(steps()):
        inputs = make_inputs(step)
        inputs["vectors"] = inputs["vectors"].astype(np.float16)
        then = [] if not isinstance(step, Filter | Scorer) else ["random"] if isinstance(step, Filter) else ["top"]
        select([step, *then], Pool(**inputs), budget=5, allow_short=True)
        count += 1
    within = {**make_inputs(build_step("rds_plus")), "columns": {"group": np.arange(len(inputs["vectors"])) % 3}}
    select([{"rds_plus": {"on_full_group": "advance"}}], Pool(**within), budget=3, group_by="group")
    coverage(inputs["vectors"], [0, 1])
    # As in a large pool: estimates, and too little memory for what is kept.
    many = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float16)
    for memory_gb in (1e-4, 1.0):
        options = {"mode": "reference", "n_ref": 300, "memory_gb": memory_gb}
        select([{"facility_location": options}], Pool(vectors=many), budget=50)
    print(f"the loops of {count} steps are compiled ({time.perf_counter() - started:.0f} s)")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
