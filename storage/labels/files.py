"""A file of labels -> labels, and the records that are none.

The file is JSON Lines, a JSON array or CSV. Each record has one of three formats:

- plain: one label a record, for example `{"id": ..., "label": "billing", "annotator": "ann", "seconds": 4.2}`;
- a Label Studio task: `data` and `annotations`, whose results of the types choices, rating and textarea count;
- Label Studio's JSON-MIN and CSV, which are plain with its own names (`completed_by`, `lead_time`, `updated_at`).

One record can hold a class, a rating and a text, which are three labels; or a skip (somebody else may have the row) or
an ignore (nobody should), which replace them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO

import orjson

from storage.errors import BadInput
from storage.files import readers
from storage.files.blocks import Damage
from storage.files.readers import Bad, excerpt
from storage.pool.record_formats import MISSING, has_field, kind_of, value_at

# What a mapping may state -> the names that are looked for without one, the first that has a value. `text` is not
# looked for under its own name: that is what files call the text to be labelled.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("winnow_id", "id"),
    "label": ("label", "class"),
    "annotator": ("annotator", "completed_by"),
    "confidence": ("confidence",),
    "seconds": ("seconds", "lead_time"),
    "cost": ("cost",),
    "time": ("updated_at", "created_at", "time", "timestamp"),
    "rating": ("rating",),
    "text": ("comment",),
    "skip": ("skip", "was_cancelled"),
    "ignore": ("ignore",),
    "round": ("round", "round_id"),
    "state": ("answer", "status", "annotation_status"),
}
# Who gave a label that names nobody.
UNKNOWN = "unknown"

# What the tools say of an answer that is none: Prodigy (answer), Argilla and doccano (status), Label Studio. Any other
# value, such as `accept`, `submitted` or the text of an answer, leaves the label as it is.
_STATES = {
    "reject": "rejected",
    "rejected": "rejected",
    "ignore": "ignore",
    "ignored": "ignore",
    "discard": "ignore",
    "discarded": "ignore",
    "skip": "skip",
    "skipped": "skip",
    "cancelled": "skip",
    "canceled": "skip",
    "draft": "waiting",
    "pending": "waiting",
    "in_progress": "waiting",
}
# Larger numbers are mistakes, and their sum may be infinite.
_LARGEST = 1e12

_YES = frozenset({"true", "1", "yes", "y", "x", "skip", "ignore"})
_NO = frozenset({"false", "0", "no", "n", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One label as a file gives it.

    Attributes:
        line: of the file, or the number of the record.
        name: what the file calls the row: winnow's id, or the row's own id.
        kind: "class", "rating", "text", "skip" or "ignore".
        label: the class or the text.
        created_at: in UTC, without saying so.
        shown: the text that the record says was labelled, None if it says nothing.
        record: where it stands, for an excerpt.
    """

    line: int
    name: str
    kind: str
    annotator: str
    label: str | None = None
    rating: float | None = None
    confidence: float | None = None
    seconds: float | None = None
    cost: float | None = None
    created_at: datetime | None = None
    round_id: str | None = None
    shown: str | None = field(default=None, compare=False)
    record: Any = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class LabelFile:
    """The content of a label file.

    Attributes:
        labels: in the order of the file.
        bad: records that are no label, with the cause.
        read: records, blank lines apart.
        unlabelled: rows of a batch that wait for their label, and tasks without annotations.
        damage: why nothing of the file was taken: a label out of a damaged file may be wrong.
    """

    labels: list[Label] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    read: int = 0
    unlabelled: int = 0
    damage: str | None = None


class _NoLabel(ValueError):
    """A record that is no label; the message is the cause."""


class _Waiting(Exception):
    """A row of a batch that has no label yet."""


