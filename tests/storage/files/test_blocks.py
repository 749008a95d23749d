from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import pytest
import zstandard

from storage.files.blocks import Damage, text_blocks

TEXT = "".join(f"line {i}: Grüße, {i * i}\n" for i in range(40_000))
PLAIN = TEXT.encode()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def read(data: bytes, encoding: str = "utf-8") -> tuple[bytes, Damage | None]:
    """What comes out, and the damage at its end."""
    out = []
    try:
        out.extend(text_blocks(io.BytesIO(data), encoding))
    except Damage as damage:
        return b"".join(out), damage
    return b"".join(out), None


def test_utf_16_without_a_mark__says_what_to_write():
    with pytest.raises(Damage, match="without a byte-order mark say utf-16-le or utf-16-be"):
        list(text_blocks(io.BytesIO(TEXT.encode("utf-16-le")), "utf-16"))
    assert b"".join(text_blocks(io.BytesIO(TEXT.encode("utf-16-le")), "utf-16-le")).decode() == TEXT


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        gzip.compress(PLAIN),
        gzip.compress(PLAIN[:1000]) + gzip.compress(b"") + gzip.compress(PLAIN[1000:]),
        gzip.compress(PLAIN) + bytes(3000),
        zstd(PLAIN),
        zstd(PLAIN[:1000]) + zstd(PLAIN[1000:]),
        b"\xef\xbb\xbf" + PLAIN,
        *(TEXT.encode(encoding) for encoding in ("utf-8-sig", "utf-16", "utf-32")),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        gzip.compress(TEXT.encode("utf-16")),
    ],
    ids=["plain", "gzip", "members", "padded", "zstd", "frames", "bom", "utf-8", "utf-16", "utf-32", "be", "gz-utf-16"],
)
def test_text__whatever_the_compression_and_encoding(data: bytes):
    assert read(data) == (PLAIN, None)


def test_a_stated_encoding__decodes_and_a_mark_wins_over_it():
    assert read("é".encode("latin-1"), "latin-1") == ("é".encode(), None)
    assert read("é".encode("utf-8-sig"), "latin-1") == ("é".encode(), None)


def test_what_a_stated_encoding_lacks__spoils_its_line_only():
    out, damage = read(b"good\nb\x81d\ngood\n", "cp1252")
    assert damage is None
    assert [line.isascii() for line in out.split(b"\n")] == [True, False, True, True]


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0), b"\xef\xbb\xbf", zstd(b"")])
def test_nothing__is_nothing(data: bytes):
    assert read(data) == (b"", None)


@pytest.mark.parametrize(("compress", "name"), [(gzip.compress, "gzip"), (zstd, "zstd")])
def test_cut_short__gives_what_came_before(compress: Callable[[bytes], bytes], name: str):
    whole = compress(PLAIN)
    out, damage = read(whole[: len(whole) * 6 // 10])
    assert PLAIN.startswith(out)
    assert damage is not None
    assert (damage.fatal, damage.cause) == (True, f"the {name} data is cut short")
    assert name == "zstd" or len(out) > len(PLAIN) // 2


def test_wrong_checksum__gives_all_and_says_so():
    data = bytearray(gzip.compress(PLAIN))
    data[-5] ^= 0xFF  # the last byte of the length is at -1, of the checksum at -5
    out, damage = read(bytes(data))
    assert out == PLAIN
    assert damage is not None
    assert damage.fatal
    assert "incorrect data check" in damage.cause


def test_corrupt_in_the_middle__gives_what_came_before():
    data = bytearray(gzip.compress(PLAIN))
    data[len(data) // 2 : len(data) // 2 + 400] = b"\xff" * 400
    out, damage = read(bytes(data))
    assert damage is not None
    assert damage.fatal
    assert len(PLAIN) * 4 // 10 < len(out) < len(PLAIN)
    assert out[: len(PLAIN) * 4 // 10] == PLAIN[: len(PLAIN) * 4 // 10]


def test_junk_behind_a_complete_member__is_not_fatal():
    out, damage = read(gzip.compress(PLAIN) + b"junk")
    assert out == PLAIN
    assert damage is not None
    assert not damage.fatal


def test_blocks__stay_small_when_a_small_file_unpacks_a_thousandfold():
    data = gzip.compress(bytes(64 << 20))
    assert len(data) < 100_000
    largest = max(len(block) for block in text_blocks(io.BytesIO(data), "utf-8"))
    assert largest < 32 << 20
