"""The sensors for new files and new labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from pipelines.orchestration.definitions import build_definitions
from storage.labels.rounds import ITEM_COLUMNS, commit_round
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change


def evaluate(project: Path, name: str, cursor: str | None) -> Any:
    (sensor,) = (s for s in build_definitions(project / "winnow.yaml").sensors or () if s.name == name)
    assert isinstance(sensor, dg.SensorDefinition)
    return sensor(dg.build_sensor_context(cursor=cursor))


def looks(project: Path, name: str, cursor: str) -> tuple[list[int], str]:
    """Three looks at the same files: how many runs each asks for, and the last cursor."""
    runs = []
    for _ in range(3):
        seen = evaluate(project, name, cursor)
        runs.append(len(seen.run_requests))
        cursor = seen.cursor
    return runs, cursor


def test_sensor__remembers_at_first_and_then_asks_for_a_run_at_each_change(light: Path) -> None:
    first = evaluate(light, "new_files", None)
    assert not first.run_requests
    runs, cursor = looks(light, "new_files", first.cursor)
    assert runs == [0, 0, 0]

    new = light / "data" / "c.jsonl"
    for step in ("a new file", "it is gone again", "it is back", "a target", "a vector", "a list of ids"):
        if step == "a new file":
            write_rows(new, [row(11, "fox")])
        elif step == "it is gone again":
            new.rename(light / "aside")
        elif step == "it is back":
            (light / "aside").rename(new)
        elif step == "a target":
            write_rows(light / "targets" / "foxes.jsonl", [row(100, "fox"), row(101, "fox"), row(102, "fox")])
        elif step == "a vector":
            (light / "vectors" / "foxes.ids.txt").write_text("fox-101\nfox-100\nfox-102\n")
        else:
            (light / "deny.txt").write_text("fox-1\n")
            change(light, "budget: 8", "budget: 8, deny: deny.txt")
        runs, cursor = looks(light, "new_files", cursor)
        assert runs == [0, 1, 0], step  # two looks that agree, and once


def test_sensor__a_file_that_is_still_written_waits(light: Path) -> None:
    cursor = evaluate(light, "new_files", None).cursor
    for _ in range(3):
        with (light / "data" / "a.jsonl").open("a") as file:
            file.write("{")
        seen = evaluate(light, "new_files", cursor)
        assert not seen.run_requests
        assert "a run starts when two looks find them the same" in seen.skip_reason.skip_message
        cursor = seen.cursor
    assert looks(light, "new_files", cursor)[0] == [1, 0, 0]


def test_sensor__the_cursor_of_an_earlier_version_starts_one_run(light: Path) -> None:
    assert looks(light, "new_files", "0123456789abcdef" * 2)[0] == [0, 1, 0]


def test_sensor__a_configuration_that_is_wrong_just_now_is_a_reason_to_skip(light: Path) -> None:
    definitions = build_definitions(light / "winnow.yaml")
    for file in (light / "data").iterdir():
        file.unlink()
    sensor = next(s for s in definitions.sensors or () if s.name == "new_files")
    assert isinstance(sensor, dg.SensorDefinition)
    skipped = sensor(dg.build_sensor_context(cursor="x"))
    assert isinstance(skipped, dg.SkipReason)
    assert "no file matches 'data/*.jsonl'" in (skipped.skip_message or "")


def test_sensor__asks_at_first_at_each_change_and_when_a_lease_has_ended(labeling: Path) -> None:
    first = evaluate(labeling, "new_labels", None)
    assert [request.job_name for request in first.run_requests] == ["label_a_b"]
    runs, cursor = looks(labeling, "new_labels", first.cursor)
    assert runs == [0, 0, 0]

    (labeling / "labels" / "one.jsonl").write_text(json.dumps({"id": "fox-1", "label": "x"}) + "\n")
    runs, cursor = looks(labeling, "new_labels", cursor)
    assert runs == [0, 1, 0]

    empty = pa.table({name: pa.array([], kind) for name, kind in ITEM_COLUMNS.items()})
    store = Store(labeling / "store")
    header = {"project": "a-b", "round": 0, "lease_until": "2999-01-01T00:00:00+00:00"}
    commit_round(store, header | {"round_id": "1" * 32}, empty)
    assert looks(labeling, "new_labels", cursor)[0] == [0, 0, 0]  # still out
    commit_round(store, header | {"round_id": "2" * 32, "round": 1, "lease_until": "2001-01-01T00:00:00+00:00"}, empty)
    assert looks(labeling, "new_labels", cursor)[0] == [1, 0, 0]


def test_sensor__a_project_that_has_no_job_yet_waits_until_the_definitions_are_built_again(labeling: Path) -> None:
    (sensor,) = (s for s in build_definitions(labeling / "winnow.yaml").sensors or () if s.name == "new_labels")
    assert isinstance(sensor, dg.SensorDefinition)
    change(
        labeling, "labels/*.jsonl'}", "labels/*.jsonl'}\n  c: {classes: [x, y], steps: [entropy], labels: 'c/*.jsonl'}"
    )
    first: Any = sensor(dg.build_sensor_context())
    assert [request.job_name for request in first.run_requests] == ["label_a_b"]
    second = evaluate(labeling, "new_labels", first.cursor)
    assert [request.job_name for request in second.run_requests] == ["label_c"]


def test_sensor__new_files_does_not_look_at_labels(labeling: Path) -> None:
    cursor = evaluate(labeling, "new_files", None).cursor
    (labeling / "labels" / "one.jsonl").write_text("{}\n")
    assert looks(labeling, "new_files", cursor)[0] == [0, 0, 0]
