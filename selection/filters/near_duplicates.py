"""Drop rows whose text is almost that of another row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from selection.blocks import chunks
from selection.filters.duplicates import DuplicateFilter
from selection.pool import Pool
from selection.scorers.column import numbers
from selection.step import check_choice, check_integer, check_name, check_number
from selection.streams import child
from selection.types import Duplicates, Input, Rows

if TYPE_CHECKING:
    from rensa import RMinHash

# A pair exactly at the threshold is missed with at most this probability; pairs above it with less.
MISS_PROBABILITY = 0.01
CHUNK_TEXTS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates(DuplicateFilter):
    """Drop a row if its text shares most of its shingles with the text of a kept row.

    Args:
        threshold: the Jaccard similarity from which on a row is dropped: the number of shared shingles over the number
            of all shingles of the two texts.
        unit: a shingle is `length` consecutive words ("word") or characters ("char", for scripts without spaces).
        length: see `unit`. A shorter text is a single shingle.
        num_perm: how many hashes a MinHash has. More of them find more of the pairs near the threshold, at proportional
            cost.
        column: of two duplicates, the row with the higher value in this column stays; without a column, the lowest row.

    MinHash with banding only proposes pairs. Each pair is verified on the shingles themselves, so no row is dropped by
    mistake. A pair at the threshold is missed with a probability of at most 0.01, a pair above it with less. Case and
    white space are ignored. Already selected rows stay and count as kept. Needs `rensa`.

    Not for: paraphrases and translations, which share few shingles: `semdedup` compares vectors.

    Cost: Python cuts each text into shingles once, which takes most of the time; each proposed pair cuts two texts
    again. `winnow run` cuts the texts of a large pool in several processes; the rows are the same.
    Memory: 4 bytes * num_perm for each kept row, and the index of bands; with several processes another 6 bytes *
    num_perm for each row.

    Source: Broder 1997; MinHash and its index by rensa.
    """

    threshold: float = 0.8
    unit: str = "word"
    length: int = 3
    num_perm: int = 128
    column: str | None = None
    name: ClassVar[str] = "near_duplicates"

    def __post_init__(self) -> None:
        check_number(self.name, "threshold", self.threshold, above=0, most=1)
        check_choice(self.name, "unit", self.unit, ("word", "char"))
        check_integer(self.name, "length", self.length, least=1)
        check_integer(self.name, "num_perm", self.num_perm, least=1)
        check_name(self.name, "column", self.column, optional=True)

    @property
    def needs(self) -> frozenset[Input]:
        """Texts; with `column` also columns."""
        return frozenset({Input.TEXTS} | ({Input.COLUMNS} if self.column else set()))

    @property
    def columns(self) -> frozenset[str]:
        """The column that decides which duplicate stays."""
        return frozenset({self.column} if self.column else set())

    def duplicates(self, pool: Pool, *, rng: np.random.Generator) -> Duplicates:
        """The candidates to drop, the most similar row kept before each of them, and their Jaccard similarity."""
        from rensa import RMinHashLSH

        bands = bands_for(self.threshold, self.num_perm)
        kept = RMinHashLSH(self.threshold, self.num_perm, bands)
        seed = int(child(rng, 0).integers(2**63))
        texts, droppable = pool.get_texts(), pool.candidates
        dropped: list[Duplicates] = []
        for row, sketch, tokens in self._sketched(pool, seed):
            similarity, original = 0.0, -1
            others = sorted(kept.query(sketch))
            own = (tokens or shingles(texts[row], self.unit, self.length)) if others else set()
            for other in others:
                jaccard = _jaccard(own, shingles(texts[other], self.unit, self.length))
                if jaccard > similarity:
                    similarity, original = jaccard, other
            if similarity >= self.threshold and droppable[row]:
                dropped.append(Duplicates(np.array([row]), np.array([original]), np.array([similarity])))
            else:
                kept.insert(row, sketch)
        return Duplicates.joined(dropped)

    def _sketched(self, pool: Pool, seed: int) -> Iterator[tuple[int, RMinHash, set[str] | None]]:
        """The rows in their order, each with its MinHash, and its shingles where they are at hand."""
        texts, order = pool.get_texts(), np.concatenate([pool.get_already_selected(), self._order(pool)])
        options: dict[str, Any] = {"unit": self.unit, "length": self.length, "num_perm": self.num_perm, "seed": seed}
        if pool.text_map is not None:
            of_source = pool.text_map(partial(states, **options), np.asarray(pool.source_rows)[order])
            for row, state in zip(order.tolist(), of_source, strict=True):
                yield row, with_state(state, self.num_perm, seed), None
            return
        for chunk in chunks(order, CHUNK_TEXTS):
            rows = chunk.tolist()
            yield from zip(rows, *minhashes([texts[row] for row in rows], **options), strict=True)

    def _order(self, pool: Pool) -> Rows:
        """The candidates; of two duplicates the first one stays."""
        rows = pool.candidate_rows
        if self.column is None:
            return rows
        return rows[np.argsort(-numbers(self.column, pool.get_column(self.column))[rows], kind="stable")]


def minhashes(
    texts: Sequence[str], *, unit: str, length: int, num_perm: int, seed: int
) -> tuple[list[RMinHash], list[set[str]]]:
    """The MinHash of each text, and its shingles."""
    from rensa import RMinHash

    sets = [shingles(text, unit, length) for text in texts]
    return RMinHash.from_token_sets([sorted(tokens) for tokens in sets], num_perm, seed), sets


def states(texts: list[str], **options: Any) -> list[bytes]:
    """The MinHash of each text as bytes, which `with_state` reads: about 5.6 a hash."""
    return [sketch.__getstate__() for sketch in minhashes(texts, **options)[0]]


def with_state(state: bytes, num_perm: int, seed: int) -> RMinHash:
    """The MinHash of which these are the bytes."""
    from rensa import RMinHash

    sketch = RMinHash(num_perm, seed)
    sketch.__setstate__(state)
    return sketch


def shingles(text: str, unit: str, length: int) -> set[str]:
    """All runs of `length` words or characters in a text, in lower case, with white space as a single blank.

    >>> sorted(shingles("One two  THREE four", "word", 3))
    ['one two three', 'two three four']
    >>> sorted(shingles("abcd", "char", 3)), shingles("ab", "char", 3)
    (['abc', 'bcd'], {'ab'})
    """
    words = text.lower().split()
    if unit == "word":
        return {" ".join(words[i : i + length]) for i in range(max(1, len(words) - length + 1))}
    joint = " ".join(words)
    return {joint[i : i + length] for i in range(max(1, len(joint) - length + 1))}


def _jaccard(a: set[str], b: set[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def bands_for(threshold: float, num_perm: int) -> int:
    """The smallest number of bands that misses a pair at the threshold with a probability of at most MISS_PROBABILITY.

    >>> bands_for(0.8, 128), bands_for(0.5, 128), bands_for(1.0, 128)
    (32, 64, 1)
    """
    for rows in range(num_perm, 1, -1):
        bands = num_perm // rows
        if num_perm % rows == 0 and (1 - threshold**rows) ** bands <= MISS_PROBABILITY:
            return bands
    return num_perm
