from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipelines.context import Context
from pipelines.exports.card import licence_columns
from pipelines.exports.export import export_selection
from pipelines.exports.options import ExportOptions
from pipelines.exports.writer import sha256_of
from pipelines.named import selection_of
from pipelines.run import run_all
from storage.records import read_selection
from tests.conftest import row, write_rows
from tests.pipelines.conftest import opened


def test_card__says_where_the_rows_come_from(context: Context, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_selection(context, "every", ExportOptions(to="messages", allow_left_out=0.5), out)
    provenance = json.loads((out / "provenance.json").read_text("utf-8"))
    header, _ = read_selection(context.store, selection_of(context.store, "every"))
    assert {key: provenance[key] for key in ("selection", "snapshot", "seed", "recipe")} == {
        "selection": header["selection_id"],
        "snapshot": header["snapshot"],
        "seed": 0,
        "recipe": "every",
    }
    assert (provenance["date"], provenance["drawn_by"]) == (header["created_at"], header["code_version"])
    assert (provenance["rows"], sum(provenance["left_out"].values())) == (7, 6)
    assert (provenance["trial"], provenance["decontamination"]) == ("not tried", None)
    chats = next(entry for entry in provenance["sources"] if entry["source"] == "chats")
    assert (chats["rows"], chats["licence"]) == (4, {"not said": 2, "CC0": 1, "MIT": 1})
    for entry in provenance["files"]:
        path = out / entry["file"]
        assert (path.stat().st_size, sha256_of(path)) == (entry["bytes"], entry["sha256"])
    assert {entry["file"] for entry in provenance["files"]} == {"README.md", "data/train.jsonl", "left_out.jsonl"}


def test_readme__has_front_matter_and_shows_texts_as_they_are(context: Context, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_selection(context, "chats", ExportOptions(to="messages", shards=2), out)
    _, front, body = (out / "README.md").read_text("utf-8").split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["configs"][0]["data_files"] == [
        {"split": "train", "path": ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]}
    ]
    assert matter["dataset_info"]["features"][0]["name"] == "messages"
    assert "winnow reproduce" in body
    assert "Not asked for" in body


@pytest.mark.slow
def test_card__has_what_the_search_for_evaluation_texts_removed(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write_rows(project / "data/a.jsonl", [row(n, s) for n in range(20) for s in ("fox", "<dog>|")])
    write_rows(project / "eval.jsonl", [row(n, "fox") for n in (3, 4, 5)])
    (project / "winnow.yaml").write_text(
        "pool: {files: data/*.jsonl}\ndecontamination: {files: {test: eval.jsonl}, plants: 3}\n"
        "recipes: {r: {steps: [random], budget: 30}}\n"
    )
    run_all(opened(project))
    export_selection(opened(project), "r", ExportOptions(to="messages"), tmp_path / "out")
    facts = json.loads((tmp_path / "out/provenance.json").read_text())["decontamination"]
    assert facts["rows_kept_out"] >= 3
    assert {entry["target_set"] for entry in facts["recall"]} == {"test"}
    readme = (tmp_path / "out/README.md").read_text()
    assert f"{facts['rows_kept_out']} rows of the pool hold evaluation texts" in readme
    assert "| &lt;dog&gt;&#124; |" in readme


def test_licence_columns__by_name() -> None:
    assert licence_columns(["lic", "LICENSE", "data_licence"]) == ["LICENSE", "data_licence"]
