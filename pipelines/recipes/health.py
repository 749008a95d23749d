"""The health of an encoder's vectors: what of a pool it is measured on, and what comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pipelines.pool_view import PoolView
from pipelines.recipes.drawn import column_codes
from pipelines.recipes.planted import sampled
from selection import health
from selection.encoders.format import Part, part_of
from selection.plants import OUTER, recased, rewrapped
from selection.types import Array, Floats, Rows
from storage.ids import Ids, hash_keys
from storage.pool.content import Turns, text_of
from storage.pool.snapshot import Snapshot
from storage.records import digest_of
from storage.vectors.health import frozen_cells

VERSION = 2
# Of the sample, the plants and the cells, so that most of the sample stays the same while the pool grows.
SEED = 0
SAMPLE_ROWS = 4096
# The effective rank takes eigenvalues of a matrix of at most this side.
LARGEST_RANK = 2048
# Fewer rows tell little: of less than so many nothing is measured, no cells are fitted, and no group is looked at.
LEAST_ROWS, LEAST_FOR_CELLS, LEAST_IN_GROUP = 200, 1024, 32
# Planted copies are at most one for so many rows of the pool, and at least so many: each is a text to encode.
ROWS_PER_PLANT, LEAST_PLANTS = 20, 20
# A group that is less of the sample may well fill one cell of 64 by right: a source of short questions by one template
# does.
LARGE_GROUP = 0.05
_LANGUAGE_COLUMNS = ("language", "lang")


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows of a pool on which an encoder's vectors are measured: those of the lowest hashes among rows with a vector.

    Attributes:
        encoder: the fingerprint of the vectors.
        rows: (s,) of the snapshot, in the order of their ids.
        groups: column -> the group of each row, -1 for none, and the names of the groups.
    """

    view: PoolView
    snapshot: Snapshot
    encoder: str
    rows: Rows
    groups: dict[str, tuple[Rows, list[str]]]

    @classmethod
    def of(cls, view: PoolView, encoder: str) -> Sample:
        """The sample of the pool as it is now."""
        snapshot = view.snapshot
        failed = view.vectors(encoder, snapshot).failed_rows
        usable = np.setdiff1d(np.arange(len(snapshot)), failed)
        rows = usable[sampled(snapshot.ids[usable], SAMPLE_ROWS, SEED)]
        columns = _group_columns(snapshot) if len(rows) >= LEAST_FOR_CELLS else []
        return cls(view, snapshot, encoder, rows, {name: _groups(view, name, rows) for name in columns})

    @property
    def ids(self) -> Ids:
        """(s,) of the rows."""
        return self.snapshot.ids[self.rows]

    def measurement(self, plants: int) -> str:
        """The id of what is measured on this sample with so many plants."""
        digest = hashlib.blake2b(np.ascontiguousarray(self.ids).tobytes(), digest_size=16)
        groups = {column: [codes.tolist(), names] for column, (codes, names) in self.groups.items()}
        parts = {"encoder": self.encoder, "sample": digest.hexdigest(), "groups": groups, "plants": plants}
        return digest_of({**parts, "seed": SEED, "version": VERSION})

    @cached_property
    def unit(self) -> Floats:
        """(s, d) float32: the vectors divided by the lengths that they are stored with."""
        return health.at_unit_length(self.view.vectors(self.encoder, self.snapshot).take(self.rows))

    @cached_property
    def turns(self) -> list[Turns]:
        """(s,) the turns of each row."""
        return self.snapshot.turns_of(self.rows)

    def planted_places(self, plants: int) -> Rows:
        """The places in the sample of the rows that are copied, at most `plants`; none where they would be too few to tell."""
        count = min(plants, len(self.rows), len(self.snapshot) // ROWS_PER_PLANT)
        return sampled(self.ids, count if count >= LEAST_PLANTS else 0, SEED + 1)


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        measures: name -> number; None where it could not be measured, nothing of fewer than `LEAST_ROWS` rows.
        reasons: name -> why it could not; "all" of them.
        groups: of `storage.vectors.health.GROUP_COLUMNS`.
    """

    measures: dict[str, float | int | None]
    reasons: dict[str, str] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)


# Encodes conversations: (n, d) vectors of them, zeros where there is none.
Encode = Callable[[Sequence[Turns]], Array]


def measure(sample: Sample, plants: int, encode: Encode | None, part: Part = "all") -> Measurement:
    """Measure the vectors of a sample.

    Args:
        plants: how many rows to copy at most.
        part: the turns that the encoder reads, by which near-copies have the same text or another one.
        encode: None where the vectors have no encoder.

    Cost: for s rows of d dimensions 2*s*s*d operations, about as many for 64 centroids, twice the eigenvalues of a
    matrix of at most 2048 rows; the texts of the pool are read once if rows are copied or some are near-copies, and the
    copies are encoded.
    """
    if len(sample.rows) < LEAST_ROWS:
        return Measurement({}, {"all": f"too few rows: {len(sample.rows)} of {LEAST_ROWS}"})
    unit = sample.unit
    near = _near_copies(sample, unit, part)
    recall, reason = _plant_recall(sample, unit, plants, encode)
    groups, largest, no_cells = _collapse(sample, unit)
    measures = {**_spread(unit), **near, **largest, **recall}
    group = largest_group(groups, len(unit))
    measures["largest_group_in_cell"] = None if group is None else group["share"]
    reasons = {"plant_recall": reason, "largest_cell": no_cells}
    if group is None:
        reasons["largest_group_in_cell"] = no_cells or f"no group is {LARGE_GROUP:.0%} of the rows"
    return Measurement(measures, {name: words for name, words in reasons.items() if words}, groups)


def _spread(unit: Floats) -> dict[str, float | int | None]:
    ranked = unit if min(unit.shape) <= LARGEST_RANK else unit[:LARGEST_RANK]
    most, centred = min(ranked.shape), health.effective_rank(ranked, centred=True)
    cosine = health.mean_cosine(unit)
    return {
        "largest_rank": most,
        "effective_rank": round(health.effective_rank(ranked), 2),
        "effective_rank_centred": round(centred, 2),
        "rank_share": round(centred / most, 4) if most else None,
        "mean_cosine": None if cosine is None else round(cosine, 6),
    }


def _near_copies(sample: Sample, unit: Floats, part: Part) -> dict[str, float | int | None]:
    """Rows whose nearest neighbour is all but the same, and of these the rows whose text is another one."""
    nearest, cosine = health.nearest_other(unit)
    rows = np.flatnonzero(cosine > health.NEAR_COPY)
    texts = [_folded(part_of(turns, part)) for turns in sample.turns] if len(rows) else []
    other = sum(texts[row] != texts[near] for row, near in zip(rows.tolist(), nearest[rows].tolist(), strict=True))
    shares = {"near_copies": len(rows) / len(unit), "near_copies_of_other_texts": other / len(unit)}
    return {name: round(share, 6) for name, share in shares.items()}


def _folded(turns: Sequence[tuple[str, str]]) -> str:
    """The text without case and differences of white space."""
    return " ".join(text_of([turn for turn in turns if turn[1]]).casefold().split())


def _plant_recall(
    sample: Sample, unit: Floats, plants: int, encode: Encode | None
) -> tuple[dict[str, float | int | None], str | None]:
    places = sample.planted_places(plants)
    missing: dict[str, float | int | None] = {"plants": 0, "plant_recall": None}
    if encode is None:
        return missing, "imported vectors have no encoder that a copy could be encoded with"
    if not len(places):
        least = LEAST_PLANTS * ROWS_PER_PLANT
        asked = "`health.plants` asks for fewer" if plants < LEAST_PLANTS else f"a pool of {least} rows"
        return missing, f"at least {LEAST_PLANTS} rows are copied, of {asked}"
    turns, keys = sample.turns, hash_keys(sample.ids).tolist()
    copies = [planted_copy(turns[place], np.random.default_rng([SEED, keys[place]])) for place in places.tolist()]
    recalled = health.plants_recalled(health.at_unit_length(encode(copies)), unit, places)
    return {"plants": len(copies), "plant_recall": round(float(recalled.mean()), 4)}, None


def planted_copy(turns: Turns, rng: np.random.Generator) -> Turns:
    """The same conversation in lines of another width, in capitals or small letters, with a line before and one behind it."""
    copy = [(role, recased(rewrapped(text, rng), rng) if text else text) for role, text in turns]
    before, behind = OUTER
    role, first = copy[0]
    copy[0] = (role, f"{before}\n\n{first}")
    role, last = copy[-1]
    copy[-1] = (role, f"{last}\n\n{behind}")
    return copy


def _collapse(sample: Sample, unit: Floats) -> tuple[list[dict[str, Any]], dict[str, float | int | None], str | None]:
    """The groups, the largest share of the whole sample in a cell, and why there is none."""

    def fit() -> Floats:
        return health.fit_cells(unit, health.CELLS, seed=SEED)

    about = {"snapshot": sample.snapshot.id, "rows": len(unit), "seed": SEED}
    enough = len(unit) >= LEAST_FOR_CELLS
    centroids = frozen_cells(sample.view.store, sample.encoder, fit if enough else None, about)
    if centroids is None or not len(unit):
        return [], {"largest_cell": None}, f"{health.CELLS} cells are fitted to {LEAST_FOR_CELLS:,} rows at least"
    cells = health.cells_of(unit, centroids)
    groups = [
        {"group_by": column, "group": name, "rows": each.rows, "cell": each.cell}
        | {"share": round(each.share, 6), "share_of_sample": round(each.share_of_all, 6)}
        for column, (codes, names) in sample.groups.items()
        for name, each in zip(names, health.collapse(cells, codes, len(names)), strict=True)
        if each.rows >= LEAST_IN_GROUP
    ]
    largest = int(np.bincount(cells).max()) / len(cells)
    return groups, {"largest_cell": round(largest, 6)}, None


def largest_group(groups: Sequence[dict[str, Any]], rows: int) -> dict[str, Any] | None:
    """The large group of which a cell holds the largest share; None without a large one."""
    large = [group for group in groups if LARGE_GROUP * rows <= group["rows"] < rows]
    return max(large, key=lambda group: group["share"], default=None)


def _group_columns(snapshot: Snapshot) -> list[str]:
    """The columns that say where rows are from, and in which language they are."""
    return ["source", *language_columns(snapshot)]


def language_columns(snapshot: Snapshot) -> list[str]:
    """The columns that say in which language rows are."""
    known = snapshot.known_columns()
    return [name for name, kind in known.items() if name.lower() in _LANGUAGE_COLUMNS and kind == "text"]


def _groups(view: PoolView, column: str, rows: Rows) -> tuple[Rows, list[str]]:
    """(s,) the group of each of some rows, and the names of the groups that they have, sorted; -1 for a missing value."""
    codes, values = column_codes(view, view.snapshot, column)
    present = sorted({str(values[code]) for code in np.unique(codes[rows]).tolist() if values[code] is not None})
    number = {name: place for place, name in enumerate(present)}
    of_code = np.array([-1 if value is None else number.get(str(value), -1) for value in values], np.int64)
    return of_code[codes[rows]], present
