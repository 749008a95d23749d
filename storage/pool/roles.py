"""The roles of a chat's messages: what the role names of today's tools and templates mean.

winnow has four roles: user, assistant, system and tool. A name that is not in the table stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

# Written in lower case; case does not count.
ROLES: Mapping[str, str] = {
    # OpenAI, Anthropic, Llama, Qwen, Mistral, TRL, open-instruct; ShareGPT and Vicuna; OASST; Cohere
    "user": "user",
    "human": "user",
    "prompter": "user",
    # Gemma and Gemini say model; exports of web chats name the product
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    # the assistant's call of a tool as a message of its own: LLaMA-Factory, Glaive, axolotl
    "function_call": "assistant",
    "function-call": "assistant",
    "tool_call": "assistant",
    "tool_calls": "assistant",
    "assistant_tool_call": "assistant",
    # developer: OpenAI since the reasoning models
    "system": "system",
    "developer": "system",
    # ipython: Llama 3; observation: LLaMA-Factory; environment: open-instruct
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "environment": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "tool_results": "tool",
    "function_response": "tool",
    "function-response": "tool",
}
# An assistant's message of such a role is a call, not words to the user: it keeps the name of its role.
CALLS = frozenset({"function_call", "function-call", "tool_call", "tool_calls", "assistant_tool_call"})


def with_roles(stated: Mapping[str, str] | None) -> Mapping[str, str]:
    """The table with the user's own names added; what the user states wins.

    >>> with_roles({"Customer": "user"})["customer"]
    'user'
    """
    return ROLES if not stated else {**ROLES, **{name.lower(): role for name, role in stated.items()}}
