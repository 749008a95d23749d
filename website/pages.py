"""The pages of the site: those of docs/, those of the repository outside of it, and one for each step.

The pages of the repository are written for GitHub. Here a link to a page outside of docs/ leads to its copy on the
site, a link to a folder to the list of its pages, and lists inside of lists are indented as Markdown's older dialect
wants it.
"""

from __future__ import annotations

import re
from pathlib import Path

from selection.registry import BUILT_IN
from website.step_pages import index_page, step_page

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ("steps.md", "steps-coverage.md", "steps-active.md")

# Pages of the repository outside of docs/ -> where they are on the site.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "LICENSE": "license.md",
}
# Folders that pages link to -> the page that lists them.
FOLDERS = {"docs/decisions": "decisions/index.md", "examples": "examples.md"}


def pages() -> dict[str, str]:
    """Path below the site -> Markdown, of every page."""
    sources = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "docs").rglob("*.md"))}
    sources |= {name: ROOT / name for name in OUTSIDE}
    made = {_place(name): _for_the_site(path.read_text("utf-8"), name) for name, path in sources.items()}
    made["license.md"] = f"# License\n\n```text\n{(ROOT / 'LICENSE').read_text('utf-8')}```\n"
    made["decisions/index.md"] = _decisions()
    made["steps/index.md"] = index_page()
    return made | {f"steps/{name}.md": step_page(name, in_the_guide(name)) for name in BUILT_IN}


def in_the_guide(step: str) -> str:
    """Where the guides describe a step: under a heading of its own, or in a list under one. A link from its page.

    Raises:
        ValueError: no guide does.
    """
    for guide in GUIDES:
        anchor = ""
        for line in (ROOT / "docs" / guide).read_text("utf-8").splitlines():
            if line.startswith("#"):
                anchor = re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
            if line.startswith((f"- **`{step}`**", f"### `{step}`")):
                return f"../{guide}#{anchor}"
    raise ValueError(f"no guide describes the step {step!r}: give it a line `- **`{step}`**` in docs/steps*.md")


def _place(name: str) -> str:
    return OUTSIDE.get(name) or FOLDERS.get(name) or name.removeprefix("docs/")


def _for_the_site(text: str, name: str) -> str:
    """A page of the repository as the site takes it; code stays as it is."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _prose(part, name) for part in parts)


def _prose(text: str, name: str) -> str:
    if name in {f"docs/{guide}" for guide in GUIDES}:
        text = re.sub(r"^(- \*\*|### )`(\w+)`", _linked_step, text, flags=re.MULTILINE)
    text = re.sub(r"(?<=\]\()[^)#\s]+", lambda link: _target(link[0], name), text)
    return re.sub(r"^ +", lambda indent: 2 * indent[0], text, flags=re.MULTILINE)


def _target(link: str, name: str) -> str:
    """Where a link of a page of the repository leads on the site."""
    path = (ROOT / name).parent.joinpath(link).resolve()
    if "://" in link or not path.is_relative_to(ROOT):
        return link
    return "../" * _place(name).count("/") + _place(path.relative_to(ROOT).as_posix())


def _linked_step(match: re.Match[str]) -> str:
    lead, step = match.groups()
    return f"{lead}[`{step}`](steps/{step}.md)" if step in BUILT_IN else match[0]


def _decisions() -> str:
    paths = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    titles = [path.read_text("utf-8").partition("\n")[0].lstrip("# ") for path in paths]
    lines = [f"- [{title}]({path.name})" for title, path in zip(titles, paths, strict=True)]
    return "# Decisions\n\nWhat was decided, why, and what it costs, in half a page each.\n\n" + "\n".join(lines) + "\n"
