"""A batch of rows to label -> a file that people's tools open: JSON Lines, CSV or tasks of Label Studio.

The same batch gives the same bytes. Which arm drew a row, and which rows have a known answer, is not written: who
labels should not know.

In CSV, text that a spreadsheet would run as a formula gets an apostrophe in front; winnow reads back ids and labels
only, so that nothing is lost. Tools number their items in a field `id` of their own, so the row is named by `winnow_id`
as well; `given_id` is the id that it has in the user's file, and `text_digest` tells that an answer came back beside
the text that it was given for. Batches of version 1 have neither; those of version 2 do not say who labels and which
classes there are.
"""

from __future__ import annotations

import csv
import io
import re
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
# Of the fields that a batch has, see `write_batch`; a round keeps the one that it was sent out with.
VERSION = 3

# What a spreadsheet takes for the beginning of a formula, as OWASP lists it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """A row to label.

    Attributes:
        id: its 16 bytes.
        turns: its text.
        given_id: the id that it has in the user's file.
        round_id: the round that it is sent out in; None for one that no round sent.
        prediction, probability: the model's top class, None while there is no model.
        model: the model's id.
        annotator: who is to label it; None where the project names nobody.
        votes: what others say of it, for who decides.
    """

    id: bytes
    turns: Turns
    round_id: str | None
    given_id: str | None = None
    prediction: str | None = None
    probability: float | None = None
    model: str | None = None
    annotator: str | None = None
    votes: str | None = None


def write_batch(
    path: Path,
    format: str,  # noqa: A002
    items: Sequence[BatchItem],
    classes: Sequence[str],
    *,
    version: int = VERSION,
) -> list[Path]:
    """Write a batch; gives the files: one, and for Label Studio the labeling configuration beside it.

    Args:
        path: the file, whose extension becomes that of the format.
        format: "jsonl", "csv" or "label_studio".
        classes: the class names, in their order.
        version: of the batch's fields; 1 has neither `winnow_id` (but for Label Studio), `given_id` nor `text_digest`,
            and 2 neither classes nor annotator (but for an empty column in CSV).

    Raises:
        BadInput: an unknown format, or a class name with control characters, which no configuration can hold.
    """
    if format not in FORMATS:
        raise BadInput(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if format == "label_studio":
        tasks, config = path.with_suffix(".json"), path.with_suffix(".xml")
        write_durably(config, labeling_config(classes, votes=any(item.votes for item in items)))
        write_durably(
            tasks, orjson.dumps([_task(item, version) for item in items], option=orjson.OPT_INDENT_2).decode() + "\n"
        )
        return [tasks, config]
    path = path.with_suffix(f".{format}")
    write_durably(path, (_csv if format == "csv" else _json_lines)(items, classes, version))
    return [path]


def labeling_config(classes: Sequence[str], *, votes: bool = False) -> str:
    """The labeling configuration of a Label Studio project with these classes; it may show what others say.

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
    said = '  <Text name="votes" value="$votes"/>\n' if votes else ""
    return (
        f'<View>\n  <Text name="prompt" value="$prompt"/>\n  <Text name="response" value="$response"/>\n{said}'
        f'  <Choices name="label" toName="prompt" choice="single" showInline="true">\n{choices}  </Choices>\n'
        '  <Choices name="ignore" toName="prompt" choice="multiple">\n    <Choice value="ignore"/>\n  </Choices>\n'
        "</View>\n"
    )


def file_name_of(annotator: str) -> str:
    """An annotator's name as the end of a file name: letters, digits, `_`, `@` and `-`.

    >>> file_name_of("Ann Lee"), file_name_of("../ann@x.org")
    ('Ann-Lee', '-ann@x-org')
    """
    return re.sub(r"[^\w@-]+", "-", annotator)


def text_digest(row_id: bytes) -> str:
    """A short digest of a row's text, for people's files: of its id, which is a digest of the text.

    It begins with a letter, so that no spreadsheet takes it for a number.

    >>> text_digest(bytes(16))
    't000000000000'
    """
    return f"t{row_id.hex()[-12:]}"


