from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection import InvalidInput, InvalidOption, Pool, Targets, select
from selection.checks import ShuffledVectors
from selection.kernels import round_robin
from selection.selectors import rds_plus
from selection.selectors.rds_plus import RdsPlus

# Similarity of three targets to six rows, computed apart from this code.
S = np.array(
    [
        [0.90, 0.80, 0.70, 0.10, 0.20, 0.30],
        [0.95, 0.60, 0.85, 0.40, 0.10, 0.20],
        [0.50, 0.99, 0.20, 0.60, 0.65, 0.10],
    ]
)
TIES = np.array([[0.9, 0.9, 0.5, 0.4], [0.8, 0.3, 0.3, 0.7]])


def pool_of(similarity, sets=None, **more):
    """A pool whose similarity to its targets is the given matrix: the targets are the axes."""
    m = len(similarity)
    sets = np.zeros(m, int) if sets is None else np.asarray(sets)
    names = tuple(f"T{i}" for i in range(sets.max() + 1))
    return Pool(vectors=similarity.T, targets=Targets(np.eye(m), sets, names), **more)


def picks(selection):
    return list(
        zip(selection.rows.tolist(), selection.reason.rank.tolist(), selection.reason.ref.tolist(), strict=True)
    )


def naive(similarity, budget, on_duplicate, taken=()):
    """The literal simulation: whole lists, one pop after the other."""
    m, n = similarity.shape
    lists = [sorted(range(n), key=lambda row: (-similarity[q, row], row)) for q in range(m)]
    used, out, turn = set(taken), [], 0
    while len(out) < budget:
        q, rank = turn % m, turn // m
        unused = (row for row in lists[q] if row not in used)
        row = next(unused) if on_duplicate == "advance" else lists[q][rank]
        if row not in used:
            used.add(row)
            out.append((row, rank, q))
        turn += 1
    return out


def test_rds_plus__lose_turn_known_answer():
    selection = select(["rds_plus"], pool_of(S), budget=6)
    assert picks(selection) == [(0, 0, 0), (1, 0, 2), (2, 1, 1), (4, 1, 2), (3, 2, 2), (5, 3, 0)]
    np.testing.assert_allclose(selection.gain, [0.9, 0.99, 0.85, 0.65, 0.6, 0.3], rtol=1e-6)
    assert (selection.gain == selection.reason.value).all()
    assert selection.reason.text() == ["T0/0", "T0/2", "T0/1", "T0/2", "T0/2", "T0/0"]
    assert set(selection.reason.kind) == {"target"}


def test_rds_plus__advance_known_answer():
    pool = pool_of(S)
    steps = [{"rds_plus": {"on_duplicate": "advance"}}]
    assert select(steps, pool, budget=6).rows.tolist() == [0, 2, 1, 5, 3, 4]
    assert set(select(steps, pool, budget=4).rows) == {0, 1, 2, 5}
    assert set(select(["rds_plus"], pool, budget=4).rows) == {0, 1, 2, 4}


def test_rds_plus__ties_known_answer():
    assert select(["rds_plus"], pool_of(TIES), budget=4).rows.tolist() == [0, 1, 3, 2]
    assert select([{"rds_plus": {"on_duplicate": "advance"}}], pool_of(TIES), budget=4).rows.tolist() == [0, 3, 1, 2]


def test_rds_plus__target_sets_known_answer():
    pool = pool_of(S, sets=[0, 0, 1])
    selection = select(["rds_plus"], pool, budget=6)
    assert picks(selection) == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (4, 1, 1), (3, 2, 1), (5, 4, 0)]
    assert set(selection.reason.kind) == {"target_set"}
    assert selection.reason.text()[:2] == ["T0", "T1"]
    advance = [{"rds_plus": {"on_duplicate": "advance"}}]
    assert select(advance, pool, budget=6).rows.tolist() == [0, 1, 2, 4, 3, 5]


def test_rds_plus__per_query_ignores_sets():
    selection = select([{"rds_plus": {"per": "query"}}], pool_of(S, sets=[0, 0, 1]), budget=6)
    assert selection.rows.tolist() == [0, 1, 2, 4, 3, 5]
    assert selection.reason.text()[1] == "T1/2"


