from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.kernels.compiled import compressed as loops

STEPS = loops.FIRST * 2.0 ** (np.arange(loops.STEPS) / 4)


class Row:
    """Similarities of a row above what references are covered with, compressed, and plain numpy for the same."""

    def __init__(self, r: int, doubt: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.r, self.doubt = r, np.float32(doubt)
        self.base = rng.uniform(-1e-5, 0.8, r).astype(np.float32)
        self.low = self.base + (rng.random(r) * 0.05 * (rng.random(r) < 0.5)).astype(np.float32)
        far = np.where(rng.random(r) < 0.02, 8, 1)
        self.s = (self.base + rng.normal(size=r) * 0.04 * far).clip(0, 1).astype(np.float32)
        self.weights = rng.integers(0, 50, r) if seed % 2 else np.ones(r, np.int64)
        self.kept = self.s + self.doubt > self.low
        top = float((self.s - self.base)[self.kept].max(initial=0))
        self.step = STEPS[loops.step_for(top, float(doubt), STEPS)]
        self.reach = loops.reach_of(float(self.doubt), self.step)
        self.room, self.codes = self.scratch()
        self.size = loops.pack(self.s, self.low, self.base, self.doubt, self.step, self.room, self.codes)

    def scratch(self) -> tuple[np.ndarray, np.ndarray]:
        room = np.full(loops.most_entries(self.r), 2**64 - 1, np.uint64)
        return room, room.view(np.uint8)

    def limits(self, low: np.ndarray) -> np.ndarray:
        out = np.full((3, loops.groups(self.r) * loops.GROUP), loops.LARGEST, np.uint8)
        out[1, : self.r] = [loops.limit_of(*pair, self.step) for pair in zip(low, self.base, strict=True)]
        return out

    def weights_in_bytes(self) -> tuple[np.ndarray, np.ndarray]:
        wide = np.zeros(loops.groups(self.r) * loops.GROUP)
        wide[: self.r] = self.weights
        units = np.maximum(wide.reshape(-1, loops.GROUP).max(axis=1), 1) / loops.WEIGHT
        return np.ceil(wide / np.repeat(units, loops.GROUP) - 1e-9).astype(np.int8), units

    def later(self) -> list[np.ndarray]:
        """What references may be covered with from then on."""
        low = self.low
        steps = [low, low + 0.03, np.maximum(low, self.s - 1e-3), np.maximum(low, np.roll(self.s, 1)), low + 2.0]
        return [np.asarray(later, np.float32) for later in steps]


@pytest.mark.parametrize("doubt", [0.0, 0.004, 0.3])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("r", [1, 5, 63, 64, 65, 300, 5000])
def test_compressed__leaves_open_what_may_add_and_bounds_it_closely(r: int, seed: int, doubt: float) -> None:
    row = Row(r, doubt, seed)
    weights, units = row.weights_in_bytes()
    assert row.size == loops.size_of(r, row.kept.sum())
    for later in row.later():
        limits = row.limits(later)
        gain, open_weight, count = loops.look(row.room, row.codes, 0, limits, 1, weights, units, row.reach)
        plain = loops.look_plain(row.room, row.codes, 0, limits, 1, weights, units, row.reach)
        np.testing.assert_allclose((gain, open_weight), plain[:2], rtol=1e-12)
        assert count == plain[2]
        which, most = np.empty(r + 1, np.int32), np.empty(r + 1, np.float32)
        found = loops.unpack(row.room, row.codes, 0, limits, 1, row.reach, row.base, row.step, which, most)
        assert found == count
        which, most = which[:count], most[:count]
        may_add = row.s.astype(float) + row.doubt > later
        assert set(np.flatnonzero(may_add)) <= set(which.tolist())
        assert (most >= row.s[which]).all()
        true = float(row.weights @ np.maximum(row.s.astype(float) - later, 0))
        assert gain * row.step >= true
        assert open_weight >= row.weights[may_add].sum() - 1e-9
        # Above that by two steps of each, and by what its weight is rounded up by.
        rounded = 2 * row.weights[which] + (loops.LARGEST + 2) * units[which // loops.GROUP]
        assert gain * row.step <= true + row.step * rounded.sum() + 1e-9


@pytest.mark.parametrize("doubt", [0.0, 0.004])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("r", [1, 64, 65, 300, 5000])
def test_shorten__leaves_what_still_counts(r: int, seed: int, doubt: float) -> None:
    row = Row(r, doubt, seed)
    weights, units = row.weights_in_bytes()
    for later in row.later():
        limits = row.limits(later)
        before = loops.look(row.room, row.codes, 0, limits, 1, weights, units, row.reach)
        room = np.concatenate([np.zeros(5, np.uint64), row.room])  # moved from entry 5 to entry 2
        codes = room.view(np.uint8)
        size = loops.shorten(room, codes, 5, limits, 1, row.reach, 2, *row.scratch())
        assert size == loops.size_of(r, before[2])
        after = loops.look(room, codes, 2, limits, 1, weights, units, row.reach)
        np.testing.assert_allclose(after[:2], before[:2], rtol=1e-12)
        assert after[2] == before[2]


@pytest.mark.skipif(not loops.FAST, reason="the processor has no instructions to spread and squeeze bytes")
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), r=st.integers(64, 400), doubt=st.sampled_from([0.0, 1e-6, 0.01]))
def test_pack__all_at_once_or_one_after_the_other(seed: int, r: int, doubt: float) -> None:
    row = Row(r, doubt, seed)
    inverse, start = np.float32(1.0 / row.step), loops.BYTES * loops.groups(r)
    room, codes = row.scratch()
    place = start
    for g in range(loops.groups(r)):
        place = loops.pack_group(row.s, row.low, row.base, g, row.doubt, inverse, room, codes, place)
    assert loops.size_of(r, place - start) == row.size
    assert codes[:place].tolist() == row.codes[:place].tolist()
    limits = row.limits(row.later()[1])
    squeezed, end, at = row.scratch()[1], 0, start
    for g in range(loops.groups(r)):
        left = loops.shorten_group(codes, at, room[g], limits, 1, g, row.reach, squeezed, end)
        at += int(room[g]).bit_count()
        end += int(left).bit_count()
    moved = row.room.copy()
    size = loops.shorten(moved, moved.view(np.uint8), 0, limits, 1, row.reach, 0, *row.scratch())
    assert size == loops.size_of(r, end)
    assert moved.view(np.uint8)[start : start + end].tolist() == squeezed[:end].tolist()


def test_bits__are_counted_and_found() -> None:
    rng = np.random.default_rng(0)
    for bits in [1, 2**63, 2**64 - 1, *rng.integers(1, 2**63, 50).tolist()]:
        assert loops.bit_count(np.uint64(bits)) == bits.bit_count()
        assert loops.lowest(np.uint64(bits)) == (bits & -bits).bit_length() - 1
