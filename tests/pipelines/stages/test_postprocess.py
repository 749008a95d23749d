"""`postprocess`: fitted once, kept while the pool grows, whole whatever happens to the process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.check import check_lines
from pipelines.context import Context
from pipelines.reproduce import reproduce
from pipelines.stages import postprocess as stage_module
from pipelines.stages.embed import embed, embed_targets
from pipelines.stages.ingest import ingest
from pipelines.stages.select import select
from pipelines.stages.stage import Outcome
from selection.encoders.postprocess import fit_frame
from storage.damage import check_folder, read_record
from storage.vectors.segments import StoredVectors, normalise, segment_folders
from tests.pipelines.conftest import change, opened
from tests.tiny_models import tiny_llama, tiny_static

CONFIG = """\
pool: {files: data}
encoders:
  main: {model: ./m}
  moved: {model: ./m, postprocess: {method: whiten, sample: 100, fit: FIT}}
targets: {foxes: t.jsonl}
recipes:
  r: {encoder: moved, steps: [k_center], budget: 4}
"""
STATIC = """\
pool: {files: data}
encoders:
  main: {model: ./s, pooling: model, target_prompt: "lazy "}
  moved: {model: ./s, pooling: model, target_prompt: "lazy ", postprocess: center}
  again: {model: ./s, pooling: model, target_prompt: "lazy ", postprocess: center}
targets: {foxes: t.jsonl}
recipes:
  r: {encoder: moved, steps: [k_center], budget: 4}
"""
WINDOWS = CONFIG.replace("./m", "./m, chunk: {tokens: 20, overlap: 4}").replace("FIT", "1")


def write(project: Path, name: str, numbers: range) -> None:
    rows = "".join(json.dumps({"text": f"row {n} of {n * n} lazy dogs"}) + "\n" for n in numbers)
    (project / name).write_text(rows)


def make(folder: Path, config: str) -> Path:
    (folder / "data").mkdir(parents=True)
    write(folder, "data/a.jsonl", range(120))
    write(folder, "t.jsonl", range(3))
    (folder / "winnow.yaml").write_text(config)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_llama(folder / "m")
    tiny_static(folder / "s")
    return folder


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """A project of which the model has run, and nothing was fitted yet."""
    folder = make(tmp_path_factory.mktemp("static") / "project", STATIC)
    (folder / "s").symlink_to(models / "s")
    context = opened(folder)
    ingest(context)
    embed(context, "main")
    return folder


@pytest.fixture
def project(static: Path, tmp_path: Path) -> Path:
    """The same, to work on."""
    return shutil.copytree(static, tmp_path / "project", symlinks=True)


def run(project: Path, encoder: str = "moved") -> tuple[Context, Outcome]:
    context = opened(project)
    ingest(context)
    context.reopen_pool()
    planned = context.pool.fingerprint(encoder)
    outcome = embed(context, encoder)
    embed_targets(context, encoder)
    assert planned == context.pool.fingerprint(encoder) == outcome.subject
    return context, outcome


def read(context: Context, encoder: str, ids: Any) -> Any:
    return normalise(StoredVectors(context.store, encoder, ids).take(np.arange(len(ids))))[0]


@pytest.mark.parametrize(
    ("config", "method"), [(CONFIG.replace("FIT", "1"), "whiten"), (WINDOWS, "whiten"), (STATIC, "center")]
)
def test_postprocess__moves_pool_and_targets_by_one_fit(models: Path, tmp_path: Path, config: str, method: str) -> None:
    folder = make(tmp_path / "project", config)
    for name in ("m", "s"):
        (folder / name).symlink_to(models / name)
    context, outcome = run(folder)
    assert outcome.metrics["encoded"] == 120
    view = context.pool
    fit = view.fit("moved")
    assert fit is not None
    assert (len(fit.ids), fit.committed) == (100 if method == "whiten" else 120, True)
    assert view.base_fingerprint("moved") == view.fingerprint("main")
    assert embed(context, "main").metrics["encoded"] == 0  # the model ran already
    embed_targets(context, "main")
    frame = fit_frame(read(context, view.fingerprint("main"), fit.ids), method, 1e-6)
    for target, ids in ((None, view.snapshot.ids), ("foxes", view.target_set("foxes").ids)):
        expected, _ = frame.apply(read(context, view.fingerprint("main", target), ids))
        np.testing.assert_allclose(read(context, view.fingerprint("moved", target), ids), expected, atol=1e-3)


def test_postprocess__a_pool_that_grows_keeps_its_fit_and_old_selections_are_reproduced(project: Path) -> None:
    _, outcome = run(project)
    drawn = select(opened(project), "r").subject

    write(project, "data/b.jsonl", range(200, 260))
    grown, again = run(project)
    assert again.subject == outcome.subject
    assert (again.metrics["encoded"], len(grown.pool.snapshot)) == (60, 180)
    assert select(opened(project), "r").subject != drawn
    assert "the same 4 rows in the same order" in reproduce(opened(project), drawn)

    change(project, "postprocess: center", "postprocess: {method: center, fit: 2}")  # of both
    _, anew = run(project)
    assert anew.subject != outcome.subject
    assert anew.metrics["encoded"] == 0
    assert "the same 4 rows in the same order" in reproduce(opened(project), drawn)


def test_postprocess__of_two_runs_at_once_the_first_fit_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = []
    commit = stage_module.commit_fit

    def commit_after_another(*arguments: Any) -> None:
        monkeypatch.setattr(stage_module, "commit_fit", commit)
        write(project, "data/b.jsonl", range(200, 260))  # so that the other one has another sample
        subjects.append(run(project, "again")[1].subject)
        commit(*arguments)

    monkeypatch.setattr(stage_module, "commit_fit", commit_after_another)
    context = opened(project)
    planned = context.pool.fingerprint("moved")
    outcome = embed(context, "moved")
    assert [outcome.subject] == subjects != [planned]
    assert context.pool.fingerprint("moved") == outcome.subject
    assert len(context.store.committed("records", "fits")) == 1
    assert select(context, "r").status == "ok"


CHILD = """\
import os, signal, sys
from pathlib import Path
from pipelines.stages import postprocess
from tests.pipelines.stages.test_postprocess import embed, opened

