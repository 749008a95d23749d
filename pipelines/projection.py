"""The plan of a first run on a pool of another size, on workers and cards: `winnow plan --rows 1e9 --workers 64 --gpu h100`.

The same costs as those of the plan for today, where this store has measured them, and `pipelines.rates` where it has
not. A worker is a process of one core, with a card if one is named; the driver is a machine like this one. What runs on
the workers takes its seconds divided by their number; what runs on the driver is waited for.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipelines.config.schema import OWN_VECTORS, Recipe
from pipelines.context import Context
from pipelines.costs import Costs, Time, Work, as_bytes
from pipelines.messages import counted, listed, nearest
from pipelines.pool_files import PoolFiles, pool_files
from pipelines.progress import duration
from pipelines.rates import (
    BASE_BYTES,
    BYTES_PER_ROW,
    CARDS,
    INDEX_OPERATIONS_PER_S,
    NETWORK_BYTES_PER_S,
    ROWS_PER_S,
    STEPS,
    TOKENS,
    UTILISATION,
    WORKER_BYTES,
    Card,
    Size,
    index_operations,
)
from pipelines.recipes.spec import encoders_of, models_of
from pipelines.runs import last_run
from selection.encoders.postprocess import postprocess_of
from selection.encoders.spec import local_folder
from storage.errors import BadInput
from storage.pool.peek import peek
from storage.vectors.imported import files_dimension
from storage.vectors.index import cells_for, index_bytes, kind_for

# What is assumed where nothing is known.
DIMENSION, TARGETS, ROW_BYTES = 384, 500, 1000.0
MOST_ROWS = 10**12
# What the engine spreads over workers, beside what steps compare (`StepRate.on_workers`); the driver does all else.
ON_WORKERS = ("ingest", "decontaminate", "embed", "token_scores")
_NUMBER = re.compile(r"(\d[\d_,]*(?:\.\d+)?)(?:e\+?(\d{1,2}))?([kmb]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
# Stage -> what to do where the driver has too little memory or time for it.
WHAT_THEN = {
    "snapshot": "a driver with more memory: ids of all rows are sorted in it; or pools of their own for parts of the sources, "
    "joined by a last recipe",
    "embed": "import vectors by a pool that is smaller, or encode: keys of all rows are in memory while files are matched",
    "index": "`index: {kind: flat}`, and recipes that read all vectors; or `kind: rabitq`, the smallest",
    "select": "a driver with more memory or cores; or `where:` to leave rows out first, a filter by a column before the one by vectors, or a sample by `random`",
    "report": "nothing: the subsets are published before it",
}


@dataclass(frozen=True)
class Stage:
    """A stage at the projected size.

    Attributes:
        seconds: None where nothing tells.
        width: on how many workers; 0 on the driver.
        memory: bytes of a process that does it.
        read, written: bytes on the shared path, of all processes together.
    """

    kind: str
    title: str
    seconds: float | None
    origin: str
    width: int
    memory: float
    read: float = 0.0
    written: float = 0.0

    @property
    def waited(self) -> float:
        """Seconds that pass: of the work, or of the network if that takes longer."""
        return max(self.seconds or 0.0, (self.read + self.written) / (max(self.width, 1) * NETWORK_BYTES_PER_S))


def rows_of(text: str) -> int:
    """A number of rows as people write it.

    Raises:
        BadInput: it is none, or not in 1 .. 10^12.

    >>> rows_of("1e9"), rows_of("1_000_000"), rows_of("10M"), rows_of("2.5k")
    (1000000000, 1000000, 10000000, 2500)
    """
    match = _NUMBER.fullmatch(text.strip())
    if match:
        digits, power, unit = match.groups()
        number = float(re.sub("[_,]", "", digits)) * 10 ** int(power or 0) * _UNITS[unit.lower()]
        if number == int(number) and 1 <= number <= MOST_ROWS:
            return int(number)
    raise BadInput(f"--rows: must be a whole number in 1 .. {MOST_ROWS:,}, as 1e9, 10M or 1_000_000; found {text!r}")


def card_of(name: str) -> Card:
    """A card by its name.

    Raises:
        BadInput: it is not in the table.
    """
    card = CARDS.get(name.lower().removeprefix("rtx").strip(" -_"))
    if card is None:
        raise BadInput(f"--gpu: must be one of {listed(CARDS)}; found {name!r}{nearest(name, CARDS)}")
    return card


def project(context: Context, rows: str, workers: int, gpu: str | None, *, probe: bool = True) -> Iterator[str]:
    """The lines of the projection.

    Raises:
        BadInput: `rows` is no number of rows, or the card is not known.
    """
    projection = Projection(context, rows_of(rows), workers, None if gpu is None else card_of(gpu), probe=probe)
    name = f", each with a card {gpu}" if gpu else ""
    yield f"a first run on {projection.rows:,} rows, {counted(workers, 'worker')} of one core{name}: a projection, not a run"
    yield from projection.lines()


@dataclass
class Projection:
    """The stages of a configuration at another size."""

    context: Context
    rows: int
    workers: int
    card: Card | None
    probe: bool = True
    assumed: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """A line for each stage, and what they add up to."""
        stages = list(self.stages())
        yield f"{'stage':28} {'on':>11} {'time':>12} {'memory':>10} {'reads':>10} {'writes':>10}  by"
        for stage in stages:
            on = f"{stage.width:,} workers" if stage.width > 1 else "1 worker" if stage.width else "the driver"
            took = "not known" if stage.seconds is None else duration(stage.waited)
            sizes = " ".join(f"{as_bytes(size):>10}" for size in (stage.memory, stage.read, stage.written))
            yield f"{stage.title:28} {on:>11} {took:>12} {sizes}  {stage.origin}"
        driver = sum(stage.waited for stage in stages if not stage.width)
        whole = sum(stage.waited for stage in stages)
        yield f"time: {duration(whole)}, of these {duration(driver)} on the driver alone, which more workers do not shorten"
        yield (
            f"network: {as_bytes(sum(stage.read + stage.written for stage in stages))} to and from the shared path, at "
            f"{as_bytes(NETWORK_BYTES_PER_S)}/s a process"
        )
        yield f"disk: {as_bytes(sum(stage.written for stage in stages))} in the store, beside your files"
        most = max(stage.memory for stage in stages if stage.width) if any(stage.width for stage in stages) else 0
        yield f"memory: {as_bytes(most)} a worker, {as_bytes(max(s.memory for s in stages if not s.width))} for the driver"
        yield from self._breaks(stages)
        yield from (f"assumed: {text}" for text in dict.fromkeys(self.assumed))
        yield "not counted: starting workers and loading models, reading target sets and label files, models fitted to labels, exports"

    def _breaks(self, stages: list[Stage]) -> Iterator[str]:
        """Which stage of the driver breaks first as the pool grows, and what then."""
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        grows = [stage for stage in stages if not stage.width and stage.memory > BASE_BYTES]
        if grows:
            first = max(grows, key=lambda stage: stage.memory)
            most = int((memory - BASE_BYTES) / ((first.memory - BASE_BYTES) / self.rows))
            fits = "it fits" if first.memory <= memory else "it does not fit"
            yield (
                f"breaks first by memory: {first.title}, at about {_rounded(most):,} rows on a driver with "
                f"{as_bytes(memory)} as this machine has; here {fits}. Then: {WHAT_THEN[first.kind]}"
            )
        timed = [stage for stage in stages if not stage.width and stage.seconds is not None]
        if timed:
            longest = max(timed, key=lambda stage: stage.waited)
            yield f"longest on the driver: {longest.title}, {duration(longest.waited)}. Then: {WHAT_THEN[longest.kind]}"

    def stages(self) -> Iterator[Stage]:
        """The stages that a first run of this configuration has, in order."""
        config = self.context.config
        files = self.rows * self._row_bytes
        content = files * self._costs.pool_share
        yield self._stage(Work("ingest", None, int(files)), "pool: files", read=files, written=content)
        yield self._stage(
            Work("snapshot", None, self.rows), "pool: snapshot", read=16.0 * self.rows, written=40.0 * self.rows
        )
        if config.decontamination is not None:
            yield self._stage(Work("decontaminate", None, self.rows), "decontamination", read=content)
        for model in models_of(config, config.recipes):
            yield self._model(Work("token_scores", model, self.rows), f"{model}/token_scores", written=40.0 * self.rows)
        for encoder in encoders_of(config, config.recipes):
            yield from self._vectors(encoder, content)
        for name, recipe in config.recipes.items():
            yield from self._selection(name, recipe)
        yield self._stage(Work("report", None, self.rows), "report", read=content)

    def _vectors(self, encoder: str, content: float) -> Iterator[Stage]:
        d = self._dimension(encoder)
        size = float(self._costs.vector_bytes(encoder, d))
        work, title = Work("embed", encoder, self.rows), f"{encoder}/embeddings"
        if encoder == OWN_VECTORS:
            yield self._stage(work, title, read=2 * size, written=size)
        else:
            yield self._model(work, title, read=content, written=size)
            if postprocess_of(self.context.config.encoders[encoder]) is not None:
                yield self._stage(
                    Work("postprocess", encoder, self.rows), f"{encoder}/postprocess", read=size, written=size
                )
        asked = self.context.config.index.kind
        kind = kind_for(self.rows) if asked == "auto" else asked
        if self.context.config.is_indexed(encoder) and kind != "flat":
            cells = cells_for(self.rows, kind)
            seconds = index_operations(self.rows, d, cells) / INDEX_OPERATIONS_PER_S / self._cores
            index = float(index_bytes(self.rows, d, kind))
            origin = f"{cells:,} cells, {kind}"
            yield Stage("index", f"{encoder}/vector_index", seconds, origin, 0, BASE_BYTES + index, size, index)

    def _selection(self, name: str, recipe: Recipe) -> Iterator[Stage]:
        title, work = f"selection/{name}", Work("select", name, self.rows)
        memory, read = BASE_BYTES + BYTES_PER_ROW["select"] * self.rows, 0.0
        d = DIMENSION
        for encoder in encoders_of(self.context.config, [name]):
            d = self._dimension(encoder)
            read = float(self._costs.vector_bytes(encoder, d))
        names = [step.name for step in recipe.steps.parsed]
        unknown = [step for step in names if step not in STEPS]
        size = Size(self.rows, d, recipe.constraints.amount, self._targets)
        last = last_run(self.context.store, "select", name)
        if not unknown:
            seconds = {step: STEPS[step].seconds(size) for step in names}
            spread = {step: s * STEPS[step].on_workers for step, s in seconds.items()} if self.workers > 1 else {}
            shared = [step for step, s in spread.items() if s]
            if shared:
                workers = sum(spread.values()) / self.workers
                origin = f"their part of {listed(shared)}"
                yield Stage("select", f"{title}: vectors", workers, origin, self.workers, WORKER_BYTES, read)
                read = 0.0
            own = sum(seconds.values()) - sum(spread.values()) + self.rows / ROWS_PER_S["select"]
            yield Stage("select", title, own / self._cores, f"operations of {listed(names)}", 0, memory, read)
            return
        time = self._costs.time(work) if last is not None else None
        origin = (
            f"{time.origin}, which {listed(unknown)} may not follow"
            if time
            else f"no rate of {listed(unknown)}: draw once"
        )
        yield Stage("select", title, time.seconds if time else None, origin, 0, memory, read)

    def _stage(self, work: Work, title: str, read: float = 0.0, written: float = 0.0) -> Stage:
        """A stage by its rate here, or by `pipelines.rates`."""
        width = self.workers if work.stage in ON_WORKERS and work.target != OWN_VECTORS else 0
        time = self._by_rate(work) if work.stage in ("snapshot", "report") else self._costs.time(work)
        seconds = None if time is None else time.seconds * (self._cores / width if width else 1)
        if work.stage == "ingest" and time is not None and "default" in time.origin:
            time = Time(self.rows / ROWS_PER_S["ingest"], f"{ROWS_PER_S['ingest']:,.0f} rows/s a core, by default")
            seconds = time.seconds / width
        memory = WORKER_BYTES if width else BASE_BYTES + BYTES_PER_ROW.get(work.stage, 0) * self.rows
        return Stage(
            work.stage, title, seconds, time.origin if time else "not measured: run once", width, memory, read, written
        )

    def _model(self, work: Work, title: str, read: float = 0.0, written: float = 0.0) -> Stage:
        """A stage of model passes: on the card named, or as fast as here."""
        weights = self._parameters(str(work.target)) if self.card is not None else None
        memory = WORKER_BYTES + (4.0 * weights if weights else 0)
        if self.card is None or weights is None:
            stage = self._stage(work, title, read, written)
            if self.card is None:
                return stage
            unknown = "the parameters of its model are not known here, so no card is counted"
            return Stage(
                stage.kind, title, stage.seconds, f"{stage.origin}; {unknown}", stage.width, memory, read, written
            )
        tokens = self._tokens(work)
        rate = self.card.operations_per_s * UTILISATION / (2.0 * weights * tokens)
        origin = f"{rate:,.0f} rows/s a card: {weights / 1e6:,.0f}M parameters, {tokens:,.0f} tokens a row, {UTILISATION:.0%} of its peak"
        return Stage(work.stage, title, self.rows / rate / self.workers, origin, self.workers, memory, read, written)

    def _by_rate(self, work: Work) -> Time:
        rate = ROWS_PER_S.get(work.stage, ROWS_PER_S["snapshot"])
        return Time(work.amount / rate, f"{rate:,.0f} rows/s, by default")

    # ---- what is known of the project

    @cached_property
    def _costs(self) -> Costs:
        encoders = encoders_of(self.context.config, self.context.config.recipes)
        return Costs(self.context, (), self.rows, encoders, self._files.turns, probe=self.probe)

    @cached_property
    def _files(self) -> PoolFiles:
        return pool_files(self.context)

    @property
    def _cores(self) -> int:
        """Of the driver."""
        return len(os.sched_getaffinity(0))

    @cached_property
    def _row_bytes(self) -> float:
        """Of a row in the files."""
        files = self._files
        known = self._costs.row_bytes or (files.new_bytes / files.new_rows if files.new_rows else None)
        return known or self._assumed(ROW_BYTES, f"{ROW_BYTES:,.0f} bytes a row: there is no file to read")

    @cached_property
    def _targets(self) -> int:
        """Of all sets together."""
        config, store = self.context.config, self.context.store
        specs = [spec for each in config.targets.values() for spec in each.specs(config.root)]
        try:
            return sum(peek(store, spec).rows for spec in specs)
        except BadInput as error:
            return int(self._assumed(TARGETS, f"{TARGETS} targets: {error}"))

    def _dimension(self, encoder: str) -> int:
        known = self._costs.dimension(encoder)
        if known is None and encoder == OWN_VECTORS:
            known = files_dimension(self.context.store, self.context.config.vector_files(None))
        reason = f"{encoder} has {DIMENSION} dimensions: it encoded nothing yet"
        return known or int(self._assumed(DIMENSION, reason))

    def _tokens(self, work: Work) -> float:
        run = last_run(self.context.store, work.stage, work.target)
        facts = run["facts"] if run else {}
        rows = facts.get("encoded") or facts.get("scored")
        if rows and facts.get("tokens"):
            return float(facts["tokens"] / rows)
        specs = self.context.config.models if work.stage == "token_scores" else self.context.config.encoders
        most = getattr(specs[str(work.target)], "max_tokens", None) or TOKENS
        tokens = min(most, TOKENS)
        return self._assumed(tokens, f"{tokens} tokens a row for {work.target}: it encoded nothing yet")

    def _parameters(self, name: str) -> int | None:
        """Of the model of an encoder, by its files; None where they are not on this machine."""
        config = self.context.config
        spec = config.encoders.get(name) or config.models.get(name)
        model = getattr(spec, "model", None)
        folder = local_folder(model, None) if model else None
        return None if folder is None else parameters_in(folder)

    def _assumed(self, value: float, text: str) -> float:
        self.assumed.append(text)
        return value


def parameters_in(folder: Path) -> int | None:
    """How many numbers the matrices of a model have by which each token is multiplied: all but tables of embeddings.

    None if there is no safetensors file; only its header is read.
    """
    total = 0
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        tensors = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
        total += sum(math.prod(shape) for name, shape in tensors.items() if len(shape) > 1 and "embed" not in name)
    return total or None


def _rounded(number: int) -> int:
    """To two digits."""
    power = int(10 ** max(len(str(number)) - 2, 0))
    return number // power * power
