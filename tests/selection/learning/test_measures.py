"""How good a classifier is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.errors import InvalidInput
from selection.learning.measures import roc_auc

ROWS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30)


@given(ROWS.filter(lambda rows: len({positive for _, positive in rows}) == 2))
def test_roc_auc__is_the_share_of_pairs_in_the_right_order(rows: list[tuple[int, bool]]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a, positive in rows if positive for b, other in rows if not other]
    scores, positive = zip(*rows, strict=True)
    assert roc_auc(scores, positive) == pytest.approx(np.mean(pairs))


def test_roc_auc__needs_rows_of_both_kinds() -> None:
    with pytest.raises(InvalidInput, match="rows of both kinds, got 2 positive, 0 not"):
        roc_auc([1, 2], [True, True])
