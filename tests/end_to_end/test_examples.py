"""Each project in examples/ runs as it stands, and the commands that its readers are shown work."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.catalog.query import query_catalog
from storage.store import Store
from tests.embedding_server import EmbeddingServer
from tests.pipelines.conftest import Winnow, change

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder examples/, under the current folder, without stores of earlier runs; with the server that one needs."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("store"))
    monkeypatch.chdir(tmp_path)
    with EmbeddingServer() as server:
        change(tmp_path / "examples" / "remote_embeddings", "url: http://localhost:8000 ", f"url: {server.url} ")
        yield tmp_path / "examples"


def shown_commands(text: str) -> list[list[str]]:
    """The lines `winnow ...` of a text, in comments or not; a line that ends in a backslash goes on."""
    lines = re.sub(r"^#", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith("winnow ")]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/winnow.yaml")))
def test_example(name: str, copied: Path, winnow: Winnow) -> None:
    config = (copied / name / "winnow.yaml").read_text("utf-8")
    commands = shown_commands(config)
    assert ["run", "-c", f"examples/{name}"] in commands
    for command in commands:
        result = winnow(*command)
        assert result.code == 0, (command, result.err)
    picked = "SELECT recipe, n_items, budget FROM latest_selections ORDER BY recipe"
    rows = query_catalog(Store(copied / name / "store"), picked).to_pylist()
    assert rows
    assert all(row["n_items"] == row["budget"] for row in rows)


@pytest.mark.slow
def test_readme(copied: Path, winnow: Winnow) -> None:
    text = (copied / "README.md").read_text("utf-8")
    assert [folder for folder in copied.iterdir() if folder.is_dir() and f"`{folder.name}/`" not in text] == []
    for command in shown_commands(text):
        result = winnow(*command)
        assert result.code == 0, (command, result.err)
