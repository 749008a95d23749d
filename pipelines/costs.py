"""How long the work of a plan takes, and what memory and disk it needs.

Rates are those of earlier work of the same store. An encoder that has encoded nothing yet is tried on a few rows. What
has neither goes by a stated default, or is named as not known.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from pipelines.config.schema import OWN_VECTORS
from pipelines.context import Context
from pipelines.errors import USER_ERRORS
from pipelines.progress import duration
from pipelines.rates import READ_BYTES_PER_S, ROWS_PER_S
from pipelines.runs import peak_memory_bytes, runs
from storage.damage import readable
from storage.pool.content import Turns
from storage.pool.ingest import Ingest, parts, read_ingest
from storage.vectors.index import index_bytes
from storage.vectors.segments import described_dimension, segment_folders

NOT_COUNTED = "reading target sets and label files, models fitted to labels, the catalog, exports, the report"
DEFAULT_POOL_SHARE = 1.0  # bytes in the store for a byte of a file
# Stages whose rows become vectors on the disk.
VECTORS = ("embed", "embed_targets", "postprocess", "index")
# Shorter work says how long a start takes, not how fast it goes.
MIN_MEASURED_S = 0.5
# Records looked at: enough for a rate, whatever the age of the store.
RECENT = 200
PROBED_TEXTS, PROBE_S = 32, 10.0


@dataclass(frozen=True)
class Work:
    """What one stage has to do.

    Attributes:
        amount: bytes of new files for `ingest`; how often for `load`; rows for the others.
    """

    stage: str
    target: str | None
    amount: int

    @property
    def title(self) -> str:
        """The stage in a line of the estimate."""
        return " ".join(filter(None, (self.stage, self.target)))


@dataclass(frozen=True)
class Time:
    """How long a work takes, and from what that is known."""

    seconds: float
    origin: str


@dataclass(frozen=True)
class Probe:
    """An encoder, tried on a few texts."""

    texts: int
    seconds: float
    load_seconds: float
    dimension: int
    memory_bytes: int


@dataclass
class Costs:
    """The costs of a plan.

    Args:
        works: what there is to do.
        rows: of the pool once it is done.
        encoders: whose vectors are needed.
        turns: of some rows, to try encoders with.
        probe: whether to try an encoder that has encoded nothing yet; that loads its model.
    """

    context: Context
    works: Sequence[Work]
    rows: int
    encoders: Sequence[str]
    turns: Sequence[Turns]
    probe: bool = True
    notes: list[str] = field(default_factory=list)
    _probes: dict[str, Probe | None] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The estimate: time by stage, memory, disk."""
        times = [(work, self.time(work)) for work in self.works if work.amount]
        known = [(work, each) for work, each in times if each is not None]
        unknown = [work.title for work, each in times if each is None]
        yield (
            f"time: about {duration(sum(each.seconds for _, each in known))}"
            + (f", without {', '.join(unknown)}: not measured yet" if unknown else "")
        )
        for work, each in known:
            yield f"  {work.title}: {duration(each.seconds)} ({each.origin})"
        yield f"  not counted: {NOT_COUNTED}"
        yield from self._memory()
        yield self._disk()
        yield from self.notes

    # ---- time

    def time(self, work: Work) -> Time | None:
        """How long a work takes on this machine; None where nothing measured it."""
        if work.stage == "ingest":
            return self._reading(work.amount)
        if work.stage == "select":
            return self._drawing(work)
        if work.stage == "load":
            return self._loading(work)
        if work.stage in ("token_scores", "embed_targets") or (work.stage == "embed" and work.target != OWN_VECTORS):
            return self._model(work)
        return self._by_runs(work)

    def _reading(self, size: int) -> Time:
        seconds, done = sum(each.seconds for each in self._ingests), sum(each.size_bytes for each in self._ingests)
        measured = seconds >= MIN_MEASURED_S and done > 0
        rate = done / seconds if measured else READ_BYTES_PER_S
        return Time(size / rate, f"{as_bytes(rate)}/s, {'as measured' if measured else 'by default'}")

    def _drawing(self, work: Work) -> Time | None:
        """As long as the recipe's last draw, by the rows of the pool."""
        last = next((run for run in self._runs if (run["stage"], run["target"]) == ("select", work.target)), None)
        header = readable(self.context.store, "selections", last["subject"]) if last and last["subject"] else None
        if not header or not header.get("seconds"):
            return None
        rows = header.get("facts", {}).get("pool") or self.rows
        return Time(header["seconds"] * self.rows / max(rows, 1), "as its last draw, by the rows of the pool")

    def _model(self, work: Work) -> Time | None:
        assert work.target is not None
        folders = segment_folders(self.context.store, self._fingerprint(work))[-RECENT:]
        segments = [each for folder in folders if (each := self._segment(folder.parent.name, folder.name))]
        rows = sum(each["n_rows"] + each["n_failed"] for each in segments)
        seconds = sum(each.get("seconds") or 0.0 for each in segments)
        if rows and seconds:
            return Time(work.amount * seconds / rows, f"{_rate(rows / seconds)}, as measured")
        probe = None if work.stage == "token_scores" else self._probed(work.target)
        if probe is None:
            return None
        rate = probe.texts / probe.seconds
        return Time(work.amount / rate, f"{_rate(rate)}, tried on {probe.texts} rows just now")

    def _loading(self, work: Work) -> Time | None:
        """As long as the model took last time, or just now."""
        before = (run["facts"].get("seconds_to_load") for run in self._runs if run["target"] == work.target)
        probe = self._probes.get(work.target or "")
        seconds = next(filter(None, before), probe.load_seconds if probe else None)
        return None if seconds is None else Time(seconds * work.amount, f"{duration(seconds)} each time, as measured")

    def _by_runs(self, work: Work) -> Time | None:
        """By the slowest of the stage's last runs: one that had nothing to do says nothing."""
        counts = ("new_vectors",) if work.stage == "embed" else ("rows",)
        measured = [
            run["seconds"] / run["facts"][key]
            for run in self._runs
            for key in counts
            if (run["stage"], run["target"]) == (work.stage, work.target)
            and run["facts"].get(key)
            and (run["seconds"] or 0) >= MIN_MEASURED_S
        ]
        if not measured and work.stage not in ROWS_PER_S:
            return None
        rate = 1 / max(measured) if measured else ROWS_PER_S[work.stage]
        return Time(work.amount / rate, f"{_rate(rate)}, {'as measured' if measured else 'by default'}")

    def _probed(self, encoder: str) -> Probe | None:
        if not (self.probe and self.turns):
            return None
        if encoder not in self._probes:
            try:
                self._probes[encoder] = _try(self.context, encoder, self.turns)
            except (*USER_ERRORS, OSError, ImportError) as error:
                self._probes[encoder] = None
                self.notes.append(f"encoder {encoder} cannot be tried: {error}")
        return self._probes[encoder]

    # ---- memory and disk

    def _memory(self) -> Iterator[str]:
        last = next((run for run in self._runs if run.get("peak_memory_bytes")), None)
        same = [run for run in self._runs if last is not None and run["invocation"] == last["invocation"]]
        tried = [probe.memory_bytes for probe in self._probes.values() if probe]
        config, indexes = self.context.config, 0
        for encoder in self.encoders:
            if (d := self.dimension(encoder)) is None:
                yield f"memory: the dimension of {encoder} is not known before its model is loaded"
                continue
            size = index_bytes(self.rows, d, config.index.kind) if config.is_indexed(encoder) else 0
            indexes += size
            vectors = as_bytes(self.vector_bytes(encoder, d))
            yield (
                f"memory: {self.rows:,} x {d} vectors of {encoder} are {vectors} on disk, read in blocks"
                + (f"; their index is {as_bytes(size)}" if size else "")
            )
        if same:
            peak = max(run.get("peak_memory_bytes") or 0 for run in same)
            yield f"memory: the last run took {as_bytes(peak)} at most"
        elif tried:
            yield f"memory: about {as_bytes(max(tried) + indexes)}: the loaded model, measured just now, and the indexes"

    def _disk(self) -> str:
        size = sum(work.amount for work in self.works if work.stage == "ingest") * self.pool_share
        for work in self.works:
            d = self.dimension(work.target) if work.target and work.stage in VECTORS else None
            if d is not None and work.stage != "index":
                size += self.vector_bytes(str(work.target), d, work.amount)
            elif d is not None:
                size += index_bytes(work.amount, d, self.context.config.index.kind)
        root = self.context.store.root
        existing = next(folder for folder in (root, *root.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        short = "; that is not enough" if size > free else ""
        return f"disk: about {as_bytes(size)} more in {root}, {as_bytes(free)} are free{short}"

    def vector_bytes(self, encoder: str, d: int, rows: int | None = None) -> int:
        """Of so many stored vectors; of all rows by default."""
        config = self.context.config
        if encoder == OWN_VECTORS:
            stored = {file.store for file in config.pool.vectors}
        else:
            stored = {config.encoders[encoder].store}
        return (self.rows if rows is None else rows) * d * (4 if "float32" in stored else 2)

    def dimension(self, encoder: str) -> int | None:
        """Of the vectors in the store, or of the encoder that was tried."""
        fingerprint = self._fingerprint(Work("embed", encoder, 0))
        probe = self._probes.get(encoder)
        return described_dimension(self.context.store, fingerprint) or (probe.dimension if probe else None)

    # ---- records

    @cached_property
    def pool_share(self) -> float:
        """Bytes in the store for a byte of a file of the pool."""
        folders = {ingest.id: ingest.size_bytes for ingest in self._ingests}
        kept = sum(part.stat().st_size for each in folders for part in parts(self.context.store, each))
        read = sum(folders.values())
        return kept / read if read else DEFAULT_POOL_SHARE

    @property
    def row_bytes(self) -> float | None:
        """Bytes of a row of the files that were read, of the last few; None before the first."""
        rows = sum(each.readable for each in self._ingests)
        return sum(each.size_bytes for each in self._ingests) / rows if rows else None

    def _fingerprint(self, work: Work) -> str:
        assert work.target is not None
        view = self.context.pool
        return (
            view.model_fingerprint(work.target) if work.stage == "token_scores" else view.base_fingerprint(work.target)
        )

    def _segment(self, encoder: str, name: str) -> dict[str, Any] | None:
        return readable(self.context.store, "segments", encoder, name)

    @cached_property
    def _runs(self) -> list[dict[str, Any]]:
        """Recent runs that succeeded, the newest first."""
        recent: Iterable[dict[str, Any]] = islice(runs(self.context.store), 5 * RECENT)
        return [run for run in recent if run["status"] == "ok"]

    @cached_property
    def _ingests(self) -> list[Ingest]:
        store = self.context.store
        names = [folder.name for folder in store.path("pool").glob("*") if readable(store, "pool", folder.name)]
        return [read_ingest(store, name) for name in names[:RECENT]]


def _try(context: Context, encoder: str, turns: Sequence[Turns]) -> Probe:
    """Encode a few texts, one after the other while there is time: an upper bound of what a text takes in a batch."""
    from selection.encoders import load_vectorizer

    started = time.monotonic()
    model = load_vectorizer(context.config.encoders[encoder])
    load_seconds = time.monotonic() - started
    rows = turns[:PROBED_TEXTS]
    model.vectors_of(rows[:1])  # the first one warms up
    done, started = 0, time.monotonic()
    for start in range(0, len(rows), 8):
        block = rows[start : start + 8]
        model.vectors_of(block)
        done += len(block)
        if time.monotonic() - started > PROBE_S:
            break
    seconds = max(time.monotonic() - started, 1e-6)
    return Probe(done, seconds, load_seconds, model.dimension, peak_memory_bytes())


def as_bytes(size: float) -> str:
    """A number of bytes in the unit that suits it.

    >>> as_bytes(512), as_bytes(11_520_000), as_bytes(2.5e9)
    ('512 B', '11.5 MB', '2.5 GB')
    """
    units = ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:,.{0 if units[0] == 'B' else 1}f} {units[0]}"


def _rate(rows_per_s: float) -> str:
    return f"{rows_per_s:,.0f} rows/s" if rows_per_s >= 10 else f"{rows_per_s:.1f} rows/s"
