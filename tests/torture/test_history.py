"""Histories of a store: rows come, go and are forgotten, runs are killed, files are damaged, selections are pinned,
rolled back and removed; against a plain model in memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from storage.catalog.query import query_catalog
from storage.store import FORGETTING, Store
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import change, make_light
from tests.torture.commands import Commands

ROWS = "SELECT id::TEXT AS id, prompt, response FROM examples"
LATEST = "SELECT recipe, selection_id FROM latest_selections"
SELECTED = "SELECT selection_id AS name, id::TEXT AS id FROM selection_items ORDER BY name, rank"

# What can be made again from the user's files: a selection that is damaged is lost, and said to be.
MADE_AGAIN = (
    "pool/*/part-00000.parquet",
    "vectors/*/seg-*/vectors.npy",
    "vectors/*/shared-*/keys.npy",
    "records/snapshots/*/ids.npy",
    "packs/pool_rows/*/part-00000.parquet",
    "packs/*/*/index.json",
)
# Commands after which the store holds what it held.
TIDYING = st.sampled_from([("catalog", "rebuild"), ("check",)])
names, numbers, subjects = st.sampled_from(["a", "b", "c"]), st.integers(0, 19), st.sampled_from(SUBJECTS)


class History(RuleBasedStateMachine):
    """A project and what it should hold.

    Attributes:
        files: what each file holds, row by row.
        ids: of each text that was ever published.
        acknowledged: the rows of each selection that a run reported, and that no gc may have removed.
        latest: the selection of each recipe; None after a crash, of which it is not known how far it came.
        recipes: of each selection.
        pinned: selections.
        forgotten: texts that never come back.
    """

    command: Commands

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.project = make_light(Path(self._folder.name) / "light")
        data = self.project / "data"
        self.files = {path.stem: [*map(json.loads, path.read_text().splitlines())] for path in data.glob("*.jsonl")}
        self.ids: dict[tuple[str, str], str] = {}
        self.acknowledged: dict[str, list[str]] = {}
        self.latest: dict[str, str] | None = None
        self.recipes: dict[str, str] = {}
        self.pinned: set[str] = set()
        self.forgotten: set[tuple[str, str]] = set()
        self.seed = 0

    def teardown(self) -> None:
        self._folder.cleanup()

    def write(self) -> None:
        for path in (self.project / "data").iterdir():
            path.unlink()
        for name, rows in self.files.items():
            write_rows(self.project / "data" / f"{name}.jsonl", rows)

    @rule(name=names, number=numbers, subject=subjects)
    def add(self, name: str, number: int, subject: str) -> None:
        self.files.setdefault(name, []).append(row(number, subject))

    @rule(name=names, which=st.integers(0, 99), count=st.integers(1, 5))
    def delete(self, name: str, which: int, count: int) -> None:
        rows = self.files.get(name, [])
        if len(rows) > 20:
            del rows[which % len(rows) : which % len(rows) + count]

    @rule(name=names, which=st.integers(0, 99), text=st.sampled_from(["x", "grün", "a\u2028b", "'; DROP TABLE runs"]))
    def edit(self, name: str, which: int, text: str) -> None:
        if rows := self.files.get(name):
            edited = rows[which % len(rows)]["id"]
            for every in self.files.values():  # copies too: an id that names two texts has no vector
                every[:] = [each | {"response": text} if each["id"] == edited else each for each in every]

    @rule(name=names, other=names)
    def rename(self, name: str, other: str) -> None:
        if name in self.files and other not in self.files:
            self.files[other] = self.files.pop(name)

    @rule(name=names)
    def copy(self, name: str) -> None:
        if name in self.files:
            self.files[f"{name}-copy"] = list(self.files[name])

    @rule()
    def configure(self) -> None:
        old = f"budget: 8, seed: {self.seed}" if self.seed else "budget: 8"
        self.seed += 1
        change(self.project, old, f"budget: 8, seed: {self.seed}")

    @rule()
    def run(self) -> None:
        self.write()
        ended = self.command(self.project, "run")
        if self.has_unclear_id():
            assert ended.code == 2, ended.said
            assert "name several rows each" in ended.said
            return
        assert ended.code == 0, ended.said
        published = {(each["prompt"], each["response"]): each["id"] for each in self.ask(ROWS)}
        texts = {(each["prompt"], each["response"]) for rows in self.files.values() for each in rows}
        assert published.keys() == texts - self.forgotten
        assert len(published) == len(set(published.values()))
        assert all(self.ids.setdefault(text, name) == name for text, name in published.items())
        self.acknowledged |= self.selections()
        self.latest = self.latest_now()
        self.recipes |= {selection: recipe for recipe, selection in self.latest.items()}
        assert not list((self.project / "store" / "tmp").iterdir())

    def has_unclear_id(self) -> bool:
        """Whether an id, by which vectors are known, stands for two texts: one that was edited, and is added as it was."""
        texts: dict[str, set[tuple[str, str]]] = {}
        for each in (each for rows in self.files.values() for each in rows):
            texts.setdefault(each["id"], set()).add((each["prompt"], each["response"]))
        return any(len(of_id - self.forgotten) > 1 for of_id in texts.values())

    @rule(nth=st.integers(1, 700))
    def crash(self, nth: int) -> None:
        self.write()
        self.latest = None
        whole = 2 if self.has_unclear_id() else 0
        assert self.command(self.project, "run", nth=nth).code in (whole, -9)

    @rule(arguments=TIDYING)
    def tidy(self, arguments: tuple[str, ...]) -> None:
        if self.acknowledged:
            ended = self.command(self.project, *arguments)
            assert ended.code == 0, ended.said

    @rule(which=st.integers(0, 99))
    def pin(self, which: int) -> None:
        """One that stays for no other reason."""
        others = sorted(self.acknowledged.keys() - set((self.latest or {}).values()))
        if others:
            selection = others[which % len(others)]
            assert self.command(self.project, "pin", selection).code == 0
            self.pinned.add(selection)

    @rule(which=st.integers(0, 99))
    def roll_back(self, which: int) -> None:
        """To a selection that was the latest of its recipe before."""
        others = sorted(self.acknowledged.keys() & self.recipes.keys() - set((self.latest or {}).values()))
        if self.latest is None or not others:
            return
        selection = others[which % len(others)]
        ended = self.command(self.project, "rollback", self.recipes[selection], selection)
        assert ended.code == 0, ended.said
        self.latest[self.recipes[selection]] = selection

    @rule(nth=st.integers(0, 60))
    def collect(self, nth: int) -> None:
        """What is pinned or the latest stays, also if the removal is killed; of the rest, all that is young may go."""
        if self.latest is None:
            self.run()
        if self.latest is None:  # no run succeeds with files as they are
            return
        arguments = ("gc", "--delete", "--keep-nights", "0")
        assert self.command(self.project, *arguments, nth=nth).code in (0, -9)
        ended = self.command(self.project, *arguments)
        assert ended.code == 0, ended.said
        must_stay = self.pinned | set(self.latest.values())
        held = self.selections()
        assert must_stay <= held.keys()
        self.acknowledged = {name: rows for name, rows in self.acknowledged.items() if name in held}

    @rule(
        which=st.integers(0, 999),
        nth=st.integers(0, 600),
        kind=st.none() | st.sampled_from(MADE_AGAIN),
        at=st.integers(0, 10**6),
    )
    def forget(self, which: int, nth: int, kind: str | None, at: int) -> None:
        """A row leaves every selection and never comes back, also if the forgetting is killed, and then ended; a file
        that is damaged in between goes with it."""
        texts = sorted(self.ids.keys() - self.forgotten)
        if len(texts) < 40:  # the recipes need rows
            return
        text = texts[which % len(texts)]
        row_id = self.ids[text]
        assert self.command(self.project, "forget", row_id, "--yes", nth=nth).code in (0, -9)
        store = Store(self.project / "store")
        flipped = None
        if store.has(*FORGETTING):
            flipped = kind and self.flip(kind, at)
            ended = self.command(self.project, "forget", "--yes")
            assert ended.code == 0, ended.said
        elif nth:  # before it began, or after its end
            ended = self.command(self.project, "forget", row_id, "--yes")
            assert ended.code == 0 or "was forgotten before" in ended.said, ended.said
        self.forgotten.add(text)
        self.acknowledged = {
            name: [each for each in rows if each != row_id] for name, rows in self.acknowledged.items()
        }
        if flipped:
            self.run()

    @rule(kind=st.sampled_from(MADE_AGAIN), at=st.integers(0, 10**6))
    def damage(self, kind: str, at: int) -> None:
        path = self.flip(kind, at)
        if path is not None:
            assert str(path) in self.command(self.project, "check", "--deep").said
            self.run()

    def flip(self, kind: str, at: int) -> Path | None:
        """Flip a bit of a file, if there is one of the kind."""
        paths = sorted((self.project / "store").glob(kind))
        if not paths:
            return None
        path = paths[at % len(paths)]
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        return path

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        if self.acknowledged:
            assert self.acknowledged.items() <= self.selections().items()

    @invariant()
    def the_latest_is_known(self) -> None:
        if self.latest is not None:
            assert self.latest_now() == self.latest

    def latest_now(self) -> dict[str, str]:
        return {each["recipe"]: each["selection_id"] for each in self.ask(LATEST)}

    def selections(self) -> dict[str, list[str]]:
        drawn: dict[str, list[str]] = {}
        for each in self.ask(SELECTED):
            drawn.setdefault(each["name"], []).append(each["id"])
        return drawn

    def ask(self, sql: str) -> list[dict[str, Any]]:
        return query_catalog(Store(self.project / "store"), sql).to_pylist()


def check_histories(command: Commands, examples: int, steps: int) -> None:
    machine: Callable[[], History] = type("Machine", (History,), {"command": command})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=examples < 10,
            phases=[Phase.generate],  # to shrink a history takes many runs, and it can be read as it is
            database=None,
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("examples", "steps"), [(2, 12), pytest.param(60, 40, marks=pytest.mark.torture, id="longer")])
def test_any_history__ids_rows_and_selections_are_those_of_the_model(
    command: Commands, examples: int, steps: int
) -> None:
    check_histories(command, examples, steps)
