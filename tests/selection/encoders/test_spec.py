from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest

from selection.encoders import EncoderSpec
from selection.encoders import spec as spec_module
from selection.errors import InvalidOption


def test_options__are_json_plain_and_rebuild_the_spec():
    spec = EncoderSpec(model="org/model", revision="abc", pooling="last", prompt="query: ")
    assert EncoderSpec(**json.loads(json.dumps(asdict(spec)))) == spec


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("pooling", "maximum", "weighted_mean, mean, last, cls, max, gem"),
        ("layers", [], "list of numbers"),
        ("layers", [-1.5], "list of numbers"),
        ("layers", [-1, -1], "different ones"),
        ("gem_p", [0], "above 0"),
        ("gem_p", [2], "is the power of pooling: gem"),
        ("template", "alpaca", "tulu, plain, chat_template"),
        ("dtype", "int8", "float32, bfloat16, float16, auto"),
        ("max_tokens", 0, ">= 1"),
        ("max_tokens", 12.5, "whole number"),
        ("prompt", None, "must be text"),
        ("model", " ", "hub name, a folder or package"),
    ],
)
def test_a_wrong_option__is_refused_with_what_is_allowed(option, value, allowed):
    with pytest.raises(InvalidOption, match=allowed) as caught:
        EncoderSpec(**{"model": "org/model", option: value})
    assert option in str(caught.value)
    assert repr(value) in str(caught.value) or option == "gem_p"


def test_fingerprint__changes_with_each_option(bert):
    options = [
        {},
        {"pooling": "mean"},
        {"template": "plain"},
        {"max_tokens": 100},
        {"dtype": "bfloat16"},
        {"prompt": "query: "},
        {"layers": [-1, -2]},
        {"layers": [-2]},
        {"pooling": "gem"},
        {"pooling": "gem", "gem_p": [4]},
    ]
    assert len({EncoderSpec(model=str(bert), **option).fingerprint() for option in options}) == len(options)


def test_fingerprint__follows_the_files_not_their_place(bert, tmp_path):
    moved = shutil.copytree(bert, tmp_path / "elsewhere")
    (moved / "README.md").write_text("a page about the model")
    assert EncoderSpec(model=str(moved)).fingerprint() == EncoderSpec(model=str(bert)).fingerprint()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_fingerprint__changes_with_weights_config_and_tokenizer(bert, tmp_path, file):
    changed = shutil.copytree(bert, tmp_path / "changed")
    content = bytearray((changed / file).read_bytes())
    content[-2] ^= 1  # same name, same size
    (changed / file).write_bytes(content)
    assert EncoderSpec(model=str(changed)).fingerprint() != EncoderSpec(model=str(bert)).fingerprint()


def test_fingerprint__large_files_are_read_once_and_again_when_they_change(bert, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(spec_module, "_CACHED_FROM_BYTES", 0)
    reads = []
    original = spec_module._content_digest
    monkeypatch.setattr(spec_module, "_content_digest", lambda path: reads.append(path) or original(path))
    model = shutil.copytree(bert, tmp_path / "model")
    spec = EncoderSpec(model=str(model))
    first = spec.fingerprint()
    n_files = len(reads)
    spec_module._file_digest.cache_clear()  # as a new process
    assert spec.fingerprint() == first
    assert len(reads) == n_files
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    assert spec.fingerprint() != first
    assert len(reads) == n_files + 1


def test_a_package__is_found_by_its_name_without_importing_it(tmp_path, monkeypatch, bert):
    package = tmp_path / "some_weights"
    shutil.copytree(bert, package / "data" / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "config.json").write_text('{"not": "a model"}')
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = EncoderSpec(model="package:some_weights")
    assert spec.folder() == package / "data" / "model"
    assert spec.fingerprint() == EncoderSpec(model=str(bert)).fingerprint()
    shutil.copytree(bert, package / "second")
    with pytest.raises(InvalidOption, match="must hold one model folder"):
        spec.folder()


@pytest.mark.parametrize("model", ["package:no_such_package", "package:json.decoder", "./no/such/folder", "/no/such"])
def test_a_model_that_is_not_there__is_named(model):
    with pytest.raises(InvalidOption, match="encoder: model") as caught:
        EncoderSpec(model=model).fingerprint()
    assert repr(model) in str(caught.value)


def test_a_folder_without_a_model__is_named(tmp_path):
    with pytest.raises(InvalidOption, match=r"holds no config\.json"):
        EncoderSpec(model=str(tmp_path)).fingerprint()


@pytest.mark.parametrize(
    "modules", ['[{"idx": 0, "path": ""}]', '[{"type": 1, "path": ""}]', "[1]", "{", '{"a": 1}', "3"]
)
def test_a_folder_whose_list_of_modules_is_none__is_named(tmp_path, modules):
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(InvalidOption, match=r"modules\.json does not list modules, each with a type and a path"):
        EncoderSpec(model=str(tmp_path)).folder()


def test_a_revision_of_a_folder__is_refused(bert):
    with pytest.raises(InvalidOption, match="revision 'main' is for hub models"):
        EncoderSpec(model=str(bert), revision="main").fingerprint()


def test_a_hub_model__goes_by_the_commit_in_the_cache(tmp_path, monkeypatch, bert):
    import huggingface_hub

    commit = tmp_path / "snapshots" / "0123abc"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: str(commit / "config.json"))
    spec = EncoderSpec(model="org/model")
    assert spec.folder() is None
    assert spec.commit() == "0123abc"
    first = spec.fingerprint()
    commit = tmp_path / "snapshots" / "4567def"
    assert spec.fingerprint() != first


def test_fingerprint__store_counts_only_where_it_is_float32(bert):
    import hashlib
    import json
    from dataclasses import asdict

    spec = EncoderSpec(model=str(bert))
    before = asdict(spec) | {"model": spec_module.folder_digest(spec.folder()), "revision": None, "version": 1}
    for name in (
        "store",
        "turns",
        "query_format",
        "kind",
        "layers",
        "gem_p",
        "chunk",
        "postprocess",
    ):  # there were no such options
        del before[name]
    digest = hashlib.blake2b(json.dumps(before, sort_keys=True).encode(), digest_size=16).hexdigest()
    assert spec.fingerprint() == EncoderSpec(model=str(bert), store="float16").fingerprint() == digest
    assert EncoderSpec(model=str(bert), store="float32").fingerprint() != digest
    with pytest.raises(InvalidOption, match="store must be one of float16, float32, got 'bfloat16'"):
        EncoderSpec(model=str(bert), store="bfloat16")


def test_fingerprint__of_candidates_does_not_depend_on_how_targets_are_written(bert):
    same, paper = EncoderSpec(model=str(bert)), EncoderSpec(model=str(bert), query_format="rds_paper")
    assert paper.fingerprint() == same.fingerprint() == same.for_targets().fingerprint()
    assert paper.for_targets().fingerprint() != paper.fingerprint()
    assert EncoderSpec(model=str(bert), turns="prompt").fingerprint() != same.fingerprint()


def test_query_format__goes_with_all_turns():
    with pytest.raises(InvalidOption, match="query_format rds_paper takes turns: all, got 'prompt'"):
        EncoderSpec(model="m", query_format="rds_paper", turns="prompt")
    with pytest.raises(InvalidOption, match="turns must be"):
        EncoderSpec(model="m", turns="answer")  # type: ignore[arg-type]
