"""The shapes of records that trainers read: a table of functions from a conversation to a record.

A shape never bends a row. What it cannot hold raises `CannotHold` with the cause, and the export counts and lists it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.exports.conversation import Conversation, Message, is_plain

Record = dict[str, Any]


class CannotHold(Exception):
    """A shape cannot hold a row; the message is the cause."""


def whole_messages(row: Conversation) -> Record:
    """`{"messages": [...]}`: every message as it is, tool calls and parts included."""
    return {"messages": _chat(row)}


def prompt_completion(row: Conversation) -> Record:
    """`{"prompt": [messages], "completion": [message]}`: split before the last message, which is the assistant's."""
    messages = _chat(row)
    if messages[-1]["role"] != "assistant":
        raise CannotHold("does not end with the assistant's message")
    if len(messages) == 1:
        raise CannotHold("has nothing before the assistant's message")
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def preference(row: Conversation) -> Record:
    """`{"prompt": [messages], "chosen": [messages], "rejected": [messages]}`."""
    prompt, chosen, rejected = _pair(row)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def preference_text(row: Conversation) -> Record:
    """`{"chosen": text, "rejected": text}`: a pair of texts without messages."""
    if not row.is_pair:
        raise CannotHold("has no rejected answer")
    if row.text is None or [message.keys() for message in row.rejected] != [{"role", "content"}]:
        raise CannotHold("is a pair of messages: `preference` holds it")
    return {"chosen": row.text, "rejected": row.rejected[0]["content"]}


def alpaca(row: Conversation) -> Record:
    """`{"instruction", "input", "output", "system", "history"}`; earlier turns are the history, `input` is empty."""
    system, turns = _system_and_turns(_chat(row))
    for place, message in enumerate(turns):
        if not is_plain(message):
            raise CannotHold(f"a message has more than role and text ({_more(message)})")
        if message["role"] != ("user", "assistant")[place % 2]:
            raise CannotHold("user and assistant do not take turns")
    if not turns or len(turns) % 2:
        raise CannotHold("does not end with the assistant's message")
    texts = [message["content"] for message in turns]
    pairs = [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    instruction, output = pairs.pop()
    return {"instruction": instruction, "input": "", "output": output, "system": system, "history": pairs}


def sharegpt(row: Conversation) -> Record:
    """`{"conversations": [{"from", "value"}]}`: human, gpt, observation, function_call and a first system."""
    return {"conversations": [_turn(message, place) for place, message in enumerate(_chat(row))]}


def sharegpt_preference(row: Conversation) -> Record:
    """`{"conversations": [...], "chosen": {"from", "value"}, "rejected": {"from", "value"}}`."""
    prompt, chosen, rejected = _pair(row)
    if len(chosen) > 1 or len(rejected) > 1:
        raise CannotHold("an answer has several messages")
    turns = [_turn(message, place) for place, message in enumerate([*prompt, *chosen, *rejected])]
    return {"conversations": turns[:-2], "chosen": turns[-2], "rejected": turns[-1]}


def single_text(row: Conversation) -> Record:
    """`{"text": text}`: rows that are one text; the turns of a conversation are not joined."""
    if row.is_pair:
        raise CannotHold("is a chosen and a rejected answer: `preference-text` holds it")
    if row.text is None:
        raise CannotHold("is a conversation, and joining its turns would lose who speaks: `messages` holds it")
    return {"text": row.text}


def whole_row(row: Conversation) -> Record:
    """`{"text", "messages", "chosen_turns", "rejected"}`: whatever the row is; null for what it has not."""
    pair = {"chosen_turns": row.chosen or None, "rejected": row.rejected or None}
    return {"text": row.text, "messages": row.messages or None, **pair}


SHAPES: Mapping[str, Callable[[Conversation], Record]] = {
    "messages": whole_messages,
    "prompt-completion": prompt_completion,
    "preference": preference,
    "preference-text": preference_text,
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "sharegpt-preference": sharegpt_preference,
    "text": single_text,
}


def record_of(shape: Callable[[Conversation], Record], row: Conversation) -> Record:
    """The record of a row: the shape's fields, then the fields that the row has beside its messages.

    Raises:
        CannotHold: the shape cannot hold the row.
    """
    record = shape(row)
    for name, value in row.fields.items():
        if name in record:
            raise CannotHold(f"its field {name!r} has the name of a field of the shape")
        record[name] = value
    return record


def _chat(row: Conversation) -> list[Message]:
    if row.is_pair:
        raise CannotHold("is a chosen and a rejected answer: `preference` holds it")
    if row.text is not None:
        raise CannotHold("is a single text: `text` holds it")
    return row.messages


def _pair(row: Conversation) -> tuple[list[Message], list[Message], list[Message]]:
    if not row.is_pair:
        raise CannotHold("has no rejected answer")
    if row.text is not None:
        raise CannotHold("is a pair of texts: `preference-text` holds it")
    prompt = row.messages[: -row.chosen]
    if not prompt:
        raise CannotHold("the two answers have no prompt in common")
    return prompt, row.messages[-row.chosen :], row.rejected


def _system_and_turns(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    # An empty one could not be told from none.
    if messages[0]["role"] == "system" and is_plain(messages[0]) and messages[0]["content"]:
        return messages[0]["content"], messages[1:]
    return "", messages


_SHAREGPT = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}


def _turn(message: Message, place: int) -> Message:
    """A message as ShareGPT has it; a call of a tool only where it is a message of its own."""
    role = message["role"]
    is_call = role == "assistant" and "from" in message
    if not is_plain({key: value for key, value in message.items() if key != "from" or not is_call}):
        raise CannotHold(f"a message has more than role and text ({_more(message)})")
    if role not in _SHAREGPT:
        raise CannotHold(f"the role {role!r} is none of ShareGPT's")
    if role == "system" and place:
        raise CannotHold("a system message comes after the first message")
    return {"from": "function_call" if is_call else _SHAREGPT[role], "value": message["content"]}


def _more(message: Message) -> str:
    more = sorted(message.keys() - {"role", "content"})
    return ", ".join(more) or f"content is {json.dumps(type(message['content']).__name__)}"
