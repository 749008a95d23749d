from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.pool.record_formats import (
    BadRecord,
    Turns,
    check_fields,
    detect_format,
    identity,
    turns_from_columns,
    turns_to_columns,
)

content = st.text(st.characters(exclude_categories=["Cs"]))


def turns_of(record: dict[str, Any], **fields: str) -> Turns:
    return detect_format(tuple(record), fields or None).turns(record)


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"prompt": "q", "response": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"prompt": "q", "completion": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"question": "q", "answer": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"input": "q", "output": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"prompt": "q"}, [("user", "q"), ("assistant", "")]),
        ({"prompt": "q", "response": None}, [("user", "q"), ("assistant", "")]),
        ({"prompt": "q", "response": " \n"}, [("user", "q"), ("assistant", "")]),
        ({"instruction": "do", "input": "this", "output": "done"}, [("user", "do\n\nthis"), ("assistant", "done")]),
        ({"instruction": "do", "input": "", "output": "done"}, [("user", "do"), ("assistant", "done")]),
        ({"instruction": "do", "output": "done"}, [("user", "do"), ("assistant", "done")]),
        ({"instruction": "do", "response": "done"}, [("user", "do"), ("assistant", "done")]),
        ({"text": "t", "label": 1}, [("text", "t")]),
        ({"prompt": "  a\r\nb\rc \u00a0", "response": "x"}, [("user", "a\nb\rc"), ("assistant", "x")]),
        (
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
            [("system", "s"), ("user", "q")],
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            [("user", "q"), ("assistant", "a")],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
            [("user", "a\nb")],
        ),
    ],
)
def test_detect__each_shape(record: dict[str, Any], turns: Turns):
    assert turns_of(record) == turns


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        ({"id": "1", "response": "a"}, "no field that holds a prompt, messages or a text (found: id, response)"),
        ({}, "no field that holds a prompt, messages or a text (found: nothing)"),
        ({"PROMPT": "q", "response": "a"}, "no field that holds"),
        ({"prompt": None, "response": "a"}, "prompt is null"),
        ({"prompt": "", "response": "a"}, "prompt is empty"),
        ({"prompt": " \u2003\n", "response": "a"}, "prompt is empty"),
        ({"prompt": 3, "response": "a"}, "prompt is a number, not text"),
        ({"prompt": {"text": "q"}, "response": "a"}, "prompt is an object, not text"),
        ({"prompt": "q", "response": ["a"]}, "response is a list, not text"),
        ({"prompt": "q", "response": True}, "response is true or false, not text"),
        ({"instruction": "do", "input": 3, "output": "x"}, "input is a number, not text"),
        ({"text": ""}, "text is empty"),
        ({"messages": []}, "messages holds no message"),
        ({"messages": None}, "messages is null"),
        ({"messages": "hello"}, "messages is not a list"),
        ({"messages": ["hello"]}, "a message is not an object"),
        ({"messages": [{"role": "user", "content": None}]}, "the content of a message is null"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "unknown role 'bot'"),
        ({"messages": [{"content": "x"}]}, "unknown role 'None'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part that is not text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no user message with text"),
        ({"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "x"}]}, "no user message"),
    ],
)
def test_turns__cause_of_what_cannot_be_read(record: dict[str, Any], cause: str):
    with pytest.raises(BadRecord) as error:
        turns_of(record)
    assert cause in str(error.value)


def test_stated_fields__win_over_detection_and_reach_into_objects():
    record = {"prompt": "not this", "data": {"question": {"text": "q"}}, "reply": "a", "uid": 7}
    shape = detect_format(tuple(record), {"prompt": "data.question.text", "response": "reply", "id": "uid"})
    assert shape.turns(record) == [("user", "q"), ("assistant", "a")]
    assert shape.given_id(record) == "7"
    assert shape.others(record) == {"prompt": "not this", "data": {"question": {"text": "q"}}}


