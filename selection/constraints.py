"""What a recipe demands beside its steps: a quota over groups, so many rows of each value, a budget in another unit.

The selector, the last step, settles all of it, in one of two ways; see `selection.constrained`:

- *Shares* and *balance* divide the budget: one draw of the selector in each group, in order of the groups' names.
- *Caps*, `group_by` and tokens go along the selector's picks and skip what has no room left. That needs a **nested**
  selector, whose smaller draw begins its larger one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np

from selection.allocation import BALANCES, apportion, as_written
from selection.errors import InvalidBudget, InvalidInput, InvalidOption, InvalidRecipe
from selection.groups import NO_GROUP, banded, by_value, cost_by_group, listed, predicted_class, strata
from selection.pool import Pool
from selection.step import Selector, Step, check_choice, check_integer, check_name, is_number
from selection.types import Doubles, Input, Rows

REST = "rest"
PREDICTED_CLASS = "predicted_class"

COUNTED_TOKENS = "tokens"
"""The column of what the tokenizer of a budget counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much of the budget each group gets: one of `shares`, `caps` and `balance`.

    Attributes:
        by: the column that holds a row's group; missing values are the group `null`. `predicted_class` is no column but
            the number of a row's class: of its label, or where it has none the classifier's class of highest
            probability (the lowest of equals). It needs probabilities: a labeling project's, or
            those that a recipe's `probabilities` names.
        bands: edges that cut a numeric column into bands, each with its lower edge: `[200, 1000]` gives the groups
            `..200`, `200..1000` and `1000..`.
        shares: group: its part of the budget, met exactly. They add up to 1; groups that are not named get nothing,
            unless `rest` gives them a share together.
        caps: the most that each group gets, or group: the most; groups that are not named have no cap, unless `rest`
            caps them together. A whole number is rows (tokens, if the budget is), one between 0 and 1 a part of the
            budget, rounded down.
        balance: `water_fill` gives each pick to the group that has least, already selected rows included (of equals,
            the first by name or class, `null` last); `inverse_frequency` divides the budget in proportion to
            1 / (1 + what a group has). No group gets more than it has candidates.

    Rows that are already selected count: shares and parts are of the budget together with them. A group that has more
    than its share gets no more, and the others divide what is left.
    """

    by: str
    bands: Sequence[float] = ()
    shares: Mapping[str, float] | None = None
    caps: float | Mapping[str, float] | None = None
    balance: Literal["water_fill", "inverse_frequency"] | None = None

    def __post_init__(self) -> None:
        check_name("quota", "by", self.by)
        _check_bands(self.bands)
        object.__setattr__(self, "bands", tuple(self.bands))  # so that a list in a file is the same quota
        rules = [name for name in ("shares", "caps", "balance") if getattr(self, name) is not None]
        if len(rules) != 1:
            raise _invalid_quota(f"needs one of shares, caps and balance, got {' and '.join(rules) or 'none'}")
        if self.predicts and self.bands:
            raise _invalid_quota(f"bands need a numeric column, {PREDICTED_CLASS} is none", "bands")
        if self.balance is not None:
            check_choice("quota", "balance", self.balance, BALANCES)
        elif self.shares is not None:
            _check_shares(self.shares)
        elif isinstance(self.caps, Mapping):
            if not self.caps:
                raise _invalid_quota("caps names no group", "caps")
            for name, cap in self.caps.items():
                _check_cap(f" of {name}", cap)
        else:
            _check_cap("", self.caps)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """A quota from JSON-plain options.

        Raises:
            InvalidOption: an option is unknown, missing or out of range; names it.
        """
        return cls(**_known_options(cls, "quota", options))

    @property
    def divides(self) -> bool:
        """Whether each group gets a part of the budget, rather than at most so much."""
        return self.caps is None

    @property
    def predicts(self) -> bool:
        """Whether it takes the pool's probabilities to know the groups."""
        return self.by == PREDICTED_CLASS

    @property
    def named(self) -> tuple[str, ...]:
        """The groups that are named, by name, "rest" last; none where one cap is for each."""
        amounts = self.shares if self.shares is not None else self.caps
        if not isinstance(amounts, Mapping):
            return ()
        return (*sorted(set(amounts) - {REST}), *([REST] if REST in amounts else []))

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
            raise _invalid_quota(f"no row has {self.by} {unknown[0]!r}; there are: {listed(names)}")
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

    def most(self, names: Sequence[str], total: float) -> Doubles:
        """(groups,) what each may have of a budget of `total`, rows already selected included."""
        caps = self.caps if isinstance(self.caps, Mapping) else dict.fromkeys(names, self.caps)
        whole = Fraction(total)
        amounts = [caps[name] or 0 for name in names]
        return np.array(
            [cap if isinstance(cap, int) else math.floor(as_written(cap) * whole) for cap in amounts], float
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBudget:
    """A budget in tokens, or in whatever a numeric column counts: picks stop before the first row that overflows.

    Attributes:
        tokens: how many tokens to take at most.
        column: the numeric column that holds how many tokens a row has; or give `tokenizer`.
        tokenizer: the trainer's, which counts each row once: a hub name, a local folder or `package:<name>`. Steps and
            quotas know its counts as the column `tokens`; a pool without a store must hold that column.
    """

    tokens: int
    column: str | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        check_integer("budget", "tokens", self.tokens, least=0)
        if (self.column is None) == (self.tokenizer is None):
            got = "neither" if self.column is None else "both"
            raise InvalidOption(f"needs either `column` or `tokenizer` to count tokens by, found {got}", step="budget")
        option = "column" if self.tokenizer is None else "tokenizer"
        check_name("budget", option, getattr(self, option))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """A budget from JSON-plain options.

        Raises:
            InvalidOption: an option is unknown, missing or out of range; names it.
        """
        return cls(**_known_options(cls, "budget", options))

    @property
    def counted_in(self) -> str:
        """The column that holds a row's tokens."""
        return COUNTED_TOKENS if self.column is None else self.column


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """All that a recipe demands beside its steps.

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
            reason = f"max_per_group {self.max_per_group!r} needs group_by: the column that tells the groups"
            raise InvalidOption(reason, option="max_per_group")
        check_integer("recipe", "max_per_group", self.max_per_group, least=1)

    @classmethod
    def of(
        cls,
        budget: int | TokenBudget | Mapping[str, Any],
        quota: Quota | Mapping[str, Any] | None = None,
        group_by: str | None = None,
        max_per_group: int = 1,
    ) -> Self:
        """The constraints from JSON-plain values, or from objects.

        Raises:
            InvalidOption: see `Quota.of` and `TokenBudget.of`.
        """
        if isinstance(budget, Mapping):
            budget = TokenBudget.of(budget)
        if quota is not None and not isinstance(quota, Quota):
            quota = Quota.of(quota)
        return cls(budget=budget, quota=quota, group_by=group_by, max_per_group=max_per_group)

    @property
    def columns(self) -> frozenset[str]:
        """The columns they read."""
        by = self.quota.by if self.quota is not None and not self.quota.predicts else None
        counted_in = self.budget.counted_in if isinstance(self.budget, TokenBudget) else None
        return frozenset(name for name in (self.group_by, by, counted_in) if name is not None)

    @property
    def needs(self) -> frozenset[Input]:
        """The inputs they read beside columns."""
        return frozenset({Input.PROBABILITIES} if self.quota is not None and self.quota.predicts else set())

    @property
    def needs_nested(self) -> str | None:
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
    def amount(self) -> int:
        """The budget as a number, of rows or tokens."""
        return self.budget.tokens if isinstance(self.budget, TokenBudget) else self.budget

    def check_selector(self, step: Step) -> None:
        """Raise `InvalidRecipe` unless `step` can meet these constraints."""
        why = self.needs_nested
        if why is not None and isinstance(step, Selector) and not step.nested:
            raise InvalidRecipe(
                f"{why} walks the selector's picks in order, which needs one whose smaller draw begins its larger "
                f"one; {step.name!r}, with these options, is not: take for example top, random, rds_plus or k_center"
                + (", or shares or balance instead of caps" if why.endswith("caps") else "")
            )

    def costs(self, pool: Pool) -> Doubles:
        """(n,) float64: what each row takes from the budget.

        Raises:
            InvalidInput: names a row that may be or was selected and whose tokens are negative or not a number.
        """
        if not isinstance(self.budget, TokenBudget):
            return np.ones(len(pool))
        column = self.budget.counted_in
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
        """The constraints bound to a pool.

        Args:
            predict: compute the classes for a quota by them; without, it is as if there were none.

        Raises:
            InvalidOption: the quota names a group that no row of the pool has.
            InvalidInput: bands over a column that is not numeric; a row without a number of tokens.
        """
        known = self.quota if predict or not (self.quota and self.quota.predicts) else None
        quota_group, quota_names = known.groups(pool) if known is not None else (None, ())
        value_group = by_value(pool.get_column(self.group_by)) if self.group_by is not None else None
        return BoundConstraints(self, self.costs(pool), quota_group, quota_names, value_group)


@dataclass(frozen=True, slots=True, eq=False)
class BoundConstraints:
    """Constraints bound to a pool: the cost of each row and its groups.

    Attributes:
        cost: (n,) what a row takes from the budget.
        quota_group: (n,) its group of the quota, `NO_GROUP` where that says nothing of it; None without a quota, and
            while the classes that it goes by are not predicted.
        quota_names: of these groups.
        value_group: (n,) the group of rows of the same value of `group_by`, `NO_GROUP` for a missing value; None
            without `group_by`.
    """

    constraints: Constraints
    cost: Doubles
    quota_group: Rows | None
    quota_names: tuple[str, ...]
    value_group: Rows | None

    def take(self, rows: Rows) -> BoundConstraints:
        """The same for the subpool of `rows`."""
        quota_group = None if self.quota_group is None else self.quota_group[rows]
        value_group = None if self.value_group is None else self.value_group[rows]
        return replace(self, cost=self.cost[rows], quota_group=quota_group, value_group=value_group)

    def rows(self, pool: Pool, amount: int | None = None) -> int:
        """The budget in rows, or another amount; tokens are as many rows as they hold of the candidates' mean."""
        amount = self.constraints.amount if amount is None else amount
        if not self.constraints.in_tokens:
            return amount
        cost = self.cost[pool.candidates]
        total = float(cost.sum())
        return len(cost) if total <= amount else math.ceil(amount * len(cost) / total)

    def shares(self, pool: Pool, *, allow_short: bool = False) -> list[int]:
        """What each group of a quota of shares or balance is to get now, in rows or tokens.

        Raises:
            InvalidBudget: the groups cannot fill the budget, or their share; names them.
        """
        quota, group, names = self.constraints.quota, self.quota_group, self.quota_names
        assert quota is not None
        assert group is not None
        have, free = cost_by_group(group, pool, self.cost, len(names))
        whole = [math.ceil(amount) for amount in have]
        if quota.balance is not None:
            most, budget = [int(amount) for amount in free], self.constraints.amount
            if sum(most) < budget and not allow_short:
                raise InvalidBudget(
                    f"the groups by {quota.by} have {sum(most):,} {self.constraints.unit}, asked for {budget:,}"
                )
            return BALANCES[quota.balance](whole, min(budget, sum(most)), most)
        parts = apportion(quota.share_weights(), self.constraints.amount + sum(whole), low=whole)
        wanted = [part - before for part, before in zip(parts, whole, strict=True)]
        lacking = [
            f"{name} has {free[i]:,.0f} for a share of {wanted[i]:,}"
            + (f" more beside {whole[i]:,}" if whole[i] else "")
            for i, name in enumerate(names)
            if free[i] < wanted[i]
        ]
        if lacking and not allow_short:
            raise InvalidBudget(
                f"the quota by {quota.by} cannot be met, in {self.constraints.unit}: {listed(lacking, '; ')}"
            )
        return wanted

    def caps(self, pool: Pool) -> Doubles:
        """(groups,) what each group of a quota of caps may still get, in rows or tokens; below 0 where it has more."""
        assert self.constraints.quota is not None
        assert self.quota_group is not None
        have, _ = cost_by_group(self.quota_group, pool, self.cost, len(self.quota_names))
        total = self.constraints.amount + float(self.cost[pool.get_already_selected()].sum())
        return self.constraints.quota.most(self.quota_names, total) - have

    def per_value(self, pool: Pool) -> Doubles:
        """(groups,) how many rows of each value of `group_by` may still be taken; below 0 where there are more."""
        assert self.value_group is not None
        used, _ = cost_by_group(self.value_group, pool, np.ones(len(pool)), int(self.value_group.max(initial=-1)) + 1)
        return self.constraints.max_per_group - used

    def check(self, pool: Pool) -> None:
        """Raise `InvalidBudget`, naming groups and numbers, where counting alone shows that they cannot be met."""
        constraints, quota = self.constraints, self.constraints.quota
        if constraints.in_tokens:
            free = float(self.cost[pool.candidates].sum())
            if free < constraints.amount:
                raise InvalidBudget(
                    f"{int(pool.candidates.sum()):,} candidates have {free:,.0f} tokens for a budget of {constraints.amount:,}"
                )
        if quota is not None and self.quota_group is not None:
            if quota.divides:
                self.shares(pool)
            else:
                self._check_capacity(
                    f"the quota by {quota.by}", pool, self.quota_group, self.caps(pool), self.quota_names
                )
        if self.value_group is not None and not constraints.in_tokens:
            name = f"max_per_group {constraints.max_per_group} of {constraints.group_by}"
            self._check_capacity(name, pool, self.value_group, self.per_value(pool), ())

    def _check_capacity(self, name: str, pool: Pool, group: Rows, capacity: Doubles, names: Sequence[str]) -> None:
        _, free = cost_by_group(group, pool, self.cost, len(capacity))
        gives = np.minimum(free, np.maximum(capacity, 0))
        ungrouped = float(self.cost[pool.candidates & (group == NO_GROUP)].sum())
        budget = self.constraints.amount
        if gives.sum() + ungrouped >= budget:
            return
        most = (
            [f"{names[i]} {gives[i]:,.0f} of {free[i]:,.0f}" for i in np.argsort(-free, kind="stable")] if names else []
        )
        if ungrouped:
            most.append(f"all others {ungrouped:,.0f}")
        raise InvalidBudget(
            f"{name} leaves {gives.sum() + ungrouped:,.0f} {self.constraints.unit} for a budget of {budget:,}: "
            + (listed(most) if names else f"there are {int((free > 0).sum()):,} groups")
        )


def plain(constraint: Quota | TokenBudget) -> dict[str, Any]:
    """JSON-plain options, without those at their defaults; they rebuild the object."""
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(constraint).items()}
    return {key: value for key, value in options.items() if value is not None and value != []}


