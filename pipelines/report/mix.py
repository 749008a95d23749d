"""The mix of a selection beside the pool's: by source, by language, by the groups of its quota, by length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.config.languages import language_of
from pipelines.pool_view import PoolView
from pipelines.recipes.drawn import Drawn, column_codes, quota_groups
from pipelines.recipes.health import language_columns
from pipelines.recipes.learned import recipe_inputs
from pipelines.report.quality import SEED, some_rows
from selection.constraints import Quota
from selection.types import Rows
from storage.errors import StorageError
from storage.ids import Ids, rows_of

# More groups than this are one line, "others".
GROUPS = 15
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Rows of the pool, and of all recipes together, whose language is told by their words; the beginning of each is enough.
LANGUAGE_ROWS, LANGUAGE_TEXT = 1000, 500
NO_LANGUAGE = "cannot be told"


def mix(
    view: PoolView, now: Drawn, before: Drawn | None, lengths: Rows, sample: tuple[Ids, Ids], texts: Mapping[bytes, str]
) -> dict[str, Any]:
    """By source, by language, by quota (if there is one) and by length; see `gather` for the keys.

    Args:
        lengths: (n,) the characters of each row of the snapshot.
        sample: of `language_sample`.
        texts: id -> text, of the sample.
    """
    quota = now.spec.constraints.quota
    by_quota = None if quota is None else _by_class(now, quota) if quota.predicts else _by_quota(view, now, quota)
    return {
        "source": _by_value(view, now, before, "source"),
        "language": _by_language(view, now, before, sample, texts),
        "quota": by_quota,
        "length": _by_length(now, before, lengths),
    }


def language_sample(now: Drawn, rows: int) -> tuple[Ids, Ids]:
    """Some rows of the pool, and so many of the selection, whose texts tell a language; none where a column says it."""
    if language_columns(now.snapshot):
        return now.ids[:0], now.ids[:0]
    rng = np.random.default_rng(SEED)
    pool = now.snapshot.ids[some_rows(rng, len(now.snapshot), LANGUAGE_ROWS)]
    return np.asarray(pool), now.ids[some_rows(rng, len(now.ids), rows)]


def _by_language(
    view: PoolView, now: Drawn, before: Drawn | None, sample: tuple[Ids, Ids], texts: Mapping[bytes, str]
) -> dict[str, Any]:
    if columns := language_columns(now.snapshot):
        lines = _by_value(view, now, before, columns[0])
        return {"column": columns[0], "rows": len(now.rows), "pool_rows": len(now.snapshot), "lines": lines}

    def counts(ids: Ids) -> Counter[str]:
        return Counter(language_of(texts.get(id_, "")[:LANGUAGE_TEXT]) or NO_LANGUAGE for id_ in ids.tolist())

    pool = view.once("languages", now.snapshot.id, lambda: counts(sample[0]))
    selected = counts(sample[1])
    order = sorted(pool | selected, key=lambda name: (name == NO_LANGUAGE, -selected[name], -pool[name], name))
    lines = [
        {
            "group": name,
            "selected": selected[name],
            "before": None,
            "share": _share(selected[name], selected.total()),
            "share_of_pool": _share(pool[name], pool.total()),
        }
        for name in order[:GROUPS]
    ]
    return {"column": None, "rows": selected.total(), "pool_rows": pool.total(), "lines": lines}


def _by_value(view: PoolView, now: Drawn, before: Drawn | None, column: str) -> list[dict[str, Any]]:
    codes, names = _codes(view, now, column)
    pool = np.bincount(codes, minlength=len(names))
    selected = np.bincount(codes[now.rows], minlength=len(names))
    of_before = None
    if before is not None:
        of_before = _counts(view, before, column)
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


def _counts(view: PoolView, drawn: Drawn, column: str) -> Counter[str] | None:
    """How many rows of a selection have each value; None where its pool had no such column."""
    try:
        codes, names = _codes(view, drawn, column)
    except StorageError:
        return None
    return Counter(names[code] for code in codes[drawn.rows].tolist())


def _codes(view: PoolView, drawn: Drawn, column: str) -> tuple[Rows, list[str]]:
    """(n,) the number of each row's value in a column, and the values."""
    codes, values = column_codes(view, drawn.snapshot, column)
    return codes, ["null" if value is None else str(value) for value in values.tolist()]


def _by_class(now: Drawn, quota: Quota) -> dict[str, Any] | None:
    """The predicted classes: what each was to get and what it got, as the draw counted; None if it did not.

    What the pool has is not known: that would take a pass of the model over all of it.
    """
    counts = {
        name.removeprefix("quota_"): count for name, count in now.header["facts"].items() if name.startswith("quota_")
    }
    if not counts:
        return None
    try:
        classes = dict(enumerate(recipe_inputs(now.view, now.spec).classes))
    except StorageError:
        classes = {}
    titles = {name: f"{name} {classes.get(int(name), '')}".strip() if name.isdecimal() else name for name in counts}
    selected = np.array(list(counts.values()))
    lines = _quota_lines(now, quota, tuple(counts), selected)
    return _quota_part(now, quota, [line | {"group": titles[line["group"]], "share_of_pool": None} for line in lines])


def _by_quota(view: PoolView, now: Drawn, quota: Quota) -> dict[str, Any] | None:
    """The groups of the quota: what each was to get, what it got, what the pool has."""
    try:
        group, names = quota_groups(view, now, quota)
    except StorageError:  # a column of token scores, or one that is counted
        return None
    in_pool = np.bincount(group[group >= 0], minlength=len(names))
    chosen = group[now.rows]
    selected = np.bincount(chosen[chosen >= 0], minlength=len(names))
    of_pool = dict(zip(names, in_pool.tolist(), strict=True))
    lines = _quota_lines(now, quota, names, selected)
    return _quota_part(
        now, quota, [line | {"share_of_pool": _share(of_pool[line["group"]], len(group))} for line in lines]
    )


def _quota_lines(now: Drawn, quota: Quota, names: tuple[str, ...], selected: Rows) -> list[dict[str, Any]]:
    """Each group with its rows and what it was to get, the largest first."""
    total = now.spec.budget
    wanted: list[float | None] = [None] * len(names)
    if quota.shares is not None:
        wanted = [round(quota.shares.get(name, 0) * total, 1) for name in names]
    elif quota.caps is not None:
        wanted = quota.most(names, total).tolist()
    return [
        {
            "group": names[place],
            "selected": int(selected[place]),
            "wanted": wanted[place],
            "share": _share(selected[place], len(now.rows)),
        }
        for place in np.argsort(-selected, kind="stable").tolist()
    ]


def _quota_part(now: Drawn, quota: Quota, lines: list[dict[str, Any]]) -> dict[str, Any]:
    rule = "shares" if quota.shares is not None else "caps" if quota.caps is not None else str(quota.balance)
    unit = now.spec.constraints.unit
    total = now.spec.budget
    return {"by": quota.by, "rule": rule, "unit": unit, "total": total, "groups": len(lines), "lines": lines[:GROUPS]}


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
