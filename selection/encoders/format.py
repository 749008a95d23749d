"""How the turns of a conversation become the text that is encoded. Candidates and targets use the same functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from selection.errors import TemplateRefusal

Turns = Iterable[tuple[str, str]]
Template = Literal["tulu", "plain", "chat_template", "rds_query"]
Part = Literal["all", "prompt", "response", "first_two"]

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


def part_of(turns: Turns, part: Part) -> list[tuple[str, str]]:
    """Those of the turns that a vector is to stand for.

    "prompt": the first turn, and the second behind a system turn. "response": the first answer, without which nothing
    is left. "first_two": the first two turns behind a system turn. A single text is its own prompt.

    Source: as `prompt_only`, `response_only` and `only_first_two` of RDS+'s encode_with_messages_format.

    >>> turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")]
    >>> part_of(turns, "prompt")
    [('system', 'Be brief.'), ('user', 'Hi')]
    >>> part_of(turns, "response"), part_of(turns, "first_two")
    ([('assistant', 'Hello')], [('user', 'Hi'), ('assistant', 'Hello')])
    """
    every = list(turns)
    first = 1 if every and every[0][0] == "system" else 0
    if part == "prompt":
        return every[: first + 1]
    if part == "response":
        return [turn for turn in every if turn[0] == "assistant"][:1]
    if part == "first_two":
        return every[first : first + 2]
    return every


def rds_query(turns: Turns, eos: str) -> tuple[str, str]:
    r"""The prompt and the answer of a target as RDS+ writes them, to be cut into tokens one by one.

    The turns before a last answer stand under their roles, closed by the header of an answer. A single text is a
    prompt without it.

    Source: create_prompt_with_tulu_chat_format and construct_test_sample of automated-instruction-selection (RDS+).

    >>> rds_query([("user", "2 + 2?"), ("assistant", "4")], "</s>")
    ('<|user|>\n2 + 2?\n<|assistant|>\n', '4</s>')
    """
    every = list(turns)
    answer = every.pop()[1] + eos if every and every[-1][0] == "assistant" else ""
    if [role for role, _ in every] == [TEXT]:
        return every[0][1], answer
    parts = (f"<|{role}|>\n{content.strip() + eos if role == 'assistant' else content}\n" for role, content in every)
    return "".join(parts) + "<|assistant|>\n", answer


def plain(turns: Turns) -> str:
    r"""The contents alone, separated by line breaks.

    >>> plain([("user", "Hi"), ("assistant", "Hello")])
    'Hi\nHello'
    """
    return "\n".join(content for _, content in turns)


def messages(turns: Turns) -> list[dict[str, str]]:
    """Turns in the form that a tokenizer's chat template takes; a single text is a user's turn."""
    return [{"role": "user" if role == TEXT else role, "content": content} for role, content in turns]


def written(template: Template, tokenizer: Any, turns: Turns) -> str:
    """Turns in one of the templates that give a single text.

    Raises:
        TemplateRefusal: the tokenizer's chat template does not take them.
    """
    if template == "tulu":
        return tulu(turns, tokenizer.eos_token or "")
    return plain(turns) if template == "plain" else templated(tokenizer, turns)


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
