from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage.errors import BadInput, NotInStore
from storage.files.readers import Chunk
from storage.ids import from_arrow
from storage.pool import ingest
from storage.pool.content import identity, turns_from_columns
from storage.pool.ingest import FileSpec, check_bad_fraction, ingest_file, ingest_id, parts, read_ingest
from storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def write(path: Path, *records: Any) -> Path:
    text = "".join(r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    path.write_text(text, "utf-8", newline="")
    return path


def rows(store: Store, ingest_id: str) -> list[dict[str, Any]]:
    return [row for part in parts(store, ingest_id) for row in pq.read_table(part).to_pylist()]


def quarantine(store: Store, ingest_id: str) -> list[dict[str, Any]]:
    return pq.read_table(store.path("quarantine", ingest_id, "rows.parquet")).to_pylist()


def test_ingest__every_row_is_accounted_for(store: Store, tmp_path: Path):
    path = write(
        tmp_path / "pool.jsonl",
        {"id": 7, "source": "s", "prompt": " a\r\n", "response": "b", "score": 0.5, "tags": ["x", {"y": None}]},
        "\n",
        "{broken\n",
        {"prompt": "p"},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
        {"text": "t", "label": None},
        {"prompt": ""},
    )
    counted: list[int] = []
    done = ingest_file(store, FileSpec(str(path)), on_rows=counted.append)
    assert (done.read, done.readable, done.quarantined, done.empty_responses) == (6, 4, 2, 2)
    assert sum(counted) == 6
    assert done.shapes == {"prompt_response": 2, "messages": 1, "text": 1}
    assert done.extra_columns == {"label": "null", "score": "number", "tags": "json"}
    common = {"ingest": done.id, "file": str(path)}
    base = {
        "messages": None,
        "content_json": None,
        "source": "pool",
        "given_id": None,
        "extra": None,
        "empty_response": False,
    }
    turns = [("system", "s"), ("user", "q")]
    expected = [
        base
        | {"prompt": "a", "response": "b", "source": "s", "given_id": "7", "line": 1}
        | {"extra": '{"score":0.5,"tags":["x",{"y":null}]}'},
        base | {"prompt": "p", "response": "", "empty_response": True, "line": 4},
        base
        | {
            "prompt": "q",
            "response": "",
            "empty_response": True,
            "line": 5,
            "messages": json.dumps(turns, separators=(",", ":")),
        },
        base | {"prompt": "t", "response": None, "line": 6, "extra": '{"label":null}'},
    ]
    result = rows(store, done.id)
    assert [{k: v for k, v in row.items() if k != "id"} for row in result] == [row | common for row in expected]
    for row in result:
        assert row["id"].bytes == identity(turns_from_columns(row["prompt"], row["response"], row["messages"]))
    assert quarantine(store, done.id) == [
        common | {"line": 3, "cause": "not JSON", "excerpt": "{broken"},
        common | {"line": 7, "cause": "prompt is empty", "excerpt": '{"prompt":""}'},
    ]
    assert read_ingest(store, done.id) == ingest.replace(done, new=False)


def test_ingest__schemas_hold_with_no_rows(store: Store, tmp_path: Path):
    done = ingest_file(store, FileSpec(str(write(tmp_path / "empty.jsonl"))))
    assert (done.read, done.quarantined) == (0, 0)
    assert pq.read_schema(parts(store, done.id)[0]).equals(ingest.POOL_SCHEMA)
    assert pq.read_schema(store.path("quarantine", done.id, "rows.parquet")).equals(ingest.QUARANTINE_SCHEMA)


def test_ingest__duckdb_reads_what_the_contract_says(store: Store, tmp_path: Path):
    done = ingest_file(store, FileSpec(str(write(tmp_path / "a.jsonl", {"prompt": "a\x00b", "n": 1}))))
    with duckdb.connect() as connection:
        result = connection.execute(
            "SELECT typeof(id), typeof(empty_response), typeof(line), prompt, extra ->> '/n' FROM read_parquet(?)",
            [str(parts(store, done.id)[0])],
        ).fetchone()
    assert result == ("UUID", "BOOLEAN", "BIGINT", "a\x00b", "1")


def test_ingest__an_unchanged_file_is_not_read_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.jsonl", {"text": "one"})
    spec = FileSpec(str(path))
    wanted = ingest_id(store, spec)
    assert not store.has("pool", wanted)
    first = ingest_file(store, spec)
    assert first.id == wanted
    monkeypatch.setattr(ingest.readers, "read", None)  # whoever reads now fails
    again = ingest_file(store, spec)
    assert (first.new, again.new, again.id) == (True, False, first.id)
    os.utime(path, (1, 1))
    assert not ingest_file(store, spec).new


def test_ingest_id__depends_on_bytes_mapping_and_name(store: Store, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", {"text": "one", "body": "two", "source": "s"})
    (tmp_path / "other").mkdir()
    copy = write(tmp_path / "other" / "a.jsonl", {"text": "one", "body": "two", "source": "s"})
    same = {ingest_file(store, FileSpec(str(p), name="a.jsonl")).id for p in (path, copy)}
    others = [
        FileSpec(str(path)),
        FileSpec(str(copy)),
        FileSpec(str(path), name="a.jsonl", fields={"text": "body"}),
        FileSpec(str(path), name="a.jsonl", source="constant"),
        FileSpec(str(path), name="a.jsonl", encoding="latin-1"),
        FileSpec(str(path), name="a.jsonl", roles={"x": "user"}),
    ]
    ids = [ingest_file(store, spec).id for spec in others]
    assert len(same) == 1
    assert len(same.union(ids)) == 7
    assert rows(store, ids[0])[0]["file"] == str(path)
    assert rows(store, ids[2])[0]["prompt"] == "two"
    assert rows(store, ids[3])[0]["source"] == "constant"


def test_a_file_read_by_earlier_rules__stays_as_it_was_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = FileSpec(str(write(tmp_path / "a.jsonl", {"text": "one"})))
    with monkeypatch.context() as earlier:
        earlier.setattr(ingest, "_ingest_id", ingest._id_by_rules_1)
        earlier.setattr(ingest, "RULES", 1)
        first = ingest_file(store, spec)
    again = ingest_file(store, spec)
    assert (again.id, again.rules, again.new) == (first.id, 1, False)
    write(tmp_path / "a.jsonl", {"text": "one"}, {"text": "two"})
    assert ingest_file(store, spec).rules == ingest.RULES


def test_stated_field_that_no_row_has__names_what_was_found(store: Store, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", {"q": "x", "a": "y"}, {"q": "x", "b": "y"})
    with pytest.raises(BadInput, match=r"fields\.response: no row has a field 'answer'; found: a, b, q"):
        ingest_file(store, FileSpec(str(path), fields={"prompt": "q", "response": "answer"}))
    assert store.committed("pool") == store.committed("quarantine") == []
    assert ingest_file(store, FileSpec(str(path), fields={"prompt": "q", "response": "a"})).readable == 2


@pytest.mark.parametrize("keep", [False, True])
def test_a_cut_file__fails_naming_the_way_out_or_gives_its_good_rows(store: Store, tmp_path: Path, keep: bool):
    data = gzip.compress(
        "".join(json.dumps({"prompt": f"{i * i} {i}", "response": "x"}) + "\n" for i in range(2000)).encode()
    )
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(data[: len(data) // 2])
    if not keep:
        with pytest.raises(
            BadInput, match=r"cut\.jsonl\.gz: the gzip data is cut short; read as far as line \d+ .*keep_damaged"
        ):
            ingest_file(store, FileSpec(str(path)))
        assert store.committed("pool") == []
        return
    done = ingest_file(store, FileSpec(str(path), keep_damaged=True))
    assert done.damage == "the gzip data is cut short"
    assert (done.quarantined, done.read) == (1, done.readable + 1)
    assert 500 < done.readable < 2000
    assert quarantine(store, done.id)[0]["line"] == done.readable + 1
    with pytest.raises(BadInput, match="cut short"):  # what was allowed once is not allowed for ever
        ingest_file(store, FileSpec(str(path)))


def test_junk_behind_a_complete_file__costs_one_quarantine_row(store: Store, tmp_path: Path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "one"}\n{"text": "two"}') + b"junk")
    done = ingest_file(store, FileSpec(str(path)))
    assert (done.readable, done.quarantined, done.damage) == (2, 1, None)
    assert not ingest_file(store, FileSpec(str(path))).new


def test_a_file_written_to_meanwhile__is_refused(store: Store, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", {"text": "one"})

    def grow(_: int) -> None:
        with path.open("a") as file:
            file.write('{"text": "two"}\n')

    with pytest.raises(BadInput, match="changed while it was read"):
        ingest_file(store, FileSpec(str(path)), on_rows=grow)
    assert store.committed("pool") == []


def test_csv__extra_cells_are_numbers_where_they_print_back_the_same(store: Store, tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('id,prompt,response,score,code,none\n1,42,"x\ny",1.5,007,\n2,b,,-3e2,x,\n')
    done = ingest_file(store, FileSpec(str(path)))
    first, second = rows(store, done.id)
    assert (first["prompt"], first["response"], first["given_id"]) == ("42", "x\ny", "1")
    assert (first["extra"], second["extra"]) == (
        '{"score":1.5,"code":"007","none":null}',
        '{"score":"-3e2","code":"x","none":null}',
    )
    assert second["empty_response"]
    assert done.extra_columns == {"score": "text", "code": "text", "none": "null"}


def test_parquet__values_that_json_lacks(store: Store, tmp_path: Path):
    table = pa.table(
        {
            "prompt": ["a", "b"],
            "when": [dt.date(2024, 1, 2)] * 2,
            "price": [Decimal("1.50")] * 2,
            "score": [float("nan"), 1.0],
            "image": pa.array([None, b"\x89PNG"], pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    done = ingest_file(store, FileSpec(str(tmp_path / "a.parquet")))
    assert rows(store, done.id)[0]["extra"] == '{"when":"2024-01-02","price":1.50,"score":null,"image":null}'
    digest = blake2b(b"\x89PNG", digest_size=16).hexdigest()
    assert json.loads(rows(store, done.id)[1]["extra"])["image"] == {"blake2b": digest, "bytes": 4}
    assert done.extra_columns["price"] == "decimal(2)"
    assert done.notices == {
        "field 'score': NaN or infinity; set to null": 1,
        "field 'image': binary data; its hash is kept": 1,
    }


@pytest.mark.parametrize("depth", [200, 600, 2000])
def test_deep_nesting__is_kept_or_quarantined_never_a_crash(store: Store, tmp_path: Path, depth: int):
    path = write(tmp_path / "a.jsonl", '{"prompt": "a", "meta": ' + "[" * depth + "]" * depth + "}\n", {"prompt": "b"})
    done = ingest_file(store, FileSpec(str(path)))
    assert (done.readable, done.quarantined) == ((2, 0) if depth < 1000 else (1, 1))


def test_many_keys__are_described_up_to_a_limit_and_all_kept(store: Store, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", *({"text": f"t{i}", f"key{i}": i} for i in range(1200)))
    done = ingest_file(store, FileSpec(str(path)))
    assert len(done.extra_columns) == ingest.MAX_EXTRA
    assert rows(store, done.id)[1199]["extra"] == '{"key1199":1199}'


def test_a_long_list_of_numbers__is_a_vector_and_not_kept_as_a_field(store: Store, tmp_path: Path):
    records = [{"text": f"t{n}", "list": [0.5] * n} for n in (32, 33, 2000)] + [{"text": "w", "list": ["x"] * 33}]
    done = ingest_file(store, FileSpec(str(write(tmp_path / "a.jsonl", *records))))
    lists = [json.loads(row["extra"])["list"] for row in rows(store, done.id)]
    assert lists == [[0.5] * 32, None, None, ["x"] * 33]
    cause = "a list of more than 32 numbers; set to null (bring vectors by `vectors:`)"
    assert done.notices == {f"field 'list': {cause}": 2}


def test_what_is_no_object__is_a_bad_row_also_under_a_mapping(store: Store, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", "{}\n", "[]\n", "3\n", '"body"\n', {"body": "x"})
    done = ingest_file(store, FileSpec(str(path), fields={"text": "body"}))
    assert (done.readable, done.quarantined) == (1, 4)
    assert [row["cause"] for row in quarantine(store, done.id)] == [
        "body is missing",
        "a list, not an object with fields",
        "a number, not an object with fields",
        "text, not an object with fields",
    ]


def test_stated_field_seen_late__counts_however_many_other_keys_there_are(store: Store, tmp_path: Path):
    path = write(
        tmp_path / "a.jsonl", *({"text": f"t{i}", f"key{i}": i} for i in range(1200)), {"text": "z", "uid": "x"}
    )
    assert ingest_file(store, FileSpec(str(path), fields={"id": "uid"})).readable == 1201


def test_row_groups__are_moderate(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ingest, "GROUP_CHARS", 50_000)
    monkeypatch.setattr(ingest.readers, "ROWS_PER_CHUNK", 10)
    pq.write_table(pa.table({"text": [f"{i} " + "x" * 1000 for i in range(200)]}), tmp_path / "a.parquet")
    done = ingest_file(store, FileSpec(str(tmp_path / "a.parquet")))
    file = pq.ParquetFile(parts(store, done.id)[0])
    assert file.num_row_groups == 4
    assert [row["line"] for row in rows(store, done.id)] == list(range(1, 201))


def test_memory_url(store: Store):
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe("/pool/far.jsonl.gz", gzip.compress(b'{"text": "one"}\n'))
        done = ingest_file(store, FileSpec("memory:///pool/far.jsonl.gz"))
        assert [(r["prompt"], r["source"], r["file"]) for r in rows(store, done.id)] == [
            ("one", "far", "memory:///pool/far.jsonl.gz")
        ]
        assert not ingest_file(store, FileSpec("memory:///pool/far.jsonl.gz")).new
    finally:
        fs.store.clear()
    assert list(store.path("tmp").iterdir()) == []


any_text = st.text(st.characters(exclude_categories=["Cs"]))
chat = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), any_text), min_size=1, max_size=4)


@settings(max_examples=40)
@given(st.lists(chat.filter(lambda turns: any(r == "user" and t.strip() for r, t in turns)), min_size=1, max_size=5))
def test_any_turns__come_back_from_parquet(
    tmp_path_factory: pytest.TempPathFactory, chats: list[list[tuple[str, str]]]
):
    folder = tmp_path_factory.mktemp("turns")
    records = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in chats]
    done = ingest_file(Store(folder / "store"), FileSpec(str(write(folder / "a.jsonl", *records))))
    tidy = [[(role, text.replace("\r\n", "\n").strip()) for role, text in turns] for turns in chats]
    result = rows(Store(folder / "store"), done.id)
    assert [turns_from_columns(row["prompt"], row["response"], row["messages"]) for row in result] == tidy
    assert [row["id"].bytes for row in result] == [identity(turns) for turns in tidy]


def test_kill_in_mid_ingest__leaves_nothing_half(store: Store, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", *({"text": f"row {i} " + "x" * 200} for i in range(20_000)))
    script = textwrap.dedent(f"""
        import os, signal
        from storage.pool import ingest
        from storage.pool.ingest import FileSpec, ingest_file
        from storage.store import Store
        ingest.GROUP_ROWS = 1000
        seen = 0
        def kill(rows):
            global seen
            seen += rows
            if seen > 10_000:
                os.kill(os.getpid(), signal.SIGKILL)
        ingest_file(Store({str(store.root)!r}), FileSpec({str(path)!r}), on_rows=kill)
    """)
    code = subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[3]).returncode
    assert code == -signal.SIGKILL
    assert store.committed("pool") == store.committed("quarantine") == []
    assert ingest_file(store, FileSpec(str(path))).readable == 20_000


def test_kill_between_the_two_renames__heals(store: Store, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", {"text": "one"}, "{bad\n")
    done = ingest_file(store, FileSpec(str(path)))
    # Quarantine commits first, so this is the only half there can be.
    store.path("pool", done.id).rename(tmp_path / "lost")
    again = ingest_file(store, FileSpec(str(path)))
    assert (again.id, again.new) == (done.id, True)
    assert rows(store, done.id)[0]["prompt"] == "one"
    assert len(quarantine(store, done.id)) == 1


def test_check_bad_fraction__counts_causes_examples_and_what_to_do(store: Store, tmp_path: Path):
    good = [{"text": f"t{i}"} for i in range(98)]
    fine = ingest_file(store, FileSpec(str(write(tmp_path / "fine.jsonl", *good, {"text": "x"}, "{oops\n"))))
    poor = ingest_file(
        store, FileSpec(str(write(tmp_path / "poor.jsonl", *good[:7], "{oops\n", {"body": "x"}, "{oops\n")))
    )
    check_bad_fraction([fine], 0.01, store)  # exactly at the limit
    with pytest.raises(BadInput) as error:
        check_bad_fraction([fine, poor], 0.01, store)
    message = str(error.value)
    assert "1 of 2 files have more than 1.00% rows" in message
    assert f"{poor.url}: 3 of 10 rows" in message
    assert "2 x not JSON, for example line 8: {oops" in message
    assert "1 x no field that holds a prompt" in message
    assert "raise max_bad_fraction" in message
    assert fine.url not in message
    check_bad_fraction([fine, poor], 0.3, store)


def test_read_ingest__not_there(store: Store):
    with pytest.raises(NotInStore):
        read_ingest(store, "none")


def test_speed__a_bad_row_does_not_make_its_chunk_slow(store: Store, tmp_path: Path):
    clean = [json.dumps({"prompt": f"prompt {i}", "response": "r" * 100}) + "\n" for i in range(30_000)]
    bad = [line if i % 1000 else "{broken\n" for i, line in enumerate(clean)]
    seconds = []
    for name, content in (("clean", clean), ("bad", bad)):
        path = write(tmp_path / f"{name}.jsonl", *content)
        started = time.process_time()
        ingest_file(store, FileSpec(str(path)))
        seconds.append(time.process_time() - started)
    assert seconds[1] < 4 * seconds[0] + 0.5


def test_ids__of_a_stored_pool_are_ids_in_memory(store: Store, tmp_path: Path):
    done = ingest_file(store, FileSpec(str(write(tmp_path / "a.jsonl", {"text": "one"}))))
    stored = from_arrow(pq.read_table(parts(store, done.id)[0])["id"])
    assert stored.tobytes() == identity([("text", "one")])


odd_values = st.sampled_from(["a", " b\r\nc ", " \n", "", None, 0, 7, True, 0.5, float("nan"), ["x"], {"y": 1}])
alike_records = st.fixed_dictionaries(
    {"prompt": st.sampled_from(["p", " q\r\n", " \n"]), "more": st.sampled_from([{"y": 1}, {"of": "x"}])}
)
some_records = st.one_of(
    alike_records,
    st.dictionaries(st.sampled_from(["prompt", "response", "text", "id", "source", "score", "system"]), odd_values),
    st.just([]),
)


@given(st.lists(st.tuples(some_records, st.integers(1, 5)), max_size=6), st.sampled_from([None, "more.of"]))
@example([({"prompt": "p", "more": {"y": 1}}, 1), ({"prompt": "p", "more": {"of": "x"}}, 1)], "more.of")
def test_mapping__rows_that_are_alike_are_read_as_one_by_one(repeated: list[tuple[Any, int]], text: str | None) -> None:
    records = [record for record, times in repeated for _ in range(times)]
    chunk = Chunk(list(range(1, len(records) + 1)), records)
    read = []
    for together in (1, 3, 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ingest, "ALIKE_ROWS", together)
            if together == 1:
                patch.setattr(ingest._Mapping, "_add_alike", lambda *_: False)
            counts = ingest.FileCounts()
            spec = FileSpec("pool.jsonl", fields={"text": (text, "prompt")} if text else None)
            read.append((ingest._Mapping(spec, counts).rows(replace(chunk, bad=[])), counts))
    assert repr(read[0]) == repr(read[1]) == repr(read[2])


def test_ingest__alike_rows_are_read_together(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "pool.jsonl", *({"id": i, "prompt": f"p{i}", "response": "r"} for i in range(100)))
    monkeypatch.setattr(ingest._Mapping, "_add", None)
    assert len(rows(store, ingest_file(store, FileSpec(str(path))).id)) == 100
