"""Run a model over the texts of a source that it has not seen yet, in segments that a killed run resumes.

An encoder gives vectors (`embed`); what else a model says of a row is a `ModelPass` of its own.

Before the first text is encoded, a plan is committed: the ids of each segment, in order, and the token budget of a
batch. Batches inside a segment follow from the texts' lengths and that budget alone, so a segment whose run was killed
is encoded again in the same batches and gives the same bytes on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.stages.model_segments import (
    ModelPass,
    ModelShard,
    Segment,
    SegmentContent,
    TextSource,
    Turns,
    describe_model,
    encode_segment,
    encode_shard,
    read_plan,
    source_name,
    with_texts,
)
from selection.encoders import ROW_CAUSES, Probed, Representation, Vectorizer, load_vectorizer, record_of
from selection.errors import InvalidInput
from storage.damage import read_record
from storage.errors import NotInStore, StoreDamaged
from storage.ids import Ids, from_text, rows_of
from storage.shards import Map, in_turn
from storage.store import Store, read_array, utc_now, write_json
from storage.vectors.segments import (
    describe_encoder,
    description,
    failed_ids,
    is_described,
    missing_ids,
    normalise,
    segment_folders,
    segment_name,
    set_damaged_aside,
)

# Multiply-adds of the model that a device does in a second, an order of magnitude that sizes segments. A fixed number,
# not a measurement, so that the same texts give the same plan every time.
NOMINAL_RATE = {"cpu": 5e10, "cuda": 5e13}

MIN_SEGMENT_ROWS, MAX_SEGMENT_ROWS = 64, 16384

# Characters in a token, roughly; sizes segments only.
CHARS_PER_TOKEN = 4

# Above this share of texts without a vector the fault lies with the model or the data, not with a text.
MAX_FAILED_FRACTION = 0.01

Engine = Callable[[], AbstractContextManager[Map]]
"""Begins the processes that load a model, once one is needed."""


@contextmanager
def in_this_process() -> Iterator[Map]:
    """The engine that begins nothing."""
    yield in_turn


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What `embed` did.

    Attributes:
        encoder: the fingerprint of the encoder, and the name of the folder of its vectors.
        n_rows: distinct ids of the source.
        n_encoded: texts encoded now; the others were in the store.
        n_failed: ids of the source without a vector: no tokens, or the model overflowed. Listed in the segments'
            failed.npy; `StoredVectors.failed_rows` gives their rows.
        n_segments: segments written now.
        seconds: that it took, `load_seconds` for the model included.
        tokens: tokens encoded now, padding not counted.
        truncated: texts cut at `max_tokens` among those encoded now.
        notes: the encoder's notes (`Encoder.notes`), and the first text that got no vector; empty if nothing had to be
            encoded.
    """

    encoder: str
    n_rows: int
    n_encoded: int
    n_failed: int
    n_segments: int
    seconds: float
    tokens: int
    truncated: int
    notes: tuple[str, ...] = ()
    load_seconds: float = 0.0


@dataclass(frozen=True)
class Embedding:
    """Rows to unit vectors."""

    spec: Representation

    @cached_property
    def fingerprint(self) -> str:
        return self.spec.fingerprint()

    def load(self, device: str | None) -> Vectorizer:
        return load_vectorizer(self.spec, device)

    def description(self, model: Vectorizer) -> dict[str, Any]:
        probe = {"probe": [round(value, 6) for value in model.probe.tolist()]} if isinstance(model, Probed) else {}
        return {"spec": record_of(self.spec), "dimension": model.dimension, "max_tokens": model.max_tokens} | probe

    def run(
        self, model: Vectorizer, turns: list[Turns], *, batch_tokens: int, on_batch: Callable[[int], None]
    ) -> SegmentContent:
        encoded = model.vectors_of(turns, batch_tokens=batch_tokens, on_batch=on_batch)
        unit, usable = normalise(encoded.vectors)
        usable[list(encoded.failed)] = False
        return SegmentContent(
            vectors=unit,
            failed={row: encoded.failed.get(row, encoded.not_finite) for row in np.flatnonzero(~usable).tolist()},
            tokens=encoded.tokens,
            truncated=encoded.truncated,
            dtype=self.spec.store,
            norms=encoded.norms,
        )


