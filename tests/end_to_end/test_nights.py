"""Nights as Dagster's daemon runs them, at simulated times."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipelines.run import run_all
from pipelines.runs import causes, failed_runs, runs
from storage.catalog.query import query_catalog
from storage.errors import StoreBusy
from storage.store import Store
from tests.conftest import row, write_rows
from tests.embedding_server import EmbeddingServer
from tests.end_to_end.dagster_client import Clock, Dagster, serving, wait_for
from tests.pipelines.conftest import change, make_light, opened

VIENNA = ZoneInfo("Europe/Vienna")
SERVED = """\
store: ./store
pool: {files: data/*.jsonl}
targets: {foxes: targets/foxes.jsonl}
encoders:
  served: {kind: remote, model: org/embedder, url: "URL", batch_size: 5}
recipes:
  near: {steps: [rds_max], budget: 6, min_overlap: 0.5}
  any: {steps: [random], budget: 8}
exports:
  near: {recipe: near, to: ids}
schedule: {cron: "30 2 * * *", timezone: Europe/Vienna, recipes: [near, any]}
"""
EMBED, TARGETS = "served__embeddings", "served__target_embeddings"


@pytest.mark.slow
def test_night__starts_once_where_its_hour_does_not_exist_and_once_for_all_that_were_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    light = make_light(tmp_path / "light")
    change(light, '"30 3 * * *"', '"30 2 * * *"')
    clock = Clock(tmp_path / "clock", monkeypatch)
    clock.set(datetime(2021, 3, 24, 12, tzinfo=VIENNA))
    with serving(light) as dagster:
        dagster.switch_on("schedule", "nightly_reselection")
        clock.set(datetime(2021, 3, 28, 3, tzinfo=VIENNA))  # a machine that was off for three nights
        (night,) = wait_for(lambda: dagster.runs("nightly"), timeout_s=120)
        (tick,) = dagster.ticks("nightly_reselection")
        assert datetime.fromtimestamp(tick["timestamp"], UTC) == datetime(2021, 3, 28, 1, tzinfo=UTC)
        clock.set(datetime(2021, 3, 28, 6, tzinfo=VIENNA))
        assert dagster.wait(night, timeout_s=600) == "SUCCESS"
        (tick,) = dagster.ticks("nightly_reselection")
    assert tick["runIds"] == [night]
    assert [len(ids) for ids in drawn(light).values()] == [8]


def drawn(project: Path) -> dict[str, list[str]]:
    """Each recipe of the catalog -> the ids of its latest selection, in their order."""
    latest = (
        "SELECT recipe, id FROM selected_examples JOIN latest_selections USING (selection_id) ORDER BY recipe, rank"
    )
    ids: dict[str, list[str]] = {}
    for each in query_catalog(Store(project / "store"), latest).to_pylist():
        ids.setdefault(each["recipe"], []).append(each["id"])
    return ids


def exported(project: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((project / "exports" / "near").rglob("*")) if path.is_file()]


def reasons(project: Path, target: str | None) -> str:
    """Why the last stage of a target failed."""
    run = next(run for run, _ in failed_runs(Store(project / "store")) if run["target"] == target)
    return " ".join(causes(run))


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running
        running.released.set()


@pytest.fixture
def project(tmp_path: Path, server: EmbeddingServer) -> Path:
    folder = tmp_path / "project"
    write_rows(folder / "data" / "a.jsonl", [row(n, "fox") for n in range(8)])
    write_rows(folder / "data" / "b.jsonl", [row(n, s) for s in ("dog", "text") for n in range(8)])
    write_rows(folder / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101)])
    (folder / "winnow.yaml").write_text(SERVED.replace("URL", server.url))
    return folder


@dataclass
class Nights:
    """A project whose nights come when they are asked for."""

    project: Path
    clock: Clock
    server: EmbeddingServer
    dagster: Dagster

    def begin(self, number: int) -> str:
        """The run of a night of the week from 27 March 2021; in the second, clocks are put forward over the schedule's hour."""
        before = set(self.dagster.runs("nightly"))
        self.clock.set(datetime(2021, 3, 26, 3, 30, tzinfo=VIENNA) + timedelta(days=number))
        (night,) = wait_for(lambda: set(self.dagster.runs("nightly")) - before, timeout_s=120)
        return night

    def whole(self, number: int) -> str:
        """How a night ends."""
        return self.dagster.wait(self.begin(number), timeout_s=600)

    def begin_and_hold(self, number: int, step: str = EMBED) -> tuple[str, int]:
        """A night whose encoder gets no answer: the run, and the process that waits and has the card and a lock."""
        self.server.released.clear()
        self.server.always = "held"
        asked, night = self.server.asked, self.begin(number)
        process = wait_for(lambda: self.server.asked > asked and self.dagster.step_process(night, step), timeout_s=120)
        with pytest.raises(StoreBusy, match=f", process {process} on "), self.store.alone("a test"):
            pass
        return night, process

    def answer(self) -> None:
        self.server.always = None
        self.server.released.set()

    @property
    def store(self) -> Store:
        return Store(self.project / "store")

    def stages(self, night: str) -> set[str]:
        """The stages of a run that are on record."""
        return {run["stage"] for run in runs(self.store) if run["invocation"] == night}

    def is_free(self) -> bool:
        """Whether nobody holds a lock."""
        try:
            with self.store.alone("a test"):
                return True
        except StoreBusy:
            return False

    def expected(self) -> dict[str, list[str]]:
        """What a store that has seen no night before draws from the files as they are now."""
        fresh = self.project.with_name("fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(self.project, fresh, ignore=shutil.ignore_patterns("store", ".winnow", "exports", "ui.log"))
        run_all(opened(fresh))
        return drawn(fresh)


@pytest.mark.slow
@pytest.mark.torture
def test_week__every_morning_is_right_or_as_the_evening_before_with_a_reason(
    project: Path, tmp_path: Path, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path / "clock", monkeypatch)
    clock.set(datetime(2021, 3, 26, 12, tzinfo=VIENNA))
    data, changed = project / "data", [row(n, "dog") for n in range(20, 25)]
    with serving(project) as dagster:
        nights = Nights(project, clock, server, dagster)
        dagster.switch_on("schedule", "nightly_reselection")

        assert nights.whole(1) == "SUCCESS"
        assert drawn(project) == nights.expected()

        write_rows(data / "c.jsonl", changed)  # a file more, and the step that encodes it is killed
        night, process = nights.begin_and_hold(2)
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: "ExecutionStepUpForRetryEvent" in dagster.step_events(night, EMBED), timeout_s=60)
        nights.answer()
        assert dagster.wait(night, timeout_s=600) == "SUCCESS"
        assert drawn(project) == nights.expected()

        write_rows(data / "c.jsonl", [*changed[1:], row(30, "dog")])  # a row goes, a row comes; the run is terminated
        before = drawn(project), exported(project)
        night, _ = nights.begin_and_hold(3)
        dagster.cancel(night)
        assert dagster.wait(night, timeout_s=120) == "CANCELED"
        wait_for(nights.is_free, timeout_s=60)
        assert (drawn(project), exported(project)) == before
        nights.answer()

        assert nights.whole(4) == "SUCCESS"
        assert drawn(project) == nights.expected()

        (data / "a.jsonl").rename(project / "a.jsonl")  # near shares too little with the last one and is held back
        before = drawn(project), exported(project)
        assert nights.whole(5) == "FAILURE"
        expected = nights.expected()
        assert expected["near"] != before[0]["near"]
        assert drawn(project) == expected | {"near": before[0]["near"]}
        assert exported(project) == before[1]
        assert "overlap" in reasons(project, "near")

        (project / "a.jsonl").rename(data / "a.jsonl")
        change(project, "  any:", "  more: {steps: [random], budget: 5}\n  any:")
        change(project, "[near, any]", "[near, any, more]")
        clock.pass_until(lambda: "selection/more" in dagster.asset_keys(), timeout_s=120)
        assert nights.whole(6) == "SUCCESS"
        assert drawn(project) == nights.expected()
        assert len(drawn(project)["more"]) == 5

        write_rows(data / "d.jsonl", [row(n, "text") for n in range(40, 44)])
        good = (data / "d.jsonl").read_text()
        (data / "d.jsonl").write_text("no JSON\n" * 40)  # nothing is drawn
        before = drawn(project), exported(project)
        night = nights.begin(7)
        assert dagster.wait(night, timeout_s=600) == "FAILURE"
        assert (drawn(project), exported(project)) == before
        assert "d.jsonl" in reasons(project, None)
        clock.pass_until(lambda: "report" in nights.stages(night), timeout_s=120)  # that no step came to write

        dagster.switch_on("sensor", "new_files")
        clock.pass_until(lambda: dagster.ticks("new_files"), timeout_s=60)
        (data / "d.jsonl").write_text(good)  # in the morning
        (run,) = clock.pass_until(lambda: dagster.runs("reselect"), timeout_s=120)
        assert dagster.wait(run, timeout_s=600) == "SUCCESS"
        assert drawn(project) == nights.expected()
        assert exported(project) != before[1] or drawn(project)["near"] == before[0]["near"]
        assert len(dagster.runs("nightly")) == 7


@pytest.mark.slow
@pytest.mark.torture
def test_night__after_a_power_cut_the_next_one_goes_on(
    project: Path, tmp_path: Path, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path / "clock", monkeypatch)
    clock.set(datetime(2021, 3, 26, 12, tzinfo=VIENNA))
    with serving(project) as dagster:
        dagster.switch_on("schedule", "nightly_reselection")
        night, _ = Nights(project, clock, server, dagster).begin_and_hold(1, TARGETS)
        dagster.power_cut()
    with serving(project) as dagster:
        nights = Nights(project, clock, server, dagster)
        nights.answer()
        clock.pass_until(lambda: dagster.run_status(night) == "FAILURE", timeout_s=60)
        assert nights.whole(2) == "SUCCESS"  # which needs the card
        assert drawn(project) == nights.expected()
