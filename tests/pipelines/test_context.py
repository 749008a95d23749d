"""One configuration and one snapshot for an invocation."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import NothingYet
from pipelines.stages.ingest import ingest
from tests.pipelines.conftest import Winnow, change, opened


def test_open_context__an_invocation_keeps_the_configuration_it_began_with(light: Path) -> None:
    first = opened(light, invocation="i1")
    change(light, "budget: 8", "budget: 9")
    again, other = opened(light, invocation="i1"), opened(light, invocation="i2")
    assert (again.config.digest, again.config.recipes["any"].budget) == (first.config.digest, 8)
    assert other.config.recipes["any"].budget == 9
    # Another time of loading, another process, another folder: the same files.
    assert again.config.pool.specs(again.config.root) == first.config.pool.specs(first.config.root)


def test_open_context__without_an_invocation_writes_nothing(light: Path) -> None:
    opened(light)
    assert not (light / "store").exists()


def test_snapshot__before_the_first_ingest_says_what_to_do(light: Path) -> None:
    with pytest.raises(NothingYet, match="or materialize the asset `pool`"):
        _ = opened(light).pool.snapshot


def test_snapshot__is_that_of_the_invocation_whatever_others_ingest(light: Path) -> None:
    mine = opened(light)
    ingest(mine)
    change(light, "data/*.jsonl", "data/a.jsonl")
    other = opened(light)
    ingest(other)
    assert (len(mine.pool.snapshot), len(other.pool.snapshot)) == (80, 40)
    assert len(opened(light).pool.snapshot) == 40


@pytest.mark.parametrize("command", [["run"], ["plan"], ["sql", "SELECT 1"], ["failures"], ["catalog", "rebuild"]])
def test_a_store_of_a_later_version__is_refused_by_every_command(
    light: Path, winnow: Winnow, command: list[str]
) -> None:
    store = light / "store"
    store.mkdir()
    (store / "format.json").write_text('{"format": 99}')
    ended = winnow(*command, "-c", light)
    assert ended.code == 2
    assert "store format 99" in ended.err
    assert [path.name for path in store.iterdir()] == ["format.json"]