def embed(
    store: Store,
    spec: Representation,
    source: TextSource,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
    segment_seconds: float = 30,
    device: str | None = None,
    engine: Engine = in_this_process,
) -> EmbedReport:
    """Encode the texts of a source whose ids have no vector yet; see `run_model`."""
    return run_model(
        store,
        Embedding(spec),
        source,
        on_progress=on_progress,
        on_wait=on_wait,
        segment_seconds=segment_seconds,
        device=device,
        engine=engine,
    )


def run_model(
    store: Store,
    work: ModelPass,
    source: TextSource,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
    segment_seconds: float = 30,
    device: str | None = None,
    engine: Engine = in_this_process,
) -> EmbedReport:
    """Run a model over the texts of a source whose ids it has not seen yet.

    Args:
        on_progress: called with (texts encoded, texts to encode), first with 0, then after each batch.
        on_wait: called with the holder of the lock if another process embeds with the same encoder.
        segment_seconds: the work in a segment, roughly: what is lost when a run is killed.
        device: as `load_vectorizer`.
        engine: where the segments of a snapshot or a target set are worked on; other sources are read in this process.
            The segments, and the bytes in them, are the same for any number of processes.

    Raises:
        BadInput: a process sees other files of the model than this one.
        WorkerDied: the processes that worked on a segment were killed again and again.
        ServerFailed, ServerUnavailable: see `load_vectorizer`; or another model answers than when the first were made.
        InvalidInput: more than 1 % of the source's texts got no vector. Fewer are recorded in the store and counted in
            the report.
        NotInStore: the source did not give the text of one of its ids.

    Cost: one pass over the texts to plan, one to encode; memory for the texts of a segment and 40 bytes an id.
    """
    started = time.monotonic()
    encoder = work.fingerprint
    ids = np.unique(source.ids)
    totals: Counter[str] = Counter()
    notes: tuple[str, ...] = ()
    load_seconds = 0.0
    with store.lock(f"vectors-{encoder}", f"embed {source.name}", on_wait):
        for damaged in set_damaged_aside(store, encoder):
            _plan_again(store, encoder, damaged)
        todo = missing_ids(store, encoder, ids)
        if len(todo) or (len(ids) and not is_described(store, encoder)):
            with (engine if source_name(source) else in_this_process)() as parallel:
                loading = time.monotonic()
                job = _job(store, work, source, device, parallel)
                load_seconds = time.monotonic() - loading
                notes = tuple(job.model.notes)
                own = {"encoder": encoder, "notes": list(notes), "created_at": utc_now()}
                describe_encoder(store, encoder, {**job.description, **own})
                if isinstance(job.model, Probed):
                    job.model.require_same(description(store, encoder)["probe"])
                if len(todo):
                    on_batch = _counter(on_progress, len(todo))
                    for counts in job.encoded(_segments(job, todo, segment_seconds), on_batch):
                        totals += counts
                        _check_failed(store, encoder, totals["failed"], ids)
        if len(todo):
            _remove_finished_plans(store, encoder)
            if totals["failed"]:
                first = _first_cause(_causes(store, encoder, todo))
                notes = (*notes, f"{totals['failed']:,} of the texts got no vector{first}")
        n_failed = len(failed_ids(store, encoder, ids))
        refused = sum(each.startswith(ROW_CAUSES) for each in _causes(store, encoder, ids).values()) if n_failed else 0
        _check_failed(store, encoder, n_failed - refused, ids)
    return EmbedReport(
        encoder=encoder,
        n_rows=len(ids),
        n_encoded=totals["rows"],
        n_failed=n_failed,
        n_segments=totals["segments"],
        seconds=time.monotonic() - started,
        tokens=totals["tokens"],
        truncated=totals["truncated"],
        notes=notes,
        load_seconds=load_seconds,
    )


