from __future__ import annotations

import io
import json
import math
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.files import readers
from storage.files.blocks import Damage
from storage.files.readers import Bad


def read(data: bytes, name: str = "a.jsonl") -> tuple[dict[int, Any], list[Bad], Damage | None]:
    """Records by number, bad ones, and the damage at the end."""
    records: dict[int, Any] = {}
    bad: list[Bad] = []
    try:
        for chunk in readers.read(io.BytesIO(data), name):
            records.update(zip(chunk.lines, chunk.records, strict=True))
            bad += chunk.bad
    except Damage as damage:
        return records, bad, damage
    return records, bad, None


def lines(*values: Any) -> bytes:
    return b"".join(v if isinstance(v, bytes) else json.dumps(v).encode() + b"\n" for v in values)


def test_lines__crlf_blank_lines_and_no_final_newline():
    records, bad, damage = read(b'{"a":1}\r\n\n  \n{"a":2}\n\r\n{"a":3}')
    assert (records, bad, damage) == ({1: {"a": 1}, 4: {"a": 2}, 6: {"a": 3}}, [], None)


def test_line_numbers__hold_over_many_blocks():
    data = b"".join(
        b"{nonsense\n" if i % 997 == 0 else b'{"n": %d, "x": "%s"}\n\n' % (i, b"x" * 300) for i in range(1, 20_000)
    )
    expected, bad_lines = {}, []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.startswith(b'{"n"'):
            expected[number] = json.loads(line)
        elif line:
            bad_lines.append(number)
    records, bad, _ = read(data)
    assert records == expected
    assert [b.line for b in bad] == bad_lines


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_lines__end_at_lf_only(separator: str):
    line = json.dumps({"a": f"x{separator}y"}, ensure_ascii=False).encode()
    records, bad, _ = read(line + b"\n" + b'{"a":"z"}\n')
    # Control characters below U+0020 are escaped by json.dumps, the separators above are not.
    assert (records[1]["a"], records[2]["a"], bad) == (f"x{separator}y", "z", [])


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b'{"a": 1\n', "JSON is cut short"),
        (b'{"a": 1,}\n', "a comma too many in the JSON record"),
        (b'{"a": 1} {"a": 2}\n', "text after the end of the JSON record"),
        (b"<html>\n", "not JSON"),
        (b'{"a": "\xff\xfe"}\n', readers.NOT_UTF8),
        (b'{"a": "\\ud83d"}\n', "a \\u escape is half of a surrogate pair"),
        (b'{"a": NaN}x\n', "not JSON"),
        (b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}\n", "nested deeper than 1,024 levels"),
        (b'{"a": "x\ty"}\n', "a raw control character inside a JSON string"),
        (b"{\n", "a record spread over several lines (JSON Lines has one record a line)"),
        (b"\x00\x00\n", "not JSON"),
    ],
)
def test_a_bad_line__costs_itself_only(line: bytes, cause: str):
    data = lines({"a": 1}, line, {"a": 3})
    records, bad, damage = read(data)
    assert (records, damage) == ({1: {"a": 1}, 3: {"a": 3}}, None)
    assert [(b.line, b.cause) for b in bad] == [(2, cause)]


def test_choices__big_integers_and_repeated_keys():
    records, bad, _ = read(b'{"a": 12345678901234567890123, "b": 18446744073709551615, "c": 1, "c": 2}\n')
    assert records == {1: {"a": 12345678901234567890123, "b": 18446744073709551615, "c": 2}}
    assert bad == []


def test_lines_that_would_join_into_one_record__stay_two_bad_lines():
    records, bad, _ = read(b'{"a": [{"b": 1}\n{"c": 2}]}\n{"x": 1},{"y": 2}\n{"z": 3}\n')
    assert records == {4: {"z": 3}}
    assert [b.line for b in bad] == [1, 2, 3]


def test_a_line_beyond_the_limit__is_dropped_without_filling_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readers, "MAX_RECORD_BYTES", 3 << 20)
    long = json.dumps({"a": "x" * (8 << 20)}).encode() + b"\n"
    for data, name in ((lines({"a": 1}, long, {"a": 3}), "a.jsonl"), (lines({"a": 1}, long.rstrip()), "a.jsonl")):
        records, bad, damage = read(data, name)
        assert (damage, records[1]) == (None, {"a": 1})
        assert [(b.line, b.cause) for b in bad] == [(2, "longer than 3,145,728 bytes")]
        assert len(bad[0].excerpt) <= readers.EXCERPT_CHARS
    _, _, damage = read(b"[" + long + b"," + long + b"]", "a.json")
    assert damage is not None
    assert "larger than 3,145,728 bytes" in damage.cause
    _, _, damage = read(b"a,b\n1,2\n" + long, "a.csv")
    assert damage is not None
    assert (damage.line, damage.cause) == (2, "longer than 3,145,728 bytes")


