"""How many processes load a model."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import pytest

from pipelines.engine import engine_for_models, models
from storage.shards import in_turn
from tests.pipelines.conftest import change, opened


class Started:
    """Stands for `LocalEngine`: what it was asked for."""

    def __init__(self, workers: int, cards: list[str]) -> None:
        self.map = (workers, cards)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("cards", "workers", "expected"),
    [
        ([], "", None),
        ([], "1", None),
        ([], "3", (3, [])),
        (["0"], "", None),
        (["0"], "8", None),
        (["0", "1", "2"], "", (3, ["0", "1", "2"])),
        (["0", "1", "2"], "2", (2, ["0", "1", "2"])),
        (["0", "1"], "1", None),
    ],
)
def test_processes__are_one_a_card_or_as_many_as_asked_for(
    light: Path, monkeypatch: pytest.MonkeyPatch, cards: list[str], workers: str, expected: object
) -> None:
    monkeypatch.setattr(models, "cuda_cards", lambda: cards)
    monkeypatch.setattr(models, "LocalEngine", Started)
    if workers:
        change(light, "pool:\n", f"engine: {{workers: {workers}}}\npool:\n")
    with engine_for_models(opened(light)) as parallel:
        assert parallel == (expected or in_turn)
    with engine_for_models(opened(light), uses_cards=False) as parallel:
        assert parallel == ((int(workers), []) if workers not in ("", "1") else in_turn)


@pytest.mark.parametrize(("visible", "names"), [(None, ["0", "1"]), ("4,GPU-6", ["4", "GPU-6"]), ("7,5,9", ["7", "5"])])
def test_cards__are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert models.cuda_cards() == names
