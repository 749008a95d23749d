"""Real models: a few thousand weights, a few steps."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.run import run_all, run_trial
from pipelines.trials import network
from pipelines.trials.network import FULL, Network, Size
from pipelines.trials.text import Tokens
from selection.errors import InvalidOption
from tests.pipelines.conftest import change, opened
from tests.pipelines.trials_project import make_project
from tests.tiny_models import tiny_llama

TINY = Size(32, 1, 2, 400, 32, 4, (1e-2,))


def sequences(steps: int):
    ids = np.random.default_rng(0).integers(0, 50, (4 * steps, 32), np.int32)
    return ids, np.ones(ids.shape, np.bool_)


@pytest.mark.slow
def test_network__seeds_begin_alike_and_padding_changes_nothing() -> None:
    rows = [Tokens(ids, np.ones(len(ids), np.bool_)) for ids in (sequences(1)[0][0], sequences(1)[0][1][:9])]
    losses = [Network("scratch", TINY, 400, seed).losses(rows) for seed in (0, 0, 1)]
    assert np.array_equal(losses[0], losses[1])
    assert not np.array_equal(losses[0], losses[2])
    alone = Network("scratch", TINY, 400, 0).losses(rows[1:])
    assert alone == pytest.approx(losses[0][1:], abs=1e-5)
    assert losses[0] == pytest.approx(np.log(400), abs=0.5)  # an untrained model knows nothing


@pytest.mark.slow
def test_network__learns_and_repeats_itself() -> None:
    ids, answer = sequences(20)
    trained = [Network("scratch", TINY, 400, 0) for _ in range(2)]
    last = [each.train(ids, answer, 1e-2) for each in trained]
    assert last[0] == last[1]
    assert last[0] < np.log(400) - 1  # only 50 of 400 tokens come


@pytest.mark.slow
def test_network__of_a_folder(tmp_path) -> None:
    folder = tiny_llama(tmp_path / "llama")
    made = Network(str(folder), FULL, 320, 0)
    ids, answer = sequences(4)
    before = made.losses([Tokens(ids[0], answer[0])])
    made.train(ids, answer, 1e-2)
    assert made.losses([Tokens(ids[0], answer[0])]) < before
    with pytest.raises(InvalidOption, match="lora: true needs peft"):
        Network(str(folder), FULL, 320, 0, lora=True)


@pytest.mark.slow
def test_trial__of_real_models(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.trials.plan.Network", Network)
    monkeypatch.setitem(network.SIZES, "tiny", TINY)
    project = make_project(tmp_path / "project")
    run_all(opened(project))
    assert run_trial(opened(project), "chosen")["verdict"] == "helped"
    folder = tiny_llama(tmp_path / "llama")
    change(project, "size: tiny", f"model: {folder}")
    assert run_trial(opened(project), "chosen")["seeds"] == 3