def test_rds_plus__one_set_as_set_is_the_order_of_rds_max():
    assert select([{"rds_plus": {"per": "set"}}], pool_of(S), budget=6).rows.tolist() == [1, 0, 2, 4, 3, 5]


def test_rds_plus__already_selected_cost_the_turn():
    # Row 0 heads the lists of targets 0 and 1, so in the first round only target 2 names a new row.
    selection = select(["rds_plus"], pool_of(S, already_selected=[0]), budget=2)
    assert picks(selection) == [(1, 0, 2), (2, 1, 1)]


@pytest.mark.parametrize("seed", range(120))
def test_rds_plus__equals_the_literal_simulation(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    n, m, d = int(rng.integers(1, 60)), int(rng.integers(1, 9)), int(rng.integers(1, 12))
    heavy_ties = seed % 2
    x = rng.integers(-2, 3, (n, d)) if heavy_ties else rng.normal(size=(n, d))
    q = rng.integers(-1, 2, (m, d)) if heavy_ties else rng.normal(size=(m, d))
    x, q = x.astype(np.float16 if seed % 3 == 0 else np.float32), q.astype(np.float32)
    if seed % 5 == 0:
        q[rng.integers(m)] = q[0]
    sets = np.concatenate([np.arange(count := min(m, int(rng.integers(1, 4)))), rng.integers(0, count, m - count)])
    # Lists so short and bands so small that every case needs several passes.
    monkeypatch.setattr(round_robin, "LEAST_DEPTH", int(rng.choice([1, 2, 3])))
    monkeypatch.setattr(round_robin, "OVERLAP", 1)
    monkeypatch.setattr(rds_plus, "LIST_BYTES", int(rng.choice([1, rds_plus.ENTRY_BYTES * m * 3, 2**28])))
    taken = rng.permutation(n)[: rng.integers(0, max(1, n // 2))]
    budget = int(rng.integers(1, n - len(taken) + 1))
    similarity = q.astype(np.float64) @ x.astype(np.float64).T
    vectors = ShuffledVectors(x, rng.permutation(n), block_rows=int(rng.integers(1, 30)))
    targets = Targets(q, sets, tuple("abcd"[:count]))
    pool = Pool(vectors=vectors, targets=targets, already_selected=taken)
    for per in ("query", "set"):
        expected = similarity if per == "query" else np.stack([similarity[sets == i].max(0) for i in range(count)])
        for on_duplicate in ("lose_turn", "advance"):
            step = RdsPlus(per=per, on_duplicate=on_duplicate)
            assert picks(select([step], pool, budget=budget)) == naive(expected, budget, on_duplicate, taken)


def naive_within(similarity, pool, budget, on_duplicate, *, cap, most, tokens):
    """Turn by turn: a target whose next free row is of a full group moves on to the next one, in the same turn."""
    n = similarity.shape[1]
    lists = [[row for row in np.lexsort((np.arange(n), -s)) if pool.eligible_rows[row]] for s in similarity]
    groups, talks = pool.columns["source"], pool.columns["talk"]
    cost = pool.columns["n_tokens"] if tokens else np.ones(n)
    taken = set(pool.get_already_selected().tolist())
    used, times, closed, spent = Counter(), Counter(), set(), 0
    for row in taken:
        used[groups[row]] += cost[row]
        times[talks[row]] += 1
    picks, places, turn, quiet = [], [0] * len(lists), 0, 0
    while quiet < len(lists) and spent < budget:
        mine, had = turn % len(lists), False
        while places[mine] < len(lists[mine]) and not had:
            row = int(lists[mine][places[mine]])
            places[mine] += 1
            if row in taken:
                had = on_duplicate == "lose_turn"
                continue
            if most is not None and times[talks[row]] >= most:
                continue
            if cap is not None and (groups[row] in closed or used[groups[row]] >= cap):
                continue
            if cap is not None and used[groups[row]] + cost[row] > cap:
                closed.add(groups[row])
                continue
            if spent + cost[row] > budget:
                return picks
            taken.add(row)
            used[groups[row]] += cost[row]
            times[talks[row]] += 1
            spent += cost[row]
            picks.append((row, turn // len(lists), mine))
            had = True
        quiet = 0 if had else quiet + 1
        turn += 1
    return picks


@pytest.mark.parametrize("seed", range(120))
def test_rds_plus__full_groups_are_passed_over_as_in_the_literal_simulation(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    n, m, d = int(rng.integers(2, 60)), int(rng.integers(1, 8)), int(rng.integers(1, 9))
    x = (rng.integers(-2, 3, (n, d)) if seed % 2 else rng.normal(size=(n, d))).astype(np.float32)
    q = (rng.integers(-1, 2, (m, d)) if seed % 2 else rng.normal(size=(m, d))).astype(np.float32)
    if seed % 5 == 0:
        q[rng.integers(m)] = q[0]
    monkeypatch.setattr(round_robin, "LEAST_DEPTH", int(rng.choice([1, 2, 3])))
    monkeypatch.setattr(round_robin, "OVERLAP", 1)
    monkeypatch.setattr(rds_plus, "LIST_BYTES", int(rng.choice([1, rds_plus.ENTRY_BYTES * m * 3, 2**28])))
    eligible = rng.random(n) < 0.9
    taken = np.flatnonzero(rng.random(n) < 0.15)
    eligible[taken] = True
    columns = {
        "source": rng.choice(np.array(["a", "b", "c"], object), n),
        "talk": rng.choice(np.array([*"uvwxyz"], object), n),
        "n_tokens": rng.integers(0, 9, n).astype(float),
    }
    pool = Pool(
        vectors=ShuffledVectors(x, rng.permutation(n), block_rows=int(rng.integers(1, 30))),
        targets=Targets(q, np.zeros(m, int), ("t",)),
        columns=columns,
        eligible=eligible,
        already_selected=taken,
    )
    pool_rows = SimpleNamespace(
        columns=columns, eligible_rows=eligible, get_already_selected=lambda: np.asarray(taken, np.int64)
    )
    tokens = seed % 3 == 0
    cap = None if seed % 4 == 3 else int(rng.integers(0, 12))
    most = None if cap is not None and seed % 4 == 1 else int(rng.integers(1, 4))
    budget = int(rng.integers(1, n + 1))
    for on_duplicate in ("lose_turn", "advance"):
        selection = select(
            [RdsPlus(on_duplicate=on_duplicate, on_full_group="advance")],
            pool,
            budget={"tokens": budget, "column": "n_tokens"} if tokens else budget,
            quota=None if cap is None else {"by": "source", "caps": cap},
            group_by=None if most is None else "talk",
            max_per_group=most or 1,
            allow_short=True,
        )
        similarity = q.astype(np.float64) @ x.astype(np.float64).T
        expected = naive_within(similarity, pool_rows, budget, on_duplicate, cap=cap, most=most, tokens=tokens)
        assert picks(selection) == expected


def test_rds_plus__a_full_group_costs_no_turn():
    similarity = np.array([[9, 8, 7, 6, 5, 4], [4, 5, 6, 7, 8, 9]])
    columns = {"source": np.array(list("aaabbb"), object)}
    pool = pool_of(similarity, columns=columns)
    within = {"quota": {"by": "source", "caps": 1}, "budget": 2}
    # Target 1 begins with row 5 of group b. With the walk, as without groups, its turn is as good.
    assert select(["rds_plus"], pool, **within).rows.tolist() == [0, 5]
    both = pool_of(np.array([[9, 8, 7, 6, 5, 4], [9, 8, 3, 7, 1, 2]]), columns=columns)
    walk = select(["rds_plus"], both, **within)
    inside = select([{"rds_plus": {"on_full_group": "advance"}}], both, **within)
    # Rows 0 to 2 are of group a. Walking, target 1 loses turns at rows 0, 1; else it takes row 3 in the first round.
    assert [(int(row), int(rank)) for row, rank in zip(walk.rows, walk.reason.rank, strict=True)] == [(0, 0), (3, 2)]
    assert inside.rows.tolist() == [0, 3]
    # The first round: row 0 is taken already, which costs target 1 its turn; in the second it passes row 1.
    assert inside.reason.rank.tolist() == [0, 1]


def test_rds_plus__within_groups_two_draws_are_one():
    rng = np.random.default_rng(3)
    similarity = rng.normal(size=(3, 40))
    columns = {"source": rng.choice(np.array(["a", "b", "c"], object), 40)}
    step = {"rds_plus": {"on_full_group": "advance"}}
    within = {"quota": {"by": "source", "caps": 6}, "allow_short": True}
    whole = select([step], pool_of(similarity, columns=columns), budget=14, **within).rows
    first = select([step], pool_of(similarity, columns=columns), budget=5, **within).rows
    second = select([step], pool_of(similarity, columns=columns, already_selected=first), budget=9, **within).rows
    assert whole.tolist() == [*first.tolist(), *second.tolist()]


def test_lists_by_query__equal_targets_share_a_list():
    lists = rds_plus.lists_by_query(np.array([[1, 0], [0, 1], [1, 0]], np.float32))
    assert lists.queries.tolist() == [[1, 0], [0, 1]]
    assert lists.starts.tolist() == [0, 1, 2]
    assert lists.turns.tolist() == [0, 1, 0]


small = st.integers(-3, 3)


@settings(max_examples=60)
@given(
    data=st.data(), n=st.integers(1, 20), m=st.integers(1, 5), on_duplicate=st.sampled_from(["lose_turn", "advance"])
)
def test_rds_plus__equals_the_literal_simulation_on_any_integers(data, n, m, on_duplicate):
    row = st.lists(small, min_size=2, max_size=2)
    x = np.array(data.draw(st.lists(row, min_size=n, max_size=n)), np.float16)
    q = np.array(data.draw(st.lists(row, min_size=m, max_size=m)), np.float32)
    taken = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n - 1))
    budget = data.draw(st.integers(1, n - len(taken)))
    pool = Pool(vectors=x, targets=Targets(q, np.zeros(m, int), ("t",)), already_selected=np.array(taken, int))
    got = picks(select([RdsPlus(on_duplicate=on_duplicate)], pool, budget=budget))
    assert got == naive(q.astype(float) @ x.astype(float).T, budget, on_duplicate, taken)


def test_rds_plus__filtered_labelled_rows_hold_no_place_in_the_lists():
    labels = np.array([3, -1, -1, -1, -1, -1])
    pool = pool_of(S, labels=labels, columns={"late": np.array([0.0, 1, 1, 1, 1, 1])})
    steps = [{"column": {"field": "late"}}, {"keep_top": {"times": 1}}, "rds_plus"]
    # Row 0 is dropped by the filter but stays in the frame for its label: it must not cost a turn.
    expected = [1 + row for row, *_ in naive(S[:, 1:], 5, "lose_turn")]
    assert select(steps, pool, budget=5).rows.tolist() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_duplicate": "skip"}, "rds_plus: on_duplicate must be one of lose_turn, advance, got 'skip'"),
        ({"on_full_group": "skip"}, "rds_plus: on_full_group must be one of lose_turn, advance, got 'skip'"),
        ({"per": "task"}, "rds_plus: per must be one of auto, query, set, got 'task'"),
    ],
)
def test_rds_plus__bad_options(options, message):
    with pytest.raises(InvalidOption, match=message):
        RdsPlus(**options)


def test_rds_plus__empty_targets_are_an_error():
    vectors = np.ones((3, 2), np.float32)
    none = Targets(np.zeros((0, 2)), np.zeros(0, int), ("a",))
    with pytest.raises(InvalidInput, match="targets: there are none"):
        select(["rds_plus"], Pool(vectors=vectors, targets=none), budget=1)
    unused = Targets(np.ones((1, 2)), np.zeros(1, int), ("a", "b"))
    with pytest.raises(InvalidInput, match="the set 'b' has none"):
        select(["rds_plus"], Pool(vectors=vectors, targets=unused), budget=1)
