"""The compiled loops behind `facility_location`.

Similarities, and so gains, are integers here: multiples of 1 / `unit`.
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
def write_lists(similar, chosen, low, which, value, starts, lengths, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the lists of rows chosen[start] .. chosen[stop - 1] of `similar`: references they may add to, similarities."""
    for j in range(start, stop):
        s, at, end = similar[chosen[j]], starts[j], starts[j] + lengths[j]
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
def compact(rows, which, value, start, length, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move the lists of these rows, in the order of their places, together at the front; where the free room begins."""
    end = 0
    for row in rows:
        count = shorten(which, value, start[row], length[row], end, low)
        start[row] = end
        length[row] = count
        end += count
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
def before(a, b, row_of, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Whether slot a comes before slot b: a higher bound, or the same and a lower row."""
    ra, rb = row_of[a], row_of[b]
    return upper[ra] > upper[rb] or (upper[ra] == upper[rb] and ra < rb)


@compiled
def sift_down(heap, size, at, row_of, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move an entry whose bound fell to its place in the heap."""
    slot = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and before(heap[child + 1], heap[child], row_of, upper):
            child += 1
        if not before(heap[child], slot, row_of, upper):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = slot


@compiled
def heapify(heap, size, row_of, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bring slots into heap order."""
    for at in range(size // 2 - 1, -1, -1):
        sift_down(heap, size, at, row_of, upper)


@compiled
def push_all(heap, size, slots, row_of, upper):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add slots to the heap; its new size."""
    for slot in slots:
        at = size
        while at > 0 and before(slot, heap[(at - 1) // 2], row_of, upper):
            heap[at] = heap[(at - 1) // 2]
            at = (at - 1) // 2
        heap[at] = slot
        size += 1
    return size


@compiled
def greedy(  # type: ignore[no-untyped-def]  # noqa: ANN201
    which, value, start, length, heap, size, row_of, place, norms, twin, upper, coarse_at, exact_at, memo, memo_at, version,  # noqa: ANN001
    refs, ref_norm, weight, weight32, covered, low, margin, unit,  # noqa: ANN001
    outside_upper, outside_row, x, x_row, picked, gains, count, budget,  # noqa: ANN001
):  # fmt: skip
    """Pick among the rows at hand while none outside can come first.

    The row of the highest bound is looked at again until its bound is its exact gain of this version: then it is the
    pick. Bounds of earlier versions stay bounds, since gains only fall.

    Args:
        x: the vector of row `x_row`. Those of references are in `refs`.

    Returns:
        the picks so far, the size of the heap, the version, and the row whose vector is needed, -1 for none: fewer picks
        than the budget if it is, or a row from outside is due.
    """
    while count < budget and size > 0:
        row = heap[0]
        if outside_upper > upper[row] or (outside_upper == upper[row] and outside_row < row):
            break
        same = twin[row]
        is_exact = exact_at[row] == version or upper[row] == 0
        # A gain of 0 covers nothing more: the references need no look.
        needs_vector = upper[row] > 0 if is_exact else memo_at[same] < version and coarse_at[row] == version
        if needs_vector and place[row] < 0 and x_row != row:
            return count, size, version, row
        vector = refs[place[row]] if place[row] >= 0 else x
        if is_exact:
            gain = np.int64(0)
            if needs_vector:
                gain = gain_of(
                    which, value, start[row], length[row], vector, norms[row],
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
        elif memo_at[same] >= version:
            upper[row] = min(upper[row], memo[same])
            exact_at[row] = version
        elif needs_vector:
            upper[row] = gain_of(
                which, value, start[row], length[row], vector, norms[row],
                refs, ref_norm, weight, covered, low, margin, unit, False,
            )  # fmt: skip
            exact_at[row] = version
            memo[same] = upper[row]
            memo_at[same] = version
        else:
            look_again(row, which, value, start, length, upper, low, weight32, unit)
            coarse_at[row] = version
        if size > 0:
            sift_down(heap, size, 0, row_of, upper)
    return count, size, version, -1


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
    row_of = np.arange(len(starts) - 1)
    exact_at = np.full(len(starts) - 1, -1)
    size = len(heap)
    heapify(heap, size, row_of, upper)
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
            sift_down(heap, size, 0, row_of, upper)


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