def check_label_fields(fields: Mapping[str, str], where: str) -> None:
    """Refuse a stated mapping that cannot be meant.

    Raises:
        BadInput: an unknown name.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise BadInput(f"{where}: fields: unknown name {unknown[0]!r}; known are {', '.join(FIELDS)}")


def read_label_file(
    file: BinaryIO, url: str, *, classes: Sequence[str], fields: Mapping[str, str] | None = None
) -> LabelFile:
    """The labels of an open file.

    Args:
        file: opened for reading bytes, at its beginning; plain, gzip or zstd.
        url: its name, which tells JSON and CSV apart.
        classes: the names that a class label may have.
        fields: what the user stated, a name out of `FIELDS` -> the record's field (dots lead into nested objects); in
            tasks of Label Studio, of `label`, `rating` and `text` the name of the control, and of `id` the field of
            `data`.

    Raises:
        BadInput: nothing here reads such a file, or a stated field is in no record.

    Cost: the file's records in memory.
    """
    stated = dict(fields or {})
    check_label_fields(stated, url)
    result = LabelFile()
    reader = _Reader(stated, frozenset(classes), is_csv=readers.extension(url) in (".csv", ".tsv"))
    try:
        for chunk in readers.read(file, url):
            result.bad += chunk.bad
            result.read += len(chunk.records) + len(chunk.bad)
            for line, record in zip(chunk.lines, chunk.records, strict=True):
                reader.read(result, line, record)
    except Damage as damage:
        bad = Bad(damage.line + 1, damage.cause, "")
        if damage.fatal:
            return LabelFile(bad=[bad], read=result.read, damage=damage.cause)
        result.bad.append(bad)
    for name, at in reader.unseen.items():
        if result.read:
            keys = ", ".join(sorted(reader.keys)[:30]) or "none"
            raise BadInput(f"{url}: fields.{name}: no record has a field {at!r}; found: {keys}")
    result.bad.sort(key=lambda bad: bad.line)
    return result


class _Reader:
    """How the records of one file become labels."""

    def __init__(self, stated: Mapping[str, str], classes: frozenset[str], *, is_csv: bool) -> None:
        self.names = {name: (stated[name],) if name in stated else names for name, names in FIELDS.items()}
        self.stated, self.classes, self.is_csv = stated, classes, is_csv
        self.unseen = dict(stated)
        self.keys: set[str] = set()

    def read(self, result: LabelFile, line: int, record: Any) -> None:
        """Add the labels of one record."""
        if not isinstance(record, dict):
            result.bad.append(Bad(line, f"{kind_of(record)}, not an object with fields", excerpt(record)))
        elif isinstance(record.get("annotations"), list) and isinstance(record.get("data"), dict):
            self.unseen.clear()  # the names of controls, which a task without annotations does not show
            result.unlabelled += not record["annotations"]
            for entry in record["annotations"]:
                self._add(result, line, entry, partial(self._annotation, record["data"], entry))
        else:
            self.keys.update(list(record)[:100])
            self.unseen = {name: at for name, at in self.unseen.items() if not has_field(list(record), at)}
            values = {name: self._first(record, names) for name, names in self.names.items()}
            values["shown"] = self._shown(record)
            self._add(result, line, record, partial(self._labels, values))

    def _add(self, result: LabelFile, line: int, entry: Any, labels: Callable[[], list[Label]]) -> None:
        try:
            result.labels += [replace(label, line=line, record=entry) for label in labels()]
        except _Waiting:
            result.unlabelled += 1
        except _NoLabel as cause:
            result.bad.append(Bad(line, str(cause), excerpt(entry)))

    def _annotation(self, data: Mapping[str, Any], entry: Any) -> list[Label]:
        if not isinstance(entry, dict):
            raise _NoLabel("an annotation is not an object")
        plain = ("annotator", "seconds", "time", "skip", "confidence", "cost", "state")
        fields = {name: self._first(entry, self.names[name]) for name in plain}
        fields |= {name: self._first(data, self.names[name]) for name in ("id", "round")} | {"shown": self._shown(data)}
        results = entry.get("result") or []
        if not isinstance(results, list):
            raise _NoLabel("the results of the annotation are not a list")
        for result in results:
            if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
                raise _NoLabel("a result of the annotation is not an object with a value")
            control = result.get("from_name")
            name = "ignore" if control == "ignore" else _RESULTS.get(str(result.get("type")))
            if name is None or control != self.stated.get(name, control):
                continue
            if name in fields:
                raise _NoLabel(f"two answers of the type {result['type']}; fields.{name} says which control counts")
            fields[name] = result["value"]
        return self._labels(fields)

    def _shown(self, record: Mapping[str, Any]) -> str | None:
        """The text that the record says was labelled, under the name that batches give it."""
        names = [name for name in ("text", "prompt") if name not in self.stated.values()]
        value = next((record[name] for name in names if isinstance(record.get(name), str)), None)
        return value[1:] if value and self.is_csv and value.startswith("'") else value

    def _first(self, record: Mapping[str, Any], names: Sequence[str]) -> Any:
        values = (value_at(record, name) for name in names)
        return next((value for value in values if value is not MISSING and value is not None and value != ""), None)

    def _labels(self, fields: Mapping[str, Any]) -> list[Label]:
        name = _plain_text(fields["id"], "id")
        if name is None:
            raise _NoLabel("no id")
        act = Label(
            line=0,
            name=name,
            kind="class",
            annotator=_annotator(fields["annotator"]),
            confidence=_number(fields["confidence"], "confidence", high=1.0),
            seconds=_number(fields["seconds"], "seconds"),
            cost=_number(fields["cost"], "cost"),
            created_at=_time(fields["time"]),
            round_id=_plain_text(fields["round"], "round"),
            shown=fields.get("shown"),
        )
        state = self._state(fields.get("state"))
        if state == "waiting":
            raise _Waiting
        if state == "rejected":
            raise _NoLabel("the answer is marked as rejected: it says what the row is not")
        marked = next((mark for mark in ("ignore", "skip") if state == mark or _yes(fields.get(mark), mark)), None)
        if marked:
            return [replace(act, kind=marked)]
        label = _plain_text(_answer(fields.get("label")), "label")
        rating = _number(_answer(fields.get("rating")), "rating", low=-math.inf)
        text = _free_text(fields.get("text"))
        labels = [replace(act, label=self._class(label))] if label is not None else []
        if rating is not None:
            labels.append(replace(act, kind="rating", rating=rating))
        if text is not None:
            labels.append(replace(act, kind="text", label=text))
        if not labels:
            raise _Waiting if act.round_id else _NoLabel("no label")
        # What the act took belongs to its first label, so that a sum counts it once.
        return labels[:1] + [replace(label, confidence=None, seconds=None, cost=None) for label in labels[1:]]

    def _state(self, value: Any) -> str | None:
        """What the tool says of the answer, if that is not simply an answer."""
        is_answer = "answer" in self.stated.values()  # then it is what the user calls the label
        return None if is_answer or not isinstance(value, str) else _STATES.get(value.strip().lower())

    def _class(self, label: str) -> str:
        # A spreadsheet shows a class that begins like a formula with an apostrophe in front, as the batch was written.
        if self.is_csv and label not in self.classes and label[:1] == "'":
            label = label[1:]
        if label not in self.classes:
            close = difflib.get_close_matches(label.lower(), [name.lower() for name in self.classes], n=1)
            meant = [name for name in self.classes if name.lower() in close]
            raise _NoLabel(f"unknown class {label[:60]!r}" + (f", close to {meant[0]!r}" if meant else ""))
        return label


_RESULTS = {"choices": "label", "rating": "rating", "textarea": "text"}


def _answer(value: Any) -> Any:
    """The one answer in what Label Studio wraps: `{"choices": ["a"]}`, `[{"rating": 4}]`; other values as they are."""
    if isinstance(value, dict) and len(kinds := [key for key in ("choices", "rating", "text") if key in value]) == 1:
        return _answer(value[kinds[0]])
    if isinstance(value, list):
        if len(value) > 1:
            raise _NoLabel(f"{len(value)} answers where one is meant")
        return _answer(value[0]) if value else None
    return value


def _plain_text(value: Any, name: str) -> str | None:
    """A name or number as text; None for nothing."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool | int | float):
        return orjson.dumps(value).decode()
    raise _NoLabel(f"{name} is {kind_of(value)}")


