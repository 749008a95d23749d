from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipelines.conftest import winnow
from tests.torture.commands import Commands, commands
from tests.torture.syscalls import available

__all__ = ["command", "winnow"]


@pytest.fixture(scope="session")
def command() -> Iterator[Commands]:
    """Runs `winnow` commands, of which a system call fails."""
    if not available():
        pytest.skip("this system does not let a process decide about another's system calls")
    with commands() as run:
        yield run