def test_stated_fields__a_row_without_the_stated_prompt():
    with pytest.raises(BadRecord, match="body is missing"):
        turns_of({"text": "t"}, text="body")


def test_stated_id_only__the_text_is_still_detected():
    record = {"text": "t", "key": "k"}
    shape = detect_format(tuple(record), {"id": "key"})
    assert (shape.turns(record), shape.given_id(record), shape.extra) == ([("text", "t")], "k", ())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"promt": "x"}, "unknown name 'promt'; known are prompt, response"),
        ({"prompt": "x", "messages": "y"}, "do not go together"),
        ({"prompt": "x", "output": "y"}, "do not go together"),
        ({"response": "y"}, "do not go together"),
    ],
)
def test_check_fields__says_what_is_allowed(fields: dict[str, str], message: str):
    with pytest.raises(BadInput, match=message):
        check_fields(fields, "pool")


@pytest.mark.parametrize(
    ("given", "text"),
    [("x", "x"), (" x y ", " x y "), (7, "7"), (1.5, "1.5"), ([1], "[1]"), (True, "true"), (None, None), ("", None)],
)
def test_given_id__becomes_text_and_never_costs_the_record(given: Any, text: str | None):
    record = {"id": given, "prompt": "q"}
    shape = detect_format(tuple(record))
    assert shape.given_id(record) == text
    assert shape.turns(record)


def test_a_constant_source__makes_the_record_s_own_an_extra_field():
    shape = detect_format(("text", "source"), use_source=False)
    assert (shape.source, shape.extra) == (None, ("source",))


def test_identity__crlf_and_outer_space_do_not_count_and_all_else_does():
    plain = identity(turns_of({"prompt": "a\nb", "response": "c"}))
    assert identity(turns_of({"prompt": " a\r\nb\n", "response": "c\t"})) == plain
    assert (
        identity(turns_of({"messages": [{"role": "user", "content": "a\nb"}, {"from": "gpt", "value": "c"}]})) == plain
    )
    for other in (
        {"prompt": "a\rb", "response": "c"},
        {"prompt": "A\nb", "response": "c"},
        {"prompt": "a\n b", "response": "c"},
    ):
        assert identity(turns_of(other)) != plain


def test_identity__is_the_same_for_ever():
    # Ids are in users' stores: a change here orphans them all.
    assert identity([("user", "Why?"), ("assistant", "é")]).hex() == "8a21c91b6a9ffb83c70b513421cb3476"


roles = st.sampled_from(["user", "assistant", "system", "tool"])
chats = st.lists(st.tuples(roles, content), min_size=1, max_size=4).filter(
    lambda turns: any(role == "user" and text for role, text in turns)
)


@given(chats | st.tuples(st.just("text"), content.filter(bool)).map(lambda turn: [turn]))
def test_columns__give_back_the_turns(turns: Turns):
    prompt, response, messages, _ = turns_to_columns(turns)
    assert turns_from_columns(prompt, response, messages) == turns


def test_columns__only_longer_chats_keep_messages():
    assert turns_to_columns([("user", "q"), ("assistant", "a")]) == ("q", "a", None, False)
    assert turns_to_columns([("user", "q"), ("assistant", "")]) == ("q", "", None, True)
    assert turns_to_columns([("text", "t")]) == ("t", None, None, False)
    long = [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "more")]
    assert turns_to_columns(long) == ("q", "", orjson.dumps(long).decode(), True)


def test_others__messages_that_hold_more_than_role_and_text_are_kept_as_they_are():
    plain = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    called = [plain[0], {**plain[1], "tool_calls": [{"name": "f"}], "weight": 0}]
    for messages, others in ((plain, {"year": 1}), (called, {"year": 1, "messages": called})):
        record = {"messages": messages, "year": 1}
        shape = detect_format(list(record))
        assert shape.turns(record) == [("user", "q"), ("assistant", "a")]
        assert shape.others(record) == others
