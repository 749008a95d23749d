"""What the record of a report has for SQL, `changes.parquet`; and how a page of a report is known to be whole."""

from __future__ import annotations

import zlib
from pathlib import Path

import pyarrow as pa

PAGES = "pages"
_SEAL = b"<!-- crc32 "

# A row for each candidate that a recipe added or dropped.
CHANGES_SCHEMA = pa.schema(
    [
        ("recipe", pa.string()),
        ("id", pa.uuid()),
        ("change", pa.string()),
        ("cause", pa.string()),
        ("detail", pa.string()),
    ]
)


def page_damage(page: Path) -> str | None:
    """What is wrong with a page in `pages/`, in words that name it; None if nothing is."""
    if not page.is_file():
        return f"{page} is missing"
    content = page.read_bytes()
    end = content.rfind(_SEAL)
    is_whole = end >= 0 and content[end:] == page_seal(content[:end])
    return None if is_whole else f"{page} is not the page that was written"


def page_seal(content: bytes) -> bytes:
    """The last line of a page: its checksum, as a comment."""
    return _SEAL + b"%08x -->\n" % zlib.crc32(content)
