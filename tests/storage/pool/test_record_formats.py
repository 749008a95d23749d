from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.pool.content import Content, Turns, identity, turns_from_columns, turns_to_columns
from storage.pool.record_formats import BadRecord, check_fields, detect_format
from storage.pool.roles import with_roles

content = st.text(st.characters(exclude_categories=["Cs"]))


def turns_of(record: dict[str, Any], **fields: str) -> Turns:
    return content_of(record, **fields)[0]


def content_of(record: dict[str, Any], **fields: str) -> tuple[Turns, Content | None]:
    return detect_format(record, fields or None).content(record)


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
        ({"messages": [{"content": "x"}]}, "a message has no role"),
        ({"messages": [{"role": 3, "content": "x"}]}, "a message has no role"),
        ({"messages": [{"role": "user", "content": 3}]}, "the content of a message is a number, not text"),
        ({"chosen": 3, "rejected": "b", "prompt": "q"}, "chosen is a number, not text"),
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
    shape = detect_format(record, {"prompt": "data.question.text", "response": "reply", "id": "uid"})
    assert shape.content(record)[0] == [("user", "q"), ("assistant", "a")]
    assert shape.given_id(record) == "7"
    assert shape.others(record) == {"prompt": "not this", "data": {"question": {"text": "q"}}}


def test_stated_fields__a_row_without_the_stated_prompt():
    with pytest.raises(BadRecord, match="body is missing"):
        turns_of({"text": "t"}, text="body")


def test_stated_id_only__the_text_is_still_detected():
    record = {"text": "t", "key": "k"}
    shape = detect_format(record, {"id": "key"})
    assert (shape.content(record)[0], shape.given_id(record), shape.extra) == ([("text", "t")], "k", ())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"promt": "x"}, "unknown name 'promt'; known are prompt, response"),
        ({"prompt": "x", "messages": "y"}, "do not go together"),
        ({"prompt": "x", "output": "y"}, "do not go together"),
        ({"response": "y"}, "do not go together"),
        ({"chosen": "y", "messages": "m"}, "do not go together"),
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
    shape = detect_format(record)
    assert shape.given_id(record) == text
    assert shape.content(record)[0]


def test_a_constant_source__makes_the_record_s_own_an_extra_field():
    shape = detect_format({"text": "t", "source": "s"}, use_source=False)
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
        shape = detect_format(record)
        assert shape.content(record)[0] == [("user", "q"), ("assistant", "a")]
        assert shape.others(record) == others


# ---- what a row is: all that a trainer would see

USER = {"role": "user", "content": "q"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "a.png"}}


@pytest.mark.parametrize(
    ("record", "others"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, [{"rejected": "c"}, {"chosen": "c"}]),
        ({"prompt": "q", "response": "a", "system": "s"}, [{"system": "t"}, {"system": ""}]),
        ({"question": "q", "response": "a", "system_prompt": "s"}, [{"system_prompt": "t"}]),
        ({"instruction": "q", "output": "a", "history": [["x", "y"]]}, [{"history": [["x", "z"]]}, {"history": []}]),
        ({"instruction": "q", "output": "a", "context": "c"}, [{"context": "d"}]),
        ({"question": "q", "answer": "a", "context": "c"}, [{"context": "d"}]),
        ({"prompt": "q", "response": "a", "image": "1.png"}, [{"image": "2.png"}, {"image": None}]),
        ({"prompt": "q", "response": "a", "image": b"1"}, [{"image": b"2"}]),
        ({"prompt": "q", "response": "a", "tools": [{"name": "f"}]}, [{"tools": [{"name": "g"}]}, {"tools": None}]),
        (
            {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
            [{"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "2"}]}]}],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}, IMAGE]}]},
            [{"messages": [USER]}, {"messages": [{"role": "user", "content": [IMAGE]}]}],
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": "a", "reasoning_content": "r"}]},
            [{"messages": [USER, {"role": "assistant", "content": "a"}]}],
        ),
        (
            {"messages": [USER, {"role": "function_call", "content": "a"}]},
            [{"messages": [USER, {"from": "gpt", "value": "a"}]}],
        ),
        ({"messages": [{**USER, "name": "Ann"}]}, [{"messages": [{**USER, "name": "Bob"}]}, {"messages": [USER]}]),
    ],
)
def test_identity__rows_that_differ_in_anything_a_trainer_sees_are_different_rows(record, others):
    ids = {identity(*content_of({**record, **other})) for other in others}
    assert identity(*content_of(record)) not in ids
    assert len(ids) == len(others)


def test_identity__what_says_nothing_to_a_trainer_does_not_count():
    plain = identity(*content_of({"messages": [USER, {"from": "gpt", "value": "a"}]}))
    for record in (
        {"messages": [{**USER, "name": None, "tool_calls": []}, {"role": "model", "content": "a"}]},
        {
            "messages": [
                {**USER, "id": "m1", "timestamp": 3},
                {"role": "Assistant", "content": [{"type": "text", "text": "a"}]},
            ]
        },
        {"prompt": "q", "response": "a", "system": None, "history": [], "tools": "", "images": [], "year": 7},
        {"prompt": [USER], "completion": [{"role": "assistant", "content": "a"}]},
        {"conversations": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'},
    ):
        assert identity(*content_of(record)) == plain


def test_preference__a_prompt_with_an_image_and_no_text_is_not_taken_for_an_empty_answer():
    image = [{"type": "image", "url": "a.png"}]
    record = {
        "messages": [{"role": "user", "content": image}],
        "chosen": [{"role": "tool", "content": ""}],
        "rejected": "0",
    }
    _, content = detect_format(record).content(record)
    assert content is not None
    assert content["messages"][0] == {"role": "user", "content": image}


def test_preference__is_the_prompt_with_the_chosen_answer_and_the_rejected_one_beside_it():
    turns = [("user", "q"), ("assistant", "a")]
    whole = {"rejected": [{"role": "assistant", "content": "b"}], "chosen_turns": 1}
    messages = [USER, {"role": "assistant", "content": "a"}]
    rejected = [USER, {"role": "assistant", "content": "b"}]
    for record in (
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"question": "q", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": messages, "rejected": rejected},
        {"chosen": messages, "rejected": rejected},
        {"prompt": [USER], "chosen": messages[1:], "rejected": rejected[1:]},
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}}
        | {"rejected": {"from": "gpt", "value": "b"}},
    ):
        assert content_of(record) == (turns, whole)
    assert content_of({"chosen": "\n\nHuman: q", "rejected": "x"}) == (
        [("text", "Human: q")],
        {"rejected": [{"role": "text", "content": "x"}], "chosen_turns": 1},
    )


def test_system_and_history__come_before_the_turns():
    record = {"system": "s", "history": [["a", "b"]], "instruction": "q", "input": "", "output": "c"}
    assert content_of(record) == (
        [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "q"), ("assistant", "c")],
        None,
    )
    beside = {"system": "s", "messages": [{"role": "system", "content": "t"}, USER]}
    assert content_of(beside) == ([("system", "t"), ("user", "q")], {"system": "s"})
    assert content_of({**beside, "system": "t"}) == ([("system", "t"), ("user", "q")], None)
    assert content_of({"text": "t", "system": "s"}) == ([("text", "t")], {"system": "s"})
    assert content_of({"prompt": "q", "history": "long"})[1] == {"history": "long"}


