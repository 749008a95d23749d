"""Drop rows whose texts are nearly those of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from selection.errors import InvalidOption
from selection.filters.duplicates import DuplicateFilter
from selection.step import check_choice, check_integer, check_name, check_number
from selection.streams import child
from selection.types import Array, Input, Pool, Rows

if TYPE_CHECKING:
    from selection.kernels.duplicates import Duplicates

# A pair right at the threshold is missed with at most this probability; pairs above it with less.
MISSED = 0.01
CHUNK_TEXTS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates(DuplicateFilter):
    """Drop a row if its text shares most of its shingles with that of a kept row.

    Args:
        threshold: of the Jaccard similarity, shared shingles over all shingles of the two texts: drop from this on.
        unit: a shingle is `length` words in a row ("word"), or characters ("char", for scripts without spaces).
        length: see `unit`. A shorter text is one shingle.
        num_perm: hashes of a MinHash; more of them find more of the pairs near the threshold, and cost in proportion.
        column: of two duplicates the one of the higher value stays; the lowest row where there is none.

    MinHash with banding only proposes pairs; each is verified on the shingles themselves, so nothing is dropped by
    mistake. A pair at the threshold is missed with a probability below 0.01, one above it with less. Case and white
    space do not count. What is already selected stays and counts as kept. Needs `rensa`.

    Cost: the texts are cut into shingles once, in Python, which takes most of the time; a pair proposed costs two texts more.
    Memory: 4 bytes * num_perm for each row kept, and the index of bands.

    Source: Broder 1997; MinHash and its index by rensa.
    """

    threshold: float = 0.8
    unit: str = "word"
    length: int = 3
    num_perm: int = 128
    column: str | None = None
    name: ClassVar[str] = "near_duplicates"

    def __post_init__(self) -> None:
        check_number(self.name, "threshold", self.threshold, above=0)
        if self.threshold > 1:
            raise InvalidOption(
                f"threshold must be in 0 < threshold <= 1, got {self.threshold!r}", step=self.name, option="threshold"
            )
        check_choice(self.name, "unit", self.unit, ("word", "char"))
        check_integer(self.name, "length", self.length, least=1)
        check_integer(self.name, "num_perm", self.num_perm, least=1)
        if self.column is not None:
            check_name(self.name, "column", self.column)

    @property
    def needs(self) -> frozenset[Input]:
        """Texts, and columns for the values."""
        return frozenset({Input.TEXTS} | ({Input.COLUMNS} if self.column else set()))

    @property
    def columns(self) -> frozenset[str]:
        """That of the values."""
        return frozenset({self.column} if self.column else set())

    def duplicates(self, pool: Pool, *, rng: np.random.Generator) -> Duplicates:
        """The candidates to drop, the most similar row kept before each, and their Jaccard similarity."""
        from rensa import RMinHash, RMinHashLSH

        from selection.kernels.duplicates import Duplicates

        bands = bands_for(self.threshold, self.num_perm)
        kept = RMinHashLSH(self.threshold, self.num_perm, bands)
        seed = int(child(rng, 0).integers(2**63))
        texts, taken = pool.get_texts(), pool.get_already_selected()
        droppable = pool.candidates
        found: list[tuple[int, int, float]] = []
        for rows in _chunks(np.concatenate([taken, self._order(pool)])):
            sets = [shingles(texts[row], self.unit, self.length) for row in rows]
            for row, mine, sketch in zip(
                rows, sets, RMinHash.from_token_sets([sorted(s) for s in sets], self.num_perm, seed), strict=True
            ):
                best, of = 0.0, -1
                for other in sorted(kept.query(sketch)):
                    theirs = shingles(texts[other], self.unit, self.length)
                    shared = len(mine & theirs)
                    similarity = shared / (len(mine) + len(theirs) - shared)
                    if similarity > best:
                        best, of = similarity, other
                if best >= self.threshold and droppable[row]:
                    found.append((row, of, best))
                else:
                    kept.insert(row, sketch)
        return Duplicates.joined(
            [Duplicates(np.array([row]), np.array([of]), np.array([similarity])) for row, of, similarity in found]
        )

    def _order(self, pool: Pool) -> Rows:
        """The candidates, those to be kept rather first."""
        rows = np.flatnonzero(pool.candidates).astype(np.int64)
        if self.column is None:
            return rows
        from selection.scorers.column import numbers

        return rows[np.argsort(-numbers(self.column, pool.get_column(self.column))[rows], kind="stable")]


def shingles(text: str, unit: str, length: int) -> set[str]:
    """The runs of `length` words or characters in a text, lower case, white space as one blank.

    >>> sorted(shingles("One two  THREE four", "word", 3))
    ['one two three', 'two three four']
    >>> sorted(shingles("abcd", "char", 3)), shingles("ab", "char", 3)
    (['abc', 'bcd'], {'ab'})
    """
    words: Sequence[str] = text.lower().split()
    joint = " " if unit == "word" else ""
    parts = words if unit == "word" else " ".join(words)
    return {joint.join(parts[i : i + length]) for i in range(max(1, len(parts) - length + 1))}


def bands_for(threshold: float, num_perm: int) -> int:
    """The fewest bands by which a pair at the threshold is missed with a probability of at most MISSED.

    >>> bands_for(0.8, 128), bands_for(0.5, 128), bands_for(1.0, 128)
    (32, 64, 1)
    """
    for rows in range(num_perm, 1, -1):
        bands = num_perm // rows
        if num_perm % rows == 0 and (1 - threshold**rows) ** bands <= MISSED:
            return bands
    return num_perm


def _chunks(rows: Array) -> Iterator[list[int]]:
    for start in range(0, len(rows), CHUNK_TEXTS):
        yield rows[start : start + CHUNK_TEXTS].tolist()
