from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.labels.batches import labeling_config
from storage.labels.files import FIELDS, UNKNOWN, Label, LabelFile, read_label_file

at = datetime.fromisoformat
CLASSES = ["a", "b", "3", "=x"]


def read(text: str | bytes, url: str = "l.jsonl", **options: Any) -> LabelFile:
    data = text.encode() if isinstance(text, str) else text
    return read_label_file(io.BytesIO(data), url, **({"classes": CLASSES} | options))


def read_one(record: Any, **options: Any) -> LabelFile:
    return read(json.dumps(record), **options)


def labels_of(result: LabelFile) -> list[tuple[Any, ...]]:
    """What each label says, the first letters of what it is."""
    return [(label.name, label.kind, label.label if label.rating is None else label.rating) for label in result.labels]


def task(*results: Any, data: Any = None, **annotation: Any) -> dict[str, Any]:
    """A task of Label Studio with one annotation, as its JSON export has it."""
    about = {"completed_by": 1, "was_cancelled": False, "lead_time": 2.5, "created_at": "2026-03-01T10:00:00.000000Z"}
    return {
        "id": 77,
        "data": {"id": "r1", "round": "R", "prompt": "p"} if data is None else data,
        "annotations": [{"id": 5, "result": list(results)} | about | annotation],
        "predictions": [{"result": [choice("b")], "score": 0.5}],
    }


def choice(*names: str, control: str = "label") -> dict[str, Any]:
    return {"from_name": control, "to_name": "prompt", "type": "choices", "value": {"choices": list(names)}}


# ---- plain records


def test_read__every_field_of_a_label() -> None:
    record = {
        "id": "r1",
        "label": " a ",
        "annotator": "ann",
        "confidence": 0.9,
        "seconds": 3,
        "cost": 0.5,
        "time": "2026-03-01T11:00:00+01:00",
        "round": "R",
        "text": "the text to be labelled is not a label",
    }
    (label,) = read_one(record).labels
    assert label == Label(
        line=1,
        name="r1",
        kind="class",
        annotator="ann",
        label="a",
        confidence=0.9,
        seconds=3.0,
        cost=0.5,
        created_at=at("2026-03-01 10:00"),
        round_id="R",
    )


def test_read__class_rating_and_text_of_one_record_are_three_labels_and_what_it_took_counts_once() -> None:
    result = read_one({"id": "r1", "label": "b", "rating": "4", "comment": " so so ", "seconds": 7, "cost": 1})
    assert labels_of(result) == [("r1", "class", "b"), ("r1", "rating", 4.0), ("r1", "text", "so so")]
    assert [(label.seconds, label.cost) for label in result.labels] == [(7.0, 1.0), (None, None), (None, None)]


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"skip": True, "label": "a"}, "skip"),
        ({"skip": "yes"}, "skip"),
        ({"ignore": 1, "skip": True, "label": "a"}, "ignore"),
        ({"skip": False, "ignore": "", "label": "a"}, "class"),
        ({"skip": "0", "ignore": "no", "label": "a"}, "class"),
    ],
)
def test_read__skip_and_ignore_stand_instead_of_a_label(record: dict[str, Any], kind: str) -> None:
    assert [label.kind for label in read_one({"id": "r1"} | record).labels] == [kind]


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"answer": "accept"}, "class"),
        ({"answer": "ignore"}, "skip"),
        ({"answer": " Skipped "}, "skip"),
        ({"status": "discarded"}, "skip"),
        ({"status": "DISCARDED", "answer": "accept"}, "skip"),
        ({"status": "submitted"}, "class"),
        ({"status": "draft"}, None),
        ({"status": "In progress"}, None),
        ({"response_status": "pending"}, None),
        ({"annotation_status": "in_progress"}, None),
        ({"is_draft": True}, None),
        ({"cancelled": "yes"}, "skip"),
        ({"discarded": 0, "draft": False, "rejected": "no"}, "class"),
        ({"ignored": "no reason"}, "class"),
        ({"status": "open"}, "class"),
        ({"status": 4}, "class"),
        ({"answer": "a"}, "class"),
        ({"answer": "ignore", "ignore": True}, "ignore"),
    ],
)
def test_read__what_a_tool_says_of_an_answer(record: dict[str, Any], kind: str | None) -> None:
    result = read_one({"id": "r1", "label": "a"} | record)
    assert [label.kind for label in result.labels] == ([] if kind is None else [kind])
    assert (result.unlabelled, result.bad) == (int(kind is None), [])


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        ({"answer": "reject"}, "answer is 'reject': no label"),
        ({"status": "Rejected", "answer": "accept"}, "status is 'Rejected': no label"),
        ({"rejected": True}, "rejected is True: no label"),
        ({"answer": "reject", "status": "draft"}, "answer is 'reject': no label"),
    ],
)
def test_read__a_rejected_answer_says_what_the_row_is_not(record: dict[str, Any], cause: str) -> None:
    result = read_one({"id": "r1", "label": "a"} | record)
    assert ([bad.cause for bad in result.bad], result.labels) == ([cause], [])