postprocess.MAX_ROWS_COPIED = 40
name, calls = sys.argv[2], int(sys.argv[3])
before = getattr(postprocess, name)

def deadly(*arguments, **options):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(*arguments, **options)

setattr(postprocess, name, deadly)
embed(opened(Path(sys.argv[1])), sys.argv[4])
"""


def child(project: Path, name: str, calls: int, encoder: str = "moved") -> subprocess.Popen[bytes]:
    """A process that embeds, and dies where a function of the stage is called for the n-th time."""
    root = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(project), name, str(calls), encoder], env=os.environ | {"PYTHONPATH": root}
    )


@pytest.mark.slow
def test_postprocess__a_killed_run_goes_on(project: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(project, tmp_path / "whole", symlinks=True)
    expected, outcome = run(whole)
    ids = expected.pool.snapshot.ids

    fits, rows = [], []
    for name, calls in (("commit_fit", 1), ("_copy", 1), ("commit_segment", 3)):
        assert child(project, name, calls).wait(timeout=60) == -signal.SIGKILL
        store = opened(project).store
        fits.append(len(store.committed("records", "fits")))
        rows.append(40 * len(store.committed("vectors", outcome.subject)))
    assert (fits, rows) == ([0, 1, 1], [0, 0, 80])
    context, after = run(project)
    assert after.subject == outcome.subject
    np.testing.assert_array_equal(read(context, after.subject, ids), read(expected, outcome.subject, ids))


@pytest.mark.slow
def test_postprocess__two_processes_at_once__one_fit_and_one_copy(project: Path) -> None:
    both = [child(project, "_copy", 0, encoder) for encoder in ("moved", "again")]
    assert [each.wait(timeout=60) for each in both] == [0, 0]
    context, outcome = run(project)
    assert len(context.store.committed("records", "fits")) == 1
    segments = segment_folders(context.store, outcome.subject)
    assert sum(read_record("segments", folder)["n_rows"] for folder in segments) == 120


@pytest.mark.parametrize("file", ["fit.json", "ids.npy", "mean.npy", "matrix.npy"])
def test_postprocess__a_damaged_fit_is_reported_and_made_again(project: Path, file: str) -> None:
    change(project, "postprocess: center", "postprocess: whiten")
    context, outcome = run(project)
    drawn = select(opened(project), "r").subject
    (key,) = context.store.committed("records", "fits")
    path = context.store.path("records", "fits", key, file)
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    said = list(check_lines(opened(project), deep=True))
    assert any(line.startswith(f"damaged: {path}") for line in said), said

    write(project, "data/b.jsonl", range(200, 260))
    again, anew = run(project)
    assert anew.subject != outcome.subject  # fitted on the pool as it is now
    assert check_folder("fits", path.parent) == []
    assert "the same 4 rows in the same order" in reproduce(again, drawn)
