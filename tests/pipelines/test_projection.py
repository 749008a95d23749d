"""`winnow plan --rows`: a first run on a pool of another size."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipelines.projection import Projection, Stage, card_of, parameters_in, project, rows_of
from pipelines.rates import CARDS, STEPS, UTILISATION, Size
from pipelines.run import run_all
from pipelines.runs import last_run
from storage.errors import BadInput
from storage.records import commit_run
from tests.pipelines.conftest import Winnow, change, opened

BILLION = 10**9


def stages(project: Path, rows: int, workers: int = 1, gpu: str | None = None) -> Mapping[str, Stage]:
    card = None if gpu is None else CARDS[gpu]
    return {stage.title: stage for stage in Projection(opened(project), rows, workers, card, probe=False).stages()}


@pytest.mark.parametrize(
    ("text", "rows"), [("1e9", BILLION), ("1_000_000", 10**6), ("1,000", 1000), ("10M", 10**7), ("1.5b", 1_500_000_000)]
)
def test_rows_of__as_people_write_them(text: str, rows: int) -> None:
    assert rows_of(text) == rows


@pytest.mark.parametrize("text", ["", "ten", "0", "-5", "1.5", "1e99", "10 M", "1e9x", "nan"])
def test_rows_of__anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"--rows: must be a whole number in 1 .. 1,000,000,000,000, as 1e9, 10M"):
        rows_of(text)


def test_card_of__names_and_the_nearest() -> None:
    assert card_of("H100") == CARDS["h100"]
    assert card_of("RTX 4090") == CARDS["4090"]
    with pytest.raises(BadInput, match=r"--gpu: must be one of t4, .*found 'h101' \(did you mean `h100`\?\)"):
        card_of("h101")


def test_stages__workers_divide_what_the_engine_spreads_and_nothing_else(light: Path) -> None:
    change(light, "recipes:\n", "decontamination: {}\nrecipes:\n")
    one, many = stages(light, BILLION), stages(light, BILLION, workers=64)
    assert [*one][:3] == ["pool: files", "pool: snapshot", "decontamination"]
    assert [*one][3:] == ["vectors/embeddings", "selection/near", "selection/any", "report"]
    assert one["pool: files"].waited == pytest.approx(64 * many["pool: files"].waited)
    assert one["decontamination"].waited == pytest.approx(64 * many["decontamination"].waited)
    for title in ("pool: snapshot", "vectors/embeddings", "selection/any", "report"):
        assert (one[title].seconds, one[title].width) == (many[title].seconds, 0)


def test_stages__workers_compare_vectors_and_the_driver_does_the_rest(light: Path) -> None:
    change(light, "steps: [rds_plus], budget: 10", "steps: [k_center], budget: 10")
    one, many = stages(light, BILLION), stages(light, BILLION, workers=64)
    assert "selection/near: vectors" not in one
    shared, own = many["selection/near: vectors"], many["selection/near"]
    assert (shared.width, own.width) == (64, 0)
    assert shared.origin == "their part of k_center"
    alone, left = one["selection/near"].seconds, own.seconds
    assert alone is not None
    assert left is not None
    assert shared.seconds is not None
    cores = len(os.sched_getaffinity(0))
    assert alone * cores == pytest.approx(left * cores + shared.seconds * 64)
    of_steps = STEPS["k_center"].seconds(Size(BILLION, 16, 10, 2))
    assert shared.seconds * 64 == pytest.approx(0.7 * of_steps)


def test_stages__memory_of_the_driver_and_disk_grow_with_the_rows(light: Path) -> None:
    small, large = stages(light, 10**6), stages(light, BILLION)
    assert 0.2e9 < small["pool: snapshot"].memory < 1e9
    assert large["pool: snapshot"].memory > 100e9
    assert large["vectors/embeddings"].written == pytest.approx(1000 * small["vectors/embeddings"].written)


def test_stages__rates_of_this_store_come_first(light: Path) -> None:
    context = opened(light)
    run_all(context)
    embedded = last_run(context.store, "embed")
    assert embedded is not None
    commit_run(context.store, embedded | {"run_id": None, "seconds": 40.0})  # two rows a second
    stage = stages(light, 1000)["vectors/embeddings"]
    assert (round(stage.waited), stage.origin) == (500, "2.0 rows/s, as measured")
    assert stage.written == 1000 * 16 * 2  # vectors of 16 dimensions in float16


def test_stages__a_step_without_a_rate_goes_by_the_last_draw_or_is_not_known(light: Path) -> None:
    change(light, "steps: [rds_plus]", "steps: [tsds]")
    assert stages(light, 1000)["selection/near"].seconds is None
    run_all(opened(light), ["near"])
    stage = stages(light, 80_000)["selection/near"]
    assert stage.seconds is not None
    assert stage.origin == "as its last draw, by the rows of the pool, which tsds may not follow"


def test_stages__a_card_by_its_peak_the_parameters_and_the_tokens(project: Path) -> None:
    weights = parameters_in(project / "model")
    assert weights
    stage = stages(project, BILLION, workers=4, gpu="h100")["tiny/embeddings"]
    rate = 989e12 * UTILISATION / (2 * weights * 32)  # max_tokens: 32
    assert stage.seconds == pytest.approx(BILLION / rate / 4)
    projection = Projection(opened(project), BILLION, 4, CARDS["h100"], probe=False)
    assert "assumed: tiny has 384 dimensions: it encoded nothing yet" in list(projection.lines())
    assert stages(project, BILLION)["tiny/embeddings"].seconds is None  # nothing is known of this machine


def test_parameters_in__tables_of_embeddings_multiply_nothing(tmp_path: Path) -> None:
    shapes = {"embeddings.word.weight": [1000, 8], "layer.dense.weight": [8, 8], "layer.dense.bias": [8]}
    header = json.dumps({name: {"shape": shape} for name, shape in shapes.items()} | {"__metadata__": {}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert parameters_in(tmp_path) == 64
    assert parameters_in(tmp_path / "nothing") is None


def test_project__says_what_breaks_first_and_what_is_assumed(light: Path) -> None:
    lines = list(project(opened(light), "1e9", 64, "h100", probe=False))
    assert (
        lines[0]
        == "a first run on 1,000,000,000 rows, 64 workers of one core, each with a card h100: a projection, not a run"
    )
    assert any(line.startswith("breaks first by memory: ") and "Then: " in line for line in lines)
    assert any(line.startswith("longest on the driver: ") for line in lines)
    assert not any(line.startswith("assumed: ") for line in lines)  # vectors of 16 dimensions, files of known size
    assert not (light / "store").exists()


def test_plan_command__options_that_make_no_sense_are_refused(light: Path, winnow: Winnow) -> None:
    ended = winnow("plan", "--config", light, "--gpu", "h100")
    assert (ended.code, "--workers and --gpu go with --rows" in ended.err) == (2, True)
    ended = winnow("plan", "--config", light, "--rows", "many")
    assert (ended.code, ended.err.startswith("winnow: --rows: must be a whole number")) == (2, True)
    ended = winnow("plan", "--config", light, "--rows", "1e9", "--workers", "64")
    assert (ended.code, "64 workers" in ended.out) == (0, True)
