from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import BadInput
from storage.ids import from_bytes, rows_of
from storage.pool.content import identity
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import Snapshot, take_snapshot
from storage.store import Store
from tests.quick import quick_first

RECORDS: list[dict[str, Any]] = [
    {"text": "t0", "score": 0.5, "tag": "red", "odd name/~'\"": 1, "mixed": 1, "ok": True, "deep": {"a": [1, "é"]}},
    {"text": "t1", "score": 2, "tag": None, "mixed": "one", "ok": False},
    {"text": "t2", "tag": "blue", "Tag": "case", "mixed": None},
    {"text": "t3", "score": None, "tag": "red", "source": "given"},
    {"text": "t0", "score": 9.0, "tag": "duplicate", "source": "zzz"},
]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    store = Store(tmp_path / "store")
    ingests = []
    for name, part in (("a", RECORDS[:2]), ("b", RECORDS[2:])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in part))
        ingests.append(ingest_file(store, FileSpec(str(path))))
    return take_snapshot(store, ingests)


def by_text(snapshot: Snapshot, values: np.ndarray) -> list[Any]:
    """Values of t0 .. t3."""
    ids = from_bytes(identity([("text", f"t{i}")]) for i in range(4))
    return values[rows_of(ids, snapshot.ids)].tolist()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("source", ["a", "a", "b", "given"]),
        ("score", [0.5, 2.0, np.nan, np.nan]),
        ("tag", ["red", None, "blue", "red"]),
        ("Tag", [None, None, "case", None]),
        ("ok", [1.0, 0.0, np.nan, np.nan]),
        ("mixed", ["1", "one", None, None]),
        ("deep", ['{"a":[1,"é"]}', None, None, None]),
        ("odd name/~'\"", [1.0, np.nan, np.nan, np.nan]),
        ("line", [1.0, 2.0, 1.0, 2.0]),
        ("empty_response", [0.0] * 4),
        ("prompt", ["t0", "t1", "t2", "t3"]),
        ("response", [None] * 4),
        ("messages", [None] * 4),
    ],
)
def test_column__one_value_per_row(snapshot: Snapshot, name: str, values: list[Any]):
    result = snapshot.column(name)
    assert result.dtype == (np.float64 if isinstance(values[0], float) else object)
    np.testing.assert_equal(by_text(snapshot, result), values)


def test_column__unknown_lists_the_known(snapshot: Snapshot):
    with pytest.raises(
        BadInput, match=r"no column 'scor'; known are Tag, deep, .*, prompt, response, score, source, tag"
    ):
        snapshot.column("scor")
    assert snapshot.known_columns()["score"] == "number"


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("score > 1", [1]),
        ("score IS NULL", [2, 3]),
        ("mixed = 'one'", [1]),
        ("mixed <> 'one'", [0]),
        ("ok", [0]),
        ("length(prompt) = 2 AND source IN ('a', 'given')", [0, 1, 3]),
        ("source = 'zzz'", []),
        ('"odd name/~\'""" = 1', [0]),
        ("deep LIKE '%é%'", [0]),
        ("score = (SELECT max(score) FROM examples)", [1]),
        ("true -- and nothing else", [0, 1, 2, 3]),
        ("NULL", []),
        ("id IS NOT NULL AND file LIKE '%b.jsonl'", [2, 3]),
    ],
)
def test_where__rows_that_satisfy_it(snapshot: Snapshot, expression: str, chosen: list[int]):
    result = snapshot.where(expression)
    assert (result.dtype, result.shape) == (np.bool_, (4,))
    assert [i for i, yes in enumerate(by_text(snapshot, result)) if yes] == chosen


@pytest.mark.parametrize(
    "expression",
    quick_first(
        4,
        [
            "",
            "scor > 1",
            "tag = 'red'",  # there is a "Tag" too, which SQL cannot tell from it
            "score >",
            "true; DROP VIEW examples",
            "true) UNION SELECT id FROM examples WHERE (true",
            "true ORDER BY 1",
            "true, false",
            "SELECT 1",
            "score > ?",
            "(SELECT count(*) FROM read_text('{secret}')) > 0",
            "(SELECT count(*) FROM read_csv('{secret}')) > 0",
            "(SELECT count(*) FROM glob('{folder}/*')) > 0",
            "EXISTS (FROM '{secret}')",
            "EXISTS (FROM records)",
            "count(*) > 1",
            "mixed",
        ],
    ),
)
def test_where__anything_else_is_refused_with_the_reason(snapshot: Snapshot, tmp_path: Path, expression: str):
    records = snapshot.column("source")  # noqa: F841 - a Python variable that SQL must not see
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    expression = expression.format(secret=tmp_path / "secret.csv", folder=tmp_path)
    with pytest.raises(BadInput) as error:
        snapshot.where(expression)
    assert str(error.value).startswith(f"where: {expression!r} failed: ")
    assert "known columns: prompt, response, messages" in str(error.value)
    assert snapshot.where("true").all()


