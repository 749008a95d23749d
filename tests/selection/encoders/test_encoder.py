from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from selection.encoders import EncoderSpec, load_encoder
from selection.errors import InvalidOption
from tests.quick import quick_first
from tests.tiny_models import tiny_llama

TEXTS = ["the fox " * k + f"def add({k})" for k in range(1, 30)] + ["a", "", "  white space  ", "UPPER <|user|>"]


def encoder(folder, **options):
    return load_encoder(EncoderSpec(model=str(folder), **options), device="cpu")


@pytest.fixture(params=["llama", "bert"])
def model(request):
    return request.getfixturevalue(request.param)


def by_hand(folder, texts, *, dtype="float32", max_tokens=128):
    """Weighted mean of AutoModel's last hidden state, one text at a time, in numpy float64."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    out = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_tokens)["input_ids"]
        with torch.inference_mode():
            hidden = network(input_ids=ids).last_hidden_state[0].double().numpy()
        weights = np.arange(1, len(hidden) + 1)
        mean = (hidden * weights[:, None]).sum(0) / weights.sum()
        out.append(mean / np.linalg.norm(mean))
    return np.array(out)


@pytest.mark.parametrize(("dtype", "atol"), quick_first(1, [("float32", 2e-6), ("bfloat16", 1e-3)]))
def test_weighted_mean__equals_numpy_on_the_hidden_states(model, dtype, atol):
    vectors = encoder(model, dtype=dtype, max_tokens=128).encode(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, by_hand(model, TEXTS, dtype=dtype), atol=atol)


@pytest.mark.parametrize(
    ("pooling", "dtype", "atol"),
    quick_first(
        6,
        [
            *((pooling, "float32", 2e-6) for pooling in ("weighted_mean", "mean", "last", "cls", "max", "gem")),
            ("weighted_mean", "bfloat16", 1e-3),
            ("mean", "bfloat16", 1e-3),
            ("last", "bfloat16", 4e-3),  # one state: a last bit of bfloat16 is 2**-8, and nothing averages it away
        ],
    ),
)
def test_batch_size_and_order__do_not_move_a_vector(model, dtype, atol, pooling):
    loaded = encoder(model, dtype=dtype, pooling=pooling)
    alone = loaded.encode(TEXTS, batch_tokens=1)
    for budget in (100, 1000, 100_000):
        np.testing.assert_allclose(loaded.encode(TEXTS, batch_tokens=budget), alone, atol=atol)
    np.testing.assert_allclose(loaded.encode(TEXTS[::-1])[::-1], alone, atol=atol)


def test_layers__are_averaged_before_they_are_pooled(llama):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(llama), AutoModel.from_pretrained(llama).eval()
    vectors = encoder(llama, layers=[-1, 0, 1], pooling="mean", max_tokens=128).encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=128)["input_ids"]
        with torch.inference_mode():
            output = network(input_ids=ids, output_hidden_states=True)
        states = [output.last_hidden_state, output.hidden_states[0], output.hidden_states[1]]
        mean = np.mean([state[0].double().numpy() for state in states], axis=0).mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=2e-6)
    with pytest.raises(InvalidOption, match=r"has the layers -1 to -2 \(and 0, the embeddings\), got 7"):
        encoder(llama, layers=[7])
    with pytest.raises(InvalidOption, match="gem_p: 3 groups do not divide the"):
        encoder(llama, pooling="gem", gem_p=[1, 2, 3])


def test_left_padding__does_not_move_a_vector(llama):
    import torch

    from selection.encoders.pooling import pool

    loaded = encoder(llama)
    (ids,) = loaded.tokens(["the quick brown fox"]).ids
    for pad in (1, 7, 90):
        padded = torch.tensor([[1] * pad + ids.tolist()])
        mask = torch.tensor([[0] * pad + [1] * len(ids)])
        with torch.inference_mode():
            hidden = loaded._transformer.model(input_ids=padded, attention_mask=mask).last_hidden_state
        moved = pool(hidden, mask.bool(), "weighted_mean").numpy()
        np.testing.assert_allclose(moved, loaded.encode(["the quick brown fox"]), atol=2e-6)


def test_a_tokenizer_that_pads_left__changes_nothing(llama, tmp_path):
    left = tiny_llama(tmp_path / "left", padding_side="left")
    np.testing.assert_array_equal(encoder(left).encode(TEXTS), encoder(llama).encode(TEXTS))


def test_a_chat_template__is_never_applied_behind_the_users_back(llama, tmp_path):
    chat = tiny_llama(tmp_path / "chat", chat_template=True)
    np.testing.assert_array_equal(encoder(chat).encode(TEXTS), encoder(llama).encode(TEXTS))


def test_a_chat_template__is_applied_when_asked_for_and_bos_stands_once(tmp_path):
    loaded = encoder(tiny_llama(tmp_path / "chat", chat_template=True), template="chat_template")
    text = loaded.text_of([("user", "hi"), ("assistant", "yes")])
    assert text == "<s>[user] hi<s>[assistant] yes"
    (ids,) = loaded.tokens([text]).ids
    assert (ids == 0).sum() == 2  # one for each turn, as the template says; none added in front


def test_a_chat_template__that_is_not_there_is_an_error(llama):
    with pytest.raises(InvalidOption, match="has none; use tulu or plain"):
        encoder(llama, template="chat_template")


def test_text_of__prompt_then_template_with_the_tokenizers_eos(llama, bert):
    turns = [("user", "hi"), ("assistant", "yes")]
    assert encoder(llama, prompt="find: ").text_of(turns) == "find: <|user|>\nhi\n<|assistant|>\nyes</s>"
    assert encoder(bert).text_of(turns) == "<|user|>\nhi\n<|assistant|>\nyes"
    assert encoder(bert, template="plain").text_of(turns) == "hi\nyes"


CHAT = [("system", "be brief"), ("user", " hi "), ("assistant", "yes"), ("user", "bye"), ("assistant", "so long")]


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        ("prompt", "<|system|>\nbe brief\n<|user|>\nhi</s>"),
        ("response", "<|assistant|>\nyes</s>"),
        ("first_two", "<|user|>\nhi\n<|assistant|>\nyes</s>"),
    ],
)
def test_text_of__a_part_of_the_turns_as_rds_plus_has_it(llama, turns, text):
    assert encoder(llama, turns=turns).text_of(CHAT) == text
    assert encoder(llama, turns=turns).text_of(CHAT[1:3]) == text.replace("<|system|>\nbe brief\n", "")


def test_text_of__a_part_that_is_not_there(llama):
    assert encoder(llama, turns="response").text_of([("user", "hi")]) == ""
    assert encoder(llama, turns="response").text_of([("text", "a page")]) == ""
    assert encoder(llama, turns="prompt").text_of([("text", "a page")]) == "a page</s>"
    assert encoder(llama, turns="first_two", template="plain").text_of([("user", "hi")]) == "hi"


@pytest.mark.parametrize("max_tokens", [128, 9])
def test_targets_of_rds_paper__are_the_tokens_of_the_released_code(llama, max_tokens):
    """Prompt with special tokens and answer without, each cut by itself, then the mean over both as one text."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    spec = EncoderSpec(model=str(llama), query_format="rds_paper", max_tokens=max_tokens)
    loaded = load_encoder(spec.for_targets(), device="cpu")
    targets = [CHAT, CHAT[1:3], CHAT[1:2], [("user", "hi"), ("assistant", "")], [("text", "a page of the fox " * 9)]]
    tokens = loaded.tokens([loaded.text_of(turns) for turns in targets], [loaded.answer_of(turns) for turns in targets])
    tokenizer, network = AutoTokenizer.from_pretrained(llama), AutoModel.from_pretrained(llama).eval()
    written = [
        ("<|system|>\nbe brief\n<|user|>\n hi \n<|assistant|>\nyes</s>\n<|user|>\nbye\n<|assistant|>\n", "so long</s>"),
        ("<|user|>\n hi \n<|assistant|>\n", "yes</s>"),
        ("<|user|>\n hi \n<|assistant|>\n", ""),
        ("<|user|>\nhi\n<|assistant|>\n", "</s>"),
        ("a page of the fox " * 9, ""),
    ]
    vectors = loaded.encode_tokens(tokens)
    for ids, was_cut, vector, (prompt, answer) in zip(tokens.ids, tokens.truncated, vectors, written, strict=True):
        before, behind = tokenizer(prompt)["input_ids"], tokenizer(answer, add_special_tokens=False)["input_ids"]
        assert ids.tolist() == before[:max_tokens] + behind[:max_tokens]
        assert was_cut == (len(before) > max_tokens or len(behind) > max_tokens)
        with torch.inference_mode():
            hidden = network(input_ids=torch.tensor([ids.tolist()])).last_hidden_state[0].double().numpy()
        mean = (hidden * np.arange(1, len(hidden) + 1)[:, None]).sum(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=2e-6)


