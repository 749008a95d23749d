"""A record -> its turns, further content, id, source and extra fields.

A pool's records come in six formats: prompt and response, instruction / input / output, chat messages (role and
content), ShareGPT (from and value), preference pairs (chosen and rejected), one text. The fields of a record that hold
something tell its format, unless the user states a mapping; so a file may mix formats row by row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from re import compile as pattern
from typing import Any

import orjson

from storage.errors import BadInput
from storage.files.readers import Unreadable
from storage.pool.content import Content, Turns, to_json
from storage.pool.roles import CALLS, ROLES

MESSAGES = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "question", "query", "input")
RESPONSES = ("response", "completion", "answer", "output")
TEXTS = ("text", "content")
SYSTEMS = ("system", "system_prompt")
# What a mapping may state.
FIELDS = (
    "prompt",
    "response",
    "instruction",
    "input",
    "output",
    "messages",
    "chosen",
    "rejected",
    "text",
    "system",
    "history",
    "id",
    "source",
)
# Fields that are part of what a trainer sees, beside the turns.
ATTACHED = pattern(
    r"tools|functions|documents|context|passage|(image|audio|video)s?(_(path|url|file|id)s?)?",
)
# Fields that look like an answer: one that is not read is reported.
_ANSWERS = frozenset(
    {*RESPONSES, "responses", "completions", "answers", "outputs", "solution", "reply", "replies", "chosen", "rejected"}
    | {
        "generation",
        "generations",
        "generated_text",
        "model_output",
        "expected_output",
        "best_answer",
        "correct_answer",
    }
)

Fields = Mapping[str, str | Sequence[str]]
# Role, text and what else a message carries.
_Message = tuple[str, str, Content]


class BadRecord(ValueError):
    """A record without usable text; the message is the cause."""


@dataclass(frozen=True)
class RecordFormat:
    """Where a record keeps what: how records with the same filled fields are read.

    Attributes:
        kind: "prompt_response", "instruction", "messages", "preference" or "text".
        text: the fields that hold text, in the order in which `kind` reads them; None where there is none.
        id, source: the fields of the given id and source, None where there is none.
        system, history: the fields of the system prompt and of earlier turns, None where there is none.
        attached: further fields that are part of the content.
        unread: fields that look like an answer and are none of the others; they are part of the content, too.
        extra: all keys but those of text, id and source.
    """

    kind: str
    text: tuple[str | None, ...]
    id: str | None
    source: str | None
    system: str | None
    history: str | None
    attached: tuple[str, ...]
    unread: tuple[str, ...]
    extra: tuple[str, ...]

    def content(
        self, record: Mapping[str, Any], roles: Mapping[str, str] = ROLES, notices: Counter[str] | None = None
    ) -> tuple[Turns, Content | None]:
        """The record's turns, and all else that a trainer would see; None if the turns say everything.

        Args:
            roles: role of a message, in lower case -> role of winnow; others stay as they are.
            notices: counts what a user should know.

        Raises:
            BadRecord: there is no text, or a field is not text.
        """
        if self.is_plain and (turns := self._plain_turns(record)):
            return turns, None
        reader = _Reader(record, roles, Counter() if notices is None else notices)
        messages, content = _READ[self.kind](reader, *self.text)
        messages = self._with_context(reader, messages, content)
        if any(more for *_, more in messages):
            content["messages"] = _written(messages)
        content |= {name: record[name] for name in (*self.attached, *self.unread)}
        for name in self.unread:
            reader.notices[f"{name!r} looks like an answer and was not read (name it under `fields`)"] += 1
        return [(role, text) for role, text, _ in messages], content or None

    @cached_property
    def is_plain(self) -> bool:
        """Whether the turns say everything, two texts or one."""
        return self.kind in ("prompt_response", "text") and not (
            self.system or self.history or self.attached or self.unread
        )

    def _plain_turns(self, record: Mapping[str, Any]) -> Turns | None:
        """The turns of the commonest records, several times faster; None for what is not quite plain."""
        texts = [text for name in self.text if name is not None and type(text := record.get(name)) is str]
        if len(texts) != sum(name is not None for name in self.text) or not (first := _tidy(texts[0])):
            return None
        if self.kind == "text":
            return [("text", first)]
        return [("user", first), ("assistant", _tidy(texts[1]) if len(texts) > 1 else "")]

    def plain_turns(self, records: Sequence[Mapping[str, Any]]) -> list[Turns] | None:
        """The turns of records that all have this format; None if one of them is not quite plain."""
        columns: list[list[Any]] = [[record.get(name) for record in records] for name in self.text if name is not None]
        if not self.is_plain or {type(text) for column in columns for text in column} != {str}:
            return None
        first, *others = [[text.replace("\r\n", "\n").strip() for text in column] for column in columns]
        if not all(first):
            return None
        if self.kind == "text":
            return [[("text", text)] for text in first]
        answers = others[0] if others else [""] * len(records)
        return [[("user", prompt), ("assistant", answer)] for prompt, answer in zip(first, answers, strict=True)]

    def _with_context(self, reader: _Reader, messages: list[_Message], content: Content) -> list[_Message]:
        """The messages behind the system prompt and the history that stand beside them."""
        earlier: list[_Message] = []
        if self.system is not None:
            system = value_at(reader.record, self.system)
            if type(system) is str and self.kind != "text" and messages[0][0] != "system":
                earlier.append(("system", _tidy(system), {}))
            elif [("system", system)] != [(role, text) for role, text, _ in messages[:1]]:
                content["system"] = system
        if self.history is not None:
            history = value_at(reader.record, self.history)
            pairs = _pairs(history) if self.kind != "text" else None
            if pairs is None:
                content["history"] = history
            else:
                for question, answer in pairs:
                    earlier += [("user", question, {}), ("assistant", answer, {})]
        return earlier + messages if earlier else messages

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
            if isinstance(messages, list) and any(
                message[key] is not None for message in messages for key in message.keys() - TURN_KEYS
            ):
                others[self.text[0]] = messages
        return others


def detect_format(record: Mapping[str, Any], fields: Fields | None = None, *, use_source: bool = True) -> RecordFormat:
    """The format of a record, which is that of all records with the same keys of which the same hold something.

    Args:
        fields: what the user stated, a name out of `FIELDS` -> the record's field, or several of which the first that
            holds something counts (dots lead into nested objects).
        use_source: whether the record's own source counts; otherwise it is an extra field.

    Raises:
        BadRecord: no field holds text.

    >>> detect_format({"instruction": "Add.", "output": "3", "year": 2020}).text
    ('instruction', None, 'output')
    """
    filled = [key for key, value in record.items() if not is_empty(value)]

    def first(names: Iterable[str]) -> str | None:
        """The first that holds something, else the first that is there."""
        present = [name for name in names if value_at(record, name) is not MISSING]
        return next((name for name in present if not is_empty(value_at(record, name))), next(iter(present), None))

    stated = {ours: _chosen(record, names) for ours, names in (fields or {}).items()}
    if TEXT_FIELDS.isdisjoint(stated):
        try:
            kind, text = _detect_text(filled, first)
        except BadRecord:  # fields that are there but hold nothing say better what is missing
            kind, text = _detect_text(list(record), first)
    else:
        kind, text = next(
            (k, tuple(stated.get(f) for f in names)) for k, names in _STATED.items() if names[0] in stated
        )
    id_field = stated.get("id", "id")
    source = stated.get("source", "source") if use_source else None
    system = stated.get("system") or next((name for name in SYSTEMS if name in filled), None)
    history = stated.get("history") or ("history" if "history" in filled else None)
    used = {name for name in (*text, id_field, source) if name}
    unused = [key for key in filled if key not in used]
    return RecordFormat(
        kind,
        text,
        id_field,
        source,
        system if system is None or not is_empty(value_at(record, system)) else None,
        history if history is None or not is_empty(value_at(record, history)) else None,
        tuple(key for key in unused if ATTACHED.fullmatch(key)),
        tuple(key for key in unused if key.lower() in _ANSWERS),
        tuple(key for key in record if key not in used),
    )


def filled_keys(record: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """What tells a record's format: its keys, and those of them that hold something if not all do."""
    values = record.values()
    if all(values) and float not in map(type, values):  # NaN is true
        return (tuple(record),)
    filled = tuple(key for key, value in record.items() if not is_empty(value))
    return (filled,) if len(filled) == len(record) else (tuple(record), filled)


