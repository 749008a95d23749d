"""Processes that load a model each: as many as there are cards, or as the user asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.context import Context
from pipelines.engine.choose import ray_engine
from pipelines.engine.local import LocalEngine
from storage.shards import Map, in_turn


@contextmanager
def engine_for_models(context: Context, *, uses_cards: bool = True) -> Iterator[Map]:
    """Where a model reads texts.

    With CUDA cards each process has one, and there are no more processes than cards. Without, the threads of one
    process do as well as several processes, each of which loads the model: these are started only where `engine:
    {workers}` asks for them. On Ray, each worker of the cluster loads the model.

    Args:
        uses_cards: whether the model runs on a card where there is one.
    """
    if context.engine.kind == "ray":
        with ray_engine(context, uses_cards=uses_cards) as cluster:
            yield cluster.map
        return
    cards, workers = cuda_cards() if uses_cards else [], context.engine.workers
    count = min(workers or len(cards), len(cards)) if cards else workers or 1
    if count == 1:
        yield in_turn
        return
    with LocalEngine(count, cards) as engine:
        yield engine.map


def cuda_cards() -> list[str]:
    """The cards that this process may use, by their names in CUDA_VISIBLE_DEVICES.

    Cost: imports torch.
    """
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]
