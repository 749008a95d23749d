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
def engine_for(context: Context, size: int) -> Iterator[tuple[Map, int]]:
    """How to map, and how many shards are worked on at the same time.

    Args:
        size: bytes of the work's input; processes of this machine are started only where they are worth it. Ray is
            asked for whatever has a shard.
    """
    options = context.engine
    if options.kind == "ray":
        with ray_engine(context) as cluster:
            yield cluster.map, options.workers or AT_ONCE
        return
    workers = options.workers or len(os.sched_getaffinity(0))
    if workers == 1 or size < local.WORTH_BYTES:
        yield in_turn, 1
        return
    with local.LocalEngine(workers) as engine:
        yield engine.map, workers


def ray_engine(context: Context, *, uses_cards: bool = False) -> RayEngine:
    """The Ray cluster that the configuration names.

    Args:
        uses_cards: whether workers get the cards that it names.
    """
    options = context.engine
    return RayEngine(
        context.store,
        address=options.address,
        workers=options.workers,
        cards=options.gpus_per_worker if uses_cards else 0,
        say=context.report.say,
    )
