"""The engine that the configuration names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.context import Context
from pipelines.engine import local
from pipelines.engine.ray import RayEngine
from storage.shards import Map, in_turn

# Work that is given out at the same time to a cluster of which nobody knows the size before it is asked.
AT_ONCE = 32


@contextmanager
def engine_for(context: Context, size: int, *, uses_cards: bool = False) -> Iterator[tuple[Map, int]]:
    """How to map, and how many shards are worked on at the same time.

    Args:
        size: bytes of the work's input; processes of this machine are started only where they are worth it. Ray is asked
            for whatever has a shard.
        uses_cards: whether a worker is faster with a GPU.
    """
    options = context.engine
    if options.kind == "ray":
        with RayEngine(context.store, options, context.report.say, uses_cards=uses_cards) as cluster:
            yield cluster.map, options.workers or AT_ONCE
        return
    workers = options.workers or len(os.sched_getaffinity(0))
    if workers == 1 or size < local.WORTH_BYTES:
        yield in_turn, 1
        return
    with local.LocalEngine(workers) as engine:
        yield engine.map, workers
