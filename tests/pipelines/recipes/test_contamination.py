"""The search of a pool for evaluation texts by shards: the matches of one pass, however the pool is cut."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.engine import LocalEngine
from pipelines.recipes import contamination
from pipelines.recipes.contamination import Examples, SearchShard, search_shard, text_matches
from selection.contamination import ContaminationRules
from selection.kernels.contamination import Contamination
from storage.ids import from_arrow, to_text
from storage.pool import ingest
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import Snapshot, take_snapshot
from storage.pool.targets import TargetSet, ingest_targets
from storage.shards import Report, in_turn
from storage.store import Store

RULES = ContaminationRules(n=4, short_n=2)


def text_of(number: int) -> str:
    """A row of the pool: every third holds questions, some of them several or a part; every tenth repeats another."""
    rng = random.Random(number if number % 10 else number + 3)
    words = rng.choices("abcdefgh", k=rng.randint(3, 12))
    held = [question(rng.randrange(20)) for _ in range(rng.randint(1, 3))] if number % 3 == 0 else []
    return " ".join([*words, *held])[: 200 if number % 5 else 20]


def question(number: int) -> str:
    return " ".join(f"q{number}{letter}" for letter in "stuvwxyz"[: 3 + number % 5])


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, list[TargetSet]]:
    """140 rows in four files and row groups of 16 rows; 20 questions in two sets."""
    folder = tmp_path_factory.mktemp("pool")
    store = Store(folder / "store")
    ingests = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "GROUP_ROWS", 16)
        for name, numbers in (("a", range(70)), ("b", range(70, 75)), ("c", range(75, 80)), ("d", range(80, 140))):
            path = folder / f"{name}.jsonl"
            path.write_text("".join(json.dumps({"text": text_of(number)}) + "\n" for number in numbers))
            ingests.append(ingest_file(store, FileSpec(str(path), name=name)))
    sets = []
    for name, numbers in (("even", range(0, 20, 2)), ("odd", range(1, 20, 2))):
        path = folder / f"{name}.json"
        path.write_text("".join(json.dumps({"prompt": question(number)}) + "\n" for number in numbers))
        sets.append(ingest_targets(store, name, [FileSpec(str(path))]))
    return take_snapshot(store, ingests), sets


def search_and_die(shard: SearchShard, report: Report) -> int:
    """Killed once, with half a file written."""
    killed = shard.root / "killed"
    if not killed.exists() and shard.rows.start > 0:
        killed.touch()
        shard.file.write_bytes(b"PAR1")
        os.kill(os.getpid(), signal.SIGKILL)
    return search_shard(shard, report)


def plain(snapshot: Snapshot, sets: list[TargetSet]) -> list[tuple[str, str, str, str, float]]:
    """The matches of all texts in the order of rows."""
    examples = Examples.of(sets)
    ids, texts = to_text(snapshot.ids), snapshot.texts()
    return [
        (
            ids[match.row],
            examples.names[match.target],
            match.rule,
            texts[match.row][match.start : match.stop],
            match.score,
        )
        for match in Contamination(examples.questions, RULES).matches(texts)
    ]


def listed(table: Any) -> list[tuple[str, str, str, str, float]]:
    columns = [table[name].to_pylist() for name in ("example_name", "rule", "excerpt", "score")]
    return list(zip(to_text(from_arrow(table["id"])), *columns, strict=True))


@pytest.mark.parametrize("rows", [1, 16, 17, 40, 75, 1000])
def test_matches__are_those_of_one_pass_however_the_pool_is_cut(
    pool: tuple[Snapshot, list[TargetSet]], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    snapshot, sets = pool
    monkeypatch.setattr(contamination, "SHARD_ROWS", rows)
    order: list[int] = []

    def backwards(work: Callable[[Any, Report], Any], shards: Iterable[Any], report: Report) -> Iterator[Any]:
        given = list(shards)[::-1]
        order.append(len(given))
        return iter([work(shard, report) for shard in given][::-1])

    searched: list[int] = []
    matches = text_matches(snapshot, sets, RULES, parallel=backwards, on_rows=searched.append)
    assert listed(matches) == plain(snapshot, sets)
    assert len(matches) > 40
    assert order == [len(snapshot.shards(rows))]
    assert sum(searched) == len(snapshot)
    assert list(snapshot.store.path("tmp").iterdir()) == []


def test_shards__hold_every_row_once(pool: tuple[Snapshot, list[TargetSet]]) -> None:
    snapshot, _ = pool
    assert (len(snapshot.shards(1)), len(snapshot.shards(1000))) == (11, 1)
    shards = snapshot.shards(30)
    ids = [some for shard in shards for some, _ in snapshot.turns_in(shard)]
    assert np.array_equal(np.sort(np.concatenate(ids)), snapshot.ids)
    assert sum(shard.rows for shard in shards) == len(snapshot.occurrences)


def test_a_pool__without_a_match_has_a_table_without_rows(
    pool: tuple[Snapshot, list[TargetSet]], tmp_path: Path
) -> None:
    snapshot, _ = pool
    (tmp_path / "t.jsonl").write_text('{"prompt": "nobody asks this of anybody"}\n')
    sets = [ingest_targets(snapshot.store, "none", [FileSpec(str(tmp_path / "t.jsonl"))])]
    assert len(text_matches(snapshot, sets, RULES, parallel=in_turn)) == 0


@pytest.mark.slow
def test_processes__give_the_matches_of_one_pass_also_if_killed(
    pool: tuple[Snapshot, list[TargetSet]], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, sets = pool
    monkeypatch.setattr(contamination, "SHARD_ROWS", 40)
    with LocalEngine(2) as engine:

        def parallel(_: Callable[[Any, Report], Any], shards: Iterable[Any], report: Report) -> Iterator[Any]:
            return engine.map(search_and_die, shards, report)

        matches = text_matches(snapshot, sets, RULES, parallel=parallel)
    assert (snapshot.store.root / "killed").exists()
    assert listed(matches) == plain(snapshot, sets)
