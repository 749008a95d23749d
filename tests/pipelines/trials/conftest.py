"""Trials of a model that takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.run import run_all, run_trial
from pipelines.trials import network
from pipelines.trials.network import Size
from tests.pipelines.conftest import opened
from tests.pipelines.trials_project import make_project


class Unigrams:
    """A model that learns how often each token comes: it takes no torch and no time, and learns what a subset teaches."""

    device, parameters, trained_parameters = "cpu", 400, 400

    def __init__(self, model, size, vocabulary, seed, *, lora=False) -> None:
        self.context = size.context
        self._counts = np.random.default_rng(seed).uniform(0.5, 1, vocabulary)

    def train(self, ids, answer, rate, on_step=None) -> float:
        np.add.at(self._counts, ids[answer], 1)
        for _ in range(len(ids) // 4 if on_step else 0):
            on_step()
        return 1.0

    def losses(self, examples):
        logs = -np.log(self._counts / self._counts.sum())
        return np.array([logs[each.ids[1:][each.answer[1:]]].mean() for each in examples])


@pytest.fixture(scope="module", autouse=True)
def _unigrams() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(network.SIZES, "tiny", Size(32, 1, 2, 400, 32, 4, (1e-3, 1e-2)))
        patch.setattr("pipelines.trials.plan.Network", Unigrams)
        yield


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished trial; for looking only."""
    project = make_project(tmp_path_factory.mktemp("tried") / "project")
    run_all(opened(project))
    run_trial(opened(project), "chosen")
    return project


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was drawn, for the tests of a module together."""
    project = make_project(tmp_path_factory.mktemp("drawn") / "project")
    run_all(opened(project))
    return project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that was drawn and not tried."""
    made = make_project(tmp_path / "project")
    run_all(opened(made))
    return made
