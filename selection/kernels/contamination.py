"""Which evaluation texts the texts of a pool hold, word for word or in large part.

A target of w words is compared by its word n-grams (see `words`): runs of `n` words where w >= 2n, of `short_n` words
where it is shorter; a target of less than `short_n` words is one n-gram, which counts only where it makes whole lines
of a text. A text holds a target by the rule

    exact    if it holds all words of the target in one run (whole lines, where there are less than `short_n`)
    ngrams   else if it holds at least `threshold` of the target's distinct n-grams

An n-gram that more than `COMMON` targets hold belongs to a template that they share ("Answer format: true/false"). It
counts for no target that has another one.

N-grams are compared by 64-bit hashes, so two different ones count as one in a case of 10^19; `exact` compares words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property, partial

import numpy as np

from selection.contamination import ContaminationRules, Match
from selection.kernels.compiled import contamination as loops
from selection.kernels.threads import Threads
from selection.kernels.words import PlacedWords, folded, words
from selection.types import Mask, Rows, UInts

# What a thread works on at once.
BLOCK_TEXTS = 512
# Characters that a block may have beyond its first text: longer texts make blocks of their own.
BLOCK_CHARACTERS = 2**20
_BITS_PER_NGRAM = 16
# More targets than this share an n-gram only by a template.
COMMON = 5


class Contamination:
    """The n-grams of some targets, to look for in texts.

    Args:
        targets: (m,) their texts. One without a word is in no text.
        rules: when a text holds one.

    Cost: a few microseconds and about 60 bytes for each n-gram of the targets.
    """

    def __init__(self, targets: Sequence[str], rules: ContaminationRules | None = None) -> None:
        self.rules = rules or ContaminationRules()
        self.words = [words(text) for text in targets]
        self.sizes = np.array([self.rules.size(len(each)) for each in self.words], np.int64)
        self._hashes, self._gram, counts = self._counted(targets)
        # 1 at least: a target without a word has none, and is in no list of keys.
        self._least = np.maximum(np.ceil(self.rules.threshold * counts - 1e-9), 1).astype(np.int64)
        self._gram_start = np.concatenate([[0], np.cumsum(counts)])
        self._fill(self._hashes)
        self._choose_keys(len(self._hashes))
        self._used = np.unique(self.sizes[self.sizes > 0])

    def matches(self, texts: Iterable[str]) -> Iterator[Match]:
        """Every text and target where the text holds the target, in the order of texts, then targets; see `with_texts`."""
        return (match for _, match in self.with_texts(texts))

    def pairs(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """The same as places of text and target alone, by hashes: a fraction of the cost where most texts hold a target."""
        return sorted(self._pairs(list(texts), 0))

    def with_texts(self, texts: Iterable[str]) -> Iterator[tuple[str, Match]]:
        """The same, each with the text.

        Texts are read as they are needed, some thousand at a time.

        Cost: about 5 nanoseconds a character of ASCII on one thread, and ten times that beyond; Python compares what is
        found again, some 100 microseconds each. Memory: the texts of a few blocks.
        """
        threads = Threads()
        start = 0
        for batch in _batches(texts, max(threads.count, 1) * 4 * BLOCK_TEXTS):
            for match in self._in_batch(batch, start, threads):
                yield batch[match.row - start], match
            start += len(batch)

    def _in_batch(self, texts: list[str], start: int, threads: Threads) -> list[Match]:
        pairs: dict[int, list[tuple[int, int]]] = {}

        def task(first: int, stop: int) -> None:
            pairs[first] = self._pairs(texts[first:stop], first)

        threads.run(task, len(texts), BLOCK_TEXTS)
        matches = []
        last, text = -1, _Text("")
        for first in sorted(pairs):
            for row, target in sorted(pairs[first]):
                if row != last:
                    last, text = row, _Text(texts[row])
                match = self._match(text, target, start + row)
                if match is not None:
                    matches.append(match)
        return matches

    def _pairs(self, texts: list[str], first: int) -> list[tuple[int, int]]:
        """The rows, counted from `first`, and targets whose hashes match."""
        if not len(self._used):
            return []
        encoded = [(text if text.isascii() else folded(text)).encode("utf-8", "surrogatepass") for text in texts]
        data = np.frombuffer(b"".join(encoded), np.uint8)
        bounds = np.concatenate([[0], np.cumsum([len(text) for text in encoded])]).astype(np.int64)
        room = 4 * len(texts)
        while True:
            rows, targets = np.empty(room, np.int64), np.empty(room, np.int64)
            count = loops.contained(
                data,
                bounds,
                loops.KINDS,
                loops.LOWER,
                self._used,
                self.rules.short_n,
                *self._table,
                self._key_start,
                self._key_target,
                self._gram_start,
                self._gram,
                self._least,
                rows,
                targets,
            )
            if count <= room:
                return list(zip((rows[:count] + first).tolist(), targets[:count].tolist(), strict=True))
            room = count

    def _match(self, text: _Text, target: int, row: int) -> Match | None:
        """How a text holds a target, compared word for word; None if it does not."""
        own, size = self.words[target], int(self.sizes[target])
        place = text.lines_of(own) if size < self.rules.short_n else text.run_of(own)
        if place is not None:
            return Match(row, target, "exact", 1.0, *text.placed.span(place, place + len(own) - 1))
        if size < self.rules.short_n:
            return None
        wanted = self._hashes[self._gram[self._gram_start[target] : self._gram_start[target + 1]]]
        ngrams = text.ngrams(size)
        is_held = np.isin(ngrams, wanted)
        shared = len(np.unique(ngrams[is_held]))
        if shared < self._least[target]:
            return None
        first, last = _longest_run(is_held)
        return Match(row, target, "ngrams", shared / len(wanted), *text.placed.span(first, last + size - 1))

    def _counted(self, targets: Sequence[str]) -> tuple[UInts, Rows, Rows]:
        """The distinct n-grams that count, target by target: their hashes; the number of each of them; how many a target has."""
        sizes = self.sizes.tolist()
        grams = [np.unique(_hashed(text, size)) for text, size in zip(targets, sizes, strict=True)]
        hashes, number, shared = np.unique(
            np.concatenate([np.empty(0, np.uint64), *grams]), return_inverse=True, return_counts=True
        )
        own = np.split(number, np.cumsum([len(each) for each in grams])[:-1])
        own = [rare if len(rare := each[shared[each] <= COMMON]) else each for each in own]
        counts = np.array([len(each) for each in own], np.int64)
        return hashes, np.concatenate([np.empty(0, np.int64), *own]), counts

    def _fill(self, hashes: UInts) -> None:
        places = 1 << max(4, math.ceil(math.log2(max(len(hashes), 1) * 2)))
        width = max(6, math.ceil(math.log2(max(len(hashes), 1) * _BITS_PER_NGRAM)))
        bits, table = np.zeros(1 << (width - 6), np.uint64), np.zeros(places, np.uint64)
        slots = np.full(places, -1, np.int64)
        shift = np.uint64(64 - width)
        loops.fill(bits, shift, table, slots, hashes)
        self._table = (bits, shift, table, slots)

    def _choose_keys(self, distinct: int) -> None:
        """Of each target as many of its n-grams that a text without any of them lacks too many: the rarest.

        So a text that holds only what many targets share, as a template, costs no comparison (prefix filtering,
        Chaudhuri et al. 2006).
        """
        frequency = np.bincount(self._gram, minlength=distinct)
        gram, target = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for number, least in enumerate(self._least.tolist()):
            own = self._gram[self._gram_start[number] : self._gram_start[number + 1]]
            chosen = own[np.argsort(frequency[own], kind="stable")][: len(own) - least + 1]
            gram.append(chosen)
            target.append(np.full(len(chosen), number))
        grams, targets = np.concatenate(gram), np.concatenate(target)
        order: Rows = np.lexsort((targets, grams))
        self._key_start = np.concatenate([[0], np.cumsum(np.bincount(grams, minlength=distinct))]).astype(np.int64)
        self._key_target = targets[order]


class _Text:
    """A text that may hold many targets: what is compared is worked out once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.ngrams = cache(partial(_hashed, text))

    @cached_property
    def placed(self) -> PlacedWords:
        """Its words with their places."""
        return PlacedWords(self.text)

    @cached_property
    def joined(self) -> str:
        """Its words, a blank on each side of each."""
        return f" {' '.join(self.placed.words)} "

    @cached_property
    def lines(self) -> list[list[str]]:
        """The words of its lines, of those that have some."""
        return [each for each in map(words, self.text.replace("\r", "\n").split("\n")) if each]

    def run_of(self, own: list[str]) -> int | None:
        """The place of the first word where all of these words stand in one run, first of all."""
        at = self.joined.find(f" {' '.join(own)} ")
        return None if at < 0 else self.joined.count(" ", 0, at + 1) - 1

    def lines_of(self, own: list[str]) -> int | None:
        """The place of the first word of whole lines that together are these words, first of all."""
        place = 0
        for i, line in enumerate(self.lines):
            held = list(line)
            for following in self.lines[i + 1 : i + len(own)]:
                held += following if len(held) < len(own) else []
            if held == own:
                return place
            place += len(line)
        return None


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of texts, of no more than `size` and, unless a text is longer, a few million characters."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == size or characters > 8 * BLOCK_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _hashed(text: str, n: int) -> UInts:
    """The n-grams of a text in their order."""
    data = np.frombuffer(folded(text).encode("utf-8", "surrogatepass"), np.uint8)
    hashes, ngrams = np.empty(len(data), np.uint64), np.empty(len(data), np.uint64)
    opens, closes = np.empty(len(data), np.bool_), np.empty(len(data), np.bool_)
    count = loops.hash_words(data, 0, len(data), loops.KINDS, loops.LOWER, hashes, opens, closes)
    return ngrams[: loops.hash_ngrams(hashes, count, n, ngrams)] if n else ngrams[:0]


def _longest_run(flags: Mask) -> tuple[int, int]:
    """The first and last place of the longest run of True, the first of them."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    starts, stops = edges[::2], edges[1::2]
    longest = int(np.argmax(stops - starts))
    return int(starts[longest]), int(stops[longest]) - 1
