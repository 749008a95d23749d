from __future__ import annotations

import numpy as np

from selection import Pool, select


def test_top__ties_go_to_the_lowest_row():
    selection = select(["top"], Pool(scores=np.array([1, 3, 2, 3, -0.0, 0.0])), budget=6)
    assert selection.rows.tolist() == [1, 3, 2, 0, 4, 5]
    assert selection.gain.tolist() == [3, 3, 2, 1, 0, 0]
    assert selection.reason.rank.tolist() == [0, 1, 2, 3, 4, 5]
