from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.encoders import EncoderSpec, load_encoder
from selection.encoders.chunks import Chunking, SpecialTokens, split, weighted_means, windows
from selection.errors import InvalidOption
from tests.tiny_models import tiny_llama

LONG = "the quick brown fox jumps over the lazy dog " * 4


def special(before: int, behind: int) -> SpecialTokens:
    return SpecialTokens(np.full(before, -1, np.int32), np.full(behind, -2, np.int32))


def test_known_answer__two_windows_of_five_tokens():
    hidden = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    parts = windows(np.arange(5, dtype=np.int32), Chunking(tokens=3, overlap=1), special(0, 0))
    assert [part.tolist() for part in parts] == [[0, 1, 2], [2, 3, 4]]
    pooled = np.array([np.arange(1, len(part) + 1) @ hidden[part] for part in parts])
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    mean = weighted_means(unit.astype(np.float32), np.array([3, 3]), np.array([2]))
    np.testing.assert_allclose(mean, [[0.538953533, 0.842335497]], atol=1e-7)


@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 11), st.integers(0, 2), st.integers(0, 2))
def test_windows__hold_each_token_and_overlap_as_told(length, room, overlap, before, behind):
    overlap %= room
    tokens = room + before + behind
    if tokens < 2:
        return
    ends = special(before, behind)
    text = np.arange(length, dtype=np.int32)
    ids = np.concatenate([ends.before, text, ends.behind])
    parts = windows(ids, Chunking(tokens=tokens, overlap=overlap), ends)
    if length <= room:
        assert len(parts) == 1
        assert parts[0] is ids
        return
    own = [part[before : len(part) - behind] for part in parts]
    for part, tokens_of_text in zip(parts, own, strict=True):
        np.testing.assert_array_equal(part, np.concatenate([ends.before, tokens_of_text, ends.behind]))
    assert all(len(part) == room for part in own[:-1])
    assert overlap < len(own[-1]) <= room
    together = [own[0], *(part[overlap:] for part in own[1:])]
    np.testing.assert_array_equal(np.concatenate(together), text)
    assert all((a[len(a) - overlap :] == b[:overlap]).all() for a, b in itertools.pairwise(own))


def test_weighted_means__of_windows_that_cancel_out_or_are_not_finite():
    vectors = np.array([[1, 0], [-1, 0], [np.nan, 0], [1, 0]], np.float32)
    means = weighted_means(vectors, np.array([4, 4, 4, 2]), np.array([2, 2]))
    np.testing.assert_array_equal(means[0], 0)
    assert np.isnan(means[1]).any()
    assert weighted_means(vectors[:0], np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0, 2)


