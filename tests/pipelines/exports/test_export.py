from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.context import Context
from pipelines.errors import BadExport, RowsLeftOut, WouldOverwrite
from pipelines.exports import options as exports_options
from pipelines.exports.export import export_selection, shuffled
from pipelines.exports.options import ExportOptions
from pipelines.exports.rows import OrderedRows
from pipelines.exports.shapes import SHAPES
from pipelines.exports.trainers import TRAINERS
from pipelines.named import selection_of
from storage.errors import NotInStore
from storage.ids import from_arrow, to_text
from storage.records import read_selection
from tests.pipelines.conftest import Winnow
from tests.pipelines.exports.conftest import CALL, TOOL, WHOLE


def export(context: Context, recipe: str, out: Path, to: str, **options: Any) -> list[dict[str, Any]]:
    export_selection(context, recipe, ExportOptions(to=to, **options), out)
    files = sorted((out / "data").iterdir())
    if files[0].suffix == ".parquet":
        return [row for file in files for row in pq.read_table(file).to_pylist()]
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def given_ids(context: Context, recipe: str) -> list[str]:
    """The naive order: each item by itself."""
    header, items = read_selection(context.store, selection_of(context.store, recipe))
    snapshot = context.pool.snapshot_of(header["snapshot"])
    ids = from_arrow(items["id"])
    return [str(snapshot.given_ids(ids[i : i + 1])[0]) for i in range(len(ids))]