def test_targets_of_rds_paper__stay_within_the_models_limit(bert):
    loaded = load_encoder(EncoderSpec(model=str(bert), query_format="rds_paper").for_targets(), device="cpu")
    turns = [("user", "the fox " * 100), ("assistant", "the dog " * 100)]
    tokens = loaded.tokens([loaded.text_of(turns)], [loaded.answer_of(turns)])
    assert tokens.lengths.tolist() == [128]
    assert tokens.truncated.all()
    assert np.isfinite(loaded.encode_tokens(tokens)).all()


def test_max_tokens__cuts_on_the_right_and_counts_the_cut(llama):
    loaded = encoder(llama, max_tokens=20)
    assert loaded.max_tokens == 20
    assert loaded.notes == ()
    tokens = loaded.tokens(["the fox " * 50, "short"])
    assert tokens.lengths.tolist() == [20, len(tokens.ids[1])]
    assert tokens.truncated.tolist() == [True, False]
    whole = encoder(llama).tokens(["the fox " * 50]).ids[0]
    assert (tokens.ids[0] == whole[:20]).all()
    assert (loaded.lengths(["the fox " * 50, "short"]) == tokens.lengths).all()


@pytest.mark.parametrize(
    "text", ["the quick fox " * 20_000, "fox" * 50_000, " " * 90_000 + "fox " * 20_000, "\n" * 90_000]
)
def test_a_very_long_text__is_cut_before_it_is_tokenised_and_keeps_the_same_tokens(model, text, monkeypatch):
    loaded = encoder(model, max_tokens=30)
    longest = []
    tokenise = loaded._tokenizer
    monkeypatch.setattr(
        loaded,
        "_tokenizer",
        lambda texts, **options: (
            (longest.append(max(map(len, texts))), tokenise(texts, **options))[1]
            if isinstance(texts, list)
            else tokenise(texts, **options)
        ),
    )
    cut = loaded.tokens([text, "short"])
    monkeypatch.setattr(type(loaded), "_beginning", lambda self, text: text)
    whole = loaded.tokens([text, "short"])
    assert [ids.tolist() for ids in cut.ids] == [ids.tolist() for ids in whole.ids]
    assert cut.truncated.tolist() == whole.truncated.tolist()
    assert longest[0] <= len(text) == longest[1]
    if text.startswith("the"):
        assert longest[0] < len(text) / 10


