"""What a row is: its turns, and all else that a trainer would see. Its id is a hash of both.

Turns are `[(role, text), ...]` with CRLF made LF and outer white space stripped; they are what is embedded. A row whose
turns say everything has no further content. Any other has a JSON object beside them, with those of the keys that it
needs:

    messages   the conversation with tool calls, names, reasoning and parts that are not text
    rejected   the messages of the answer that was rejected; the turns end with the chosen one
    images, tools, documents, ...   fields of the record, under their own names
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import orjson
import pyarrow as pa

from storage.ids import ID_BYTES

Turns = list[tuple[str, str]]
Content = dict[str, Any]
# How turns are stored, see `turns_to_columns`.
TURN_COLUMNS = ["prompt", "response", "messages"]


def identity(turns: Turns, content: Content | None = None) -> bytes:
    """The 16 bytes that name a row: blake2b-128 of the compact JSON of its turns and its content, if it has any.

    >>> identity([("text", "a")]) == identity([("user", "a")])
    False
    """
    hashed = to_json([turns, content]) if content else orjson.dumps(turns)
    return blake2b(hashed, digest_size=ID_BYTES).digest()


def to_json(value: Any) -> bytes:
    """Compact JSON with sorted keys; bytes become their hash, dates and decimals their text, NaN and infinity null.

    Raises:
        ValueError: it is nested too deep.
    """
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        pass
    try:  # integers of more than 64 bits
        text = json.dumps(value, default=_plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("nested too deep for JSON") from None
    return text.encode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"blake2b": blake2b(value, digest_size=ID_BYTES).hexdigest(), "bytes": len(value)}
    return str(value)


def turns_to_columns(turns: Turns) -> tuple[str, str | None, str | None, bool]:
    """How turns are stored: `(prompt, response, messages, empty_response)`.

    A chat of more than one user and one assistant turn keeps all of it in `messages`; its prompt is then the first
    user turn and its response the last turn if the assistant's, both for reading only.
    """
    if len(turns) == 1 and turns[0][0] == "text":
        return turns[0][1], None, None, False
    if len(turns) == 2 and turns[0][0] == "user" and turns[1][0] == "assistant":
        return turns[0][1], turns[1][1], None, not turns[1][1]
    response = turns[-1][1] if turns[-1][0] == "assistant" else ""
    return prompt_of(turns), response, orjson.dumps(turns).decode(), not response


def prompt_of(turns: Iterable[tuple[str, str]]) -> str:
    """The first text of a user, else of a role that is no one of winnow's, else of anyone; "" if there is no text."""
    texts = [(role, text) for role, text in turns if text]
    for roles in (("user", "text"), None):
        for role, text in texts:
            if role in roles if roles else role not in ("assistant", "system", "tool"):
                return text
    return texts[0][1] if texts else ""


def text_of(turns: Turns) -> str:
    """The contents of the turns, one below the other."""
    return "\n".join(content for _, content in turns)


def turns_from_columns(prompt: str, response: str | None, messages: str | None) -> Turns:
    """The inverse of `turns_to_columns`.

    >>> turns_from_columns("Why?", "", None)
    [('user', 'Why?'), ('assistant', '')]
    """
    if messages is not None:
        return [(role, text) for role, text in orjson.loads(messages)]
    return [("text", prompt)] if response is None else [("user", prompt), ("assistant", response)]


def turns_from_table(table: pa.Table) -> list[Turns]:
    """The turns of each row of a table with the columns `TURN_COLUMNS`."""
    columns = [table[name].to_pylist() for name in TURN_COLUMNS]
    return [turns_from_columns(*row) for row in zip(*columns, strict=True)]
