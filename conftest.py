"""What holds for every test and doctest."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The processes of a parallel run share the cores: threads that wait for one another there cost several times the work.
# Tests of what threads do set a number of their own.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# Time says nothing here: a first example imports a library or compiles a loop, and machines have other work to do.
settings.register_profile("winnow", deadline=None)
settings.load_profile("winnow")

# What pytest must not import when it looks for doctests: importing it loads a project, as
# tests/pipelines/test_definitions.py does.
collect_ignore = ["pipelines/definitions.py"]

SLOW_S = 30


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that ought to be marked: `make test` is run after every change."""
    reports = [report for report in terminalreporter.stats.get("passed", ()) if "slow" not in report.keywords]
    for report in sorted(reports, key=lambda report: -report.duration):
        if report.duration > SLOW_S:
            terminalreporter.write_line(f"{report.nodeid} took {report.duration:.0f} s: mark it slow or make it faster")
