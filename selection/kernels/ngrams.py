"""Texts as counts of hashed n-grams: words and runs of punctuation in lower case, single and in pairs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from selection.noise import mix
from selection.types import Floats, Rows, TextMap, UInts

TOKEN = re.compile(r"\w+|[^\w\s]+")

# A block ends after so many texts or characters, whichever comes first.
BLOCK_TEXTS = 512
BLOCK_CHARACTERS = 2**20
# The most strings whose hashes are remembered: some 10 MB.
REMEMBERED = 2**16
# Enough for classifiers: two n-grams of a vocabulary of some 10,000 seldom meet.
CLASSIFIER_BUCKETS = 2**18


@dataclass(frozen=True, eq=False)
class NgramBlock:
    """The n-grams of some texts.

    Attributes:
        rows: (r,) int64, which texts they are.
        place: (g,) int64, the place in `rows` of the text of each n-gram. Those of a text are in the same order in any
            block.
        bucket: (g,) int64.
        tokens: (r,) int64, how many tokens each text has.
    """

    rows: Rows
    place: Rows
    bucket: Rows
    tokens: Rows


class Ngrams:
    """How n-grams become buckets.

    Args:
        buckets: how many there are.
        exact: whether to take SHA-256 of each n-gram modulo `buckets`, as the authors of DSIR do; by default the hash
            of a pair is mixed from the BLAKE2b hashes of its words, about five times faster. Both are the same on any
            machine.
        pairs: whether pairs of words count beside the words.
    """

    def __init__(self, buckets: int, *, exact: bool = False, pairs: bool = True) -> None:
        self.buckets = buckets
        self.exact = exact
        self.pairs = pairs
        self._hashes: _Hashes = _Sha256(buckets) if exact else _Blake2b()

    def blocks(self, texts: Sequence[str]) -> Iterator[NgramBlock]:
        """The n-grams of all texts, a block of them at a time.

        Cost: Python cuts each text into tokens, about 0.3 microseconds a token; one block of memory.
        """
        start, size = 0, 0
        for row, text in enumerate(texts):
            size += len(text)
            if size >= BLOCK_CHARACTERS or row + 1 - start == BLOCK_TEXTS:
                yield self._block(texts[start : row + 1], start)
                start, size = row + 1, 0
        if start < len(texts):
            yield self._block(texts[start:], start)

    def counts(self, texts: Sequence[str]) -> Rows:
        """(buckets,) int64: how many n-grams of the texts each bucket holds."""
        counts = np.zeros(self.buckets, np.int64)
        for block in self.blocks(texts):
            counts += np.bincount(block.bucket, minlength=self.buckets)
        return counts

    def _block(self, texts: Sequence[str], start: int) -> NgramBlock:
        words: list[str] = []
        tokens = np.empty(len(texts), np.int64)
        for i, text in enumerate(texts):
            cut = TOKEN.findall(text.lower())
            tokens[i] = len(cut)
            words += cut
        place = np.repeat(np.arange(len(texts)), tokens)
        first = np.flatnonzero(place[:-1] == place[1:]) if self.pairs else place[:0]  # of a pair
        single = self._hashes.of(words)
        if self.exact:
            pair = self._hashes.of(words[i] + " " + words[i + 1] for i in first.tolist())
        else:
            pair = mix(mix(single[first]) + single[first + 1])
        bucket = (np.concatenate([single, pair]) % np.uint64(self.buckets)).astype(np.int64)
        return NgramBlock(start + np.arange(len(texts)), np.concatenate([place, place[first]]), bucket, tokens)


class NgramRows:
    """Texts as points: how often each n-gram is in each, over the length of the row; a row of a text without words is 0.

    (n, buckets) sparse float64, made when they are asked for and not kept. A row depends on its text alone.

    Args:
        texts: (n,).
    """

    device = "cpu"

    def __init__(self, texts: Sequence[str], buckets: int = CLASSIFIER_BUCKETS) -> None:
        self.texts, self.buckets = texts, buckets

    @property
    def shape(self) -> tuple[int, int]:
        """(n, buckets)."""
        return len(self.texts), self.buckets

    def blocks(self) -> Iterator[tuple[Rows, Any]]:
        """Yield `(rows, points)` in row order."""
        for block in Ngrams(self.buckets).blocks(self.texts):
            yield block.rows, unit_counts(block, self.buckets)

    def take(self, rows: Rows) -> Any:
        """The points of `rows`."""
        from scipy.sparse import csr_array, vstack

        texts = [self.texts[row] for row in rows.tolist()]
        parts = [unit_counts(block, self.buckets) for block in Ngrams(self.buckets).blocks(texts)]
        return vstack(parts, format="csr") if parts else csr_array((0, self.buckets))


class NgramsInParts:
    """`NgramRows` of texts that other processes can read, which then make the rows (`PartedVectors`).

    Args:
        count: n.
        text_map: where the texts are read.
        read: gives (n,) the texts, for rows that are asked for singly.
    """

    device = "cpu"

    def __init__(
        self, count: int, text_map: TextMap, read: Callable[[], Sequence[str]], buckets: int = CLASSIFIER_BUCKETS
    ) -> None:
        self.shape = (count, buckets)
        self.text_map, self._read = text_map, read

    @cached_property
    def _rows(self) -> NgramRows:
        return NgramRows(self._read(), self.shape[1])

    def blocks(self) -> Iterator[tuple[Rows, Any]]:
        """Yield `(rows, points)` in row order."""
        return self._rows.blocks()

    def take(self, rows: Rows) -> Any:
        """The points of `rows`."""
        return self._rows.take(rows)

    def map_parts(
        self, work: Callable[..., Floats], arguments: Callable[[Rows], tuple[Any, ...] | None] = lambda _: ()
    ) -> Iterator[tuple[Rows, Floats]]:
        """As `PartMap`, of work that gives float32 numbers, as many for each row; `arguments` are those of all rows."""
        rows = np.arange(self.shape[0])
        if (known := arguments(rows)) is None:
            return
        values = self.text_map(partial(_bytes_of_rows, work, self.shape[1], known), rows)
        yield rows, np.frombuffer(b"".join(values), np.float32).reshape(len(rows), -1)


def _bytes_of_rows(
    work: Callable[..., Floats], buckets: int, arguments: tuple[Any, ...], texts: list[str]
) -> list[bytes]:
    return [row.tobytes() for row in work(NgramRows(texts, buckets), *arguments)]


def sparse_counts(block: NgramBlock, buckets: int) -> Any:
    """(r, buckets) sparse float64: how often each bucket is in each text."""
    from scipy.sparse import csr_array

    shape = (len(block.rows), buckets)
    return csr_array((np.ones(len(block.place)), (block.place, block.bucket)), shape=shape)


def unit_counts(block: NgramBlock, buckets: int) -> Any:
    """(r, buckets) sparse float64: how often each bucket is in each text, divided by the length of the row."""
    counts = sparse_counts(block, buckets)
    rows = counts.shape[0]
    squares = np.bincount(np.repeat(np.arange(rows), np.diff(counts.indptr)), counts.data**2, rows)
    counts.data /= np.repeat(np.sqrt(squares), np.diff(counts.indptr))
    return counts


class _Hashes(dict[str, int]):
    """String -> hash, remembered for strings that come again."""

    def of(self, strings: Iterable[str]) -> UInts:
        if len(self) > REMEMBERED:
            self.clear()
        return np.fromiter(map(self.__getitem__, strings), np.uint64)


class _Blake2b(_Hashes):
    def __missing__(self, string: str) -> int:
        digest = hashlib.blake2b(string.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[string] = hashed = int.from_bytes(digest, "little")
        return hashed


class _Sha256(_Hashes):
    def __init__(self, buckets: int) -> None:
        super().__init__()
        self.buckets = buckets

    def __missing__(self, string: str) -> int:
        digest = hashlib.sha256(string.encode("utf-8", "surrogatepass")).digest()
        self[string] = hashed = int.from_bytes(digest, "big") % self.buckets
        return hashed
