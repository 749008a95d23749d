"""Progress reports of a running stage: one protocol, for the terminal and for Dagster's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from pipelines.terminal import printable

# A log line every so often is enough; a terminal line is redrawn more often.
LOG_EVERY_S = 10.0
REDRAW_EVERY_S = 0.2


class Reporter(Protocol):
    """Receiver of a stage's messages and progress."""

    def say(self, line: str) -> None:
        """Report a finished line."""
        ...

    def detail(self, line: str) -> None:
        """Report a line for who wants to know more."""
        ...

    def progress(self, task: str, done: int, total: int | None, unit: str = "rows") -> None:
        """Report how much of a task is done; `total` is None where it is not known. Call it as often as convenient."""
        ...


class Meter:
    """Rate and remaining time of a task.

    >>> meter = Meter(clock=iter([0.0, 2.0]).__next__)
    >>> meter.line("embed", 50, 200, "rows")
    'embed: 50 of 200 rows (25%)'
    >>> meter.line("embed", 100, 200, "rows")
    'embed: 100 of 200 rows (50%), 25 rows/s, 4 s left'
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._task: str | None = None
        self._started = 0.0
        self._first = 0

    def line(self, task: str, done: int, total: int | None, unit: str) -> str:
        """Describe the progress; a new `task` starts a new measurement."""
        now = self._clock()
        if task != self._task:
            self._task, self._started, self._first = task, now, done
        text = f"{task}: {done:,} {unit}" if total is None else f"{task}: {done:,} of {total:,} {unit}"
        if total:
            text += f" ({done / total:.0%})"
        elapsed, gained = now - self._started, done - self._first
        if elapsed < 1 or gained <= 0:
            return text
        rate = gained / elapsed
        text += f", {rate:,.0f} {unit}/s" if rate >= 10 else f", {rate:.1f} {unit}/s"
        return text if total is None else text + f", {duration((total - done) / rate)} left"


class Terminal:
    """Progress on a terminal: one line, redrawn; plain lines where the stream is a file.

    Args:
        quiet: show nothing but warnings.
        verbose: show details too.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False, verbose: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet, self._verbose = quiet, verbose
        self._meter = Meter()
        self._live = self._stream.isatty()
        # A redrawn line appears at once; where lines stay, short work needs none.
        self._drawn_at = 0.0 if self._live else time.monotonic()
        self._width = 0

    def say(self, line: str) -> None:
        """Print a line above the progress line."""
        if self._quiet and not line.startswith("warning: "):
            return
        self._clear()
        print(printable(line), file=self._stream, flush=True)

    def detail(self, line: str) -> None:
        """Print a line, indented, where details are wanted."""
        if self._verbose:
            self.say(f"  {line}")

    def progress(self, task: str, done: int, total: int | None, unit: str = "rows") -> None:
        """Redraw the progress line, or log one now and then where nothing can be redrawn."""
        if self._quiet:
            return
        line = printable(self._meter.line(task, done, total, unit))
        now = time.monotonic()
        if now - self._drawn_at < (REDRAW_EVERY_S if self._live else LOG_EVERY_S):
            return
        self._drawn_at = now
        if not self._live:
            print(line, file=self._stream, flush=True)
            return
        self._clear()
        self._stream.write(line)
        self._stream.flush()
        self._width = len(line)

    def _clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


class Log:
    """Progress as lines for a function such as a Dagster logger's `info`."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._meter = Meter()
        self._written_at = time.monotonic()

    def say(self, line: str) -> None:
        """Write a line."""
        self._write(printable(line))

    def detail(self, line: str) -> None:
        """Write nothing: Dagster shows times and checks itself."""

    def progress(self, task: str, done: int, total: int | None, unit: str = "rows") -> None:
        """Write a line every few seconds."""
        line = self._meter.line(task, done, total, unit)
        if time.monotonic() - self._written_at >= LOG_EVERY_S:
            self._written_at = time.monotonic()
            self._write(line)


def duration(seconds: float) -> str:
    """Format a number of seconds.

    >>> duration(4.2), duration(75), duration(7300)
    ('4 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