def test_read__an_answer_of_label_studio_that_its_reviewer_rejected() -> None:
    assert read_one(task(choice("a"), last_action="rejected")).bad[0].cause == "last_action is 'rejected': no label"
    assert labels_of(read_one(task(choice("a"), last_action="accepted"))) == [("r1", "class", "a")]


def test_read__a_class_may_be_called_like_a_verdict() -> None:
    classes = ["accept", "reject", "draft"]
    for record in ({"answer": "reject"}, {"status": "draft"}):
        ((name, _),) = record.items()
        (label,) = read_one({"id": "r1"} | record, classes=classes, fields={"label": name}).labels
        assert label.label == record[name]
    assert labels_of(read_one({"id": "r1", "label": "reject", "answer": "reject"}, classes=classes))
    assert labels_of(
        read_one({"id": "r1", "label": "a", "verdict": "no", "status": "draft"}, fields={"status": "verdict"})
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-01T10:00:00Z", at("2026-03-01 10:00")),
        ("2026-03-01 10:00", at("2026-03-01 10:00")),
        ("2026-03-01", at("2026-03-01")),
        (datetime(2026, 3, 1, 10, tzinfo=UTC).timestamp(), at("2026-03-01 10:00")),
        (str(datetime(2026, 3, 1, 10, tzinfo=UTC).timestamp()), at("2026-03-01 10:00")),
        (None, None),
        (" ", None),
    ],
)
def test_read__times(value: Any, expected: datetime | None) -> None:
    assert [label.created_at for label in read_one({"id": "r1", "label": "a", "time": value}).labels] == [expected]


def test_read__a_date_of_a_parquet_file() -> None:
    data = io.BytesIO()
    pq.write_table(pa.table({"id": ["r1"], "label": ["a"], "time": [at("2026-03-01").date()]}), data)
    assert [label.created_at for label in read(data.getvalue(), "l.parquet").labels] == [at("2026-03-01")]


def test_read__the_last_change_is_the_time() -> None:
    record = {"id": "r1", "label": "a", "created_at": "2026-03-01", "updated_at": "2026-03-02"}
    assert read_one(record).labels[0].created_at == at("2026-03-02")


