from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.report import write
from pipelines.report.page import render
from pipelines.run import write_report
from pipelines.stages import report as report_stage
from storage.catalog.query import query_catalog
from storage.reports import page_damage, page_seal
from storage.store import Store
from tests.pipelines.conftest import Winnow, opened
from tests.pipelines.report.conftest import Nights


def sealed(document: dict[str, Any]) -> bytes:
    content = render(document).encode("utf-8")
    return content + page_seal(content)


def test_report__the_run_ends_with_it_and_a_link_leads_to_the_newest(nights: Nights) -> None:
    folder = nights.project / "store" / "records" / "reports" / nights.second["run"]
    assert nights.said[-1] == f"report: Published: 2 recipes, 50 rows. Read {nights.project / 'store' / 'report.html'}"
    page = nights.project / "store" / "pages" / f"{nights.second['run']}.html"
    assert (nights.project / "store" / "report.html").resolve() == page
    assert page.read_bytes() == sealed(nights.second)
    assert sorted(path.name for path in folder.iterdir()) == ["changes.parquet", "checksums.json", "report.json"]


def test_pages__those_of_the_last_runs_are_kept_and_others_made_again(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    shutil.copytree(nights.project / "store" / "records" / "reports", store.path("records", "reports"))
    first, second = (store.path("records", "reports", each["run"]) for each in (nights.first, nights.second))
    monkeypatch.setattr(write, "KEPT_PAGES", 1)
    for folder in (first, second, first):
        page = write.page_of(store, folder)
        assert [path.name for path in store.path("pages").iterdir()] == [f"{folder.name}.html"] == [page.name]
    assert page.read_bytes() == sealed(nights.first)
    page.write_bytes(page.read_bytes().replace(b"rows", b"cows", 1))
    assert page_damage(page) == f"{page} is not the page that was written"
    assert write.page_of(store, first).read_bytes() == sealed(nights.first)
    (second / "report.html").write_text("as an earlier version committed it")
    assert write.page_of(store, second) == second / "report.html"


def test_report__its_causes_are_in_sql_once_the_run_ends(nights: Nights) -> None:
    store = Store(nights.project / "store")
    query = "SELECT recipe, change, cause, count(*) AS n FROM selection_changes WHERE invocation = ? GROUP BY ALL"
    counts = query_catalog(store, query, [nights.second["run"]]).to_pylist()
    for recipe in nights.second["recipes"]:
        of_recipe = [line for line in counts if line["recipe"] == recipe["name"]]
        for change in ("added", "dropped"):
            said = {line["cause"]: line["rows"] for line in recipe["changes"][f"{change}_causes"]}
            assert {line["cause"]: line["n"] for line in of_recipe if line["change"] == change} == said
        assert [line["n"] for line in of_recipe if line["change"] == "kept"] == [recipe["changes"]["kept"]]
    lines = query_catalog(store, "SELECT line FROM reports ORDER BY invocation").to_pylist()
    assert [row["line"] for row in lines] == [each["verdict"]["line"] for each in (nights.first, nights.second)]


def test_command__prints_the_path_and_copies(nights: Nights, winnow: Winnow, tmp_path: Path) -> None:
    ended = winnow("report", "--config", nights.project)
    page = nights.project / "store" / "pages" / f"{nights.second['run']}.html"
    assert ended.out == f"Published: 2 recipes, 50 rows.\n{page}\n"
    ended = winnow("report", nights.first["run"], "--config", nights.project, "--out", tmp_path / "out")
    assert ended.out.splitlines()[-1] == str(tmp_path / "out" / "report.html")
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8")) == nights.first


def test_command__unknown_run(nights: Nights, winnow: Winnow) -> None:
    ended = winnow("report", "nosuch", "--config", nights.project)
    assert ended.code == 2
    assert "no run 'nosuch'" in ended.err


def test_write_report__what_fails_is_a_warning(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Path:
        raise RuntimeError("a defect")

    said: list[str] = []
    context = opened(nights.project, said, invocation=nights.second["run"])
    monkeypatch.setattr(report_stage, "make_report", broken)
    write_report(context)
    assert said[-1] == "warning: no report of this run: RuntimeError: a defect"


def test_read_document__a_damaged_report_is_made_again(nights: Nights, tmp_path: Path) -> None:
    context = opened(nights.project)
    folder = write.make_report(context, nights.first["run"])
    text = (folder / "report.json").read_text("utf-8")
    (folder / "report.json").write_text(text.replace('"format": 1', '"format": "x"'), "utf-8")
    write.make_report(context, nights.first["run"])
    assert write.read_document(folder)["verdict"]["line"] == "Published: 2 recipes, 50 rows."
