"""A segment of texts that a model reads, and the work on it in any process. See `encode`.

A shard names what a process opens: the store, the model with its fingerprint, the source of the texts, and a segment of
a plan. The segment is committed by whoever worked on it; only counts come back.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa

from selection.encoders import ROW_CAUSES, Probed
from selection.types import Array
from storage.damage import read_record
from storage.errors import BadInput, NotInStore
from storage.ids import Ids, rows_of, to_text
from storage.pool.snapshot import Snapshot, open_snapshot
from storage.pool.targets import TargetSet, open_targets
from storage.shards import Report
from storage.store import Store, read_array, utc_now
from storage.vectors.segments import commit_segment, segment_name

MODEL_LIBRARIES = ("torch", "transformers", "sentence_transformers")

Turns = list[tuple[str, str]]


class TextSource(Protocol):
    """Texts by id: a snapshot of the pool or a target set."""

    @property
    def name(self) -> str: ...

    @property
    def ids(self) -> Ids: ...

    def turns(self, wanted: Ids) -> Iterator[tuple[Ids, list[Turns]]]:
        """The turns of the wanted ids, each once, in any order, in blocks."""
        ...


@dataclass(frozen=True, kw_only=True)
class SegmentContent:
    """What a model gave for the texts of a segment.

    Attributes:
        vectors: (n, d) float; of norm 1, or of no dimension where `table` holds all.
        failed: rows without anything -> why.
        tokens: how many were read.
        truncated: how many texts were cut.
        dtype: how the vectors are stored.
        table: further columns, a row for each text that did not fail, in their order; behind the ids in rows.parquet.
        norms: (n, checkpoints) of gradients, see `Encoded`.
    """

    vectors: Array
    failed: Mapping[int, str]
    tokens: int
    truncated: int
    dtype: str = "float16"
    table: pa.Table | None = None
    norms: Array | None = None


class ModelPass(Protocol):
    """A model, and what is done with each text: a frozen dataclass that can be sent to another process."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def fingerprint(self) -> str:
        """What names the folder of its segments: all that its numbers depend on."""
        ...

    def load(self, device: str | None) -> Any:
        """The model, with `device`, `parameters`, `batch_tokens`, `max_tokens` and `notes`."""
        ...

    def description(self, model: Any) -> dict[str, Any]:
        """JSON-plain, kept beside the segments: `spec` and `dimension` at least."""
        ...

    def run(
        self, model: Any, turns: list[Turns], *, batch_tokens: int, on_batch: Callable[[int], None]
    ) -> SegmentContent:
        """What the model gives for some texts; `on_batch` is called after each batch with its number of texts."""
        ...


@dataclass(frozen=True)
class Segment:
    """Ids to encode together, in this order.

    Attributes:
        plan: the name of the folder of the plan that it is of.
        number: its place there.
    """

    ids: Ids
    batch_tokens: int
    plan: str
    number: int


def read_plan(folder: Path) -> list[Segment]:
    """The segments of a committed plan."""
    record = read_record("plans", folder)
    ids = read_array(folder / "ids.npy")
    return [
        Segment(ids[a:b], record["batch_tokens"], folder.name, number)
        for number, (a, b) in enumerate(itertools.pairwise(record["bounds"]))
    ]


def with_texts(source: TextSource, segments: list[Segment]) -> Iterator[tuple[Segment, list[Turns]]]:
    """Each segment with its texts, as soon as the source has yielded them all."""
    ids = np.concatenate([segment.ids for segment in segments])
    starts = np.cumsum([0, *(len(segment.ids) for segment in segments)])
    order = np.argsort(ids)
    ordered = ids[order]
    waiting: dict[int, dict[int, Turns]] = {number: {} for number in range(len(segments))}
    for some, turns in source.turns(ids):
        rows = rows_of(some, ordered)
        for place, each in zip(order[rows[rows >= 0]], itertools.compress(turns, rows >= 0), strict=True):
            number = int(np.searchsorted(starts, place, "right")) - 1
            texts = waiting[number]
            texts[int(place - starts[number])] = each
            if len(texts) == len(segments[number].ids):
                del waiting[number]
                yield segments[number], [texts[i] for i in range(len(texts))]
    absent = sum(len(segments[number].ids) - len(texts) for number, texts in waiting.items())
    if absent:
        raise NotInStore(f"{source.name}: the texts of {absent} of {len(ids)} ids were not given")