def _free_text(value: Any) -> str | None:
    """A text answer; several lines of one textarea one below the other."""
    if isinstance(value, dict):
        value = value.get("text")
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _NoLabel(f"text is {kind_of(value)}")
    return value.strip() or None


def _annotator(value: Any) -> str:
    """A name, a number, or Label Studio's object of a user."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("username") or value.get("id")
    return _plain_text(value, "annotator") or UNKNOWN


def _number(value: Any, name: str, *, low: float = 0.0, high: float = math.inf) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (abs(number) <= _LARGEST and low <= number <= high):
        allowed = "" if low == -math.inf else f" from {low:g}" if high == math.inf else f" from {low:g} to {high:g}"
        raise _NoLabel(f"{name} is not a number{allowed}: {excerpt(value)[:40]}")
    return number


def _yes(value: Any, name: str) -> bool:
    """Whether a mark is set."""
    text = str(_plain_text(_answer(value), name) or "").lower()
    if text not in _YES and text not in _NO:
        raise _NoLabel(f"{name} is {text[:40]!r}; write true or false")
    return text in _YES


def _time(value: Any) -> datetime | None:
    """ISO 8601, or seconds since 1970; a time that names no zone is UTC."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        moment = value
        if isinstance(value, str):
            with suppress(ValueError):
                moment = datetime.fromisoformat(value.strip())
        if not isinstance(moment, datetime):
            moment = datetime.fromtimestamp(float(value), UTC)
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError, OSError):
        raise _NoLabel(f"time is not a date and time: {excerpt(value)[:40]}") from None
