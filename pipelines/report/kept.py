"""Texts that are slow to make and always the same, kept beside the code; where that may not be written, each process makes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent / "__pycache__"


def kept_text(name: str, make: Callable[[], str]) -> str:
    """The text of a name; made if it is not kept yet.

    Args:
        name: of a file, with all that the text depends on: the versions of what makes it.
    """
    path = FOLDER / name
    if path.exists():
        return path.read_text("utf-8")
    text = make()
    if os.access(FOLDER.parent, os.W_OK):
        FOLDER.mkdir(exist_ok=True)
        beside = path.with_name(f"{name}.{os.getpid()}")
        beside.write_text(text, "utf-8")
        beside.replace(path)
    return text
