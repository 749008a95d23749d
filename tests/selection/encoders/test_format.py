from __future__ import annotations

from selection.encoders.format import messages, plain, tulu

TURNS = [("system", " Be brief. \n"), ("user", "Hi\n"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "")]


def test_tulu__each_turn_under_its_role_and_eos_after_each_answer():
    assert tulu(TURNS, "</s>") == (
        "<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nHello</s>\n<|user|>\nBye\n<|assistant|>\n</s>"
    )


def test_tulu__without_an_answer_is_the_question_alone():
    assert tulu([("user", "Hi")], "</s>") == "<|user|>\nHi"


def test_tulu__a_single_text_has_no_role():
    assert tulu([("text", "def f(): pass")], "</s>") == "def f(): pass"


def test_tulu__another_role_gets_a_header_of_its_name():
    assert tulu([("tool", "42"), ("assistant", "It is 42")], "") == "<|tool|>\n42\n<|assistant|>\nIt is 42"


def test_plain__keeps_white_space_of_the_contents():
    assert plain([("user", "  a "), ("assistant", "b")]) == "  a \nb"


def test_messages__a_single_text_is_a_users_turn():
    assert messages([("text", "a")]) == [{"role": "user", "content": "a"}]
