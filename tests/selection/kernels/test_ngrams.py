"""Texts as counts of hashed n-grams."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from selection.kernels.ngrams import NgramRows, Ngrams

TEXTS = st.lists(st.sampled_from(["", "a b a", "The cat, the CAT!", "b", "...", "a a a a"]), min_size=1, max_size=8)


@given(texts=TEXTS)
def test_ngram_rows__count_the_ngrams_of_each_text_and_have_length_1(texts: list[str]) -> None:
    rows = NgramRows(texts, 64)
    for text, row in zip(texts, rows.take(np.arange(len(texts))).toarray(), strict=True):
        counts = Counter(bucket for block in Ngrams(64).blocks([text]) for bucket in block.bucket.tolist())
        expected = np.zeros(64)
        for bucket, count in counts.items():
            expected[bucket] = count / np.sqrt(sum(c * c for c in counts.values()))
        np.testing.assert_allclose(row, expected)


@given(texts=TEXTS)
def test_ngram_rows__blocks_and_take_give_the_same(texts: list[str]) -> None:
    rows = NgramRows(texts, 64)
    whole = np.concatenate([block.toarray() for _, block in rows.blocks()])
    back = np.arange(len(texts))[::-1]
    assert (rows.take(back).toarray() == whole[back]).all()
    assert rows.take(back[:0]).shape == (0, 64)
