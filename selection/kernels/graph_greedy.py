"""Greedy selection on a graph of rows: by votes, by balls and by the spread of an influence. Whole numbers throughout.

So picks depend neither on the order of a sum nor on how many rows were taken before; ties go to the lowest row, those
of votes to the row with most votes first.
"""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import graph_greedy as loops
from selection.kernels.neighbor_graph import Lists, voters
from selection.types import Doubles, Ints, Mask, Rows, UInts

# Live-edge samples: one a bit of a word, so that all are followed at once.
SAMPLES = 64


def vote_k(
    neighbours: Ints, *, rho: int, taken: Rows, parts: list[Rows], ties_to_votes: bool = True
) -> tuple[Rows, Doubles]:
    """From each part in turn, the row with the highest vote-k score, and that score.

    A row u has the votes of the rows v that are not selected and have u among their neighbours; one counts
    rho ** -(selected rows among the neighbours of v). Ties go to the row with more votes, whatever they count, then to
    the lowest row.

    Args:
        neighbours: (n, k) int32, -1 where there is none.
        rho: >= 2. With s the largest number for which n * rho**s fits into 62 bits, a vote counts nothing that counts
            rho ** -(s + 1) or less of the heaviest vote for a row that is left.
        taken: rows that are already selected.
        parts: the rows to choose from at each pick, of which one at least is not selected; the same array may come
            again.
        ties_to_votes: without it, ties go to the lowest row.

    Cost: a scan of the part and of all rows and about k*k additions a pick; n*k at most k times. Memory: 4 bytes * n *
    k and 32 bytes a row beside the argument.
    """
    n = len(neighbours)
    levels = 0
    while max(n, 1) * rho ** (levels + 1) < 2**62:
        levels += 1
    weight = np.array([rho ** (levels - t) for t in range(levels + 1)] + [0], np.int64)
    lists = voters(neighbours)
    votes = np.diff(lists.starts)
    score = votes * weight[0]
    order = votes if ties_to_votes else np.zeros_like(votes)
    selected, times = np.zeros(n, np.bool_), np.zeros(n, np.int32)
    degree = (neighbours >= 0).sum(axis=1)
    base = 0  # the weights are of votes from times 0, 1, ... after this
    for row in taken.tolist():
        loops.take_vote(row, neighbours, lists.starts, lists.row, weight, selected, times, base, score)
    rows, gain = np.empty(len(parts), np.int64), np.empty(len(parts))
    for i, part in enumerate(parts):
        least = loops.fewest_times(selected, times, degree, base)
        if least > base:
            base = least
            loops.count_votes(neighbours, weight, selected, times, base, score)
        row = loops.best_of(part, score, order, selected)
        rows[i], gain[i] = row, score[row] / weight[0] * float(rho) ** -base
        loops.take_vote(row, neighbours, lists.starts, lists.row, weight, selected, times, base, score)
    return rows, gain


def cover(balls: Lists, budget: int, *, taken: Rows, candidates: Mask) -> tuple[Rows, Doubles]:
    """The row whose ball holds the most rows that no earlier ball holds, again and again, until none adds anything.

    Args:
        balls: the rows within a distance of each, itself included; with each pair both ways.
        budget: at most so many rows.
        taken: rows whose balls count from the start.
        candidates: (n,) the rows that may be picked.

    Returns:
        Rows in pick order, and how many rows the ball of each adds.

    Cost: the edges once, and n comparisons a pick. Memory: 10 bytes a row.
    """
    rows, gain = np.empty(budget, np.int64), np.empty(budget, np.int64)
    count = loops.cover(balls.starts, balls.row, taken, candidates.copy(), rows, gain)
    return rows[:count], gain[:count].astype(np.float64)


def spread(neighbours: Ints, live: UInts, among: Rows, budget: int, *, taken: Rows) -> tuple[Rows, Doubles]:
    """Lazy greedy on the mean number of rows that a selection reaches along live edges.

    Args:
        neighbours: (n, k) int32, where the edges of a row lead; -1 where there is none.
        live: (n, k) bit r of an edge tells whether it is live in sample r of SAMPLES.
        among: candidates.
        budget: 0 .. len(among).
        taken: rows whose reach is taken from the start.

    Returns:
        Rows in pick order, and of each the mean over samples of the rows newly reached. Each sample counts a row once.

    Cost: for each look at a row (all once, then few a pick) the edges of the rows that it reaches in any sample.
    Memory: 48 bytes a row.

    Source: Kempe, Kleinberg and Tardos 2003; lazy greedy Leskovec et al. 2007 (CELF).
    """
    rows, gain = np.empty(budget, np.int64), np.empty(budget, np.int64)
    loops.spread(neighbours, live, among.copy(), taken, rows, gain)
    return rows, gain / SAMPLES
