from __future__ import annotations

import hashlib
import math
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from selection import InvalidBudget, InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.kernels import ngrams as ngram_module
from selection.kernels.ngrams import Ngrams
from selection.scorers.dsir import Dsir

RAW = ["the cat sat.", "stocks fell today", "a cat and a dog", "the market fell"]
TARGET = ["the cat", "a dog sat"]
# Of "The cat" and "sat, \\ud800 the CAT": words, then pairs. Stored selections depend on these.
FAST = [9790, 1939, 9063, 7126, 4914, 9790, 1939, 4558, 2117, 9544, 5138, 4558]
PUBLISHED = {"length_normalize": False, "laplace": 0, "hash": "sha256"}


def scores(step: Dsir, raw: list[str] = RAW, target: list[str] = TARGET) -> list[float]:
    rng = np.random.default_rng(0)
    return [float(score) for score in step.score(Pool(texts=raw, target_texts=target), rng=rng)]


def test_dsir__known_answers() -> None:
    ngrams = Ngrams(16, exact=True)
    assert ngrams.counts(RAW).tolist() == [7, 1, 1, 1, 1, 2, 1, 0, 2, 2, 1, 2, 0, 2, 2, 1]
    assert ngrams.counts(TARGET).tolist() == [1, 1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 1]
    published = Dsir(buckets=16, **PUBLISHED)
    np.testing.assert_allclose(scores(published), [-29.150393, -63.497034, -12.397754, -33.320081], atol=1e-5)
    pool = Pool(texts=RAW, target_texts=TARGET)
    assert select([published], pool, budget=4).rows.tolist() == [2, 0, 3, 1]
    smooth = [-0.692464, -2.931991, -0.398847, -4.051222]
    for laplace in (1, "auto"):
        step = Dsir(buckets=16, **(PUBLISHED | {"laplace": laplace}))
        np.testing.assert_allclose(scores(step), smooth, atol=1e-6)
    normalized = Dsir(buckets=16, laplace=1, hash="sha256")
    np.testing.assert_allclose(scores(normalized), np.divide(smooth, [4, 3, 5, 3]), atol=1e-6)


def literal(texts: list[str], targets: list[str], step: Dsir) -> list[float]:
    """Straight from the formula, one n-gram at a time."""

    def buckets(text: str) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]+", text.lower())
        grams = words + [f"{a} {b}" for a, b in pairwise(words)]
        return [int(hashlib.sha256(gram.encode()).hexdigest(), 16) % step.buckets for gram in grams]

    def shares(several: list[str], extra: float) -> list[float]:
        count = [extra] * step.buckets
        for text in several:
            for bucket in buckets(text):
                count[bucket] += 1
        total = sum(count)
        return [c / total for c in count]

    laplace = 1.0 if step.laplace == "auto" else float(step.laplace)
    p, q = shares(targets, laplace), shares(texts, 0)
    result = []
    for text in texts:
        length = len(re.findall(r"\w+|[^\w\s]+", text.lower()))
        weight = sum(math.log(p[bucket] + 1e-8) - math.log(q[bucket] + 1e-8) for bucket in buckets(text))
        enough = length >= max(step.min_tokens, 1)
        result.append((weight / length if step.length_normalize else weight) if enough else -math.inf)
    return result


VOCABULARY = ["a", "The", "cat", "Été", "naïve", "...", "?!", "x_1", "42", "日本語", "\n", "ß", "\t"]