def test_read__nobody_named() -> None:
    assert read_one({"id": "r1", "label": "a", "annotator": ""}).labels[0].annotator == UNKNOWN


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        ({"label": "a"}, "no id"),
        ({"id": "  ", "label": "a"}, "no id"),
        ({"id": ["r1"], "label": "a"}, "id is a list"),
        ({"id": "r1"}, "no label"),
        ({"id": "r1", "label": None}, "no label"),
        ({"id": "r1", "label": " "}, "no label"),
        ({"id": "r1", "label": []}, "no label"),
        ({"id": "r1", "label": ["a", "b"]}, "2 answers where one is meant"),
        ({"id": "r1", "label": {"x": 1}}, "label is an object"),
        ({"id": "r1", "label": "A"}, "unknown class 'A', close to 'a'"),
        ({"id": "r1", "label": 4}, "unknown class '4'"),
        ({"id": "r1", "label": True}, "unknown class 'true'"),
        ({"id": "r1", "label": "a", "confidence": 1.5}, "confidence is not a number from 0 to 1: 1.5"),
        ({"id": "r1", "label": "a", "seconds": -1}, "seconds is not a number from 0: -1"),
        ({"id": "r1", "label": "a", "cost": "much"}, "cost is not a number from 0: much"),
        ({"id": "r1", "label": "a", "cost": True}, "cost is not a number from 0: true"),
        ({"id": "r1", "rating": "good"}, "rating is not a number: good"),
        ({"id": "r1", "rating": "inf"}, "rating is not a number: inf"),
        ({"id": "r1", "label": "a", "cost": 1e308}, "cost is beyond 1e+15: 1e+308"),
        ({"id": "r1", "label": "a", "seconds": "1e16"}, "seconds is beyond 1e+15: 1e16"),
        ({"id": "r1", "rating": -1e300}, "rating is beyond 1e+15: -1e+300"),
        ({"id": "r1", "comment": 3}, "text is a number"),
        ({"id": "r1", "label": "a", "time": "noon"}, "time is not a date and time: noon"),
        ({"id": "r1", "label": "a", "time": 1e300}, "time is not a date and time: 1e+300"),
        ({"id": "r1", "skip": "perhaps"}, "skip is 'perhaps'; write true or false"),
        (["r1", "a"], "a list, not an object with fields"),
        (3, "a number, not an object with fields"),
    ],
)
def test_read__one_bad_label_costs_that_label(record: Any, cause: str) -> None:
    good = {"id": "r0", "label": "a"}
    result = read("".join(f"{json.dumps(entry)}\n" for entry in (good, record, good)))
    assert [label.line for label in result.labels] == [1, 3]
    assert [(bad.line, bad.cause) for bad in result.bad] == [(2, cause)]
    assert (result.read, result.unlabelled, result.damage) == (3, 0, None)


def test_read__a_number_is_a_class_of_that_name() -> None:
    assert labels_of(read_one({"id": 12, "label": 3})) == [("12", "class", "3")]


def test_read__rows_of_a_batch_without_a_label_wait() -> None:
    result = read('{"id": "r1", "round": "R", "label": null}\n{"id": "r2", "round": "R", "label": "b"}\n')
    assert (labels_of(result), result.bad, result.unlabelled) == ([("r2", "class", "b")], [], 1)


def test_read__stated_fields() -> None:
    record = {"meta": {"key": "r1"}, "verdict": "a", "label": "not this", "text": "too long", "id": "not this"}
    result = read_one(record, fields={"id": "meta.key", "label": "verdict", "text": "text"})
    assert labels_of(result) == [("r1", "class", "a"), ("r1", "text", "too long")]


def test_read__stated_fields_that_cannot_be_meant() -> None:
    with pytest.raises(BadInput, match=r"fields: unknown name 'labels'; known are id, label"):
        read_one({"id": "r1"}, fields={"labels": "x"})
    with pytest.raises(BadInput, match=r"l\.jsonl: fields\.cost: no record has a field 'price'; found: id, label"):
        read_one({"id": "r1", "label": "a"}, fields={"cost": "price"})
    assert read("", fields={"cost": "price"}).read == 0


# ---- files


def test_read__csv_with_the_habits_of_spreadsheets() -> None:
    text = (
        "\ufeffid,text,label,annotator,seconds,rating\r\n"
        'r1,"a ""quoted""\ncell",a,ann,2.5,\r\n'
        "r2,x,'=x,ann,,3\r\n"
        "r3,x,b\r\n"
        "r4,'=SUM(A1),,bob,,\r\n"
    )
    result = read(text, "l.csv")
    assert labels_of(result) == [("r1", "class", "a"), ("r2", "class", "=x"), ("r2", "rating", 3.0)]
    assert [label.line for label in result.labels] == [2, 4, 4]
    assert [(bad.line, bad.cause) for bad in result.bad] == [(5, "fewer values than the header has"), (6, "no label")]


@pytest.mark.parametrize(
    "encode", [str.encode, lambda text: text.encode("utf-16"), lambda text: gzip.compress(text.encode())]
)
def test_read__encodings_and_compression(encode: Any) -> None:
    assert labels_of(read(encode('{"id": "ü", "label": "a"}\r\n\r\n{"id": "r2", "label": "b"}'))) == [
        ("ü", "class", "a"),
        ("r2", "class", "b"),
    ]


