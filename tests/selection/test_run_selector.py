from __future__ import annotations

import numpy as np

from selection import Pool, Reason, Selection, build_step
from selection.run_selector import interleaved, select_in_strata


def test_interleaved__names_of_all_parts_and_rows_of_the_pool():
    def part(rows, kind, ref, names=()):
        reason = Reason.of(kind, len(rows), ref=np.array(ref), names=names)
        return Selection(np.array(rows), np.zeros(len(rows), np.float32), reason)

    both = interleaved(
        [part([5, 6], "stratum", [1, 0], ("x", "y")), part([7], "stratum", [0], ("z",)), part([9], "centre", [3])]
    )
    assert both.rows.tolist() == [5, 7, 9, 6]
    assert both.reason.text() == ["y", "z", None, "x"]
    assert both.reason.ref.tolist() == [1, 2, 3, 0]


def test_interleaved__each_draw_is_spread_over_the_whole():
    def part(rows):
        return Selection(np.array(rows), np.zeros(len(rows), np.float32), Reason.of("draw", len(rows)))

    assert interleaved([part([0, 1]), part([2, 3, 4, 5])]).rows.tolist() == [2, 0, 3, 4, 1, 5]
    assert interleaved([part([0]), part([1])]).rows.tolist() == [0, 1]
    assert interleaved([]).rows.tolist() == []


def test_select_in_strata__reasons_are_the_strata():
    pool = Pool(scores=[0.1, 0.9, 0.5, 0.7])
    rng = np.random.default_rng(0)
    strata = [(0, np.array([0, 1]), 1, rng), (2, np.array([2, 3]), 2, rng)]
    picked = select_in_strata(build_step("top"), pool, strata, ("a", "b", "c"))
    assert picked.rows.tolist() == [3, 1, 2]
    assert picked.reason.text() == ["c", "a", "c"]
    assert picked.reason.rank.tolist() == [0, 0, 1]
    assert picked.reason.value.tolist() == picked.gain.tolist() == pool.get_scores()[picked.rows].tolist()
