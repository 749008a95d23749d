"""The docs name what there is: every step, every command, no dead links."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.main import get_command

from pipelines.cli.main import app
from selection import Pool, select, step_names
from selection.checks import make_inputs
from selection.registry import parse_steps

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = re.findall(r"^\| .+ \| `(\[.+?\])` \|", (ROOT / "docs/steps-active.md").read_text("utf-8"), re.MULTILINE)
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


def test_docs__there_are_ten_published_combinations() -> None:
    assert len(PUBLISHED) >= 10


@pytest.mark.parametrize("steps", PUBLISHED)
def test_docs__published_combinations_draw_a_batch(steps: str) -> None:
    recipe = yaml.safe_load(steps)
    inputs = make_inputs(parse_steps(recipe)[-1])
    drawn = select(recipe, Pool(**inputs, already_selected=np.flatnonzero(inputs["labels"] >= 0)), budget=5)
    assert len(set(drawn.rows.tolist())) == 5
    assert (inputs["labels"][drawn.rows] < 0).all()
