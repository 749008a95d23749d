"""A store of which a file is damaged: nothing ends in a traceback, every message names it, nothing selects otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.labeling.project import project_state
from pipelines.run import run_all
from pipelines.stages.fit import fit
from pipelines.stages.publish import publish
from pipelines.stages.pull import pull
from pipelines.stages.push import push
from storage.errors import StoreDamaged
from storage.ids import from_arrow, rows_of, to_text
from storage.pool.token_counts import commit_counts
from storage.records import read_selection
from storage.store import Store
from tests.pipelines.conftest import Winnow, make_light, opened
from tests.quick import quick_first, torture_last

LABELING = "labeling:\n  kinds: {classes: [fox, other], steps: [entropy], batch_size: 10, labels: 'labels/*.jsonl'}\n"


def label(project: Path) -> None:
    """Answer the newest batch, truly."""
    state = project_state(opened(project), "kinds")
    rows = rows_of(from_arrow(state.items(state.rounds[-1])["id"]), state.snapshot.ids)
    pairs = zip(state.snapshot.column("given_id")[rows], state.snapshot.column("source")[rows], strict=True)
    lines = [json.dumps({"id": name, "label": "fox" if source == "fox" else "other"}) + "\n" for name, source in pairs]
    (project / "labels").mkdir(exist_ok=True)
    (project / "labels" / f"{len(state.rounds)}.jsonl").write_text("".join(lines))


def finish(project: Path) -> None:
    """Recipes drawn, columns brought, two rounds labelled, a filter that reports."""
    ids = [f"{subject}-{n}" for subject in ("fox", "dog") for n in range(10)]
    pq.write_table(pa.table({"id": ids, "score": np.arange(20.0)}), project / "scores.parquet")
    text = (project / "winnow.yaml").read_text()
    text = text.replace("  files: data", "  columns: scores.parquet\n  files: data")
    text = text.replace(
        "  any:", "  few: {steps: [{near_duplicates: {threshold: 0.5}}, random], budget: 5, allow_short: true}\n  any:"
    )
    text = text.replace("{steps: [rds_plus], budget", "{steps: [{outliers: {drop: 0.1}}, rds_plus], budget")
    (project / "winnow.yaml").write_text(text + LABELING + "index: {kind: ivf, min_recall: 0}\n")
    context = opened(project)
    run_all(context)
    commit_counts(context.store, "words", context.pool.snapshot.ids, np.arange(len(context.pool.snapshot)))
    for _ in range(2):
        for stage in (pull, fit, push):
            stage(opened(project), "kinds")
        label(project)
    for stage in (pull, fit):
        stage(opened(project), "kinds")
    publish(opened(project))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_light(tmp_path_factory.mktemp("damage") / "light")
    finish(project)
    shutil.copytree(project / "store", project / "whole", symlinks=True)
    return project


@pytest.fixture
def project(finished: Path) -> Path:
    """The finished project, whole again."""
    shutil.rmtree(finished / "store")
    shutil.copytree(finished / "whole", finished / "store", symlinks=True)
    return finished


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def flip_last(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    document = change(document) or document
    path.write_text(json.dumps(document))


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{}")


def a_list(path: Path) -> None:
    path.write_text("[1, 2]")


def no_keys(path: Path) -> None:
    path.write_text("{}")


def a_key_more(path: Path) -> None:
    changed(path, lambda document: {"a_key_of_later": 1, **document})


def too_large(path: Path) -> None:
    """Every whole number outside of what the catalog can hold."""

    def large(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: large(each) for key, each in value.items()}
        return 2**63 if type(value) is int else value

    changed(path, large)


def other_types(path: Path) -> None:
    changed(path, lambda document: {key: [[value]] for key, value in document.items()})


def nested(path: Path) -> None:
    path.write_text("[" * 100_000)


def without_checksums(project: Path) -> None:
    """As an earlier version wrote it."""
    for path in (project / "store").rglob("checksums.json"):
        path.unlink()


FILES = {
    "pool": "pool/*/part-00000.parquet",
    "ingest": "pool/*/ingest.json",
    "quarantine": "quarantine/*/rows.parquet",
    "vectors": "vectors/*/seg-*/vectors.npy",
    "keys": "vectors/*/seg-*/keys.npy",
    "failed": "vectors/*/seg-*/failed.npy",
    "segment": "vectors/*/seg-*/segment.json",
    "encoder": "vectors/*/encoder.json",
    "index": "indexes/*/index.json",
    "index cells": "index_parts/*/cells.faiss",
    "index part": "index_parts/*/part.faiss",
    "index keys": "index_parts/*/keys.npy",
    "index part record": "index_parts/*/part.json",
    "token keys": "tokens/*/seg-*/keys.npy",
    "token counts": "tokens/*/seg-*/counts.npy",
    "snapshot": "records/snapshots/*/snapshot.json",
    "ids": "records/snapshots/*/ids.npy",
    "rows": "records/snapshots/*/rows.npy",
    "duplicates": "records/snapshots/*/duplicates.parquet",
    "tombstones": "records/snapshots/*/tombstones.parquet",
    "column rows": "records/snapshots/*/column_rows/*.npy",
    "column table": "records/snapshots/*/column_rows/*.parquet",
    "columns": "records/columns/*/columns.json",
    "column values": "records/columns/*/columns.parquet",
    "targets": "records/targets/*/targets.json",
    "target items": "records/targets/*/items.parquet",
    "selection": "records/selections/*/selection.json",
    "items": "records/selections/*/items.parquet",
    "dropped": "records/selections/*/dropped.parquet",
    "metrics": "records/metrics/*/metrics.json",
    "import": "records/labels/*/import.json",
    "labels": "records/labels/*/labels.parquet",
    "label quarantine": "records/labels/*/quarantine.parquet",
    "round": "records/rounds/*/round.json",
    "round items": "records/rounds/*/items.parquet",
    "model": "records/models/*/model.json",
    "consensus": "records/models/*/consensus.parquet",
    "predictions": "records/models/*/predictions.parquet",
    "run": "records/runs/*/run.json",
    "checksums": "records/selections/*/checksums.json",
    "run checksums": "records/runs/*/checksums.json",
    "catalog": "catalog/*.duckdb",
}
ANY = (flip, flip_last, cut, emptied, removed, folder)
JSON = (not_text, a_list, no_keys, a_key_more, too_large, other_types, nested)


def selections(project: Path) -> dict[str, list[str]]:
    """The rows of every selection that is whole, by recipe; that of a round is not drawn again by `winnow run`."""
    store = Store(project / "store")
    drawn = {}
    for name in store.records("selections"):
        try:
            header, items = read_selection(store, name)
        except StoreDamaged:
            continue
        drawn[f"{header['recipe']} {name}"] = to_text(from_arrow(items["id"]))
    return drawn


SILENT_WITHOUT_CHECKSUM = (flip, flip_last, a_key_more, too_large, other_types)


def problems(winnow: Winnow, project: Path, path: Path, whole: dict[str, list[str]]) -> Iterator[str]:
    """What goes wrong with a damaged file when every command is called."""
    said = ""

    def call(*command: str, codes: tuple[int, ...] = (0,)) -> Iterator[str]:
        nonlocal said
        try:
            ended = winnow(*command, "--config", project)
        except BaseException as error:  # noqa: BLE001 - also an assertion on the command's output
            yield f"{command} ended in {type(error).__name__}: {error}"
            return
        said += ended.out + ended.err
        if ended.code not in codes:
            yield f"{command} ended with {ended.code}: {ended.err}"
        if ended.code and path.parent.name not in ended.err + ended.out:
            yield f"{command} did not name the file: {ended.err}"

    yield from call("check", "--deep", codes=(0, 4))
    for command in (["status"], ["failures"], ["plan"]):
        yield from call(*command)
    yield from call("labels", "status", codes=(0, 2))
    for query in ("FROM selection_items", "FROM examples", "FROM labels", "FROM latest_selections"):
        yield from call("sql", query, codes=(0, 2))
    for command in (["run"], ["catalog", "rebuild"], ["plan"]):
        yield from call(*command)
    for query in ("FROM selection_items", "FROM examples", "FROM labels", "FROM latest_selections"):
        yield from call("sql", query)
    after = selections(project)
    yield from (f"other rows of {recipe}" for recipe, rows in whole.items() if after.get(recipe, rows) != rows)
    yield from (f"{recipe} is gone" for recipe in whole if recipe.split()[0] in RECIPES and recipe not in after)
    if str(path) not in said:
        yield NOT_SEEN


def damages(name: str, *, sealed: bool, all_kinds: bool) -> tuple[Callable[[Path], None], ...]:
    """What is done to a file: one damage, another for each file in turn; or all of them."""
    every = ANY + (JSON if FILES[name].endswith(".json") else ())
    if not sealed:  # what changes no form cannot be seen
        every = tuple(damage for damage in every if damage not in SILENT_WITHOUT_CHECKSUM)
    return every if all_kinds else (every[list(FILES).index(name) % len(every)],)


RECIPES = ("near", "few", "any")
NOT_SEEN = "nobody named the file"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sealed", "all_kinds"),
    torture_last(
        19,
        [
            *((name, True, False) for name in list(FILES)[::3]),
            *((name, False, False) for name in list(FILES)[::9]),
            *((name, sealed, True) for sealed in (True, False) for name in FILES),
        ],
    ),
)
def test_a_damaged_file__is_named_and_stops_nothing(
    project: Path, finished: Path, winnow: Winnow, name: str, *, sealed: bool, all_kinds: bool
) -> None:
    whole = selections(project)
    result = {}
    for damage in damages(name, sealed=sealed, all_kinds=all_kinds):
        shutil.rmtree(finished / "store")
        shutil.copytree(finished / "whole", finished / "store", symlinks=True)
        if not sealed:
            without_checksums(project)
        path = next(iter(sorted((project / "store").glob(FILES[name]), reverse=True)), None)
        if path is None:  # the checksums, where there are none
            return
        path.chmod(0o644)
        damage(path)
        unseen = SILENT_WITHOUT_CHECKSUM + ((removed,) if name == "encoder" else ())  # it is not there from the start
        is_silent = (not sealed and damage in unseen) or name in ("checksums", "run checksums", "catalog")
        seen = [problem for problem in problems(winnow, project, path, whole) if problem != NOT_SEEN or not is_silent]
        result |= {damage.__name__: seen} if seen else {}
    assert result == {}


@pytest.mark.parametrize("damage", quick_first(1, [no_keys, cut, emptied, removed, folder, not_text, a_list]))
def test_a_log_line_of_a_run__never_stops_anything(
    project: Path, winnow: Winnow, damage: Callable[[Path], None]
) -> None:
    whole = selections(project)
    paths = sorted((project / "store").glob(FILES["run"]))
    for path in (paths[0], paths[-1]):
        damage(path)
    for command in (["status"], ["plan"], ["catalog", "rebuild"], ["run", "any"], ["check"]):
        ended = winnow(*command, "--config", project)
        assert ended.code == 0, (command, ended.err)
    assert all(str(path) in ended.out for path in (paths[0], paths[-1]))
    assert "2 damaged records in" in ended.out
    assert selections(project) == whole


def test_check_deep__names_each_damaged_file_and_counts(project: Path, winnow: Winnow) -> None:
    whole = winnow("check", "--deep", "--config", project)
    assert "folders are as they were committed" in whole.out
    assert (whole.code, "damaged" in whole.out) == (0, False)
    paths = [min((project / "store").glob(FILES[name])) for name in ("vectors", "pool", "items", "index part")]
    for path in paths:
        flip(path)
    ended = winnow("check", "--deep", "--config", project)
    assert [str(path) in ended.out for path in paths] == [True] * 4
    assert "4 are damaged" in ended.out
    assert ended.code == 4
    assert "the store is damaged: 4 lines above" in ended.err
    without_checksums(project)
    ended = winnow("check", "--deep", "--config", project)
    assert "of an earlier version have no checksum" in ended.out
    assert str(paths[0]) in ended.out  # segments have always had theirs


@pytest.mark.parametrize("sealed", quick_first(1, [True, False]), ids=["sealed", "without checksums"])
@pytest.mark.parametrize("name", quick_first(1, ["vectors", "keys"]))
def test_a_flipped_bit_of_stored_vectors__changes_no_selection_in_silence(
    project: Path, winnow: Winnow, name: str, *, sealed: bool
) -> None:
    whole = selections(project)
    if not sealed:
        without_checksums(project)
    paths = sorted((project / "store").glob(FILES[name]))
    for path in paths:
        flip_last(path)
    for selection in (project / "store" / "records" / "selections").iterdir():
        shutil.rmtree(selection)  # to be drawn anew
    ended = winnow("run", "--config", project)
    assert ended.code == 0, ended.err
    assert str(paths[0]) in ended.err
    assert "put aside in" in ended.err
    after = selections(project)
    assert after
    assert {recipe: whole[recipe] for recipe in after} == after


def test_labels_of_a_damaged_import__are_said_to_be_lost_until_their_file_is_taken_in_again(project: Path) -> None:
    said: list[str] = []
    context = opened(project, said)
    before = project_state(context, "kinds").labelled
    path = min((project / "store").glob(FILES["labels"]))
    cut(path)
    context = opened(project, said)
    assert project_state(context, "kinds").labelled < before
    assert any(f"{path} is not what was committed" in line and "left out" in line for line in said)
    publish(context)
    said.clear()
    assert project_state(opened(project, said), "kinds").labelled < before
    assert any("do not count" in line for line in said)
    pull(opened(project), "kinds")
    said.clear()
    assert project_state(opened(project, said), "kinds").labelled == before
    assert said == []


@pytest.mark.parametrize("kind", quick_first(1, ["selections", "runs", "labels", "snapshots"]))
def test_a_folder_that_is_empty__stops_nothing(project: Path, winnow: Winnow, kind: str) -> None:
    (project / "store" / "records" / kind / "0123").mkdir()
    for command in (["status"], ["plan"], ["run", "any"], ["catalog", "rebuild"]):
        ended = winnow(*command, "--config", project)
        assert ended.code == 0, (command, ended.err)
