"""What `winnow explore` writes; embedding-atlas itself is only looked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines import explore as module
from pipelines.explore import explore
from storage.errors import NotInStore
from tests.pipelines.conftest import Winnow, change, opened


def test_explore__has_each_selected_row_the_targets_and_a_sample_of_the_others(ran: Path, tmp_path: Path) -> None:
    table = explore(opened(ran), "near", tmp_path / "new" / "near.parquet", rows=30)
    frame = pl.read_parquet(table.path)
    assert table.rows == {"target": 2, "selected": 10, "pool": 30}
    assert dict(frame["what"].value_counts().rows()) == table.rows
    assert frame["id"].n_unique() == len(frame)
    selected = frame.filter(what="selected").sort("rank")
    assert selected["rank"].to_list() == list(range(1, 11))
    assert selected["why"].str.starts_with("target foxes/").all()
    others = frame.filter(what="pool")
    assert others.select("rank", "why", "gain", "value").null_count().row(0) == (30,) * 4
    assert frame.filter(what="target")["text"].str.starts_with("the fox jumps over 10").all()
    rows = frame.filter(pl.col("what") != "target")
    assert all(source in text for source, text in rows.select("source", "text").iter_rows())
    # Rows of a subject lie together, and the targets among the foxes.
    centre = {
        key[0]: part.select(pl.mean("x", "y")).row(0) for key, part in frame.filter(what="pool").group_by("source")
    }
    target = frame.filter(what="target").select(pl.mean("x", "y")).row(0)
    distances = {source: float(np.hypot(x - target[0], y - target[1])) for source, (x, y) in centre.items()}
    assert "fox" not in distances or min(distances, key=lambda source: distances[source]) == "fox"


def test_explore__a_recipe_without_vectors_lies_on_the_map_of_another_encoder(ran: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(explore(opened(ran), "any", tmp_path / "any.parquet").path)
    assert dict(frame["what"].value_counts().rows()) == {"selected": 8, "pool": 72}
    assert frame["x"].is_finite().all()


def test_explore__without_any_vectors_says_what_to_do(light: Path, tmp_path: Path, winnow: Winnow) -> None:
    change(light, "  vectors: vectors/pool.npy\n", "")
    change(light, "  near: {steps: [rds_plus], budget: 10}\n", "")
    change(light, "{files: targets/foxes.jsonl, vectors: vectors/foxes.npy}", "targets/foxes.jsonl")
    winnow("run", "-c", light)
    with pytest.raises(NotInStore, match="no encoder has vectors of the pool"):
        explore(opened(light), "any", tmp_path / "any.parquet")
    ended = winnow("explore", "nosuch", "-c", light)
    assert ended.code == 2
    assert "drawn were: any" in ended.err


def test_explore__opens_the_file_where_embedding_atlas_is_installed(
    ran: Path, tmp_path: Path, winnow: Winnow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    out = tmp_path / "any.parquet"
    ended = winnow("explore", "any", "-o", out, "-c", ran)
    assert ended.out.splitlines()[1] == f"open it:  embedding-atlas {out} --text text --x x --y y"
    program = tmp_path / "embedding-atlas"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit 7\n')
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: str(program) if name == module.PROGRAM else None)
    assert winnow("explore", "any", "-o", out, "-c", ran).code == 7
    assert (tmp_path / "asked").read_text() == f"{out} --text text --x x --y y\n"
    (tmp_path / "asked").unlink()
    winnow("explore", "any", "-o", out, "--no-start", "-c", ran)
    assert not (tmp_path / "asked").exists()
