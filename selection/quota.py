"""What may stand around any steps: a quota over groups, so many rows of each group, a budget in another unit than rows.

All of it is settled at the selector, the last step, in one of two ways:

- *Shares* and *balance* divide the budget: one draw of the selector in each group, in order of the groups' names.
- *Caps*, groups and tokens walk the selector's pick order and skip what has no room left. That needs a **nested**
  selector, whose smaller draw begins its larger one: then a deeper draw is the same walk gone on, and the result is
  what walking the whole order would give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from selection.allocation import BALANCES, apportion, as_written
from selection.errors import InvalidBudget, InvalidInput, InvalidOption, InvalidRecipe, rows_of_parent
from selection.kernels.probabilities import tiles
from selection.selectors.stratified import strata
from selection.step import Selector, Step, check_choice, check_integer, check_name
from selection.types import Array, Input, Pool, Rows
from selection.vectors import restricted

REST = "rest"
PREDICTED_CLASS = "predicted_class"
NO_GROUP = -1
_LISTED = 8

Costs = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much of the budget goes to each group. Give one of `shares`, `caps` and `balance`.

    Attributes:
        by: the column that tells a row's group; its missing values are the group "null". "predicted_class" is no column:
            it is the number of a row's label, or where it has none of the class of highest probability (the lowest of equals).
        bands: edges that cut a numeric column into bands: [200, 1000] gives the groups "..200", "200..1000" and "1000..",
            each with its lower edge.
        shares: group -> its part of the budget, met exactly. They add up to 1; groups that are not named get nothing,
            unless "rest" gives them a share together.
        caps: the most that any one group gets, or group -> the most; groups that are not named have no cap, unless
            "rest" caps them together. A whole number is rows (tokens, where the budget is in tokens), a number between
            0 and 1 a part of the budget, rounded down.
        balance: "water_fill" gives each pick to the group that has least, already selected rows included (of equals, the
            first by name or class); "inverse_frequency" divides the budget in proportion to 1 / (1 + what a group has). No
            group is given more than it has candidates.

    Rows that are already selected count: shares and parts are of the budget together with them. A group that has more
    than its share gets no more, and the others divide what is left.
    """

    by: str
    bands: Sequence[float] = ()
    shares: Mapping[str, float] | None = None
    caps: float | Mapping[str, float] | None = None
    balance: str | None = None

    def __post_init__(self) -> None:
        check_name("quota", "by", self.by)
        _check_bands(self.bands)
        given = [name for name in ("shares", "caps", "balance") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidOption(f"quota: needs one of shares, caps and balance, got {' and '.join(given) or 'none'}")
        if self.predicts and self.bands:
            raise InvalidOption(f"quota: bands need a numeric column, {PREDICTED_CLASS} is none")
        if self.balance is not None:
            check_choice("quota", "balance", self.balance, BALANCES)
        elif self.shares is not None:
            _check_shares(self.shares)
        elif isinstance(self.caps, Mapping):
            if not self.caps:
                raise InvalidOption("quota: caps names no group")
            for name, cap in self.caps.items():
                _check_cap(f" of {name}", cap)
        else:
            _check_cap("", self.caps)

    @property
    def divides(self) -> bool:
        """Whether each group is given a part of the budget, rather than at most so much."""
        return self.caps is None

    @property
    def predicts(self) -> bool:
        """Whether it takes the pool's probabilities to know the groups."""
        return self.by == PREDICTED_CLASS

    @property
    def named(self) -> tuple[str, ...]:
        """The groups that are named, by name, "rest" last; none where one cap is for each."""
        given = self.shares if self.shares is not None else self.caps
        if not isinstance(given, Mapping):
            return ()
        return (*sorted(set(given) - {REST}), *([REST] if REST in given else []))

    def groups(self, pool: Pool) -> tuple[Rows, tuple[str, ...]]:
        """The group of each row, `NO_GROUP` where the quota says nothing of it, and the groups' names.

        Raises:
            InvalidOption: a group is named that no row of the pool has.
            InvalidInput: bands over a column that is not numeric.
        """
        group, names = predicted_class(pool) if self.predicts else self._by_column(pool)
        if not self.named:
            return group, names
        unknown = sorted(set(self.named) - {REST} - set(names))
        if unknown and len(pool):
            raise InvalidOption(f"quota: no row has {self.by} {unknown[0]!r}; there are: {listed(names)}")
        place = {name: i for i, name in enumerate(self.named)}
        rest = place.pop(REST, NO_GROUP)
        table = np.array([place.get(name, rest) for name in names], np.int64)
        return table[group] if len(group) else group, self.named

    def _by_column(self, pool: Pool) -> tuple[Rows, tuple[str, ...]]:
        values = pool.get_column(self.by)
        group, names = banded(self.by, values, self.bands) if self.bands else strata(values)
        # 1.0 is the class 1
        return group, tuple(name.removesuffix(".0") for name in names) if values.dtype.kind == "f" else names

    def share_weights(self) -> list[int]:
        """The shares as integers in the same proportion, in the order of `named`."""
        assert self.shares is not None
        exact = [as_written(self.shares[name]) for name in self.named]
        scale = math.lcm(*(share.denominator for share in exact))
        return [int(share * scale) for share in exact]

    def most(self, names: Sequence[str], total: float) -> Costs:
        """(groups,) what each may have of a budget of `total`, rows already selected included."""
        caps = self.caps if isinstance(self.caps, Mapping) else dict.fromkeys(names, self.caps)
        whole = Fraction(total)
        given = [caps[name] or 0 for name in names]
        return np.array([cap if isinstance(cap, int) else math.floor(as_written(cap) * whole) for cap in given], float)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBudget:
    """A budget in tokens, or in whatever a numeric column counts.

    Attributes:
        tokens: how many; picks stop before the first row that overflows.
        column: the column that tells how many a row costs.
    """

    tokens: int
    column: str

    def __post_init__(self) -> None:
        check_integer("budget", "tokens", self.tokens, least=0)
        check_name("budget", "column", self.column)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """All that stands around the steps.

    Attributes:
        budget: rows, or tokens.
        quota: how the budget is divided, or None.
        group_by: a column; at most `max_per_group` rows of each of its values are taken, so that the selection holds,
            for example, one turn of each conversation. Rows already selected count. Missing values form no group.
        max_per_group: >= 1.
    """

    budget: int | TokenBudget
    quota: Quota | None = None
    group_by: str | None = None
    max_per_group: int = 1

    def __post_init__(self) -> None:
        if self.group_by is not None:
            check_name("recipe", "group_by", self.group_by)
        elif self.max_per_group != 1:
            raise InvalidOption(
                f"max_per_group {self.max_per_group!r} needs group_by: the column that tells the groups"
            )
        check_integer("recipe", "max_per_group", self.max_per_group, least=1)

    @classmethod
    def of(
        cls,
        budget: int | TokenBudget | Mapping[str, Any],
        quota: Quota | Mapping[str, Any] | None = None,
        group_by: str | None = None,
        max_per_group: int = 1,
    ) -> Self:
        """The limits from JSON-plain values, or from objects."""
        if isinstance(budget, Mapping):
            budget = TokenBudget(**_options(TokenBudget, "budget", budget))
        if isinstance(quota, Mapping):
            quota = Quota(**_options(Quota, "quota", quota))
        return cls(budget=budget, quota=quota, group_by=group_by, max_per_group=max_per_group)

    @property
    def columns(self) -> frozenset[str]:
        """The columns they read."""
        named = {self.group_by, self.quota.by if self.quota and not self.quota.predicts else None}
        named |= {self.budget.column} if isinstance(self.budget, TokenBudget) else set()
        return frozenset(name for name in named if name is not None)

    @property
    def needs(self) -> frozenset[Input]:
        """The inputs they read beside columns."""
        return frozenset({Input.PROBABILITIES} if self.quota is not None and self.quota.predicts else set())

    @property
    def walks(self) -> str | None:
        """What needs a nested selector, in a user's words; None if nothing does."""
        if isinstance(self.budget, TokenBudget):
            return "a budget in tokens"
        if self.group_by is not None:
            return "max_per_group"
        return "a quota of caps" if self.quota is not None and self.quota.caps is not None else None

    @property
    def in_tokens(self) -> bool:
        """Whether the budget counts tokens."""
        return isinstance(self.budget, TokenBudget)

    @property
    def unit(self) -> str:
        """What the budget counts, as a word."""
        return "tokens" if self.in_tokens else "rows"

    @property
    def beyond_rows(self) -> bool:
        """Whether there is more than a number of rows."""
        return self.walks is not None or self.quota is not None

    def check_selector(self, step: Step) -> None:
        """Raise `InvalidRecipe` unless these limits can be put around `step`."""
        if self.walks is not None and isinstance(step, Selector) and not step.nested:
            raise InvalidRecipe(
                f"{self.walks} walks the selector's picks in order, which needs one whose smaller draw begins its larger "
                f"one; {step.name!r}, with these options, is not: take for example top, random, rds_plus or k_center"
                + (", or shares or balance instead of caps" if self.walks.endswith("caps") else "")
            )

    def amount(self) -> int:
        """The budget as a number, of rows or tokens."""
        return self.budget.tokens if isinstance(self.budget, TokenBudget) else self.budget

    def costs(self, pool: Pool) -> Costs:
        """(n,) float64: what each row takes from the budget.

        Raises:
            InvalidInput: names a row that may be or was selected and whose tokens are negative or not a number.
        """
        if not isinstance(self.budget, TokenBudget):
            return np.ones(len(pool))
        column = self.budget.column
        values = pool.get_column(column)
        if len(values) and values.dtype.kind not in "iufb":
            raise InvalidInput(f"budget: column {column!r} must be numeric to count tokens, got {values.dtype}")
        cost = values.astype(np.float64)
        counted = pool.candidates
        counted[pool.get_already_selected()] = True
        bad = np.flatnonzero(counted & ~((cost >= 0) & np.isfinite(cost)))
        if len(bad):
            raise InvalidInput(
                f"budget: column {column!r} of row {{row}} is {cost[bad[0]]:g}, must be a number >= 0", row=int(bad[0])
            )
        return cost

    def on(self, pool: Pool, *, predict: bool = True) -> BoundConstraints:
        """The limits as they meet a pool.

        Args:
            predict: compute the classes for a quota by them; without, it is as if there were none.

        Raises:
            InvalidOption: the quota names a group that no row of the pool has.
            InvalidInput: bands over a column that is not numeric; a row without a number of tokens.
        """
        known = self.quota if predict or not (self.quota and self.quota.predicts) else None
        group, names = known.groups(pool) if known is not None else (None, ())
        set_ = by_value(pool.get_column(self.group_by)) if self.group_by is not None else None
        return BoundConstraints(self, self.costs(pool), group, names, set_)


@dataclass(frozen=True, slots=True, eq=False)
class BoundConstraints:
    """Limits as they meet a pool: what the budget and each division say of each row.

    Attributes:
        cost: (n,) what a row takes from the budget.
        group: (n,) its group of the quota, `NO_GROUP` where that says nothing of it; None without a quota, and while the
            classes that it goes by are not predicted.
        names: of these groups.
        set: (n,) its group by `group_by`, `NO_GROUP` for a missing value; None without.
    """

    constraints: Constraints
    cost: Costs
    group: Rows | None
    names: tuple[str, ...]
    set: Rows | None

    def take(self, rows: Rows) -> BoundConstraints:
        """The same for the subpool of `rows`."""
        group = None if self.group is None else self.group[rows]
        set_ = None if self.set is None else self.set[rows]
        return replace(self, cost=self.cost[rows], group=group, set=set_)

    def rows(self, pool: Pool, amount: int | None = None) -> int:
        """The budget in rows, or another amount; tokens are as many rows as they hold of the candidates' mean."""
        amount = self.constraints.amount() if amount is None else amount
        if not self.constraints.in_tokens:
            return amount
        cost = self.cost[pool.candidates]
        total = float(cost.sum())
        return len(cost) if total <= amount else math.ceil(amount * len(cost) / total)

    def shares(self, pool: Pool, *, allow_short: bool = False) -> list[int]:
        """What each group of a quota of shares or balance is to be given now, in rows or tokens.

        Raises:
            InvalidBudget: the groups cannot fill the budget, or their share; names them.
        """
        quota, group = self.constraints.quota, self.group
        assert quota is not None
        assert group is not None
        have, free = held(group, pool, self.cost, len(self.names))
        whole = [math.ceil(amount) for amount in have]
        if quota.balance is not None:
            most, budget = [int(amount) for amount in free], self.constraints.amount()
            if sum(most) < budget and not allow_short:
                raise InvalidBudget(
                    f"the groups by {quota.by} have {sum(most):,} {self.constraints.unit}, asked for {budget:,}"
                )
            return BALANCES[quota.balance](whole, min(budget, sum(most)), most)
        parts = apportion(quota.share_weights(), self.constraints.amount() + sum(whole), low=whole)
        wanted = [part - mine for part, mine in zip(parts, whole, strict=True)]
        lacking = [
            f"{name} has {free[i]:,.0f} for a share of {wanted[i]:,}"
            + (f" more beside {whole[i]:,}" if whole[i] else "")
            for i, name in enumerate(self.names)
            if free[i] < wanted[i]
        ]
        if lacking and not allow_short:
            raise InvalidBudget(
                f"the quota by {quota.by} cannot be met, in {self.constraints.unit}: {listed(lacking, '; ')}"
            )
        return wanted

    def caps(self, pool: Pool) -> Costs:
        """(groups,) what each group of a quota of caps may still be given, in rows or tokens; below 0 where it has more."""
        assert self.constraints.quota is not None
        assert self.group is not None
        have, _ = held(self.group, pool, self.cost, len(self.names))
        total = self.constraints.amount() + float(self.cost[pool.get_already_selected()].sum())
        return self.constraints.quota.most(self.names, total) - have

    def per_group(self, pool: Pool) -> Costs:
        """(groups,) how many rows of each group by `group_by` may still be taken; below 0 where there are more."""
        assert self.set is not None
        used, _ = held(self.set, pool, np.ones(len(pool)), int(self.set.max(initial=-1)) + 1)
        return self.constraints.max_per_group - used

    def check(self, pool: Pool) -> None:
        """Raise `InvalidBudget`, naming groups and numbers, where counting alone shows that the limits cannot be met."""
        constraints = self.constraints
        if constraints.in_tokens:
            free = float(self.cost[pool.candidates].sum())
            if free < constraints.amount():
                raise InvalidBudget(
                    f"{int(pool.candidates.sum()):,} candidates have {free:,.0f} tokens for a budget of {constraints.amount():,}"
                )
        if constraints.quota is not None and self.group is not None and constraints.quota.divides:
            self.shares(pool)
        elif constraints.quota is not None and self.group is not None:
            self._check_room(f"the quota by {constraints.quota.by}", pool, self.group, self.caps(pool), self.names)
        if self.set is not None and not constraints.in_tokens:
            what = f"max_per_group {constraints.max_per_group} of {constraints.group_by}"
            self._check_room(what, pool, self.set, self.per_group(pool), ())

    def _check_room(self, what: str, pool: Pool, group: Rows, room: Costs, names: Sequence[str]) -> None:
        _, free = held(group, pool, self.cost, len(room))
        gives = np.minimum(free, np.maximum(room, 0))
        apart = float(self.cost[pool.candidates & (group == NO_GROUP)].sum())
        budget = self.constraints.amount()
        if gives.sum() + apart >= budget:
            return
        most = (
            [f"{names[i]} {gives[i]:,.0f} of {free[i]:,.0f}" for i in np.argsort(-free, kind="stable")] if names else []
        )
        if apart:
            most.append(f"all others {apart:,.0f}")
        raise InvalidBudget(
            f"{what} leaves {gives.sum() + apart:,.0f} {self.constraints.unit} for a budget of {budget:,}: "
            + (listed(most) if names else f"there are {int((free > 0).sum()):,} groups")
        )


def held(group: Rows, pool: Pool, cost: Costs, count: int) -> tuple[Costs, Costs]:
    """(groups,) the cost of what is already selected in each group, and of its candidates."""

    def total(rows: Array) -> Costs:
        mine = rows[group[rows] != NO_GROUP]
        return np.bincount(group[mine], weights=cost[mine], minlength=count).astype(np.float64)

    return total(pool.get_already_selected()), total(np.flatnonzero(pool.candidates))


def predicted_class(pool: Pool) -> tuple[Rows, tuple[str, ...]]:
    """The class of each row: its label, or else that of highest probability, the lowest of equals. And the classes' names.

    Raises:
        InvalidInput: a row of probabilities is no distribution or a label beyond the classes; names the row.

    Cost: the probabilities of the rows without a label.
    """
    probabilities = pool.get_probabilities()
    classes = probabilities.shape[1]
    group = np.full(len(pool), NO_GROUP) if pool.labels is None else np.maximum(pool.get_labels(), NO_GROUP)
    beyond = np.flatnonzero(group >= classes)
    if len(beyond):
        raise InvalidInput(f"labels: row {{row}} is {group[beyond[0]]}, of {classes} classes", row=int(beyond[0]))
    unlabelled = np.flatnonzero(group == NO_GROUP).astype(np.int64)
    with rows_of_parent(unlabelled):
        for rows, tile in tiles(restricted(probabilities, unlabelled), Input.PROBABILITIES):
            group[unlabelled[rows]] = np.argmax(tile, axis=1)
    return group.astype(np.int64), tuple(str(number) for number in range(classes))


def by_value(values: Array) -> Rows:
    """The group of each row by the values of a column, `NO_GROUP` for missing ones.

    >>> by_value(np.array(["b", None, "a", "b"], object)), by_value(np.array([7.0, np.nan, 7.0]))
    (array([ 0, -1,  2,  0]), array([ 0, -1,  0]))
    """
    missing = np.asarray(values != values)  # noqa: PLR0124 - NaN alone differs from itself
    if values.dtype.kind == "O":
        missing = missing | np.array([value is None for value in values.tolist()], bool)
        code: dict[Any, int] = {}
        group = np.array([code.setdefault(value, len(code)) for value in values.tolist()], np.int64)
    else:
        group = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return np.where(missing, NO_GROUP, group) if len(group) else group


def banded(by: str, values: Array, edges: Sequence[float]) -> tuple[Rows, tuple[str, ...]]:
    """The band of each value and the bands' names, missing values last.

    >>> banded("length", np.array([5., 200., np.nan]), [200, 1000])
    (array([0, 1, 3]), ('..200', '200..1000', '1000..', 'null'))
    """
    if values.dtype.kind not in "iufb":
        raise InvalidInput(f"quota: bands need a numeric column, {by!r} is {values.dtype}")
    band = np.searchsorted(np.asarray(edges, np.float64), values.astype(np.float64), side="right")
    band[np.isnan(values.astype(np.float64))] = len(edges) + 1
    written = [f"{edge:g}" if edge != int(edge) else str(int(edge)) for edge in edges]
    inner = tuple(f"{low}..{high}" for low, high in pairwise(written))
    return band.astype(np.int64), (f"..{written[0]}", *inner, f"{written[-1]}..", "null")


def listed(names: Sequence[str], between: str = ", ") -> str:
    """The first few names, and how many more.

    >>> listed(["a", "b"]), listed([str(i) for i in range(10)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, and 2 more')
    """
    more = len(names) - _LISTED
    return between.join([*names[:_LISTED], f"and {more:,} more"] if more > 0 else names)


def plain(constraints: Quota | TokenBudget) -> dict[str, Any]:
    """JSON-plain options, without those at their defaults; they rebuild the object."""
    return {key: value for key, value in asdict(constraints).items() if value is not None and value not in ((), [])}


def _options(cls: type, what: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(cls)]
    unknown = [key for key in given if key not in known]
    missing = [key for key in (known if cls is TokenBudget else known[:1]) if key not in given]
    if unknown or missing:
        wrong = f"unknown option {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise InvalidOption(f"{what}: {wrong}; it has {', '.join(known)}")
    return dict(given)


def _check_bands(bands: Any) -> None:
    numeric = isinstance(bands, Sequence) and all(
        isinstance(edge, int | float) and not isinstance(edge, bool) and math.isfinite(edge) for edge in bands
    )
    if not numeric or any(low >= high for low, high in pairwise(bands)):
        raise InvalidOption(f"quota: bands must be a list of ascending numbers, got {bands!r}")


def _check_shares(shares: Any) -> None:
    if not isinstance(shares, Mapping) or not all(
        isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1 for share in shares.values()
    ):
        raise InvalidOption(f"quota: shares must be group: number from 0 to 1, got {shares!r}")
    total = sum((as_written(share) for share in shares.values()), Fraction(0))
    if abs(total - 1) > Fraction(1, 1000):
        raise InvalidOption(
            f"quota: shares must add up to 1, got {float(total):g}"
            + (f"; `{REST}` gives a share to all that is not named" if total < 1 and REST not in shares else "")
        )


def _check_cap(of: str, cap: Any) -> None:
    whole = isinstance(cap, int) and not isinstance(cap, bool) and cap >= 0
    if not whole and not (isinstance(cap, float) and 0 < cap < 1):
        raise InvalidOption(
            f"quota: the cap{of} must be a whole number (of rows or tokens) or a part of the budget between 0 and 1, "
            f"got {cap!r}"
        )
