"""A machine with other code, another library or another store is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.engine.handshake import Handshake, handshake, sources_digest
from pipelines.errors import EngineRefused
from storage.store import Store


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Handshake]:
    with handshake(Store(tmp_path / "store")) as asked:
        yield asked


def test_answer__leaves_nothing_behind(tmp_path: Path) -> None:
    with handshake(Store(tmp_path / "store")) as asked:
        asked.check(asked.answer("a worker"), "a worker")
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


@pytest.mark.parametrize("what", ["winnow", "Python", "numpy", "polars", "torch"])
def test_answer__of_other_code_or_another_library(asked: Handshake, what: str) -> None:
    other = replace(asked, versions=asked.versions | {what: "0"})
    with pytest.raises(
        EngineRefused, match=rf"^a worker has {what} {re.escape(asked.versions[what])}, not 0\. Every machine"
    ):
        other.answer("a worker")


def test_answer__of_a_store_that_is_not_shared(asked: Handshake, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused, match=r"^a worker does not see this store: .* under this path"):
        replace(asked, probe=tmp_path / "other" / "tmp" / "probe").answer("a worker")
    with pytest.raises(
        EngineRefused, match="does not see this store"
    ):  # it has a folder of this name, with another run
        replace(asked, token="0").answer("a worker")
    with pytest.raises(EngineRefused, match="does not see this store"):  # it wrote elsewhere
        asked.check("nothing", "a worker")


def test_sources_digest__is_of_each_file_and_its_name(tmp_path: Path) -> None:
    module = tmp_path / "storage" / "files" / "a.py"
    module.parent.mkdir(parents=True)
    digests = set()
    for text in ("a = 1\n", "a = 2\n"):
        module.write_text(text)
        digests.add(sources_digest(tmp_path))
    module.rename(module.with_name("b.py"))
    digests.add(sources_digest(tmp_path))
    assert len(digests) == 3