def test_where__times_without_a_zone_are_the_same_on_every_machine(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch):
    is_utc = "'2026-11-28 00:00:00'::timestamptz = '2026-11-28T00:00:00Z'::timestamptz"
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert snapshot.where(is_utc).all()
    # What earlier versions read stays as it was selected.
    snapshot.by_earlier_rules = True
    assert not snapshot.where(is_utc).any()


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{target}'",
        "SET enable_external_access = true",
        "ATTACH '{target}'",
        "INSTALL httpfs",
    ],
)
def test_where__no_statement_gets_through(snapshot: Snapshot, tmp_path: Path, statement: str):
    target = tmp_path / "written"
    for expression in (statement, f"true; {statement}", f"({statement})"):
        with pytest.raises(BadInput):
            snapshot.where(expression.format(target=target))
    assert not target.exists()


def test_where__writes_nothing_into_the_working_folder(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    snapshot.where("score > 1")
    snapshot.column("score")
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize(
    ("expression", "expected"),
    quick_first(
        3,
        [
            ("score", [0.5, 2.0, np.nan, np.nan]),
            ("score / 2 + 1", [1.25, 2.0, np.nan, np.nan]),
            ("length(prompt)", None),
            ("score > 1", [0, 1, np.nan, np.nan]),
            ("coalesce(score, -1)::DECIMAL(9, 2)", [0.5, 2, -1, -1]),
            ("score - (SELECT max(score) FROM examples)", [-1.5, 0, np.nan, np.nan]),
            ("score / 0", None),
            ("ln(score)", [np.log(0.5), np.log(2), np.nan, np.nan]),
            ("list_sum(list_transform(range(3), lambda x: x * score))", None),
            ("170141183460469231731687303715884105727::HUGEINT", None),
        ],
    ),
)
def test_values_of__a_number_for_each_row(snapshot: Snapshot, expression: str, expected: list[float] | None):
    result = snapshot.values_of(expression)
    assert (result.dtype, result.shape) == (np.float64, (4,))
    if expected is not None:
        np.testing.assert_allclose(by_text(snapshot, result), expected)


@pytest.mark.parametrize(
    "expression",
    quick_first(
        3,
        [
            "",
            "scor",
            "score, score",
            "SELECT 1",
            "score; SELECT 1",
            "score FROM examples --",
            "prompt",  # no number
            "NULL",
            "[score]",
            "*",
            "COLUMNS('score|ok')",
            "sum(score)",
            "row_number() OVER ()",
            "rank() OVER (ORDER BY score)",
            "unnest([1, 2])",
            "generate_subscripts([1, 2], 1)",
            "score AS other, 1",
            "(SELECT count(*) FROM read_text('{secret}'))",
            "prompt::DOUBLE",
        ],
    ),
)
def test_values_of__anything_else_is_refused_with_the_reason(snapshot: Snapshot, tmp_path: Path, expression: str):
    (tmp_path / "secret.csv").write_text("secret\n")
    with pytest.raises(BadInput, match=r"expression: .* failed: "):
        snapshot.values_of(expression.format(secret=tmp_path / "secret.csv"))


def test_values_of__equals_python_on_random_rows(tmp_path: Path):
    rng = np.random.default_rng(0)
    records = [
        {"text": f"t{i}", "a": None if rng.random() < 0.1 else int(rng.integers(1, 9)), "b": float(rng.normal())}
        for i in range(80)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    store = Store(tmp_path / "store")
    snapshot = take_snapshot(store, [ingest_file(store, FileSpec(str(path)))])
    literal = {
        "a / b": lambda a, b: a / b,
        "ln(1 / (1 + exp(-(b - a))))": lambda a, b: -np.log1p(np.exp(a - b)),
        "CASE WHEN b > 0 THEN a ELSE -a END": lambda a, b: a if b > 0 else -a,
        "greatest(a, 4) + length(prompt)": None,
    }
    ids = from_bytes(identity([("text", record["text"])]) for record in records)
    for expression, function in literal.items():
        got = snapshot.values_of(expression)[rows_of(ids, snapshot.ids)]
        for record, value in zip(records, got.tolist(), strict=True):
            if function is None:
                assert value == max(record["a"] or 4, 4) + len(record["text"])
            else:
                expected = np.nan if record["a"] is None else function(record["a"], record["b"])
                np.testing.assert_allclose(value, expected, rtol=1e-12)