def test_a_text_of_exactly_max_tokens__is_not_cut(llama):
    length = int(encoder(llama).lengths(["the quick brown fox"])[0])
    assert not encoder(llama, max_tokens=length).tokens(["the quick brown fox"]).truncated.any()
    assert encoder(llama, max_tokens=length - 1).tokens(["the quick brown fox"]).truncated.all()


def test_max_tokens_above_the_models_limit__is_lowered_and_said(bert):
    loaded = encoder(bert)
    assert loaded.max_tokens == 128
    assert loaded.notes == ("max_tokens 2048 is above the model's limit: texts are cut at 128 tokens",)
    assert np.isfinite(loaded.encode(["fox " * 1000])).all()


def test_a_text_without_tokens__gives_zeros(tmp_path):
    folder = tiny_llama(tmp_path / "chat", chat_template=True)
    vectors = encoder(folder, template="chat_template").encode(["", "fox"])  # no special tokens are added here
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1, abs=1e-6)


def test_no_texts__give_no_vectors(bert):
    assert encoder(bert).encode([]).shape == (0, 64)


def test_a_saved_sentence_transformers_model__gives_its_transformer(bert, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.base.modules.transformer import Transformer
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling

    modules = [Transformer(str(bert)), Pooling(64, "mean"), Dense(64, 8)]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "saved"), create_model_card=False)
    loaded = encoder(tmp_path / "saved", pooling="cls", max_tokens=64)
    np.testing.assert_allclose(
        loaded.encode(TEXTS), encoder(bert, pooling="cls", max_tokens=64).encode(TEXTS), atol=2e-6
    )
    assert loaded.dimension == 64
    assert loaded.notes == ("the model's Dense module is not applied: only its transformer is used",)


def test_do_lower_case_of_a_saved_model__is_kept(llama, tmp_path):
    folder = tiny_llama(tmp_path / "lower")
    upper = encoder(folder).encode(["THE FOX"])
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    lower = encoder(folder).encode(["THE FOX"])
    assert np.abs(lower - upper).max() > 0.01
    np.testing.assert_array_equal(lower, encoder(folder).encode(["the fox"]))


def test_positions_that_start_after_the_padding_id__lower_the_limit(tmp_path):
    import torch
    from transformers import RobertaConfig, RobertaModel

    from tests.tiny_models import _save, _word_tokenizer

    torch.manual_seed(0)
    tokenizer = _word_tokenizer(10_000)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=34,
        pad_token_id=1,
    )
    loaded = encoder(_save(RobertaModel(config), tokenizer, tmp_path / "roberta"))
    assert loaded.max_tokens == 32
    assert np.isfinite(loaded.encode(["fox " * 100])).all()


def test_damaged_weights__are_an_error_that_names_the_model(bert, tmp_path):
    broken = shutil.copytree(bert, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InvalidOption, match=r"broken.*cannot be loaded"):
        encoder(broken)


def test_missing_weights__are_an_error_not_random_vectors(bert, tmp_path):
    from safetensors.numpy import load_file, save_file

    partial = shutil.copytree(bert, tmp_path / "partial")
    weights = load_file(partial / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "layer.1" not in name}, partial / "model.safetensors")
    with pytest.raises(InvalidOption, match=r"miss \d+ weights .*layer\.1.*at random"):
        encoder(partial)


def test_bf16_and_parameters__of_the_loaded_model(llama):
    loaded = encoder(llama, dtype="bfloat16")
    # two layers: q, o (64 x 64), k, v (64 x 32), gate, up, down (64 x 128), two norms; one norm at the end
    assert loaded.parameters == 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64
    assert loaded.encode(["fox"]).dtype == np.float32


def test_the_number_of_threads__does_not_reach_the_bits(model):
    import torch

    loaded = encoder(model)
    before = torch.get_num_threads()
    vectors = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            vectors.append(loaded.encode(TEXTS, batch_tokens=200))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(vectors[0], vectors[1])
