"""Texts that several processes read: the values and the near duplicates of one process, however the pool is cut."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import text_shards
from pipelines.engine import LocalEngine, local
from pipelines.stages.ingest import ingest as ingest_stage
from pipelines.stages.select import select
from pipelines.text_shards import SnapshotTexts, TextShard, work_on_texts
from selection import Pool
from selection.filters.near_duplicates import NearDuplicates
from selection.kernels.ngrams import NgramRows, NgramsInParts
from selection.learning.linear import LinearModel
from storage.pool import ingest
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import Snapshot, take_snapshot
from storage.shards import Report
from storage.store import Store
from tests.pipelines.conftest import change, opened
from tests.pipelines.test_vector_shards import check_probabilities


def text_of(number: int) -> str:
    """One of twenty texts, with up to three of its thirty words changed."""
    words = random.Random(number % 20).choices(range(500), k=30)
    chance = random.Random(number)
    for _ in range(number % 4):
        words[chance.randrange(30)] = 1000 + chance.randrange(500)
    return " ".join(f"w{word}" for word in words)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """200 rows in two files and row groups of 16 rows."""
    folder = tmp_path_factory.mktemp("pool")
    store = Store(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "GROUP_ROWS", 16)
        ingests = []
        for name, numbers in (("a", range(150)), ("b", range(150, 200))):
            path = folder / f"{name}.jsonl"
            path.write_text("".join(json.dumps({"text": text_of(number)}) + "\n" for number in numbers))
            ingests.append(ingest_file(store, FileSpec(str(path), name=name)))
    return take_snapshot(store, ingests)


def reversed_texts(texts: list[str], *, end: str) -> list[bytes]:
    return [(text[::-1] + end).encode() for text in texts]


def backwards(work: Callable[[Any, Report], Any], shards: Iterable[Any], report: Report) -> Iterator[Any]:
    return iter([work(shard, report) for shard in list(shards)[::-1]][::-1])


def work_and_die(shard: TextShard, report: Report) -> int:
    """Killed once, with all reported and a file that is not whole."""
    killed = shard.root / "killed"
    count = work_on_texts(shard, report)
    if not killed.exists() and shard.groups.start > 0:
        killed.touch()
        shard.file.write_bytes(b"PAR1")
        os.kill(os.getpid(), signal.SIGKILL)
    return count


@pytest.mark.parametrize("rows", [1, 40, 1000])
def test_values__come_in_the_order_asked_for(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(text_shards, "SHARD_ROWS", rows)
    wanted = np.random.default_rng(0).permutation(len(snapshot))[:120]
    seen: list[tuple[int, int]] = []
    text_map = SnapshotTexts(snapshot, backwards, lambda *progress: seen.append(progress))
    texts = snapshot.texts()
    given = list(text_map(partial(reversed_texts, end="!"), wanted))
    assert given == reversed_texts([texts[row] for row in wanted.tolist()], end="!")
    assert seen[-1] == (120, 120)
    assert list(text_map(partial(reversed_texts, end="!"), wanted[:0])) == []
    assert list(snapshot.store.path("tmp").iterdir()) == []


@pytest.mark.parametrize("step", [NearDuplicates(threshold=0.6), NearDuplicates(unit="char", num_perm=32, column="c")])
def test_near_duplicates__are_those_of_one_process(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, step: NearDuplicates
) -> None:
    monkeypatch.setattr(text_shards, "SHARD_ROWS", 40)
    n = len(snapshot)
    column = np.random.default_rng(1).random(n)
    pool = Pool(texts=snapshot.texts(), columns={"c": column}, already_selected=[5, 60], eligible=np.arange(n) % 7 > 0)
    shared = Pool(
        texts=pool.texts,
        text_map=SnapshotTexts(snapshot, backwards, lambda *_: None),
        columns=pool.columns,
        already_selected=[5, 60],
        eligible=pool.eligible,
    )
    some = np.flatnonzero(np.random.default_rng(2).random(n) < 0.8)
    for rows in (np.arange(n), some):
        expected = step.duplicates(pool.take(rows), rng=np.random.default_rng(3))
        given = step.duplicates(shared.take(rows), rng=np.random.default_rng(3))
        assert len(expected.row) > 20
        for name in ("row", "of", "similarity"):
            assert np.array_equal(getattr(given, name), getattr(expected, name))


def test_probabilities_of_ngrams__are_those_of_one_process(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_shards, "SHARD_ROWS", 40)
    rng = np.random.default_rng(4)
    models = [LinearModel(rng.normal(size=(500, 2)), rng.normal(size=2)) for _ in range(3)]
    text_map = SnapshotTexts(snapshot, backwards, lambda *_: None)
    parted = NgramsInParts(len(snapshot), text_map, snapshot.texts, 500)
    check_probabilities(NgramRows(snapshot.texts(), 500), parted, models)
    assert np.array_equal(
        parted.take(np.array([5, 0])).todense(), NgramRows(snapshot.texts(), 500).take(np.array([5, 0])).todense()
    )


@pytest.mark.slow
def test_select__gives_the_same_selection_from_processes_also_if_killed(
    light: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(light, "  any: {steps: [random], budget: 8}\n", "  any: {steps: [near_duplicates, random], budget: 8}\n")
    ingest_stage(opened(light))
    alone = select(opened(light), "any").subject
    before = (light / "store" / "records" / "selections" / alone / "items.parquet").read_bytes()
    for path in (light / "store" / "records" / "selections").iterdir():
        path.rename(light / path.name)
    monkeypatch.setattr(local, "WORTH_BYTES", 0)
    monkeypatch.setattr(text_shards, "SHARD_ROWS", 1)
    monkeypatch.setattr(text_shards, "work_on_texts", work_and_die)
    change(light, "pool:\n", "engine: {workers: 2}\npool:\n")
    assert select(opened(light), "any").subject == alone
    assert (light / "store" / "killed").exists()
    assert (light / "store" / "records" / "selections" / alone / "items.parquet").read_bytes() == before


@pytest.mark.slow
def test_processes__give_the_values_of_one(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_shards, "SHARD_ROWS", 40)
    rows = np.arange(len(snapshot))
    with LocalEngine(4) as engine:
        given = list(SnapshotTexts(snapshot, engine.map, lambda *_: None)(partial(reversed_texts, end="."), rows))
    assert given == reversed_texts(snapshot.texts(), end=".")
