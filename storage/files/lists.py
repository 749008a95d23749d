"""Lists that users write: a text file with one name a line, from any editor."""

from __future__ import annotations

import io
from pathlib import Path

from storage.errors import BadInput
from storage.files.blocks import Damage, text_blocks
from storage.files.user_files import check_is_file


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without white space around them.

    Raises:
        BadInput: the file is missing, no file such as a pipe, or no text.
    """
    check_is_file(path)
    try:
        return lines_of(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as a list of ids: {error}") from error


def lines_of(data: bytes) -> list[str]:
    r"""The lines of a text, without white space around them: UTF-8 with or without a byte-order mark, or UTF-16 or UTF-32
    with one; lines end with LF, CR LF or CR.

    Raises:
        ValueError: it is no such text.

    >>> lines_of("\ufeffa\r\n b \n".encode("utf-16-le"))
    ['a', 'b']
    """
    try:
        text = b"".join(text_blocks(io.BytesIO(data), "utf-8")).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8, and has no mark of another encoding: {error}") from None
    except Damage as damage:
        raise ValueError(damage.cause) from None
    if "\0" in text:
        raise ValueError("it holds NUL characters: UTF-16 needs a byte-order mark")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.strip() for line in lines[: len(lines) - (not lines[-1].strip())]]
