"""The funnel: from the rows read to the rows selected, each count beside that of the run before."""

from __future__ import annotations

from typing import Any

from pipelines.recipes.eligible import RULES
from pipelines.report.history import History, Run

Stop = dict[str, Any]
WORDS = {
    "read": "read from the files",
    "duplicate": "repeat another row",
    "quarantined": "could not be read",
    "pool": "in the pool",
    "without_vector": "have no vector",
    "outside_where": "outside of the where condition",
    "not_allowed": "not in the allow list",
    "denied": "in the deny list",
    "equal_to_a_target": "hold what a target asks",
    "contaminated": "hold an evaluation text",
    "without_probabilities": "have no probabilities",
    "eligible": "may be chosen",
    "not_taken": "not taken",
    "rows": "selected",
}
TOTALS = frozenset({"read", "pool", "eligible", "rows"})
_FILTER = "dropped_by_"


def pool_funnel(history: History) -> list[Stop]:
    """read, duplicate, quarantined, pool: of the pool's files."""
    now, before = _facts(history.of("ingest") or history.before("ingest")), _facts(history.before("ingest"))
    if history.of("ingest") is None:  # the pool was not read in this run
        before = now
    stops = [_stop(key, now.get(key, 0), before.get(key)) for key in ("read", "duplicate", "quarantined")]
    return [*stops, _stop("pool", now.get("kept", 0), before.get("kept"))] if now else []


def recipe_funnel(now: Run, before: Run | None) -> list[Stop]:
    """pool, each rule that kept rows out, eligible, each filter, not_taken, rows: of one recipe."""
    ours, theirs = _facts(now), _facts(before)
    filters = [key for key in ours if key.startswith(_FILTER)]
    filters += [key for key in theirs if key.startswith(_FILTER) and key not in filters]
    keys = ["pool", *(rule for rule in RULES if ours.get(rule) or theirs.get(rule)), "eligible", *filters]
    for facts in (ours, theirs):
        if "rows" in facts and "eligible" in facts:
            facts["not_taken"] = facts["eligible"] - sum(facts.get(key, 0) for key in filters) - facts["rows"]
    return [_stop(key, ours.get(key, 0), theirs.get(key)) for key in (*keys, "not_taken", "rows")]


def _stop(key: str, rows: int, before: int | None) -> Stop:
    words = f"dropped by {key.removeprefix(_FILTER)}" if key.startswith(_FILTER) else WORDS[key]
    delta = None if before is None else rows - before
    return {"key": key, "words": words, "total": key in TOTALS, "rows": rows, "before": before, "delta": delta}


def _facts(run: Run | None) -> dict[str, Any]:
    return {} if run is None else dict(run["facts"])
