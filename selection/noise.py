"""Noise that belongs to a candidate, not to its place: a hash of its key and of the generator's salt.

A draw made with it does not depend on the order of the pool or on what else is in it.
"""

from __future__ import annotations

import numpy as np

from selection.types import Doubles, UInts


def hash_bits(keys: UInts, rng: np.random.Generator) -> UInts:
    """(n,) uint64, uniform; equal keys get equal bits. Takes two numbers from `rng`.

    Source: the splitmix64 finaliser (Steele, Lea, Flood 2014), applied twice so that salt and key mix fully.
    """
    first, second = rng.integers(0, 2**64, size=2, dtype=np.uint64)
    return mix(mix(np.asarray(keys, np.uint64) ^ first) ^ second)


def hash_uniform(keys: UInts, rng: np.random.Generator) -> Doubles:
    """(n,) float64, uniform in the open interval (0, 1)."""
    return ((hash_bits(keys, rng) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def mix(z: UInts) -> UInts:
    """(n,) uint64, the finaliser of splitmix64: one to one, and each bit of the result depends on all bits."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
