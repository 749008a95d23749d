"""Files of any mix of shapes: every row is accounted for, can be printed back, and is what it is without its neighbours."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.pool.content import identity, turns_from_columns
from storage.pool.ingest import FileSpec, ingest_file, parts
from storage.pool.snapshot import take_snapshot
from storage.store import Store

texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)
nothing = st.sampled_from([None, "", [], {}])
numbers = st.integers(-(2**80), 2**80) | st.floats() | st.booleans()
values = st.recursive(
    texts | numbers | st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2)
)
roles = st.sampled_from(["user", "assistant", "Human", "gpt", "system", "tool", "critic", "function_call"])
parts_of_content = st.lists(
    texts.map(lambda text: {"type": "text", "text": text}) | st.just({"type": "image", "url": "a.png"}), max_size=2
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": roles, "content": texts | st.none() | parts_of_content},
        optional={
            "tool_calls": st.lists(st.dictionaries(texts, texts, max_size=1), max_size=2),
            "name": texts | st.none(),
        },
    ),
    max_size=3,
)
answers = texts | st.none()
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "prompt": answers,
    "question": answers,
    "instruction": answers,
    "input": answers,
    "text": answers,
    "response": answers,
    "completion": answers,
    "answer": answers,
    "output": answers,
    "chosen": answers | messages,
    "rejected": answers | messages,
    "messages": messages | nothing,
    "system": answers,
    "history": st.lists(st.tuples(texts, texts).map(list), max_size=2) | nothing,
    "image": answers,
    "id": values,
    "source": values,
    "score": values,
    "file": values,
}
records = st.fixed_dictionaries({}, optional=FIELDS) | values


def ingested(folder: Path, store: Store, lines: list[Any]) -> tuple[Any, dict[int, dict[str, Any]]]:
    path = folder / "mixed.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    done = ingest_file(store, FileSpec(str(path)))
    rows = [row for part in parts(store, done.id) for row in pq.read_table(part).drop(["ingest", "file"]).to_pylist()]
    return done, {row.pop("line"): row for row in rows}


def leaves(value: Any) -> Iterator[str]:
    """Texts and integers of a value; roles are mapped, and texts of parts are joined."""
    if isinstance(value, dict):
        value = [inner for key, inner in value.items() if key not in ("role", "type")]
    if isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, str):
        yield value.strip()
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)


def stored(row: dict[str, Any]) -> str:
    """All that is kept of a row as one text."""
    held = [row["prompt"], row["response"], row["source"], row["given_id"]]
    for name in (
        "messages",
        "content_json",
        "extra",
        "given_id",
        "source",
    ):  # the last two as JSON if they were no text
        with suppress(ValueError, TypeError):
            held += leaves(json.loads(row[name]))
    return "\0".join(filter(None, held))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(records, min_size=1, max_size=6))
def test_mixed_files__rows_are_counted_print_back_and_do_not_change_their_neighbours(lines: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, store = Path(scratch), Store(Path(scratch) / "store")
        done, rows = ingested(folder, store, lines)
        snapshot = take_snapshot(store, [done])
        counts = snapshot.counts[done.id]
        assert counts["read"] == len(lines) == counts["kept"] + counts["duplicate"] + counts["quarantined"]
        for number, row in rows.items():
            content = json.loads(row["content_json"]) if row["content_json"] else None
            assert row["id"].bytes == identity(
                turns_from_columns(row["prompt"], row["response"], row["messages"]), content
            )
            kept = stored(row)
            missing = [leaf for leaf in leaves(lines[number - 1]) if leaf not in kept]
            assert missing == []
        for number, line in enumerate(lines, start=1):
            _, alone = ingested(folder, store, [line])
            assert alone.get(1) == rows.get(number)
