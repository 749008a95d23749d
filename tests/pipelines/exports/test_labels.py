"""Out of a labeling project: labelled rows, predictions, and the model that an own loader reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.errors import NothingYet, UnknownProject
from pipelines.exports.fitted_model import load_model
from pipelines.exports.labels import export_labels, export_predictions
from pipelines.stages.embed import embed
from pipelines.stages.fit import fit
from pipelines.stages.ingest import ingest
from pipelines.stages.pull import pull
from storage.errors import BadInput
from storage.ids import to_text
from storage.vectors.segments import StoredVectors
from tests.conftest import SUBJECTS
from tests.pipelines.conftest import Winnow, make_light, opened

PROJECT = "labeling:\n  kinds: {classes: [fox, dog, other], steps: [entropy], labels: 'labels/*.jsonl'}\n"
# Who said what: one vote, all votes, two against one, a tie, an ignored row.
VOTES = [
    *(
        (f"{subject}-{n}", subject if subject in ("fox", "dog") else "other", "ann")
        for subject in SUBJECTS[:4]
        for n in range(3)
    ),
    ("fox-0", "fox", "bob"),
    ("dog-0", "dog", "bob"),
    ("dog-0", "fox", "eve"),
    ("add-0", "fox", "bob"),
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With labels and a model; rows without a vector are those of the last subject's last number."""
    project = make_light(tmp_path_factory.mktemp("taught") / "light")
    with (project / "winnow.yaml").open("a") as file:
        file.write(PROJECT)
    ingest(opened(project))
    embed(opened(project), "vectors")
    (project / "labels").mkdir()
    for who in ("ann", "bob", "eve"):
        lines = [{"id": name, "label": label, "annotator": by} for name, label, by in VOTES if by == who]
        (project / "labels" / f"{who}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pull(opened(project), "kinds")
    fit(opened(project), "kinds")
    return project


def test_labels__have_the_row_its_label_the_votes_and_how_it_was_decided(taught: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_labels(opened(taught), "kinds", out) == f"11 labelled rows written to {out}"
    rows = {row["given_id"]: row for row in map(json.loads, (out / "data/train.jsonl").read_text().splitlines())}
    assert rows.keys() == {name for name, _, _ in VOTES} - {"add-0"}  # a tie
    decided = {name: (rows[name]["label"], rows[name]["decided_by"]) for name in ("fox-0", "fox-1", "dog-0")}
    assert decided == {"fox-0": ("fox", "all votes"), "fox-1": ("fox", "one vote"), "dog-0": ("dog", "majority")}
    assert rows["dog-0"]["votes"] == [
        {"annotator": "ann", "label": "dog"},
        {"annotator": "bob", "label": "dog"},
        {"annotator": "eve", "label": "fox"},
    ]
    assert [message["role"] for message in rows["fox-1"]["messages"]] == ["user", "assistant"]
    provenance = json.loads((out / "provenance.json").read_text())
    assert (provenance["rows_of_class"], provenance["tied"]) == ({"dog": 3, "fox": 3, "other": 5}, 1)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    export_labels(opened(taught), "kinds", out)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_predictions__are_of_every_row_and_of_every_class(taught: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = export_predictions(opened(taught), "kinds", out)
    assert said == f"predictions for 80 rows written to {out}; the model as arrays in model/"
    table = pq.read_table(out / "data/train.parquet")
    assert table.column_names == ["id", "given_id", "source", "label", "probability", "p_fox", "p_dog", "p_other"]
    snapshot = opened(taught).pool.snapshot
    assert table["id"].to_pylist() == to_text(np.asarray(snapshot.ids))
    P = np.stack([table[f"p_{name}"].to_numpy() for name in ("fox", "dog", "other")], axis=1)
    np.testing.assert_allclose(P.sum(axis=1), 1, atol=1e-5)
    assert table["label"].to_pylist() == [("fox", "dog", "other")[c] for c in P.argmax(axis=1)]
    foxes = [row["label"] for row in table.to_pylist() if row["source"] == "fox"]
    assert foxes.count("fox") >= 8

    # The model as anyone reads it, with numpy alone; and by the loader, bit for bit.
    loaded = load_model(out / "model")
    vectors = StoredVectors(opened(taught).store, loaded.about["encoder"], snapshot.ids).take(np.arange(80))
    assert loaded.classes == ("fox", "dog", "other")
    assert (loaded.probabilities(vectors) == P).all()
    with np.load(out / "model/model.npz", allow_pickle=False) as arrays:
        logits = (vectors.astype(np.float64) @ arrays["weights"] + arrays["bias"]) / arrays["temperature"]
    naive = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(naive / naive.sum(axis=1, keepdims=True), P, atol=1e-4)


@pytest.mark.slow
def test_datasets__loads_labels_and_predictions(taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    export_labels(opened(taught), "kinds", tmp_path / "labels")
    export_predictions(opened(taught), "kinds", tmp_path / "predictions")
    for name, rows in (("labels", 11), ("predictions", 80)):
        loaded = datasets.load_dataset(str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == rows
        assert set(loaded["label"]) == {"fox", "dog", "other"}


def test_load_model__refuses_what_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not hold a model"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text('{"classes": ["a"]}')
    np.savez(tmp_path / "model.npz", weights=np.zeros((2, 3)), bias=np.zeros(3), temperature=1.0)
    with pytest.raises(BadInput, match="3,\\) biases, 1 classes"):
        load_model(tmp_path)


def test_command__names_what_is_missing(taught: Path, light: Path, tmp_path: Path, winnow: Winnow) -> None:
    out = tmp_path / "out"
    with pytest.raises(UnknownProject, match="did you mean `kinds`"):
        export_labels(opened(taught), "kindz", out)
    (light / "winnow.yaml").write_text((light / "winnow.yaml").read_text() + PROJECT)
    ingest(opened(light))
    with pytest.raises(NothingYet, match="has no model yet"):
        export_predictions(opened(light), "kinds", out)
    ended = winnow("export", "--predictions", "kinds", "--out", out, "--config", taught)
    assert (ended.code, ended.out.startswith("predictions for 80 rows")) == (0, True)
    ended = winnow("export", "--labels", "kinds", "any", "--out", out, "--config", taught)
    assert ended.code == 2
    assert "name a recipe or a selection id" in ended.err
