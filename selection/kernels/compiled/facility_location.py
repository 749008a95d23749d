"""The compiled loops behind `facility_location`.

Similarities, and so gains, are integers here: multiples of 1 / `unit`.

What is kept of a row begins at entry `start` of `room`: a list, `length` references and their float32 similarities,
each pair in 64 bits; or, where `length` is -1 - s, its similarities compressed with scale s (see `compressed`). A scale
has a base, what the references were covered with at a version, and a step. What is kept is `rough` where it is more
than the float32 similarities: rounded up, or estimates (see `estimates`); then a weighted sum of them may be off by the
row's `error` times the root of their weights together, and one of them by its `doubt`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from selection.kernels.compiled import compressed, estimates, memory, quantized
from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import dot

# Terms of a coarse gain that are summed in float32 before float64 takes over.
RUN = 256
# Similarities of which there is often none that may add to a gain.
FEW = 32
# What a bound adds for the rounding of such sums, and of their terms.
SLACK = 1 + 2.0**-14
# No gain is more, see `scaled`.
MOST = 2.0**62
# Rows looked at for one pick, one after the other, before it pays to look at many at once.
LOOKS = 1024
# What is kept of a row is fetched from memory while so many before it are looked at, and where it is before that.
AHEAD, FAR_AHEAD = 4, 16


class References(NamedTuple):
    """The references, what each counts, and what they are covered with; `low`: coarse similarities up to it add
    nothing.
    """

    vectors: Any
    norms: Any
    weight: Any
    weight32: Any
    # In bytes, multiples of one unit for each group (see `compressed`).
    weight8: Any
    weight_units: Any
    covered: Any
    low: Any
    margin: Any
    unit: Any


class Kept(NamedTuple):
    """What is kept of the rows: `room` as 64-bit entries, also as bytes, int32 and float32; and for each row a `ROW`."""

    room: Any
    codes: Any
    words: Any
    numbers: Any
    state: Any
    # Of each scale, where its limits are; the scales of these; the bases and steps that scales are made of.
    limit_row: Any
    limits: Any
    in_use: Any
    bases: Any
    steps: Any


# What is known of a row. `measured` is HERE where the similarities were in this process, not only their bound.
HERE = 2
ROW = np.dtype(
    [
        ("start", np.int64),
        ("length", np.int32),
        ("size", np.int32),  # the entries that compressed similarities take
        ("error", np.float32),
        ("doubt", np.float32),
        ("seen_at", np.int32),  # the version that the row's bound is of
        ("measured", np.int8),  # it followed from float32 similarities, not from what is rough
        ("rough", np.int8),
    ],
    align=True,
)


@compiled
def exact(x, x_norm, y, y_norm, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """(1 + cosine) / 2 of float64 arithmetic in one fixed order, rounded to a multiple of 1 / unit."""
    cosine = dot(x, y) / (x_norm * y_norm)
    return np.int64(np.rint((0.5 + 0.5 * min(1.0, max(-1.0, cosine))) * unit))


@compiled
def norms_of(tile, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """out[rows[j]] = the length of tile[j]."""
    for j in range(tile.shape[0]):
        out[rows[j]] = np.sqrt(dot(tile[j], tile[j]))


@compiled
def hashes_of(tile, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """out[rows[j]] = a hash of the values of tile[j]; equal vectors have equal hashes."""
    bits = tile.view(np.uint32)
    for j in range(tile.shape[0]):
        h = np.uint64(0xCBF29CE484222325)
        for i in range(tile.shape[1]):
            h = (h ^ np.uint64(bits[j, i])) * np.uint64(0x9E3779B97F4A7C15)
            h ^= h >> np.uint64(29)
        out[rows[j]] = h


@compiled(fastmath=True)
def gain_above(s, low, weight):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What similarities add. Sums of RUN float32 terms err by less than RUN * 2**-24 of their value each."""
    zero = np.float32(0)
    gain = 0.0
    for start in range(0, s.shape[0], RUN):
        # Slices, since an index that might be negative keeps the compiler from using vector instructions.
        s_run, low_run, weight_run = s[start : start + RUN], low[start : start + RUN], weight[start : start + RUN]
        g = zero
        for i in range(s_run.shape[0]):
            g += weight_run[i] * max(s_run[i] - low_run[i], zero)
        gain += np.float64(g)
    return gain


