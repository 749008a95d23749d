"""A stored row as a trainer would see it: its messages or its text, the rejected answer, and further fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.exports.exact_json import loads
from storage.pool.content import Turns, turns_from_columns

Message = dict[str, Any]
_PLAIN = {"role", "content"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row's content.

    Attributes:
        messages: role, content and whatever else each message carries; empty for a single text.
        text: the single text, else None.
        chosen: how many messages at the end are the chosen answer; 0 where there is no rejected one.
        rejected: the messages of the rejected answer; a single one of role "text" for a pair of texts.
        fields: what else a trainer would see, by the names that the user's file has for it: tools, images, ...
    """

    messages: list[Message]
    text: str | None = None
    chosen: int = 0
    rejected: list[Message] = field(default_factory=list)
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_pair(self) -> bool:
        """Whether it is a chosen and a rejected answer."""
        return self.chosen > 0

    @property
    def characters(self) -> int:
        """Characters of its texts."""
        texts = [self.text or "", *(message["content"] for message in (*self.messages, *self.rejected))]
        return sum(len(text) for text in texts if isinstance(text, str))


def stored_conversation(
    prompt: str, response: str | None, messages: str | None, content_json: str | None
) -> Conversation:
    """The conversation behind the columns of the pool, see `storage.pool.content`.

    >>> stored_conversation("Why?", "So.", None, '{"tools": "[]"}').fields
    {'tools': '[]'}
    """
    turns = turns_from_columns(prompt, response, messages)
    content = {} if content_json is None else loads(content_json)
    rejected, chosen = content.pop("rejected", []), content.pop("chosen_turns", 0)
    whole = content.pop("messages", None)
    if whole is None and len(turns) == 1 and turns[0][0] == "text":
        return Conversation([], turns[0][1], chosen, rejected, content)
    return Conversation(whole or _messages(turns), None, chosen, rejected, content)


def is_plain(message: Message) -> bool:
    """Whether a message is a role and a text, and nothing else."""
    return message.keys() == _PLAIN and isinstance(message["content"], str)


def _messages(turns: Turns) -> list[Message]:
    return [{"role": role, "content": text} for role, text in turns]