@pytest.mark.parametrize(("begin", "name"), [(b'{"a": "', "a.jsonl"), (b'[{"a": "', "a.json"), (b'a,b\n1,"', "a.csv")])
def test_a_record_that_never_ends__does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch, begin: bytes, name: str):
    monkeypatch.setattr(readers, "MAX_RECORD_BYTES", 3 << 20)
    file = io.BytesIO(begin + b"x" * (48 << 20))
    tracemalloc.start()
    with suppress(Damage):
        list(readers.read(file, name))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


@given(
    st.lists(st.dictionaries(st.text(), st.text() | st.integers(-9, 9) | st.lists(st.text()), max_size=3), max_size=8),
    st.sampled_from([None, 1, "\t"]),
    st.integers(1, 40),
)
def test_json_array__equals_json_loads_however_it_is_cut(records: list[dict[str, Any]], indent: Any, size: int):
    data = json.dumps(records, indent=indent, ensure_ascii=True).encode()
    blocks = iter([data[i : i + size] for i in range(0, len(data), size)])
    parsed = [json.loads(e) for _, elements in readers._array_elements(blocks) for e in elements]
    assert parsed == records


def test_json_array__a_bad_element_costs_itself_only():
    records, bad, damage = read(b' [{"a":1}, {"a":nope}, {"a":"\\ud83d"}, 7, {"a":"}]"}]\n', "a.json")
    assert (records, damage) == ({1: {"a": 1}, 4: 7, 5: {"a": "}]"}}, None)
    assert [b.line for b in bad] == [2, 3]


@pytest.mark.parametrize(
    ("data", "fatal", "cause"),
    [
        (b'[{"a":1},{"a":2', True, "the JSON array is damaged: cut short"),
        (b'[{"a":1}] [', False, "text after the end of the JSON array"),
        (b'[{"a":1},{"a":"x', True, "the JSON array is damaged: cut short"),
    ],
)
def test_json_array__damage(data: bytes, fatal: bool, cause: str):
    records, _, damage = read(data, "a.json")
    assert records == {1: {"a": 1}}
    assert damage is not None
    assert (damage.fatal, damage.cause, damage.line) == (fatal, cause, 1)


def test_json_name__may_hold_lines():
    assert read(lines({"a": 1}, {"a": 2}), "a.json")[0] == {1: {"a": 1}, 2: {"a": 2}}


def test_csv__quoted_newlines_quotes_and_a_bad_row():
    data = 'id,prompt,response\r\n1,"a\nb ""c""\u2028",d\r\n\r\n2,too few\r\n3,x,y,z\r\n4,"caf\xe9",z\r\n'.encode()
    records, bad, damage = read(data.replace("\xe9".encode(), b"\xe9") + "5,é,z".encode(), "a.csv")
    assert records == {
        2: {"id": "1", "prompt": 'a\nb "c"\u2028', "response": "d"},
        8: {"id": "5", "prompt": "é", "response": "z"},
    }
    assert [(b.line, b.cause) for b in bad] == [
        (5, "fewer values than the header has"),
        (6, "more values than the header has"),
        (7, readers.NOT_UTF8),
    ]
    assert damage is None


def test_csv__a_quote_that_never_closes_is_damage():
    records, _, damage = read(b'a,b\n1,2\n3,"4\n5,6\n', "a.csv")
    assert records == {2: {"a": "1", "b": "2"}}
    assert damage is not None
    assert (damage.fatal, damage.line, damage.cause) == (True, 2, "a quote that opens here is never closed")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv__what_separates_the_values_shows_in_the_header(separator):
    text = f'"a, or b"{separator}c\n1{separator}"x;y, z"\n'
    assert read(text.encode(), "x.csv")[0] == {2: {"a, or b": "1", "c": "x;y, z"}}


def test_csv__a_column_named_twice_is_an_error():
    with pytest.raises(BadInput, match="names a column twice: 'a'"):
        read(b"a,a\n1,2\n", "x.csv")


def test_csv__long_cells_and_tabs():
    long = "x" * 500_000
    assert read(f"a\tb\n1\t{long}\n".encode(), "a.tsv")[0] == {2: {"a": "1", "b": long}}


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=2)
    return sink.getvalue()


TABLE = pa.table({"prompt": ["a", "b", None], "messages": [[{"role": "user", "content": "x"}], None, []]})


def test_parquet__rows_are_numbered_records():
    assert read(parquet(TABLE), "a.parquet")[0] == dict(enumerate(TABLE.to_pylist(), 1))


def test_parquet__text_that_is_not_utf8_costs_its_row():
    bad_text = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"], pa.binary()).buffers())
    records, bad, _ = read(parquet(pa.table({"text": bad_text})), "a.parquet")
    assert records == {1: {"text": "a"}, 2: {"text": readers.Unreadable(readers.NOT_UTF8)}, 3: {"text": "c"}}
    assert bad == []


def test_choices__integers_are_exact_at_any_depth_and_not_finite_numbers_are_values():
    big = 2**70
    records, bad, _ = read(
        f'{{"a": [{{"b": [0.5, -{big}]}}]}}\n{{"a": 1e400, "b": [NaN], "c": {big}}}\n{{"a": 0.5}}\n'.encode()
    )
    assert records[1] == {"a": [{"b": [0.5, -big]}]}
    assert records[2]["a"] == float("inf")
    assert math.isnan(records[2]["b"][0])
    assert records[2]["c"] == big
    assert bad == []


