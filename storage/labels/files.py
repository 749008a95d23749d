"""A file of labels -> labels, and the records that are none.

The file is JSON Lines, a JSON array or CSV. Each record has one of three formats:

- plain: one label a record, for example `{"id": ..., "label": "billing", "annotator": "ann", "seconds": 4.2}`;
- a Label Studio task: `data` and `annotations`, whose results of the types choices, rating and textarea count;
- Label Studio's JSON-MIN and CSV, which are plain with its own names (`completed_by`, `lead_time`, `updated_at`).

One record can hold a class, a rating and a text, which are three labels; or a skip (somebody else may have the row) or
an ignore (nobody should), which replace them. What a tool says of the answer itself counts too (`verdicts`): a draft is
no label yet, a rejected answer is none.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, BinaryIO

import orjson

from storage.errors import BadInput
from storage.files import readers
from storage.files.blocks import Damage
from storage.files.readers import Bad, excerpt
from storage.labels import verdicts
from storage.labels.verdicts import Verdict
from storage.pool.keys import WINNOW_ID
from storage.pool.record_formats import MISSING, has_field, kind_of, value_at

# What a mapping may state -> the names that are looked for without one, the first that has a value. `text` is not
# looked for under its own name: that is what files call the text to be labelled.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("winnow_id", "meta.winnow_id", "metadata.winnow_id", "id", "given_id"),
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
    "round": ("round", "round_id", "meta.round", "metadata.round"),
    "text_digest": ("text_digest", "meta.text_digest", "metadata.text_digest"),
    "status": ("answer", "status", "annotation_status", "response_status", "last_action"),
}
# The fields of a batch that show the row's text.
TEXTS = ("text", "prompt", "response")
# Who gave a label that names nobody.
UNKNOWN = "unknown"
# More than any label costs or takes; sums of such numbers stay finite.
MAX_NUMBER = 1e15

_YES = frozenset({"true", "1", "yes", "y", "x", "skip", "ignore"})
_NO = frozenset({"false", "0", "no", "n", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What a record says of the row that it labels.

    Attributes:
        winnow_id: of a field of this name.
        id: winnow's id, the row's own id, or a number that a tool gave.
        given_id: the row's own id, as a batch has it.
        text_digest: as a batch has it.
        texts: the row's text, as far as the record repeats it.
    """

    winnow_id: str | None = None
    id: str | None = None
    given_id: str | None = None
    text_digest: str | None = None
    texts: tuple[str, ...] = ()

    @property
    def name(self) -> str | None:
        """What the record calls the row."""
        return self.winnow_id or self.id or self.given_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One label as a file gives it.

    Attributes:
        line: of the file, or the number of the record.
        name: what the file calls the row: winnow's id, or the row's own id.
        kind: "class", "rating", "text", "skip" or "ignore".
        label: the class or the text.
        created_at: in UTC, without saying so.
        address: all that the record says of the row.
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
    address: Address = field(default=Address(), repr=False, compare=False)
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
        self.used = set(stated.values())
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
            values = {name: self._first(record, names) for name, names in self.names.items() if name != "status"}
            values["status"] = self._status(record, values["label"])
            self._add(result, line, record, partial(self._labels, values, record))

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
        plain = ("annotator", "seconds", "time", "skip", "confidence", "cost")
        fields = {name: self._first(entry, self.names[name]) for name in plain}
        fields |= {name: self._first(data, self.names[name]) for name in ("round", "text_digest")}
        fields["status"] = self._status(entry, None)
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
        return self._labels(fields, data)

    def _first(self, record: Mapping[str, Any], names: Sequence[str]) -> Any:
        values = (value_at(record, name) for name in names)
        return next((value for value in values if value is not MISSING and value is not None and value != ""), None)

    def _status(self, record: Mapping[str, Any], label: Any) -> Verdict | None:
        """What the record says of its answer, where it says that it is none."""
        names = [name for name in self.names["status"] if name == self.stated.get("status") or name not in self.used]
        values = ((name, value_at(record, name)) for name in names)
        words = [(name, value) for name, value in values if isinstance(value, str) and value != label]
        marks = [(name, record.get(name)) for name in verdicts.MARKS if name not in self.used]
        return verdicts.verdict(words, marks)

    def _address(self, record: Mapping[str, Any], fields: Mapping[str, Any]) -> Address:
        by_name: dict[str, str] = {}
        for at in self.names["id"]:
            if WINNOW_ID in by_name and at == "id":
                continue  # a number of the tool
            if (text := _plain_text(self._first(record, (at,)), at)) is not None:
                kind = at.rpartition(".")[2]
                by_name.setdefault(kind if kind in (WINNOW_ID, "given_id") else "id", text)
        if not by_name:
            raise _NoLabel("no id")
        if self.is_csv and by_name.get("given_id", "")[:1] == "'":
            by_name["given_id"] = by_name["given_id"][1:]
        shown = [record.get(name) for name in TEXTS if name not in self.used]
        return Address(
            **by_name,
            text_digest=_plain_text(fields["text_digest"], "text_digest"),
            texts=tuple(text for text in shown if isinstance(text, str) and text.strip()),
        )

    def _labels(self, fields: Mapping[str, Any], row: Mapping[str, Any]) -> list[Label]:
        """The labels of one act, whose row another part of the record may describe."""
        if (status := fields["status"]) is not None and status.kind == "waiting":
            raise _Waiting
        address = self._address(row, fields)
        act = Label(
            line=0,
            name=address.name or "",
            address=address,
            kind="class",
            annotator=_annotator(fields["annotator"]),
            confidence=_number(fields["confidence"], "confidence", high=1.0),
            seconds=_number(fields["seconds"], "seconds"),
            cost=_number(fields["cost"], "cost"),
            created_at=_time(fields["time"]),
            round_id=_plain_text(fields["round"], "round"),
        )
        if status is not None and status.kind == "rejected":
            raise _NoLabel(status.cause)
        marked = next((mark for mark in ("ignore", "skip") if _yes(fields.get(mark), mark)), None)
        marked = marked or (None if status is None else "skip")
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
            raise _Waiting if act.round_id or address.text_digest else _NoLabel("no label")
        # What the act took belongs to its first label, so that a sum counts it once.
        return labels[:1] + [replace(label, confidence=None, seconds=None, cost=None) for label in labels[1:]]

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
    while isinstance(value, list | dict):
        if isinstance(value, dict):
            kinds = [key for key in ("choices", "rating", "text") if key in value]
            if len(kinds) != 1:
                return value
            value = value[kinds[0]]
            continue
        if len(value) > 1:
            raise _NoLabel(f"{len(value)} answers where one is meant")
        value = value[0] if value else None
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
    if not (math.isfinite(number) and low <= number <= high):
        allowed = "" if low == -math.inf else f" from {low:g}" if high == math.inf else f" from {low:g} to {high:g}"
        raise _NoLabel(f"{name} is not a number{allowed}: {excerpt(value)[:40]}")
    if abs(number) > MAX_NUMBER:
        raise _NoLabel(f"{name} is beyond {MAX_NUMBER:g}: {excerpt(value)[:40]}")
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
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001
        if not isinstance(moment, datetime):
            moment = datetime.fromtimestamp(float(value), UTC)
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError, OSError):
        raise _NoLabel(f"time is not a date and time: {excerpt(value)[:40]}") from None