def by_id(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {record.pop("given_id"): record for record in records}


def test_messages__are_whole_and_in_rank_order(context: Context, tmp_path: Path) -> None:
    records = export(context, "chats", tmp_path / "out", "messages", columns=("given_id",))
    assert [record["given_id"] for record in records] == given_ids(context, "chats")
    assert [record["messages"] for record in records] == [WHOLE[record["given_id"]]["messages"] for record in records]


def test_messages__keep_tool_calls_parts_and_fields(context: Context, tmp_path: Path) -> None:
    records = by_id(export(context, "tools", tmp_path / "out", "messages", columns=("given_id",)))
    calls, parts = records["calls"], records["parts"]
    assert calls == {key: WHOLE["calls"][key] for key in ("messages", "tools")}
    assert (calls["messages"][1]["tool_calls"], calls["tools"]) == ([CALL], [TOOL])
    assert parts["messages"][0]["content"] == WHOLE["parts"]["messages"][0]["content"]
    assert parts["images"] == ["fox.png"]
    assert records["sharegpt"]["messages"][1] == {
        "role": "assistant",
        "content": '{"name": "add"}',
        "from": "function_call",
    }


def test_shapes__of_every_kind(context: Context, tmp_path: Path) -> None:
    split = by_id(
        export(context, "chats", tmp_path / "split", "prompt-completion", columns=("given_id",), allow_left_out=0.25)
    )
    five = WHOLE["five"]["messages"]
    assert (split["five"]["prompt"], split["five"]["completion"]) == (five[:-1], five[-1:])
    assert "open" not in split
    alpaca = by_id(export(context, "chats", tmp_path / "alpaca", "alpaca", columns=("given_id",), allow_left_out=0.25))
    history = [["a", "b"], ["c", "d"]]
    assert alpaca["five"] == {
        "instruction": "e",
        "input": "",
        "output": "f",
        "system": "Be brief.",
        "history": history,
    }
    sharegpt = by_id(export(context, "tools", tmp_path / "sg", "sharegpt", columns=("given_id",), allow_left_out=0.67))
    assert sharegpt == {"sharegpt": {key: WHOLE["sharegpt"][key] for key in ("conversations", "tools")}}
    pairs = by_id(export(context, "pairs", tmp_path / "p", "preference", columns=("given_id",), allow_left_out=0.34))
    assert pairs["pair"] == {
        "prompt": [{"role": "user", "content": "Sky?"}],
        "chosen": [{"role": "assistant", "content": "Blue."}],
        "rejected": [{"role": "assistant", "content": "Green."}],
    }
    assert pairs["long pair"]["prompt"] == WHOLE["long pair"]["chosen"][:-1]
    assert pairs["long pair"]["rejected"] == WHOLE["long pair"]["rejected"][-1:]
    ranked = export(context, "pairs", tmp_path / "sp", "sharegpt-preference", allow_left_out=0.34)
    (short,) = [record for record in ranked if len(record["conversations"]) == 1]
    assert short == {
        "conversations": [{"from": "human", "value": "Sky?"}],
        "chosen": {"from": "gpt", "value": "Blue."},
        "rejected": {"from": "gpt", "value": "Green."},
    }
    apart = export(context, "pairs", tmp_path / "pt", "preference-text", allow_left_out=0.67)
    assert apart == [{"chosen": "All of one text.", "rejected": "All of another."}]
    texts = export(context, "texts", tmp_path / "t", "text", columns=("given_id",))
    assert [row["text"] for row in texts] == [WHOLE[row["given_id"]]["text"] for row in texts]


def test_left_out__is_counted_listed_and_an_error_above_the_share(context: Context, tmp_path: Path) -> None:
    with pytest.raises(
        RowsLeftOut, match=r"(?s)1 of 4 rows of chats cannot be exported as alpaca.*--allow-left-out 0\.25"
    ) as error:
        export(context, "chats", tmp_path / "out", "alpaca")
    assert "data/chats.jsonl:3" in str(error.value)
    assert list(tmp_path.iterdir()) == []
    report = export_selection(context, "chats", ExportOptions(to="alpaca", allow_left_out=0.25), tmp_path / "out")
    (listed,) = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert (listed["given_id"], listed["file"], listed["line"]) == ("open", "data/chats.jsonl", 3)
    assert listed["rank"] == given_ids(context, "chats").index("open") + 1
    assert report.left_out == {listed["cause"]: 1}
    assert "1 left out" in report.summary


def test_numbers_and_unicode__are_as_they_were(context: Context, tmp_path: Path) -> None:
    export(context, "chats", tmp_path / "out", "messages", columns=("given_id", "n", "x", "nested", "stars", "year"))
    lines = {
        json.loads(line)["given_id"]: line
        for line in (tmp_path / "out/data/train.jsonl").read_text("utf-8").splitlines()
    }
    assert '"n":123456789012345678901234567890,"x":0.1,"nested":{"deep":[1,null,"ü"]},"stars":null' in lines["big"]
    assert "Gut 🦊 “so”" in lines["one"]
    assert '"stars":5,"year":2020}' in lines["one"]


def test_second_export__is_byte_identical(context: Context, tmp_path: Path) -> None:
    options = ExportOptions(to="parquet", shuffle=4, shards=3, columns=("rank", "licence", "n"))
    contents = []
    for _ in range(2):
        export_selection(context, "every", options, tmp_path / "out")
        files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
        contents.append([(path.name, path.read_bytes()) for path in files])
    assert contents[0] == contents[1]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_shuffle__is_a_permutation_that_the_seed_decides(context: Context, tmp_path: Path) -> None:
    orders = [
        [row["id"] for row in export(context, "every", tmp_path / str(n), "ids", shuffle=seed, shards=n + 1)]
        for n, seed in enumerate([None, 1, 1, 2])
    ]
    assert orders[1] == orders[2]
    assert orders[1] not in (orders[0], orders[3])
    assert sorted(orders[1]) == sorted(orders[0])


@pytest.mark.parametrize("block_rows", [1, 2, 5, 100])
def test_ordered_rows__blocks_change_nothing(context: Context, tmp_path: Path, block_rows: int) -> None:
    snapshot = context.pool.snapshot
    ids = np.asarray(snapshot.ids)[np.random.default_rng(block_rows).permutation(len(snapshot))]
    rows = OrderedRows(snapshot, ids, tmp_path, block_rows)
    for _ in range(2):
        blocks = list(rows.blocks())
        assert [row.id for block in blocks for row in block] == to_text(ids)
        assert [row.place for block in blocks for row in block] == list(range(len(ids)))
        assert all(len(block) <= block_rows for block in blocks)


def test_shuffled__does_not_depend_on_the_other_rows(context: Context) -> None:
    ids = np.asarray(context.pool.snapshot.ids)
    every = [ids[place] for place in shuffled(ids, 7)]
    assert [ids[::2][place] for place in shuffled(ids[::2], 7)] == [name for name in every if name in set(ids[::2])]


def test_ids__name_rows_with_a_hash_of_their_content(context: Context, tmp_path: Path) -> None:
    records = {row["given_id"]: row for row in export(context, "every", tmp_path / "out", "ids")}
    assert records.keys() == WHOLE.keys()
    turns = [["text", "Once upon a time, 1."]]
    hashed = json.dumps(turns, separators=(",", ":")).encode()
    assert records["text 1"]["sha256"] == hashlib.sha256(hashed).hexdigest()
    assert len({row["sha256"] for row in records.values()}) == len(WHOLE)


def test_parquet__holds_every_row(context: Context, tmp_path: Path) -> None:
    records = {row["given_id"]: row for row in export(context, "every", tmp_path / "out", "parquet")}
    assert records.keys() == WHOLE.keys()
    assert json.loads(records["calls"]["messages"]) == WHOLE["calls"]["messages"]
    plain = {row["given_id"]: row for row in export(context, "chats", tmp_path / "chats", "parquet")}
    assert {name: row["messages"] for name, row in plain.items()} == {n: WHOLE[n]["messages"] for n in plain}


def test_hf__takes_the_shape_of_its_rows(context: Context, tmp_path: Path) -> None:
    assert export(context, "texts", tmp_path / "t", "hf")[0].keys() == {"text"}
    assert export(context, "pairs", tmp_path / "p", "hf", allow_left_out=0.4)[0].keys() == {
        "prompt",
        "chosen",
        "rejected",
    }
    assert export(context, "chats", tmp_path / "c", "hf")[0].keys() == {"messages"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "alpca"}, "did you mean `alpaca`"),
        ({"to": "alpaca", "trainer": "axolotl"}, "axolotl reads messages, text, not 'alpaca'"),
        ({"to": "text", "trainer": "axolotll"}, "did you mean `axolotl`"),
        ({"to": "text", "shards": 0}, "shards: must be in 1..10000, found 0"),
        ({"to": "text", "shards": 99}, "shards: must be in 1..3, the rows of the selection, found 99"),
        ({"to": "text", "shuffle": -1}, "shuffle"),
        ({"to": "text", "allow_left_out": 2.0}, "allow_left_out"),
        ({"to": "text", "columns": ("yeer",)}, "no column 'yeer'.*did you mean `year`"),
        ({"to": "text", "columns": ("year", "year")}, "comes twice"),
        ({"to": "ids", "columns": ("sha256",)}, "no column 'sha256'"),
    ],
)
def test_options__that_make_no_sense_are_refused(
    context: Context, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadExport, match=message):
        export_selection(context, "texts", ExportOptions(**options), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_targets__that_winnow_did_not_write_stay(context: Context, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(WouldOverwrite, match="was not written by `winnow export`"):
        export(context, "texts", mine, "text")
    with pytest.raises(WouldOverwrite, match="is a file"):
        export(context, "texts", mine / "thesis.txt", "text")
    out = tmp_path / "out"
    export(context, "texts", out, "text", shards=2)
    (out / "notes.md").write_text("mine")
    with pytest.raises(WouldOverwrite, match=r"notes.md in it is no file of the export"):
        export(context, "texts", out, "ids")
    (out / "notes.md").unlink()
    export(context, "texts", out, "ids")
    assert [path.name for path in (out / "data").iterdir()] == ["train.jsonl"]
    (out / "data/train.jsonl").write_text("edited")
    with pytest.raises(WouldOverwrite, match=r"train.jsonl in it was changed since"):
        export(context, "texts", out, "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_selection_of__knows_recipes_and_ids(context: Context) -> None:
    selection = selection_of(context.store, "texts")
    assert selection_of(context.store, selection) == selection
    with pytest.raises(NotInStore, match="did you mean `texts`"):
        selection_of(context.store, "text")


def test_command__exports_and_says_so(mixed: Path, tmp_path: Path, winnow: Winnow) -> None:
    common = ("--config", mixed, "--out", tmp_path / "out")
    ended = winnow("export", "texts", "--to", "text", "--columns", "source, rank", "--shards", 2, *common)
    assert (ended.code, ended.out.split()[:3]) == (0, ["3", "rows", "written"])
    ended = winnow("export", "every", "--to", "text", *common)
    assert ended.code == 2
    assert "10 of 13 rows of every cannot be exported as text" in ended.err


def test_tables__of_options_and_of_functions_name_the_same() -> None:
    assert tuple(SHAPES) == exports_options.SHAPES
    assert tuple(TRAINERS) == tuple(exports_options.TRAINER_SHAPES)


def test_sql__a_plain_copy_has_every_turn(context: Context, tmp_path: Path) -> None:
    out = tmp_path / "copied.jsonl"
    with duckdb.connect(str(context.store.path("winnow.duckdb")), read_only=True) as catalog:
        catalog.execute(
            "COPY (SELECT given_id, messages, text, content_json FROM selected_conversations"
            f" WHERE selection_id = '{selection_of(context.store, 'every')}' ORDER BY rank) TO '{out}' (FORMAT json)"
        )
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [row["given_id"] for row in rows] == given_ids(context, "every")
    for row in rows:
        whole, is_plain = WHOLE[row["given_id"]], row["content_json"] is None
        assert row["messages"] == (whole.get("messages") if is_plain else None)
        assert row["text"] == (whole.get("text") if is_plain else None)
    assert sum(row["content_json"] is None for row in rows) == 7


def test_early_files__of_which_the_store_has_not_all_are_left_out(context: Context, tmp_path: Path) -> None:
    snapshot = context.pool.snapshot_of(context.pool.snapshot.id)
    vars(snapshot)["early_ingests"] = frozenset(snapshot.ingests)
    incomplete = [
        row.stored["given_id"]
        for block in OrderedRows(snapshot, np.asarray(snapshot.ids), tmp_path).blocks()
        for row in block
        if row.incomplete
    ]
    assert set(incomplete) == {"calls"}


@pytest.mark.parametrize("to", ["messages", "parquet"])
def test_shards__are_consecutive_and_all_there(context: Context, tmp_path: Path, to: str) -> None:
    whole = export(context, "every", tmp_path / "whole", to, columns=("rank",), allow_left_out=1)
    shards = export(context, "every", tmp_path / "shards", to, columns=("rank",), allow_left_out=1, shards=13)
    assert shards == whole
    assert [row["rank"] for row in shards] == sorted(row["rank"] for row in shards)
    assert len(list((tmp_path / "shards/data").iterdir())) == 13  # those without rows, too