@pytest.mark.parametrize("seed", range(70))
def test_dsir__equals_the_formula(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(ngram_module, "BLOCK_TEXTS", int(rng.integers(1, 6)))
    monkeypatch.setattr(ngram_module, "REMEMBERED", int(rng.integers(0, 9)))
    texts = [" ".join(rng.choice(VOCABULARY, rng.integers(0, 7))) for _ in range(rng.integers(1, 15))] + ["cat"]
    texts += texts[: len(texts) // 2]  # ties
    targets = [" ".join(rng.choice(VOCABULARY, 4)) for _ in range(rng.integers(1, 4))] + ["cat"]
    step = Dsir(
        buckets=int(rng.choice([1, 7, 64, 10_000])),
        laplace=[0, 0.5, "auto"][seed % 3],
        length_normalize=bool(seed % 2),
        min_tokens=int(rng.integers(0, 4)),
        hash="sha256",
    )
    np.testing.assert_allclose(scores(step, texts, targets), literal(texts, targets, step), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("hash_", ["fast", "sha256"])
def test_dsir__blocks_change_no_bit(hash_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(np.random.default_rng(i).choice(VOCABULARY, 30)) for i in range(40)]
    whole = scores(Dsir(hash=hash_), texts)
    for block_texts, characters in ((1, 2**20), (7, 2**20), (4096, 1), (4096, 300)):
        monkeypatch.setattr(ngram_module, "BLOCK_TEXTS", block_texts)
        monkeypatch.setattr(ngram_module, "BLOCK_CHARACTERS", characters)
        assert scores(Dsir(hash=hash_), texts) == whole


def test_dsir__the_fast_hash_is_the_same_on_any_machine() -> None:
    buckets = [block.bucket.tolist() for block in Ngrams(10_000).blocks(["The cat", "sat, \ud800 the CAT"])]
    assert buckets == [FAST]


def test_dsir__the_fast_hash_spreads_pairs_evenly() -> None:
    counts = Ngrams(100).counts([" ".join(map(str, range(i, i + 200))) for i in range(0, 20_000, 200)])
    assert counts.min() / counts.mean() > 0.5
    assert counts.max() / counts.mean() < 1.5


def test_dsir__a_pair_is_another_in_another_order() -> None:
    ab, ba = (next(Ngrams(2**40).blocks([text])).bucket[-1] for text in ("a b", "b a"))
    assert ab != ba


def test_dsir__rows_of_too_few_tokens_are_dropped_and_reported() -> None:
    texts = ["the cat", "", " \n ", "the cat sat on a mat"]
    selection = select(["dsir"], Pool(texts=texts, target_texts=TARGET), budget=2)
    assert sorted(selection.rows.tolist()) == [0, 3]
    assert [report.rows.tolist() for report in selection.dropped] == [[1, 2]]
    with pytest.raises(InvalidBudget, match=r"budget must be in 0..1 \(candidates left after dsir\), got 2"):
        select([{"dsir": {"min_tokens": 3}}], Pool(texts=texts, target_texts=TARGET), budget=2)


@pytest.mark.slow
def test_dsir__softmax_after_it_is_gumbel_top_k() -> None:
    """With a budget of 1, each row is drawn in proportion to its importance weight."""
    pool = Pool(texts=RAW, target_texts=TARGET)
    steps = [{"dsir": {"length_normalize": False, "laplace": 1, "buckets": 16, "hash": "sha256"}}, "softmax"]
    weights = np.exp([-0.692464, -2.931991, -0.398847, -4.051222])
    drawn = np.bincount([select(steps, pool, budget=1, seed=seed).rows[0] for seed in range(1500)], minlength=4)
    np.testing.assert_allclose(drawn / 1500, weights / weights.sum(), atol=0.04)


@pytest.mark.parametrize("targets", [[], [""], [" \n\t"]])
def test_dsir__targets_without_a_word_are_an_error(targets: list[str]) -> None:
    with pytest.raises(InvalidInput, match="target_texts: there is no word in them"):
        select(["dsir"], Pool(texts=RAW, target_texts=targets), budget=1)


def test_dsir__bad_inputs() -> None:
    with pytest.raises(MissingInput, match=r"dsir needs target_texts. The pool has texts"):
        select(["dsir"], Pool(texts=RAW), budget=1)
    with pytest.raises(InvalidInput, match="target_texts: must be a list of strings, got a str"):
        Pool(texts=RAW, target_texts="one text")
    with pytest.raises(InvalidInput, match="target_texts: number 1 is a NoneType, must be a string"):
        Pool(texts=RAW, target_texts=["a", None])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"laplace": "some"}, "laplace must be auto or a finite number >= 0, got 'some'"),
        ({"laplace": -1}, "laplace must be auto or a finite number >= 0, got -1"),
        ({"laplace": float("nan")}, "laplace must be auto or a finite number"),
        ({"laplace": True}, "laplace must be auto or a finite number"),
        ({"min_tokens": -1}, "min_tokens must be an integer >= 0"),
        ({"buckets": 0}, "buckets must be an integer >= 1"),
        ({"hash": "md5"}, "hash must be one of fast, sha256, got 'md5'"),
        ({"length_normalize": 1}, "length_normalize must be true or false"),
    ],
)
def test_dsir__bad_options(options: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Dsir(**options)
