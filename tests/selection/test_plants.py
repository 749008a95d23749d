"""Plants: what each disguise changes, and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.kernels.contamination import Contamination
from selection.kernels.words import words
from selection.plants import KINDS, PROMISED, inside

QUESTION = "Yesterday Natalia sold 48 clips to Weng in April, and half of 1,000 in May. How many did Weng's friend buy?"
CHOICE = "Which is the largest?\n(A) the sun\n(B) the moon\n(C) the earth\nAnswer with a letter."


def planted(kind: str, text: str, seed: int = 0) -> str | None:
    return KINDS[kind](text, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", PROMISED)
@given(text=st.text(st.characters(codec="utf-8"), max_size=80) | st.just(QUESTION), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_promised__the_words_stay(kind: str, text: str, seed: int) -> None:
    assert words(planted(kind, text, seed) or "") == words(text)


@pytest.mark.parametrize("kind", PROMISED)
@pytest.mark.parametrize("text", [QUESTION, CHOICE, "Why not?", "\u6f22\u5b57\u306f\u96e3\u3057\u3044"])
def test_promised__is_found_inside_of_another_text(kind: str, text: str) -> None:
    search = Contamination([text])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        carrier = inside("Some words of a row, by which a plant is carried.", KINDS[kind](text, rng) or "", rng)
        (match,) = search.matches([carrier])
        assert match.rule == "exact"


def test_kinds__change_what_they_say() -> None:
    assert planted("verbatim", QUESTION) == QUESTION
    assert {planted("rewrapped", QUESTION, seed).count("\n") for seed in range(9)} == {1, 2}  # type: ignore[union-attr]
    disguised = planted("case_and_punctuation", QUESTION) or ""
    assert disguised != QUESTION
    assert "'" not in disguised
    numbers = planted("numbers_replaced", QUESTION) or ""
    assert [len(word) for word in words(numbers)] == [len(word) for word in words(QUESTION)]
    assert "48" not in numbers
    names = planted("names_replaced", QUESTION) or ""
    assert not {"natalia", "weng", "wengs", "april", "may"} & set(words(names))
    assert "Yesterday" in names  # the first word of a sentence may be no name
    assert "How many" in names


def test_options_reordered__all_options_under_the_letters_that_stood_there() -> None:
    for seed in range(9):
        lines = (planted("options_reordered", CHOICE, seed) or "").split("\n")
        assert [line[:4] for line in lines[1:4]] == ["(A) ", "(B) ", "(C) "]
        assert sorted(line[4:] for line in lines[1:4]) == ["the earth", "the moon", "the sun"]
        assert [line[4:] for line in lines[1:4]] != ["the sun", "the moon", "the earth"]
        assert (lines[0], lines[4]) == ("Which is the largest?", "Answer with a letter.")


@pytest.mark.parametrize("kind", ["numbers_replaced", "names_replaced", "options_reordered"])
def test_kinds__nothing_to_change(kind: str) -> None:
    assert planted(kind, "how many are left?") is None


def test_kinds__the_same_seed_gives_the_same_plant() -> None:
    for kind in KINDS:
        assert planted(kind, QUESTION + CHOICE, 7) == planted(kind, QUESTION + CHOICE, 7)