def _known_options(cls: type, step: str, options: Any) -> dict[str, Any]:
    known = {field.name: field.default for field in fields(cls)}
    if not isinstance(options, Mapping):
        raise InvalidOption(f"must be a mapping of {', '.join(known)}, got {options!r}", step=step)
    unknown = [key for key in options if key not in known]
    missing = [name for name, default in known.items() if default is MISSING and name not in options]
    if unknown or missing:
        wrong = f"unknown option {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise InvalidOption(f"{wrong}; it has {', '.join(known)}", step=step, option=str((unknown or missing)[0]))
    return dict(options)


def _check_bands(bands: Any) -> None:
    if not isinstance(bands, Sequence) or not all(map(is_number, bands)) or any(a >= b for a, b in pairwise(bands)):
        raise _invalid_quota(f"bands must be a list of ascending numbers, got {bands!r}", "bands")


def _check_shares(shares: Any) -> None:
    if not isinstance(shares, Mapping) or not all(is_number(share) and 0 <= share <= 1 for share in shares.values()):
        raise _invalid_quota(f"shares must be group: number from 0 to 1, got {shares!r}", "shares")
    total = sum((as_written(share) for share in shares.values()), Fraction(0))
    if abs(total - 1) > Fraction(1, 1000):
        hint = f"; `{REST}` gives a share to all that is not named" if total < 1 and REST not in shares else ""
        raise _invalid_quota(f"shares must add up to 1, got {float(total):g}{hint}", "shares")


def _check_cap(of: str, cap: Any) -> None:
    whole = isinstance(cap, int) and not isinstance(cap, bool) and cap >= 0
    if not whole and not (isinstance(cap, float) and 0 < cap < 1):
        raise _invalid_quota(
            f"the cap{of} must be a whole number (of rows or tokens) or a part of the budget between 0 and 1, got {cap!r}"
        )


def _invalid_quota(reason: str, option: str | None = None) -> InvalidOption:
    return InvalidOption(reason, step="quota", option=option)
