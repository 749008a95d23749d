"""The compiled loops over class probabilities.

All take float64, r rows, C classes. `rows` (r,) says where each result goes in `out` (n,) float32. Sums run in the
order of the classes and the compiler may not reorder them, so a result depends on nothing but the row.
"""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import dot

CHUNK = 1024  # logarithms at once: scratch that stays in the first cache


@compiled
def first_bad(tile, tolerance):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The first row that is no distribution: a value that is negative or not finite, a sum too far from 1. -1: none."""
    for j in range(tile.shape[0]):
        total = 0.0
        negative = False
        for c in range(tile.shape[1]):
            total += tile[j, c]
            negative |= tile[j, c] < 0.0
        # A NaN or an infinity makes the sum one, which fails as well.
        if negative or not abs(total - 1.0) <= tolerance:
            return j
    return -1


@compiled(error_model="numpy")
def log(x, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The natural logarithm of x (v,), finite and >= 0, into out; of 0 some finite number, as only 0 log 0 = 0 is asked for.

    The compiler turns these loops into vector instructions, which it cannot do with calls to libm, and the result is
    the same on every machine. Within one unit in the last place. Source: fdlibm `e_log.c` (Sun Microsystems 1993).
    """
    mantissa = np.empty(CHUNK)
    bits = mantissa.view(np.int64)
    words = x.view(np.int64)
    for start in range(0, x.shape[0], CHUNK):
        count = min(CHUNK, x.shape[0] - start)
        chunk = words[start : start + count]
        result = out[start : start + count]
        # x = 2**exponent * mantissa, the mantissa between the square roots of 1/2 and 2.
        for i in range(count):
            shifted = chunk[i] + (0x3FF0000000000000 - 0x3FE6A09E00000000)
            result[i] = np.float64(np.int32((shifted >> 52) - 1023))
            bits[i] = (shifted & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E00000000
        for i in range(count):
            f = mantissa[i] - 1.0
            s = f / (2.0 + f)
            z = s * s
            w = z * z
            even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
            odd = z * (
                6.666666666666735130e-01
                + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
            )
            half = 0.5 * f * f
            e = result[i]
            low = s * (half + (odd + even)) + e * 1.90821492927058770002e-10
            result[i] = e * 6.93147180369123816490e-01 - ((half - low) - f)


@compiled
def logs(tile):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The natural logarithms of an array, see `log`."""
    out = np.empty(tile.size)
    log(tile.reshape(-1), out)
    return out.reshape(tile.shape)


@compiled
def least_confidence(tile, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """1 - p1, p1 the highest probability."""
    for j in range(tile.shape[0]):
        first = 0.0
        for c in range(tile.shape[1]):
            first = max(first, tile[j, c])
        out[rows[j]] = 1.0 - first


@compiled
def margin(tile, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """1 - (p1 - p2), the two highest probabilities."""
    for j in range(tile.shape[0]):
        first = second = 0.0
        for c in range(tile.shape[1]):
            p = tile[j, c]
            second = max(second, min(first, p))
            first = max(first, p)
        out[rows[j]] = 1.0 - (first - second)


@compiled
def entropy(tile, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """- sum p log p."""
    logged = logs(tile)
    for j in range(tile.shape[0]):
        total = 0.0
        for c in range(tile.shape[1]):
            total += tile[j, c] * logged[j, c]
        out[rows[j]] = max(-total, 0.0)


@compiled
def expected_cost(tile, cost, by_margin, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The lowest expected cost of a prediction, or minus its gap to the second lowest; cost (C, C) by truth, prediction."""
    classes = tile.shape[1]
    for j in range(tile.shape[0]):
        first = second = np.inf
        for predicted in range(classes):
            expected = 0.0
            for c in range(classes):
                expected += tile[j, c] * cost[c, predicted]
            second = min(second, max(first, expected))
            first = min(first, expected)
        out[rows[j]] = first - second if by_margin else first


@compiled
def divergence(tile, highest, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The KL divergence of a member from the members' mean: the mean over members, or the highest. tile (r, members, C)."""
    count, members, classes = tile.shape
    mean = np.zeros((count, classes))
    for j in range(count):
        for m in range(members):
            for c in range(classes):
                mean[j, c] += tile[j, m, c]
        for c in range(classes):
            mean[j, c] /= members
    logged, logged_mean = logs(tile), logs(mean)
    for j in range(count):
        total = most = 0.0
        for m in range(members):
            kl = 0.0
            for c in range(classes):
                kl += tile[j, m, c] * (logged[j, m, c] - logged_mean[j, c])
            total += kl
            most = max(most, kl)
        out[rows[j]] = most if highest else max(total / members, 0.0)


@compiled
def vote_entropy(tile, terms, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The sum of terms[votes] over classes, each member with one vote, ties to the lowest class. tile (r, members, C)."""
    count, members, classes = tile.shape
    votes = np.zeros(classes, np.int64)
    for j in range(count):
        votes[:] = 0
        for m in range(members):
            best = 0
            for c in range(1, classes):
                if tile[j, m, c] > tile[j, m, best]:
                    best = c
            votes[best] += 1
        total = 0.0
        for c in range(classes):
            total += terms[votes[c]]
        out[rows[j]] = total


@compiled
def normalised(tile):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A copy of (r, members, C) whose distributions sum to 1, and (r,) minus the entropy of the members' mean."""
    count, members, classes = tile.shape
    out = np.empty(tile.shape)
    mean = np.zeros((count, classes))
    for j in range(count):
        for m in range(members):
            total = 0.0
            for c in range(classes):
                total += tile[j, m, c]
            for c in range(classes):
                out[j, m, c] = tile[j, m, c] / total
                mean[j, c] += out[j, m, c] / members
    logged = logs(mean)
    known = np.empty(count)
    for j in range(count):
        known[j] = dot(mean[j], logged[j])
    return out, known


@compiled
def epig(tile, targets, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The mean over targets (m, members, C) of the mutual information of the two labels; tile (r, members, C).

    Rows are made to sum to 1, since what rounding leaves of a sum would be as large as the information.
    """
    count, members, classes = tile.shape
    mine, of_mine = normalised(tile)
    target, of_target = normalised(targets)
    joint = np.empty(classes * classes)
    logged = np.empty(classes * classes)
    for j in range(count):
        total = 0.0
        for t in range(target.shape[0]):
            for i in range(classes * classes):
                joint[i] = 0.0
            for m in range(members):
                for c in range(classes):
                    p = mine[j, m, c] / members
                    start = c * classes
                    for other in range(classes):
                        joint[start + other] += p * target[t, m, other]
            log(joint, logged)
            total += dot(joint, logged) - of_mine[j] - of_target[t]
        out[rows[j]] = max(total / target.shape[0], 0.0)


@compiled
def contrast(tile, labelled, neighbours, least, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The mean KL(p_neighbour || p_row) over neighbours (r, k), places in labelled (l, C); p clipped at `least`, made to sum to 1."""
    known = clipped(labelled, least)
    known_log = logs(known)
    mine_log = logs(clipped(tile, least))
    classes, k = tile.shape[1], neighbours.shape[1]
    for j in range(tile.shape[0]):
        total = 0.0
        for i in range(k):
            place = neighbours[j, i]
            for c in range(classes):
                total += known[place, c] * (known_log[place, c] - mine_log[j, c])
        out[rows[j]] = max(total / k, 0.0)


@compiled
def clipped(tile, least):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Rows with every probability raised to `least`, then divided by their sum."""
    out = np.empty(tile.shape)
    for j in range(tile.shape[0]):
        total = 0.0
        for c in range(tile.shape[1]):
            out[j, c] = max(tile[j, c], least)
            total += out[j, c]
        for c in range(tile.shape[1]):
            out[j, c] /= total
    return out


@compiled
def expected_gradient(tile, length, squared, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """|[x, 1]| * sum_c p_c |p - e_c|, or the same of the squares, for vectors x of lengths (n,) float64."""
    for j in range(tile.shape[0]):
        p = tile[j]
        top = 0
        for c in range(1, p.shape[0]):
            if p[c] > p[top]:
                top = c
        others = 0.0  # without the likeliest class, from whose own square nothing then need be taken away
        for c in range(p.shape[0]):
            if c != top:
                others += p[c] * p[c]
        total = 0.0
        for c in range(p.shape[0]):
            rest = others if c == top else others + p[top] * p[top] - p[c] * p[c]
            square = rest + (1.0 - p[c]) * (1.0 - p[c])
            total += p[c] * (square if squared else np.sqrt(square))
        size = length[rows[j]] * length[rows[j]] + 1.0
        out[rows[j]] = total * (size if squared else np.sqrt(size))


@compiled
def information(members, weights, chance, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The mutual information of each row's label and the member, in the mean over states of knowledge.

    members (r, members, C) sum to 1; state k has probability chance[k] and takes member m for right with weights[k, m].
    out (r,).
    """
    count, size, classes = members.shape
    states = weights.shape[0]
    mean = np.empty((states, classes))
    for j in range(count):
        logged = logs(members[j])
        known = np.empty(size)
        for m in range(size):
            known[m] = dot(members[j, m], logged[m])
        for k in range(states):
            for c in range(classes):
                mean[k, c] = 0.0
            for m in range(size):
                for c in range(classes):
                    mean[k, c] += weights[k, m] * members[j, m, c]
        logged_mean = logs(mean)
        total = 0.0
        for k in range(states):
            total += chance[k] * (dot(weights[k], known) - dot(mean[k], logged_mean[k]))
        out[j] = total
