"""The compiled loops behind `contamination`: words of UTF-8 texts as hashes, and which targets' n-grams a text holds."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled

BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: the base of the hash of an n-gram, a polynomial in those of its words
_PRIME = np.uint64(0x100000001B3)
_OFFSET = np.uint64(0xCBF29CE484222325)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
# Of a byte: 0 ends a word, 1 ends a line, 2 a letter, 3 a digit, 4 an apostrophe, 5 a comma.
KINDS = np.zeros(256, np.uint8)
KINDS[[10, 13]] = 1
KINDS[128:] = 2
KINDS[97:123] = KINDS[65:91] = 2
KINDS[48:58] = 3
KINDS[39], KINDS[44] = 4, 5
LOWER = np.arange(256, dtype=np.uint8)
LOWER[65:91] += 32


@compiled(inline="always")
def mixed(h):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A hash whose bits all depend on all bits."""
    h = (h ^ (h >> np.uint64(33))) * _MIX
    return h ^ (h >> np.uint64(29))


@compiled
def digits_from(data, start, stop, kinds):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many digits there are in a row, at most 4."""
    count = 0
    while count < 4 and start + count < stop and kinds[data[start + count]] == 3:
        count += 1
    return count


@compiled
def joins(data, i, stop, kinds):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Whether the mark after a word is an apostrophe before a letter, or a comma before a group of three digits."""
    kind = kinds[data[i]]
    if kind == 4:
        return i + 1 < stop and kinds[data[i + 1]] & 2 != 0
    return kind == 5 and kinds[data[i - 1]] == 3 and digits_from(data, i + 1, stop, kinds) == 3


@compiled
def hash_words(data, start, stop, kinds, lower, hashes, opens, closes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many words data[start:stop] has; fills their hashes, and whether each begins and ends a line."""
    count = 0
    h = _OFFSET
    inside, fresh = False, True
    for i in range(start, stop):
        kind = kinds[data[i]]
        if kind & 2:
            if not inside:
                inside = True
                h = _OFFSET
                opens[count] = fresh
                fresh = False
            h = (h ^ np.uint64(lower[data[i]])) * _PRIME
            continue
        if inside:
            if joins(data, i, stop, kinds):
                continue
            inside = False
            hashes[count] = mixed(h)
            closes[count] = False
            count += 1
        if kind == 1:
            fresh = True
            if count:
                closes[count - 1] = True
    if inside:
        hashes[count] = mixed(h)
        count += 1
    if count:
        closes[count - 1] = True
    return count


@compiled
def hash_ngrams(hashes, count, n, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many runs of n words there are; fills the hash of each."""
    power = np.uint64(1)
    for _ in range(n):
        power *= BASE
    h = np.uint64(0)
    for i in range(count):
        h = h * BASE + hashes[i]
        if i >= n:
            h -= power * hashes[i - n]
        if i >= n - 1:
            out[i - n + 1] = mixed(h + np.uint64(n))
    return max(count - n + 1, 0)


@compiled
def find(bits, shift, table, slots, h):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The number of a hash in an open-addressed table; -1 where it is not in it. Most are not, which `bits` says."""
    bit = h >> shift
    if not bits[bit >> np.uint64(6)] >> (bit & np.uint64(63)) & np.uint64(1):
        return np.int64(-1)
    mask = np.uint64(len(table) - 1)
    place = h & mask
    while slots[place] >= 0:
        if table[place] == h:
            return slots[place]
        place = (place + np.uint64(1)) & mask
    return np.int64(-1)


@compiled
def fill(bits, shift, table, slots, hashes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Put distinct hashes into an empty table; each has its place in `hashes` as number."""
    mask = np.uint64(len(table) - 1)
    for i in range(len(hashes)):
        bit = hashes[i] >> shift
        bits[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
        place = hashes[i] & mask
        while slots[place] >= 0:
            place = (place + np.uint64(1)) & mask
        table[place] = hashes[i]
        slots[place] = i


@compiled
def hold(row, ngrams, n, only_lines, opens, closes, lookup, held, hits, n_hits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Note which of the targets' n-grams a row holds; gives how many `hits` there are then."""
    bits, shift, table, slots = lookup
    for i in range(len(ngrams)):
        if not only_lines or (opens[i] and closes[i + n - 1]):
            number = find(bits, shift, table, slots, ngrams[i])
            if number >= 0 and held[number] != row:
                held[number] = row
                hits[n_hits] = number
                n_hits += 1
    return n_hits


@compiled
def held_by(row, held, numbers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many of some n-grams a row holds."""
    total = 0
    for number in numbers:
        total += held[number] == row
    return total


@compiled
def contained(  # type: ignore[no-untyped-def]  # noqa: ANN201
    data,  # noqa: ANN001
    bounds,  # noqa: ANN001
    kinds,  # noqa: ANN001
    lower,  # noqa: ANN001
    sizes,  # noqa: ANN001
    whole_lines,  # noqa: ANN001
    bits,  # noqa: ANN001
    shift,  # noqa: ANN001
    table,  # noqa: ANN001
    slots,  # noqa: ANN001
    key_start,  # noqa: ANN001
    key_target,  # noqa: ANN001
    gram_start,  # noqa: ANN001
    gram,  # noqa: ANN001
    least,  # noqa: ANN001
    out_row,  # noqa: ANN001
    out_target,  # noqa: ANN001
):
    """How many pairs of a row and a target there are of which the row holds enough n-grams; fills what there is room for.

    Args:
        data, bounds: row i is data[bounds[i]:bounds[i + 1]].
        sizes: the n that targets have; n-grams of less than `whole_lines` words count only where they are whole lines.
        bits, shift, table, slots: the targets' n-grams, see `find`.
        key_start, key_target: n-gram -> the targets of which it is a key: a row without a key cannot hold enough.
        gram_start, gram: target -> its n-grams.
        least: (m,) how many of them a row must hold.
    """
    longest = 1
    for row in range(len(bounds) - 1):
        longest = max(longest, bounds[row + 1] - bounds[row])
    hashes, ngrams = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    opens, closes = np.empty(longest, np.bool_), np.empty(longest, np.bool_)
    held = np.full(len(key_start) - 1, -1, np.int64)  # n-gram -> the last row that held it
    seen = np.full(len(least), -1, np.int64)  # target -> the last row of which it was a candidate
    pairs = 0
    hits = np.empty(longest * len(sizes), np.int64)
    for row in range(len(bounds) - 1):
        count = hash_words(data, bounds[row], bounds[row + 1], kinds, lower, hashes, opens, closes)
        n_hits = 0
        for n in sizes:
            total = hash_ngrams(hashes, count, n, ngrams)
            lookup = (bits, shift, table, slots)
            n_hits = hold(row, ngrams[:total], n, n < whole_lines, opens, closes, lookup, held, hits, n_hits)
        for number in hits[:n_hits]:
            for target in key_target[key_start[number] : key_start[number + 1]]:
                if seen[target] != row:
                    seen[target] = row
                    if held_by(row, held, gram[gram_start[target] : gram_start[target + 1]]) >= least[target]:
                        if pairs < len(out_row):
                            out_row[pairs], out_target[pairs] = row, target
                        pairs += 1
    return pairs
