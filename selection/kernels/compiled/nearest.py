"""The compiled loops behind `Nearest`.

A row's state is a record of `ROW`. Its distances are brought up to date against centres `version`, `version + 1`, ...
only when they may matter. Float32 inner products give an interval that holds the exact squared distance of a pair:

    |x|^2 + |c|^2 - 2 x.c  -+  gamma (|x|^2 + |c|^2),   gamma = `distance_margin(d)`

`high` and `low` hold |c|^2 with the margin added and taken away.

A vector may be the outer product of two factors, d = p q entries that are never written down: a row then holds the p
features of the one factor and the q of the other, and `split` is p. The inner product of two such rows is the product
of those of their factors, and the margin is that of p + q features. A plain vector has split = d and no second factor.
"""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import quantized as in_bytes
from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.margin import distance_margin
from selection.kernels.compiled.products import LANES, ROWS, below, write_products
from selection.kernels.compiled.sums import dot, square_distance

ROW = np.dtype(
    [
        ("bound", np.float64),  # scale * an upper bound on the squared distance to the nearest centre; -inf: not wanted
        ("rest", np.float64),  # a lower bound on the squared distance to every seen centre but `near`
        ("square", np.float64),  # |x|^2
        ("scale", np.float64),  # what multiplies squared distances
        ("near", np.int32),  # the centre that gave the bound
        ("version", np.int32),  # how many centres have been seen
        ("exact", np.int8),  # the bound is the float64 value itself
    ],
    align=True,
)

# Products below the smallest normal float32 may be flushed to zero.
TINY = 1e-30

# Rows that meet the same centres before the next: their vectors stay in a cache meanwhile.
PANEL = 64

# Columns of the scratch array of a row at work.
BEST, LEAST, CUT, UPPER, LOWER, SKETCHED = 0, 1, 2, 3, 4, 5
WORK = 6

# A row is sketched when it has to meet this many centres for each direction: that costs one product for each.
CENTRES_PER_DIRECTION = 4

# A row is quantized when it has to meet this many centres: that costs about as much as 20 whole products.
QUANTIZE_FROM = 32

# A panel gives the bytes up when they leave more than FEW_OPEN pairs and one in OPEN open: an open pair costs as much
# as that many products in whole groups, since the features of its centre are seldom in a cache.
OPEN = 16
FEW_OPEN = 256

# The float32 products may be summed in any order: the margin covers all of them.
_ANY_ORDER = {"reassoc", "contract", "nsz"}


