from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from selection.kernels import k_center as module
from selection.kernels import sketch
from selection.kernels.compiled import nearest as loops
from selection.kernels.compiled import quantized
from selection.kernels.compiled.products import LANES, ROWS
from selection.kernels.k_center import k_center
from selection.kernels.sketch import Sketch, leading_directions, none, worth_it
from selection.vectors import ArrayVectors

sys.path.insert(0, str(Path(__file__).parent))
from coverage_cases import naive_k_center, square_distances

D = 5 * LANES


def low_rank(n: int, rank: int, noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, D)) / rank**0.5
    return (X + noise * rng.standard_normal((n, D))).astype(np.float32)


def wide_vectors() -> dict[str, np.ndarray]:
    """Name -> (n, D) vectors on which a bound may fail."""
    rng = np.random.default_rng(1)
    near = low_rank(300, 6, 0.01)
    spread = near * 10.0 ** rng.integers(-8, 8, (300, 1))
    zeros = near.copy()
    zeros[::9] = 0
    return {
        "near": near,
        "exactly_low_rank": low_rank(300, 3, 0.0),
        "noise": low_rank(300, 3, 1.0),
        "spread": spread.astype(np.float32),
        "zeros": zeros,
        "duplicates": np.repeat(near[:60], 5, axis=0),
        "near_ties": (near[:1] + 1e-6 * rng.standard_normal((300, D))).astype(np.float32),
        "one_direction": np.outer(rng.standard_normal(300), near[0]).astype(np.float32),
    }


WIDE = wide_vectors()


def states(X: np.ndarray, bound: float = 1.0) -> np.ndarray:
    state = np.zeros(len(X), loops.ROW)
    state["bound"], state["scale"] = bound, 1.0
    state["square"] = (X.astype(np.float64) ** 2).sum(axis=1)
    return state


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("p", [LANES, 2 * LANES])
def test_sketch__bounds_every_distance_from_below(name, p):
    X = WIDE[name]
    made = Sketch(leading_directions(X[::2], p), len(X))
    made.add(X[:100])
    made.add(X)
    directions, packed, low, errors = made.arrays
    z = np.empty((len(X), p + 1), np.float32)
    loops.sketch_rows(X, states(X), np.arange(len(X)), directions, errors[0], np.empty((2, ROWS, LANES), np.float32), z)
    square = (X.astype(np.float64) ** 2).sum(axis=1)
    assert (np.abs(packed.transpose(0, 2, 1).reshape(-1, p + 1)[: len(X)] - z) <= 1e-3 * square.max() ** 0.5).all()
    under = square[:, None] * (1 - errors[1]) - loops.TINY + low[: len(X)] - 2 * (z @ z.T).astype(np.float64)
    exact = np.stack([square_distances(X, x) for x in X])
    assert (under <= exact).all()
    if name == "near":  # and says something: most of these distances lie in the directions
        far = exact > 0.5 * exact.max()
        assert (under[far] > 0.9 * exact[far]).all()


@pytest.mark.parametrize("name", WIDE)
def test_k_center__with_sketches_equals_the_definition(name, monkeypatch):
    monkeypatch.setattr(quantized, "has_instruction", lambda: False)
    monkeypatch.setattr(module, "PHASE_ROWS", 64)
    monkeypatch.setattr(module, "SKETCH_AFTER", 8)
    monkeypatch.setattr(module, "SKETCH_BUDGET", 0)
    made = []

    def always(X, state, centres, capacity):
        made.append(Sketch(leading_directions(X, LANES), capacity))
        made[-1].add(centres)
        return made[-1]

    monkeypatch.setattr(sketch, "worth_it", always)
    X = np.concatenate([WIDE[name], 1.5 * WIDE[name], 0.5 * WIDE[name][::-1]]).astype(np.float32)
    candidates = np.ones(len(X), bool)
    candidates[[0, 5]] = False
    rows, distance, near = naive_k_center(X, 500, [0, 5])
    got = k_center(ArrayVectors(X), 500, centres=np.array([0, 5]), candidates=candidates)
    assert (got.rows.tolist(), got.near.tolist()) == (rows, near)
    np.testing.assert_allclose(got.distance, distance, rtol=1e-12)
    assert len(made) == 1
    assert made[0].count > 400


def test_worth_it__only_where_a_few_directions_hold_the_vectors(monkeypatch):
    monkeypatch.setattr(sketch, "DIRECTIONS", (LANES, 2 * LANES))
    few, many = low_rank(1000, 4, 0.01), low_rank(1000, 1, 1.0)
    assert worth_it(few, states(few, 2.0), few[:200], 1000).directions.shape == (D, LANES)
    assert worth_it(many, states(many, 2.0 * D), many[:200], 1000).count == 0
    assert worth_it(few[:3], states(few[:3]), few[:200], 1000).count == 0


def test_none__rules_nothing_out_and_takes_no_centres():
    nothing = none(D)
    nothing.add(WIDE["near"])
    assert nothing.count == 0
