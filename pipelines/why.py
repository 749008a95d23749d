"""Why a row of the pool was chosen, or the first rule that kept it out.

Rules before the steps are asked again of the snapshot that the selection was drawn from, by the code that draws. What a
filter dropped is in the record where the filter says so. Only for what is left is the draw replayed from its record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.context import Context
from pipelines.errors import HeldBack, NothingYet
from pipelines.labeling.inputs import recorded_inputs
from pipelines.named import selection_of
from pipelines.recipes.draw import replay
from pipelines.recipes.eligible import first_rule
from pipelines.recipes.explain import excerpt, prompts
from pipelines.recipes.explain import why as reason_in_words
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.targets import target_vectors
from pipelines.report.drawn import Drawn, unit
from pipelines.report.rows import target_text
from pipelines.runs import runs
from selection import Pool
from selection.groups import NO_GROUP
from selection.step import Scorer
from selection.trace import Trace
from selection.types import Reason
from storage.checksums import verified
from storage.errors import BadInput
from storage.ids import Ids, from_arrow, from_text, rows_of, to_text
from storage.pool.contamination import MATCH_COLUMNS
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
}


@dataclass(frozen=True)
class Answer:
    """What became of a row in one selection.

    Attributes:
        id: winnow's.
        rule: "chosen", or the first rule that kept the row out: of `pipelines.recipes.eligible.RULES` or of a labeling
            project, "not_in_pool", "dropped", "max_per_group", "quota" or "beyond_budget".
        detail: what the rule says of the row; JSON-plain.
        replayed: seconds that it took to replay the draw; None if that was not needed.
    """

    id: str
    recipe: str
    selection_id: str
    rule: str
    detail: dict[str, Any] = field(default_factory=dict)
    replayed: float | None = None

    def json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"{self.recipe} ({self.selection_id}): {_WORDS.get(self.rule, self.rule.replace('_', ' '))}"
        for name, value in self.detail.items():
            if value is not None:
                yield f"    {name.replace('_', ' ')}: {f'{value:.6g}' if isinstance(value, float) else value}"
        if self.replayed is not None:
            yield f"    the draw was replayed from its record, in {self.replayed:.1f} s"


def why(context: Context, name: str, recipe: str | None = None) -> list[Answer]:
    """Why a row was chosen or not, by the latest selection of each recipe.

    Args:
        name: winnow's id of a row, its own id, or a beginning of winnow's that no other row has.
        recipe: only of this recipe, or of this selection.

    Raises:
        BadInput: `name` names no row or several.
        NotInStore: there is no such selection.
        NothingYet: nothing was drawn yet.
        HeldBack: the draw has to be replayed and gives other rows than its record.

    Cost: up to the rule that kept the row out; a row that no rule keeps out costs a draw.
    """
    selections = [selection_of(context.store, recipe)] if recipe is not None else _latest(context)
    drawn = [Drawn(context.pool, selection) for selection in selections]
    id_ = _resolve(context, name, [each.snapshot for each in drawn])
    return [_answer(context, id_, each) for each in drawn]


def _latest(context: Context) -> list[str]:
    latest: dict[str, str] = {}
    for run in runs(context.store):
        if run["stage"] == "select" and run["status"] == "ok":
            latest.setdefault(run["target"], run["subject"])
    if not latest:
        raise NothingYet("nothing was drawn yet: run `winnow run` first")
    return [latest[name] for name in sorted(latest)]


def _resolve(context: Context, name: str, drawn_from: list[Snapshot]) -> Ids:
    """(1,) the id that a name means: in the pool as it is now, or else in that of a selection."""
    current = [] if context.pool.current is None else [context.pool.snapshot]
    for snapshot in dict.fromkeys([*current, *drawn_from]):
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
    raise BadInput(
        f"no row of the pool is called {name!r}: neither winnow's id, nor its beginning ({SHORTEST_PREFIX} digits or more), "
        'nor an id of your files. A row that could not be read has no id: `winnow sql "FROM quarantine"` lists those'
    )


def _with_prefix(snapshot: Snapshot, name: str) -> Ids:
    digits = name.replace("-", "").lower()
    if not SHORTEST_PREFIX <= len(digits) < 32 or set(digits) - set("0123456789abcdef"):
        return snapshot.ids[:0]
    # NumPy ends an S16 at its last byte that is not zero, so bounds of zeros and of 0xff compare as ids do.
    low, high = (np.array([bytes.fromhex(digits.ljust(32, end))], "S16") for end in "0f")
    start, stop = np.searchsorted(snapshot.ids, low)[0], np.searchsorted(snapshot.ids, high, side="right")[0]
    return np.asarray(snapshot.ids[start:stop])


def _answer(context: Context, id_: Ids, drawn: Drawn) -> Answer:
    inputs = recorded_inputs(context.pool, drawn.spec, drawn.header)
    rule, detail, seconds = _rule(drawn, inputs, id_)
    return Answer(to_text(id_)[0], drawn.header["recipe"], drawn.selection_id, rule, detail, seconds)


def _rule(drawn: Drawn, inputs: DrawInputs, id_: Ids) -> tuple[str, dict[str, Any], float | None]:
    """The rule, what it says of the row, and how long a replay took."""
    row = int(rows_of(id_, drawn.snapshot.ids)[0])
    if row < 0:
        return "not_in_pool", _absence(drawn, id_), None
    place = np.flatnonzero(drawn.ids == id_[0])
    if len(place):
        return CHOSEN, _chosen(drawn, inputs, int(place[0]), row), None
    rule = first_rule(inputs, row)
    if rule is not None:
        return rule, _excluded(drawn, inputs, rule, id_), None
    dropped = _recorded_drop(drawn, id_)
    if dropped is not None:
        return "dropped", dropped, None
    if inputs.labelled is not None and row in inputs.labelled:
        return "already_labelled", {}, None
    trace, seconds = drawn.view.once("trace", drawn.selection_id, lambda: _replayed(drawn, inputs))
    return *_traced(drawn, inputs, trace, row), seconds


def _replayed(drawn: Drawn, inputs: DrawInputs) -> tuple[Trace, float]:
    """What the draw did with each row, and how many seconds it took to draw again."""
    began = time.monotonic()
    trace = Trace()
    again = replay(inputs, trace)
    if not np.array_equal(from_arrow(again["id"]), drawn.ids):
        raise HeldBack(
            f"{drawn.selection_id} is not reproduced, so what kept the row out cannot be told: see `winnow reproduce`"
        )
    return trace, round(time.monotonic() - began, 3)


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


def _chosen(drawn: Drawn, inputs: DrawInputs, place: int, row: int) -> dict[str, Any]:
    item = drawn.item(place)
    ref = item["ref"]
    text = None
    if ref is not None and item["kind"] in Reason.ROW_KINDS:
        text = _text_of(drawn.snapshot, ref)
    elif ref is not None and item["kind"] == "target":
        text = target_text(drawn, ref)
    return {
        "rank": item["rank"],
        "of": len(drawn.ids),
        "step": drawn.spec.steps[-1].name,
        "gain": item["gain"],
        "reason": reason_in_words(item),
        "ref": ref,
        "ref_text": None if text is None else excerpt(text),
        **_nearest_target(drawn, inputs, row),
    }


def _nearest_target(drawn: Drawn, inputs: DrawInputs, row: int) -> dict[str, Any]:
    """The target by which `rds_max` scored the row, which a score alone does not name; nothing for other scorers."""
    scorers = [step for step in drawn.spec.steps if isinstance(step, Scorer)]
    if inputs.vectors is None or not scorers or scorers[-1].name != "rds_max":
        return {}
    targets = target_vectors(inputs)
    similarity = unit(targets.vectors) @ unit(inputs.vectors.take(np.array([row])))[0]
    nearest = int(similarity.argmax())
    name = targets.printable()[nearest]
    text = target_text(drawn, name)
    return {
        "nearest_target": name,
        "similarity": float(similarity[nearest]),
        "target_text": None if text is None else excerpt(text),
    }


def _text_of(snapshot: Snapshot, ref: str) -> str | None:
    ids = from_text([ref])
    return prompts(snapshot, ids)[0] if rows_of(ids, snapshot.ids)[0] >= 0 else None


def _excluded(drawn: Drawn, inputs: DrawInputs, rule: str, id_: Ids) -> dict[str, Any]:
    """What a rule before the steps says of the row."""
    spec = drawn.spec
    if rule == "outside_where":
        return {"where": spec.where}
    if rule in ("not_allowed", "denied"):
        ids = spec.allow if rule == "not_allowed" else spec.deny
        return {"file": None if ids is None else ids.file}
    if rule == "equal_to_a_target":
        row = rows_of(id_, drawn.snapshot.ids)
        equal = [each.name for each in inputs.held_out if drawn.snapshot.asked_in(each.conversations)[row].any()]
        return {"target_sets": equal}
    if rule == "contaminated":
        assert spec.contamination is not None
        folder = record_folder(drawn.store, "contamination", spec.contamination)
        matches = read_items(folder / "matches.parquet", MATCH_COLUMNS)
        (first, *_) = matches.take(np.flatnonzero(from_arrow(matches["id"]) == id_[0])).to_pylist()
        names = ("target_set", "example_name", "rule", "score", "start", "stop")
        return {name: first[name] for name in names} | {"excerpt": excerpt(first["excerpt"] or "")}
    return {}


def _recorded_drop(drawn: Drawn, id_: Ids) -> dict[str, Any] | None:
    """What the record says of a row that a filter dropped; None if it says nothing."""
    path = drawn.store.path("records", "selections", drawn.selection_id, "dropped.parquet")
    if not path.exists():
        return None
    table = pq.read_table(verified(path))
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


def _traced(drawn: Drawn, inputs: DrawInputs, trace: Trace, row: int) -> tuple[str, dict[str, Any]]:
    """What a replayed draw did with a row that it did not take."""
    for step, rows in trace.dropped:
        if (rows == row).any():
            return "dropped", {"step": step}
    detail = _standing(drawn, trace, row)
    for rule, name, taken in _closed_groups(drawn, inputs, trace, row):
        return rule, {"group": name, "taken": taken} | detail
    return "beyond_budget", detail


def _standing(drawn: Drawn, trace: Trace, row: int) -> dict[str, Any]:
    """The row's score and rank among the rows that the selector saw, and the score of the last row taken."""
    last = {"last_taken": to_text(drawn.ids[-1:])[0] if len(drawn.ids) else None}
    place = np.flatnonzero(trace.rows == row)
    if trace.scorer is None or not len(place):
        return last
    score = float(trace.scores[place[0]])
    taken = np.flatnonzero(trace.rows == drawn.rows[-1]) if len(drawn.rows) else place[:0]
    return last | {
        "scorer": trace.scorer,
        "score": score,
        "score_rank": 1 + int((trace.scores > score).sum()),
        "scored": len(trace.rows),
        "score_of_last_taken": float(trace.scores[taken[0]]) if len(taken) else None,
    }


def _closed_groups(drawn: Drawn, inputs: DrawInputs, trace: Trace, row: int) -> Iterator[tuple[str, str, int]]:
    """Each constraint whose group of this row took nothing more: its rule, the group, how many rows of it are taken."""
    constraints, snapshot = drawn.spec.constraints, inputs.snapshot
    if "max_per_group" in trace.closed and constraints.group_by is not None:
        values = snapshot.column(constraints.group_by)
        taken = int((values[drawn.rows] == values[row]).sum())
        if taken >= constraints.max_per_group:
            yield "max_per_group", f"{constraints.group_by} {values[row]}", taken
    quota = constraints.quota
    if "quota" not in trace.closed or quota is None:
        return
    pool = (
        Pool(probabilities=inputs.probabilities, classes=inputs.classes)
        if quota.predicts
        else Pool(columns={quota.by: snapshot.column(quota.by)})
    )
    group, names = quota.groups(pool)
    if group[row] == NO_GROUP:
        if quota.divides:
            yield "quota", "none", 0
    elif trace.closed["quota"][names.index(names[group[row]])]:
        yield "quota", f"{quota.by} {names[group[row]]}", int((group[drawn.rows] == group[row]).sum())
