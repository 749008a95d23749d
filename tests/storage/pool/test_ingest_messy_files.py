"""Every broken or awkward kind of file that we know of: its rows are counted, or the error is clear."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput
from storage.pool.ingest import FileSpec, Ingest, check_bad_fraction, ingest_file, parts
from storage.store import Store


def records(count: int, *, prompt: str = "Name a river, number {i}.", **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"r-{i}", "source": "made", "prompt": prompt.format(i=i), "response": f"The river {i}."} | more
        for i in range(1, count + 1)
    ]


def jsonl(rows: list[Any], *, end: str = "\n", ascii_only: bool = True) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows).encode()


def replaced(lines: dict[int, bytes], count: int) -> bytes:
    """Good lines, of which some are replaced by others."""
    good = jsonl(records(count)).splitlines()
    return b"\n".join(lines.get(i, line) for i, line in enumerate(good, 1)) + b"\n"


def varied(count: int) -> list[dict[str, Any]]:
    """Records that do not compress to nothing."""
    return [{"prompt": " ".join(str(i * j * 7919) for j in range(30)), "response": "x"} for i in range(1, count + 1)]


def flipped(data: bytes) -> bytes:
    """A bit of the checksum changed, so that all decodes and nothing can be trusted."""
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


def odd_prompts() -> list[dict[str, Any]]:
    odd = [
        "\u2028",
        "\u2029",
        "\u0085",
        "\u00a0",
        "\u200b",
        "\u202e",
        "\ufeff",
        "\x00",
        "\x07",
        "👩‍👩‍👧",
        "e\u0301",
        "🇩🇪",
    ]
    return [{"prompt": f"left{o}right", "response": "x"} for o in odd]


def csv_rows(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


chat = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]}
two_turns = {"messages": chat["messages"] * 2}
share = {"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}]}
GOOD = jsonl(records(20))
BAD_FIELDS: list[Any] = [
    {"id": "1", "response": "no prompt"},
    {"id": "2", "prompt": "no response"},
    {"prompt": "no id", "response": "x"},
    {},
    {"prompt": None, "response": "x"},
    {"prompt": "null response", "response": None},
    {"id": None, "prompt": "null id", "response": "x"},
    {"prompt": "", "response": "x"},
    {"prompt": " \t ", "response": "x"},
    {"prompt": "empty response", "response": ""},
    {"prompt": 5, "response": "x"},
    {"prompt": "list response", "response": ["x"]},
    {"id": 14, "prompt": "integer id", "response": "x"},
    {"prompt": {"text": "x"}, "response": "x"},
    {"id": "'; DROP TABLE x; --/../..", "prompt": "strange id", "response": "x"},
    {"prompt": "boolean response", "response": True},
    {"PROMPT": "capitals", "response": "x"},
]

# name, content, rows read, readable, with an empty response
COUNTED: list[tuple[str, bytes, int, int, int]] = [
    ("multi_member.jsonl.gz", gzip.compress(GOOD) * 2, 40, 40, 0),
    ("trailing_garbage.jsonl.gz", gzip.compress(GOOD) + b"\x07garbage" * 9, 21, 20, 0),
    ("plain_named_gz.jsonl.gz", GOOD, 20, 20, 0),
    ("gzip_named_jsonl.jsonl", gzip.compress(GOOD), 20, 20, 0),
    ("zero_byte.jsonl", b"", 0, 0, 0),
    ("zero_byte.jsonl.gz", b"", 0, 0, 0),
    ("zero_byte.csv", b"", 0, 0, 0),
    ("zero_byte.json", b"", 0, 0, 0),
    ("empty_member.jsonl.gz", gzip.compress(b""), 0, 0, 0),
    ("blank_lines.jsonl", b"\n\n  \r\n\t\n", 0, 0, 0),
    ("header_only.csv", b"prompt,response\n", 0, 0, 0),
    ("empty_array.json", b" [ ]\n", 0, 0, 0),
    ("invalid_utf8.jsonl", replaced({3: b'{"prompt": "\xff\xfe"}', 18: b'{"prompt": "\xc3"}'}, 20), 20, 18, 0),
    ("latin1.jsonl", jsonl(records(5, prompt="Où est né {i}?"), ascii_only=False).decode().encode("latin-1"), 5, 0, 0),
    ("utf16.jsonl", jsonl(records(5, prompt="河 {i}"), ascii_only=False).decode().encode("utf-16"), 5, 5, 0),
    ("utf8_bom.jsonl", b"\xef\xbb\xbf" + GOOD, 20, 20, 0),
    ("crlf.jsonl", jsonl(records(20), end="\r\n"), 20, 20, 0),
    ("mixed_ends.jsonl", jsonl(records(5)) + b"\n" + jsonl(records(5), end="\r\n") + jsonl(records(1)).strip(), 11, 11, 0),
    ("cut_in_character.jsonl", jsonl(records(5, prompt="河 {i}"), ascii_only=False)[:-70] + b"\xe6\xb2", 5, 4, 0),
    ("odd_unicode.jsonl", jsonl(odd_prompts(), ascii_only=False), 12, 12, 0),
    ("lone_surrogate.jsonl", replaced({4: b'{"prompt": "\\ud83d", "response": "x"}'}, 10), 10, 9, 0),
    (
        "broken_json.jsonl",
        replaced({3: b'{"prompt": "cut', 5: b'{"prompt": "x"', 7: b'{"prompt": "x",}', 9: b'{"a":1} {"b":2}', 11: b"<p>"}, 12),
        12,
        7,
        0,
    ),
    ("json_array.json", json.dumps(records(20)).encode(), 20, 20, 0),
    ("json_array_indented.json.gz", gzip.compress(json.dumps(records(20), indent=2).encode()), 20, 20, 0),
    ("lines_named.json", GOOD, 20, 20, 0),
    ("repeated_key.jsonl", b'{"prompt": "first", "prompt": "second", "response": "x"}\n', 1, 1, 0),
    (
        "numbers.jsonl",
        b"".join(b'{"prompt": "q%d", "response": "x", "n": %s}\n' % (i, n) for i, n in enumerate([b"NaN", b"-Infinity", b"1e400", b"9" * 23])),
        4,
        4,
        0,
    ),
    ("deep.jsonl", replaced({1: b'{"prompt": "x", "m": ' + b"[" * 2000 + b"]" * 2000 + b"}"}, 2), 2, 1, 0),
    ("bad_fields.jsonl", jsonl(BAD_FIELDS + records(10)), 27, 17, 3),
    ("scalars.jsonl", b'"text"\n12\nnull\n[1, 2]\ntrue\n' + jsonl(records(5)), 10, 5, 0),
    ("same_ids.jsonl", jsonl([r | {"id": "same"} for r in records(4)]), 4, 4, 0),
    ("huge_record.jsonl.gz", gzip.compress(jsonl(records(2) + records(1, prompt="a b " * 50_000))), 3, 3, 0),
    ("one_token.jsonl", jsonl(records(1, prompt="x" * 200_000)), 1, 1, 0),
    ("one_character.jsonl", jsonl([{"id": "i", "source": "s", "prompt": "p", "response": "r"}] * 3), 3, 3, 0),
    ("alpaca.jsonl", jsonl([{"instruction": "Add.", "input": "1 and 2", "output": "3"}] * 3), 3, 3, 0),
    ("chat.jsonl", jsonl([chat] * 3), 3, 3, 0),
    (
        "chat_turns.jsonl",
        jsonl(
            [
                two_turns,
                {"messages": two_turns["messages"][:3]},  # ends on the user
                {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
                {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
                {"messages": []},
                {"messages": [chat["messages"][0]] * 3},  # the user three times
                {"messages": [{"role": "bot", "content": "Hello?"}]},
            ]
        ),
        7,
        4,
        3,
    ),
    ("sharegpt.jsonl", jsonl([share] * 3), 3, 3, 0),
    ("nested.jsonl", jsonl([{"id": "1", "data": {"prompt": {"text": "x"}}}] * 3), 3, 0, 0),
    ("mixed.jsonl", jsonl([records(1)[0], {"instruction": "a", "output": "b"}, chat, {"text": "t"}, share]), 5, 5, 0),
    ("labels.jsonl", jsonl([{"text": "t", "label": label} for label in ("a", None, 3, ["a"], " ")] + [{"text": ""}]), 6, 5, 0),
    ("prompts.csv", csv_rows(records(20, prompt='Two\nlines and "quotes", {i}')), 20, 20, 0),
    ("name with spaces & ünïcode.jsonl", GOOD, 20, 20, 0),
]  # fmt: skip


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Ingest]:
    def ingest(name: str, content: bytes, **options: Any) -> Ingest:
        (tmp_path / name).write_bytes(content)
        return ingest_file(Store(tmp_path / "store"), FileSpec(str(tmp_path / name), **options))

    return ingest


@pytest.mark.parametrize(("name", "content", "count", "readable", "empty"), COUNTED, ids=[case[0] for case in COUNTED])
def test_counted__every_row_is_readable_or_quarantined_with_its_line_and_cause(
    read: Callable[..., Ingest], tmp_path: Path, name: str, content: bytes, count: int, readable: int, empty: int
):
    done = read(name, content)
    assert (done.read, done.readable, done.quarantined, done.empty_responses) == (
        count,
        readable,
        count - readable,
        empty,
    )
    store = Store(tmp_path / "store")
    kept = [row for part in parts(store, done.id) for row in pq.read_table(part).to_pylist()]
    dropped = pq.read_table(store.path("quarantine", done.id, "rows.parquet")).to_pylist()
    assert len(kept) == readable
    assert len({row["line"] for row in kept + dropped}) == count
    for row in dropped:
        assert row["cause"]
        assert len(row["excerpt"]) <= 200
        assert row["excerpt"].isprintable()
    if count > readable:
        with pytest.raises(BadInput, match=f"{count - readable} of {count} rows"):
            check_bad_fraction([done], 0.01, store)


@pytest.mark.parametrize("cut", [10, 300, 0.6, -4])
def test_truncated__an_error_with_the_line_or_the_lines_before(read: Callable[..., Ingest], cut: float):
    whole = gzip.compress(jsonl(varied(200)))
    data = whole[: int(cut * len(whole)) if isinstance(cut, float) else cut]
    with pytest.raises(BadInput, match=r"the gzip data is cut short; read as far as line \d+"):
        read("truncated.jsonl.gz", data)
    done = read("truncated.jsonl.gz", data, keep_damaged=True)
    assert (done.quarantined, done.read) == (1, done.readable + 1)
    assert done.readable == {10: 0, -4: 200}.get(cut, done.readable)


def test_bit_flip__an_error_or_what_still_parses(read: Callable[..., Ingest]):
    data = flipped(gzip.compress(jsonl(varied(200))))
    with pytest.raises(BadInput, match="the gzip data is damaged"):
        read("bitflip.jsonl.gz", data)
    done = read("bitflip.jsonl.gz", data, keep_damaged=True)
    assert (done.readable, done.quarantined) == (200, 1)


def test_pretty_printed__says_that_it_is_not_json_lines(read: Callable[..., Ingest], tmp_path: Path):
    done = read("pretty.jsonl", b"".join(json.dumps(r, indent=2).encode() + b"\n" for r in records(30)))
    assert done.readable == 0
    with pytest.raises(BadInput, match="a record spread over several lines"):
        check_bad_fraction([done], 0.5, Store(tmp_path / "store"))


def test_latin1__reads_once_the_encoding_is_stated(read: Callable[..., Ingest]):
    content = jsonl(records(5, prompt="Où est né {i}?"), ascii_only=False).decode().encode("latin-1")
    assert read("latin1.jsonl", content, encoding="latin-1").readable == 5


def test_nested__reads_once_the_fields_are_stated(read: Callable[..., Ingest]):
    content = jsonl([{"data": {"q": {"text": "x"}, "a": "y"}}] * 2)
    assert read("nested.jsonl", content, fields={"prompt": "data.q.text", "response": "data.a"}).readable == 2


def test_odd_unicode__comes_through_unchanged(read: Callable[..., Ingest], tmp_path: Path):
    done = read("odd.jsonl", jsonl(odd_prompts(), ascii_only=False))
    kept = pq.read_table(parts(Store(tmp_path / "store"), done.id)[0])["prompt"].to_pylist()
    assert kept == [record["prompt"] for record in odd_prompts()]