# ---- the format is read from the values


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"prompt": "q", "response": None, "completion": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"prompt": "q", "response": "", "completion": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"prompt": "q", "response": float("nan"), "output": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"messages": None, "prompt": "q", "response": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"messages": [], "text": "t"}, [("text", "t")]),
        ({"instruction": None, "text": "t"}, [("text", "t")]),
        ({"prompt": None, "question": "q", "answer": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"chosen": None, "rejected": None, "prompt": "q", "response": "a"}, [("user", "q"), ("assistant", "a")]),
    ],
)
def test_detect__fields_that_hold_nothing_do_not_count(record: dict[str, Any], turns: Turns):
    assert turns_of(record) == turns


def test_stated_fields__of_several_the_first_that_holds_something_counts():
    fields = {"prompt": ["q", "meta.q"], "response": ["r1", "r2"]}
    for record in ({"q": "a", "r1": None, "r2": "b"}, {"q": None, "meta": {"q": "a"}, "r1": "b", "r2": "c"}):
        assert detect_format(record, fields).content(record)[0] == [("user", "a"), ("assistant", "b")]


def test_an_answer_that_is_not_read__is_counted():
    for record, name in (
        ({"text": "t", "answer": "a"}, "answer"),
        ({"messages": [USER], "Completion": "a"}, "Completion"),
        ({"prompt": "q", "response": "a", "chosen": "b"}, "chosen"),
    ):
        notices: Counter[str] = Counter()
        detect_format(record).content(record, notices=notices)
        assert notices == {f"{name!r} looks like an answer and was not read (name it under `fields`)": 1}


# ---- roles


def test_roles__of_any_tool_are_known_and_others_stay_as_they_are():
    names = [
        "Human",
        "USER",
        "prompter",
        "model",
        "bot",
        "chatgpt",
        "developer",
        "ipython",
        "observation",
        "tool_response",
    ]
    record = {"messages": [{"role": name, "content": "x"} for name in names] + [{"role": "critic", "content": "x"}]}
    notices: Counter[str] = Counter()
    turns, content = detect_format(record).content(record, notices=notices)
    assert [role for role, _ in turns] == [*["user"] * 3, *["assistant"] * 3, "system", *["tool"] * 3, "critic"]
    assert content is None
    assert list(notices) == ["role 'critic' is unknown and stays as it is (say what it means under `roles`)"]
    turns, _ = detect_format(record).content(record, with_roles({"Critic": "user", "bot": "tool"}))
    assert (turns[-1], turns[4]) == (("user", "x"), ("tool", "x"))


def test_a_message_without_text__is_kept_with_what_else_it_carries():
    record = {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None}]}
    assert content_of(record) == (
        [("user", "q"), ("assistant", "")],
        {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
    )
    result = {"role": "tool", "content": {"degrees": 3}}
    assert content_of({"messages": [USER, result]})[1] == {"messages": [USER, result]}
    only_image = {"messages": [{"role": "user", "content": [IMAGE]}]}
    assert content_of(only_image) == ([("user", "")], {"messages": [{"role": "user", "content": [IMAGE]}]})
