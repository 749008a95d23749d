"""How the turns of a conversation become the text that is encoded. Candidates and targets use the same functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from selection.errors import TemplateRefusal

Turns = Iterable[tuple[str, str]]
Template = Literal["tulu", "plain", "chat_template"]

# The role of a candidate that is a single text, not a conversation.
TEXT = "text"


def tulu(turns: Turns, eos: str) -> str:
    r"""The text that RDS+ encodes: each turn under its role, an assistant's turn closed by `eos`, the result stripped.

    A single text has no role and stays as it is. RDS+ has the roles system, user and assistant; any other role gets a
    header with its name.

    Source: encode_with_messages_format of automated-instruction-selection (RDS+).

    >>> tulu([("user", " Hi "), ("assistant", "Hello")], "</s>")
    '<|user|>\nHi\n<|assistant|>\nHello</s>'
    """
    parts = (
        content if role == TEXT else f"<|{role}|>\n{content.strip()}{eos if role == 'assistant' else ''}\n"
        for role, content in turns
    )
    return "".join(parts).strip()


def plain(turns: Turns) -> str:
    r"""The contents alone, separated by line breaks.

    >>> plain([("user", "Hi"), ("assistant", "Hello")])
    'Hi\nHello'
    """
    return "\n".join(content for _, content in turns)


def messages(turns: Turns) -> list[dict[str, str]]:
    """Turns in the form that a tokenizer's chat template takes; a single text is a user's turn."""
    return [{"role": "user" if role == TEXT else role, "content": content} for role, content in turns]


def templated(tokenizer: Any, turns: Turns) -> str:
    """Turns as the tokenizer's chat template writes them.

    Raises:
        TemplateRefusal: the template does not take them, for example a system turn or two turns of one role.
    """
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages(turns), tokenize=False))
    except (TemplateError, TypeError) as error:  # TypeError: the template adds up what are no texts
        raise TemplateRefusal(error) from error
