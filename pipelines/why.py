"""Why a row of the pool was chosen, or the first rule that kept it out.

Rules before the steps are asked again of the snapshot that the selection was drawn from, by the code that draws. What a
filter dropped is in the record where the filter says so. Only for what is left is the draw replayed from its record.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.context import Context
from pipelines.errors import HeldBack, NothingYet
from pipelines.labeling.inputs import recorded_inputs
from pipelines.named import selection_of
from pipelines.recipes.draw import replay
from pipelines.recipes.drawn import Drawn, StickyLine
from pipelines.recipes.eligible import first_rule
from pipelines.recipes.explain import excerpt, prompts
from pipelines.recipes.explain import why as reason_in_words
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.nearest_target import nearest_target
from pipelines.runs import runs
from selection.constrained import AT_FIRST
from selection.groups import NO_GROUP
from selection.sticky import HELD_BACK
from selection.trace import Trace
from selection.types import Reason, Rows
from storage.checksums import verified
from storage.errors import BadInput
from storage.ids import Ids, from_arrow, from_text, rows_of, to_text
from storage.packs import has_table, read_table
from storage.pool.contamination import MATCH_COLUMNS
from storage.pool.lines import find_lines
from storage.pool.snapshot import Snapshot
from storage.records import read_items, record_folder

SHORTEST_PREFIX = 4
CHOSEN = "chosen"
_WORDS = {
    CHOSEN: "chosen",
    "not_in_pool": "not in the pool that this selection was drawn from",
    "without_vector": "the encoder could give it no vector",
    "outside_where": "outside `where`",
    "not_allowed": "not in the `allow` list",
    "denied": "in the `deny` list",
    "equal_to_a_target": "asks what a held out target asks",
    "contaminated": "holds an evaluation text",
    "without_probabilities": "nothing gives its probabilities",
    "already_labelled": "already labelled",
    "dropped": "dropped by a filter",
    "max_per_group": "its group has no place left",
    "quota": "its group of the quota has no place left",
    "beyond_budget": "beyond the budget",
    "passed_over": "the selector took fewer rows than the budget, and not this row",
    "unreadable": "could not be read",
    "replaced": "in the last selection, and replaced by a row that the steps prefer",
    "no_place": "in the last selection, and without a place now",
    "held_back": "the steps would take it, but `max_churn` allows no more change",
}


@dataclass(frozen=True)
class Answer:
    """What became of a row in one selection.

    Attributes:
        id: winnow's; None of a row that could not be read.
        recipe, selection_id: None of a row that could not be read, which is in no pool.
        rule: "chosen", or the first rule that kept the row out: of `pipelines.recipes.eligible.RULES` or of a labeling
            project, or another of `_WORDS`.
        detail: what the rule says of the row; JSON-plain.
        replayed: seconds that it took to replay the draw; None if that was not needed.
    """

    id: str | None
    recipe: str | None
    selection_id: str | None
    rule: str
    detail: dict[str, Any] = field(default_factory=dict)
    replayed: float | None = None

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        words = _WORDS.get(self.rule, self.rule.replace("_", " "))
        yield words if self.recipe is None else f"{self.recipe} ({self.selection_id}): {words}"
        for name, value in self.detail.items():
            if value is not None:
                yield f"    {name.replace('_', ' ')}: {f'{value:.6g}' if isinstance(value, float) else value}"
        if self.replayed is not None:
            yield f"    the draw was replayed from its record, in {self.replayed:.1f} s"


class _Selection(Drawn):
    """A selection with what its record was drawn from, and its replay."""

    @cached_property
    def inputs(self) -> DrawInputs:
        """What it was drawn from."""
        return recorded_inputs(self.view, self.spec, self.header)

    @cached_property
    def replay(self) -> tuple[Trace, float]:
        """What the draw did with each row, and how many seconds it took to draw again.

        Raises:
            HeldBack: the replay gives other rows than the record.
        """
        began = time.monotonic()
        trace = Trace()
        again = replay(self.inputs, trace)
        if not np.array_equal(from_arrow(again["id"]), self.ids):
            raise HeldBack(
                f"{self.selection_id} is not reproduced, so what kept the row out cannot be told: see `winnow reproduce`"
            )
        return trace, round(time.monotonic() - began, 3)


def why(context: Context, name: str, recipe: str | None = None) -> list[Answer]:
    """Why a row was chosen or not, by the latest selection of each recipe.

    Args:
        name: winnow's id of a row, its own id, a beginning of winnow's that no other row has, or FILE:LINE.
        recipe: only of this recipe, or of this selection.

    Raises:
        BadInput: `name` names no row or several.
        NotInStore: there is no such selection.
        NothingYet: nothing was drawn yet.
        HeldBack: the draw has to be replayed and gives other rows than its record.

    Cost: up to the rule that kept the row out; a row that no rule keeps out costs a draw. What was opened, asked or
    replayed is kept in the view of the pool for further rows.
    """
    selections = [selection_of(context.store, recipe)] if recipe is not None else _latest(context)
    drawn = [context.pool.once("why", each, partial(_Selection, context.pool, each)) for each in selections]
    id_ = _resolve(context, name, [each.snapshot for each in drawn])
    return [id_] if isinstance(id_, Answer) else [_answer(id_, each) for each in drawn]


def _latest(context: Context) -> list[str]:
    latest: dict[str, str] = {}
    for run in runs(context.store):
        if run["stage"] == "select" and run["status"] == "ok":
            latest.setdefault(run["target"], run["subject"])
    if not latest:
        raise NothingYet("nothing was drawn yet: run `winnow run` first")
    return [latest[name] for name in sorted(latest)]


def _resolve(context: Context, name: str, drawn_from: list[Snapshot]) -> Ids | Answer:
    """(1,) the id that a name means, in the pool as it is now or else in that of a selection; the answer if it has none."""
    current = [] if context.pool.current is None else [context.pool.snapshot]
    snapshots = list(dict.fromkeys([*current, *drawn_from]))
    for snapshot in snapshots:
        match = snapshot.match([name])
        if match.counts[0] > 1:
            raise BadInput(f"{name!r} is the own id of {match.counts[0]} rows; name one by winnow's id")
        if match.rows[0] >= 0:
            return snapshot.ids[match.rows]
        by_prefix = _with_prefix(snapshot, name)
        if len(by_prefix) > 1:
            raise BadInput(
                f"{len(by_prefix)} ids begin with {name!r}; give more of it: {', '.join(to_text(by_prefix[:3]))}"
            )
        if len(by_prefix):
            return by_prefix
    file, _, line = name.rpartition(":")
    if file and line.isdecimal():
        return _at_line(snapshots, file, int(line))
    raise BadInput(
        f"no row of the pool is called {name!r}: neither winnow's id, nor its beginning ({SHORTEST_PREFIX} digits or "
        "more), nor an id of your files. A row that could not be read has no id: name it by its file and line, as "
        "pool.jsonl:17"
    )


def _at_line(snapshots: list[Snapshot], file: str, line: int) -> Ids | Answer:
    """The id of the row at a line of a file, or why that could not be read."""
    for snapshot in snapshots:
        rows = find_lines(snapshot, file, line)
        if len(rows) > 1:
            raise BadInput(
                f"{len(rows)} files end in {file!r}: {', '.join(row.file for row in rows[:3])}; give more of it"
            )
        for row in rows:
            if row.id is not None:
                return row.id
            detail = {"file": row.file, "line": line, "cause": row.cause, "excerpt": excerpt(row.excerpt or "")}
            return Answer(None, None, None, "unreadable", detail)
    raise BadInput(f"no file of the pool that is called {file!r} has a row at line {line}")


def _with_prefix(snapshot: Snapshot, name: str) -> Ids:
    digits = name.replace("-", "").lower()
    if not SHORTEST_PREFIX <= len(digits) < 32 or set(digits) - set("0123456789abcdef"):
        return snapshot.ids[:0]
    # NumPy ends an S16 at its last byte that is not zero, so bounds of zeros and of 0xff compare as ids do.
    low, high = (np.array([bytes.fromhex(digits.ljust(32, end))], "S16") for end in "0f")
    start, stop = np.searchsorted(snapshot.ids, low)[0], np.searchsorted(snapshot.ids, high, side="right")[0]
    return np.asarray(snapshot.ids[start:stop])


def _answer(id_: Ids, drawn: _Selection) -> Answer:
    rule, detail, seconds = _rule(drawn, id_)
    return Answer(to_text(id_)[0], drawn.header["recipe"], drawn.selection_id, rule, detail, seconds)


def _rule(drawn: _Selection, id_: Ids) -> tuple[str, dict[str, Any], float | None]:
    """The rule, what it says of the row, and how long a replay took."""
    row = int(rows_of(id_, drawn.snapshot.ids)[0])
    if row < 0:
        return "not_in_pool", _absence(drawn, id_), None
    place = np.flatnonzero(drawn.ids == id_[0])
    if len(place):
        return CHOSEN, _chosen(drawn, int(place[0]), row), None
    rule = first_rule(drawn.inputs, row)
    if rule is not None:
        return rule, _excluded(drawn, rule, id_), None
    recorded = _recorded(drawn, id_)
    if recorded is not None:
        return *recorded, None
    if drawn.inputs.labelled is not None and row in drawn.inputs.labelled:
        return "already_labelled", {}, None
    trace, seconds = drawn.replay
    return *_traced(drawn, trace, row), seconds


def _absence(drawn: Drawn, id_: Ids) -> dict[str, Any]:
    """Why a snapshot lacks a row: it was gone by then, or came later."""
    folder = drawn.snapshot.folder
    gone = pq.read_table(verified(folder / "tombstones.parquet"))
    place = np.flatnonzero(from_arrow(gone["id"]) == id_[0])
    return {
        "cause": gone["reason"][int(place[0])].as_py()
        if len(place)
        else "it is not in that snapshot: it came later, or left before"
    }


def _chosen(drawn: _Selection, place: int, row: int) -> dict[str, Any]:
    item = drawn.item(place)
    ref = item["ref"]
    text = None
    if ref is not None and item["kind"] in Reason.ROW_KINDS:
        text = _text_of(drawn.snapshot, ref)
    elif ref is not None and item["kind"] == "target":
        text = drawn.target_text(ref)
    return {
        "rank": item["rank"],
        "of": len(drawn.ids),
        "step": drawn.spec.steps[-1].name,
        "gain": item["gain"],
        "reason": reason_in_words(item),
        "ref": ref,
        "ref_text": None if text is None else excerpt(text),
        **nearest_target(drawn, drawn.inputs, item, row),
        **_in_words(drawn.sticky.get(drawn.ids[place])),
    }


def _in_words(line: StickyLine | None) -> dict[str, str]:
    """What `mode: sticky` says of a chosen row."""
    if line is None:
        return {}
    before = "" if line.value is None else f"the last selection has it at rank {int(line.value)}"
    words = {
        "stays": f"stays: {before}",
        "kept": f"stays though the steps would not take it now: {before}",
        "replaces": f"new: replaces {line.ref}",
        "fills": "new: takes a place that was free",
    }
    return {"sticky": words[line.kind]}


def _stuck(drawn: _Selection, line: StickyLine) -> dict[str, Any]:
    """What `max_churn` says of a row."""
    replaced = line.kind in Reason.ROW_KINDS and line.ref is not None
    return {
        "max_churn": drawn.spec.max_churn,
        "ref": line.ref,
        "ref_text": _text_of(drawn.snapshot, line.ref) if replaced and line.ref is not None else None,
        "rank_in_fresh_draw" if line.kind == HELD_BACK else "rank_before": None
        if line.value is None
        else int(line.value),
    }


def _text_of(snapshot: Snapshot, ref: str) -> str | None:
    ids = from_text([ref])
    return prompts(snapshot, ids)[0] if rows_of(ids, snapshot.ids)[0] >= 0 else None


def _excluded(drawn: _Selection, rule: str, id_: Ids) -> dict[str, Any]:
    """What a rule before the steps says of the row."""
    spec = drawn.spec
    if rule == "outside_where":
        return {"where": spec.where}
    if rule in ("not_allowed", "denied"):
        ids = spec.allow if rule == "not_allowed" else spec.deny
        return {"file": None if ids is None else ids.file}
    if rule == "equal_to_a_target":
        row = rows_of(id_, drawn.snapshot.ids)
        equal = [each.name for each in drawn.inputs.held_out if drawn.snapshot.asked_in(each.conversations)[row].any()]
        return {"target_sets": equal}
    if rule == "contaminated":
        assert spec.contamination is not None
        folder = record_folder(drawn.store, "contamination", spec.contamination)
        matches = read_items(folder / "matches.parquet", MATCH_COLUMNS)
        (first, *_) = matches.take(np.flatnonzero(from_arrow(matches["id"]) == id_[0])).to_pylist()
        names = ("target_set", "example_name", "rule", "score", "start", "stop")
        return {name: first[name] for name in names} | {"excerpt": excerpt(first["excerpt"] or "")}
    return {}


def _recorded(drawn: _Selection, id_: Ids) -> tuple[str, dict[str, Any]] | None:
    """The rule that the record names for a row, and what it says of it; None if it says nothing."""
    line = drawn.sticky.get(id_[0])
    if line is not None:
        return line.kind, _stuck(drawn, line)
    dropped = _recorded_drop(drawn, id_)
    return None if dropped is None else ("dropped", dropped)


def _recorded_drop(drawn: Drawn, id_: Ids) -> dict[str, Any] | None:
    """What the record says of a row that a filter dropped; None if it says nothing."""
    if not has_table(drawn.folder, "dropped.parquet"):
        return None
    table = read_table(drawn.folder, "dropped.parquet")
    place = np.flatnonzero(from_arrow(table["id"]) == id_[0])
    if not len(place):
        return None
    report = table.slice(int(place[0]), 1).to_pylist()[0]
    text = (
        None
        if report["ref"] is None or report["kind"] not in Reason.ROW_KINDS
        else _text_of(drawn.snapshot, report["ref"])
    )
    return {name: report[name] for name in ("step", "kind", "ref", "value")} | {"ref_text": text}


def _traced(drawn: _Selection, trace: Trace, row: int) -> tuple[str, dict[str, Any]]:
    """What a replayed draw did with a row that it did not take."""
    for step, rows in trace.dropped:
        if (rows == row).any():
            return "dropped", {"step": step}
    place = int(np.flatnonzero(trace.rows == row)[0])
    rule = _first_closed(trace, place)
    if rule is None:
        is_spent = trace.closed.get("budget", [0])[0] > 0
        return "beyond_budget" if is_spent else "passed_over", _standing(drawn, trace, place, _drawn_now(drawn))
    name, taken = _group(drawn, trace, rule, place)
    quota = drawn.spec.constraints.quota
    is_part = rule == "quota" and quota is not None and quota.divides
    is_balance = is_part and quota is not None and quota.balance is not None
    detail = {"group": name, "taken": len(taken)} | _standing(drawn, trace, place, taken if is_part else drawn.rows)
    # A quota that balances sets no group a limit: it divides the budget, and the group's part is spent.
    return "beyond_budget" if is_balance else rule, detail


def _drawn_now(drawn: _Selection) -> Rows:
    """The selected rows, without those that are there only because the last selection has them and `max_churn` holds them."""
    held = [drawn.spec.max_churn is not None and kind == "kept" for kind in drawn.items["kind"].to_pylist()]
    return np.asarray(drawn.rows[~np.array(held, bool)])


def _first_closed(trace: Trace, place: int) -> str | None:
    """The constraint whose group of a row closed first; `max_per_group` where both did at once."""
    closings = []
    for rule in ("max_per_group", "quota"):
        if rule not in trace.groups:
            continue
        group = int(trace.groups[rule][place])
        if group != NO_GROUP:
            closings.append((trace.closed[rule][group], rule))
        elif rule == "quota" and "budget" not in trace.closed:  # a quota that divides gives nothing to other groups
            closings.append((AT_FIRST, rule))
    return min(((at, rule) for at, rule in closings if at), key=lambda closing: closing[0], default=(0, None))[1]


def _group(drawn: _Selection, trace: Trace, rule: str, place: int) -> tuple[str, Rows]:
    """The name of the group of a constraint that a row is in, and the rows of it that were taken, in order."""
    constraints, groups = drawn.spec.constraints, trace.groups[rule]
    quota, group = constraints.quota, groups[place]
    taken = drawn.rows[np.isin(drawn.rows, trace.rows[groups == group])]
    if quota is not None and rule == "quota" and group != NO_GROUP:
        return f"{quota.by} {trace.quota_names[group]}", taken
    if quota is not None and rule == "quota" and quota.predicts:
        return f"{quota.by} that the quota does not name", taken
    by = quota.by if quota is not None and rule == "quota" else constraints.group_by
    assert by is not None
    value = drawn.inputs.snapshot.column(by)[trace.rows[place]]
    return f"{by} {'null' if value is None or value != value else value}", taken  # noqa: PLR0124 - NaN alone differs


def _standing(drawn: Drawn, trace: Trace, place: int, taken: Rows) -> dict[str, Any]:
    """The row's score and rank among the rows that the selector saw, and the score of the last of the rows taken."""
    last = {"last_taken": to_text(drawn.snapshot.ids[taken[-1:]])[0] if len(taken) else None}
    if trace.scorer is None:
        return last
    score = float(trace.scores[place])
    at = np.flatnonzero(trace.candidates & (trace.rows == taken[-1])) if len(taken) else taken
    return last | {
        "scorer": trace.scorer,
        "score": score,
        "score_rank": 1 + int((trace.scores[trace.candidates] > score).sum()),
        "scored": int(trace.candidates.sum()),
        "score_of_last_taken": float(trace.scores[at[0]]) if len(at) else None,
    }
