"""A pool with rows of every kind, drawn once: chats, tool calls, parts, pairs, texts; and numbers that floats lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.context import Context
from pipelines.run import run_all
from tests.pipelines.conftest import opened

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": {"c": []}}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}}}


def chat(*texts: str, system: str | None = None) -> list[dict[str, Any]]:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


RECORDS: dict[str, list[Any]] = {
    "chats": [
        {"id": "one", "messages": chat("Wie geht's?", "Gut 🦊 “so”"), "licence": "MIT", "year": 2020},
        {"id": "five", "messages": chat("a", "b", "c", "d", "e", "f", system="Be brief."), "licence": "CC0"},
        {"id": "open", "messages": chat("a question", "an answer", "no answer yet")},
        {
            "id": "big",
            "messages": chat("numbers", "yes"),
            "n": 123456789012345678901234567890,
            "x": 0.1,
            "nested": {"deep": [1, None, "ü"]},
        },
    ],
    "tools": [
        {
            "id": "calls",
            "messages": [
                {"role": "user", "content": "1 + 1?"},
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "content": "2", "tool_call_id": "c1"},
                {"role": "assistant", "content": "2."},
            ],
            "tools": [TOOL],
        },
        {
            "id": "sharegpt",
            "conversations": [
                {"from": "human", "value": "1 + 1?"},
                {"from": "function_call", "value": '{"name": "add"}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "2."},
            ],
            "tools": '[{"name": "add"}]',
        },
        {
            "id": "parts",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image"}]},
                {"role": "assistant", "content": "A fox."},
            ],
            "images": ["fox.png"],
        },
    ],
    "pairs": [
        {"id": "pair", "prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."},
        {
            "id": "long pair",
            "chosen": chat("Sky?", "Blue.", "Why?", "Rayleigh.", system="Physics."),
            "rejected": chat("Sky?", "Blue.", "Why?", "Because.", system="Physics."),
        },
        {"id": "apart", "chosen": "All of one text.", "rejected": "All of another."},
    ],
    "texts": [{"id": f"text {n}", "text": f"Once upon a time, {n}."} for n in range(3)],
}
WHOLE = {record["id"]: record for records in RECORDS.values() for record in records}

CONFIG = """\
store: ./store
pool: {files: data/*.jsonl, columns: [{url: columns.parquet, id: id}]}
recipes:
  every: {steps: [random], budget: 13}
  chats: {steps: [random], budget: 4, where: "source = 'chats'"}
  tools: {steps: [random], budget: 3, where: "source = 'tools'"}
  pairs: {steps: [random], budget: 3, where: "source = 'pairs'"}
  texts: {steps: [random], budget: 3, where: "source = 'texts'"}
"""


def make_mixed(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    for name, records in RECORDS.items():
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    pq.write_table(pa.table({"id": ["one", "pair"], "stars": [5, 3]}), folder / "columns.parquet")
    (folder / "winnow.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, run once; for exporting from."""
    project = make_mixed(tmp_path_factory.mktemp("mixed") / "project")
    run_all(opened(project))
    return project


@pytest.fixture
def context(mixed: Path) -> Context:
    return opened(mixed)
