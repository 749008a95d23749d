"""One function per stage; a command and a Dagster asset are two thin callers of the same function.

ingest -> embed -> index ----+
  targets -> embed_targets --+-> select (a recipe) -> publish
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.config.schema import OWN_VECTORS
from pipelines.context import Check, Context, Outcome, last_run, stage
from pipelines.progress import duration
from pipelines.recipes import draw as selecting
from pipelines.recipes import spec as drawing
from pipelines.stages.encode import embed as embed_source
from storage import ids as idlib
from storage.catalog import publish as catalog
from storage.errors import BadInput
from storage.pool.columns import ingest_columns
from storage.pool.ingest import Ingest, check_bad_fraction, ingest_file
from storage.pool.snapshot import Snapshot, open_snapshot, take_snapshot
from storage.pool.targets import TargetSet
from storage.records import digest_of, read_selection
from storage.vectors import imported as own_vectors
from storage.vectors import segments as vectors
from storage.vectors.index import build_index

# What becomes of the rows of the pool's files; the first is the sum of the next three.
COUNTS = ("read", "kept", "duplicate", "quarantined", "empty_responses")


@stage("ingest")
def ingest(context: Context) -> Outcome:
    """Read the pool's files into the store and take a snapshot; files that are there already cost one digest pass."""
    config, store = context.config, context.store
    specs = config.pool.specs(config.root)
    ingests: dict[str, Ingest] = {}
    rows = 0

    def count(more: int) -> None:
        nonlocal rows
        rows += more
        context.report.progress(f"read the pool, file {len(ingests) + 1} of {len(specs)}", rows, None)

    for spec in specs:
        done = ingest_file(store, spec, on_rows=count)
        ingests.setdefault(done.id, done)  # two files of the same bytes are one ingest
    check_bad_fraction(list(ingests.values()), config.pool.max_bad_fraction, store)
    if not any(one.readable for one in ingests.values()):
        raise BadInput(f"the pool is empty: the {len(specs)} files under `pool.files` hold no readable row")
    columns = [ingest_columns(store, brought.url, brought.id) for brought in config.pool.columns]
    last = last_run(store, "ingest")
    snapshot = take_snapshot(store, list(ingests), parent=last["subject"] if last else None, columns=columns)
    total = {key: sum(counts[key] for counts in snapshot.counts.values()) for key in COUNTS}
    return Outcome(
        subject=snapshot.id,
        facts={
            "files": len(specs),
            "new_files": sum(one.new for one in ingests.values()),
            "same_files": len(specs) - len(ingests),
            **total,
            "vanished": snapshot.facts["tombstones"],
        },
        summary=f"{total['kept']:,} rows kept of {total['read']:,} read ({total['duplicate']:,} exact duplicates, "
        f"{total['quarantined']:,} quarantined), {sum(one.new for one in ingests.values())} of {len(specs)} files new",
        checks=(
            Check(
                "rows_accounted_for",
                total["read"] == total["kept"] + total["duplicate"] + total["quarantined"]
                and total["kept"] == len(snapshot),
                f"read {total['read']:,} = kept {total['kept']:,} + duplicate {total['duplicate']:,} "
                f"+ quarantined {total['quarantined']:,}; the snapshot has {len(snapshot):,} rows",
            ),
        ),
    )


@stage("embed")
def embed(context: Context, encoder: str) -> Outcome:
    """Embed the rows of the pool that this encoder has not seen, or take in the vectors that the user brought."""
    if encoder == OWN_VECTORS:
        return _taken_in(context, {None: context.snapshot()})
    return _embedded(context, encoder, [context.snapshot()])


@stage("embed_targets")
def embed_targets(context: Context, encoder: str) -> Outcome:
    """Read the target sets and embed what this encoder has not seen of them, in the same space as the pool."""
    names = context.config.targets_in(encoder)
    sets = drawing.target_sets(context, names)
    if encoder == OWN_VECTORS:
        return _taken_in(context, dict(zip(names, sets, strict=True)))
    return _embedded(context, encoder, sets)


