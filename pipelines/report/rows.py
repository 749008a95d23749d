"""Rows to read: up to 20 of a recipe, each with what it was taken or dropped for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipelines.recipes.drawn import Drawn
from pipelines.recipes.explain import excerpt, why
from pipelines.recipes.learned import recipe_inputs
from pipelines.recipes.nearest_target import nearest_target
from pipelines.report.changes import ADDED, DROPPED, Causes, words_of
from selection.types import Reason
from storage.errors import StorageError
from storage.ids import Ids, from_text, to_text

FIRST, NEWEST, RISEN, LAST, GONE = 6, 5, 2, 3, 4
TEXT = 400


@dataclass(frozen=True)
class Pick:
    """A row to read.

    Attributes:
        note: why it is shown.
        drawn: the selection that it is of: this one, or, of a row that was dropped, the last one.
        place: in that selection.
        cause: why it was added or dropped, in words.
    """

    note: str
    drawn: Drawn
    place: int
    cause: str | None = None

    @property
    def id(self) -> bytes:
        """Its id."""
        id_: bytes = self.drawn.ids[self.place : self.place + 1].tolist()[0]
        return id_

    @property
    def ref(self) -> str | None:
        """The id of the row of the pool that pulled it; None where something else did."""
        item = self.drawn.item(self.place)
        return item["ref"] if item["kind"] in Reason.ROW_KINDS else None


def picks(now: Drawn, before: Drawn | None, causes: Mapping[str, Causes]) -> list[Pick]:
    """The rows to read: the first picks, the first that are new, the largest rises, the last taken, the best ranked of the dropped."""
    chosen: dict[int, Pick] = {}

    def add(places: Iterable[int], note: str) -> None:
        for place in places:
            chosen.setdefault(place, Pick(note, now, place, added.get(place)))

    n = len(now.ids)
    added: dict[int, str] = {}
    risen: list[int] = []
    if before is not None and before.selection_id != now.selection_id:
        places = np.flatnonzero(~np.isin(now.ids, before.ids)).tolist()
        added = {place: words_of(cause, ADDED) for place, cause in zip(places, causes["added"].tolist(), strict=True)}
        risen = _risen(now, before)
    add(range(min(FIRST, n)), "a first pick")
    add(list(added)[:NEWEST], "not in the last selection")
    add(risen[:RISEN], "rose most in rank")
    add(range(max(n - LAST, 0), n), "among the last taken")
    gone = []
    if before is not None and len(causes["dropped"]):
        places = np.flatnonzero(~np.isin(before.ids, now.ids)).tolist()[:GONE]
        words = [words_of(cause, DROPPED) for cause in causes["dropped"][:GONE].tolist()]
        gone = [Pick("dropped", before, place, word) for place, word in zip(places, words, strict=True)]
    return [*chosen.values(), *gone]


def _risen(now: Drawn, before: Drawn) -> list[int]:
    """The places of the picks whose rank rose most."""
    ranks = {id_: place for place, id_ in enumerate(before.ids.tolist())}
    rises = [(ranks[id_] - place, place) for place, id_ in enumerate(now.ids.tolist()) if id_ in ranks]
    return [place for rise, place in sorted(rises, key=lambda each: (-each[0], each[1])) if rise > 0]


def wanted_ids(shown: Iterable[Pick]) -> tuple[Ids, Ids]:
    """The ids of rows whose text is shown: of this selection and of the last one, what pulled them included."""
    own: list[Ids] = []
    last: list[Ids] = []
    for pick in shown:
        ids = last if pick.note == "dropped" else own
        ids.append(np.array([pick.id], "S16"))
        if pick.ref is not None:
            ids.append(from_text([pick.ref]))
    empty = np.empty(0, "S16")
    return np.concatenate([empty, *own]), np.concatenate([empty, *last])


def described(pick: Pick, texts: Mapping[bytes, str], sources: Mapping[bytes, str]) -> dict[str, Any]:
    """A row to read, for the document.

    Args:
        texts, sources: id -> its text and its source.
    """
    item = pick.drawn.item(pick.place)
    dropped = pick.note == "dropped"
    return {
        "note": pick.note,
        "rank": None if dropped else item["rank"],
        "rank_before": item["rank"] if dropped else None,
        "id": to_text(np.array([pick.id], "S16"))[0],
        "source": sources.get(pick.id),
        "step": pick.drawn.spec.steps[-1].name,
        "why": why(item),
        "gain": _number(item["gain"]),
        "value": _number(item["value"]),
        "cause": pick.cause,
        "text": excerpt(texts.get(pick.id, ""), TEXT),
        "ref": item["ref"],
        "ref_text": _ref_text(pick, item, texts),
        **_nearest(pick, item),
    }


def _nearest(pick: Pick, item: Mapping[str, Any]) -> dict[str, Any]:
    """The target that won, of a pick whose reason names nothing; not of rows of the last selection, nor without vectors."""
    nearest: dict[str, Any] = {}
    view, spec = pick.drawn.view, pick.drawn.spec
    if item["kind"] not in Reason.ROW_KINDS and pick.note != "dropped":
        with suppress(StorageError):
            inputs = view.once("recipe_inputs", pick.drawn.selection_id, partial(recipe_inputs, view, spec))
            nearest = nearest_target(pick.drawn, inputs, item, int(pick.drawn.rows[pick.place]))
    text = nearest.get("target_text")
    return {
        "nearest_target": nearest.get("nearest_target"),
        "similarity": _number(nearest.get("similarity")),
        "target_text": None if text is None else excerpt(text, TEXT // 2),
    }


def _ref_text(pick: Pick, item: Mapping[str, Any], texts: Mapping[bytes, str]) -> str | None:
    """The text of the target or the row that pulled the pick."""
    if item["ref"] is None:
        return None
    if pick.ref is not None:
        return excerpt(texts.get(from_text([pick.ref]).tolist()[0], ""), TEXT // 2) or None
    text = pick.drawn.target_text(item["ref"]) if item["kind"] == "target" else None
    return None if text is None else excerpt(text, TEXT // 2)


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 5)