def test_read__bytes_that_are_not_text_and_cut_lines_cost_their_line() -> None:
    result = read(b'{"id": "r1", "label": "a"}\n{"id": "\xff", "label": "a"}\n{"id": "r3", "lab')
    assert [label.name for label in result.labels] == ["r1"]
    assert [bad.line for bad in result.bad] == [2, 3]


def test_read__nothing_of_a_damaged_file_is_a_label() -> None:
    whole = gzip.compress("".join(f'{{"id": "r{i}", "label": "a"}}\n' for i in range(2000)).encode())
    result = read(whole[: len(whole) // 2], "l.jsonl.gz")
    assert result.labels == []
    assert result.damage is not None
    assert "cut short" in result.damage
    assert [bad.cause for bad in result.bad] == [result.damage]


def test_read__junk_behind_a_whole_file_is_reported() -> None:
    result = read(gzip.compress(b'{"id": "r1", "label": "a"}\n') + b"junk", "l.jsonl.gz")
    assert len(result.labels) == 1
    assert [bad.line for bad in result.bad] == [2]


def test_read__unknown_kind_of_file() -> None:
    with pytest.raises(BadInput, match=r"labels\.docx: unknown kind of file"):
        read("x", "labels.docx")


# ---- Label Studio


def test_read__tasks_of_label_studio() -> None:
    rating = {"from_name": "stars", "to_name": "prompt", "type": "rating", "value": {"rating": 4}}
    text = {"from_name": "why", "to_name": "prompt", "type": "textarea", "value": {"text": ["one", "two"]}}
    region = {"from_name": "span", "to_name": "prompt", "type": "labels", "value": {"start": 0, "labels": ["x"]}}
    result = read(json.dumps([task(choice("a"), rating, region, text)]), "export.json")
    assert labels_of(result) == [("r1", "class", "a"), ("r1", "rating", 4.0), ("r1", "text", "one\ntwo")]
    label = result.labels[0]
    assert (label.annotator, label.seconds, label.round_id) == ("1", 2.5, "R")
    assert label.created_at == at("2026-03-01 10:00")


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (task(choice("a"), was_cancelled=True), "skip"),
        (task(was_cancelled=True), "skip"),
        (task(choice("a"), choice("ignore", control="ignore")), "ignore"),
    ],
)
def test_read__tasks_skipped_and_ignored(record: dict[str, Any], kind: str) -> None:
    assert labels_of(read_one(record)) == [("r1", kind, None)]


@pytest.mark.parametrize("who", [{"id": 3, "email": "ann@example.com"}, "ann@example.com"])
def test_read__who_completed_a_task(who: Any) -> None:
    assert read_one(task(choice("a"), completed_by=who)).labels[0].annotator == "ann@example.com"


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        (task(choice("a", "b")), "2 answers where one is meant"),
        (task(choice("a"), choice("b")), "two answers of the type choices; fields.label says which control counts"),
        (task(choice("z")), "unknown class 'z'"),
        (task(data={"prompt": "p"}), "no id"),
        (task(data={"id": "r1"}), "no label"),
        (task("x"), "a result of the annotation is not an object with a value"),
        ({"data": {}, "annotations": [3]}, "an annotation is not an object"),
        ({"data": {}, "annotations": [{"result": True}]}, "the results of the annotation are not a list"),
    ],
)
def test_read__one_bad_annotation_costs_that_annotation(record: dict[str, Any], cause: str) -> None:
    result = read_one(record)
    assert [(bad.line, bad.cause) for bad in result.bad] == [(1, cause)]
    record["annotations"].append(task(choice("a"))["annotations"][0])
    record["data"]["winnow_id"] = "r9"
    assert labels_of(read_one(record))[-1] == ("r9", "class", "a")


def test_read__stated_controls() -> None:
    record = task(choice("a"), choice("b", control="second"), data={"key": "r1"})
    assert labels_of(read_one(record, fields={"label": "second", "id": "key"})) == [("r1", "class", "b")]


def test_read__tasks_without_annotations_wait_and_predictions_are_no_labels() -> None:
    result = read_one({"data": {"id": "r1"}, "annotations": [], "predictions": [{"result": [choice("a")]}]})
    assert (result.labels, result.bad, result.unlabelled) == ([], [], 1)