@stage("index")
def index(context: Context, encoder: str) -> Outcome:
    """Index the pool's vectors for neighbour search and measure the index against exact search."""
    settings = context.config.index
    snapshot = context.snapshot()
    pool = vectors.StoredVectors(context.store, drawing.fingerprint(context, encoder), snapshot.ids)
    context.report.say(f"index {encoder}: {pool.shape[0]:,} vectors of {pool.shape[1]} dimensions")
    built = build_index(context.store, pool, snapshot=snapshot.id, kind=settings.kind, nprobe=settings.nprobe)
    return Outcome(
        subject=built.index,
        facts={"kind": built.kind, "rows": built.n_rows, "nprobe": built.nprobe, "recall_at_10": built.recall_at_10},
        summary=f"{built.kind} over {built.n_rows:,} vectors, recall@10 {built.recall_at_10:.3f} against exact search",
        checks=(
            Check(
                "recall_above_floor",
                built.recall_at_10 >= settings.min_recall,
                f"recall@10 {built.recall_at_10:.3f}, floor {settings.min_recall} (`index.min_recall`)",
            ),
        ),
    )


@stage("select")
def select(context: Context, recipe: str) -> Outcome:
    """Draw one recipe, commit the selection and check it."""
    last = last_run(context.store, "select", recipe)
    drawn = selecting.draw(context, recipe)
    made = "drew" if drawn.new else "the same inputs as before, so the same"
    facts = {"rows": len(drawn.ids), **drawn.facts}
    kept_out = [f"{facts[rule]:,} {rule.replace('_', ' ')}" for rule in selecting.RULES if facts.get(rule)]
    by = selecting.DROPPED_BY
    dropped = [f"{name.removeprefix(by)} dropped {facts[name]:,}" for name in facts if name.startswith(by)]
    unknown = facts.get("deny_unknown")
    overlap = _overlap(context, drawn, last["subject"] if last else None)
    return Outcome(
        subject=drawn.drawing.selection_id,
        facts=facts if overlap is None else {**facts, "overlap_with_last": round(overlap, 4)},
        summary=f"{made} {len(drawn.ids):,} rows of {facts['eligible']:,} eligible"
        + (f" (kept out: {', '.join(kept_out)})" if kept_out else "")
        + "".join(f"; {part}" for part in dropped)
        + (
            f"; {unknown:,} {'id' if unknown == 1 else 'ids'} of the deny list {'is' if unknown == 1 else 'are'} of no row of the pool"
            if unknown
            else ""
        ),
        checks=_selection_checks(context, recipe, drawn, overlap),
    )


@stage("publish")
def publish(context: Context) -> Outcome:
    """Publish the catalog: everything committed so far becomes visible to SQL at once."""
    committed = len(context.store.records("selections"))
    path = catalog.publish(context.store)
    listed = catalog.query(context.store, "SELECT count(*) FROM selections")[0][0].as_py()
    return Outcome(
        subject=path.name,
        facts={"path": str(path), "size_bytes": path.stat().st_size, "selections": listed},
        summary=f"catalog published: {context.store.path('winnow.duckdb')}",
        checks=(
            Check(
                "every_selection_listed",
                listed >= committed,
                f"{listed:,} selections in the catalog, {committed:,} were committed",
            ),
        ),
    )


def _embedded(context: Context, encoder: str, sources: Sequence[Snapshot | TargetSet]) -> Outcome:
    spec = context.config.encoders[encoder]
    reports = []
    for source in sources:
        what = f"embed {'the pool' if isinstance(source, Snapshot) else source.name} with {encoder}"
        reports.append(
            embed_source(
                context.store,
                spec,
                source,
                on_progress=lambda done, total, what=what: context.report.progress(what, done, total),  # type: ignore[misc]
            )
        )
    for note in dict.fromkeys(note for one in reports for note in one.notes):
        context.report.say(f"{encoder}: {note}")
    rows, encoded = sum(one.n_rows for one in reports), sum(one.n_encoded for one in reports)
    failed = sum(one.n_failed for one in reports)
    seconds, truncated = sum(one.seconds for one in reports), sum(one.truncated for one in reports)
    work = f"{encoded:,} texts encoded in {duration(seconds)}" if encoded else "nothing new to encode"
    return Outcome(
        subject=spec.fingerprint(),
        facts={
            "texts": rows,
            "encoded": encoded,
            "failed": failed,
            "truncated": truncated,
            "tokens": sum(one.tokens for one in reports),
            "seconds_to_encode": round(seconds, 3),
        },
        summary=f"{work}, {rows - failed:,} vectors in all"
        + (f", {failed:,} texts without one" if failed else "")
        + (f", {truncated:,} cut at {spec.max_tokens:,} tokens" if truncated else ""),
        checks=(_every_row_seen(context, [(spec.fingerprint(), source) for source in sources]),),
    )


