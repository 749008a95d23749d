"""Configurations that stand for more than they are, or are no files."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from pipelines.config.init import write_config
from pipelines.config.load import load_config
from pipelines.config.locate import find_store
from pipelines.errors import ConfigError
from storage.errors import BadInput


def tens(first: str, last: str, depth: int = 12) -> str:
    """Each line holds the one above it ten times."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} {last.replace('ITEMS', ', '.join([f'*a{i - 1}'] * 10))}" for i in range(1, depth)]
    return "\n".join(lines) + "\n"


BOMBS = {
    "lists": (tens("[x, x]", "[ITEMS]"), 7),
    "mappings": (tens("{k: v}", "{a: [ITEMS]}"), 7),
    "merge keys": (tens("{k: v}", "{<<: [ITEMS]}"), 7),
    "one long text": ("a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 100) + "]\n", 2),
    "in a recipe": (
        "pool: {files: x.jsonl}\nrecipes:\n  a:\n    steps: &a [random]\n" + tens("[*a, *a]", "[ITEMS]"),
        11,
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_load_config__an_alias_bomb_is_refused_at_once(tmp_path: Path, kind: str):
    text, line = BOMBS[kind]
    path = tmp_path / "winnow.yaml"
    path.write_text(text)
    started = time.monotonic()
    for load in (load_config, find_store):
        with pytest.raises(ConfigError) as error:
            load(path)
        assert str(error.value).startswith(f"{path}:{line}: stands for more than 4,000,000 characters once its aliases")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a" * 1_000_001, "is longer than 1,000,000 characters"),
        ("é" * 2_100_000, "is longer than 4,000,000 bytes"),
        ("a: " + "[" * 3000 + "]" * 3000, "is nested too deeply"),
        ("a: " + "{b: " * 3000 + "}" * 3000, "is nested too deeply"),
    ],
    ids=["characters", "bytes", "lists", "mappings"],
)
@pytest.mark.slow
def test_load_config__what_no_configuration_is(tmp_path: Path, text: str, message: str):
    path = tmp_path / "winnow.yaml"
    path.write_text(text)
    for load in (load_config, find_store):
        with pytest.raises(ConfigError) as error:
            load(path)
        assert str(error.value).startswith(f"{path}: {message}")


def test_load_config__aliases_are_welcome(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n')
    path = tmp_path / "winnow.yaml"
    path.write_text(
        "pool: {files: x.jsonl}\nrecipes:\n  a: &a {steps: &s [random], budget: 1}\n  b: {<<: *a, seed: 1}\n"
        "  c: {steps: *s, budget: 2}\n"
    )
    assert [recipe.seed for recipe in load_config(path).recipes.values()] == [0, 1, 0]


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, str]:
    """Names that are no files -> what the message calls them."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(tmp_path / "socket.jsonl"))
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    (tmp_path / "ping.jsonl").symlink_to("pong.jsonl")
    (tmp_path / "pong.jsonl").symlink_to("ping.jsonl")
    return {
        "pipe.jsonl": "is a named pipe",
        "socket.jsonl": "is a socket",
        "zero.jsonl": "is a device",
        "loop.jsonl": "is a link that leads back to itself",
        "ping.jsonl": "is a link that leads back to itself",
    }


USES = {
    "pool": "pool: {files: NAME}",
    "glob": "pool: {files: 'NAM*'}",
    "columns": "pool: {files: x.jsonl, columns: NAME}",
    "vectors": "pool: {files: x.jsonl, vectors: NAME}",
    "targets": "pool: {files: x.jsonl}\ntargets: {t: NAME}",
    "allow": "pool: {files: x.jsonl}\nrecipes: {r: {steps: [random], budget: 1, allow: NAME}}",
    "deny": "pool: {files: x.jsonl}\nrecipes: {r: {steps: [random], budget: 1, deny: NAME}}",
    "gold": "pool: {files: x.jsonl}\nlabeling: {l: {classes: [a, b], steps: [random], gold: NAME}}",
}


@pytest.mark.parametrize("use", USES)
def test_load_config__what_is_no_file_is_refused_at_once(tmp_path: Path, odd: dict[str, str], use: str):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n')
    path = tmp_path / "winnow.yaml"
    for name, what in odd.items():
        path.write_text(USES[use].replace("NAME", name).replace("NAM*", f"{name[:-2]}*"))
        with pytest.raises(ConfigError) as error:
            load_config(path)
        assert f"{tmp_path / name} {what}" in str(error.value), error.value


def test_load_config__is_no_file_itself(tmp_path: Path, odd: dict[str, str]):
    for name, what in odd.items():
        for load in (load_config, find_store):
            with pytest.raises(ConfigError) as error:
                load(tmp_path / name)
            assert str(error.value).startswith(f"{tmp_path / name}: {what}")


def test_init__what_is_no_file_is_refused_at_once(tmp_path: Path, odd: dict[str, str]):
    for name, what in odd.items():
        for pattern in (name, f"{name[:-2]}*"):
            with pytest.raises(BadInput, match=what):
                write_config(tmp_path / "winnow.yaml", [str(tmp_path / pattern)], [])
    with pytest.raises(BadInput, match="leads back to itself"):
        write_config(tmp_path / "winnow.yaml", [str(tmp_path)], [])
    assert not (tmp_path / "winnow.yaml").exists()


@pytest.mark.parametrize(
    "line",
    ['store: "a\\0b"', 'store: "a\\ud800b"', '"sto\\udfffre": s', "recipes: {r: {where: \"prompt = '\\ud800'\"}}"],
)
def test_load_config__what_is_no_text_is_refused_with_its_line(tmp_path: Path, line: str):
    path = tmp_path / "winnow.yaml"
    path.write_text(f"# first\n{line}\n")
    with pytest.raises(ConfigError, match=r"winnow.yaml:2: .* holds a NUL character or half of a surrogate pair"):
        load_config(path)