def encode_segment(
    store: Store, work: ModelPass, model: Any, segment: Segment, turns: list[Turns], on_batch: Callable[[int], Any]
) -> Counter[str]:
    """Run the model over a segment and commit it; gives what it adds to the totals of a call."""
    started = time.monotonic()
    content = work.run(model, turns, batch_tokens=segment.batch_tokens, on_batch=on_batch)
    failed = np.zeros(len(turns), np.bool_)
    failed[list(content.failed)] = True
    record = {
        "failed": {to_text(segment.ids[row : row + 1])[0]: cause for row, cause in content.failed.items()},
        "tokens": content.tokens,
        "truncated": content.truncated,
        "batch_tokens": segment.batch_tokens,
        "seconds": round(time.monotonic() - started, 3),
        "created_at": utc_now(),
        **_environment(model),
    }
    commit_segment(
        store,
        work.fingerprint,
        segment.ids,
        content.vectors,
        record,
        failed=failed,
        dtype=content.dtype,
        table=content.table,
        norms=content.norms,
    )
    return _counts(segment, record)


def _counts(segment: Segment, record: Mapping[str, Any]) -> Counter[str]:
    return Counter(
        segments=1,
        rows=len(segment.ids),
        tokens=record["tokens"],
        truncated=record["truncated"],
        failed=sum(not cause.startswith(ROW_CAUSES) for cause in record["failed"].values()),
    )


def _environment(model: Any) -> dict[str, Any]:
    """The versions and settings on which the bits of a number depend, beside the plan.

    Of the model libraries those that are loaded: a representation without a model needs none of them.
    """
    if isinstance(model, Probed):
        return {"device": model.device}  # the versions are the server's
    loaded = {name: sys.modules[name] for name in MODEL_LIBRARIES if name in sys.modules}
    threads = {"threads": loaded["torch"].get_num_threads()} if "torch" in loaded else {}
    return {"device": model.device} | threads | {name: library.__version__ for name, library in loaded.items()}


# ---- in any process


@dataclass(frozen=True)
class ModelFacts:
    """A model that another process has loaded; `description` and the others as `ModelPass` has them."""

    device: str
    parameters: int
    batch_tokens: int
    max_tokens: int | None
    notes: tuple[str, ...]
    description: Mapping[str, Any]


@dataclass(frozen=True)
class SourceName:
    """A source of texts in the store."""

    kind: Literal["snapshot", "targets"]
    id: str


@dataclass(frozen=True)
class ModelShard:
    """A segment that any process can work on.

    Attributes:
        root: of the store.
        title: in an error's words.
        fingerprint: of the model, as the process that made the plan sees its files.
        source: of the texts.
        plan, number: see `Segment`.
    """

    root: Path
    title: str
    work: ModelPass
    fingerprint: str
    source: SourceName
    device: str | None = None
    plan: str = ""
    number: int = 0

    def __str__(self) -> str:
        return f"{self.title}, segment {self.number + 1}" if self.plan else self.title


def source_name(source: TextSource) -> SourceName | None:
    """The name of a source; None where its texts are in memory only."""
    if isinstance(source, Snapshot):
        return SourceName("snapshot", source.id)
    return SourceName("targets", source.id) if isinstance(source, TargetSet) else None


@lru_cache(maxsize=2)
def _opened(root: Path, name: SourceName) -> TextSource:
    return (open_snapshot if name.kind == "snapshot" else open_targets)(Store(root), name.id)


def describe_model(shard: ModelShard, _: Report) -> ModelFacts:
    """Load the model; gives what planning needs."""
    model = _loaded(shard)
    return ModelFacts(
        device=model.device,
        parameters=model.parameters,
        batch_tokens=model.batch_tokens,
        max_tokens=model.max_tokens,
        notes=tuple(model.notes),
        description=shard.work.description(model),
    )


def encode_shard(shard: ModelShard, report: Report) -> Counter[str]:
    """`encode_segment`, from names; a segment that is committed already is only counted."""
    store = Store(shard.root)
    segment = read_plan(store.path("vectors", shard.fingerprint, shard.plan))[shard.number]
    folder = store.path("vectors", shard.fingerprint, segment_name(shard.fingerprint, segment.ids))
    if folder.is_dir():  # its process was killed before it could say so
        return _counts(segment, read_record("segments", folder))
    model = _loaded(shard)
    [(_, turns)] = with_texts(_opened(shard.root, shard.source), [segment])
    return encode_segment(store, shard.work, model, segment, turns, report)


# Fingerprint -> the model that this process has loaded; one at a time.
_models: dict[str, Any] = {}


def _loaded(shard: ModelShard) -> Any:
    if shard.fingerprint not in _models:
        fingerprint = replace(shard.work).fingerprint  # of the files as this process sees them
        if fingerprint != shard.fingerprint:
            raise BadInput(
                f"{shard.title}: a worker has other files of the model than the process that started it (fingerprint "
                f"{fingerprint}, expected {shard.fingerprint}); each machine needs the same, unchanged while a run lasts"
            )
        _models.clear()
        _models[shard.fingerprint] = shard.work.load(shard.device)
    return _models[shard.fingerprint]