_STATED = {
    "messages": ("messages",),
    "preference": ("chosen", "rejected", "prompt"),
    "instruction": ("instruction", "input", "output"),
    "prompt_response": ("prompt", "response"),
    "text": ("text",),
}
TEXT_FIELDS = frozenset(names[0] for names in _STATED.values())
_WITH_ANY = ("system", "history", "id", "source")


def check_fields(fields: Fields, where: str) -> None:
    """Refuse a stated mapping that cannot be meant.

    Raises:
        BadInput: an unknown name, or fields of two formats.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise BadInput(f"{where}: fields: unknown name {unknown[0]!r}; known are {', '.join(FIELDS)}")
    formats = [names for names in _STATED.values() if names[0] in fields]
    if "chosen" in fields:
        formats = [_STATED["preference"]]
    belong = {*(formats[0] if formats else ()), *_WITH_ANY}
    others = sorted(set(fields) - belong)
    if len(formats) > 1 or others:
        allowed = "; ".join(" + ".join(names) for names in _STATED.values())
        raise BadInput(
            f"{where}: fields: {', '.join(sorted(fields))} do not go together; one of: {allowed} (the first of each is"
            f" needed), and {', '.join(_WITH_ANY)} with any"
        )


def named_fields(fields: Fields) -> dict[str, tuple[str, ...]]:
    """Ours -> the user's fields, one or several."""
    return {ours: (theirs,) if isinstance(theirs, str) else tuple(theirs) for ours, theirs in fields.items()}


