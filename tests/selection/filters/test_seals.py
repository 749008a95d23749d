from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidOption, Pool
from selection.filters.seals import Seals
from selection.kernels.anchor_search import nearest_of
from tests.selection.filters.retrieval_cases import LABELLED, LABELS, POOL, circle, clustered, naive, on_circle

RNG = np.random.default_rng([0, 0, 0, 1])


def test_seals__known_answers():
    assert sorted(Seals(n_neighbors=3).keep(circle(), 1, rng=RNG)) == [0, 1, 2, 3, 4, 5]
    later = Pool(
        vectors=on_circle(POOL + LABELLED),
        labels=np.array([-1] * 5 + [0] + [-1] * 2 + LABELS),
        already_selected=[5, 8, 9, 10],
    )
    assert nearest_of(later.get_vectors(), np.array([5]), 3, later.candidates).row.tolist() == [4, 3, 6]
    assert sorted(Seals(n_neighbors=3).keep(later, 1, rng=RNG)) == [0, 1, 2, 3, 4, 6]


@pytest.mark.parametrize("rows", [None, 5, 60])
def test_seals__is_the_definition(rows):
    pool = clustered()
    labelled = np.flatnonzero(pool.get_labels() >= 0).tolist()
    kept = Seals(n_neighbors=4, rows=rows).keep(pool, 1, rng=RNG)
    assert sorted(kept.tolist()) == sorted(naive(pool, labelled, 4, rows or 540, "max", False))


def test_seals__without_labels():
    pool = clustered(labelled=0)
    assert len(Seals().keep(pool, 1, rng=RNG)) == 600
    assert len(Seals(rows=20).keep(pool, 1, rng=RNG)) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 0}, "seals: n_neighbors must be an integer >= 1, got 0"),
        ({"rows": 0}, "seals: rows must be an integer >= 1, got 0"),
        ({"rows": 2.5}, "seals: rows must be an integer >= 1, got 2.5"),
    ],
)
def test_seals__options_out_of_range_are_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        Seals(**options)
