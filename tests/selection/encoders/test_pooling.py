from __future__ import annotations

import numpy as np
import pytest

from selection.encoders.pooling import pool

HIDDEN = [[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]
UNIT = [0.609711, 0.792624]  # of (1.666667, 2.166667)


def pooled(hidden, mask, how):
    import torch

    return pool(torch.tensor([hidden]), torch.tensor([mask], dtype=torch.bool), how)[0].numpy()


@pytest.mark.parametrize("left", [0, 1, 5])
@pytest.mark.parametrize("right", [0, 1, 90])
@pytest.mark.parametrize("filling", [7.0, float("nan")])
def test_weighted_mean__known_answer_whatever_the_padding(left, right, filling):
    hidden = [[filling] * 2] * left + HIDDEN + [[filling] * 2] * right
    mask = [0] * left + [1] * 3 + [0] * right
    np.testing.assert_allclose(pooled(hidden, mask, "weighted_mean"), UNIT, atol=1e-6)


@pytest.mark.parametrize(("how", "expected"), [("mean", [4, 5]), ("last", [3, 3]), ("cls", [1, 0])])
@pytest.mark.parametrize("left", [0, 2])
def test_other_poolings__by_hand(how, expected, left):
    got = pooled([[9.0, 9.0]] * left + HIDDEN + [[9.0, 9.0]], [0] * left + [1, 1, 1, 0], how)
    np.testing.assert_allclose(got, np.array(expected) / np.linalg.norm(expected), atol=1e-6)


# Computed independently in float64.
STATES = [[0.5, 2.0, 0.1, 1.0], [1.5, 1.0, 0.4, -1.0], [1.0, 3.0, 0.1, 2.0]]
POOLED = {
    ("max", (3.0,)): [1.5, 3.0, 0.4, 2.0],
    ("gem", (3.0,)): [1.144714243, 2.289428485, 0.280203933, 1.44224957],
    ("gem", (1.0, 3.0)): [1.0, 2.0, 0.280203933, 1.44224957],
}


@pytest.mark.parametrize("filling", [9.0, -9.0, float("nan")])
@pytest.mark.parametrize(("how", "gem_p"), POOLED)
def test_max_and_gem__known_answers_whatever_the_padding(how, gem_p, filling):
    import torch

    hidden = torch.tensor([[[filling] * 4, *STATES, [filling] * 4]])
    mask = torch.tensor([[0, 1, 1, 1, 0]], dtype=torch.bool)
    expected = np.array(POOLED[how, gem_p])
    got = pool(hidden, mask, how, gem_p)[0].numpy()
    np.testing.assert_allclose(got, expected / np.linalg.norm(expected), atol=1e-6)


def test_max__of_negative_states_is_no_padding():
    np.testing.assert_allclose(pooled([[-3.0, -4.0], [0.0, 0.0]], [1, 0], "max"), [-0.6, -0.8], atol=1e-6)


def test_gem__a_large_power_does_not_overflow():
    import torch

    hidden = torch.tensor([[[3000.0, 1.0], [1500.0, 2000.0]]])
    got = pool(hidden, torch.ones(1, 2, dtype=torch.bool), "gem", (100.0,))[0].double().numpy()
    expected = np.array([(np.mean([1, 0.5**100])) ** 0.01 * 3000, (np.mean([0.0005**100, 1])) ** 0.01 * 2000])
    np.testing.assert_allclose(got, expected / np.linalg.norm(expected), atol=1e-6)


@pytest.mark.parametrize("how", ["weighted_mean", "mean", "last", "cls", "max"])
def test_no_token__gives_zeros(how):
    assert pooled(HIDDEN, [0, 0, 0], how).tolist() == [0, 0]


def test_a_state_that_is_not_finite__gives_nan_not_a_vector():
    for how in ("weighted_mean", "max", "gem"):
        assert np.isnan(pooled([[1.0, np.inf], [1.0, 1.0]], [1, 1], how)).any()
        assert np.isnan(pooled([[1.0, np.nan], [1.0, 1.0]], [1, 1], how)).any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision__is_summed_and_normalised_in_float32(dtype):
    import torch

    rng = np.random.default_rng(0)
    hidden = torch.from_numpy(rng.standard_normal((2, 1500, 32)).astype(np.float32) * 30).to(getattr(torch, dtype))
    mask = torch.ones(2, 1500, dtype=torch.bool)
    got = pool(hidden, mask, "weighted_mean")
    weights = np.arange(1, 1501) / np.arange(1, 1501).sum()
    mean = (hidden.double().numpy() * weights[None, :, None]).sum(1)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=2e-6)


def test_unknown_pooling__is_refused():
    with pytest.raises(ValueError, match="pooling must be"):
        pooled(HIDDEN, [1, 1, 1], "maximum")
