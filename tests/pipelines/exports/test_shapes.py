"""A shape holds a whole row or says why not: what it gives can be turned back into the row."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.exports.conversation import Conversation, Message
from pipelines.exports.shapes import SHAPES, CannotHold, record_of

ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "system": "system", "function_call": "assistant"}
texts = st.text(max_size=3)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "user", "assistant", "system", "tool", "narrator"]),
            "content": texts,
        },
        optional={"from": st.just("function_call"), "tool_calls": st.just([{"id": "c"}]), "name": texts},
    )
    | st.fixed_dictionaries({"role": st.just("user"), "content": st.just([{"type": "image"}])}),
    min_size=1,
    max_size=6,
)
plain_chats = st.lists(texts, min_size=1, max_size=6).map(
    lambda turns: [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
)
fields = st.dictionaries(st.sampled_from(["tools", "images", "messages", "text", "system"]), texts, max_size=2)


@st.composite
def rows(draw: st.DrawFn) -> Conversation:
    if draw(st.booleans()):
        text, pair = draw(texts), draw(st.booleans())
        rejected = [{"role": "text", "content": draw(texts)}] if pair else []
        return Conversation([], text, int(pair), rejected, draw(fields))
    chat = draw(messages | plain_chats)
    chosen = draw(st.integers(0, len(chat)))
    return Conversation(chat, None, chosen, draw(messages) if chosen else [], draw(fields))


def from_sharegpt(turns: list[dict[str, Any]]) -> list[Message]:
    calls = {"from": "function_call"}
    return [
        {"role": ROLES[t["from"]], "content": t["value"], **(calls if t["from"] == "function_call" else {})}
        for t in turns
    ]


def from_alpaca(record: dict[str, Any]) -> list[Message]:
    pairs = [*record["history"], [record["instruction"], record["output"]]]
    chat = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(chain(*pairs))]
    return [{"role": "system", "content": record["system"]}, *chat] if record["system"] else chat


BACK = {
    "messages": lambda r: Conversation(r["messages"]),
    "prompt-completion": lambda r: Conversation(r["prompt"] + r["completion"]),
    "preference": lambda r: Conversation(r["prompt"] + r["chosen"], None, len(r["chosen"]), r["rejected"]),
    "preference-text": lambda r: Conversation([], r["chosen"], 1, [{"role": "text", "content": r["rejected"]}]),
    "alpaca": lambda r: Conversation(from_alpaca(r)),
    "sharegpt": lambda r: Conversation(from_sharegpt(r["conversations"])),
    "sharegpt-preference": lambda r: Conversation(
        from_sharegpt([*r["conversations"], r["chosen"]]), None, 1, from_sharegpt([r["rejected"]])
    ),
    "text": lambda r: Conversation([], r["text"]),
}


@pytest.mark.parametrize("name", SHAPES)
@given(row=rows())
def test_shapes__hold_a_whole_row_or_none_of_it(name: str, row: Conversation) -> None:
    try:
        record = record_of(SHAPES[name], row)
    except CannotHold:
        return
    back = BACK[name](record)
    assert (back.messages, back.text, back.chosen, back.rejected) == (row.messages, row.text, row.chosen, row.rejected)
    assert {key: record[key] for key in row.fields} == row.fields


def test_shapes__all_are_tried() -> None:
    assert BACK.keys() == SHAPES.keys()
