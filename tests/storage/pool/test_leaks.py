from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.stages.select import _letters
from storage.pool.content import TURN_COLUMNS, Turns, turns_to_columns
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.leaks import Questions, normalized
from storage.pool.snapshot import take_snapshot
from storage.store import Store
from tests.conftest import write_rows

QUESTION = "How many caf\u00e9s are 3.5 miles away, and why?"


def table_of(rows: Sequence[Turns]) -> pa.Table:
    columns = list(zip(*(turns_to_columns(turns)[:3] for turns in rows), strict=True)) or [(), (), ()]
    return pa.table([pa.array(column, pa.string()) for column in columns], TURN_COLUMNS)


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        f"  {QUESTION}\n",
        QUESTION.upper(),
        QUESTION.replace(" ", "\u00a0"),
        QUESTION.replace(" ", " \n\t "),
        QUESTION.replace("s", "s\u200b"),
        "\ufeff" + QUESTION,
        unicodedata.normalize("NFD", QUESTION),
        QUESTION.replace("H", "\uff28"),  # full width
        QUESTION.replace(",", " -").replace("?", "!"),
        QUESTION.replace("fi", "\ufb01"),
        QUESTION.rstrip("?"),
        f"\u201c{QUESTION}\u201d",
        "- " * 40 + QUESTION,
    ],
)
def test_normalized__spelling_does_not_count(text: str) -> None:
    assert normalized(text) == normalized(QUESTION)
    questions = Questions([[("user", QUESTION)]])
    assert questions.asked_in([("user", text)])
    rows: list[Turns] = [[("text", text)], [("user", text), ("assistant", "")], [("user", "Hi"), ("assistant", text)]]
    assert questions.asked_in_rows(table_of(rows)).all()


@pytest.mark.parametrize(
    "text",
    [QUESTION.replace("3.5", "35"), QUESTION.replace("3.5", "3,5"), QUESTION + " Say it.", "caf\u00e9s", "", "?"],
)
def test_normalized__other_words_and_numbers_count(text: str) -> None:
    assert normalized(text) != normalized(QUESTION)
    assert not Questions([[("user", QUESTION)]]).asked_in([("user", text)])


def test_questions__in_any_turn_of_anyone() -> None:
    questions = Questions([[("user", QUESTION), ("assistant", "Because.")]])
    for role in ("user", "assistant", "system", "tool", "text", "critic"):
        assert questions.asked_in([("user", "Hello"), ("assistant", "Hi"), (role, QUESTION)])
    assert not questions.asked_in([("user", "Hello"), ("assistant", "Because.")])


def test_questions__a_target_is_its_whole_conversation() -> None:
    questions = Questions([[("system", "Be kind"), ("user", "Hi"), ("assistant", "Hello"), ("user", QUESTION)]])
    assert not questions.asked_in([("user", "Hi")])
    assert not questions.asked_in([("user", QUESTION)])
    assert not questions.asked_in([("user", QUESTION), ("assistant", "x"), ("user", "hi")])
    assert not questions.asked_in([("user", "Be kind")])
    assert questions.asked_in(
        [("user", "hi!"), ("user", "more"), ("assistant", "x"), ("user", QUESTION), ("user", "y")]
    )
    twice = Questions([[("user", "Again"), ("user", "again")]])
    assert not twice.asked_in([("user", "again")])
    assert twice.asked_in([("user", "again"), ("assistant", "AGAIN")])


def test_questions__targets_that_ask_nothing_exclude_nothing() -> None:
    assert len(Questions([])) == 0
    assert not Questions([[("user", ""), ("assistant", "x")]]).asked_in([("user", "")])
    signs = Questions([[("text", "?!")]])
    assert signs.asked_in([("user", "?!")])
    assert not signs.asked_in([("user", "!?")])


letters = st.text(st.sampled_from("aB1.\u200b \u00a0-?\u00e9e\u0301+,\ufb01\u2028\u0130"), max_size=12)
conversations = st.lists(st.tuples(st.sampled_from(["user", "assistant", "text"]), letters), max_size=4)


@given(letters)
def test_normalized__the_check_compares_the_same_by_another_way(text: str) -> None:
    assert normalized(text) == _letters(text)


@given(st.lists(conversations, max_size=3), conversations)
def test_questions__are_those_of_a_search_without_shortcuts(targets: list[Turns], row: Turns) -> None:
    def held(asked: list[str]) -> bool:
        rest = [normalized(text) for _, text in row]
        for question in asked:
            if question not in rest:
                return False
            rest = rest[rest.index(question) + 1 :]
        return bool(asked)

    asked = [[q for role, text in turns if role in ("user", "text") and (q := normalized(text))] for turns in targets]
    assert Questions(targets).asked_in(row) == any(map(held, asked))


long_texts = st.text(st.sampled_from("aB1 -\u00e9\u4e2d\ufb01\uff28\u1112\u1161\u0301"), min_size=50, max_size=90)
SPELLINGS = [
    str.upper,
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: unicodedata.normalize("NFKD", text),
    lambda text: "\u200b \u00ab" + text.replace(" ", "\u00a0"),
]


@given(long_texts, st.sampled_from(SPELLINGS), st.text(st.sampled_from("aB\u00e9\u4e2d"), max_size=2))
def test_questions__long_texts_of_any_spelling_and_end(text: str, spelled: Callable[[str], str], end: str) -> None:
    other = spelled(text) + end
    asked = normalized(text)
    assert Questions([[("user", text)]]).asked_in([("user", other)]) == (asked != "" and normalized(other) == asked)


alike = st.tuples(
    st.sampled_from(["", "How many are 3.5 miles away?", "\uff28OW many are 3.5 miles away", "x" * 62, "?!"]),
    st.text(st.sampled_from("aB1-?\u00e9\ufb01\u0301"), max_size=3),
).map("".join)
exchanges = st.one_of(
    st.tuples(alike).map(lambda texts: [("text", texts[0])]),
    st.tuples(alike, alike).map(lambda texts: [("user", texts[0]), ("assistant", texts[1])]),
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), alike), min_size=1, max_size=4),
)


@given(st.lists(exchanges, max_size=3), st.lists(exchanges, max_size=6))
def test_questions__of_a_table_are_those_of_its_rows(targets: list[Turns], rows: list[Turns]) -> None:
    questions = Questions(targets)
    assert questions.asked_in_rows(table_of(rows)).tolist() == [questions.asked_in(turns) for turns in rows]


def test_asked_in__of_a_snapshot_and_of_one_that_earlier_rules_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    records = [{"prompt": f"Question {i}?", "response": "x", "id": str(i)} for i in range(50)]
    records.append(
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": "QUESTION 3"}], "id": "chat"}
    )
    random.Random(0).shuffle(records)
    write_rows(tmp_path / "a.jsonl", records)
    snapshot = take_snapshot(store, [ingest_file(store, FileSpec(str(tmp_path / "a.jsonl")))])
    targets: list[Turns] = [[("user", "question 3")], [("user", "Question 7?"), ("assistant", "y")]]
    given_ids = snapshot.column("given_id")
    assert sorted(given_ids[snapshot.asked_in(targets)]) == ["3", "7", "chat"]
    with monkeypatch.context() as unread:  # the same targets again, in another order: nothing is read
        unread.setattr(type(snapshot), "_row_groups", None)
        assert sorted(given_ids[snapshot.asked_in(targets[::-1])]) == ["3", "7", "chat"]
    monkeypatch.setattr("storage.pool.snapshot.RULES", 99)
    earlier = take_snapshot(store, snapshot.ingests)
    assert list(given_ids[earlier.asked_in(targets)]) == ["7"]
