from __future__ import annotations

import hashlib
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.encoders import NgramSpec, load_vectorizer, record_of
from selection.errors import InvalidOption
from selection.kernels import ngrams as kernel
from tests.selection.encoders.test_projection import splitmix64

SMALL = NgramSpec(buckets=1000, dims=64)
WORDS = ["the", "The", "Été", "naïve", "...", "?!", "x_1", "42", "日本語", "İ", "ß", "\n", "\ud800", "a\u0301", "🦊"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), min_size=1, max_size=8)
MASK = 2**64 - 1


def vectors_of(spec: NgramSpec, texts: list[str]) -> np.ndarray:
    return load_vectorizer(spec).vectors_of([[("text", text)] for text in texts]).vectors


def counts_of(text: str, spec: NgramSpec) -> Counter[int]:
    """How often each bucket is in a text, an n-gram at a time."""

    def hashed(word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "little")

    words = [hashed(word) for word in re.findall(r"\w+|[^\w\s]+", text.lower())]
    pairs = [splitmix64((splitmix64(a, 0) + b) & MASK, 0) for a, b in pairwise(words)] if spec.ngram == 2 else []
    return Counter(each % spec.buckets for each in words + pairs)


def literal(text: str, spec: NgramSpec) -> np.ndarray:
    """The sketch of a text from the formula."""
    vector = np.zeros(spec.dims)
    for bucket, count in counts_of(text, spec).items():
        word = splitmix64(spec.seed, bucket)
        column, sign = ((word >> 32) * spec.dims) >> 32, 1 if word & 1 else -1
        vector[column] += sign * (count if spec.weighting == "counts" else math.log(1 + count))
    return vector


@given(
    TEXTS,
    st.sampled_from([1, 2]),
    st.sampled_from(["counts", "sublinear"]),
    st.sampled_from([1, 7, 4096]),
    st.integers(1, 40),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=60, deadline=None)
def test_vectors__equal_the_formula(texts, ngram, weighting, buckets, dims, seed):
    spec = NgramSpec(ngram=ngram, weighting=weighting, buckets=buckets, dims=dims, seed=seed)
    np.testing.assert_allclose(
        vectors_of(spec, texts), np.array([literal(text, spec) for text in texts]), rtol=1e-6, atol=1e-6
    )


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_vectors__of_any_unicode_text_equal_the_formula(texts):
    np.testing.assert_allclose(vectors_of(SMALL, texts), [literal(text, SMALL) for text in texts], rtol=1e-6, atol=1e-6)


