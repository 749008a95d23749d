"""A batch of rows to label -> a file that people's tools open: JSON Lines, CSV or tasks of Label Studio.

The same batch gives the same bytes. Which arm drew a row, and which rows have a known answer, is not written: who
labels should not know.

Tools overwrite a field `id` with numbers of their own, so the row is named by `winnow_id` as well.

In CSV, text that a spreadsheet would run as a formula gets an apostrophe in front; winnow reads back ids and labels
only, so that nothing is lost. Label Studio numbers its tasks in a field `id` of its own, so the row is named by
`winnow_id` as well.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.sax.saxutils import quoteattr

import orjson

from storage.errors import BadInput
from storage.pool.content import Turns
from storage.store import write_durably

FORMATS = ("jsonl", "csv", "label_studio")

# What a spreadsheet takes for the beginning of a formula, as OWASP lists it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """A row to label.

    Attributes:
        id: its 16 bytes.
        turns: its text.
        round_id: the round that it is sent out in.
        prediction, probability: the model's top class, None while there is no model.
        model: the model's id.
    """

    id: bytes
    turns: Turns
    round_id: str
    prediction: str | None = None
    probability: float | None = None
    model: str | None = None


def write_batch(path: Path, format: str, items: Sequence[BatchItem], classes: Sequence[str]) -> list[Path]:  # noqa: A002
    """Write a batch; gives the files: one, and for Label Studio the labeling configuration beside it.

    Args:
        path: the file, whose extension becomes that of the format.
        format: "jsonl", "csv" or "label_studio".
        classes: the class names, in their order.

    Raises:
        BadInput: an unknown format, or a class name with control characters, which no configuration can hold.
    """
    if format not in FORMATS:
        raise BadInput(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if format == "label_studio":
        tasks, config = path.with_suffix(".json"), path.with_suffix(".xml")
        write_durably(config, labeling_config(classes))
        write_durably(tasks, orjson.dumps([_task(item) for item in items], option=orjson.OPT_INDENT_2).decode() + "\n")
        return [tasks, config]
    path = path.with_suffix(f".{format}")
    write_durably(path, _csv(items) if format == "csv" else _json_lines(items))
    return [path]


def labeling_config(classes: Sequence[str]) -> str:
    """The labeling configuration of a Label Studio project with these classes.

    Raises:
        BadInput: a class name with control characters.

    >>> print(labeling_config(["card", "<other>"]))
    <View>
      <Text name="prompt" value="$prompt"/>
      <Text name="response" value="$response"/>
      <Choices name="label" toName="prompt" choice="single" showInline="true">
        <Choice value="card"/>
        <Choice value="&lt;other&gt;"/>
      </Choices>
      <Choices name="ignore" toName="prompt" choice="multiple">
        <Choice value="ignore"/>
      </Choices>
    </View>
    <BLANKLINE>
    """
    for name in classes:
        if not name.isprintable():
            raise BadInput(f"class {name!r} holds a control character, which a labeling configuration cannot")
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in classes)
    return (
        '<View>\n  <Text name="prompt" value="$prompt"/>\n  <Text name="response" value="$response"/>\n'
        f'  <Choices name="label" toName="prompt" choice="single" showInline="true">\n{choices}  </Choices>\n'
        '  <Choices name="ignore" toName="prompt" choice="multiple">\n    <Choice value="ignore"/>\n  </Choices>\n'
        "</View>\n"
    )


def _row(item: BatchItem) -> dict[str, Any]:
    """The id and text of an item as they are shown: a single text, or what was asked and the last answer."""
    ids = dict.fromkeys(("id", "winnow_id"), str(UUID(bytes=item.id)))
    if item.turns[0][0] == "text":
        return {**ids, "text": item.turns[0][1]}
    *context, last = item.turns
    if last[0] != "assistant":
        context, last = item.turns, ("assistant", "")
    plain = len(context) == 1 and context[0][0] == "user"
    prompt = context[0][1] if plain else "\n\n".join(f"{role}: {content}" for role, content in context)
    return {**ids, "prompt": prompt, "response": last[1]}


def _predicted(item: BatchItem) -> dict[str, Any]:
    return {"prediction": item.prediction, "probability": _plain(item.probability)}


def _plain(number: float | None) -> float | None:
    """Six digits: what a float32 is good for, and the same text everywhere."""
    return None if number is None else round(float(number), 6)


def _json_lines(items: Sequence[BatchItem]) -> str:
    lines = []
    for item in items:
        row = _row(item)
        if len(item.turns) > 2:
            row["messages"] = [{"role": role, "content": content} for role, content in item.turns]
        lines.append(orjson.dumps(row | _predicted(item) | {"round": item.round_id, "label": None}))
    return "".join(f"{line.decode()}\n" for line in lines)


_TEXT_COLUMNS = ("text", "prompt", "response")
_CSV_COLUMNS = (
    "id",
    "winnow_id",
    *_TEXT_COLUMNS,
    "prediction",
    "probability",
    "round",
    "label",
    "annotator",
    "comment",
)


def _csv(items: Sequence[BatchItem]) -> str:
    rows = [_row(item) | _predicted(item) | {"round": item.round_id} for item in items]
    filled = {name for row in rows for name, value in row.items() if value is not None}
    columns = [name for name in _CSV_COLUMNS if name in filled or name not in _TEXT_COLUMNS]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _task(item: BatchItem) -> Mapping[str, Any]:
    row = _row(item)
    # A configuration may name only what every task has, so a single text is a prompt without a response.
    shown = {"prompt": row.get("prompt", row.get("text")), "response": row.get("response", "")}
    task: dict[str, Any] = {"data": {"id": row["id"], "winnow_id": row["id"], **shown, "round": item.round_id}}
    if item.prediction is not None:
        choice = {"from_name": "label", "to_name": "prompt", "type": "choices", "value": {"choices": [item.prediction]}}
        score = _plain(item.probability)
        task["predictions"] = [{"model_version": item.model or "", "score": score, "result": [choice]}]
    return task
