from __future__ import annotations

import numpy as np

from selection.noise import hash_bits, hash_uniform


def test_hash_uniform__is_uniform_and_open():
    for keys in (np.arange(100_000), np.arange(100_000) << 40):
        noise = hash_uniform(keys.astype(np.uint64), np.random.default_rng(0))
        assert noise.min() > 0
        assert noise.max() < 1
        counts = np.histogram(noise, bins=20, range=(0, 1))[0]
        assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi-square, 19 degrees: p < 1e-4 above 50


def test_hash_bits__depends_on_key_and_salt_only():
    keys = np.array([7, 7, 8], np.uint64)
    bits = hash_bits(keys, np.random.default_rng(1))
    assert bits[0] == bits[1] != bits[2]
    assert (bits == hash_bits(keys, np.random.default_rng(1))).all()
    assert (bits != hash_bits(keys, np.random.default_rng(2))).all()


def test_hash_uniform__streams_of_two_salts_are_not_related():
    keys = np.arange(50_000, dtype=np.uint64)
    first = hash_uniform(keys, np.random.default_rng(1))
    second = hash_uniform(keys, np.random.default_rng(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
