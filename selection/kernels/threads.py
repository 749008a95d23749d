"""Compiled loops on several threads. They release the interpreter's lock, so ordinary threads do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from selection.kernels.compiled.jit import thread_count


class Threads:
    """As many threads as `numba.get_num_threads()` says; they end with this object."""

    def __init__(self) -> None:
        self.count = thread_count()
        self.pool = ThreadPoolExecutor(self.count) if self.count > 1 else None

    def run(self, task: Callable[[int, int], object], count: int, block: int) -> None:
        """Call task(start, stop) for each `block` of 0 .. count-1, in any order; raises what a task raises."""
        starts = iter(range(0, count, block))

        def work() -> None:
            for start in starts:  # each thread takes the next
                task(start, min(start + block, count))

        if self.pool is None or count <= block:
            work()
            return
        for done in [self.pool.submit(work) for _ in range(min(self.count, -(-count // block)))]:
            done.result()
