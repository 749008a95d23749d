"""Options that every command takes, and what the environment says of colours."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

SHARED = ("-q", "--quiet", "-v", "--verbose")
"""Options of `winnow` itself, which may also stand behind a command."""


def shared_first(arguments: Sequence[str]) -> list[str]:
    """A command line with the shared options in front, where the parser wants them.

    >>> shared_first(["run", "maths", "-q"]), shared_first(["sql", "--", "-v"])
    (['-q', 'run', 'maths'], ['sql', '--', '-v'])
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, others = arguments[:end], list(arguments[end:])
    return [each for each in options if each in SHARED] + [each for each in options if each not in SHARED] + others


def color_system() -> Literal["auto"] | None:
    """No colours and no bold where NO_COLOR is set (https://no-color.org); rich itself keeps bold."""
    return None if os.environ.get("NO_COLOR") else "auto"


def plain_help() -> None:
    """Make `--help` do as `color_system` says."""
    if color_system() is None:
        import typer.rich_utils

        typer.rich_utils.COLOR_SYSTEM = None