def by_hand(folder, text, chunk, *, rendered=False):
    """One window at a time, in float64, of ids that are cut and given their special tokens by hand."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    start, stop = ([0], []) if tokenizer.cls_token is None else ([2], [3])
    text_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if rendered:
        text_ids = text_ids[1:]  # the template writes <s> itself
    room, total, at = chunk["tokens"] - len(start) - len(stop), 0.0, 0
    while True:
        ids = start + text_ids[at : at + room] + stop
        with torch.inference_mode():
            hidden = network(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        pooled = np.arange(1, len(ids) + 1) @ hidden
        total = total + len(ids) * pooled / np.linalg.norm(pooled)
        if at + room >= len(text_ids):
            return total / np.linalg.norm(total)
        at += room - chunk["overlap"]


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_vectors__equal_a_literal_reference_in_float64(request, name):
    folder = request.getfixturevalue(name)
    chunk = {"tokens": 30, "overlap": 7}
    loaded = load_encoder(EncoderSpec(model=str(folder), template="plain", chunk=chunk), device="cpu")
    texts = [LONG, LONG[:40], LONG[:100], "fox"]
    vectors = loaded.encode(texts)
    np.testing.assert_allclose(vectors, [by_hand(folder, text, chunk) for text in texts], atol=2e-6)
    np.testing.assert_allclose(loaded.encode(texts, batch_tokens=1), vectors, atol=2e-6)


def test_chunk__reads_the_whole_text_beyond_the_models_limit_and_counts_each_text_once(bert):
    text = "fox dog " * 300  # the model takes 128 tokens
    spec = EncoderSpec(model=str(bert), template="plain", chunk={"tokens": 128, "overlap": 16}, max_tokens=1000)
    loaded = load_encoder(spec, device="cpu")
    assert loaded.notes == ()
    batches: list[int] = []
    rows = [[("text", text)], [("text", "fox")], [("text", "")], [("text", text * 9)]]
    encoded = loaded.vectors_of(rows, batch_tokens=256, on_batch=batches.append)
    assert sum(batches) == len(rows)
    assert len(batches) > 4
    assert encoded.truncated == 1  # at max_tokens
    assert np.isfinite(encoded.vectors).all()
    changed = loaded.encode([text[:-8] + "lazy dog"])
    assert not np.array_equal(changed[0], encoded.vectors[0])


def test_chunk__of_a_single_window_changes_no_bit(llama):
    texts = [LONG[:n] for n in range(0, 170, 9)]
    plain, chunked = (
        load_encoder(EncoderSpec(model=str(llama), chunk=chunk), device="cpu")
        for chunk in (None, {"tokens": 512, "overlap": 64})
    )
    np.testing.assert_array_equal(plain.encode(texts), chunked.encode(texts))


def test_chunk__of_a_rendered_chat_has_its_first_token_in_each_window(tmp_path):
    folder = tiny_llama(tmp_path / "chat", chat_template=True)
    chunk = {"tokens": 20, "overlap": 4}
    loaded = load_encoder(EncoderSpec(model=str(folder), template="chat_template", chunk=chunk), device="cpu")
    turns = [("user", LONG)]
    text = loaded.text_of(turns)
    parts, counts = split(loaded.tokens([text]).ids, loaded._chunking, loaded._special_tokens)
    assert counts[0] == len(parts) > 4
    assert all(part[0] == 0 and (part == 0).sum() == 1 for part in parts)
    np.testing.assert_allclose(
        loaded.vectors_of([turns]).vectors[0], by_hand(folder, text, chunk, rendered=True), atol=2e-6
    )


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (256, "chunk: must be a mapping of tokens, overlap, combine, got 256"),
        ({"overlap": 3}, "needs `tokens`"),
        ({"tokens": 64, "step": 3}, "unknown key 'step'; allowed: tokens, overlap, combine"),
        ({"tokens": 64, "overlap": 64}, "overlap must be below tokens, which is 64, got 64"),
        ({"tokens": 64, "overlap": -1}, "chunk: overlap must be an integer >= 0, got -1"),
        ({"tokens": 1}, "chunk: tokens must be an integer >= 2, got 1"),
        ({"tokens": "64"}, "chunk: tokens must be an integer >= 2, got '64'"),
        ({"tokens": 64, "combine": "max_similarity"}, "chunk: combine must be one of mean, got 'max_similarity'"),
        ({"tokens": 2048}, "max_tokens, which caps what is read of a text in all, is 2048"),
    ],
)
def test_chunk__that_makes_no_sense_is_refused(chunk, message):
    with pytest.raises(InvalidOption) as caught:
        EncoderSpec(model="org/model", chunk=chunk)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ({"tokens": 129}, "windows of 129 tokens are too long: the model takes 128 at most"),
        ({"tokens": 10, "overlap": 8}, "10 tokens, 2 of them special ones, leave 8 for the text"),
        ({"tokens": 2}, "2 of them special ones, leave 0 for the text"),
    ],
)
def test_chunk__that_the_model_has_no_room_for_is_refused(bert, chunk, message):
    with pytest.raises(InvalidOption) as caught:
        load_encoder(EncoderSpec(model=str(bert), chunk=chunk), device="cpu")
    assert message in str(caught.value)


def test_fingerprint__follows_the_windows_not_how_they_are_written(llama):
    def fingerprint(**options):
        return EncoderSpec(model=str(llama), **options).fingerprint()

    assert fingerprint(chunk={"tokens": 64}) == fingerprint(chunk={"tokens": 64, "overlap": 0, "combine": "mean"})
    assert len({fingerprint(chunk=chunk) for chunk in (None, {"tokens": 64}, {"tokens": 65})}) == 3
