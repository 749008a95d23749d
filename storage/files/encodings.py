"""A guess of the encoding of a text file that is not UTF-8."""

from __future__ import annotations

import re
from typing import BinaryIO

from storage.files.blocks import Damage, text_blocks

SAMPLE_BYTES = 1 << 20
# East Asian encodings; each is taken only if the whole sample is valid in it, and in no order of the others.
_EAST_ASIAN = ("shift_jis", "euc_kr", "big5", "gb18030")
_RUN = re.compile(rb"[\x80-\xff]{3,}")


def likely_encodings(file: BinaryIO) -> list[str]:
    r"""Names for `encoding:` that fit the beginning of an open text file, the likeliest first; none if it is UTF-8.

    Western text has single bytes above 127 between ASCII letters; Cyrillic, Greek and East Asian text has runs of them,
    which do not tell their encodings apart, so that several are named.

    >>> from io import BytesIO
    >>> likely_encodings(BytesIO("Grüße aus Köln\n".encode("latin-1")))
    ['cp1252']
    >>> likely_encodings(BytesIO("Grüße".encode()))
    []
    """
    text = _sample(file)
    if _fits(text, "utf-8"):
        return []
    high = sum(byte > 127 for byte in text)
    in_runs = sum(len(run) for run in _RUN.findall(text))
    if in_runs < high / 2:
        return ["cp1252" if _fits(text, "cp1252") else "latin-1"]
    return [name for name in (*_EAST_ASIAN, "cp1251") if _fits(text, name)] or ["latin-1"]


def _sample(file: BinaryIO) -> bytes:
    """Whole lines from the beginning, without compression."""
    file.seek(0)
    sample = b""
    try:
        for block in text_blocks(file, "utf-8"):
            sample += block
            if len(sample) >= SAMPLE_BYTES:
                return sample[: sample.rfind(b"\n") + 1 or len(sample)]
    except Damage:
        pass
    return sample


def _fits(text: bytes, encoding: str) -> bool:
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
