"""Progress for a terminal, a file and a log."""

from __future__ import annotations

import io

import pytest

from pipelines import progress
from pipelines.progress import Log, Meter, Terminal, duration


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; tests set it."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_meter__rate_counts_from_the_first_look_and_anew_for_other_work() -> None:
    times = iter([0.0, 10.0, 10.0, 20.0])
    meter = Meter(clock=lambda: next(times))
    assert meter.line("a", 100, 1000, "rows") == "a: 100 of 1,000 rows (10%)"
    assert meter.line("a", 200, 1000, "rows") == "a: 200 of 1,000 rows (20%), 10 rows/s, 1 min 20 s left"
    assert meter.line("b", 0, None, "rows") == "b: 0 rows"
    assert meter.line("b", 5, None, "rows") == "b: 5 rows, 0.5 rows/s"


def test_meter__nothing_to_do_is_no_division_by_zero() -> None:
    assert Meter().line("a", 0, 0, "rows") == "a: 0 of 0 rows"


def test_terminal__draws_one_line_and_clears_it_for_what_is_said(clock: list[float]) -> None:
    stream = Tty()
    terminal = Terminal(stream)
    terminal.progress("embed", 1, 10)
    clock[0] += 0.1
    terminal.progress("embed", 2, 10)  # too soon
    clock[0] += 0.2
    terminal.progress("embed", 3, 10)
    terminal.say("done")
    first, second = "embed: 1 of 10 rows (10%)", "embed: 3 of 10 rows (30%)"
    clear = "\r" + " " * len(first) + "\r"
    assert stream.getvalue() == first + clear + second + clear + "done\n"


def test_terminal__a_file_gets_a_line_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    for done in range(25):
        terminal.progress("embed", done, 25)
        clock[0] += 1
    assert [line.split(" (")[0] for line in stream.getvalue().splitlines()] == [
        "embed: 10 of 25 rows",
        "embed: 20 of 25 rows",
    ]


def test_log__says_at_once_and_reports_now_and_then(clock: list[float]) -> None:
    lines: list[str] = []
    log = Log(lines.append)
    for done in range(15):
        log.progress("embed", done, 15)
        clock[0] += 1
    log.say("done")
    assert [line.split(" (")[0] for line in lines] == ["embed: 10 of 15 rows", "done"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (119.7, "2 min 0 s"), (3599.9, "1 h 0 min"), (3700, "1 h 1 min")],
)
def test_duration__carries_over(seconds: float, text: str) -> None:
    assert duration(seconds) == text
