from __future__ import annotations

import shutil

import pytest

from selection.encoders import load_token_counter, tokenizer_fingerprint
from selection.errors import InvalidOption
from tests.tiny_models import tiny_llama

ROW = [("user", "Hi there"), ("assistant", "Hello")]


def test_counts__plain_contents_with_the_special_tokens_where_there_is_no_template(bert):
    counter = load_token_counter(str(bert))
    tokens = counter.tokenizer("Hi there\nHello")["input_ids"]
    assert counter.counts([ROW, [("text", "Hi there\nHello")], [("text", "")]])[0].tolist() == [
        len(tokens),
        len(tokens),
        len(counter.tokenizer("")["input_ids"]),
    ]


def test_counts__a_conversation_goes_through_the_chat_template_a_text_does_not(tmp_path):
    counter = load_token_counter(str(tiny_llama(tmp_path / "model", chat_template=True)))
    messages = [{"role": role, "content": content} for role, content in ROW]
    rendered = counter.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert counter.counts([ROW, [("text", "Hi")]])[0].tolist() == [
        len(rendered),
        len(counter.tokenizer("Hi")["input_ids"]),
    ]


def test_counts__nothing_is_cut_and_batches_do_not_matter(bert):
    counter = load_token_counter(str(bert))
    rows = [[("text", "fox " * n)] for n in range(1500)]
    counts, _ = counter.counts(rows)
    assert counts[1400] - counts[0] == 1400
    assert counts[1023:1026].tolist() == [counter.counts([row])[0][0] for row in rows[1023:1026]]


def test_counts__a_row_that_the_template_refuses_is_counted_without_it(tmp_path):
    counter = load_token_counter(str(tiny_llama(tmp_path / "model", chat_template=True)))
    expected = counter.counts([ROW])[0].tolist()
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    counter.tokenizer.chat_template = refusing + counter.tokenizer.chat_template
    counts, refusals = counter.counts([ROW, [("system", "Be brief"), *ROW], ROW])
    plain = len(counter.tokenizer("Be brief\nHi there\nHello")["input_ids"])
    assert counts.tolist() == [*expected, plain, *expected]
    assert refusals == ["the chat template refuses it: no system here"]


def test_tokenizer_fingerprint__its_files_count_and_nothing_else(tmp_path):
    model = tiny_llama(tmp_path / "model")
    before = tokenizer_fingerprint(str(model))
    (model / "model.safetensors").write_bytes(b"other weights")
    (model / "README.md").write_text("other")
    assert tokenizer_fingerprint(str(shutil.copytree(model, tmp_path / "moved"))) == before
    text = (model / "tokenizer_config.json").read_text()
    (model / "tokenizer_config.json").write_text(text + "\n")
    assert tokenizer_fingerprint(str(model)) != before


def test_tokenizer_fingerprint__a_folder_without_a_tokenizer(tmp_path):
    model = tiny_llama(tmp_path / "model")
    for file in model.glob("*token*"):
        file.unlink()
    with pytest.raises(InvalidOption, match="holds no tokenizer"):
        tokenizer_fingerprint(str(model))
