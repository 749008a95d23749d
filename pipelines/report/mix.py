"""The mix of a selection beside the pool's: by source, by the groups of its quota, by length."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pipelines.pool_view import PoolView
from pipelines.recipes.drawn import Drawn, column_codes, quota_groups
from selection.constraints import Quota
from selection.types import Rows
from storage.errors import StorageError
from storage.ids import rows_of

# More groups than this are one line, "others".
GROUPS = 15
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def mix(view: PoolView, now: Drawn, before: Drawn | None, lengths: Rows) -> dict[str, Any]:
    """By source, by quota (if there is one) and by length; see `gather` for the keys.

    Args:
        lengths: (n,) the characters of each row of the snapshot.
    """
    quota = now.spec.constraints.quota
    return {
        "source": _by_value(view, now, before),
        "quota": None if quota is None or quota.predicts else _by_quota(view, now, quota),
        "length": _by_length(now, before, lengths),
    }


def _by_value(view: PoolView, now: Drawn, before: Drawn | None) -> list[dict[str, Any]]:
    codes, names = _codes(view, now)
    pool = np.bincount(codes, minlength=len(names))
    selected = np.bincount(codes[now.rows], minlength=len(names))
    of_before = None
    if before is not None:
        other, other_names = _codes(view, before)
        of_before = Counter(other_names[code] for code in other[before.rows].tolist())
    order = sorted(range(len(names)), key=lambda place: (-selected[place], -pool[place], names[place]))
    shown = order if len(order) <= GROUPS else order[: GROUPS - 1]
    lines = [
        {
            "group": names[place],
            "selected": int(selected[place]),
            "before": None if of_before is None else of_before[names[place]],
            "share": _share(selected[place], len(now.rows)),
            "share_of_pool": _share(pool[place], len(codes)),
        }
        for place in shown
    ]
    if rest := order[len(shown) :]:
        hidden = None if of_before is None else sum(of_before[names[place]] for place in rest)
        lines.append(
            {
                "group": f"{len(rest)} others",
                "selected": int(selected[rest].sum()),
                "before": hidden,
                "share": _share(selected[rest].sum(), len(now.rows)),
                "share_of_pool": _share(pool[rest].sum(), len(codes)),
            }
        )
    return lines


def _codes(view: PoolView, drawn: Drawn) -> tuple[Rows, list[str]]:
    """(n,) the number of each row's source, and the sources."""
    codes, values = column_codes(view, drawn.snapshot, "source")
    return codes, ["null" if value is None else str(value) for value in values.tolist()]


def _by_quota(view: PoolView, now: Drawn, quota: Quota) -> dict[str, Any] | None:
    """The groups of the quota: what each was to get, what it got, what the pool has."""
    try:
        group, names = quota_groups(view, now, quota)
    except StorageError:  # a column of token scores, or one that is counted
        return None
    in_pool = np.bincount(group[group >= 0], minlength=len(names))
    chosen = group[now.rows]
    selected = np.bincount(chosen[chosen >= 0], minlength=len(names))
    total = now.spec.budget
    wanted: list[float | None] = [None] * len(names)
    if quota.shares is not None:
        wanted = [round(quota.shares.get(name, 0) * total, 1) for name in names]
    elif quota.caps is not None:
        wanted = quota.most(names, total).tolist()
    order = np.argsort(-selected, kind="stable")[:GROUPS].tolist()
    lines = [
        {
            "group": names[place],
            "selected": int(selected[place]),
            "wanted": wanted[place],
            "share": _share(selected[place], len(now.rows)),
            "share_of_pool": _share(in_pool[place], len(group)),
        }
        for place in order
    ]
    rule = "shares" if quota.shares is not None else "caps" if quota.caps is not None else str(quota.balance)
    unit = now.spec.constraints.unit
    return {"by": quota.by, "rule": rule, "unit": unit, "groups": len(names), "lines": lines}


def _by_length(now: Drawn, before: Drawn | None, lengths: Rows) -> list[dict[str, Any]]:
    """Quantiles of the characters of a row's texts, of the pool, the selection and what the pool still has of the last one."""
    groups = {"pool": lengths, "selected": lengths[now.rows]}
    if before is not None:
        rows = rows_of(before.ids, now.snapshot.ids)
        groups["before"] = lengths[rows[rows >= 0]]
    return [
        {"group": name, "rows": len(values), "quantiles": [round(q) for q in np.quantile(values, QUANTILES).tolist()]}
        for name, values in groups.items()
        if len(values)
    ]


def _share(count: Any, total: int) -> float:
    return round(float(count) / max(total, 1), 4)
