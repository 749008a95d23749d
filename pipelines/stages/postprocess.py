"""Vectors of texts in the frame of a fit: those of the model first, then their copies; see docs/decisions/0030."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from pipelines.context import Context
from pipelines.engine import engine_for_models
from pipelines.stages.encode import EmbedReport, embed, in_this_process
from pipelines.stages.model_segments import TextSource
from selection.encoders.postprocess import Frame, Postprocessed, fit_frame, postprocess_of
from selection.encoders.representation import Representation, record_of
from storage.ids import Ids, to_text, unique_ids
from storage.store import utc_now
from storage.vectors.fits import commit_fit, read_arrays
from storage.vectors.segments import (
    StoredVectors,
    commit_segment,
    describe_encoder,
    failed_ids,
    missing_ids,
    normalise,
    set_damaged_aside,
)

MAX_ROWS_COPIED = 16384  # of a segment

Progress = Callable[[int, int], None]


def embed_with(
    context: Context, encoder: str, source: TextSource, *, targets: bool = False, on_progress: Progress | None = None
) -> EmbedReport:
    """Encode the texts of a source that have no vector yet, and move the vectors if the encoder has a `postprocess`."""
    spec = context.pool.representation(encoder, targets=targets)
    if not isinstance(spec, Postprocessed):
        return _embed(context, spec, source, on_progress)
    report = _embed(context, spec.base, source, on_progress)
    _ensure_fit(context, encoder, on_progress)
    spec = context.pool.representation(encoder, targets=targets)  # another process may have fitted meanwhile
    assert isinstance(spec, Postprocessed)
    ids = unique_ids(source.ids)
    _copy(context, encoder, spec, ids)
    copy = spec.fingerprint()
    return replace(report, encoder=copy, n_failed=len(failed_ids(context.store, copy, ids)))


def _embed(context: Context, spec: Representation, source: TextSource, on_progress: Progress | None) -> EmbedReport:
    # A server works on several requests at a time by itself.
    is_remote, is_model = spec.kind == "remote", spec.kind != "ngrams"
    engine = in_this_process if is_remote else partial(engine_for_models, context, uses_cards=is_model)
    return embed(context.store, spec, source, on_progress=on_progress, engine=engine)


def _ensure_fit(context: Context, encoder: str, on_progress: Progress | None) -> None:
    """Fit on the sample of the pool, whose vectors come first."""
    fit, spec = context.pool.fit(encoder), context.pool.representation(encoder)
    if fit is None or fit.committed or not isinstance(spec, Postprocessed):
        return
    _embed(context, spec.base, context.pool.snapshot, on_progress)
    options = postprocess_of(spec.spec)
    assert options is not None
    vectors, usable = normalise(_taken(context, spec.base.fingerprint(), fit.ids))
    frame = fit_frame(vectors[usable], options.method, options.eps)
    arrays = {"mean": frame.mean} | ({} if frame.matrix is None else {"matrix": frame.matrix})
    commit_fit(context.store, fit, arrays, {"encoder": spec.base.fingerprint(), "method": options.method})
    context.pool.read_fit_again(encoder)
    if options.method == "whiten" and usable.sum() <= vectors.shape[1]:
        context.report.say(
            f"{encoder}: whitened by {usable.sum():,} rows of {vectors.shape[1]} dimensions: directions that the sample has "
            "not are blown up; wait for more rows, or use center"
        )


def _taken(context: Context, encoder: str, ids: Ids) -> np.ndarray:
    return StoredVectors(context.store, encoder, ids).take(np.arange(len(ids)))


def _copy(context: Context, encoder: str, spec: Postprocessed, ids: Ids) -> None:
    """Move the vectors that have no copy yet."""
    store, copy, base = context.store, spec.fingerprint(), spec.base.fingerprint()
    fit = context.pool.fit(encoder)
    assert fit is not None
    arrays = read_arrays(store, fit.key)
    frame = Frame(arrays["mean"], arrays.get("matrix"))
    with store.lock(f"vectors-{copy}", f"postprocess {encoder}"):
        set_damaged_aside(store, copy)
        header = {"spec": record_of(spec.spec), "dimension": len(frame.mean), "base": base, "fit": fit.id}
        header |= {"max_tokens": spec.spec.max_tokens, "encoder": copy, "notes": [], "created_at": utc_now()}
        describe_encoder(store, copy, header)
        todo = missing_ids(store, copy, ids)
        for start in range(0, len(todo), MAX_ROWS_COPIED):
            started, part = time.monotonic(), todo[start : start + MAX_ROWS_COPIED]
            before, has_vector = normalise(_taken(context, base, part))
            vectors, usable = frame.apply(before)
            failed = ~(usable & has_vector)
            names = to_text(part[failed])
            record: dict[str, object] = {
                "failed": dict.fromkeys(names, "no vector before postprocess, or the mean itself")
            }
            record |= {"base": base, "fit": fit.id, "created_at": utc_now()}
            record["seconds"] = round(time.monotonic() - started, 3)
            commit_segment(store, copy, part, vectors, record, failed=failed, dtype=spec.store)
