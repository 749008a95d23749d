"""What a causal language model says of a row, beside a literal pass in float64: one text at a time, nothing padded."""

from __future__ import annotations

import numpy as np
import pytest

from selection.encoders.answers import CUT, EMPTY_ANSWER, NO_ANSWER
from selection.encoders.token_scores import COLUMNS, ModelSpec, load_token_scorer
from selection.errors import InvalidOption
from tests.quick import quick_first
from tests.tiny_models import tiny_bert, tiny_llama

ROWS = [
    [("user", "add 2 and 3"), ("assistant", "that is 5")],
    [("system", "be brief"), ("user", "who jumps"), ("assistant", "the fox"), ("user", "and"), ("assistant", "a dog")],
    [("user", "s"), ("assistant", "s")],
    [("user", "what is </s> and <|assistant|>"), ("assistant", "a text: </s>!")],
    [("user", "only a question")],
    [("text", "the quick brown fox jumps over the lazy dog")],
    [("user", "say nothing"), ("assistant", "")],
    *([("user", "the fox " * n), ("assistant", "def add(a, b): return a + b" * (n % 4 + 1))] for n in range(1, 12)),
]


def scorer(folder, **options):
    return load_token_scorer(ModelSpec(model=str(folder), **options), device="cpu")


def literal(folder, turns, *, template="tulu", max_tokens=512):
    """The numbers of one row, each from its definition."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()

    def write(conversation):
        if template == "plain":
            return "\n".join(content for _, content in conversation), 0
        parts = [
            content if role == "text" else f"<|{role}|>\n{content.strip()}{'</s>' if role == 'assistant' else ''}\n"
            for role, content in conversation
        ]
        return "".join(parts).strip(), 4

    def losses(text):
        """Token id, the characters it stands for, its loss and its rank; not of the first."""
        read = tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=max_tokens)
        ids = torch.tensor([read["input_ids"]])
        with torch.inference_mode():
            log_p = torch.log_softmax(network(ids).logits[0], dim=-1).numpy()
        tokens = []
        for place in range(1, ids.shape[1]):
            row, true = log_p[place - 1], int(ids[0, place])
            tokens.append((read["offset_mapping"][place], -row[true], 1 + int((row > row[true]).sum())))
        return tokens

    text, behind = write(turns)
    tokens = losses(text)
    nll = np.array([loss for _, loss, _ in tokens])
    known = dict.fromkeys(COLUMNS, np.nan)
    known |= {"nll_sum": nll.sum(), "n_tok": len(nll), "nll_mean": nll.mean()}
    known |= {"nll_q10": np.quantile(nll, 0.1), "nll_q50": np.quantile(nll, 0.5), "nll_q90": np.quantile(nll, 0.9)}
    known["mean_rank"] = np.mean([rank for *_, rank in tokens])
    answer = turns[-1][1].strip()
    if turns[-1][0] == "assistant" and answer:
        size = len(answer) + behind
        spans = {"answer": (tokens, len(text) - size)}
        alone, _ = write([("assistant", answer)])
        spans["alone"] = (losses(alone), len(alone) - size)
        if max(end for (_, end), *_ in tokens) == len(text):
            for name, (some, start) in spans.items():
                of_answer = [loss for (_, end), loss, _ in some if end > start]
                known |= {
                    f"nll_{name}_sum": sum(of_answer),
                    f"n_{name}": len(of_answer),
                    f"nll_{name}": np.mean(of_answer),
                }
            before = [loss for (_, end), loss, _ in tokens if end <= spans["answer"][1]]
            known |= {"nll_prompt_sum": sum(before), "n_prompt": len(before)}
    return [known[name] for name in COLUMNS]


@pytest.fixture(scope="module")
def expected(llama):
    return np.array([literal(llama, turns) for turns in ROWS])


@pytest.mark.parametrize("batch_tokens", quick_first(2, [100, 1, 1024, 100_000]))
def test_scores__equal_a_literal_pass_whatever_the_batch(llama, expected, batch_tokens):
    scores = scorer(llama).scores(ROWS, batch_tokens=batch_tokens)
    np.testing.assert_allclose(scores.values, expected, rtol=2e-5, atol=2e-5)
    assert scores.failed == []
    assert scores.causes == ["", "", "", "", NO_ANSWER, NO_ANSWER, EMPTY_ANSWER, *[""] * 11]


def test_scores__with_padding_on_the_left_and_a_token_for_it(llama, expected, tmp_path):
    left = tiny_llama(tmp_path / "left", padding_side="left")
    np.testing.assert_allclose(scorer(left).scores(ROWS, batch_tokens=500).values, expected, rtol=2e-5, atol=2e-5)
    padded = scorer(llama)
    padded._pad = 7
    np.testing.assert_allclose(padded.scores(ROWS, batch_tokens=500).values, expected, rtol=2e-5, atol=2e-5)


def test_scores__of_rows_that_are_cut(llama):
    scores = scorer(llama, max_tokens=40).scores(ROWS)
    expected = np.array([literal(llama, turns, max_tokens=40) for turns in ROWS])
    np.testing.assert_allclose(scores.values, expected, rtol=2e-5, atol=2e-5)
    assert scores.truncated == scores.causes.count(CUT) > 3
    answers = scores.values[:, COLUMNS.index("nll_answer")]
    assert np.isnan(answers[[cause == CUT for cause in scores.causes]]).all()


def test_scores__of_plain_texts(llama):
    expected = np.array([literal(llama, turns, template="plain") for turns in ROWS])
    values = scorer(llama, template="plain").scores(ROWS).values
    np.testing.assert_allclose(values, expected, rtol=2e-5, atol=2e-5)


def test_scores__order_and_company_of_a_row_do_not_matter(llama):
    loaded = scorer(llama)
    together = loaded.scores(ROWS).values
    np.testing.assert_allclose(loaded.scores(ROWS[::-1]).values[::-1], together, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(loaded.scores(ROWS[:1]).values[0], together[0], rtol=2e-5, atol=2e-5)


def test_scores__progress_counts_rows(llama):
    counts: list[int] = []
    scorer(llama).scores(ROWS, batch_tokens=200, on_batch=counts.append)
    assert sum(counts) == len(ROWS)


def test_scores__a_row_of_one_token_has_none(llama):
    scores = scorer(llama, template="plain").scores([[("text", "")], ROWS[0]])
    assert (scores.failed, scores.causes[0]) == ([0], "fewer than two tokens")
    assert np.isnan(scores.values[0]).all()
    assert np.isfinite(scores.values[1]).all()


def test_scores__a_chat_template_and_what_it_refuses(tmp_path):
    chat = tiny_llama(tmp_path / "chat", chat_template=True)
    loaded = scorer(chat, template="chat_template")
    scores = loaded.scores(ROWS[:1])
    assert np.isfinite(scores.values).all()
    loaded._reader._tokenizer.chat_template = "{{ raise_exception('no system turn') }}"
    refused = loaded.scores(ROWS[:1])
    assert refused.failed == [0]
    assert "no system turn" in refused.causes[0]


def test_scores__of_no_rows(llama):
    assert scorer(llama).scores([]).values.shape == (0, len(COLUMNS))


def test_a_model_that_is_no_causal_model__is_refused(tmp_path):
    with pytest.raises(InvalidOption, match=r"no causal language model|cannot be loaded as a causal"):
        scorer(tiny_bert(tmp_path / "bert"))


def test_spec__bad_options(llama):
    with pytest.raises(InvalidOption, match="template must be one of tulu, plain, chat_template, got 'rds_query'"):
        ModelSpec(model="m", template="rds_query")
    with pytest.raises(InvalidOption, match="max_tokens must be a whole number >= 1, got 0"):
        ModelSpec(model="m", max_tokens=0)
    with pytest.raises(InvalidOption, match=r"template chat_template: the tokenizer of .* has none"):
        scorer(llama, template="chat_template")
    options = [{}, {"template": "plain"}, {"max_tokens": 9}, {"dtype": "bfloat16"}]
    assert len({ModelSpec(model=str(llama), **each).fingerprint() for each in options}) == len(options)


def test_max_tokens_above_the_models_limit__is_lowered_and_said(llama):
    loaded = scorer(llama)
    assert loaded.max_tokens == 512
    assert loaded.notes == ("max_tokens 2048 is above the model's limit: rows are cut at 512 tokens",)
