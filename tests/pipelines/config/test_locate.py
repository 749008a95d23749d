"""Which project a command is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config.locate import find_config, find_store
from pipelines.errors import ConfigError, NoProject


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder three levels deep, where we stand."""
    monkeypatch.delenv("WINNOW_CONFIG", raising=False)
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    return tmp_path


def test_find_config__order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "winnow.yaml").write_text("store: ./here\n")
        return folder / "winnow.yaml"

    with pytest.raises(NoProject, match="`winnow demo` makes a small project"):
        find_config()
    demo = put(home / "a" / "b" / "demo")
    assert find_config() == demo
    above = put(home)
    assert find_config() == above
    nearer = put(home / "a")
    assert find_config() == nearer
    named = put(home / "c")
    monkeypatch.setenv("WINNOW_CONFIG", str(named))
    assert find_config() == named
    assert find_config(home) == above
    assert find_config(Path("../winnow.yaml")).resolve() == nearer


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("store: ./mine\n", "mine"),
        ("recipes: {a: 1}\n", "store"),
        ("store: /elsewhere/s\nnonsense: 1\n", "/elsewhere/s"),
    ],
)
def test_find_store__without_looking_at_the_rest(home: Path, text: str, folder: str) -> None:
    (home / "winnow.yaml").write_text(text)
    assert find_store() == home / folder


@pytest.mark.parametrize("text", ["store: [\n", "- a\n", "store: 7\n", "", "store:\n", "store: caf\xe9\n"])
def test_find_store__what_is_no_configuration_is_explained(home: Path, text: str) -> None:
    (home / "winnow.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError):
        find_store()


def test_find_store__a_named_file_that_is_not_there(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: does not exist"):
        find_store(home / "nowhere.yaml")
