"""What a process of `engine.local` does: it begins, and calls the work for one shard after the other.

A module of its own that imports next to nothing: a process imports what its work needs, and no configuration.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.shards import R, Report, S

_done: Any = None

# What the libraries read, when they are imported, that have threads of their own.
_THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


def begin(done: Any, begun: Any, parent: int, workers: int, cards: Sequence[str]) -> None:
    global _done  # noqa: PLW0603
    _done = done
    with begun.get_lock():
        number, begun.value = begun.value, begun.value + 1
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    for name in _THREADS:
        os.environ.setdefault(name, str(threads))
    if cards:
        os.environ["CUDA_VISIBLE_DEVICES"] = cards[number % len(cards)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent was killed; it would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def call(work: Callable[[S, Report], R], shard: S) -> R:
    return work(shard, _report)


def _report(done: int) -> None:
    with _done.get_lock():
        _done.value += done
