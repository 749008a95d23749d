"""`rds_plus` under caps, shares and token budgets, against a turn-by-turn simulation in exact integers.

The simulation is written from the documentation alone and shares no code with the package.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from math import floor

import numpy as np
import pytest

from selection import InvalidBudget, Pool, Targets, select
from selection.kernels import round_robin
from selection.vectors import ArrayVectors

CASES = 32
"""Of each kind, each with the four combinations of `on_duplicate` and `on_full_group`."""

CHOICES = list(product(["lose_turn", "advance"], repeat=2))
SET_NAMES = ("maths", "code", "law")


@dataclass
class Group:
    """What one group may still take; a row that does not fit closes it."""

    left: int
    closed: bool = False

    def __post_init__(self):
        self.closed = self.left <= 0

    def take(self, cost):
        self.left -= cost
        self.closed = self.left <= 0


@dataclass
class Case:
    """A pool of small integer vectors, whose inner products and cosines are exact, and what is asked of it."""

    vectors: list[list[int]]
    targets: list[list[int]]
    sets: list[int]
    set_names: tuple[str, ...]
    per: str
    cosine: bool
    budget: int
    tokens: list[int] | None = None
    source: list[str | None] = field(default_factory=list)
    conversation: list[int | None] = field(default_factory=list)
    quota: dict | None = None
    max_per_group: int | None = None
    already: list[int] = field(default_factory=list)
    eligible: list[bool] = field(default_factory=list)

    def pool(self):
        vectors = np.array(self.vectors, np.float32)
        return Pool(
            vectors=ArrayVectors(vectors, block_rows=5),
            targets=Targets(np.array(self.targets, np.float32), np.array(self.sets), self.set_names),
            unit_length=self.cosine,
            columns={
                "source": np.array(self.source, object),
                "conversation": np.array(self.conversation, object),
                "n_tokens": np.array(self.tokens or [1] * len(vectors)),
            },
            already_selected=self.already,
            eligible=np.array(self.eligible),
        )

    def select(self, on_duplicate, on_full_group, *, allow_short):
        options = {"on_duplicate": on_duplicate, "on_full_group": on_full_group, "per": self.per}
        return select(
            {"rds_plus": options},
            self.pool(),
            budget={"tokens": self.budget, "column": "n_tokens"} if self.tokens else self.budget,
            allow_short=allow_short,
            quota=self.quota,
            group_by="conversation" if self.max_per_group else None,
            max_per_group=self.max_per_group or 1,
        )

    def cost(self, row):
        return self.tokens[row] if self.tokens else 1

    def total(self):
        """The budget together with what is selected already: parts of a budget are of this."""
        return self.budget + sum(self.cost(row) for row in self.already)

    def lists(self):
        """The name of each list and {row: similarity}."""
        length = 2 if self.cosine else 1  # of every vector that is not zero, where cosines are asked for
        similarity = [
            [Fraction(sum(a * b for a, b in zip(target, x, strict=True)), length**2) for x in self.vectors]
            for target in self.targets
        ]
        if self.per == "set" or (self.per == "auto" and len(self.set_names) > 1):
            members = [[s for s, of in zip(similarity, self.sets, strict=True) if of == i] for i in range(3)]
            names = [("target_set", name) for name in self.set_names]
            values = [[max(column) for column in zip(*of, strict=True)] for of in members if of]
        else:
            names = [("target", f"{self.set_names[of]}/{i}") for i, of in enumerate(self.sets)]
            values = similarity
        return [(*name, dict(enumerate(value))) for name, value in zip(names, values, strict=True)]


def parse_cap(cap, total):
    return floor(Fraction(str(cap)) * total) if isinstance(cap, float) else cap


def capped_groups(case):
    """For each row the groups that limit it: conversation, source, the whole."""
    conversations = {value: Group(case.max_per_group or 0) for value in case.conversation}
    for row in case.already:
        conversations[case.conversation[row]].take(1)

    caps = (case.quota or {}).get("caps")
    names = [str(value) if value is not None else "null" for value in case.source]
    if isinstance(caps, dict):
        names = [name if name in caps else "rest" for name in names]
        sources = {name: Group(parse_cap(cap, case.total())) for name, cap in caps.items()}
    elif caps is not None:
        sources = {name: Group(parse_cap(caps, case.total())) for name in set(names)}
    else:
        sources = {}
    for row in case.already:
        if names[row] in sources:
            sources[names[row]].take(case.cost(row))

    def limits(row, whole):
        by_conversation = case.max_per_group and case.conversation[row] is not None
        first = [conversations[case.conversation[row]]] if by_conversation else []
        second = [sources[names[row]]] if names[row] in sources else []
        return [*((group, 1) for group in first), *((group, case.cost(row)) for group in (*second, whole))]

    return limits


def fits(limits):
    """Whether a row fits into all its groups; the first that it overflows is closed."""
    if any(group.closed for group, _ in limits):
        return False
    for group, cost in limits:
        if cost > group.left:
            group.closed = True
            return False
    return True


def round_robin_picks(lists, rows, taken, limits, whole, on_duplicate, on_full_group):
    """[(row, round, list, similarity)], one turn after the other."""
    waiting = [sorted(rows, key=lambda row: (-value[row], row)) for _, _, value in lists]
    taken = set(taken)
    picks = []

    def turn(turns, place):
        queue = waiting[place]
        while queue and not whole.closed:
            row = queue.pop(0)
            if row in taken:
                if on_duplicate == "lose_turn":
                    return
            elif fits(limits(row, whole)):
                for group, cost in limits(row, whole):
                    group.take(cost)
                taken.add(row)
                picks.append((row, turns, lists[place][:2], lists[place][2][row]))
                return
            elif on_full_group == "lose_turn":
                taken.add(row)  # as in the order without groups, where this turn took it
                return

    turns = 0
    while any(waiting) and not whole.closed:
        for place in range(len(lists)):
            turn(turns, place)
        turns += 1
    return picks


def simulate(case, on_duplicate, on_full_group):
    """The picks, and whether they are as many rows as were asked for; true of tokens."""
    limits = capped_groups(case)
    candidates = [row for row in range(len(case.vectors)) if case.eligible[row] and row not in case.already]
    if case.quota is None or "caps" in case.quota:
        frame, whole = {*candidates, *case.already}, Group(case.budget)
        picks = round_robin_picks(case.lists(), frame, case.already, limits, whole, on_duplicate, on_full_group)
        return picks, case.tokens is not None or len(picks) == case.budget
    parts = divide(case, candidates)
    if parts is None:
        return [], False
    spread, taken, complete = [], set(case.already), True
    for place, (name, part) in enumerate(sorted(parts.items())):
        frame = {row for row in candidates if case.source[row] == name} | taken
        picks = round_robin_picks(case.lists(), frame, taken, limits, Group(part), on_duplicate, on_full_group)
        taken |= {pick[0] for pick in picks}
        complete = complete and (case.tokens is not None or len(picks) == part)
        spread += [((i + 0.5) / len(picks), place, pick) for i, pick in enumerate(picks)]
    return [pick for _, _, pick in sorted(spread, key=lambda item: item[:2])], complete


def divide(case, candidates):
    """{group: its part} of the budget, None if the groups cannot give it."""
    room = Counter()
    for row in candidates:
        room[case.source[row]] += case.cost(row)
    have = Counter(case.source[row] for row in case.already)
    parts = dict.fromkeys(sorted(set(case.source)), 0)
    if case.budget > sum(room.values()):
        return None
    if "balance" in case.quota:
        for _ in range(case.budget):
            least = min((n for n in parts if parts[n] < room[n]), key=lambda n: have[n] + parts[n])
            parts[least] += 1
        return parts
    exact = {name: Fraction(str(share)) * case.budget for name, share in sorted(case.quota["shares"].items())}
    parts = {name: floor(part) for name, part in exact.items()}
    largest = sorted(exact, key=lambda name: parts[name] - exact[name])
    for name in largest[: case.budget - sum(parts.values())]:
        parts[name] += 1
    return parts if all(part <= room[name] for name, part in parts.items()) else None


def draw_vectors(rng, count, *, cosine):
    """Integers with many ties: duplicates, zeros and, for cosines, rows of length 2."""
    if not cosine:
        return rng.integers(-1, 3, (count, 3)).tolist()
    signs = rng.choice([-1, 1], (count, 4))
    axes = 2 * np.eye(4, dtype=int)[rng.integers(4, size=count)] * rng.choice([-1, 1], (count, 1))
    return np.where(rng.random((count, 1)) < 0.5, signs, np.where(rng.random((count, 1)) < 0.8, axes, 0)).tolist()


def draw_case(rng, kind):
    n = int(rng.choice([rng.integers(1, 6), rng.integers(6, 16), 50], p=[0.1, 0.8, 0.1]))
    m = int(rng.integers(1, 6))
    cosine = bool(rng.integers(2))
    count = int(rng.integers(1, min(m, 3) + 1))
    case = Case(
        vectors=draw_vectors(rng, n, cosine=cosine),
        targets=draw_vectors(rng, m, cosine=cosine),
        sets=rng.permutation([*range(count), *rng.integers(count, size=m - count)]).tolist(),
        set_names=SET_NAMES[:count],
        per=str(rng.choice(["auto", "query", "set"])),
        cosine=cosine,
        budget=int(rng.integers(1, n + 3)),
        source=rng.choice(["b", "a", "c"], n, p=[0.6, 0.2, 0.2]).tolist(),
        conversation=[None if value == 0 else int(value) for value in rng.integers(0, max(4, n // 2), n)],
        eligible=(rng.random(n) < 0.9).tolist(),
    )
    if rng.integers(2):
        case.already = sorted(rng.choice(n, rng.integers(0, n // 3 + 1), replace=False).tolist())
    if rng.integers(2):
        case.max_per_group = int(rng.integers(1, 3))
    if kind == "tokens":
        case.tokens = rng.integers(1, 6, n).tolist()
        case.budget = int(rng.integers(1, 3 * n + 2))
    if kind != "divided":
        draw_caps(rng, case)
        return case
    case.budget = int(rng.integers(1, n // 2 + 2))  # more is seldom what all groups can give
    if rng.integers(2):
        case.quota = {"by": "source", "balance": "water_fill"}
    else:
        case.already = []
        case.quota = {"by": "source", "shares": draw_shares(rng, sorted(set(case.source)))}
        if rng.integers(2):
            case.tokens = rng.integers(1, 6, n).tolist()
            case.budget *= 2
    return case


def draw_caps(rng, case):
    case.source = [None if rng.random() < 0.1 else name for name in case.source]
    most = 6 if case.tokens is None else 15

    def cap():
        return int(rng.integers(1, most)) if rng.integers(2) else float(rng.choice([0.25, 0.29, 0.5]))

    if rng.random() < 0.4:
        case.quota = {"by": "source", "caps": cap()}
    elif rng.random() < 0.6:
        known = sorted({name or "null" for name in case.source})
        named = [name for name in known if rng.integers(2)] or known[:1]
        case.quota = {"by": "source", "caps": {name: cap() for name in [*named, *["rest"][: rng.integers(2)]]}}


def draw_shares(rng, names):
    tenths = rng.multinomial(10 - len(names), np.ones(len(names)) / len(names)) + 1
    return {name: int(part) / 10 for name, part in zip(names, tenths, strict=True)}


def as_picks(result):
    """What a selection says of each pick, in the form of the simulation."""
    reason = result.reason
    names = [(str(kind), reason.names[ref]) for kind, ref in zip(reason.kind, reason.ref, strict=True)]
    np.testing.assert_array_equal(result.gain, reason.value)
    return list(zip(result.rows.tolist(), reason.rank.tolist(), names, reason.value.tolist(), strict=True))


def check(case, on_duplicate, on_full_group):
    """Compare a selection with its simulation; return how many picks there are."""
    picks, complete = simulate(case, on_duplicate, on_full_group)
    if not complete:
        with pytest.raises(InvalidBudget):
            case.select(on_duplicate, on_full_group, allow_short=False)
        if "shares" in (case.quota or {}) or "balance" in (case.quota or {}):
            return 0  # how the groups share what they cannot give is not of interest here
    result = case.select(on_duplicate, on_full_group, allow_short=not complete or case.tokens is not None)
    assert as_picks(result) == picks
    assert case.tokens or result.exhausted == (not complete)
    return len(picks)


@pytest.fixture(params=["long lists", "short lists"])
def depth(request, monkeypatch):
    """Short lists need many passes over the vectors; the picks are the same."""
    if request.param == "short lists":
        monkeypatch.setattr(round_robin, "LEAST_DEPTH", 1)
        monkeypatch.setattr(round_robin, "OVERLAP", 1)
    return request.param


@pytest.mark.parametrize("kind", ["caps", "tokens", "divided"])
def test_each_pick_and_its_reason_is_that_of_the_simulation(kind, depth):
    count = 0
    for seed in range(depth == "short lists", CASES, 2):
        case = draw_case(np.random.default_rng([seed, len(kind)]), kind)
        for choice in CHOICES:
            count += check(case, *choice)
    assert count > CASES * len(CHOICES) / 2  # the cases are not all empty


def similarity_case(similarity, sets, **constraints):
    """A case of one list of similarities for each target."""
    rows = len(similarity[0])
    return Case(
        vectors=[list(column) for column in zip(*similarity, strict=True)],
        targets=np.eye(len(similarity), dtype=int).tolist(),
        sets=sets,
        set_names=SET_NAMES[: max(sets) + 1],
        per="auto",
        cosine=False,
        budget=rows,
        eligible=[True] * rows,
        **{"source": ["a"] * rows, "conversation": [None] * rows} | constraints,
    )


PAPER = [[90, 80, 70, 10, 20, 30], [95, 60, 85, 40, 10, 20], [50, 99, 20, 60, 65, 10]]
TIES = [[9, 9, 5, 4], [8, 3, 3, 7]]


@pytest.mark.parametrize(
    ("similarity", "sets", "on_duplicate", "order", "turns"),
    [
        (PAPER, [0, 0, 0], "lose_turn", [0, 1, 2, 4, 3, 5], [0, 0, 1, 1, 2, 3]),
        (PAPER, [0, 0, 0], "advance", [0, 2, 1, 5, 3, 4], [0, 0, 0, 1, 1, 1]),
        (PAPER, [0, 0, 1], "lose_turn", [0, 1, 2, 4, 3, 5], [0, 0, 1, 1, 2, 4]),
        (PAPER, [0, 0, 1], "advance", [0, 1, 2, 4, 3, 5], [0, 0, 1, 1, 2, 2]),
        (TIES, [0, 0], "lose_turn", [0, 1, 3, 2], [0, 1, 1, 2]),
        (TIES, [0, 0], "advance", [0, 3, 1, 2], [0, 0, 1, 1]),
    ],
)
def test_known_answers_of_simulation_and_selection(similarity, sets, on_duplicate, order, turns):
    case = similarity_case(similarity, sets)
    picks, _ = simulate(case, on_duplicate, "lose_turn")
    assert [pick[:2] for pick in picks] == list(zip(order, turns, strict=True))
    check(case, on_duplicate, "lose_turn")


@pytest.mark.parametrize(
    ("on_duplicate", "on_full_group", "expected"),
    [  # (row, round, target); rows 0 and 1 are of one conversation, so 1 is never taken
        ("lose_turn", "lose_turn", [(0, 0, 0), (2, 1, 1), (3, 2, 1)]),
        ("advance", "lose_turn", [(0, 0, 0), (2, 1, 0), (3, 1, 1)]),
        ("lose_turn", "advance", [(0, 0, 0), (2, 0, 1), (3, 1, 1)]),
        ("advance", "advance", [(0, 0, 0), (2, 0, 1), (3, 1, 0)]),
    ],
)
def test_who_takes_a_row_after_one_of_a_full_group(on_duplicate, on_full_group, expected):
    case = similarity_case([[4, 3, 2, 1], [1, 4, 3, 2]], [0, 0], conversation=[7, 7, 1, 2], max_per_group=1)
    case.budget = 3
    named = [(row, turn, ("target", f"maths/{target}")) for row, turn, target in expected]
    assert [pick[:3] for pick in simulate(case, on_duplicate, on_full_group)[0]] == named
    check(case, on_duplicate, on_full_group)


@pytest.mark.parametrize(("caps", "rows"), [({"a": 6}, [0, 2]), ({"b": 6}, [0])])
def test_a_row_that_exceeds_cap_and_budget_stops_its_group_alone(caps, rows):
    case = similarity_case(
        [[3, 2, 1]], [0], source=["a", "a", "b"], tokens=[4, 3, 1], quota={"by": "source", "caps": caps}
    )
    case.budget = 5
    assert [pick[0] for pick in simulate(case, "lose_turn", "lose_turn")[0]] == rows
    check(case, "lose_turn", "lose_turn")