def has_field(keys: Sequence[str], field: str) -> bool:
    """Whether records with these keys can have a stated field."""
    return field in keys or field.partition(".")[0] in keys


def _chosen(record: Mapping[str, Any], names: str | Sequence[str]) -> str:
    """Of the user's fields the first that holds something; the first if none does."""
    if isinstance(names, str):
        return names
    return next((name for name in names if not is_empty(value_at(record, name))), names[0])


def _detect_text(
    keys: Sequence[str], first: Callable[[Iterable[str]], str | None]
) -> tuple[str, tuple[str | None, ...]]:
    def known(names: Iterable[str]) -> str | None:
        return next((name for name in names if name in keys), None)

    messages = known(MESSAGES)
    if "chosen" in keys and "rejected" in keys:
        return "preference", ("chosen", "rejected", messages or known((*PROMPTS, "instruction")))
    if messages:
        return "messages", (messages,)
    if "instruction" in keys:
        return "instruction", ("instruction", first(("input", "context")), first(("output", *RESPONSES)))
    prompt, response = known(PROMPTS), known(RESPONSES)
    # "question", "query" and "input" mean many things; beside an answer they are a prompt.
    if prompt == "prompt" or (prompt and response):
        return "prompt_response", (prompt, first(RESPONSES))
    if text := known(TEXTS):
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


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: missing, null, NaN, or an empty text, list or object."""
    if type(value) is str:
        return not value
    return value is None or value is MISSING or value in ([], {}) or (type(value) is float and math.isnan(value))


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
    if type(value) is Unreadable:
        return BadRecord(f"{name} cannot be read: {value.cause}")
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
    if type(value) is str:
        return _tidy(value)
    if not is_empty(value) or isinstance(value, list | dict):
        raise _cause(name or "", value)
    return ""


def _is_repeated(message: _Message, answer: list[_Message]) -> bool:
    """Whether an answer holds a message of the prompt, with all that it carries beside its text."""
    _, text, more = message
    return any(text == other and (not more or more == carried) for _, other, carried in answer)


@dataclass(frozen=True, slots=True)
class _Reader:
    """A record on its way to messages."""

    record: Mapping[str, Any]
    roles: Mapping[str, str]
    notices: Counter[str]

    def prompt_response(self, prompt: str, response: str | None) -> tuple[list[_Message], Content]:
        if self._holds_messages(prompt):
            asked = self.conversation(prompt, "user")
            if response is None or is_empty(value_at(self.record, response)):
                return asked, {}
        else:
            asked = [("user", _text(self.record, prompt), {})]
        if response is not None and self._holds_messages(response):
            return asked + self.conversation(response, "assistant"), {}
        return [*asked, ("assistant", _text_or_empty(self.record, response), {})], {}

    def _holds_messages(self, name: str) -> bool:
        value = value_at(self.record, name)
        return isinstance(value, list) and bool(value) and all(isinstance(message, dict) for message in value)

    def instruction(self, instruction: str, context: str | None, output: str | None) -> tuple[list[_Message], Content]:
        prompt = _text(self.record, instruction)
        if text := _text_or_empty(self.record, context):
            prompt = f"{prompt}\n\n{text}"
        return [("user", prompt, {}), ("assistant", _text_or_empty(self.record, output), {})], {}

    def single_text(self, name: str) -> tuple[list[_Message], Content]:
        return [("text", _text(self.record, name), {})], {}

    def messages(self, name: str) -> tuple[list[_Message], Content]:
        messages = self.conversation(name, "user")
        if not any(text or more for role, text, more in messages if role not in ("assistant", "system", "tool")):
            raise BadRecord("no user message with text")
        return messages, {}

    def preference(self, chosen: str, rejected: str, prompt: str | None) -> tuple[list[_Message], Content]:
        """The prompt with the chosen answer; the rejected one is kept beside it."""
        asked = [] if prompt is None or is_empty(value_at(self.record, prompt)) else self.conversation(prompt, "user")
        answers = [self.conversation(name, "assistant" if asked else "text") for name in (chosen, rejected)]
        # A conversation may repeat what was asked.
        whole, other = (
            answer if all(_is_repeated(message, answer) for message in asked) else asked + answer for answer in answers
        )
        # Where no prompt is stated it is what both conversations begin with.
        shared = len(asked)
        while shared < min(len(whole), len(other)) - 1 and whole[shared] == other[shared]:
            shared += 1
        return whole, {"rejected": _written(other[shared:]), "chosen_turns": len(whole) - shared}

    def conversation(self, name: str, role: str) -> list[_Message]:
        """The messages of a field: a list of them, one, or a text of `role`."""
        value = value_at(self.record, name)
        if type(value) is str:
            if (parsed := _parsed(value)) is None:
                if name in MESSAGES:
                    raise BadRecord(f"{name} is not a list")
                return [(role, _text(self.record, name), {})]
            value = parsed
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list):
            raise _cause(name, value) if is_empty(value) or name not in MESSAGES else BadRecord(f"{name} is not a list")
        if not value:
            raise BadRecord(f"{name} holds no message")
        return [self._message(message) for message in value]

    def _message(self, message: Any) -> _Message:
        if not isinstance(message, dict):
            raise BadRecord("a message is not an object")
        name = message.get("role") or message.get("from")
        if not isinstance(name, str) or not name.strip():
            raise BadRecord("a message has no role")
        more = (
            {key: value for key, value in message.items() if key not in _NOT_CONTENT and not is_empty(value)}
            if len(message) > 2
            else {}
        )
        role = self.roles.get(name.strip().lower())
        if role is None:
            role = name.strip()
            self.notices[f"role {role[:40]!r} is unknown and stays as it is (say what it means under `roles`)"] += 1
        elif name.strip().lower() in CALLS:
            more["from"] = name.strip().lower()
        key = next((key for key in ("content", "value", "text") if message.get(key) is not None), "content")
        return role, self._spoken(message.get(key), more), more

    def _spoken(self, content: Any, more: Content) -> str:
        """The text of a message; parts of it that are no text go to `more`."""
        if type(content) is str:
            return _tidy(content)
        if isinstance(content, list):
            texts = [_part(part) for part in content]
            if None in texts:
                more["content"] = content
            return _tidy("\n".join(text for text in texts if text is not None))
        if isinstance(content, dict):
            more["content"] = content
            return ""
        if content is None and more:
            return ""
        raise _cause("the content of a message", content)


# What a message is made of, as the keys of its extra field tell.
TURN_KEYS = frozenset({"role", "from", "content", "value"})
# Keys of a message that say nothing to a trainer: what else it has is content.
_NOT_CONTENT = TURN_KEYS | {"text", "id", "uuid", "message_id", "timestamp", "created_at", "create_time", "update_time"}


def _part(part: Any) -> str | None:
    """The text of a part; None if it is something else."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") in ("text", "input_text", "output_text"):
        return part["text"] if isinstance(part.get("text"), str) else None
    return None


