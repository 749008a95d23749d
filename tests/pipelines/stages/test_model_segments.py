"""Segments that other processes work on: the same ids and bytes as in this one, whoever dies."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.engine import LocalEngine
from pipelines.stages.encode import Embedding, EmbedReport, in_this_process, run_model
from pipelines.stages.model_segments import ModelPass, ModelShard, _models, encode_shard
from pipelines.stages.token_scores import Scoring
from selection.encoders import EncoderSpec, ModelSpec
from selection.encoders.gradients import GradientSpec
from selection.encoders.ngrams import NgramSpec
from selection.errors import InvalidOption
from storage.errors import BadInput
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import Snapshot, take_snapshot
from storage.shards import Map, Report
from storage.store import Store
from storage.vectors.segments import missing_ids, segment_folders
from tests.tiny_models import tiny_bert, tiny_llama

SHORT = 1e-9  # seconds a segment: as few rows as a segment may have
NGRAMS = Embedding(NgramSpec(dims=16))


def make(folder: Path, rows: int = 400) -> Snapshot:
    """A pool in two files, of some hundred rows."""
    folder.mkdir(exist_ok=True)
    store = Store(folder / "store")
    ingests = []
    for name, numbers in (("a", range(rows // 2)), ("b", range(rows // 2, rows))):
        text = "".join(
            json.dumps({"prompt": f"question {n} " + "the fox " * (n * 7 % 23), "response": f"answer {n}"}) + "\n"
            for n in numbers
        )
        (folder / f"{name}.jsonl").write_text(text)
        ingests.append(ingest_file(store, FileSpec(str(folder / f"{name}.jsonl"), name=name)))
    return take_snapshot(store, ingests)


def run(snapshot: Snapshot, work: ModelPass, parallel: Map | None = None, **options: Any) -> EmbedReport:
    engine = in_this_process if parallel is None else partial(nullcontext, parallel)
    return run_model(snapshot.store, work, snapshot, segment_seconds=SHORT, engine=engine, **options)


def counts(report: EmbedReport) -> tuple[int, ...]:
    return report.n_rows, report.n_encoded, report.n_failed, report.n_segments, report.tokens, report.truncated


def content(snapshot: Snapshot, work: ModelPass) -> dict[str, bytes]:
    """Every byte of vectors, keys and tables, by segment."""
    return {
        f"{segment.name}/{path.name}": path.read_bytes()
        for segment in segment_folders(snapshot.store, work.fingerprint)
        for path in segment.iterdir()
        if path.suffix != ".json"
    }


def leftovers(snapshot: Snapshot, work: ModelPass) -> list[str]:
    """What is neither a segment nor the description, once the store was swept."""
    snapshot.store.sweep()
    left = [path.name for path in snapshot.store.path("tmp").iterdir()]
    names = (path.name for path in snapshot.store.path("vectors", work.fingerprint).iterdir())
    return left + [name for name in names if not name.startswith("seg-") and not name.endswith(".json")]


def shuffled(seed: int) -> Map:
    """A `Map` that works on the shards in any order, in this process."""

    def parallel(work: Callable[[Any, Report], Any], shards: Iterable[Any], report: Report) -> Iterator[Any]:
        given = list(shards)
        results = {
            place: work(given[place], report) for place in random.Random(seed).sample(range(len(given)), len(given))
        }
        return iter([results[place] for place in range(len(given))])

    return parallel


def encode_and_die(shard: ModelShard, report: Report) -> Any:
    """Killed once before, and once after the second segment is committed."""
    before, after = shard.root / "before", shard.root / "after"
    if shard.number == 1 and not before.exists():
        before.touch()
        report(40)
        os.kill(os.getpid(), signal.SIGKILL)
    result = encode_shard(shard, report)
    if shard.number == 1 and not after.exists():
        after.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result


@pytest.fixture(autouse=True)
def forgotten_models() -> Iterator[None]:
    """Tests that work on shards in this process leave no model behind."""
    yield
    _models.clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[int, ...], dict[str, bytes]]:
    """What this process makes of the pool, segment by segment."""
    snapshot = make(tmp_path_factory.mktemp("whole"))
    return counts(run(snapshot, NGRAMS)), content(snapshot, NGRAMS)


@pytest.mark.parametrize("seed", [0, 1])
def test_shards__in_any_order_give_the_segments_of_one_process(tmp_path: Path, whole: Any, seed: int) -> None:
    snapshot = make(tmp_path)
    seen: list[tuple[int, int]] = []
    report = run(snapshot, NGRAMS, shuffled(seed), on_progress=lambda *progress: seen.append(progress))
    assert report.n_segments == 7
    assert (counts(report), content(snapshot, NGRAMS)) == whole
    assert (seen[0], seen[-1]) == ((0, 400), (400, 400))
    assert leftovers(snapshot, NGRAMS) == []
    assert run(snapshot, NGRAMS, shuffled(seed)).n_encoded == 0


def test_shards__take_up_what_one_process_left(tmp_path: Path, whole: Any) -> None:
    snapshot = make(tmp_path)

    def stop(done: int, _: int) -> None:
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(snapshot, NGRAMS, on_progress=stop)
    left = len(missing_ids(snapshot.store, NGRAMS.fingerprint, snapshot.ids))
    assert 0 < left < 400
    assert run(snapshot, NGRAMS, shuffled(0)).n_encoded == left
    assert content(snapshot, NGRAMS) == whole[1]
    assert leftovers(snapshot, NGRAMS) == []


def test_a_worker__with_other_files_of_the_model_is_refused(tmp_path: Path) -> None:
    snapshot = make(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    work = Embedding(EncoderSpec(model=str(tmp_path / "model")))
    expected = work.fingerprint
    (tmp_path / "model" / "config.json").write_text('{"changed": true}')
    with pytest.raises(BadInput, match=f"a worker has other files of the model .* expected {expected}"):
        run(snapshot, work, shuffled(0))
    assert segment_folders(snapshot.store, expected) == []


def test_a_segment__that_a_killed_worker_committed_is_counted_and_not_encoded_again(tmp_path: Path, whole: Any) -> None:
    snapshot = make(tmp_path)
    other = Embedding(NgramSpec(dims=17))

    def twice(work: Callable[[Any, Report], Any], shards: Iterable[Any], report: Report) -> Iterator[Any]:
        for shard in shards:
            result = work(shard, report)
            if work is encode_shard:
                _models.clear()  # so that another model would be refused
                assert work(replace(shard, work=other), report) == result
            yield result

    assert (counts(run(snapshot, NGRAMS, twice)), content(snapshot, NGRAMS)) == whole


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "encode"), [(2, encode_and_die), (8, encode_shard)])
def test_processes__of_any_number_give_the_same_bytes_also_if_killed(
    tmp_path: Path, whole: Any, workers: int, encode: Callable[[ModelShard, Report], Any]
) -> None:
    snapshot = make(tmp_path)
    seen: list[int] = []
    with LocalEngine(workers) as engine:

        def parallel(work: Callable[[Any, Report], Any], shards: Iterable[Any], report: Report) -> Iterator[Any]:
            return engine.map(encode if work is encode_shard else work, shards, report)

        report = run(snapshot, NGRAMS, parallel, on_progress=lambda done, _: seen.append(done))
    assert (snapshot.store.root / "after").exists() == (encode is encode_and_die)
    assert (counts(report), content(snapshot, NGRAMS)) == whole
    assert seen == sorted(seen)
    assert seen[-1] == 400
    assert leftovers(snapshot, NGRAMS) == []


@pytest.mark.slow
def test_models_in_processes__give_the_bytes_of_this_process(tmp_path: Path) -> None:
    llama = str(tiny_llama(tmp_path / "llama", positions=64))
    alone, shared = make(tmp_path / "a", 140), make(tmp_path / "b", 140)
    works: list[ModelPass] = [
        Embedding(EncoderSpec(model=str(tiny_bert(tmp_path / "bert")), max_tokens=40)),
        Scoring(ModelSpec(model=llama, max_tokens=40)),
        Embedding(GradientSpec(model=llama, dims=16, max_tokens=40)),
    ]
    with LocalEngine(2) as engine:
        for work in works:
            assert counts(run(shared, work, engine.map)) == counts(run(alone, work))
            assert content(shared, work) == content(alone, work)
        wrong = Embedding(EncoderSpec(model=str(tmp_path / "bert"), template="chat_template"))
        with pytest.raises(InvalidOption, match="template chat_template: the tokenizer of"):
            run(shared, wrong, engine.map)


@contextmanager
def no_engine() -> Iterator[Map]:
    raise AssertionError("nothing is to be done")
    yield


def test_an_engine__is_started_only_where_something_is_to_be_done(tmp_path: Path) -> None:
    snapshot = make(tmp_path)
    run(snapshot, NGRAMS)
    assert run_model(snapshot.store, NGRAMS, snapshot, engine=no_engine).n_encoded == 0
