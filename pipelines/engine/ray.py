"""Actors of a Ray cluster that take one shard after the other.

An actor is a process that Ray starts where the cluster has room. It takes shards once it has compared itself with this
process (`handshake`); a thread for each waits for it here. What it gives back is small, all else is in the store.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from queue import Empty, PriorityQueue
from textwrap import shorten
from typing import Any, Self

from pipelines.engine.handshake import Handshake, handshake
from pipelines.engine.local import TRIES
from pipelines.errors import EngineRefused, WorkerDied
from pipelines.messages import counted
from storage.shards import R, Report, S
from storage.store import Store

# After so long without a worker, a user is told why nothing happens.
PATIENCE_S = 30.0

_POLL_S, _CONNECT_S = 0.5, 10.0
# What Ray reserves for results where it is started by us: they are small.
_OBJECT_STORE_BYTES = 100 << 20
# What of Ray's account of a death is shown.
_MAX_CHARS = 250


@dataclass(order=True)
class _Job:
    """A shard on its way to a worker.

    Attributes:
        number: its turn.
        call: the work and the shard; None tells the thread that takes it to end.
        done: what its workers reported, the most of any try.
        reported: what of it the caller knows.
        tries: how many workers died of it.
    """

    number: int
    call: tuple[Callable[[Any, Report], Any], Any] | None = field(compare=False)
    result: Future[Any] = field(compare=False, default_factory=Future)
    done: int = field(compare=False, default=0)
    reported: int = field(compare=False, default=0)
    tries: int = field(compare=False, default=0)

    def tell(self, report: Report) -> None:
        """Report what was done since the last call."""
        more = self.done - self.reported
        self.reported += more
        if more:
            report(more)

    def fail(self, error: Exception) -> None:
        """End it with an error, unless its caller gave it up."""
        if self.result.running() or self.result.set_running_or_notify_cancel():
            self.result.set_exception(error)


class RayEngine:
    """Workers of a Ray cluster, which is asked for them with the first shard; a context manager. Threads may share it.

    Args:
        store: what all machines of the cluster see under the same path.
        address: of the cluster, as Ray takes it; None starts Ray on this machine.
        workers: how many; None for one for each core, or for each card where workers have one.
        cards: GPUs of a worker, also a share of one; None for one if the cluster has any.
        say: gets a line for the user.

    Memory: a thread for each worker in this process.
    """

    def __init__(
        self,
        store: Store,
        *,
        address: str | None = None,
        workers: int | None = None,
        cards: float | None = 0,
        say: Callable[[str], object] = str,
    ) -> None:
        self._store, self._address, self._workers, self._cards, self._say = store, address, workers, cards, say
        self._lock = threading.Lock()
        self._held = ExitStack()
        self._jobs: PriorityQueue[_Job] = PriorityQueue()
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._actors: set[Any] = set()
        self._error: Exception | None = None
        self._speaks_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(CancelledError())
        for thread in self._threads:
            thread.join()
        self._held.close()

    def map(self, work: Callable[[S, Report], R], shards: Iterable[S], report: Report) -> Iterator[R]:
        """The results in the order of the shards; see `storage.shards.Map`.

        Raises:
            EngineRefused: there is no such cluster, or a machine of it has another store or other code.
            WorkerDied: the workers that worked on a shard died, `TRIES` times, or there was no memory for it.
            Exception: what the work raised for the first shard that failed; later shards are not begun.
        """
        waiting: deque[_Job] = deque()
        shards = iter(shards)
        try:
            while True:
                while len(waiting) < max(1, 2 * len(self._threads)) and (shard := next(shards, None)) is not None:
                    waiting.append(self._submit(work, shard))
                if not waiting:
                    return
                yield self._result(waiting, report)
        finally:
            for job in waiting:
                job.result.cancel()

    def _submit(self, work: Callable[[S, Report], R], shard: S) -> _Job:
        with self._lock:
            if self._error is not None:
                raise self._error
            if not self._threads:
                self._start()
            job = _Job(next(self._numbers), (work, shard))
            self._jobs.put(job)
            return job

    def _result(self, waiting: deque[_Job], report: Report) -> Any:
        first = waiting[0]
        ended = False
        while not ended:
            ended = bool(wait([first.result], timeout=_POLL_S).done)
            for job in waiting:
                job.tell(report)
            if self._speaks_at is not None and time.monotonic() > self._speaks_at:
                self._speaks_at = None
                self._say("waiting for a worker: the Ray cluster has no room just now")
        return waiting.popleft().result.result()

    # ---- the cluster

    def _start(self) -> None:
        """Connect, and start a thread for each worker."""
        ray = _imported()
        if not ray.is_initialized():
            _connect(ray, self._address, self._workers)
            self._held.callback(ray.shutdown)
        total = ray.cluster_resources()
        all_cores, all_cards = total.get("CPU", 0), total.get("GPU", 0)
        cards = min(1, all_cards) if self._cards is None else self._cards
        if all_cores < 1 or all_cards < cards:
            wanted = "1 core" + (f" and {cards:g} cards" if cards else "")
            raise EngineRefused(
                f"engine: a worker needs {wanted}; the Ray cluster has {all_cores:g} cores and {all_cards:g} cards in all"
            )
        workers = self._workers or int(all_cards / cards if cards else all_cores)
        asked = self._held.enter_context(handshake(self._store))
        actor_class = ray.remote(num_cpus=1, num_gpus=cards, max_concurrency=2, scheduling_strategy="SPREAD")(_Worker)
        self._say(f"Ray: {counted(workers, 'worker')} on a cluster of {all_cores:g} cores and {all_cards:g} cards")
        self._speaks_at = time.monotonic() + PATIENCE_S
        for _ in range(workers):
            thread = threading.Thread(target=self._serve, args=(ray, actor_class, asked), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _end(self, error: Exception) -> None:
        """Stop all workers; whatever waits for them gets the error."""
        with self._lock:
            self._error = self._error or error
            for actor in self._actors:
                _kill(actor)
            with suppress(Empty):
                while True:
                    self._jobs.get_nowait().fail(self._error)
            for _ in self._threads:
                self._jobs.put(_Job(-1, None))

    # ---- the thread of a worker

    def _serve(self, ray: Any, actor_class: Any, asked: Handshake) -> None:
        """Give shards to a worker, and to another once that is dead, until the engine ends."""
        try:
            while (worker := self._hired(ray, actor_class, asked)) is not None:
                while self._works_on(ray, *worker):
                    pass
        except Exception as error:  # noqa: BLE001 - it goes to the callers of `map`
            self._end(error)

    def _hired(self, ray: Any, actor_class: Any, asked: Handshake) -> tuple[Any, str] | None:
        """A worker that has passed the handshake, and where it is; None once the engine has ended."""
        for _ in range(TRIES):
            with self._lock:
                if self._error is not None:
                    return None
                actor = actor_class.remote()
                self._actors.add(actor)
            try:
                machine, name = ray.get(actor.answer.remote(asked))
            except ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            except ray.exceptions.RayError as error:
                reason = _reason(error)
                self._drop(actor)
            else:
                asked.check(name, machine)
                self._speaks_at = None
                return actor, machine
        raise EngineRefused(
            "no worker could be started on the Ray cluster: winnow-pool[ray] has to be installed on every machine of it, in "
            f"this version, and found by the Python that runs Ray. Ray says: {reason}"
        )

    def _works_on(self, ray: Any, actor: Any, machine: str) -> bool:
        """Wait for a shard and have a worker do it; False when the worker is gone or the engine ends."""
        job = self._jobs.get()
        if job.call is None:
            return False
        if not job.result.running() and not job.result.set_running_or_notify_cancel():
            return True
        try:
            job.result.set_result(_called(ray, actor, job))
        except ray.exceptions.RayTaskError as error:
            cause = _cause(error)
            out_of_memory = isinstance(cause, MemoryError)
            job.result.set_exception(_no_memory(job, f"ran out of memory on {machine}", "") if out_of_memory else cause)
        except ray.exceptions.RayError as error:
            self._drop(actor)
            self._try_again(job, machine, error)
            return False
        return True

    def _try_again(self, job: _Job, machine: str, error: Exception) -> None:
        job.tries += 1
        with self._lock:
            if self._error is not None:
                job.fail(self._error)
            elif job.tries < TRIES:
                self._jobs.put(job)
            else:
                died = f"the workers that worked on it died {TRIES} times, the last on {machine}"
                job.fail(_no_memory(job, died, f" Ray says: {_reason(error)}"))

    def _drop(self, actor: Any) -> None:
        with self._lock:
            self._actors.discard(actor)
        _kill(actor)


def _imported() -> Any:
    # The default of later versions; without it Ray warns that it hides cards from workers that asked for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    try:
        import ray
    except ImportError:
        raise EngineRefused(
            "engine: `kind: ray` needs Ray, which is not installed; `pip install 'winnow-pool[ray]'`, or leave `kind` out"
        ) from None
    return ray


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    """Join the cluster, or start one on this machine; nothing of it is shown to the user.

    Raises:
        EngineRefused: there is none, or of another version.
    """
    where: dict[str, Any] = {"address": address}
    if address is None:
        where = {
            "address": "local",
            "num_cpus": workers or len(os.sched_getaffinity(0)),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address not in (None, "auto"):
            host, _, port = str(address).rpartition(":")
            socket.create_connection((host, int(port)), _CONNECT_S).close()  # Ray itself would try for minutes
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        place = f"at {address}" if address else "on this machine"
        token = "; one that wants a token needs RAY_AUTH_MODE=token here too" if address else ""
        raise EngineRefused(f"engine: no Ray cluster {place}: {_first_line(str(error))}{token}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray puts its own there
    with suppress(AttributeError):  # no option keeps it from writing a death, which we report, to the standard output
        ray._private.worker.print_to_stdstream = lambda *_, **__: None  # noqa: SLF001


def _called(ray: Any, actor: Any, job: _Job) -> Any:
    assert job.call is not None
    result = actor.call.remote(*job.call)
    while not ray.wait([result], timeout=_POLL_S)[0]:
        job.done = max(job.done, ray.get(actor.progress.remote()))
    value, done = ray.get(result)
    job.done = max(job.done, done)
    return value


def _kill(actor: Any) -> None:
    import ray

    with suppress(Exception):  # dead already, or the cluster is
        ray.kill(actor)


def _cause(error: Any) -> Exception:
    """What the work raised; what cannot be sent is shown as Ray shows it."""
    cause = error.cause
    if isinstance(cause, Exception):
        cause.__cause__ = error
        return cause
    return RuntimeError(str(error))


def _no_memory(job: _Job, what: str, says: str) -> WorkerDied:
    assert job.call is not None
    return WorkerDied(
        f"{job.call[1]}: {what}, most likely for want of memory. What was committed stays; run again with more memory, or "
        f"fewer workers on a machine.{says}"
    )


def _reason(error: Exception) -> str:
    """Why Ray says that an actor is dead, in short: the cause of a death, or the error that an import ended in."""
    text = str(error).strip()
    cause = text.partition("The actor is dead because ")[2] or text.rpartition("\n")[2]
    return shorten(cause, _MAX_CHARS, placeholder=" ...")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


# ---- in the workers


class _Worker:
    """The actor; `progress` answers while `call` works."""

    def __init__(self) -> None:
        self._done = 0

    def answer(self, asked: Handshake) -> tuple[str, str]:
        """Compare this process with the one that asks; gives where it is, and what it wrote into the store."""
        import ray

        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        machine = f"the Ray worker on {socket.gethostname()} ({address})"
        return machine, asked.answer(machine)

    def call(self, work: Callable[[Any, Report], Any], shard: Any) -> tuple[Any, int]:
        """The result of the work on a shard, and what it reported in all."""
        self._done = 0
        return work(shard, self._report), self._done

    def progress(self) -> int:
        """What the present call has reported."""
        return self._done

    def _report(self, done: int) -> None:
        self._done += done
