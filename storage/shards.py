"""Work on shards: a function that is called for each part of the work, in this process or in others.

A shard and a result are small and picklable: the work reads its input from files and leaves its output in files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

S = TypeVar("S")
R = TypeVar("R")

Report = Callable[[int], object]
"""Called now and then with what was done since the last call, for example a number of rows."""


class Map(Protocol):
    """Calls a function for each shard."""

    def __call__(self, work: Callable[[S, Report], R], shards: Iterable[S], report: Report) -> Iterator[R]:
        """The results, in the order of the shards, whatever the order in which they are made.

        Args:
            work: a function of a module, which can be called again for a shard that it did not finish.
        """


def in_turn(work: Callable[[S, Report], R], shards: Iterable[S], report: Report) -> Iterator[R]:
    """Call the function for each shard in this process."""
    return (work(shard, report) for shard in shards)


def so_far(on_done: Callable[[int, int], object], total: int) -> Report:
    """A report that calls on with what is done so far and of all.

    What a killed worker had done is done twice, so the sum may pass the total; `on_done` gets the total at most.
    """
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done = min(done + more, total)
        on_done(done, total)

    return report