def test_read__json_min_where_id_is_the_number_of_the_task() -> None:
    record = {
        "id": 1,
        "winnow_id": "r1",
        "prompt": "p",
        "round": "R",
        "label": {"choices": ["a"]},
        "rating": [{"rating": 5}],
        "comment": {"text": ["x", "y"]},
        "annotator": 1,
        "annotation_id": 4,
        "created_at": "2026-11-20T17:54:16.556233Z",
        "updated_at": "2026-11-20T17:54:17Z",
        "lead_time": 3.5,
    }
    result = read(json.dumps([record, record | {"label": "b", "ignore": "ignore"}]), "min.json")
    assert labels_of(result) == [
        ("r1", "class", "a"),
        ("r1", "rating", 5.0),
        ("r1", "text", "x\ny"),
        ("r1", "ignore", None),
    ]
    assert result.labels[0].seconds == 3.5


# ---- laws

_NAMES = st.text(min_size=1).filter(lambda text: text == text.strip() and text.isprintable())
_POSITIVE = st.none() | st.floats(0, 1e9)
_TIMES = st.none() | st.datetimes(timezones=st.just(timezone(timedelta(hours=2))), min_value=at("1970-01-02"))


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "id": _NAMES,
                "label": st.sampled_from(CLASSES),
                "annotator": _NAMES,
                "confidence": st.none() | st.floats(0, 1),
                "seconds": _POSITIVE,
                "cost": _POSITIVE,
                "time": _TIMES,
            }
        )
    )
)
def test_read__what_is_written_is_read_back_from_json_lines_and_csv(records: list[dict[str, Any]]) -> None:
    plain = [record | {"time": record["time"] and record["time"].isoformat()} for record in records]
    expected = [
        (r["id"], r["label"], r["annotator"], r["confidence"], r["seconds"], r["cost"],
         r["time"] and r["time"].astimezone(UTC).replace(tzinfo=None))
        for r in records
    ]  # fmt: skip
    table = io.StringIO()
    writer = csv.DictWriter(table, ["id", "label", "annotator", "confidence", "seconds", "cost", "time"])
    writer.writeheader()
    writer.writerows(plain)
    for text, url in (("".join(f"{json.dumps(r)}\n" for r in plain), "l.jsonl"), (table.getvalue(), "l.csv")):
        result = read(text, url)
        assert result.bad == []
        got = [(x.name, x.label, x.annotator, x.confidence, x.seconds, x.cost, x.created_at) for x in result.labels]
        assert got == expected


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.sampled_from(CLASSES),
    lambda more: st.lists(more, max_size=3) | st.dictionaries(st.sampled_from(["choices", "rating", "text", "id"]), more, max_size=2),
    max_leaves=5,
)  # fmt: skip


@given(
    st.lists(
        st.dictionaries(st.sampled_from([*FIELDS, "data", "annotations", "result", "comment"]), _ANY, max_size=6),
        max_size=4,
    )
)
def test_read__anything_is_a_label_or_has_a_cause(records: list[dict[str, Any]]) -> None:
    lines = [{"data": r, "annotations": [r]} if i % 2 else r for i, r in enumerate(records)]
    result = read("".join(f"{json.dumps(line)}\n" for line in lines))
    accounted = {label.line for label in result.labels} | {bad.line for bad in result.bad}
    assert len(accounted) + result.unlabelled >= len(lines)
    assert all(bad.cause for bad in result.bad)


def test_config__is_what_the_reader_looks_for() -> None:
    assert 'name="label"' in labeling_config(CLASSES)
    assert 'name="ignore"' in labeling_config(CLASSES)


def test_read__a_label_field_that_the_user_calls_answer_is_the_label() -> None:
    records = [{"id": "x", "answer": CLASSES[0]}, {"id": "y", "answer": "reject"}]
    result = read("\n".join(map(json.dumps, records)), fields={"label": "answer"})
    assert [label.label for label in result.labels] == [CLASSES[0]]
    assert "unknown class" in result.bad[0].cause


@pytest.mark.parametrize("depth", [2, 990])
def test_read__an_answer_wrapped_many_times_is_that_answer(depth: int) -> None:
    nested = "[" * depth + '"a"' + "]" * depth
    result = read('{"id": "r1", "label": ' + nested + "}\n" + '{"id": "r2", "label": "b"}\n')
    assert [label.label for label in result.labels] == ["a", "b"]
