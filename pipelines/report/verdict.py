"""The verdict: what was published, what was held back and why, and what is not as it was in the run before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import yaml

from pipelines.messages import counted
from pipelines.recipes.explain import excerpt
from pipelines.report.history import History, Run
from pipelines.runs import causes
from storage.store import Store

# More changes of the configuration are counted, not listed.
LISTED = 8


def verdict(store: Store, history: History) -> dict[str, Any]:
    """The verdict of a run; see `gather` for its keys."""
    selects = [run for run in history.stages if run["stage"] == "select"]
    passed = [run for run in selects if run["status"] == "ok"]
    problems = [_problem(run) for run in history.stages if run["status"] != "ok"]
    warnings = [_problem(run) | {"status": "warned"} for run in history.stages if _warns(run)]
    rows = sum(run["facts"].get("rows", 0) for run in passed)
    tokens = [run["facts"]["tokens"] for run in passed if run["facts"].get("tokens") is not None]
    changed = changes_of_setup(store, history)
    state = "published" if not problems else "partly" if passed else "held_back"
    return {
        "state": state,
        "line": _line(state, selects, passed, rows, problems) + _warned(warnings),
        "problems": problems,
        "warnings": warnings,
        "setup": setup_line(history, changed),
        "changed": changed,
        "recipes": len(selects),
        "passed": len(passed),
        "rows": rows,
        "tokens": sum(tokens) if tokens else None,
        "started_at": min(run["started_at"] for run in history.stages),
        "finished_at": max(run["finished_at"] for run in history.stages),
        "seconds": _seconds(history.stages),
        "seconds_before": _seconds(history.stages_of_previous(store)),
        "config_digest": history.stages[-1]["config_digest"],
        "code_version": history.stages[-1]["code_version"],
    }


def _line(state: str, selects: list[Run], passed: list[Run], rows: int, problems: list[dict[str, str]]) -> str:
    recipes = f"{counted(len(passed), 'recipe')}, {counted(rows, 'row')}"
    if state == "published":
        return f"Published: {recipes}." if selects else "Nothing was drawn."
    line = f"Published: {recipes}" if state == "partly" else "Nothing new, what was published before stays"
    for status in ("failed", "held_back"):
        if some := [each for each in problems if each["status"] == status]:
            line += f"; {status.replace('_', ' ')}: {_listed(some)}"
    return line


def _listed(problems: list[dict[str, str]]) -> str:
    return "; ".join(f"{each['stage']}: {_in_short(each['cause'])}" for each in problems)


def _warns(run: Run) -> bool:
    return run["status"] == "ok" and not all(check["passed"] for check in run["checks"])


def _warned(warnings: list[dict[str, str]]) -> str:
    return f" Warning: {_listed(warnings)}" if warnings else ""


def _in_short(cause: str) -> str:
    r"""The first line of a cause, without the error's class.

    >>> _in_short("BadInput: 1 of 3 rows cannot be read:\n  line 2")
    '1 of 3 rows cannot be read'
    """
    return excerpt(re.sub(r"^\w+: ", "", cause.partition("\n")[0]).rstrip(":"), 160)


def _problem(run: Run) -> dict[str, str]:
    stage = " ".join(filter(None, (run["stage"], run["target"])))
    return {"stage": stage, "status": run["status"], "cause": "; ".join(causes(run))}


def setup_line(history: History, changed: list[str]) -> str:
    """What of the configuration and the code is not as in the run before, as a sentence."""
    if history.previous is None:
        return "The first run of this store: there is nothing to compare with."
    if not changed:
        return "The same configuration and code as the last run."
    more = len(changed) - LISTED
    return f"Changed since the last run: {', '.join(changed[:LISTED])}{f' and {more} more' if more > 0 else ''}."


def changes_of_setup(store: Store, history: History) -> list[str]:
    """The keys of the configuration that changed since the run before, and `code (old -> new)`."""
    now, before = history.stages[-1], history.before("select")
    if before is None:
        return []
    changed = []
    if now["config_digest"] != before["config_digest"]:
        ours, theirs = (_flat(store, run["config_digest"]) for run in (now, before))
        changed = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        changed = changed or ["the configuration"]
    if now["code_version"] != before["code_version"]:
        changed.append(f"code ({before['code_version']} -> {now['code_version']})")
    return changed


def _flat(store: Store, digest: str) -> dict[str, Any]:
    """Key -> value of a kept configuration, `recipes.math.where` as a key; nothing where it is not kept any more."""
    path = store.path("configs", f"{digest}.yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(path.read_text("utf-8"), loader)  # noqa: S506 - both loaders are safe
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return dict(_flattened(document, ""))


def _flattened(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flattened(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _seconds(stages: list[Run]) -> float | None:
    """From the first stage's beginning to the last one's end."""
    if not stages:
        return None
    moments = [datetime.fromisoformat(run[key]) for run in stages for key in ("started_at", "finished_at")]
    return (max(moments) - min(moments)).total_seconds()
