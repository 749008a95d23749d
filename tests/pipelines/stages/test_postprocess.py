from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.stages.embed import embed, embed_targets
from pipelines.stages.ingest import ingest
from selection.encoders.postprocess import fit_frame
from storage.vectors.segments import StoredVectors, normalise
from tests.pipelines.conftest import opened
from tests.tiny_models import tiny_llama

CONFIG = """\
pool: {files: data}
encoders:
  main: {model: ./m}
  moved: {model: ./m, postprocess: {method: whiten, sample: 100, fit: FIT}}
targets: {foxes: t.jsonl}
recipes:
  r: {encoder: moved, steps: [k_center], budget: 4}
"""


def write(project, name, numbers):
    rows = "".join(json.dumps({"text": f"row {n} of {n * n} lazy dogs"}) + "\n" for n in numbers)
    (project / name).write_text(rows)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("postprocess")
    (folder / "data").mkdir()
    tiny_llama(folder / "m")
    write(folder, "data/a.jsonl", range(120))
    write(folder, "t.jsonl", range(3))
    (folder / "winnow.yaml").write_text(CONFIG.replace("FIT", "1"))
    return folder


def run(project):
    context = opened(project)
    ingest(context)
    context.reopen_pool()
    planned = context.pool.fingerprint("moved")
    outcome = embed(context, "moved")
    embed_targets(context, "moved")
    assert planned == context.pool.fingerprint("moved") == outcome.subject
    return context, outcome


def read(context, encoder, ids):
    return normalise(StoredVectors(context.store, encoder, ids).take(np.arange(len(ids))))[0]


def test_postprocess__fits_once_on_a_sample_and_moves_pool_and_targets_alike(project):
    context, outcome = run(project)
    assert outcome.metrics["encoded"] == 120
    view = context.pool
    fit = view.fit("moved")
    assert (len(fit.ids), fit.committed) == (100, True)
    assert view.base_fingerprint("moved") == view.fingerprint("main")
    frame = fit_frame(read(context, view.fingerprint("main"), fit.ids), "whiten", 1e-6)
    for ids in (view.snapshot.ids, view.target_set("foxes").ids):
        expected, _ = frame.apply(read(context, view.fingerprint("main"), ids))
        np.testing.assert_allclose(read(context, outcome.subject, ids), expected, atol=1e-3)
    assert embed(context, "main").metrics["encoded"] == 0  # the model ran already

    write(project, "data/b.jsonl", range(200, 260))
    grown, again = run(project)
    assert again.subject == outcome.subject
    assert (again.metrics["encoded"], len(grown.pool.snapshot)) == (60, 180)

    (project / "winnow.yaml").write_text(CONFIG.replace("FIT", "2"))
    _, anew = run(project)
    assert anew.subject != outcome.subject
    assert anew.metrics["encoded"] == 0
