"""Vectors for the pool and for target sets: encoded by a model, or imported from the user's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.config.schema import OWN_VECTORS
from pipelines.context import Context
from pipelines.progress import duration
from pipelines.stages.encode import embed as embed_source
from pipelines.stages.stage import Check, Outcome, stage
from storage.errors import BadInput
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.records import digest_of
from storage.vectors.imported import files_dimension, import_vectors
from storage.vectors.segments import missing_ids

CHECKS = {"every_row_has_a_vector": "finite and of unit length, as the store demands of each segment"}


@stage("embed", CHECKS)
def embed(context: Context, encoder: str) -> Outcome:
    """Embed the rows of the pool that this encoder has not seen, or take in the vectors that the user brought."""
    if encoder == OWN_VECTORS:
        return _taken_in(context, {None: context.pool.snapshot})
    return _embedded(context, encoder, [context.pool.snapshot])


@stage("embed_targets", CHECKS)
def embed_targets(context: Context, encoder: str) -> Outcome:
    """Read the target sets and embed what this encoder has not seen of them, in the same space as the pool."""
    names = context.config.targets_in(encoder)
    sets = context.pool.target_sets(names)
    if encoder == OWN_VECTORS:
        return _taken_in(context, dict(zip(names, sets, strict=True)))
    return _embedded(context, encoder, sets)


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
        metrics={
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
    dimensions = {name: files_dimension(store, config.vector_files(name)) for name in (None, *sources)}
    for name, found in dimensions.items():
        if found != dimensions[None]:
            raise BadInput(
                f"targets.{name}.vectors: {found} dimensions, those of pool.vectors have {dimensions[None]}; targets and "
                "pool must come from the same encoder"
            )
    reports = []
    for name, source in sources.items():
        what = f"take in the vectors of {name or 'the pool'}"
        done = import_vectors(
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
        metrics={
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
    lacking = sum(len(missing_ids(context.store, encoder, np.unique(source.ids))) for encoder, source in sources)
    return Check("every_row_has_a_vector", lacking == 0, f"{lacking:,} rows without a vector")