@given(TEXTS, st.randoms(use_true_random=False), st.integers(1, 5), st.sampled_from([1, 30, 2**20]))
@settings(max_examples=40, deadline=None)
def test_order_and_blocks__change_no_bit(texts, random, block_texts, characters):
    whole = vectors_of(SMALL, texts)
    order = random.sample(range(len(texts)), len(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "BLOCK_TEXTS", block_texts)
        patch.setattr(kernel, "BLOCK_CHARACTERS", characters)
        assert (vectors_of(SMALL, [texts[row] for row in order]) == whole[order]).all()


def made_up(n: int) -> list[str]:
    """Texts of 20 to 120 words, of which some are far commoner than others."""
    rng = np.random.default_rng(3)
    return [" ".join(f"w{rank:.0f}" for rank in 2000 * rng.random(rng.integers(20, 120)) ** 3) for _ in range(n)]


@pytest.mark.parametrize("dims", [256, 1024, 4096])
@pytest.mark.parametrize("weighting", ["counts", "sublinear"])
def test_cosines__are_those_of_the_exact_counts_within_the_stated_error(dims, weighting):
    texts = made_up(60)
    exact = np.zeros((60, 2**18))
    for row, text in enumerate(texts):
        for bucket, count in counts_of(text, NgramSpec()).items():
            exact[row, bucket] = count if weighting == "counts" else math.log(1 + count)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    exact /= lengths
    cosines, products = [], []
    for seed in range(4):
        short = vectors_of(NgramSpec(dims=dims, weighting=weighting, seed=seed), texts) / lengths
        products.append(short @ short.T - exact @ exact.T)
        short /= np.linalg.norm(short, axis=1, keepdims=True)
        cosines.append(short @ short.T - exact @ exact.T)
    pairs = np.triu_indices(60, 1)
    variance = (1 + (exact @ exact.T) ** 2 - 2 * (exact**2 @ (exact**2).T)) / dims
    spread = np.sqrt(np.mean([each[pairs] ** 2 for each in products]))
    assert 0.7 < spread / np.sqrt(variance[pairs].mean()) < 1.4
    errors = np.array([each[pairs] for each in cosines])
    assert np.sqrt((errors**2).mean()) < 1 / math.sqrt(dims)
    assert np.abs(errors).max() < 6 / math.sqrt(dims)


def test_pairs__tell_the_order_of_words_and_words_alone_do_not():
    texts = ["the dog bites the man", "the man bites the dog"]
    pairs, words = vectors_of(NgramSpec(), texts), vectors_of(NgramSpec(ngram=1), texts)
    assert (pairs[0] != pairs[1]).any()
    assert (words[0] == words[1]).all()


def test_turns__choose_what_is_read():
    rows = [[("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "again")]]
    for turns, text in (("all", "s\nq\na\nagain"), ("prompt", "s\nq"), ("response", "a"), ("first_two", "q\na")):
        spec = replace(SMALL, turns=turns)
        assert (load_vectorizer(spec).vectors_of(rows).vectors == vectors_of(SMALL, [text])).all()


def test_rows_without_an_ngram__have_no_vector_and_say_so():
    batches: list[int] = []
    rows = [[("text", text)] for text in ("", "a b!", " \n\t\u00a0")]
    encoded = load_vectorizer(SMALL).vectors_of(rows, batch_tokens=1, on_batch=batches.append)
    assert encoded.failed == {0: "no tokens", 2: "no tokens"}
    assert (encoded.vectors[[0, 2]] == 0).all()
    assert (encoded.tokens, encoded.truncated, sum(batches)) == (3, 0, 3)
    assert load_vectorizer(SMALL).vectors_of([]).vectors.shape == (0, 64)


def test_spec__is_its_record_and_every_option_is_part_of_the_fingerprint():
    spec = NgramSpec(weighting="counts", postprocess="center")
    assert NgramSpec(**record_of(spec)) == spec
    others = {"ngram": 1, "buckets": 7, "weighting": "counts", "dims": 8, "seed": 1, "turns": "prompt"}
    others["store"] = "float32"
    specs = [NgramSpec(), *(NgramSpec(**{name: value}) for name, value in others.items())]
    assert len({each.fingerprint() for each in specs}) == len(specs)
    assert set(others) | {"kind", "postprocess"} == set(asdict(spec))
    # The vectors before are the same; the fit is named beside them.
    assert NgramSpec(postprocess="whiten").fingerprint() == NgramSpec().fingerprint()
    assert NgramSpec().for_targets() == NgramSpec()


def test_fingerprint__names_folders_of_existing_stores():
    assert NgramSpec().fingerprint() == "ec1067f63de01f8127bfa72306e7c7d3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ngram": 3}, "ngram must be at most 2, got 3"),
        ({"ngram": True}, "ngram must be an integer >= 1, got True"),
        ({"buckets": 2**24 + 1}, "buckets must be at most 16777216, got 16777217"),
        ({"dims": 0}, "dims must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"weighting": "tfidf"}, "weighting must be one of sublinear, counts, got 'tfidf'"),
        ({"turns": "last"}, "turns must be one of all, prompt, response, first_two, got 'last'"),
        ({"postprocess": "pca"}, "postprocess: method must be one of center, whiten, got 'pca'"),
    ],
)
def test_wrong_options__are_refused(options, message):
    with pytest.raises(InvalidOption, match=re.escape(message)):
        NgramSpec(**options)


def test_no_model_library__is_loaded():
    program = """if True:
        import sys
        from selection.encoders import NgramSpec, load_vectorizer
        load_vectorizer(NgramSpec()).vectors_of([[("text", "a b")]])
        print({"torch", "transformers", "sentence_transformers", "numba", "sklearn"} & set(sys.modules) or "none")
    """
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "none"