def test_choices__a_bad_line_beside_it_does_not_round_an_integer():
    records, bad, _ = read(f'{{"a": {2**70 + 1}}}\n{{broken\n{{"b": NaN}}\n'.encode())
    assert records[1] == {"a": 2**70 + 1}
    assert [b.line for b in bad] == [2]


def test_parquet__values_that_python_cannot_hold_become_text():
    times = pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns"))
    table = pa.table(
        {
            "at": times,
            "long": pa.array([1, None], pa.duration("ns")),
            "zone": times.cast(pa.timestamp("ns", "Moon/Crater")),
            "year": pa.array([2**62, 0], pa.timestamp("us")),
        }
    )
    records, bad, _ = read(parquet(table), "a.parquet")
    assert records[1]["at"] == "2023-11-14 22:13:20.123456789"
    assert [records[1][name] for name in ("long", "zone")] == ["1", 1_700_000_000_123_456_789]
    assert records[2] == {"at": None, "long": None, "zone": None, "year": "1970-01-01 00:00:00.000000"}
    assert bad == []


def test_parquet__damage():
    data = parquet(TABLE)
    for broken in (data[:-10], b"", b"PAR1" + data[40:], data.replace(b"prompt", b"\xf1rompt")):
        _, _, damage = read(broken, "a.parquet")
        assert damage is not None
        assert damage.fatal
        assert "cannot be read as Parquet" in damage.cause


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow__stream_and_file_and_cut(new: Any):
    sink = io.BytesIO()
    with new(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)
    data = sink.getvalue()
    assert read(data, "data-00000.arrow")[0] == dict(enumerate(TABLE.to_pylist(), 1))
    records, _, damage = read(data[: len(data) // 2], "data-00000.arrow")
    assert damage is not None
    assert damage.line == len(records)


def test_unknown_kinds__list_the_known_ones():
    with pytest.raises(BadInput, match=r"unknown kind of file; known are \.jsonl, \.ndjson"):
        read(b"hello", "notes.txt")
    with pytest.raises(BadInput, match="unknown encoding 'utf-99'"):
        list(readers.read(io.BytesIO(b"{}"), "a.jsonl", "utf-99"))
    for name in ("base64", "idna", "undefined", "punycode", "utf\0-8"):
        with pytest.raises(BadInput, match="unknown encoding"):
            list(readers.read(io.BytesIO(b"a"), "a.jsonl", name))
    with pytest.raises(BadInput, match="unknown encoding 'base64'"):
        list(readers.read(io.BytesIO(b"{}"), "a.jsonl", "base64"))


def test_excerpt__is_short_and_printable():
    assert readers.excerpt(b'{"a": \xff\x00\n}') == '{"a": \ufffd\ufffd }'
    assert len(readers.excerpt("\u0007" * 5000)) == readers.EXCERPT_CHARS
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    assert readers.excerpt({"meta": deep, "b": 1}) == "fields meta, b"
    for _ in range(200):
        deep = [deep]
    assert readers.excerpt(deep) == "list nested too deep to print"


@pytest.mark.parametrize(
    ("name", "extension", "stem"),
    [
        ("/a/web.v2.jsonl.gz", ".jsonl", "web.v2"),
        ("https://x.org/a.csv?download=true", ".csv", "a"),
        ("DATA.JSON.ZST", ".json", "DATA"),
        ("odd name ü.parquet", ".parquet", "odd name ü"),
    ],
)
def test_names(name: str, extension: str, stem: str):
    assert (readers.extension(name), readers.stem(name)) == (extension, stem)


def test_memory__does_not_grow_with_the_file(tmp_path: Path):
    path = tmp_path / "big.jsonl"
    line = json.dumps({"prompt": "x" * 990}).encode() + b"\n"
    peaks = []
    for copies in (10, 60):
        path.write_bytes(line * 1000 * copies)
        tracemalloc.start()
        with path.open("rb") as file:
            assert sum(len(chunk.lines) for chunk in readers.read(file, "big.jsonl")) == 1000 * copies
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2


def test_csv__a_header_that_cannot_be_decoded_is_refused():
    with pytest.raises(BadInput, match=r"a\.csv: the CSV header is not valid UTF-8.*`encoding`"):
        read("prompt,größe\nq,1\n".encode("latin-1"), "a.csv")
    records, _, _ = read("prompt,gr\xf6\xdfe\nq,1\n".encode(), "a.csv")
    assert records == {2: {"prompt": "q", "größe": "1"}}


def test_arrow__an_offset_outside_of_the_file_is_damage():
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 9, 3], np.int32)), pa.py_buffer(b"abc"))
    out = io.BytesIO()
    with pa.ipc.new_file(out, pa.schema({"prompt": pa.string()})) as writer:
        writer.write_batch(pa.record_batch([texts], ["prompt"]))
    _, _, damage = read(out.getvalue(), "a.arrow")
    assert damage is not None
    assert "cannot be read as Arrow" in damage.cause
