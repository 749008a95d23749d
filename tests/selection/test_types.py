from __future__ import annotations

import numpy as np

from selection import Reason
from selection.types import RetrievedRows


def test_reason__rows_are_translated_and_names_are_not():
    reason = Reason.of("anchor", 2, ref=[1, -1]).translated(np.array([10, 20]))
    assert reason.ref.tolist() == [20, -1]
    named = Reason.of("target", 2, ref=[1, 0], names=("a", "b")).translated(np.array([10, 20]))
    assert named.ref.tolist() == [1, 0]
    assert named.text() == ["b", "a"]


def test_found__is_told_of_the_rows_asked_for_in_their_order():
    found = RetrievedRows("anchors", np.array([5, 2, 9]), Reason.of("anchor", 3, ref=np.array([50, 20, 90])))
    asked = found.of(np.array([9, 3, 2, 11]))  # nothing is told of 3 and 11
    assert (asked.rows.tolist(), asked.reason.ref.tolist()) == ([9, 2], [90, 20])
