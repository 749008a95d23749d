from __future__ import annotations

import csv
import io
import json
import uuid
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.labels.batches import FORMATS, BatchItem, labeling_config, write_batch
from storage.labels.files import Address, read_label_file

A, B, C = (bytes([number]) * 16 for number in (1, 2, 3))
NAME = {key: str(uuid.UUID(bytes=key)) for key in (A, B, C)}
CLASSES = ["card", '<b> & "x"', "=1"]
ITEMS = [
    BatchItem(
        id=A, turns=[("user", "=HYPERLINK(1)"), ("assistant", "x,\ny")], round_id="R", given_id="=7",
        prediction="=1", probability=0.7, model="m", annotator="ann",
    ),
    BatchItem(id=B, turns=[("text", "+alone")], round_id="R"),
    BatchItem(
        id=C, turns=[("system", "be kind"), ("user", "why?"), ("assistant", "so"), ("user", "oh")], round_id="R", prediction="card"
    ),
]  # fmt: skip


def written(path: Path, kind: str, items: list[BatchItem] = ITEMS) -> list[Path]:
    return write_batch(path / "round-0", kind, items, CLASSES)


def test_write__json_lines(tmp_path: Path) -> None:
    (file,) = written(tmp_path, "jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows[:2] == [
        {
            "winnow_id": NAME[A], "id": NAME[A], "given_id": "=7", "prompt": "=HYPERLINK(1)", "response": "x,\ny",
            "prediction": "=1", "probability": 0.7, "round": "R", "text_digest": "t010101010101", "classes": CLASSES,
            "label": None, "annotator": "ann",
        },
        {
            "winnow_id": NAME[B], "id": NAME[B], "given_id": None, "text": "+alone",
            "prediction": None, "probability": None, "round": "R", "text_digest": "t020202020202", "classes": CLASSES,
            "label": None, "annotator": None,
        },
    ]  # fmt: skip
    assert rows[2]["prompt"] == "system: be kind\n\nuser: why?\n\nassistant: so\n\nuser: oh"
    assert rows[2]["messages"][3] == {"role": "user", "content": "oh"}
    assert file.name == "round-0.jsonl"


