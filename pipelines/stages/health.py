"""Measure how sound an encoder's vectors are, once the pool is embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config.schema import OWN_VECTORS, Health
from pipelines.context import Context
from pipelines.recipes.health import Encode, Sample, largest_group, measure
from pipelines.recipes.planted_rows import PlantedTexts
from pipelines.runs import code_version
from pipelines.stages.postprocess import embed_with
from pipelines.stages.stage import Check, Outcome, stage
from selection.encoders.format import Part
from selection.types import Array
from storage.damage import committed_whole
from storage.pool.content import Turns
from storage.vectors.health import GROUP_COLUMNS, commit_health, read_health
from storage.vectors.segments import StoredVectors


@dataclass(frozen=True)
class Bound:
    """What a measure may be.

    Attributes:
        measure: its name.
        setting: the key of `health` in the configuration.
        is_least: whether the setting is the least value, else the largest.
        words: what the measure is, for a sentence.
    """

    measure: str
    setting: str
    is_least: bool
    words: str


BOUNDS = {
    "uses_many_directions": Bound("rank_share", "min_effective_rank", True, "effective rank, of the most it could be"),
    "rows_are_apart": Bound("mean_cosine", "max_mean_cosine", False, "mean cosine of two rows"),
    "few_near_copies": Bound("near_copies_of_other_texts", "max_near_copies", False, "near-copies among other texts"),
    "groups_are_spread": Bound(
        "largest_group_in_cell", "max_group_in_cell", False, "largest share of a group in a cell"
    ),
    "plants_are_found": Bound("plant_recall", "min_plant_recall", True, "planted copies that are nearest to their row"),
}


@stage("health", checks={name: f"{bound.words}, within `health.{bound.setting}`" for name, bound in BOUNDS.items()})
def health(context: Context, encoder: str) -> Outcome:
    """Measure the vectors of a sample of the pool; what was measured before is not measured again."""
    settings, view, store = context.config.health, context.pool, context.store
    own = encoder == OWN_VECTORS
    sample = Sample.of(view, view.fingerprint(encoder))
    measurement = sample.measurement(0 if own else settings.plants)
    if not committed_whole(store, "health_measurements", measurement):
        _measure(context, encoder, sample, measurement)
    record = read_health(store, measurement)
    checks = tuple(_check(name, bound, record, settings) for name, bound in BOUNDS.items())
    return Outcome(
        subject=measurement,
        metrics={"rows": record["rows"], **record["measures"]},
        summary=_summary(record, checks),
        checks=checks,
    )


def _measure(context: Context, encoder: str, sample: Sample, measurement: str) -> None:
    own = encoder == OWN_VECTORS
    encode: Encode | None = None if own else partial(_encoded, context, encoder, sample.encoder)
    part: Part = "all" if own else getattr(context.config.encoders[encoder], "turns", "all")
    measured = measure(sample, context.config.health.plants, encode, part)
    header = {
        "health_measurement_id": measurement,
        "encoder": sample.encoder,
        "snapshot": sample.snapshot.id,
        "pool_rows": len(sample.snapshot),
        "rows": len(sample.rows),
        "dimension": context.pool.vectors(sample.encoder, sample.snapshot).shape[1],
        "measures": measured.measures,
        "reasons": measured.reasons,
        "code_version": code_version(),
    }
    commit_health(context.store, header, pa.Table.from_pylist(measured.groups, pa.schema(GROUP_COLUMNS)))


def _encoded(context: Context, encoder: str, fingerprint: str, copies: Sequence[Turns]) -> Array:
    """(n, d) the vectors of conversations, stored beside the pool's; zeros where there is none."""
    texts = PlantedTexts("planted copies", copies)
    title = f"embed planted copies with {encoder}"
    embed_with(context, encoder, texts, on_progress=partial(context.report.progress, title))
    vectors = StoredVectors(context.store, fingerprint, texts.ids)
    return vectors.take(np.arange(len(copies)))


def _check(name: str, bound: Bound, record: dict[str, Any], settings: Health) -> Check:
    value, limit = record["measures"].get(bound.measure), getattr(settings, bound.setting)
    rule = f"{'at least' if bound.is_least else 'at most'} {limit:g} (`health.{bound.setting}`)"
    if value is None:
        reasons = record["reasons"]
        reason = reasons.get("all") or reasons.get(bound.measure, "too few rows")
        return Check(name, True, f"not measured: {reason}", settings.blocking)
    holds = value >= limit if bound.is_least else value <= limit
    detail = f"{bound.words}: {value:g}, {rule}{_culprit(record, bound)}"
    return Check(name, holds, detail, settings.blocking)


def _culprit(record: dict[str, Any], bound: Bound) -> str:
    """The group that a measure is of."""
    group = largest_group(record["groups"], record["rows"])
    if bound.measure != "largest_group_in_cell" or group is None:
        return ""
    return f": {group['group_by']} {group['group']!r}, whose cell holds {group['share_of_sample']:.1%} of all rows"


def _summary(record: dict[str, Any], checks: Sequence[Check]) -> str:
    measures = record["measures"]
    if not measures:
        return f"not measured, {record['reasons']['all']}"
    parts = [f"effective rank {measures['effective_rank_centred']:.0f} of {measures['largest_rank']}"]
    if measures["mean_cosine"] is not None:
        parts.append(f"mean cosine {measures['mean_cosine']:.2f}")
    parts.append(f"{measures['near_copies']:.1%} near-copies")
    if measures["plant_recall"] is not None:
        parts.append(f"{measures['plant_recall']:.0%} of {measures['plants']} planted copies are nearest to their row")
    warnings = "".join(f"; warning: {check.detail}" for check in checks if not check.passed)
    return f"{', '.join(parts)}, of {record['rows']:,} rows{warnings}"