@compiled
def exact_square(x, c, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact squared distance of vectors or of outer products; 0 for equal rows."""
    if split == x.shape[0]:
        return square_distance(x, c)
    return square_between(x, c, split, square_norm(x, split), square_norm(c, split))


@compiled
def square_between(x, c, split, x_square, c_square):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact squared distance of outer products whose squared norms are known."""
    product = dot(x[:split], c[:split]) * dot(x[split:], c[split:])
    return max(0.0, x_square + c_square - 2.0 * product)


@compiled
def square_norm(x, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """|x|^2 in float64."""
    if split < x.shape[0]:
        return dot(x[:split], x[:split]) * dot(x[split:], x[split:])
    return dot(x, x)


@compiled
def add_rows(tile, total):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add each row to a float64 total, one after the other."""
    for i in range(tile.shape[0]):
        for f in range(tile.shape[1]):
            total[f] += np.float64(tile[i, f])


@compiled
def begin(tile, rows, centre, state, split, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Give rows start .. stop-1 of a tile their exact distance to the first centre; a bound of -inf stays."""
    square = square_norm(centre, split)
    for i in range(start, stop):
        row = rows[i]
        state[row].square = square_norm(tile[i], split)
        if state[row].bound > -np.inf:
            if split < tile.shape[1]:
                exact = square_between(tile[i], centre, split, state[row].square, square)
            else:
                exact = square_distance(tile[i], centre)
            state[row].bound = state[row].scale * exact
        state[row].rest = np.inf
        state[row].near = 0
        state[row].version = 1
        state[row].exact = 1


@compiled
def add_centre(x, centres, packed, high, low, count, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write one more centre with its norms, also packed for `write_products`."""
    gamma = distance_margin(x.shape[0])
    square = square_norm(x, split)
    for f in range(x.shape[0]):
        centres[count, f] = x[f]
        packed[count // LANES, f, count % LANES] = x[f]
    high[count] = square * (1.0 + gamma)
    low[count] = square * (1.0 - gamma)


@compiled
def start_row(state, i, work, p, gamma, high, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fill the scratch of a row: upper and lower bound of its nearest centre, and what a product must pass to matter."""
    upper = state[i].square * (1.0 + gamma) + TINY
    lower = state[i].square * (1.0 - gamma) - TINY
    best = state[i].bound / state[i].scale
    least = best * (1.0 - 2.0**-50)  # the division may have rounded up
    if not state[i].exact:
        near = state[i].near
        least = best - (upper - lower) - (np.float64(high[near]) - np.float64(low[near]))
    work[p, BEST] = best
    work[p, LEAST] = least
    work[p, CUT] = best - lower
    work[p, UPPER] = upper
    work[p, LOWER] = lower


@compiled
def end_row(state, i, work, p):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the scratch of a row back.

    A bound that no centre lowered stays as it is: dividing by the scale and multiplying again may not give it back.
    """
    if work[p, BEST] < state[i].bound / state[i].scale:
        state[i].bound = min(state[i].bound, state[i].scale * work[p, BEST])


@compiled
def meet(state, i, work, p, j, product, high, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A row meets centre j, given their float32 inner product."""
    under = low[j] - np.float32(2.0) * product
    if under > work[p, CUT] or j < state[i].version:
        return  # farther than the nearest, whatever the rounding; or counted before
    least = work[p, LOWER] + under
    best = work[p, UPPER] + (high[j] - np.float32(2.0) * product)
    if best < work[p, BEST]:
        state[i].rest = min(state[i].rest, work[p, LEAST])
        state[i].near = j
        work[p, LEAST] = least
        work[p, BEST] = best
        work[p, CUT] = best - work[p, LOWER]
    else:
        state[i].rest = min(state[i].rest, least)
    state[i].exact = 0


@compiled
def products(X, rows, packed, group, split, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the inner products of ROWS rows and a group of packed centres to out[0] (ROWS, LANES); out[1] is scratch."""
    write_products(X, rows, packed, group, 0, split, out[0])
    if split < X.shape[1]:
        write_products(X, rows, packed, group, split, X.shape[1], out[1])
        for e in range(ROWS):
            for b in range(LANES):
                out[0, e, b] *= out[1, e, b]


@compiled(fastmath=_ANY_ORDER)
def dots_4(x, C, j0, j1, j2, j3, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Inner products of one row and four centres over some features, named by place."""
    a0 = a1 = a2 = a3 = np.float32(0)
    for f in range(start, stop):
        p = x[f]
        a0 += p * C[j0, f]
        a1 += p * C[j1, f]
        a2 += p * C[j2, f]
        a3 += p * C[j3, f]
    return a0, a1, a2, a3


@compiled
def products_4(x, C, j0, j1, j2, j3, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Inner products of one row and four centres, named by place."""
    a0, a1, a2, a3 = dots_4(x, C, j0, j1, j2, j3, 0, split)
    if split < x.shape[0]:
        b0, b1, b2, b3 = dots_4(x, C, j0, j1, j2, j3, split, x.shape[0])
        return a0 * b0, a1 * b1, a2 * b2, a3 * b3
    return a0, a1, a2, a3


@compiled
def refresh(  # type: ignore[no-untyped-def]  # noqa: ANN201, C901
    X, state, order, centres, packed, high, low, count, floor, split, sketch, quantized, start, stop,  # noqa: ANN001
):  # fmt: skip
    """Bring rows up to date against centres 0 .. count-1, but let go of a row when its bound falls below its floor.

    Args:
        X: (b, d) float32; `state`: (b,) of `ROW`.
        order: places in X, ascending in version, so that rows of one panel miss about the same centres.
        floor: as long as `order`.
        sketch: `sketch.Sketch.arrays` of all centres.
        quantized: `quantized.Quantized.arrays` of all centres.
        start, stop: the part of `order` to do.
    """
    directions, sketched_packed, sketched_low, errors = sketch
    gamma = distance_margin(X.shape[1])
    work = np.empty((PANEL, WORK))
    active = np.empty(PANEL, np.int64)
    out = np.empty((2, ROWS, LANES), np.float32)
    Z = np.empty((PANEL, sketched_packed.shape[1]), np.float32)
    centre_bytes, terms = quantized
    Q = np.zeros((PANEL, centre_bytes.shape[1] * in_bytes.FEATURES), np.int8)
    offset, own = np.empty(PANEL, np.int32), np.empty((PANEL, in_bytes.TERMS), np.float32)
    for first in range(start, stop, PANEL):
        panel = order[first : min(first + PANEL, stop)]
        least = floor[first : min(first + PANEL, stop)]
        to_meet = count - np.int64(state[panel[0]].version)
        sketched = 0 < len(directions) * LANES * CENTRES_PER_DIRECTION <= to_meet
        if sketched:
            sketch_rows(X, state, panel, directions, errors[0], out, Z)
        by_bytes = len(centre_bytes) > 0 and to_meet >= QUANTIZE_FROM and not sketched
        if by_bytes:
            in_bytes.quantize_rows(X, state, panel, Q, offset, own)
        met = opened = np.int64(0)
        waiting = m = np.int64(0)  # a literal would have `start_row` compiled once more
        group = np.int64(state[panel[0]].version) // LANES
        while group * LANES < count:
            end = min((group + 1) * LANES, count)
            while waiting < len(panel) and state[panel[waiting]].version < end:
                i = panel[waiting]
                if state[i].bound == 0.0:
                    state[i].version = count  # nothing is nearer than that
                elif state[i].bound >= least[waiting]:
                    start_row(state, i, work, waiting, gamma, high, low)
                    work[waiting, SKETCHED] = state[i].square * (1.0 - errors[1]) - TINY
                    active[m] = waiting
                    m += 1
                waiting += 1
            if sketched:
                meet_few(
                    X, state, panel, active[:m], work, out, Z, sketched_packed, sketched_low, centres, high, low, group
                )
            elif by_bytes:
                met += m * LANES
                opened += meet_open(
                    X, state, panel, active[:m], work, Q, offset, own, centre_bytes, terms, centres, high, low, group
                )
                by_bytes = opened <= FEW_OPEN + met // OPEN
            else:
                meet_group(X, state, panel, active[:m], work, out, packed, high, low, group, split)
            m = still_active(state, panel, active[:m], least, end, count)
            group += 1
            if m == 0:
                if waiting == len(panel):
                    break
                group = max(group, np.int64(state[panel[waiting]].version) // LANES)


@compiled
def still_active(state, panel, active, least, end, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Let go of the rows that have met all centres or fell below their floor; how many are left, the first of `active`."""
    kept = np.int64(0)
    for a in range(len(active)):
        i = panel[active[a]]
        if state[i].bound >= least[active[a]] and end < count:
            active[kept] = active[a]
            kept += 1
        else:
            state[i].version = end
    return kept


@compiled
def meet_group(X, state, panel, active, work, out, packed, high, low, group, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The active rows of a panel meet a group of centres. Where fewer than four rows are left, the last stands in for more."""
    rows = np.empty(ROWS, np.int64)
    last = len(active) - 1
    for a in range(0, len(active), ROWS):
        for e in range(ROWS):
            rows[e] = panel[active[min(a + e, last)]]
        products(X, rows, packed, group, split, out)
        for e in range(min(ROWS, len(active) - a)):
            p = active[a + e]
            mask = below(low, group, out[0], e, work[p, CUT])
            if mask:
                for b in range(LANES):
                    if mask >> b & 1:
                        meet(state, panel[p], work, p, group * LANES + b, out[0, e, b], high, low)
                end_row(state, panel[p], work, p)


@compiled
def sketch_rows(X, state, panel, directions, error, out, Z):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the sketches of a panel of rows to Z."""
    rows = np.empty(ROWS, np.int64)
    for p in range(0, len(panel), ROWS):
        for e in range(ROWS):
            rows[e] = panel[min(p + e, len(panel) - 1)]
        for group in range(len(directions)):
            write_products(X, rows, directions, group, 0, X.shape[1], out[0])
            for e in range(min(ROWS, len(panel) - p)):
                for b in range(LANES):
                    Z[p + e, group * LANES + b] = out[0, e, b]
    for p in range(len(panel)):
        end_sketch(Z[p], state[panel[p]].square, error)


@compiled
def end_sketch(z, square, error):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write what is left of a vector's length to the last place of its sketch, rounded up."""
    last = len(z) - 1
    rest = square * (1.0 + 2.0 * error * (1.0 + error)) - dot(z[:last], z[:last])
    z[last] = np.sqrt(max(rest, 0.0)) * (1.0 + 2.0**-20)


@compiled(fastmath=_ANY_ORDER)
def coarse_dot(x, c):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The float32 inner product of two rows."""
    total = np.float32(0)
    for f in range(x.shape[0]):
        total += x[f] * c[f]
    return total


@compiled
def meet_few(  # type: ignore[no-untyped-def]  # noqa: ANN201
    X, state, panel, active, work, out, Z, packed, sketched_low, centres, high, low, group,  # noqa: ANN001
):  # fmt: skip
    """As `meet_group`, but a row meets only the centres that its sketch does not rule out."""
    places = np.empty(ROWS, np.int64)
    last = len(active) - 1
    for a in range(0, len(active), ROWS):
        for e in range(ROWS):
            places[e] = active[min(a + e, last)]
        write_products(Z, places, packed, group, 0, Z.shape[1], out[0])
        for e in range(min(ROWS, len(active) - a)):
            p = places[e]
            mask = below(sketched_low, group, out[0], e, work[p, BEST] - work[p, SKETCHED])
            if mask:
                meet_some(X[panel[p]], state, panel[p], work, p, mask, centres, high, low, group)


@compiled
def meet_open(  # type: ignore[no-untyped-def]  # noqa: ANN201
    X, state, panel, active, work, Q, offset, own, packed, terms, centres, high, low, group,  # noqa: ANN001
):  # fmt: skip
    """As `meet_group`, but a row meets only the centres that its bytes do not rule out; how many pairs these were."""
    places = np.empty(in_bytes.ROWS, np.int64)
    sums = np.empty((in_bytes.ROWS, LANES), np.int32)
    last = len(active) - 1
    opened = np.int64(0)
    for a in range(0, len(active), in_bytes.ROWS):
        for e in range(in_bytes.ROWS):
            places[e] = active[min(a + e, last)]
        in_bytes.write_sums(Q, offset, places, packed, group, sums)
        for e in range(min(in_bytes.ROWS, len(active) - a)):
            p = places[e]
            mask = in_bytes.below(low, terms, group, sums, e, own, p, work[p, CUT])
            if mask:
                opened += meet_some(X[panel[p]], state, panel[p], work, p, mask, centres, high, low, group)
    return opened


@compiled
def meet_some(x, state, i, work, p, mask, centres, high, low, group):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A row meets the centres of a group that a mask names; how many."""
    count = 0
    for b in range(LANES):
        if mask >> b & 1:
            j = group * LANES + b
            meet(state, i, work, p, j, coarse_dot(x, centres[j]), high, low)
            count += 1
    end_row(state, i, work, p)
    return count


@compiled
def refresh_one(x, state, i, work, centres, high, low, count, floor, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """As `refresh`, for one row x; `work` has one row."""
    if state[i].bound == 0.0:
        state[i].version = count
        return
    p = np.int64(0)
    start_row(state, i, work, p, distance_margin(x.shape[0]), high, low)
    for j in range(np.int64(state[i].version), count, 4):
        last = min(j + 4, count) - 1
        four = products_4(x, centres, j, min(j + 1, last), min(j + 2, last), min(j + 3, last), split)
        for b in range(last - j + 1):
            meet(state, i, work, p, j + b, four[b], high, low)
        end_row(state, i, work, p)
        state[i].version = last + 1
        if state[i].bound < floor:
            return


@compiled
def resolve(x, state, i, centres, low, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Make a row's bound the exact value over the centres it has seen; ties to the earliest centre.

    One distance, unless another centre lies within the margin of the nearest: then each that does is measured.
    """
    near = int(state[i].near)
    best = exact_square(x, centres[near], split)
    if not state[i].rest > best:
        lower = state[i].square * (1.0 - distance_margin(x.shape[0])) - TINY
        count = int(state[i].version)
        for j in range(0, count, 4):
            last = min(j + 4, count) - 1
            four = products_4(x, centres, j, min(j + 1, last), min(j + 2, last), min(j + 3, last), split)
            for b in range(last - j + 1):
                if lower + (low[j + b] - np.float32(2.0) * four[b]) > best:
                    continue
                exact = exact_square(x, centres[j + b], split)
                if exact < best or (exact == best and j + b < near):
                    best = exact
                    near = j + b
        state[i].near = near
        state[i].rest = best
    state[i].bound = state[i].scale * best
    state[i].exact = 1


@compiled
def resolve_all(X, state, centres, low, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Make every row's bound exact over the centres it has seen."""
    for i in range(X.shape[0]):
        if not state[i].exact:
            resolve(X[i], state, i, centres, low, split)