def test_write__csv_runs_no_formula(tmp_path: Path) -> None:
    (file,) = written(tmp_path, "csv")
    text = file.read_text()
    ids, sent = "winnow_id,id,given_id", "round,text_digest,classes"
    assert text.splitlines()[0] == f"{ids},text,prompt,response,prediction,probability,{sent},label,annotator,comment"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert (rows[0]["prompt"], rows[0]["response"], rows[0]["prediction"]) == ("'=HYPERLINK(1)", "x,\ny", "'=1")
    assert (rows[0]["winnow_id"], rows[0]["given_id"], rows[1]["given_id"]) == (NAME[A], "'=7", "")
    assert {row["classes"] for row in rows} == {'card | <b> & "x" | =1'}
    assert [row["annotator"] for row in rows] == ["ann", "", ""]
    assert (rows[1]["text"], rows[1]["label"], rows[1]["probability"]) == ("'+alone", "", "")


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4))
def test_write__no_cell_begins_like_a_formula(tmp_path_factory: Any, texts: list[tuple[str, str]]) -> None:
    items = [BatchItem(id=A, turns=[("user", p), ("assistant", r)], round_id="R", prediction=p) for p, r in texts]
    (file,) = written(tmp_path_factory.mktemp("csv"), "csv", items)
    cells = [cell for row in csv.reader(io.StringIO(file.read_bytes().decode(), newline="")) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert len(cells) == (len(texts) + 1) * 13 if texts else 11


def test_write__tasks_and_configuration_of_label_studio(tmp_path: Path) -> None:
    tasks, config = written(tmp_path, "label_studio")
    assert (tasks.name, config.name) == ("round-0.json", "round-0.xml")
    result = json.loads(tasks.read_text())
    assert result[0] == {
        "data": {
            "winnow_id": NAME[A],
            "id": NAME[A],
            "given_id": "=7",
            "prompt": "=HYPERLINK(1)",
            "response": "x,\ny",
            "round": "R",
            "text_digest": "t010101010101",
            "assigned_to": "ann",
        },
        "predictions": [
            {
                "model_version": "m",
                "score": 0.7,
                "result": [
                    {"from_name": "label", "to_name": "prompt", "type": "choices", "value": {"choices": ["=1"]}}
                ],
            }
        ],
    }
    assert (result[1]["data"]["prompt"], result[1]["data"]["response"]) == ("+alone", "")
    assert "predictions" not in result[1]
    tree = ET.fromstring(config.read_text())
    label = next(tag for tag in tree.iter("Choices") if tag.get("name") == "label")
    assert [choice.get("value") for choice in label] == CLASSES
    shown = {tag.get("value", "").removeprefix("$") for tag in tree.iter("Text")}
    assert all(shown <= set(task["data"]) for task in result)


@pytest.mark.parametrize("kind", FORMATS)
def test_write__who_decides_sees_the_votes(tmp_path: Path, kind: str) -> None:
    item = BatchItem(id=B, turns=[("text", "alone")], round_id=None, annotator="eve", votes="ann: card; bob: =1")
    (file, *config) = written(tmp_path, kind, [item])
    assert "ann: card; bob: =1" in file.read_text()
    assert all('value="$votes"' in beside.read_text() for beside in config)
    if not config:
        with file.open("rb") as opened:  # without a round, still a row that waits
            result = read_label_file(opened, file.name, classes=CLASSES)
        assert (result.bad, result.unlabelled) == ([], 1)


def test_write__the_batch_of_an_earlier_version_stays_what_it_was(tmp_path: Path) -> None:
    files = {kind: write_batch(tmp_path / kind, kind, ITEMS[1:2], CLASSES, version=1)[0] for kind in FORMATS}
    assert json.loads(files["jsonl"].read_text()) == {
        "id": NAME[B], "text": "+alone", "prediction": None, "probability": None, "round": "R", "label": None,
    }  # fmt: skip
    assert files["csv"].read_text().splitlines()[0] == "id,text,prediction,probability,round,label,annotator,comment"
    before_classes = write_batch(tmp_path / "2", "jsonl", ITEMS[1:2], CLASSES, version=2)[0]
    assert json.loads(before_classes.read_text()) == {
        "winnow_id": NAME[B], "id": NAME[B], "given_id": None, "text": "+alone", "prediction": None, "probability": None,
        "round": "R", "text_digest": "t020202020202", "label": None,
    }  # fmt: skip
    data = json.loads(files["label_studio"].read_text())[0]["data"]
    assert data == {"id": NAME[B], "winnow_id": NAME[B], "prompt": "+alone", "response": "", "round": "R"}


@pytest.mark.parametrize("kind", FORMATS)
def test_write__the_same_batch_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    first = [file.read_bytes() for file in written(tmp_path, kind)]
    assert [file.read_bytes() for file in written(tmp_path, kind)] == first
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(file.name for file in written(tmp_path, kind))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("items", [[], ITEMS])
def test_write__a_batch_nobody_touched_has_no_labels(tmp_path: Path, kind: str, items: list[BatchItem]) -> None:
    (file, *_) = written(tmp_path, kind, items)
    tasks = json.loads(file.read_text()) if kind == "label_studio" else None
    if tasks is not None:  # an export has the annotations beside
        file.write_text(json.dumps([task | {"annotations": []} for task in tasks]))
    with file.open("rb") as opened:
        result = read_label_file(opened, file.name, classes=CLASSES)
    assert (result.labels, result.bad, result.unlabelled) == ([], [], len(items))


def test_write__an_annotators_csv_comes_back(tmp_path: Path) -> None:
    (file,) = written(tmp_path, "csv")
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    for row, label in zip(rows, ["'=1", "card", '<b> & "x"'], strict=True):
        row |= {"label": label, "annotator": "ann", "comment": "'-)"}
    back = io.StringIO()
    writer = csv.DictWriter(back, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    result = read_label_file(io.BytesIO(back.getvalue().encode()), "back.csv", classes=CLASSES)
    assert result.labels[0].address == Address(
        winnow_id=NAME[A], given_id="=7", text_digest="t010101010101", texts=("'=HYPERLINK(1)", "x,\ny")
    )
    classes = [(label.name, label.label, label.round_id) for label in result.labels if label.kind == "class"]
    assert classes == [(NAME[A], "=1", "R"), (NAME[B], "card", "R"), (NAME[C], '<b> & "x"', "R")]


def test_write__what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="format must be one of jsonl, csv, label_studio, got 'xml'"):
        write_batch(tmp_path / "b", "xml", ITEMS, CLASSES)
    with pytest.raises(BadInput, match="control character"):
        labeling_config(["a\x00b"])
