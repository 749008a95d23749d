"""Vectors for the pool and for target sets: encoded by a model, or imported from the user's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from pipelines.config.schema import OWN_VECTORS
from pipelines.context import Context
from pipelines.progress import duration
from pipelines.stages.postprocess import embed_with
from pipelines.stages.stage import Check, Outcome, stage
from storage.errors import BadInput
from storage.ids import unique_ids
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.records import digest_of
from storage.vectors.imported import files_dimension, import_vectors
from storage.vectors.segments import missing_ids

CHECKS = {"every_row_has_a_vector": "finite and of unit length, as the store demands of each segment"}


@stage("embed", CHECKS)
def embed(context: Context, encoder: str) -> Outcome:
    """Embed the pool's rows that this encoder has not seen, or import the user's own vectors of them."""
    if encoder == OWN_VECTORS:
        return _import(context, {None: context.pool.snapshot})
    return _encode(context, encoder, [context.pool.snapshot], targets=False)


@stage("embed_targets", CHECKS)
def embed_targets(context: Context, encoder: str) -> Outcome:
    """Read the target sets and embed their rows that this encoder has not seen, or import the user's own vectors."""
    names = context.config.targets_in(encoder)
    sets = context.pool.target_sets(names)
    if encoder == OWN_VECTORS:
        return _import(context, dict(zip(names, sets, strict=True)))
    return _encode(context, encoder, sets, targets=True)


def _encode(context: Context, encoder: str, sources: Sequence[Snapshot | TargetSet], *, targets: bool) -> Outcome:
    """Encode the texts of the pool, or of target sets, that have no vector yet."""
    reports = []
    for source in sources:
        title = f"embed {'the pool' if isinstance(source, Snapshot) else source.name} with {encoder}"
        on_progress = partial(context.report.progress, title)
        reports.append(embed_with(context, encoder, source, targets=targets, on_progress=on_progress))
    for note in dict.fromkeys(note for report in reports for note in report.notes):
        context.report.say(f"{encoder}: {note}")
    spec = context.pool.representation(encoder, targets=targets)
    rows, encoded = sum(report.n_rows for report in reports), sum(report.n_encoded for report in reports)
    failed, truncated = sum(report.n_failed for report in reports), sum(report.truncated for report in reports)
    seconds = sum(report.seconds for report in reports)
    work = f"{encoded:,} texts encoded in {duration(seconds)}" if encoded else "nothing new to encode"
    return Outcome(
        subject=spec.fingerprint(),
        metrics={
            "texts": rows,
            "encoded": encoded,
            "failed": failed,
            "truncated": truncated,
            "tokens": sum(report.tokens for report in reports),
            "seconds_to_encode": round(seconds, 3),
            "seconds_to_load": round(max((report.load_seconds for report in reports), default=0.0), 3),
        },
        summary=f"{work}, {rows - failed:,} vectors in all"
        + (f", {failed:,} texts without one" if failed else "")
        + (f", {truncated:,} cut at {_limit(context.config.encoders[encoder].max_tokens)}" if truncated else ""),
        checks=(_every_row_has_a_vector(context, [(spec.fingerprint(), source) for source in sources]),),
    )


def _limit(max_tokens: int | None) -> str:
    return "the model's limit" if max_tokens is None else f"{max_tokens:,} tokens"


def _import(context: Context, sources: Mapping[str | None, Snapshot | TargetSet]) -> Outcome:
    """Import the user's own vectors of the pool (None), or of target sets by name."""
    config, store, report = context.config, context.store, context.report
    dimensions = {name: files_dimension(store, config.vector_files(name)) for name in (None, *sources)}
    for name, dimension in dimensions.items():
        if dimension != dimensions[None]:
            raise BadInput(
                f"targets.{name}.vectors: {dimension} dimensions, those of pool.vectors have {dimensions[None]}; targets "
                "and pool must come from the same encoder"
            )
    imports = []
    for name, source in sources.items():
        title = f"take in the vectors of {name or 'the pool'}"
        result = import_vectors(
            store,
            config.vector_files(name),
            source,
            name="pool" if name is None else f"targets {name}",
            on_progress=partial(report.progress, title),
            on_wait=lambda holder, title=title: report.say(f"{title}: waiting for {holder}"),  # type: ignore[misc]
        )
        imports.append(result)
        for note in result.notes:
            report.say(f"{title}: {note}")
    counts = ("n_rows", "n_new", "n_shared", "n_failed")
    rows, new, shared, failed = (sum(getattr(each, key) for each in imports) for key in counts)
    encoders = [each.encoder for each in imports]
    unmatched = ("unknown", "ambiguous", "repeated") if new else ()  # counted only where a file had to be read
    return Outcome(
        subject=digest_of(encoders) if len(encoders) > 1 else encoders[0],
        metrics={
            "rows": rows,
            "new_vectors": new,
            "shared_vectors": shared,
            "failed": failed,
            "dimension": dimensions[None],
            **{key: sum(getattr(each, key) or 0 for each in imports) for key in unmatched},
        },
        summary=(f"{new:,} of your vectors taken in" if new else "nothing new to take in")
        + (f", {shared:,} of them unchanged" if shared else "")
        + f", {rows - failed:,} vectors in all"
        + (f", {failed:,} rows without one" if failed else ""),
        checks=(_every_row_has_a_vector(context, zip(encoders, sources.values(), strict=True)),),
    )


def _every_row_has_a_vector(context: Context, sources: Iterable[tuple[str, Snapshot | TargetSet]]) -> Check:
    """Whether each id has a vector, or a record of why it has none."""
    missing = sum(len(missing_ids(context.store, encoder, unique_ids(source.ids))) for encoder, source in sources)
    return Check("every_row_has_a_vector", missing == 0, f"{missing:,} rows without a vector")