def _written(messages: Iterable[_Message]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text, **more} for role, text, more in messages]


def _parsed(text: str) -> list[Any] | None:
    """The messages that a text holds as JSON, as in a column of a CSV file; None if it does not."""
    if not text.startswith("[{"):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    has_roles = all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)
    return value if has_roles else None


def _pairs(history: Any) -> list[tuple[str, str]] | None:
    """Earlier turns as pairs of question and answer; None if they are something else."""
    if not isinstance(history, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in history
    ):
        return None
    return [(_tidy(question), _tidy(answer)) for question, answer in history]


_READ: dict[str, Callable[..., tuple[list[_Message], Content]]] = {
    "messages": _Reader.messages,
    "preference": _Reader.preference,
    "instruction": _Reader.instruction,
    "prompt_response": _Reader.prompt_response,
    "text": _Reader.single_text,
}


def _label(record: Mapping[str, Any], name: str | None) -> str | None:
    """An id or source as text; whatever it is, it never costs the record."""
    if name is None:
        return None
    value = record.get(name) if name in record or "." not in name else value_at(record, name)
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        if is_empty(value) or type(value) is Unreadable:
            return None
        with suppress(ValueError):  # nested too deep
            value = to_json(value).decode().strip('"')
    return value if isinstance(value, str) and value.strip() else None


def labels(records: Sequence[Mapping[str, Any]], name: str | None) -> list[str | None]:
    """The ids, or the sources, that records of the same keys have in a field, as text; None where there is none."""
    if name is None or ("." not in name and name not in records[0]):
        return [None] * len(records)
    return [_label(record, name) for record in records]
