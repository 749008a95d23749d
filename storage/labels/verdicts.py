"""What a tool says of an answer: that it is none, or none yet.

The words are those of Prodigy (`answer`: accept, reject, ignore), Argilla (`status` of a response: draft, discarded,
submitted; of a record: pending, completed), Label Studio (`last_action`) and
of tools like them. A word that is not listed says nothing: a field may be called `status` for other reasons.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["rejected", "skip", "waiting"]

_WORDS: dict[str, Kind] = {
    **dict.fromkeys(
        ("reject", "rejected", "deny", "denied", "declined", "disapproved", "invalid", "deleted"), "rejected"
    ),
    **dict.fromkeys(("ignore", "ignored", "skip", "skipped", "discard", "discarded", "dismissed", "abandoned"), "skip"),
    **dict.fromkeys(("cancel", "canceled", "cancelled", "was_cancelled"), "skip"),
    **dict.fromkeys(("draft", "pending", "unsubmitted", "incomplete", "unfinished"), "waiting"),
    **dict.fromkeys(("in_progress", "not_started", "todo", "unlabeled", "unlabelled"), "waiting"),
}
# Fields that say it by being true.
MARKS: dict[str, Kind] = {
    **dict.fromkeys(("rejected", "is_rejected"), "rejected"),
    **dict.fromkeys(("discarded", "is_discarded", "skipped", "is_skipped", "ignored", "cancelled", "canceled"), "skip"),
    **dict.fromkeys(("draft", "is_draft"), "waiting"),
}
_TRUE = frozenset({"true", "1", "yes", "y", "x"})
# What an answer is, if its record says several things.
_ORDER: tuple[Kind, ...] = ("rejected", "skip", "waiting")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why an answer is no label.

    Attributes:
        kind: "rejected": it says what the row is not; "skip": this annotator passes; "waiting": it is not finished.
        cause: in words.
    """

    kind: Kind
    cause: str


def verdict(words: Iterable[tuple[str, str]], marks: Iterable[tuple[str, Any]]) -> Verdict | None:
    """What the fields of a record say of its answer; None where it counts.

    Args:
        words: field and value, of fields that hold a word.
        marks: field and value, of fields out of `MARKS`.

    >>> verdict([("answer", "Reject"), ("status", "open")], [])
    Verdict(kind='rejected', cause="answer is 'Reject': no label")
    """
    said = [(kind, name, value) for name, value in words if (kind := _WORDS.get(_plain(value)))]
    said += [(MARKS[name], name, value) for name, value in marks if _plain(value) in _TRUE]
    if not said:
        return None
    kind, name, value = min(said, key=lambda entry: _ORDER.index(entry[0]))
    return Verdict(kind, f"{name} is {repr(value)[:40]}: no label")


def _plain(value: Any) -> str:
    return str(value).strip().lower().replace("-", "_").replace(" ", "_")
