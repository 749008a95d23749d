"""Histories of a store: rows come and go, runs are killed, files are damaged; against a plain model in memory."""

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
from storage.store import Store
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import change, make_light
from tests.torture.commands import Commands

ROWS = "SELECT id::TEXT AS id, prompt, response FROM examples"
SELECTED = "SELECT selection_id AS name, id::TEXT AS id FROM selection_items ORDER BY name, rank"

# What can be made again from the user's files: a selection that is damaged is lost, and said to be.
MADE_AGAIN = ("pool/*/part-00000.parquet", "vectors/*/seg-*/vectors.npy", "records/snapshots/*/ids.npy")
names, numbers, subjects = st.sampled_from(["a", "b", "c"]), st.integers(0, 19), st.sampled_from(SUBJECTS)


class History(RuleBasedStateMachine):
    """A project and what it should hold.

    Attributes:
        files: what each file holds, row by row.
        ids: of each text that was ever published.
        acknowledged: the rows of each selection that a run reported.
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

    @rule(name=names, which=st.integers(0, 99), text=st.sampled_from(["x", "grün", "\u2028", "'; DROP TABLE runs"]))
    def edit(self, name: str, which: int, text: str) -> None:
        if rows := self.files.get(name):
            rows[which % len(rows)] = rows[which % len(rows)] | {"response": text}

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
        assert ended.code == 0, ended.said
        published = {(each["prompt"], each["response"]): each["id"] for each in self.ask(ROWS)}
        assert published.keys() == {(each["prompt"], each["response"]) for rows in self.files.values() for each in rows}
        assert len(published) == len(set(published.values()))
        assert all(self.ids.setdefault(text, name) == name for text, name in published.items())
        self.acknowledged |= self.selections()
        assert not list((self.project / "store" / "tmp").iterdir())

    @rule(nth=st.integers(1, 700))
    def crash(self, nth: int) -> None:
        self.write()
        assert self.command(self.project, "run", nth=nth).code in (0, -9)

    @rule()
    def rebuild(self) -> None:
        assert self.command(self.project, "catalog", "rebuild").code == 0

    @rule(kind=st.sampled_from(MADE_AGAIN), at=st.integers(0, 10**6))
    def damage(self, kind: str, at: int) -> None:
        paths = sorted((self.project / "store").glob(kind))
        if not paths:
            return
        path = paths[at % len(paths)]
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        assert str(path) in self.command(self.project, "check", "--deep").said
        self.run()

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        if self.acknowledged:
            assert self.acknowledged.items() <= self.selections().items()

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
