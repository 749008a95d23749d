"""The compiled loops behind `facility_location`.

Similarities, and so gains, are integers here: multiples of 1 / `unit`.

What is kept of a row lies in `which` and `value`, from `start` on: a list, `length` references and their float32
similarities; or, where `length` is -1 - b, a sketch: for every reference four bits that say how far at most its
similarity lies above base b. A sketch of r references has `sketch_units(r)` = k entries, in each eight codes of `which`
and eight of the bits of `value`: reference p * k + e has the p-th four of entry e. Code c stands for c steps of the
row, for a few codes at the end see `reach`. Once a sketch leaves few references open, a list of these and of the
largest similarities that it leaves open takes its place: that is `rough` too.
"""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import dot

# Terms of a coarse gain that are summed in float32 before float64 takes over.
RUN = 256
# Similarities of which there is often none that may add to a gain.
FEW = 32
# What a bound adds for the rounding of such sums, and of their terms.
SLACK = 1 + 2.0**-14
# Codes in each half of an entry of a sketch, their bits; the highest one, and the highest that stands for so many
# steps.
CODES, CODE_BITS, LAST, LINEAR = 8, 4, 15, 13
# What a sketch adds to a similarity, more than all roundings on the way to the code and back: seven of at most 2**-24.
SKETCH_MARGIN = 2.0**-20
# The linear codes reach to so many times the mean of a row: the largest similarities are few, and often far from the
# others.
MEANS = 4.0
# At one of so many versions it is counted how many references a sketch leaves open.
COUNTED = 16
# Rows looked at for one pick, one after the other, before it pays to look at many at once.
LOOKS = 1024


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
def upper_gain(s, low, weight, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """No less than the exact gain. Sums of RUN float32 terms err by less than RUN * 2**-24 of their value each."""
    zero = np.float32(0)
    gain = 0.0
    for start in range(0, s.shape[0], RUN):
        # Slices, since an index that might be negative keeps the compiler from using vector instructions.
        s_run, low_run, weight_run = s[start : start + RUN], low[start : start + RUN], weight[start : start + RUN]
        g = zero
        for i in range(s_run.shape[0]):
            g += weight_run[i] * max(s_run[i] - low_run[i], zero)
        gain += np.float64(g)
    return np.int64(np.ceil(gain * SLACK * unit))


@compiled
def measure(similar, rows, upper, coarse_at, version, low, weight32, unit, above, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Lower the bounds of rows start .. stop-1 to what their similarities say now; how many of these lie above `low`."""
    for j in range(start, stop):
        row = rows[j]
        upper[row] = min(upper[row], upper_gain(similar[j], low, weight32, unit))
        coarse_at[row] = version
        above[j] = count_above(similar[j], low)


@compiled
def count_above(s, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many similarities may add to a gain."""
    count = np.int32(0)
    for i in range(s.shape[0]):
        count += np.int32(s[i] > low[i])
    return count


@compiled
def sketch_units(r):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The entries that a sketch of r references takes."""
    return -(-r // (2 * CODES))


@compiled
def write_kept(similar, chosen, low, bases, which, value, bits, step, top, rows, start, length, rough, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the list or sketch of the rows chosen[first] .. chosen[last - 1] of `similar`, as `length` says."""
    k = sketch_units(similar.shape[1])
    for j in chosen[first:last]:
        row = rows[j]
        at, count = start[row], length[row]
        rough[row] = count < 0
        if count >= 0:
            write_list(similar[j], low, which[at : at + count], value[at : at + count])
        else:
            step[row], top[row] = write_sketch(
                similar[j], low, bases[-1 - count], which[at : at + k], bits[at : at + k]
            )


@compiled
def write_list(s, low, which, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the references that a row may add to, and its similarities."""
    at, end = 0, len(which)
    for first in range(0, s.shape[0], FEW):
        s_few, low_few = s[first : first + FEW], low[first : first + FEW]
        if count_above(s_few, low_few):
            for i in range(s_few.shape[0]):  # each entry is written, and counts if it is one
                if at == end:
                    break
                which[at] = first + i
                value[at] = s_few[i]
                at += s_few[i] > low_few[i]


@compiled
def reach(code, step, top):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How far above its base a similarity of this code is at most: `code` steps, twice LINEAR, or the row's largest."""
    steps = code if code <= LINEAR else 2 * LINEAR
    return top if code == LAST else step * np.float32(steps)


@compiled(fastmath=True)
def write_sketch(s, low, base, words, bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the sketch of a row's similarities above `low`; its step, and its largest one above the base."""
    zero, margin, k = np.float32(0), np.float32(SKETCH_MARGIN), words.shape[0]
    more = np.empty(s.shape[0], np.float32)
    total, top, count = zero, zero, zero
    for i in range(s.shape[0]):  # one loop for each, so that the compiler uses vector instructions
        more[i] = s[i] - base[i] + margin if s[i] > low[i] else zero
    for i in range(s.shape[0]):
        top = max(top, more[i])
    for i in range(s.shape[0]):
        total += more[i]
        count += np.float32(more[i] > zero)
    step = min(top, np.float32(MEANS) * total / max(count, np.float32(1))) / np.float32(LINEAR)
    scale = np.float32(1) / step if step > zero else zero
    middle = reach(LINEAR + 1, step, top)
    for plane in range(2 * CODES):
        codes, shift = words if plane < CODES else bits, np.int32(CODE_BITS * (plane % CODES))
        if shift == 0:
            codes[:] = 0
        more_run = more[plane * k : plane * k + k]
        for e in range(more_run.shape[0]):
            code = min(np.int32(more_run[e] * scale), np.int32(LINEAR)) + np.int32(1)
            code = np.int32(LAST) if code > LINEAR and more_run[e] > middle else code
            codes[e] |= (code if more_run[e] > zero else np.int32(0)) << shift
    return step, top


@compiled(fastmath=True)
def sketched_gain(words, bits, base, low, weight, step, top, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """As `upper_gain`, of the largest similarities that a sketch leaves open."""
    zero, k = np.float32(0), words.shape[0]
    gain = 0.0
    for plane in range(2 * CODES):
        codes, shift = words if plane < CODES else bits, np.int32(CODE_BITS * (plane % CODES))
        for start in range(0, k, RUN):
            first = plane * k + start
            end = first + min(RUN, k - start)
            codes_run, base_run = codes[start : start + RUN], base[first:end]
            low_run, weight_run = low[first:end], weight[first:end]
            g = zero
            for i in range(low_run.shape[0]):
                most = base_run[i] + reach((codes_run[i] >> shift) & np.int32(LAST), step, top)
                g += weight_run[i] * max(most - low_run[i], zero)
            gain += np.float64(g)
    return np.int64(np.ceil(gain * SLACK * unit))


@compiled
def open_in_sketch(words, bits, base, low, step, top, which, most):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write which references a sketch leaves in doubt, and the largest similarities that it leaves open; how many."""
    k, count = words.shape[0], 0
    reached = np.empty(k, np.float32)
    for plane in range(2 * CODES):
        codes, shift = words if plane < CODES else bits, np.int32(CODE_BITS * (plane % CODES))
        first = plane * k
        base_run, low_run = base[first : first + k], low[first : first + k]
        for i in range(low_run.shape[0]):
            reached[i] = base_run[i] + reach((codes[i] >> shift) & np.int32(LAST), step, top)
        for i in range(low_run.shape[0]):  # each is written, and counts if it is one
            which[count], most[count] = first + i, reached[i]
            count += reached[i] > low_run[i]
    return count


@compiled
def count_open(words, bits, base, low, step, top):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many references `open_in_sketch` finds."""
    k, count = words.shape[0], np.int32(0)
    for plane in range(2 * CODES):
        codes, shift = words if plane < CODES else bits, np.int32(CODE_BITS * (plane % CODES))
        first = plane * k
        base_run, low_run = base[first : first + k], low[first : first + k]
        for i in range(low_run.shape[0]):
            count += np.int32(base_run[i] + reach((codes[i] >> shift) & np.int32(LAST), step, top) > low_run[i])
    return count


@compiled(fastmath=True)
def product(x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The inner product, in float32."""
    total = np.float32(0)
    for f in range(x.shape[0]):
        total += x[f] * y[f]
    return total


@compiled
def compact(rows, which, value, bits, start, length, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move what is kept of these rows, in the order of their places, together at the front; where the free room begins."""
    end, k = 0, sketch_units(len(low))
    for row in rows:
        first, count = start[row], length[row]
        start[row] = end
        if count < 0:
            for e in range(k):
                which[end + e], bits[end + e] = which[first + e], bits[first + e]
            end += k
        else:
            length[row] = shorten(which, value, first, count, end, low)
            end += length[row]
    return end


@compiled
def shorten(which, value, start, length, to, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move a list to the place `to`, not behind its own, without what is no longer above `low`; its new length."""
    count = np.int64(0)
    for e in range(start, start + length):  # each entry is moved, and counts if it stays
        i, s = which[e], value[e]
        which[to + count] = i
        value[to + count] = s
        count += s > low[i]
    return count


@compiled
def look_again(row, which, value, start, length, upper, low, weight32, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Lower the bound of a row to what its list says now, as `upper_gain`, and shorten the list."""
    gain = 0.0
    count = np.int64(0)
    first = start[row]
    for e in range(first, first + length[row]):
        i, s = which[e], value[e]
        more = s - low[i]
        which[first + count] = i
        value[first + count] = s
        count += more > 0
        gain += np.float64(weight32[i] * max(more, np.float32(0)))
    length[row] = count
    upper[row] = min(upper[row], np.int64(np.ceil(gain * SLACK * unit)))


@compiled
def look_at_sketch(  # type: ignore[no-untyped-def]  # noqa: ANN201
    row, which, value, bits, bases, step, top, start, length, upper, version, low, weight32, unit,  # noqa: ANN001
):  # fmt: skip
    """Lower the bound of a row to what its sketch says now; a list takes the place of one that leaves few references open."""
    at, base, k = start[row], bases[-1 - length[row]], sketch_units(len(low))
    words, signs = which[at : at + k], bits[at : at + k]
    upper[row] = min(upper[row], sketched_gain(words, signs, base, low, weight32, step[row], top[row], unit))
    if version % COUNTED == 0 and count_open(words, signs, base, low, step[row], top[row]) <= k:
        opened, most = np.empty(len(low) + 1, np.int32), np.empty(len(low) + 1, np.float32)
        count = open_in_sketch(words, signs, base, low, step[row], top[row], opened, most)
        which[at : at + count], value[at : at + count] = opened[:count], most[:count]
        length[row] = count


@compiled
def look(  # type: ignore[no-untyped-def]  # noqa: ANN201
    row, which, value, bits, bases, step, top, start, length, rough, upper, coarse_at, rough_at, version,  # noqa: ANN001
    low, weight32, unit,  # noqa: ANN001
):  # fmt: skip
    """Bring the bound of a row up to date with what is kept of it, if it is not."""
    if coarse_at[row] == version or (rough[row] and rough_at[row] == version):
        return
    if length[row] < 0:
        look_at_sketch(row, which, value, bits, bases, step, top, start, length, upper, version, low, weight32, unit)
    else:
        look_again(row, which, value, start, length, upper, low, weight32, unit)
    if rough[row]:
        rough_at[row] = version
    else:
        coarse_at[row] = version


@compiled
def look_at_all(  # type: ignore[no-untyped-def]  # noqa: ANN201
    rows, which, value, bits, bases, step, top, start, length, rough, upper, coarse_at, rough_at, version,  # noqa: ANN001
    low, weight32, unit, first, last,  # noqa: ANN001
):  # fmt: skip
    """Bring the bounds of rows[first] .. rows[last - 1] up to date with what is kept of them; a number without meaning."""
    touched = np.int64(0)
    for row in rows[first:last]:  # all that lies far apart in memory, so that it is waited for together
        at = start[row]
        touched += which[at] + bits[at] + length[row] + rough[row] + coarse_at[row] + rough_at[row] + upper[row]
        touched += np.int64(step[row] + top[row])
    for row in rows[first:last]:
        look(
            row, which, value, bits, bases, step, top, start, length, rough, upper, coarse_at, rough_at, version,
            low, weight32, unit,
        )  # fmt: skip
    return touched


@compiled
def multiply_open(  # type: ignore[no-untyped-def]  # noqa: ANN201
    rows, xs, half_unit_refs, which, value, bits, bases, step, top, start, length, rough,  # noqa: ANN001
    upper, coarse_at, version, low, weight32, unit,  # noqa: ANN001
):  # fmt: skip
    """Multiply rows, of unit vectors `xs`, with the references that are in doubt for them, and lower their bounds; how many
    products this was.

    A list of these references takes the place of a sketch if it is no longer.
    """
    products, k = 0, sketch_units(len(low))
    opened, similar = np.empty(len(low) + 1, np.int32), np.empty(len(low) + 1, np.float32)
    for j in range(len(rows)):
        row = rows[j]
        at, count = start[row], length[row]
        if count < 0:
            count = open_in_sketch(
                which[at : at + k], bits[at : at + k], bases[-1 - count], low, step[row], top[row], opened, similar
            )  # fmt: skip
        else:
            opened[:count] = which[at : at + count]
        for e in range(count):
            similar[e] = product(xs[j], half_unit_refs[opened[e]]) + np.float32(0.5)
        products += count
        gain, above = 0.0, 0
        for e in range(count):
            i, s = opened[e], similar[e]
            opened[above], similar[above] = i, s
            above += s > low[i]
            gain += np.float64(weight32[i] * max(s - low[i], np.float32(0)))
        upper[row] = min(upper[row], np.int64(np.ceil(gain * SLACK * unit)))
        coarse_at[row] = version
        if above <= k or length[row] >= 0:
            length[row], rough[row] = above, False
            which[at : at + above], value[at : at + above] = opened[:above], similar[:above]
    return products


@compiled
def counted(weight, more):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The product of the two, rounded down; exact where the weight is a whole number."""
    whole = np.int64(weight)
    return whole * more + np.int64(np.floor((weight - np.float64(whole)) * np.float64(more)))


@compiled
def gain_of(which, value, start, length, x, x_norm, refs, ref_norm, weight, covered, low, margin, unit, take):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact gain of a candidate; with `take`, its similarities are then what the references are covered with."""
    total = np.int64(0)
    for e in range(start, start + length):
        i = which[e]
        if value[e] > low[i]:
            similarity = exact(x, x_norm, refs[i], ref_norm[i], unit)
            if similarity > covered[i]:
                total += counted(weight[i], similarity - covered[i])
                if take:
                    covered[i] = similarity
                    low[i] = np.float32(similarity / unit) - margin
    return total


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
def gain_of_kept(  # type: ignore[no-untyped-def]  # noqa: ANN201
    row, which, value, bits, bases, step, top, start, length, x, x_norm, refs, ref_norm, weight, covered, low, margin,  # noqa: ANN001
    unit, take,  # noqa: ANN001
):  # fmt: skip
    """As `gain_of`, of the list or the sketch of a row."""
    at, count = start[row], length[row]
    if count >= 0:
        return gain_of(which, value, at, count, x, x_norm, refs, ref_norm, weight, covered, low, margin, unit, take)
    end = at + sketch_units(len(low))
    opened, most = np.empty(len(low) + 1, np.int32), np.empty(len(low) + 1, np.float32)
    count = open_in_sketch(which[at:end], bits[at:end], bases[-1 - count], low, step[row], top[row], opened, most)
    return gain_of(opened, most, 0, count, x, x_norm, refs, ref_norm, weight, covered, low, margin, unit, take)


@compiled
def greedy(  # type: ignore[no-untyped-def]  # noqa: ANN201
    which, value, bits, bases, step, top, start, length, rough, heap, size, place, norms, twin,  # noqa: ANN001
    upper, coarse_at, rough_at, exact_at, memo, memo_at, version,  # noqa: ANN001
    refs, ref_norm, weight, weight32, covered, low, margin, unit,  # noqa: ANN001
    outside_upper, outside_row, x, x_row, picked, gains, count, budget,  # noqa: ANN001
):  # fmt: skip
    """Pick among the rows at hand while none outside can come first.

    The row of the highest bound is looked at again until its bound is its exact gain of this version: then it is the
    pick. Bounds of earlier versions stay bounds, since gains only fall.

    Args:
        x: the vector of row `x_row`. Those of references are in `refs`.

    Returns:
        the picks so far, the size of the heap, the version, the row whose vector is needed, -1 for none, and whether
        the first row has to be multiplied, or so many were looked at that all may as well be at once. If there are
        fewer picks than the budget and neither, a row from outside is due.
    """
    looks = 0
    while count < budget and size > 0:
        row = heap[0]
        if outside_upper > upper[row] or (outside_upper == upper[row] and outside_row < row):
            break
        same = twin[row]
        is_exact = exact_at[row] == version or upper[row] == 0
        # A gain of 0 covers nothing more: the references need no look.
        needs_vector = upper[row] > 0 if is_exact else memo_at[same] < version and coarse_at[row] == version
        if needs_vector and place[row] < 0 and x_row != row:
            return count, size, version, row, False
        vector = refs[place[row]] if place[row] >= 0 else x
        if is_exact:
            gain = np.int64(0)
            if needs_vector:
                gain = gain_of_kept(
                    row, which, value, bits, bases, step, top, start, length, vector, norms[row],
                    refs, ref_norm, weight, covered, low, margin, unit, True,
                )  # fmt: skip
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
            upper[row] = gain_of_kept(
                row, which, value, bits, bases, step, top, start, length, vector, norms[row],
                refs, ref_norm, weight, covered, low, margin, unit, False,
            )  # fmt: skip
            exact_at[row] = version
            memo[same] = upper[row]
            memo_at[same] = version
        elif looks == LOOKS or (rough[row] and rough_at[row] == version):
            return count, size, version, -1, True
        else:
            look(
                row, which, value, bits, bases, step, top, start, length, rough, upper, coarse_at, rough_at, version,
                low, weight32, unit,
            )  # fmt: skip
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
