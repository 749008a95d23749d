from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.page import embedded_json, render
from tests.pipelines.report.conftest import HOSTILE, Nights


class Elements(HTMLParser):
    """The elements of a page, and the texts of its scripts, styles and quotes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "blockquote": []}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._open = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.texts:
            self.texts[self._open][-1] += data


@pytest.fixture(scope="module")
def page(nights: Nights) -> str:
    return render(nights.second)


def test_render__texts_of_rows_are_no_elements(page: str, nights: Nights) -> None:
    shown = json.dumps(nights.second)
    assert all(json.dumps(text[:20])[1:-1] in shown for text in HOSTILE[:3]), "the rows are in the report"
    elements = Elements(page)
    assert elements.tags["script"] == 2
    assert elements.tags["img"] == elements.tags["iframe"] == elements.tags["link"] == 0
    assert not [name for _, name, _ in elements.attributes if name.startswith("on") or name == "style"]
    links = [value for _, name, value in elements.attributes if name in ("href", "src")]
    assert all(value.startswith("#recipe-") for value in links)
    assert any("<script>" in text for text in elements.texts["blockquote"])
    assert "{{ 7 * 7 }}" in page.replace("\u2028", "")


def test_render__the_data_of_the_plots_is_what_it_was(page: str) -> None:
    charts = json.loads(Elements(page).texts["script"][0])
    assert set(charts) == {f"{kind}-{number}" for kind in ("map", "mix", "language", "length") for number in (0, 1)}
    texts = [point["text"] for point in charts["map-1"]["datasets"]["selected"]]
    assert any(text.startswith(("</script><script>", "<!--<script>", "<img src=x")) for text in texts)


def test_render__only_its_own_script_and_style_may_run(page: str) -> None:
    elements = Elements(page)
    policy = next(
        value for tag, name, value in elements.attributes if tag == "meta" and value.startswith("default-src")
    )
    for text in (elements.texts["script"][1], elements.texts["style"][0]):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert len(page.encode()) < 5_000_000


@pytest.mark.parametrize("text", ["</script>", "<!-- <script>", "\u2028\u2029", "]]>&amp;"])
def test_embedded_json__ends_no_element(text: str) -> None:
    embedded = embedded_json({text: [text]})
    assert not re.search("[<>&\u2028\u2029]", embedded)
    assert json.loads(embedded) == {text: [text]}


@pytest.mark.parametrize("part", ["maps", "labels", "recipes", "stages", "commands"])
def test_render__a_document_without_a_part(nights: Nights, part: str) -> None:
    document: dict[str, Any] = json.loads(json.dumps(nights.second))
    document[part] = type(document[part])()
    if part == "maps":
        for recipe in document["recipes"]:
            recipe["map"] = None
    assert "Published" in render(document)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_render__a_browser_draws_the_plots_and_runs_nothing_else(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page, "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=8000"]
    command = [
        "chromium",
        *flags,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        f"file://{tmp_path}/page.html",
    ]
    elements = Elements(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    assert elements.tags["canvas"] == 8
    assert elements.tags["script"] == 2