@dataclass(frozen=True)
class _Job:
    """The source, the model and the store of a call.

    Attributes:
        model: it, or what another process that has loaded it says of it (`ModelFacts`).
        parallel, shard: where the segments are worked on, and what a process opens; None for this process.
    """

    store: Store
    work: ModelPass
    source: TextSource
    model: Any
    description: Mapping[str, Any]
    parallel: Map = in_turn
    shard: ModelShard | None = None

    @property
    def encoder(self) -> str:
        return self.work.fingerprint

    def encoded(self, segments: list[Segment], on_batch: Callable[[int], None]) -> Iterable[Counter[str]]:
        """What each segment adds to the totals, once it is committed."""
        if self.shard is None:
            for segment, turns in with_texts(self.source, segments):
                yield encode_segment(self.store, self.work, self.model, segment, turns, on_batch)
        else:
            shards = [replace(self.shard, plan=segment.plan, number=segment.number) for segment in segments]
            yield from self.parallel(encode_shard, shards, on_batch)


def _job(store: Store, work: ModelPass, source: TextSource, device: str | None, parallel: Map) -> _Job:
    """The model is loaded by those who work with it: this process does not where others do."""
    name = source_name(source)
    if parallel is in_turn or name is None:
        model = work.load(device)
        return _Job(store, work, source, model, work.description(model))
    title = f"run the model {work.fingerprint} over {source.name}"
    shard = ModelShard(store.root, title, work, work.fingerprint, name, device)
    [facts] = parallel(describe_model, [shard], int)
    return _Job(store, work, source, facts, facts.description, parallel, shard)