def shown_texts(turns: Turns) -> dict[str, str]:
    """The text of a row as it is shown: a single text, or what was asked and the last answer."""
    if turns[0][0] == "text":
        return {"text": turns[0][1]}
    *context, last = turns
    if last[0] != "assistant":
        context, last = list(turns), ("assistant", "")
    plain = len(context) == 1 and context[0][0] == "user"
    prompt = context[0][1] if plain else "\n\n".join(f"{role}: {content}" for role, content in context)
    return {"prompt": prompt, "response": last[1]}


def _names(item: BatchItem, version: int) -> dict[str, Any]:
    """The names of an item's row."""
    name = str(UUID(bytes=item.id))
    return {"id": name} if version == 1 else {"winnow_id": name, "id": name, "given_id": item.given_id}


def _sent(item: BatchItem, version: int) -> dict[str, Any]:
    """What was sent out, to check what comes back."""
    digest = {} if version == 1 else {"text_digest": text_digest(item.id)}
    return {"round": item.round_id, **digest}


def _votes(item: BatchItem) -> dict[str, Any]:
    return {} if item.votes is None else {"votes": item.votes}


def _predicted(item: BatchItem) -> dict[str, Any]:
    return {"prediction": item.prediction, "probability": _plain(item.probability)}


def _plain(number: float | None) -> float | None:
    """Six digits: what a float32 is good for, and the same text everywhere."""
    return None if number is None else round(float(number), 6)


def _json_lines(items: Sequence[BatchItem], classes: Sequence[str], version: int) -> str:
    lines = []
    for item in items:
        row = _names(item, version) | shown_texts(item.turns) | _votes(item)
        if len(item.turns) > 2:
            row["messages"] = [{"role": role, "content": content} for role, content in item.turns]
        answer = (
            {"label": None} if version < 3 else {"classes": list(classes), "label": None, "annotator": item.annotator}
        )
        lines.append(orjson.dumps(row | _predicted(item) | _sent(item, version) | answer))
    return "".join(f"{line.decode()}\n" for line in lines)


_TEXT_COLUMNS = ("text", "prompt", "response", "votes")
_PREDICTED = ("prediction", "probability")
_ANSWER = ("label", "annotator", "comment")
# What stands before the texts and behind the prediction.
_ID_COLUMNS = {1: ("id",), 2: ("winnow_id", "id", "given_id"), 3: ("winnow_id", "id", "given_id")}
_SENT_COLUMNS = {1: ("round",), 2: ("round", "text_digest"), 3: ("round", "text_digest", "classes")}


def _csv(items: Sequence[BatchItem], classes: Sequence[str], version: int) -> str:
    answer = {} if version < 3 else {"classes": " | ".join(classes)}
    rows = [
        _names(item, version)
        | shown_texts(item.turns)
        | _votes(item)
        | _predicted(item)
        | _sent(item, version)
        | answer
        | {"annotator": item.annotator}
        for item in items
    ]
    filled = {name for row in rows for name, value in row.items() if value is not None}
    texts = [name for name in _TEXT_COLUMNS if name in filled]
    columns = [*_ID_COLUMNS[version], *texts, *_PREDICTED, *_SENT_COLUMNS[version], *_ANSWER]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows({name: no_formula(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def no_formula(value: Any) -> Any:
    """A cell as a spreadsheet takes it for text: with an apostrophe before what it would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _task(item: BatchItem, version: int) -> Mapping[str, Any]:
    row = shown_texts(item.turns)
    names = _names(item, VERSION)
    if version == 1:
        del names["given_id"]
    # A configuration may name only what every task has, so a single text is a prompt without a response.
    shown = {"prompt": row.get("prompt", row.get("text")), "response": row.get("response", "")}
    person = {} if item.annotator is None else {"assigned_to": item.annotator}
    task: dict[str, Any] = {"data": names | shown | _votes(item) | _sent(item, version) | person}
    if item.prediction is not None:
        choice = {"from_name": "label", "to_name": "prompt", "type": "choices", "value": {"choices": [item.prediction]}}
        score = _plain(item.probability)
        task["predictions"] = [{"model_version": item.model or "", "score": score, "result": [choice]}]
    return task
