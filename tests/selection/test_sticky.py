"""Draws that give up at most a part of an earlier selection, beside a plain reference that counts everything anew."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection import InvalidOption, Pool, Sticky, select
from selection.trace import Trace

QUOTAS = [
    None,
    {"by": "source", "shares": {"a": 0.5, "b": 0.3, "rest": 0.2}},
    {"by": "source", "shares": {"a": 0.6, "b": 0.4}},
    {"by": "source", "caps": 0.4},
    {"by": "source", "caps": {"a": 3}},
    {"by": "source", "balance": "water_fill"},
]


def sticky(rows, max_churn=0.1) -> Sticky:
    rows = np.array(rows, np.int64)
    return Sticky(rows, np.arange(len(rows), dtype=np.float32), max_churn)


def reports(selection) -> dict[int, tuple[str, int | str | None, float]]:
    """Row -> what the layer says of it: kind, row or name that it refers to, value."""
    lines = {}
    for report in (*selection.retrieved, *selection.dropped):
        if report.step == "sticky":
            names = report.reason.text()
            for i, row in enumerate(report.rows.tolist()):
                assert row not in lines
                ref = names[i] if names[i] is not None else int(report.reason.ref[i])
                lines[row] = (str(report.reason.kind[i]), ref, float(report.reason.value[i]))
    return lines


def kinds(selection) -> dict[str, list[int]]:
    return {
        kind: [row for row, line in reports(selection).items() if line[0] == kind]
        for kind in ("stays", "kept", "replaces", "fills", "replaced", "no_place", "held_back")
    }


SCORED = Pool(scores=np.arange(10.0) / 10)


@pytest.mark.parametrize(
    ("max_churn", "rows"),
    [
        (0, [8, 7, 2, 1, 0]),
        (0.19, [8, 7, 2, 1, 0]),  # 0.95 rows are none
        (0.2, [9, 8, 7, 2, 1]),
        (0.4, [9, 8, 7, 6, 2]),
        (0.6, [9, 8, 7, 6, 5]),
        (1, [9, 8, 7, 6, 5]),
    ],
)
def test_sticky__the_best_new_rows_take_the_place_of_the_least_wanted(max_churn: float, rows: list[int]) -> None:
    assert select("top", SCORED, budget=5, sticky=sticky([0, 1, 2, 8, 7], max_churn)).rows.tolist() == rows


def test_sticky__says_of_each_row_why() -> None:
    chosen = select("top", SCORED, budget=5, sticky=sticky([0, 1, 2, 8, 7], 0.2))
    nan = pytest.approx(math.nan, nan_ok=True)
    assert reports(chosen) == {
        9: ("replaces", 0, nan),
        8: ("stays", -1, 4),
        7: ("stays", -1, 5),
        2: ("kept", -1, 3),
        1: ("kept", -1, 2),
        0: ("replaced", 9, nan),
        6: ("held_back", -1, 4),
        5: ("held_back", -1, 5),
    }
    assert chosen.reason.kind.tolist() == ["score", "score", "score", "kept", "kept"]
    assert chosen.gain.tolist() == pytest.approx([0.9, 0.8, 0.7, 2, 1])  # those held have the gain of back then


def test_sticky__rows_that_may_not_stay_leave_and_do_not_count() -> None:
    eligible = np.ones(10, bool)
    eligible[[0, 1]] = False
    chosen = select("top", Pool(scores=SCORED.scores, eligible=eligible), budget=5, sticky=sticky([0, 1, 2, 8, 7], 0))
    assert chosen.rows.tolist() == [9, 8, 7, 6, 2]
    assert kinds(chosen) == {
        "stays": [8, 7],
        "kept": [2],
        "fills": [9, 6],
        "held_back": [5],
        "replaced": [],
        "replaces": [],
        "no_place": [],
    }


def test_sticky__a_smaller_budget_drops_what_is_wanted_least() -> None:
    chosen = select("top", SCORED, budget=3, sticky=sticky([0, 1, 2, 8, 7], 0))
    assert chosen.rows.tolist() == [8, 7, 2]
    assert [reports(chosen)[row] for row in (1, 0)] == [
        ("no_place", "budget", pytest.approx(math.nan, nan_ok=True))
    ] * 2


def test_sticky__rows_that_a_filter_drops_are_wanted_least_the_last_of_them_first() -> None:
    steps = [{"keep_top": {"times": 1}}, "top"]
    pool = Pool(scores=SCORED.scores)
    chosen = select(steps, pool, budget=4, sticky=sticky([1, 3, 2, 9], 0.25))
    assert chosen.rows.tolist() == [9, 8, 1, 3]
    assert reports(chosen)[2][:2] == ("replaced", 8)


def test_sticky__a_contaminated_row_leaves_whatever_the_churn() -> None:
    texts = [f"{word} lines about {word} and more of it" for word in ("cats", "dogs", "birds", "fish", "frogs", "owls")]
    pool = Pool(scores=np.arange(6.0), texts=texts, target_questions=[texts[1]])
    assert select(["decontaminate", "top"], pool, budget=2, sticky=sticky([1, 0], 0)).rows.tolist() == [5, 0]


PROMPTS = {"prompt": np.array(["p", "q", "r", "s", "t", "u", "v", "p"], object), "reward": np.array([2.0, *[1] * 7])}
BEST_OF = [{"best_of": {"by": "prompt", "score": "reward"}}, "top"]


@pytest.mark.parametrize(("max_churn", "rows"), [(0, [7, 6, 5]), (0.4, [0, 6, 5]), (0.7, [0, 1, 6]), (1, [0, 1, 2])])
def test_sticky__a_row_stays_only_without_the_one_that_a_filter_keeps_for_it(max_churn: float, rows: list[int]) -> None:
    pool = Pool(scores=np.array([9, 8, 7, 0, 1, 2, 3, 4.0]), columns=PROMPTS)
    chosen = select(BEST_OF, pool, budget=3, sticky=sticky([7, 6, 5], max_churn))
    assert sorted(chosen.rows.tolist()) == sorted(rows)
    # Row 7 is left out for row 0, so it is row 0 that takes its place; only then does the filter's report name it.
    assert reports(chosen).get(0, ("",))[0] == ("replaces" if 0 in rows else "held_back")
    assert chosen.dropped[0].rows.tolist() == ([] if 7 in rows else [7])


def test_sticky__of_a_row_and_the_one_kept_for_it_that_were_both_taken_one_leaves() -> None:
    pool = Pool(scores=np.array([9, 8, 7, 0, 1, 2, 3, 4.0]), columns=PROMPTS)
    chosen = select(BEST_OF, pool, budget=3, sticky=sticky([7, 0, 6], 0))
    assert chosen.rows.tolist() == [0, 1, 6]
    assert reports(chosen)[7][:2] == ("no_place", "substitute")


def test_sticky__a_budget_that_only_more_change_can_fill_is_filled() -> None:
    # Of source b only row 2 is left, which `best_of` keeps in the place of row 0; row 0 keeps row 1 out.
    columns = {
        "source": np.array(list("aabb"), object),
        "prompt": np.array(["p", "q", "p", "r"], object),
        "reward": np.array([1.0, 1, 2, 1]),
    }
    pool = Pool(scores=np.array([1, 2, 3, 4.0]), columns=columns, eligible=[True, True, True, False])
    quota = {"by": "source", "shares": {"a": 0.5, "b": 0.5}}
    chosen = select(BEST_OF, pool, budget=2, quota=quota, sticky=sticky([0, 3], 0))
    assert sorted(chosen.rows.tolist()) == [1, 2]
    assert reports(chosen)[0][:2] == ("no_place", "quota")


def test_sticky__an_exchange_stays_within_the_group_that_is_full() -> None:
    pool = Pool(scores=SCORED.scores, columns={"source": np.array(list("ababababab"), object)})
    quota = {"by": "source", "shares": {"a": 0.5, "b": 0.5}}
    chosen = select("top", pool, budget=4, quota=quota, sticky=sticky([0, 2, 1, 3], 0.25))
    assert sorted(chosen.rows.tolist()) == [1, 2, 3, 8]
    assert reports(chosen)[8][:2] == ("replaces", 0)


def test_sticky__max_churn_is_a_share() -> None:
    for wrong in (-0.1, 1.5, math.nan, True, "much"):
        with pytest.raises(InvalidOption, match="max_churn must be"):
            sticky([0], wrong)


# --- a plain reference ------------------------------------------------------------


class Reference:
    """The rules as the documentation has them. Every question is answered by counting all rows chosen so far."""

    def __init__(self, pool, fresh, order, last, budget, max_churn, quota, talks) -> None:
        self.cost = pool.columns["n_tokens"].tolist() if isinstance(budget, dict) else [1] * len(pool)
        self.in_rows, total = not isinstance(budget, dict), budget["tokens"] if isinstance(budget, dict) else budget
        self.rules = [(lambda row: "all", self.cost, {"all": sum(self.cost[row] for row in fresh)})]
        if quota is not None:
            source = pool.columns["source"].tolist()
            self.rules.append((lambda row: source[row], self.cost, self.most(quota, source, fresh, total)))
        if talks:
            talk = pool.columns["talk"].tolist()
            self.rules.append((lambda row: talk[row], [1] * len(pool), dict.fromkeys(set(talk) - {None}, 2)))
        self.limit = math.floor(Fraction(str(max_churn)) * total)
        self.fresh, self.new = fresh, [row for row in fresh if row not in last]
        self.chosen = [row for row in fresh if row in last]
        self.held = []
        self.order = [row for row in order if row in last and row not in fresh]

    def most(self, quota, source, fresh, total) -> dict:
        names = [name if name is not None else "null" for name in source]
        if "caps" not in quota:
            taken = Counter()
            for row in fresh:
                taken[source[row]] += self.cost[row]
            if "shares" in quota and "rest" in quota["shares"]:
                return {name: taken[name] for name in ("a", "b")} | {"rest": taken["c"] + taken[None]}
            return {name: taken[name] for name in set(source)}
        caps = quota["caps"]
        caps = caps if isinstance(caps, dict) else dict.fromkeys(set(names), caps)
        return {
            (None if name == "null" else name): cap if cap >= 1 else math.floor(Fraction(str(cap)) * total)
            for name, cap in caps.items()
        }

    def full(self, rows) -> list:
        """The rules that some rows break, each with the group."""
        broken = []
        for rule in self.rules:
            _, cost, most = rule
            name = self.named(rule, rows[-1])
            if name in most and sum(cost[row] for row in rows if self.named(rule, row) == name) > most[name]:
                broken.append((rule, name))
        return broken

    @staticmethod
    def named(rule, row):
        group, _, most = rule
        name = group(row)
        return "rest" if "rest" in most and name not in most else name

    def taken(self) -> list:
        return self.chosen + self.held

    def come(self, row, spend) -> float | None:
        leaving = []
        while broken := self.full([each for each in self.taken() if each not in leaving] + [row]):
            if not leaving:
                first = broken
            able = [
                each
                for each in self.held
                if each not in leaving and all(self.named(rule, each) == name for rule, name in first)
            ]
            if not able:
                return None
            leaving.append(able[-1])
        spent = sum(self.cost[each] for each in leaving)
        if leaving and spent > spend:
            return None
        self.held = [each for each in self.held if each not in leaving]
        self.chosen.append(row)
        return spent

    def answer(self) -> set:
        for row in self.order:
            if not self.full([*self.taken(), row]):
                self.held.append(row)
        if sum(self.cost[row] for row in self.held) <= self.limit:
            return set(self.fresh)
        waiting = []
        for row in self.new:
            spent = self.come(row, self.limit)
            if spent is None:
                waiting.append(row)
            else:
                self.limit -= spent
        waiting = [row for row in waiting if self.come(row, -1) is None]
        while self.in_rows and len(self.taken()) < len(self.fresh):
            row = waiting.pop(0)
            while broken := self.full([*self.taken(), row]):
                rule, name = broken[0]
                self.held.remove([each for each in self.held if self.named(rule, each) == name][-1])
            self.chosen.append(row)
            waiting = [row for row in waiting if self.come(row, -1) is None]
        return set(self.taken())


@st.composite
def cases(draw):
    n = draw(st.integers(8, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns = {
        "source": np.concatenate([["a", "b"], rng.choice(np.array(["a", "b", "c", None], object), n - 2)]),
        "talk": rng.choice(np.array([*"uvwxyz", None], object), n),
        "n_tokens": rng.integers(0, 9, n),
    }
    pool = Pool(columns=columns, scores=rng.integers(0, 12, n).astype(float), eligible=rng.random(n) < 0.8)
    last = rng.permutation(n)[: draw(st.integers(0, n))].tolist()
    budget = draw(st.one_of(st.integers(1, 12), st.integers(1, 60).map(lambda t: {"tokens": t, "column": "n_tokens"})))
    return pool, last, budget, draw(st.sampled_from([0, 0.1, 0.25, 0.5, 0.75, 1])), draw(st.sampled_from(QUOTAS))


@given(case=cases(), talks=st.booleans(), keep=st.sampled_from([None, 1, 2]))
@settings(max_examples=300, deadline=None)
def test_sticky__is_what_the_plain_reference_gives(case, talks, keep) -> None:
    pool, last, budget, max_churn, quota = case
    groups = {"group_by": "talk", "max_per_group": 2} if talks else {}
    steps = ["top"] if keep is None else [{"keep_top": {"times": keep}}, "top"]
    options = {"budget": budget, "quota": quota, "allow_short": True, **groups}
    trace = Trace()
    fresh = select(steps, pool, **options, trace=trace)
    chosen = select(steps, pool, **options, sticky=sticky(last, max_churn))

    able = [row for row in last if pool.candidates[row]]
    left_out = {row for _, rows in trace.dropped for row in rows.tolist()}
    ranked = sorted(range(len(pool)), key=lambda row: (-pool.scores[row], row))
    order = [row for row in ranked if row not in left_out] + [row for row in able if row in left_out]
    reference = Reference(pool, fresh.rows.tolist(), order, able, budget, max_churn, quota, talks)
    assert set(chosen.rows.tolist()) == reference.answer()


@given(case=cases(), talks=st.booleans())
@settings(max_examples=150, deadline=None)
def test_sticky__keeps_its_promises(case, talks) -> None:
    pool, last, budget, max_churn, quota = case
    options = {"budget": budget, "quota": quota, "allow_short": True, "group_by": "talk" if talks else None}
    fresh = select("top", pool, **options)
    chosen = select("top", pool, **options, sticky=sticky(last, max_churn))
    cost = pool.columns["n_tokens"] if isinstance(budget, dict) else np.ones(len(pool), int)
    amount = budget["tokens"] if isinstance(budget, dict) else budget
    lines, of_kind = reports(chosen), kinds(chosen)

    assert len(set(chosen.rows.tolist())) == len(chosen.rows)
    assert pool.candidates[chosen.rows].all()
    assert cost[chosen.rows].sum() <= cost[fresh.rows].sum()
    if not isinstance(budget, dict):
        assert len(chosen.rows) == len(fresh.rows)
    assert cost[of_kind["replaced"]].sum() <= Fraction(str(max_churn)) * amount
    # Each row of either selection is told of once.
    assert set(lines) == set(fresh.rows.tolist()) | {row for row in last if pool.candidates[row]}
    taken = of_kind["stays"] + of_kind["kept"] + of_kind["replaces"] + of_kind["fills"]
    assert sorted(taken) == sorted(chosen.rows.tolist())
    assert all(lines[ref][0] == "replaces" for _, ref, _ in (lines[row] for row in of_kind["replaced"]) if ref != -1)
    if max_churn == 1:
        np.testing.assert_array_equal(chosen.rows, fresh.rows)
        np.testing.assert_array_equal(chosen.gain, fresh.gain)
        np.testing.assert_array_equal(chosen.reason.kind, fresh.reason.kind)
    if talks:
        assert max(Counter(filter(None, pool.columns["talk"][chosen.rows].tolist())).values(), default=0) <= 1
    if quota is not None and not isinstance(budget, dict) and "caps" not in quota:
        sources = pool.columns["source"]
        named = {"a", "b"} if "shares" in quota else set(sources.tolist())
        ours, theirs = (Counter(s for s in sources[rows].tolist() if s in named) for rows in (chosen.rows, fresh.rows))
        assert ours == theirs
