"""Rows as tokens and batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.trials.text import END, Reader, Tokens, batches, packed, shortened, train_reader

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


def row(length: int, answer_from: int = 0) -> Tokens:
    return Tokens(np.arange(length, dtype=np.int32), np.arange(length) >= answer_from)


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(1, 5), st.integers(2, 9), st.integers(0, 9))
def test_packed__whole_rows_in_turn_and_each_as_often_as_others(lengths, count, context, seed) -> None:
    rows = [Tokens(np.full(length, n, np.int32), np.ones(length, np.bool_)) for n, length in enumerate(lengths)]
    ids, answer = packed(rows, count, context, np.random.default_rng(seed))
    assert ids.shape == answer.shape == (count, context)
    again, _ = packed(rows, count, context, np.random.default_rng(seed))
    assert np.array_equal(ids, again)
    epochs = count * context // sum(lengths)
    read = np.bincount(ids.ravel(), minlength=len(rows)) / np.array(lengths)
    assert (read >= epochs).all()
    assert (read <= epochs + 1).all()


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(1, 40))
def test_batches__every_row_once(lengths, tokens) -> None:
    made = list(batches([row(length) for length in lengths], tokens))
    assert sorted(place for places in made for place in places) == list(range(len(lengths)))
    for places in made:
        assert len(places) == 1 or len(places) * max(lengths[place] for place in places) <= tokens


def test_shortened__keeps_the_end_of_the_prompt_and_the_beginning_of_the_answer() -> None:
    assert shortened(row(8, 3), 8).ids.tolist() == list(range(8))
    assert shortened(row(20, 10), 8).ids.tolist() == list(range(6, 14))
    assert shortened(row(20, 18), 8).ids.tolist() == list(range(12, 20))  # a short answer: all of it
    assert shortened(row(20, 0), 8).ids.tolist() == list(range(8))


def test_reader__reads_what_it_was_not_trained_on() -> None:
    reader = train_reader(["a fox and a dog"] * 9, 300)
    (tokens,) = reader.read([[("system", "Kurz."), ("user", "Füchse? \ud800"), ("assistant", "ja 🦊")]])
    assert isinstance(reader, Reader)
    text = reader.raw.decode(tokens.ids[tokens.answer].tolist(), skip_special_tokens=False)
    assert text == f"ja 🦊{END}"
    assert (
        reader.raw.decode(tokens.ids[~tokens.answer].tolist())
        == "<|system|>\nKurz.\n<|user|>\nFüchse? ?\n<|assistant|>\n"
    )
