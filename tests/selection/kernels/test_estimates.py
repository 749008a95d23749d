from __future__ import annotations

import pickle

import numpy as np
import pytest

from selection.kernels.compiled import estimates as loops
from selection.kernels.compiled import quantized
from selection.kernels.estimates import BLOCK, TURNED, Estimates, Turn

pytestmark = pytest.mark.skipif(
    not quantized.has_instruction(), reason="the processor has no instruction for products of bytes"
)


def kinds(d: int) -> dict[str, np.ndarray]:
    """Name -> (500, d) vectors."""
    rng = np.random.default_rng(d)
    noise = rng.normal(size=(500, d))
    large = noise.copy()
    large[:, 1] *= 300
    return {
        "noise": noise,
        "clusters": rng.normal(size=(10, d))[rng.integers(10, size=500)] + 0.1 * noise,
        "one direction": noise + 5 * rng.normal(size=d),
        "few directions": rng.normal(size=(500, 3)) @ rng.normal(size=(3, d)),
        "large feature": large,
        "spectrum": noise * np.arange(1, d + 1) ** -0.8,
        "copies": np.tile(noise[:5], (100, 1)),
        "zeros": noise * (rng.random((500, 1)) < 0.5),
    }


def units(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.where(length > 0, length, 1)).astype(np.float32)


def estimated(made: Estimates, rows: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, r) estimates, and the errors and doubts of the rows."""
    (Q, offset, own), error, doubt = made.quantize(rows)
    packed, terms = made.references()
    lanes = terms.shape[2]
    out = np.empty((-(-len(rows) // quantized.ROWS) * quantized.ROWS, len(packed) * lanes), np.float32)
    sums = np.empty((quantized.ROWS, lanes), np.int32)
    for first in range(0, len(rows), quantized.ROWS):
        part = out[first : first + quantized.ROWS]
        loops.similarities(Q, offset, own, packed, terms, first, min(quantized.ROWS, len(rows) - first), sums, part)
    return out[: len(rows), :r], error, doubt


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [16, 50, 64, 200])
@pytest.mark.parametrize("name", kinds(16))
def test_estimates__no_set_of_them_is_farther_off_than_stated(name: str, d: int, weighted: bool) -> None:
    x = units(kinds(d)[name])
    references, rows = x[:300], x[250:]
    weights = np.random.default_rng(1).lognormal(sigma=2, size=300) if weighted else np.ones(300)
    made = Estimates(references, weights.astype(np.float32))
    estimates, error, doubt = estimated(made, rows, 300)
    true = 0.5 + 0.5 * (rows.astype(np.float64) @ references.T.astype(np.float64))
    too_low = true - estimates.astype(np.float64)
    assert (np.abs(too_low) <= doubt[:, None]).all()
    # Of all sets with a largest excess below a limit, those of the largest excesses are the farthest off.
    order = np.argsort(-too_low, axis=1)
    excess = np.cumsum(np.take_along_axis(too_low * weights, order, 1), axis=1)
    together = np.cumsum(np.broadcast_to(weights, too_low.shape)[np.arange(len(rows))[:, None], order], axis=1)
    assert (excess <= error[:, None] * np.sqrt(together)).all()


def test_estimates__are_the_same_where_another_process_gets_them() -> None:
    x = units(kinds(100)["large feature"])
    made = Estimates(x[:300], np.ones(300, np.float32))
    sent = pickle.loads(pickle.dumps(made))
    for array in sent.quantized.arrays:
        array.flags.writeable = False  # as Ray gives them
    for here, there in zip(estimated(made, x[300:], 300), estimated(sent, x[300:], 300), strict=True):
        assert here.tolist() == there.tolist()


def test_estimates__are_close() -> None:
    x = units(kinds(200)["noise"])
    estimates, error, doubt = estimated(Estimates(x[:300], np.ones(300, np.float32)), x[300:], 300)
    assert np.abs(0.5 + 0.5 * (x[300:] @ x[:300].T) - estimates).max() < 2e-3
    assert error.max() < 0.03
    assert doubt.max() < 0.012
    # The whole sum of 300 may be off by 0.5: a fifth of what single doubts allow.
    assert (error * np.sqrt(300) < 0.2 * 300 * doubt).all()


@pytest.mark.parametrize("d", [64, 100, 384])
def test_turn__keeps_products_and_spreads_what_is_large(d: int) -> None:
    x = units(kinds(d)["large feature"])
    turned = Turn(d)(x)
    assert turned.shape == (500, -(-d // BLOCK) * BLOCK)
    wide, narrow = turned.astype(np.float64), x.astype(np.float64)
    np.testing.assert_allclose(wide @ wide.T, narrow @ narrow.T, atol=2 * TURNED)
    assert np.abs(turned).max() < 0.6 < np.abs(x).max()
    ones = np.ones(500, np.float32)
    assert Estimates(x, ones).turn is not None
    assert Estimates(units(kinds(d)["noise"]), ones).turn is None
    doubts = [made.quantize(x)[2].mean() for made in (Estimates(x, ones), Estimates(units(kinds(d)["noise"]), ones))]
    assert doubts[0] < 2.5 * doubts[1]  # nearly as close as where nothing is large