def _taken_in(context: Context, sources: Mapping[str | None, Snapshot | TargetSet]) -> Outcome:
    """The user's own vectors of the pool (None), or of target sets by name."""
    config, store = context.config, context.store
    dimensions = {name: own_vectors.dimension(store, config.vector_files(name)) for name in (None, *sources)}
    for name, found in dimensions.items():
        if found != dimensions[None]:
            raise BadInput(
                f"targets.{name}.vectors: {found} dimensions, those of pool.vectors have {dimensions[None]}; targets and "
                "pool must come from the same encoder"
            )
    reports = []
    for name, source in sources.items():
        what = f"take in the vectors of {name or 'the pool'}"
        done = own_vectors.take_in(
            store,
            config.vector_files(name),
            source,
            on_progress=lambda done, total, what=what: context.report.progress(what, done, total),  # type: ignore[misc]
            on_wait=lambda holder, what=what: context.report.say(f"{what}: waiting for {holder}"),  # type: ignore[misc]
        )
        reports.append(done)
        for note in done.notes:
            context.report.say(f"{what}: {note}")
    rows, taken, failed = (sum(getattr(one, key) for one in reports) for key in ("n_rows", "n_new", "n_failed"))
    return Outcome(
        subject=digest_of([one.encoder for one in reports]) if len(reports) > 1 else reports[0].encoder,
        facts={
            "rows": rows,
            "new_vectors": taken,
            "failed": failed,
            "dimension": dimensions[None],
            # Known where a file had to be read.
            **{
                key: sum(getattr(o, key) or 0 for o in reports) for key in ("unknown", "ambiguous", "repeated") if taken
            },
        },
        summary=(f"{taken:,} of your vectors taken in" if taken else "nothing new to take in")
        + f", {rows - failed:,} vectors in all"
        + (f", {failed:,} rows without one" if failed else ""),
        checks=(_every_row_seen(context, [(o.encoder, s) for o, s in zip(reports, sources.values(), strict=True)]),),
    )


def _every_row_seen(context: Context, sources: Sequence[tuple[str, Snapshot | TargetSet]]) -> Check:
    """Whether each id has a vector, or a record of why it has none."""
    lacking = sum(len(vectors.missing(context.store, encoder, np.unique(source.ids))) for encoder, source in sources)
    return Check("every_row_has_a_vector", lacking == 0, f"{lacking:,} rows without a vector")


def _overlap(context: Context, drawn: selecting.Drawn, last: str | None) -> float | None:
    """Jaccard overlap with the recipe's last selection; None on its first."""
    if last is None:
        return None
    before = idlib.from_arrow(read_selection(context.store, last)[1]["id"])
    common = len(np.intersect1d(before, drawn.ids))
    return common / max(len(before) + len(drawn.ids) - common, 1)


def _selection_checks(context: Context, name: str, drawn: selecting.Drawn, overlap: float | None) -> tuple[Check, ...]:
    recipe = context.config.recipes[name]
    snapshot = open_snapshot(context.store, drawn.drawing.snapshot)
    count, distinct = len(drawn.ids), len(np.unique(drawn.ids))
    rows = idlib.rows_of(drawn.ids, snapshot.ids)
    every_target = drawing.target_sets(context, context.config.targets)
    leaked = int(selecting.contaminated(snapshot, every_target)[rows[rows >= 0]].sum())
    if overlap is None:
        compared = "the first selection of this recipe, nothing to compare with"
    else:
        compared = f"Jaccard {overlap:.3f} with the last selection, floor {recipe.min_overlap} (`min_overlap`)"
    tokens = drawn.facts.get("tokens")
    # Tokens stop before the row that overflows; that there were enough is known from the draw.
    met = count == recipe.budget if tokens is None else tokens <= recipe.amount and not drawn.exhausted
    of_tokens = "" if tokens is None else f" of {tokens:,} tokens"
    return (
        Check(
            "budget_met",
            met or (drawn.exhausted and recipe.allow_short),
            f"{count:,} rows{of_tokens}, budget {recipe.asked}"
            + (", the pool is exhausted" if drawn.exhausted else ""),
        ),
        Check("ids_unique", distinct == count, f"{distinct:,} of {count:,} are distinct"),
        Check("ids_in_pool", bool((rows >= 0).all()), f"{int((rows < 0).sum()):,} are not in the snapshot"),
        Check(
            "no_target_leaked",
            leaked == 0,
            f"{leaked:,} selected prompts are word for word a target's",
            blocking=recipe.exclude_targets,
        ),
        Check("overlap_above_floor", overlap is None or overlap >= recipe.min_overlap, compared),
    )
