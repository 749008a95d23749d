"""Selections that nothing removes: pinned and unpinned by a run each, of which the last one counts."""

from __future__ import annotations

from pipelines.context import Context
from pipelines.named import selection_of
from pipelines.runs import runs
from pipelines.stages.stage import record_run
from storage.store import Store

PIN, UNPIN = "pin", "unpin"


def pin(context: Context, name: str, note: str = "") -> str:
    """Pin a selection; gives its id.

    Raises:
        NotInStore: there is none of this name.
    """
    selection = selection_of(context.store, name)
    facts = {"note": note} if note else {}
    record_run(context, PIN, None, subject=selection, summary=f"pinned{f': {note}' if note else ''}", facts=facts)
    return selection


def unpin(context: Context, name: str) -> str | None:
    """Take the pin from a selection; gives its id, or None if it had none.

    Raises:
        NotInStore: there is no selection of this name.
    """
    selection = selection_of(context.store, name)
    if selection not in pinned(context.store):
        return None
    record_run(context, UNPIN, None, subject=selection, summary="unpinned")
    return selection


def pinned(store: Store) -> dict[str, str]:
    """Selection -> the note of its pin, of those that are pinned."""
    last: dict[str, tuple[str, str]] = {}
    for run in runs(store):
        if run["stage"] in (PIN, UNPIN):
            last.setdefault(run["subject"], (run["stage"], str(run["facts"].get("note", ""))))
    return {selection: note for selection, (stage, note) in last.items() if stage == PIN}
