"""A record -> its turns, id, source and extra fields.

A pool's records come in five formats: prompt and response, instruction / input / output, chat messages (role and
content), ShareGPT (from and value), one text. A record's set of keys tells its format, unless the user states a
mapping.

Turns are `[(role, content), ...]` with CRLF made LF and outer white space stripped; they are what is hashed and
embedded. Roles are user, assistant, system and tool; a single text has the role "text". Of a message only role and text
count: what else it carries (names, tool calls, weights) is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson
import pyarrow as pa

from storage.errors import BadInput
from storage.ids import ID_BYTES

Turns = list[tuple[str, str]]
# How turns are stored, see `turns_to_columns`.
TURN_COLUMNS = ["prompt", "response", "messages"]

MESSAGES = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "question", "query", "input")
RESPONSES = ("response", "completion", "answer", "output")
TEXTS = ("text", "content")
# What a mapping may state.
FIELDS = ("prompt", "response", "instruction", "input", "output", "messages", "text", "id", "source")

ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


class BadRecord(ValueError):
    """A record without usable text; the message is the cause."""


@dataclass(frozen=True)
class RecordFormat:
    """Where a record keeps what: how records with one set of keys are read.

    Attributes:
        kind: "prompt_response", "instruction", "messages" or "text".
        text: the fields that hold text, in the order in which `kind` reads them; None where there is none.
        id, source: the fields of the given id and source, None where there is none.
        extra: all other keys.
    """

    kind: str
    text: tuple[str | None, ...]
    id: str | None
    source: str | None
    extra: tuple[str, ...]

    def turns(self, record: Mapping[str, Any]) -> Turns:
        """The record's turns.

        Raises:
            BadRecord: there is no prompt, or a field is not text.
        """
        return _READ[self.kind](record, *self.text)

    def given_id(self, record: Mapping[str, Any]) -> str | None:
        """The record's own id, as text; None if there is none."""
        return _label(record, self.id)

    def given_source(self, record: Mapping[str, Any]) -> str | None:
        """The source that the record names, as text; None if there is none."""
        return _label(record, self.source)

    def others(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """All other fields with their values; and the messages themselves where they hold more than role and text."""
        others = {key: record[key] for key in self.extra}
        if self.kind == "messages" and self.text[0] is not None:
            messages = value_at(record, self.text[0])
            if any(message[key] is not None for message in messages for key in message.keys() - TURN_KEYS):
                others[self.text[0]] = messages
        return others


def detect_format(
    keys: Sequence[str], fields: Mapping[str, str] | None = None, *, use_source: bool = True
) -> RecordFormat:
    """The format of records with these keys.

    Args:
        keys: a record's keys.
        fields: what the user stated, a name out of `FIELDS` -> the record's field (dots lead into nested objects).
        use_source: whether the record's own source counts; otherwise it is an extra field.

    Raises:
        BadRecord: no field holds text.

    >>> detect_format(["instruction", "output", "year"]).text
    ('instruction', None, 'output')
    """
    stated = dict(fields or {})
    if TEXT_FIELDS.isdisjoint(stated):
        kind, text = _detect_text(keys)
    else:
        kind, text = next(
            (k, tuple(stated.get(f) for f in names)) for k, names in _STATED.items() if names[0] in stated
        )
    id_field = stated.get("id", "id")
    source = stated.get("source", "source") if use_source else None
    used = {name for name in (*text, id_field, source) if name}
    return RecordFormat(kind, text, id_field, source, tuple(key for key in keys if key not in used))


_STATED = {
    "messages": ("messages",),
    "instruction": ("instruction", "input", "output"),
    "prompt_response": ("prompt", "response"),
    "text": ("text",),
}
TEXT_FIELDS = frozenset(names[0] for names in _STATED.values())


def check_fields(fields: Mapping[str, str], where: str) -> None:
    """Refuse a stated mapping that cannot be meant.

    Raises:
        BadInput: an unknown name, or fields of two formats.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise BadInput(f"{where}: fields: unknown name {unknown[0]!r}; known are {', '.join(FIELDS)}")
    formats = [names for names in _STATED.values() if names[0] in fields]
    belong = {*(formats[0] if formats else ()), "id", "source"}
    others = sorted(set(fields) - belong)
    if len(formats) > 1 or others:
        allowed = "; ".join(" + ".join(names) for names in _STATED.values())
        raise BadInput(
            f"{where}: fields: {', '.join(sorted(fields))} do not go together; one of: {allowed} (the first of each is"
            " needed), and id and source with any"
        )


def has_field(keys: Sequence[str], field: str) -> bool:
    """Whether records with these keys can have a stated field."""
    return field in keys or field.partition(".")[0] in keys


def identity(turns: Turns) -> bytes:
    """The 16 bytes that name these turns: blake2b-128 of their compact JSON.

    >>> identity([("text", "a")]) == identity([("user", "a")])
    False
    """
    return blake2b(orjson.dumps(turns), digest_size=ID_BYTES).digest()


def turns_to_columns(turns: Turns) -> tuple[str, str | None, str | None, bool]:
    """How turns are stored: `(prompt, response, messages, empty_response)`.

    A chat of more than one user and one assistant turn keeps all of it in `messages`; its prompt is then the first
    user turn and its response the last turn if the assistant's, both for reading only.
    """
    if len(turns) == 1 and turns[0][0] == "text":
        return turns[0][1], None, None, False
    if len(turns) == 2 and turns[0][0] == "user" and turns[1][0] == "assistant":
        return turns[0][1], turns[1][1], None, not turns[1][1]
    prompt = next(content for role, content in turns if role == "user" and content)
    response = turns[-1][1] if turns[-1][0] == "assistant" else ""
    return prompt, response, orjson.dumps(turns).decode(), not response


def turns_from_columns(prompt: str, response: str | None, messages: str | None) -> Turns:
    """The inverse of `turns_to_columns`.

    >>> turns_from_columns("Why?", "", None)
    [('user', 'Why?'), ('assistant', '')]
    """
    if messages is not None:
        return [(role, content) for role, content in orjson.loads(messages)]
    return [("text", prompt)] if response is None else [("user", prompt), ("assistant", response)]


def turns_from_table(table: pa.Table) -> list[Turns]:
    """The turns of each row of a table with the columns `TURN_COLUMNS`."""
    columns = [table[name].to_pylist() for name in TURN_COLUMNS]
    return [turns_from_columns(*row) for row in zip(*columns, strict=True)]


def _detect_text(keys: Sequence[str]) -> tuple[str, tuple[str | None, ...]]:
    def first(names: Sequence[str]) -> str | None:
        return next((name for name in names if name in keys), None)

    if messages := first(MESSAGES):
        return "messages", (messages,)
    if "instruction" in keys:
        output = next((name for name in ("output", *RESPONSES) if name in keys), None)
        return "instruction", ("instruction", "input" if "input" in keys else None, output)
    prompt, response = first(PROMPTS), first(RESPONSES)
    # "question", "query" and "input" mean many things; beside an answer they are a prompt.
    if prompt == "prompt" or (prompt and response):
        return "prompt_response", (prompt, response)
    if text := first(TEXTS):
        return "text", (text,)
    names = ", ".join(sorted(keys)[:20])
    raise BadRecord(f"no field that holds a prompt, messages or a text (found: {names or 'nothing'})")


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
MISSING = object()


def kind_of(value: Any) -> str:
    """A JSON value's type in words."""
    return _KINDS.get(type(value), "text" if isinstance(value, str) else type(value).__name__)


def value_at(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field, where dots lead into nested objects; `MISSING` if there is none."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return MISSING
        value = value[part]
    return value


def _cause(name: str, value: Any) -> BadRecord:
    if value is MISSING:
        return BadRecord(f"{name} is missing")
    if value is None:
        return BadRecord(f"{name} is null")
    return BadRecord(f"{name} is {kind_of(value)}, not text")


def _tidy(content: str) -> str:
    return content.replace("\r\n", "\n").strip()


def _text(record: Mapping[str, Any], name: str) -> str:
    """Text that must be there."""
    value = value_at(record, name)
    if type(value) is not str:
        raise _cause(name, value)
    if not (text := _tidy(value)):
        raise BadRecord(f"{name} is empty")
    return text


def _text_or_empty(record: Mapping[str, Any], name: str | None) -> str:
    """Text that may be missing."""
    value = MISSING if name is None else value_at(record, name)
    if value is None or value is MISSING:
        return ""
    if type(value) is not str:
        raise _cause(name or "", value)
    return _tidy(value)


def _prompt_response(record: Mapping[str, Any], prompt: str, response: str | None) -> Turns:
    return [("user", _text(record, prompt)), ("assistant", _text_or_empty(record, response))]


def _instruction(record: Mapping[str, Any], instruction: str, context: str | None, output: str | None) -> Turns:
    prompt = _text(record, instruction)
    if text := _text_or_empty(record, context):
        prompt = f"{prompt}\n\n{text}"
    return [("user", prompt), ("assistant", _text_or_empty(record, output))]


def _single_text(record: Mapping[str, Any], name: str) -> Turns:
    return [("text", _text(record, name))]


# What a turn is made of; a tool call, a name or a weight beside it stays in the row's extra fields.
TURN_KEYS = frozenset({"role", "from", "content", "value"})


def _messages(record: Mapping[str, Any], name: str) -> Turns:
    messages = value_at(record, name)
    if not isinstance(messages, list):
        raise _cause(name, messages) if messages is None or messages is MISSING else BadRecord(f"{name} is not a list")
    if not messages:
        raise BadRecord(f"{name} holds no message")
    turns = [_turn(message) for message in messages]
    if not any(role == "user" and content for role, content in turns):
        raise BadRecord("no user message with text")
    return turns


def _turn(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise BadRecord("a message is not an object")
    name = message.get("role", message.get("from"))
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise BadRecord(f"unknown role {str(name)[:40]!r} of a message; known are {', '.join(ROLES)}")
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        content = "\n".join(_part(part) for part in content)
    if not isinstance(content, str):
        raise _cause("the content of a message", content)
    return role, _tidy(content)


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise BadRecord("a message holds a part that is not text")


_READ: dict[str, Callable[..., Turns]] = {
    "messages": _messages,
    "instruction": _instruction,
    "prompt_response": _prompt_response,
    "text": _single_text,
}


def _label(record: Mapping[str, Any], name: str | None) -> str | None:
    """An id or source as text; whatever it is, it never costs the record."""
    if name is None:
        return None
    value = record.get(name) if name in record or "." not in name else value_at(record, name)
    if type(value) is not str:
        if value is None or value is MISSING:
            return None
        value = orjson.dumps(value, default=str).decode().strip('"')
    return value if value.strip() else None
