from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from selection import ArrayVectors
from selection.kernels import duplicates
from selection.kernels.compiled import assign as assign_loops
from selection.kernels.compiled import duplicates as duplicates_loops
from selection.kernels.duplicates import duplicates_in

sys.path.insert(0, str(Path(__file__).parent))
from coverage_cases import hard_vectors

HARD = hard_vectors()


def naive(cosines, fixed, threshold, rule):
    """(row, of, similarity) of every dropped row, by the definition; `cosines` in the order in which rows are wanted."""
    n = len(cosines)
    dropped = {}
    for i in range(fixed, n):
        earlier = [j for j in range(i) if rule != "greedy" or j not in dropped]
        best = max(earlier, key=lambda j: cosines[i, j], default=-1)  # the first of equals
        if best >= 0 and cosines[i, best] > threshold:
            dropped[i] = best
    if rule == "component":
        first = np.arange(n)
        for _ in range(n):
            spread = np.where(cosines > threshold, first, n).min(axis=1).clip(max=first)
            if (spread == first).all():
                break
            first = spread
        dropped = {i: int(first[i]) for i in range(fixed, n) if first[i] != i}
    return [(i, j, cosines[i, j]) for i, j in dropped.items()]


@pytest.mark.parametrize("rule", ["greedy", "reference", "component"])
@pytest.mark.parametrize("name", HARD)
def test_duplicates_in__is_the_definition(name, rule, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK_VALUES", 2000)
    X = HARD[name]
    rows = np.random.default_rng(3).permutation(np.flatnonzero(X.any(axis=1))[:120])
    xs = X[rows].astype(np.float32)
    norm = assign_loops.norms(xs)
    cosines = np.array([[duplicates_loops.cosine(xs, norm, a, b) for b in range(len(rows))] for a in range(len(rows))])
    # Right at the cosine of a pair, and just below it; above all, below all, and between.
    for threshold in (cosines[0, 1], np.nextafter(cosines[0, 1], -2), 1.0, -1.0, 0.97):
        for fixed in (0, 30):
            found = duplicates_in(ArrayVectors(X), rows, fixed=fixed, threshold=threshold, rule=rule)
            expected = [(rows[i], rows[j], c) for i, j, c in naive(cosines, fixed, threshold, rule)]
            assert list(zip(found.row, found.of, found.similarity, strict=True)) == expected
