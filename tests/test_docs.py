"""The docs name what there is: every step, every command, no dead links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from pipelines.cli import app
from selection import step_names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_docs__links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert dead == []


def test_docs__every_step_has_its_line() -> None:
    text = "".join(page.read_text("utf-8") for page in (ROOT / "docs").glob("steps*.md"))
    assert [name for name in step_names() if f"`{name}`" not in text] == []


def test_docs__changelog_or_readme_names_every_command() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if not re.search(rf"\b{name}\b", text)] == []
