"""The docs as a site: every page is there, no link is broken, and nothing comes from the network."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
import pytest

from selection.registry import BUILT_IN, find_step
from website.pages import ROOT, pages
from website.step_pages import _markdown, describe, step_page

SITE = ROOT / "build" / "site"


class Links(HTMLParser):
    """What a page loads, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        to = self.links if tag in ("a", "form", "area") or names.get("rel") == "canonical" else self.loaded
        to += [value for value in (names.get("href"), names.get("src")) if value]


def nav_pages(entry: Any) -> list[str]:
    """The pages that an entry of the navigation names."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry if isinstance(entry, list) else entry.values()) for page in nav_pages(part)]


@pytest.mark.slow
def test_site__the_navigation_has_every_page_of_the_docs() -> None:
    project = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    listed = nav_pages(project["nav"])
    missing = {name for name in pages() if not name.startswith(("steps/", "decisions/"))} - set(listed)
    assert missing == set()
    assert [name for name in listed if name not in pages()] == []


@pytest.mark.parametrize("name", BUILT_IN)
def test_step_page__says_options_limits_and_cost(name: str) -> None:
    step = find_step(name)
    description = describe(step)
    assert [field.name for field in fields(step) if field.name not in description.options] == []  # type: ignore[arg-type]
    assert [part for part in ("limits", "cost") if not description.parts[part]] == []  # type: ignore[index]
    titles = re.findall(r"^#+ (.*)", step_page(name, "guide.md"), re.MULTILINE)
    assert titles[:4] == [name, "Options", "When not to use it", "Cost"]


def test_describe__takes_a_docstring_apart() -> None:
    description = describe(find_step("tsds"))
    assert description.summary == "Give each row a probability by optimal transport from the targets, then draw (TSDS)."
    assert [text.split()[0] for text in description.parts["cost"]] == ["Cost", "Memory:"]
    assert description.parts["source"][0].startswith("Liu et al. 2024")
    assert description.options["sigma"].startswith(">= 0, the distance within which rows count as alike")
    assert "    alpha/C * (sum over targets" in description.parts["text"][1]


def test_step_page__plain_text_is_no_markup() -> None:
    text = "- 0 < a_b <= c*d | `e_f` [g] & h -> i"
    markup = markdown.markdown(_markdown(text), extensions=["tables"])
    assert html.unescape(markup) == "<p>- 0 < a_b <= c*d | <code>e_f</code> [g] & h -> i</p>"


@pytest.mark.slow
def test_site__is_built_strictly_and_loads_nothing_from_elsewhere() -> None:
    subprocess.run([sys.executable, "-m", "website"], cwd=ROOT, check=True, capture_output=True)
    built = {path.relative_to(SITE).as_posix(): Links(path.read_text("utf-8")) for path in SITE.rglob("*.html")}
    assert {name.replace(".md", ".html") for name in pages()} <= set(built)
    for name, page in built.items():
        assert [link for link in page.loaded if re.match(r"\w+:|//", link)] == [], name
        inside = (
            [link for link in page.links if link and not re.match(r"\w+:|#|//", link)] if name != "404.html" else []
        )
        paths = [Path(name).parent / re.split(r"[#?]", link)[0] for link in inside]
        assert [str(path) for path in paths if not (SITE / path).exists()] == [], name