def _counter(on_progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    """A callback that takes the number of texts of each batch and reports their sum, first 0."""
    encoded = 0

    def on_batch(size: int) -> None:
        nonlocal encoded
        encoded = min(encoded + size, total)  # a killed worker's batches are done twice
        if on_progress is not None:
            on_progress(encoded, total)

    on_batch(0)
    return on_batch


def _causes(store: Store, encoder: str, ids: Ids) -> dict[str, str]:
    """Id -> why it has no vector, of those of some ids that have none."""
    causes: dict[str, str] = {}
    for folder in segment_folders(store, encoder):
        causes |= read_record("segments", folder).get("failed", {})
    names = list(causes)
    return {names[i]: causes[names[i]] for i in np.flatnonzero(np.isin(from_text(names), ids))} if names else {}


def _first_cause(causes: Mapping[str, str]) -> str:
    """A text without a vector, and why; not one that is no error (`ROW_CAUSES`)."""
    return next((f" (first: {i}: {cause})" for i, cause in causes.items() if not cause.startswith(ROW_CAUSES)), "")


def _check_failed(store: Store, encoder: str, n_failed: int, ids: Ids) -> None:
    # One failure is always allowed: a bad text must not stop a small pool.
    if n_failed > max(1, MAX_FAILED_FRACTION * len(ids)):
        first = _first_cause(_causes(store, encoder, ids))
        raise InvalidInput(
            f"encoder {encoder}: {n_failed} of {len(ids)} texts got no vector, at most {MAX_FAILED_FRACTION:.0%} "
            f"may{first}: they have no tokens, a server refuses them, or the model gave values that are not finite "
            f"(float16 overflows where bfloat16 and float32 do not). Each is named with its cause in "
            f"vectors/{encoder}/seg-*/segment.json"
        )


def _segments(job: _Job, todo: Ids, segment_seconds: float) -> list[Segment]:
    """The segments to encode: unfinished ones of earlier plans of which every id is still wanted, then a new plan."""
    wanted = np.sort(todo)
    resumed: list[Segment] = []
    for plan in _plans(job.store, job.encoder):
        for segment in read_plan(plan):
            rows = rows_of(segment.ids, wanted)
            if (rows >= 0).all():
                resumed.append(segment)
                wanted = np.delete(wanted, rows)
    return resumed + (_plan(job, wanted, segment_seconds) if len(wanted) else [])


def _plan(job: _Job, todo: Ids, segment_seconds: float) -> list[Segment]:
    """Cut `todo` into segments, in the order of the source, and commit them as a plan."""
    ids: list[Ids] = []
    tokens: list[int] = []
    limit = job.model.max_tokens or sys.maxsize
    for some, turns in job.source.turns(todo):
        ids.append(some)
        chars = (sum(len(content) for _, content in each) for each in turns)
        tokens += [min(1 + n // CHARS_PER_TOKEN, limit) for n in chars]
    ordered = np.concatenate(ids) if ids else todo[:0]
    if not np.array_equal(np.sort(ordered), np.sort(todo)):
        raise NotInStore(f"{job.source.name}: asked for the texts of {len(todo)} ids, got {len(ordered)}")
    rate = NOMINAL_RATE["cuda" if job.model.device.startswith("cuda") else "cpu"]
    bounds = _bounds(tokens, int(segment_seconds * rate / max(1, job.model.parameters)))
    return read_plan(_commit_plan(job.store, job.encoder, ordered, bounds, job.model.batch_tokens, job.source.name))


def _commit_plan(store: Store, encoder: str, ids: Ids, bounds: list[int], batch_tokens: int, source: str) -> Path:
    digest = hashlib.blake2b(ids.tobytes() + json.dumps(bounds).encode(), digest_size=16).hexdigest()
    name = f"plan-{digest}"
    with store.committing("vectors", encoder, name) as folder:
        np.save(folder / "ids.npy", ids, allow_pickle=False)
        record = {"bounds": bounds, "batch_tokens": batch_tokens, "source": source, "created_at": utc_now()}
        write_json(folder / "plan.json", record)
    return store.path("vectors", encoder, name)


def _plan_again(store: Store, encoder: str, segment: Path) -> None:
    """Plan a damaged segment as it was, so that its texts are encoded in the same batches and give the same bytes.

    Where that cannot be read any more, or texts failed and their place is not known, they are planned as new ones are.
    """
    try:
        header = read_record("segments", segment)
        ids = np.asarray(read_array(segment / "keys.npy"))
    except StoreDamaged:
        return
    if "batch_tokens" in header and segment_name(encoder, ids) == segment.name.partition(".")[0]:
        _commit_plan(store, encoder, ids, [0, len(ids)], header["batch_tokens"], "a damaged segment")


def _bounds(tokens: list[int], limit: int) -> list[int]:
    """The bounds of segments of about `limit` tokens each, 64 to 16,384 rows.

    >>> _bounds([10] * 200, 700)
    [0, 70, 140, 200]
    """
    bounds, load = [0], 0
    for row, count in enumerate(tokens):
        size = row - bounds[-1]
        if size >= MAX_SEGMENT_ROWS or (size >= MIN_SEGMENT_ROWS and load + count > limit):
            bounds.append(row)
            load = 0
        load += count
    return [*bounds, len(tokens)]


def _plans(store: Store, encoder: str) -> list[Path]:
    names = store.committed("vectors", encoder)
    return [store.path("vectors", encoder, name) for name in names if name.startswith("plan-")]


def _remove_finished_plans(store: Store, encoder: str) -> None:
    """Remove plans of which no segment can be resumed: each is written, or one of its ids was encoded elsewhere."""
    for folder in _plans(store, encoder):
        segments = read_plan(folder)
        open_ids = np.sort(missing_ids(store, encoder, np.concatenate([segment.ids for segment in segments])))
        if not any((rows_of(segment.ids, open_ids) >= 0).all() for segment in segments):
            shutil.rmtree(folder)
