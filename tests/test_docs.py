"""The docs name only what exists: steps, commands, files, modules and functions; their examples run."""

from __future__ import annotations

import ast
import doctest
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
from tests.test_architecture import ROOMS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "examples/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}
COLUMNS = 120

# Folders of the repository; a path in the docs that begins with one of them is a path here.
PACKAGES = ("pipelines", "selection", "storage")
FOLDERS = (*PACKAGES, "benchmarks", "docs", "examples", "tests")

COMBINATIONS = TEXTS["docs/steps-active.md"].partition("## Published combinations")[2]
PUBLISHED = re.findall(r"^- (?:.|\n)+?:\s+`(\[[^`]+\])`", COMBINATIONS, re.MULTILINE)


def code(text: str) -> list[str]:
    """The code spans of a page, outside of its blocks of code."""
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [" ".join(span.split()) for span in spans]


def defined(name: str) -> bool:
    """Whether `package.module.attribute...` is a module, or a name that one defines or imports."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        for path in (ROOT.joinpath(*parts[:n]).with_suffix(".py"), ROOT.joinpath(*parts[:n], "__init__.py")):
            if path.is_file():
                names = top_level(ast.parse(path.read_text("utf-8")))
                return n == len(parts) or parts[n] in names
    return False


def top_level(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("name", TEXTS)
def test_docs__links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXTS[name])
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("name", TEXTS)
def test_docs__links_to_headings_lead_to_one(name: str) -> None:
    dead = []
    for link, heading in re.findall(r"\]\(([^)#]*)#([^)]+)\)", TEXTS[name]):
        if "://" not in link:
            target = ((ROOT / name).parent / link).resolve() if link else ROOT / name
            titles = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            dead += [] if heading in anchors else [f"{link}#{heading}"]
    assert dead == []


@pytest.mark.parametrize("name", TEXTS)
def test_docs__lines_are_short(name: str) -> None:
    long = [number for number, line in enumerate(TEXTS[name].splitlines(), 1) if len(line) > COLUMNS]
    assert long == []


@pytest.mark.parametrize("name", TEXTS)
def test_docs__paths_exist(name: str) -> None:
    paths = [span for span in code(TEXTS[name]) if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./*<>-]*", span)]
    # In `tests/selection/scorers/test_<name>.py` the reader chooses the name: its folder must exist.
    paths = [f"{path.rpartition('/')[0]}/" if "<" in path else path for path in paths]
    assert [path for path in paths if not any(ROOT.glob(path))] == []


def test_docs__the_map_has_every_folder_of_the_packages() -> None:
    inner = [path.parent.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).glob("*/**/__init__.py")]
    assert [f"{folder}/" for folder in inner if f"`{folder}/`" not in TEXTS["docs/architecture.md"]] == []


def test_docs__the_map_says_what_each_folder_may_import() -> None:
    rows = re.findall(r"^\| `([\w/]+)/` \| .* \| (.*) \|$", TEXTS["docs/architecture.md"], re.MULTILINE)
    stated = {folder.replace("/", "."): set(re.findall(r"`([\w.]+)`", cell)) for folder, cell in rows}
    assert len(stated) > len(PACKAGES)
    for folder, names in stated.items():
        package = folder.partition(".")[0]
        allowed = {room for room in ROOMS[folder] - set(PACKAGES) if ROOT.joinpath(*room.split(".")).is_dir()}
        assert {f"{package}.{name}" for name in names} == allowed


@pytest.mark.parametrize(
    ("question", "content"),
    [
        ("a recipe's asset made", 'key=["selection", name]'),
        ("the nightly schedule", "dg.ScheduleDefinition("),
        ("the seed enter", "np.random.default_rng([seed,"),
    ],
)
def test_docs__questions_are_answered_by_the_right_file(question: str, content: str) -> None:
    answer = re.search(rf"{question}\? `([\w/.]+)`", TEXTS["CONTRIBUTING.md"])
    assert answer is not None
    assert content in (ROOT / answer[1]).read_text("utf-8")


@pytest.mark.parametrize("name", TEXTS)
def test_docs__modules_and_functions_exist(name: str) -> None:
    calls = [
        re.fullmatch(rf"(?:python -m )?((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?:\(.*\))?", span)
        for span in code(TEXTS[name])
    ]
    names = {match[1] for match in calls if match}
    assert {name for name in names if not defined(name)} == set()


@pytest.mark.parametrize("name", TEXTS)
def test_docs__benchmarks_exist(name: str) -> None:
    assert {path for path in re.findall(r"benchmarks/\w+\.py", TEXTS[name]) if not (ROOT / path).is_file()} == set()


@pytest.mark.parametrize("name", ["README.md", "docs/library.md"])
def test_docs__python_examples_give_what_they_show(name: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", TEXTS[name], re.MULTILINE | re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, name, name, 0)
    report: list[str] = []
    results = doctest.DocTestRunner().run(examples, out=report.append)
    assert (results.failed, report) == (0, [])
    assert results.attempted >= len(blocks) > 0


def test_docs__every_step_has_its_line() -> None:
    text = "".join(TEXTS[name] for name in TEXTS if name.startswith("docs/steps"))
    assert [name for name in step_names() if f"`{name}`" not in text] == []


def test_docs__changelog_or_readme_names_every_command() -> None:
    text = "".join(TEXTS.values())
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if not re.search(rf"\b{name}\b", text)] == []


def test_docs__there_are_ten_published_combinations() -> None:
    assert len(PUBLISHED) >= 10


@pytest.mark.parametrize("steps", PUBLISHED)
def test_docs__published_combinations_draw_a_batch(steps: str) -> None:
    recipe = yaml.safe_load(" ".join(steps.split()))
    inputs = make_inputs(parse_steps(recipe)[-1])
    drawn = select(recipe, Pool(**inputs, already_selected=np.flatnonzero(inputs["labels"] >= 0)), budget=5)
    assert len(set(drawn.rows.tolist())) == 5
    assert (inputs["labels"][drawn.rows] < 0).all()
