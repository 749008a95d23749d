"""Processes of this machine that take one shard after the other."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Self

from pipelines import worker
from pipelines.errors import WorkerDied
from storage.shards import R, Report, S

# A process takes half a second to start: less work than this is done sooner without it.
WORTH_BYTES = 64 << 20
# How often a shard is tried whose worker died, perhaps of another shard's work.
TRIES = 3

_POLL_S = 0.2


class LocalEngine:
    """A pool of processes that starts with the first shard; a context manager. Threads may share it.

    Args:
        workers: how many processes, above 0. They share the cores: each counts on its part of them for its own threads.
        cards: the CUDA cards that the processes take turns to have, one each, by their names in CUDA_VISIBLE_DEVICES.

    Memory: 150 MiB a process, and what the work takes.
    """

    def __init__(self, workers: int, cards: Sequence[str] = ()) -> None:
        self.workers, self._cards = workers, cards
        self._spawn = multiprocessing.get_context("spawn")
        self._done, self._begun = self._spawn.Value("q", 0), self._spawn.Value("q", 0)
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            self._ended, pool = True, self._pool
        if pool is None:
            return
        if kind is not None:
            for process in list((pool._processes or {}).values()):  # noqa: SLF001 - a pool cannot stop what runs
                process.kill()
        pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[S, Report], R], shards: Iterable[S], report: Report) -> Iterator[R]:
        """The results in the order of the shards; see `storage.shards.Map`.

        Raises:
            WorkerDied: the processes that worked on a shard were killed, `TRIES` times.
            Exception: what the work raised for the first shard that failed; later shards are not begun.
        """
        waiting: deque[tuple[S, Future[R], ProcessPoolExecutor]] = deque()
        shards = iter(shards)
        try:
            while True:
                while len(waiting) < 2 * self.workers and (shard := next(shards, None)) is not None:
                    waiting.append((shard, *self._submit(work, shard)))
                if not waiting:
                    return
                shard, future, pool = waiting.popleft()
                yield self._result(work, shard, future, pool, report)
        finally:
            for _, future, _ in waiting:
                future.cancel()

    def _submit(self, work: Callable[[S, Report], R], shard: S) -> tuple[Future[R], ProcessPoolExecutor]:
        with self._lock:
            if self._ended:
                raise CancelledError
            pool = self._pool = self._pool or ProcessPoolExecutor(
                self.workers,
                self._spawn,
                initializer=worker.begin,
                initargs=(self._done, self._begun, os.getpid(), self.workers, self._cards),
            )
        try:
            return pool.submit(worker.call, work, shard), pool
        except BrokenProcessPool as error:
            broken: Future[R] = Future()
            broken.set_exception(error)
            return broken, pool

    def _result(
        self, work: Callable[[S, Report], R], shard: S, future: Future[R], pool: ProcessPoolExecutor, report: Report
    ) -> R:
        for number in range(TRIES):
            if number:
                future, pool = self._submit(work, shard)
            try:
                return self._wait(future, report)
            except BrokenProcessPool:
                with self._lock:
                    if self._pool is pool:
                        self._pool = None
        raise WorkerDied(
            f"{shard}: the process that worked on it was killed {TRIES} times, most likely for want of memory. What was "
            "committed stays; run again with more memory, or fewer processes (`engine: {workers: 1}`)"
        )

    def _wait(self, future: Future[R], report: Report) -> R:
        while True:
            try:
                result = future.result(timeout=_POLL_S)
            except TimeoutError:
                if future.done():  # the work itself raised it
                    raise
                self._tell(report)
            else:
                self._tell(report)
                return result

    def _tell(self, report: Report) -> None:
        with self._done.get_lock():
            done, self._done.value = self._done.value, 0
        if done:
            report(done)
