"""Models that sentence-transformers saved give the vectors that it gives itself."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selection.encoders import load_vectorizer
from selection.encoders.sentence_spec import VECTORS_VERSION, SentenceSpec, _files_of
from selection.encoders.spec import files_digest
from selection.errors import InvalidOption
from tests.quick import quick_first
from tests.tiny_models import tiny_static

TEXTS = ["", "a fox", "the quick brown fox jumps over the lazy dog " * 30, "dog", "two\nlines", "a fox"]
ROWS = [[("user", text)] for text in TEXTS]


@pytest.fixture(scope="module")
def dense(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer, a mean, a dense layer and a normalisation, with prompts."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(0)
    transformer = Transformer(str(bert), max_seq_length=48)
    width = transformer.get_embedding_dimension()
    modules = [transformer, Pooling(width, "mean"), Dense(width, 12), Normalize()]
    prompts = {"query": "find: ", "document": "text: "}
    folder = tmp_path_factory.mktemp("dense") / "model"
    SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name="document", device="cpu").save(
        str(folder)
    )
    return folder


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_static(tmp_path_factory.mktemp("static") / "model")


def spec(folder: Path, **options: Any) -> SentenceSpec:
    return SentenceSpec(model=str(folder), **options)


def its_own(folder: Path, texts: list[str], **options: Any) -> Any:
    """Unit vectors by sentence-transformers, one text at a time."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    if "max_tokens" in options:
        model.max_seq_length = options.pop("max_tokens")
    vectors = np.array([model.encode([text], show_progress_bar=False, **options)[0] for text in texts])
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def unit(vectors: Any) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@pytest.mark.parametrize(
    ("options", "encode"),
    quick_first(
        2,
        [
            ({"prompt_name": "query"}, {"prompt_name": "query"}),
            ({"truncate_dim": 5, "max_tokens": 20}, {"truncate_dim": 5, "max_tokens": 20}),
            ({}, {}),
            ({"prompt": ""}, {"prompt": ""}),
        ],
    ),
)
def test_vectors_of__are_those_of_the_library(dense: Path, options: Any, encode: Any) -> None:
    loaded = load_vectorizer(spec(dense, **options), "cpu")
    for batch_tokens in (1, 60, None):
        encoded = loaded.vectors_of(ROWS, batch_tokens=batch_tokens)
        np.testing.assert_allclose(unit(encoded.vectors)[1:], its_own(dense, TEXTS, **encode)[1:], atol=2e-6)
    assert encoded.failed == {0: "no tokens"}
    assert encoded.truncated == 1
    assert loaded.dimension == encode.get("truncate_dim", 12)
    assert loaded.max_tokens == encode.get("max_tokens", 48)


def test_vectors_of__static_embeddings(static: Path) -> None:
    loaded = load_vectorizer(spec(static), "cpu")
    encoded = loaded.vectors_of(ROWS)
    np.testing.assert_allclose(unit(encoded.vectors)[1:], its_own(static, TEXTS)[1:], atol=2e-6)
    assert (loaded.parameters, loaded.max_tokens, encoded.truncated, encoded.failed) == (0, None, 0, {0: "no tokens"})
    with pytest.raises(InvalidOption, match="static embeddings read all of a text"):
        load_vectorizer(spec(static, max_tokens=10), "cpu")


def test_vectors_of__a_router_takes_each_to_its_own_modules(bert: Path, static: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Dense

    query = [*SentenceTransformer(str(static), device="cpu"), Dense(16, 12)]
    document = [*SentenceTransformer(str(static), device="cpu"), Dense(16, 12)]
    router = Router.for_query_document(query_modules=query, document_modules=document)
    SentenceTransformer(modules=[router], device="cpu").save(str(tmp_path))
    pool = spec(tmp_path, task="document", target_task="query")
    targets = pool.for_targets()
    assert targets.fingerprint() == spec(tmp_path, task="query").fingerprint() != pool.fingerprint()
    for each in (pool, targets):
        encoded = load_vectorizer(each, "cpu").vectors_of(ROWS)
        np.testing.assert_allclose(unit(encoded.vectors)[1:], its_own(tmp_path, TEXTS, task=each.task)[1:], atol=2e-6)


def test_for_targets__have_their_own_prompt(dense: Path) -> None:
    both = spec(dense, prompt_name="document", target_prompt_name="query")
    targets = both.for_targets()
    assert targets.fingerprint() == spec(dense, prompt_name="query").fingerprint() != both.fingerprint()
    assert both.fingerprint() == spec(dense, prompt_name="document").fingerprint()
    assert spec(dense, prompt="a").for_targets().fingerprint() == spec(dense, prompt="a").fingerprint()


def test_fingerprint__follows_every_module(dense: Path, tmp_path: Path) -> None:
    first = spec(dense).fingerprint()
    for number, file in enumerate(("2_Dense/model.safetensors", "1_Pooling/config.json", "modules.json")):
        moved = Path(shutil.copytree(dense, tmp_path / str(number)))
        assert spec(moved).fingerprint() == first
        (moved / file).write_bytes((moved / file).read_bytes() + b" ")
        assert spec(moved).fingerprint() != first, file
    assert len({spec(dense, **option).fingerprint() for option in ({}, {"truncate_dim": 3}, {"template": "tulu"})}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be a whole number >= 1"),
        ({"prompt": "a", "prompt_name": "b"}, "prompt and prompt_name: give one of them"),
        ({"template": "chat_template"}, "template must be one of plain, tulu"),
    ],
)
def test_a_wrong_option__is_refused(options: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        SentenceSpec(model="org/model", **options)


def test_fingerprint__before_postprocess_is_as_without_it(static: Path) -> None:
    inputs = asdict(spec(static)) | {"model": files_digest(_files_of(static, code=False)), "version": VECTORS_VERSION}
    for name in ("target_prompt", "target_prompt_name", "target_task", "postprocess"):
        del inputs[name]
    digest = hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()
    assert spec(static).fingerprint() == spec(static, postprocess="center").fingerprint() == digest


def test_load__what_the_folder_does_not_have(dense: Path, bert: Path) -> None:
    with pytest.raises(InvalidOption, match=r"has no prompt 'passage'; it has document, query"):
        load_vectorizer(spec(dense, prompt_name="passage"), "cpu")
    with pytest.raises(InvalidOption, match=r"holds no modules\.json, so sentence-transformers did not save it"):
        spec(bert).check()
