"""`winnow init` guesses a configuration that loads, and says what it guessed."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.init import guess_config, write_config
from pipelines.config.load import load_config
from pipelines.errors import WouldOverwrite
from storage.errors import BadInput


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"question {i}", "response": f"answer {i}"} for i in range(count)]


def test_write_config__what_is_written_loads_and_names_the_data_relative_to_it(here: Path) -> None:
    write(here / "data/pool.jsonl", pairs(50))
    write(here / "tests/gsm8k.jsonl", pairs(5))
    findings = write_config(Path("winnow.yaml"), ["data/*.jsonl"], ["tests/gsm8k.jsonl"])
    text = (here / "winnow.yaml").read_text()
    assert '- "data/*.jsonl"    # prompt and response, found by the fields\' names' in text
    config = load_config(here)
    assert [spec.url for spec in config.pool.specs(config.root)] == [str(here / "data/pool.jsonl")]
    assert config.recipes["first"].targets == ("gsm8k",)
    assert config.recipes["first"].steps.written == ["rds_plus"]
    assert config.recipes["first"].budget == 25
    assert findings == [
        "data/*.jsonl: 1 file (.jsonl); looked at all 50 rows.",
        "Shape: prompt and response.",
        "Length: about 5 tokens in the middle, 5 at the 95th percentile (by characters).",
        "Sources, taken from the file names: pool (50).",
        "Exact duplicates among these rows: 0.",
        "target set gsm8k: tests/gsm8k.jsonl: 1 file (.jsonl); looked at all 5 rows.",
        "target set gsm8k: Shape: prompt and response.",
    ]


def test_write_config__a_file_that_is_there_is_kept_unless_forced(here: Path) -> None:
    write(here / "pool.jsonl", pairs(3))
    (here / "winnow.yaml").write_text("precious")
    with pytest.raises(WouldOverwrite, match=r"^winnow.yaml is already there; --force replaces it$"):
        write_config(Path("winnow.yaml"), ["pool.jsonl"], [])
    assert (here / "winnow.yaml").read_text() == "precious"
    write_config(Path("winnow.yaml"), ["pool.jsonl"], [], force=True)
    assert load_config(here).recipes["first"].steps.written == ["random"]


def test_write_config__in_another_folder_the_paths_still_lead_to_the_data(here: Path) -> None:
    write(here / "pool.jsonl", pairs(3))
    write_config(here / "project" / "winnow.yaml", ["pool.jsonl"], [])
    config = load_config(here / "project")
    assert [spec.url for spec in config.pool.specs(config.root)] == [str(here / "pool.jsonl")]


def test_guess_config__only_the_first_thousand_rows_count(here: Path) -> None:
    write(here / "pool.jsonl", [*pairs(1000), *["not JSON"] * 500])
    _, findings = guess_config(["pool.jsonl"], [])
    assert findings[0] == "pool.jsonl: 1 file (.jsonl); looked at the first 1,000 rows."
    assert not any("cannot be read" in line for line in findings)


def test_guess_config__bad_rows_and_what_they_lead_to_are_said(here: Path) -> None:
    write(here / "pool.jsonl", [*pairs(20), '{"prompt": "cut', {"prompt": ""}, {"prompt": " "}])
    _, findings = guess_config(["pool.jsonl"], [])
    assert "3 of 23 rows cannot be read; the commonest cause: prompt is empty (2)." in findings
    assert "That is more than 1%: a run will stop until they are mended or `max_bad_fraction` is raised." in findings


def test_guess_config__a_damaged_file_is_told_before_a_run_stops_at_it(here: Path) -> None:
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in pairs(200)).encode())
    (here / "pool.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    _, findings = guess_config(["pool.jsonl.gz"], [])
    assert any("cut short; a run will stop there unless `keep_damaged: true` is set." in line for line in findings)


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"Task": "How?", "ModelAnswer": "So."}, {"prompt": "Task", "response": "ModelAnswer"}),
        ({"data": {"prompt": {"text": "How?"}, "response": {"text": "So."}}, "id": "x"}, {"prompt": "data.prompt.text", "response": "data.response.text"}),
        ({"abstract": "A long text.", "lang": "en"}, {"text": "abstract"}),
        ({"left": "How?", "right": "So."}, {"prompt": "left", "response": "right"}),
        ({"sole": "A text."}, {"text": "sole"}),
    ],
)  # fmt: skip
def test_guess_config__fields_that_no_shape_has_are_guessed_and_said(
    here: Path, row: dict[str, Any], fields: dict[str, str]
) -> None:
    write(here / "pool.jsonl", [row] * 3)
    text, findings = guess_config(["pool.jsonl"], [])
    (here / "winnow.yaml").write_text(text)
    assert load_config(here).pool.files[0].fields == fields
    stated = ", ".join(f"{ours} = {theirs}" for ours, theirs in fields.items())
    assert any(f"guessed from the names: {stated}. Please check." in line for line in findings)
    assert "Exact duplicates among these rows: 2." in findings


TEXT = "a long text of several words"


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        (lambda i: {"ticket_ref": f"T-{i:04}", "wording": f"{TEXT} {i}"}, {"text": "wording", "id": "ticket_ref"}),
        (lambda i: {"sha": f"{i:040x}1f", "msg": f"{TEXT} {i}"}, {"text": "msg"}),
        (lambda i: {"prompt_id": f"p{i}", "wording": f"{TEXT} {i}"}, {"text": "wording", "id": "prompt_id"}),
        (lambda i: {"email": f"a{i}@x.org", "day": "2024-01-01", "remark": f"{TEXT} {i}"}, {"text": "remark"}),
        (lambda i: {"user": "ann", "remark": f"{TEXT} {i}", "status": "open"}, {"text": "remark"}),
        (
            lambda i: {"case": f"C{i}", "ask": f"{TEXT} {i}", "reply": "it is so"},
            {"prompt": "ask", "response": "reply"},
        ),
        (lambda i: {"nr": str(i), "wort": "\u4f60\u597d\u5417"}, {"text": "wort", "id": "nr"}),
    ],
)
def test_guess_config__an_id_is_never_taken_for_a_text(
    here: Path, row: Callable[[int], dict[str, Any]], fields: dict[str, str]
) -> None:
    write(here / "pool.jsonl", [row(i) for i in range(20)])
    (here / "winnow.yaml").write_text(guess_config(["pool.jsonl"], [])[0])
    assert load_config(here).pool.files[0].fields == fields


def test_guess_config__a_source_and_an_id_under_another_name_are_found(here: Path) -> None:
    rows = [row | {"dataset": "ab"[i % 2], "uid": i, "score": 0.5} for i, row in enumerate(pairs(10))]
    write(here / "pool.jsonl", rows)
    text, findings = guess_config(["pool.jsonl"], [])
    (here / "winnow.yaml").write_text(text)
    assert load_config(here).pool.files[0].fields == {"source": "dataset", "id": "uid"}
    assert "Sources, from the rows: a (5), b (5)." in findings
    assert "Further columns, for `where:` and the step `column`: score (number)." in findings


def test_guess_config__names_that_yaml_would_misread_are_quoted(here: Path) -> None:
    write(here / "on.jsonl", pairs(4))
    write(here / "a: b #c.jsonl", [{"no": "text"}] * 4)
    text, _ = guess_config(["a: b #c.jsonl"], ["on.jsonl"])
    (here / "winnow.yaml").write_text(text)
    config = load_config(here)
    assert [Path(spec.url).name for spec in config.pool.specs(config.root)] == ["a: b #c.jsonl"]
    assert config.pool.files[0].fields == {"text": "no"}
    assert list(config.targets) == ["on"]


def test_guess_config__targets_of_one_name_get_numbers(here: Path) -> None:
    for name in ("pool.jsonl", "a/Test Set.jsonl", "b/test set.jsonl"):
        write(here / name, pairs(3))
    text, _ = guess_config(["pool.jsonl"], ["a/Test Set.jsonl", "b/test set.jsonl"])
    (here / "winnow.yaml").write_text(text)
    assert list(load_config(here).targets) == ["test_set", "test_set_2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "pool.jsonl: there are no rows"),
        (b"[1, 2\n", "pool.jsonl: none of the first 1 rows can be read: "),
        ('{"prompt": "é"}\n'.encode("latin-1"), "; state `encoding:` if it is another"),
    ],
)
def test_guess_config__a_file_without_a_readable_row_is_refused(here: Path, content: bytes, message: str) -> None:
    (here / "pool.jsonl").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        guess_config(["pool.jsonl"], [])
    assert message in str(caught.value)


def test_guess_config__a_path_that_names_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match=r"no\.jsonl"):
        guess_config(["no.jsonl"], [])


@pytest.mark.parametrize("targets", [["tests/gsm8k.jsonl"], []])
def test_write_config__what_is_commented_out_is_valid_without_the_marks(here: Path, targets: list[str]) -> None:
    write(here / "data/pool.jsonl", pairs(50))
    for name in ("tests/gsm8k.jsonl", "my_task.jsonl"):
        write(here / name, pairs(5))
    write_config(Path("winnow.yaml"), ["data/*.jsonl"], targets)
    lines = (here / "winnow.yaml").read_text().splitlines()
    suggested = [line for line in lines[1:] if re.match(r" *# (?!Take)", line)]
    text = "\n".join(re.sub(r"^( *)# (?!Take)", r"\1", line) for line in lines[1:])
    (here / "winnow.yaml").write_text(text)
    config = load_config(here)
    assert config.pool.bad_files == "set_aside"
    assert config.decontamination is not None
    assert config.notify is not None
    assert config.schedule is not None
    sections = (config.classifiers, config.models, config.exports, config.labeling, config.sweeps, config.targets)
    assert all(sections)
    assert config.recipes["first"].where
    assert len(suggested) >= 15


@pytest.mark.parametrize(("others", "warned"), [(0, False), (2, False), (30, True)])
def test_findings__rows_that_an_english_encoder_does_not_know(here: Path, others: int, warned: bool) -> None:
    rows = [{"prompt": f"What is the name of number {n}?", "response": "It is the one."} for n in range(40)]
    rows += [{"prompt": f"Сколько будет {n}, и как это называется?", "response": "Это число."} for n in range(others)]
    write(here / "data/pool.jsonl", rows)
    findings = guess_config(["data/pool.jsonl"], [])[1]
    lines = [line for line in findings if "not in English" in line]
    assert bool(lines) == warned
    if warned:
        assert "43% are not in English: Cyrillic (43%). The encoder all-MiniLM-L6-v2 knows English only" in lines[0]