@compiled
def bound_of(gain, error, open_weight, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """No less than the exact gain, for what similarities add that err by `error` (see `estimates`)."""
    bound = np.ceil((gain + np.float64(error) * np.sqrt(np.float64(open_weight))) * SLACK * unit)
    return np.int64(min(bound, MOST))


@compiled
def upper_gain(s, low, weight, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """No less than the exact gain, from float32 similarities."""
    return bound_of(gain_above(s, low, weight), 0.0, 0.0, unit)


@compiled
def measure(similar, rows, upper, low, weight32, unit, above, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Lower the bounds of rows start .. stop-1 to what their similarities say now; how many of these lie above `low`."""
    for j in range(start, stop):
        row = rows[j]
        upper[row] = min(upper[row], upper_gain(similar[j], low, weight32, unit))
        above[j] = count_above(similar[j], low)


@compiled
def count_above(s, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many similarities may add to a gain."""
    count = np.int32(0)
    for i in range(s.shape[0]):
        count += np.int32(s[i] > low[i])
    return count


@compiled(fastmath=True)
def weight_above(s, low, weight, doubt):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The weights together of the references that similarities may add to."""
    total = 0.0
    for start in range(0, s.shape[0], RUN):
        s_run, low_run, weight_run = s[start : start + RUN], low[start : start + RUN], weight[start : start + RUN]
        t = np.float32(0)
        for i in range(s_run.shape[0]):
            t += weight_run[i] * np.float32(s_run[i] + doubt > low_run[i])
        total += np.float64(t)
    return total


@compiled
def bound_of_estimates(s, low, weight32, error, doubt, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """No less than the exact gain, from estimates of the similarities."""
    return bound_of(gain_above(s, low, weight32), error, weight_above(s, low, weight32, doubt), unit)


@compiled
def highest(s, low, base, doubt):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How far the similarities that may add to a gain lie above a base."""
    more = np.empty(s.shape[0], np.float32)
    for i in range(s.shape[0]):
        more[i] = max(s[i] - base[i], np.float32(0)) if s[i] + doubt > low[i] else np.float32(0)
    bits, top = more.view(np.int32), np.int32(0)  # in the same order, and compared in registers
    for i in range(bits.shape[0]):
        top = max(top, bits[i])
    more.view(np.int32)[0] = top
    return more[0]


@compiled
def pack(s, low, base, doubt, steps, room, codes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Compress the similarities of a row; which step it has, and the entries that it takes."""
    step = compressed.step_for(np.float64(highest(s, low, base, doubt)), np.float64(doubt), steps)
    return step, compressed.pack(s, low, base, doubt, steps[step], room, codes)


@compiled
def scale_of(base, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The number of a scale."""
    return base * compressed.STEPS + step


@compiled
def estimate(  # type: ignore[no-untyped-def]  # noqa: ANN201
    in_bytes, references_in_bytes, rows, first, error, doubt, kept, base, upper, version, references,  # noqa: ANN001
    out, codes,  # noqa: ANN001
):  # fmt: skip
    """Estimate the similarities of rows[first], and as many more as are `in_bytes`; lower their bounds, and compress
    them.

    Args:
        in_bytes: (rows, ..) bytes of these rows, see `estimates`; `references_in_bytes`: packed, see `quantized`.
        error, doubt: (rows,) of these.
        out: (rows, entries) uint64 to compress to, from row `first` on; `codes`: the same as bytes.
    """
    Q, offset, own = in_bytes
    packed, terms = references_in_bytes
    low, weight32, unit = references.low, references.weight32, references.unit
    base_of, steps, state = kept.bases[base], kept.steps, kept.state
    sums = np.empty((quantized.ROWS, terms.shape[2]), np.int32)
    similar = np.empty((quantized.ROWS, len(packed) * terms.shape[2]), np.float32)
    for start in range(0, len(Q), quantized.ROWS):
        count = min(quantized.ROWS, len(Q) - start)
        estimates.similarities(Q, offset, own, packed, terms, start, count, sums, similar)
        for e in range(count):
            s, j = similar[e], first + start + e
            s, row, own_doubt = s[: len(low)], rows[j], doubt[start + e]
            upper[row] = min(upper[row], bound_of_estimates(s, low, weight32, error[start + e], own_doubt, unit))
            step, size = pack(s, low, base_of, own_doubt, steps, out[j], codes[j])
            state[row].length, state[row].size = -1 - scale_of(base, step), size
            state[row].error, state[row].doubt, state[row].rough = error[start + e], own_doubt, True
            state[row].seen_at, state[row].measured = version, False


@compiled
def measure_estimates(in_bytes, references_in_bytes, error, doubt, upper, low, weight32, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """upper[j] = a bound on the gain of row j, as `estimate`; nothing is kept."""
    Q, offset, own = in_bytes
    packed, terms = references_in_bytes
    sums = np.empty((quantized.ROWS, terms.shape[2]), np.int32)
    similar = np.empty((quantized.ROWS, len(packed) * terms.shape[2]), np.float32)
    for start in range(0, len(Q), quantized.ROWS):
        count = min(quantized.ROWS, len(Q) - start)
        estimates.similarities(Q, offset, own, packed, terms, start, count, sums, similar)
        for e in range(count):
            s, j = similar[e], start + e
            upper[j] = bound_of_estimates(s[: len(low)], low, weight32, error[j], doubt[j], unit)


@compiled
def copy_kept(out, chosen, rows, kept, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Copy the compressed similarities of the rows chosen[first] .. chosen[last - 1] to their places."""
    room, state = kept.room, kept.state
    for j in chosen[first:last]:
        at = state[rows[j]].start
        for e in range(state[rows[j]].size):
            room[at + e] = out[j, e]


@compiled
def write_kept(similar, chosen, rows, base, kept, low, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Keep what `length` says of the rows chosen[first] .. chosen[last - 1] of `similar`: a list, or compressed if it
    is below 0.
    """
    room, words, numbers, state = kept.room, kept.words, kept.numbers, kept.state
    base_of, steps = kept.bases[base], kept.steps
    scratch = np.empty(compressed.most_entries(len(low)), np.uint64)
    codes = scratch.view(np.uint8)
    for j in chosen[first:last]:
        row = rows[j]
        at = state[row].start
        state[row].error, state[row].doubt, state[row].rough = 0, 0, state[row].length < 0
        if state[row].length >= 0:
            write_list(similar[j], low, words, numbers, at, state[row].length)
            continue
        step, size = pack(similar[j], low, base_of, np.float32(0), steps, scratch, codes)
        state[row].length = -1 - scale_of(base, step)
        for e in range(size):
            room[at + e] = scratch[e]


@compiled
def write_list(s, low, words, numbers, at, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the references that a row may add to, and its similarities, from entry `at` on."""
    end = at + count
    for first in range(0, s.shape[0], FEW):
        s_few, low_few = s[first : first + FEW], low[first : first + FEW]
        if count_above(s_few, low_few):
            for i in range(s_few.shape[0]):  # each entry is written, and counts if it is one
                if at == end:
                    break
                words[2 * at] = first + i
                numbers[2 * at + 1] = s_few[i]
                at += s_few[i] > low_few[i]


@compiled(fastmath=True)
def product(x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The inner product, in float32."""
    total = np.float32(0)
    for f in range(x.shape[0]):
        total += x[f] * y[f]
    return total


@compiled
def fill_limits(limits, low, base, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the limits of a scale."""
    limits[:] = compressed.LARGEST
    for i in range(len(low)):
        limits[i] = compressed.limit_of(low[i], base[i], step)


@compiled
def compact(rows, kept, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move what is kept of these rows, in the order of their places, together at the front, without what no longer
    counts; where the free room begins.
    """
    end = 0
    scratch = np.empty(compressed.most_entries(len(low)), np.uint64)
    for row in rows:
        if kept.state[row].length < 0:
            shorten_compressed(row, kept, end, scratch)
            used = kept.state[row].size
        else:
            used = shorten(kept, row, end, low)
            kept.state[row].length = used
        kept.state[row].start = end
        end += used
    return end


@compiled
def shorten(kept, row, to, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move the list of a row to the place `to`, not behind its own, without what no longer counts; its new length."""
    start, doubt, count = kept.state[row].start, kept.state[row].doubt, np.int32(0)
    for e in range(start, start + kept.state[row].length):  # each entry is moved, and counts if it stays
        i, s = kept.words[2 * e], kept.numbers[2 * e + 1]
        kept.room[to + count] = kept.room[e]
        count += s + doubt > low[i]
    return count


@compiled
def look_at_list(room, words, numbers, first, length, low, weight32, doubt):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What a list says that a row adds, the weights that are left in it together, and how many entries; the list is
    shortened to these.
    """
    gain, open_weight, count = 0.0, 0.0, np.int64(0)
    for e in range(first, first + length):  # each entry is written, and counts if it stays
        i, s = words[2 * e], numbers[2 * e + 1]
        more = s - low[i]
        room[first + count] = room[e]
        left = more + doubt > 0
        count += left
        open_weight += np.float64(weight32[i] * np.float32(left))
        gain += np.float64(weight32[i] * max(more, np.float32(0)))
    return gain, open_weight, count


@compiled
def look(rows, kept, upper, version, references, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bring the bounds of rows[first] .. rows[last - 1] up to date with what is kept of them.

    What is kept becomes shorter. Arrays have names of their own: to hand on a tuple of them takes as long as the look
    at a row.
    """
    room, codes, words, numbers, limits = kept.room, kept.codes, kept.words, kept.numbers, kept.limits
    state, steps, limit_row = kept.state, kept.steps, kept.limit_row
    weight8, units, weight32, low = references.weight8, references.weight_units, references.weight32, references.low
    unit, bits = references.unit, compressed.groups(len(low))
    for j in range(first, last):
        expect(rows, j, last, state, upper, room)
        row = rows[j]
        rough, length, at, doubt = state[row].rough, state[row].length, state[row].start, state[row].doubt
        if state[row].seen_at == version and (rough or state[row].measured):
            continue
        if length < 0:
            scale = -1 - length
            step = steps[scale % compressed.STEPS]
            reach = compressed.reach_of(np.float64(doubt), step)
            gain, open_weight, count = compressed.look(room, codes, at, limits, limit_row[scale], weight8, units, reach)
            gain *= step
            if 2 * count <= compressed.BYTES * (state[row].size - bits):
                keep_less(row, kept, low, count)
        else:
            gain, open_weight, count = look_at_list(room, words, numbers, at, length, low, weight32, doubt)
            state[row].length = count
        upper[row] = min(upper[row], bound_of(gain, state[row].error, open_weight, unit))
        state[row].seen_at, state[row].measured = version, not rough


@compiled
def expect(rows, j, last, state, upper, room):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Let the processor fetch what is known of the rows that come after rows[j]: all of it lies far apart in memory."""
    if j + FAR_AHEAD < last:
        memory.expect(state, rows[j + FAR_AHEAD], 1)
        memory.expect(upper, rows[j + FAR_AHEAD], 1)
    if j + AHEAD < last:
        row = rows[j + AHEAD]
        memory.expect(room, state[row].start, state[row].size if state[row].length < 0 else state[row].length)


@compiled
def keep_less(row, kept, low, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Keep only what still counts of the compressed similarities of a row; as a list if that is shorter than the bits."""
    if count <= compressed.groups(len(low)):
        which, most = np.empty(len(low) + 1, np.int32), np.empty(len(low) + 1, np.float32)
        keep_list(row, kept, which, most, opened(row, kept, np.float32(0), which, most))
    else:
        scratch = np.empty(compressed.most_entries(len(low)), np.uint64)
        shorten_compressed(row, kept, kept.state[row].start, scratch)


@compiled
def shorten_compressed(row, kept, to, scratch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move the compressed similarities of a row to the place `to`, not behind their own, without what no longer counts."""
    scale = -1 - kept.state[row].length
    reach = compressed.reach_of(np.float64(kept.state[row].doubt), kept.steps[scale % compressed.STEPS])
    kept.state[row].size = compressed.shorten(
        kept.room, kept.codes, kept.state[row].start, kept.limits, kept.limit_row[scale], reach, to, scratch,
        scratch.view(np.uint8),
    )  # fmt: skip


@compiled
def opened(row, kept, more, which, most):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write which references are in doubt for a row, and its similarities as they are kept and `more`; how many.

    Args:
        which: int32, `most`: float32, with room for one more.
    """
    at, count = kept.state[row].start, np.int64(kept.state[row].length)
    if count >= 0:
        for e in range(count):
            which[e], most[e] = kept.words[2 * (at + e)], kept.numbers[2 * (at + e) + 1] + more
        return count
    scale = -1 - count
    base, step = kept.bases[scale // compressed.STEPS], kept.steps[scale % compressed.STEPS]
    reach = compressed.reach_of(np.float64(kept.state[row].doubt), step)
    count = compressed.unpack(
        kept.room, kept.codes, at, kept.limits, kept.limit_row[scale], reach, base, step, which, most
    )
    for e in range(count):
        most[e] += more
    return count


@compiled
def keep_list(row, kept, which, most, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Let a list take the place of what is kept of a row."""
    kept.state[row].length = count
    for e in range(count):
        at = kept.state[row].start + e
        kept.words[2 * at], kept.numbers[2 * at + 1] = which[e], most[e]


@compiled
def multiply_open(rows, xs, half_unit_refs, kept, upper, version, references):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Multiply rows, of unit vectors `xs`, with the references that are in doubt for them, and lower their bounds; how
    many products this was.

    A list of these references takes the place of what is kept if it is no longer.
    """
    products, low, state = 0, references.low, kept.state
    which, similar = np.empty(len(low) + 1, np.int32), np.empty(len(low) + 1, np.float32)
    for j in range(len(rows)):
        row = rows[j]
        count = opened(row, kept, np.float32(0), which, similar)
        for e in range(count):
            similar[e] = product(xs[j], half_unit_refs[which[e]]) + np.float32(0.5)
        products += count
        gain, above = 0.0, 0
        for e in range(count):
            i, s = which[e], similar[e]
            which[above], similar[above] = i, s
            above += s > low[i]
            gain += np.float64(references.weight32[i] * max(s - low[i], np.float32(0)))
        upper[row] = min(upper[row], bound_of(gain, 0.0, 0.0, references.unit))
        state[row].seen_at, state[row].measured = version, True
        if state[row].length >= 0 or above <= state[row].size:
            keep_list(row, kept, which, similar, above)
            state[row].rough, state[row].error, state[row].doubt = False, 0, 0
    return products


@compiled
def counted(weight, more):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The product of the two, rounded down; exact where the weight is a whole number."""
    whole = np.int64(weight)
    return whole * more + np.int64(np.floor((weight - np.float64(whole)) * np.float64(more)))


@compiled
def gain_of(row, kept, x, x_norm, references, take):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact gain of a row, of vector x; with `take`, its similarities are then what the references are covered
    with.
    """
    low, covered, unit = references.low, references.covered, references.unit
    which, most = np.empty(len(low) + 1, np.int32), np.empty(len(low) + 1, np.float32)
    count = opened(row, kept, kept.state[row].doubt, which, most)
    total = np.int64(0)
    for e in range(count):
        i = which[e]
        if most[e] > low[i]:
            similarity = exact(x, x_norm, references.vectors[i], references.norms[i], unit)
            if similarity > covered[i]:
                total += counted(references.weight[i], similarity - covered[i])
                if take:
                    covered[i] = similarity
                    low[i] = np.float32(similarity / unit) - references.margin
                    raise_limits(i, kept, low[i])
    return total


@compiled
def raise_limits(i, kept, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Tell all scales in use what a reference is covered with."""
    for scale in kept.in_use:
        base, step = kept.bases[scale // compressed.STEPS], kept.steps[scale % compressed.STEPS]
        kept.limits[kept.limit_row[scale], i] = compressed.limit_of(low, base[i], step)


@compiled
def cover(similar, xs, x_norms, refs, ref_norm, covered, low, margin, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Cover the references with many rows at once, in any order."""
    for i in range(similar.shape[1]):
        floor = low[i]
        for j in range(similar.shape[0]):
            floor = max(floor, similar[j, i] - 2 * margin)
        for j in range(similar.shape[0]):
            if similar[j, i] >= floor:
                covered[i] = max(covered[i], exact(xs[j], x_norms[j], refs[i], ref_norm[i], unit))
        low[i] = np.float32(covered[i] / unit) - margin


@compiled
def before(a, b, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Whether row a comes before row b: a higher bound, or the same and a lower row."""
    return upper[a] > upper[b] or (upper[a] == upper[b] and a < b)


@compiled
def sift_down(heap, size, at, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move an entry whose bound fell to its place in the heap."""
    row = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and before(heap[child + 1], heap[child], upper):
            child += 1
        if not before(heap[child], row, upper):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = row


@compiled
def heapify(heap, size, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bring rows into heap order."""
    for at in range(size // 2 - 1, -1, -1):
        sift_down(heap, size, at, upper)


@compiled
def push_all(heap, size, rows, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add rows to the heap; its new size."""
    for row in rows:
        at = size
        while at > 0 and before(row, heap[(at - 1) // 2], upper):
            heap[at] = heap[(at - 1) // 2]
            at = (at - 1) // 2
        heap[at] = row
        size += 1
    return size


@compiled
def places_above(heap, size, upper, goal):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The places in the heap of a bound of at least `goal`, ascending."""
    places = np.empty(size, np.int64)
    count = 0
    if size > 0 and upper[heap[0]] >= goal:
        places[0] = 0
        count = 1
    seen = 0
    while seen < count:
        for child in range(2 * places[seen] + 1, min(2 * places[seen] + 3, size)):
            if upper[heap[child]] >= goal:
                places[count] = child
                count += 1
        seen += 1
    return places[:count]


@compiled
def sift_all(heap, size, places, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bring into heap order again where bounds fell at these places, ascending."""
    for at in places[::-1]:
        sift_down(heap, size, at, upper)


@compiled
def greedy(  # type: ignore[no-untyped-def]  # noqa: ANN201
    kept, upper, references, heap, size, place, norms, twin, exact_at, memo, memo_at, version,  # noqa: ANN001
    outside_upper, outside_row, x, x_row, picked, gains, count, budget,  # noqa: ANN001
):  # fmt: skip
    """Pick among the rows at hand while none outside can come first.

    The row of the highest bound is looked at again until its bound is its exact gain of this version: then it is the
    pick. Bounds of earlier versions stay bounds, since gains only fall.

    Args:
        x: the vector of row `x_row`. Those of references are at hand.

    Returns:
        the picks so far, the size of the heap, the version, the row whose vector is needed, -1 for none, and whether
        the first row has to be multiplied, or so many were looked at that all may as well be at once. If there are
        fewer picks than the budget and neither, a row from outside is due.
    """
    looks, state = 0, kept.state
    while count < budget and size > 0:
        row = heap[0]
        if outside_upper > upper[row] or (outside_upper == upper[row] and outside_row < row):
            break
        same = twin[row]
        is_exact = exact_at[row] == version or upper[row] == 0
        # A gain of 0 covers nothing more: the references need no look.
        needs_vector = (
            upper[row] > 0
            if is_exact
            else (memo_at[same] < version and state[row].seen_at == version and state[row].measured)
        )
        if needs_vector and place[row] < 0 and x_row != row:
            return count, size, version, row, False
        vector = references.vectors[place[row]] if place[row] >= 0 else x
        if is_exact:
            gain = np.int64(0)
            if needs_vector:
                gain = gain_of(row, kept, vector, norms[row], references, True)
            memo[same] = 0
            memo_at[same] = np.iinfo(np.int32).max
            picked[count] = row
            gains[count] = gain
            count += 1
            version += 1
            size -= 1
            heap[0] = heap[size]
            looks = 0
        elif memo_at[same] >= version:
            upper[row] = min(upper[row], memo[same])
            exact_at[row] = version
        elif needs_vector:
            upper[row] = gain_of(row, kept, vector, norms[row], references, False)
            exact_at[row] = version
            memo[same] = upper[row]
            memo_at[same] = version
        elif looks == LOOKS or (state[row].rough and state[row].seen_at == version):
            return count, size, version, -1, True
        else:
            look(heap, kept, upper, version, references, 0, 1)
            looks += 1
        if size > 0:
            sift_down(heap, size, 0, upper)
    return count, size, version, -1, False


@compiled
def gain_of_list(refs, similarity, weight, covered, take):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact gain of a candidate from the references that it can cover."""
    total = np.int64(0)
    for e in range(len(refs)):
        i = refs[e]
        if similarity[e] > covered[i]:
            total += counted(weight[i], similarity[e] - covered[i])
            if take:
                covered[i] = similarity[e]
    return total


@compiled
def greedy_lists(starts, refs, similarity, weight, covered, heap, upper, budget, picked, gains):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Lazy greedy over lists of exact similarities: candidate j covers refs[starts[j]:starts[j+1]]."""
    exact_at = np.full(len(starts) - 1, -1)
    size = len(heap)
    heapify(heap, size, upper)
    count = 0
    while count < budget:
        row = heap[0]
        a, b = starts[row], starts[row + 1]
        if exact_at[row] == count:
            gains[count] = gain_of_list(refs[a:b], similarity[a:b], weight, covered, True)
            picked[count] = row
            count += 1
            size -= 1
            heap[0] = heap[size]
        else:
            upper[row] = gain_of_list(refs[a:b], similarity[a:b], weight, covered, False)
            exact_at[row] = count
        if size > 0:
            sift_down(heap, size, 0, upper)


@compiled
def exact_pairs(xs, x_norms, ys, y_norms, which, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """(rows, k) the exact similarity of xs[i] and ys[which[i, j]]; 0 with a zero vector or for which = -1."""
    out = np.zeros(which.shape)
    for i in range(which.shape[0]):
        for j in range(which.shape[1]):
            at = which[i, j]
            if at >= 0 and x_norms[i] > 0 and y_norms[at] > 0:
                out[i, j] = exact(xs[i], x_norms[i], ys[at], y_norms[at], unit) / unit
    return out
