"""Random streams with a name: [seed, round, position of the step, hash of its name, ...].

A step that draws in parts gives each part a stream of its own, so that no part depends on what another consumed. A step
whose rounds belong together (`rs2`) asks which round it is and draws from the stream that all rounds share.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

import numpy as np

from selection.errors import InvalidRecipe

ROUND = 1
LEAST_PATH = 4


def step_stream(seed: int, round_: int, position: int, name: str) -> np.random.Generator:
    """The stream of one step of one draw: none shares numbers with another."""
    return np.random.default_rng([seed, round_, position, stable_hash(name)])


def stable_hash(text: str) -> int:
    """64 bits of a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def path_of(rng: np.random.Generator) -> list[int] | None:
    """The name of the stream, or None if it has none that the runner could have given."""
    entropy = cast("Any", rng.bit_generator).seed_seq.entropy
    if isinstance(entropy, int) or entropy is None or len(entropy) < LEAST_PATH:
        return None
    return [int(part) for part in entropy]


def child(rng: np.random.Generator, *path: int) -> np.random.Generator:
    """The stream of one part of a step; `rng` is not consumed unless it has no name.

    >>> outer = np.random.default_rng([0, 3, 0, 99])
    >>> path_of(child(outer, 7))
    [0, 3, 0, 99, 7]
    """
    parent = path_of(rng) or [int(rng.integers(2**63))]
    return np.random.default_rng([*parent, *path])


def across_rounds(step: str, rng: np.random.Generator) -> tuple[list[int], int]:
    """What all rounds of a stream share (its name without the round), and which round this is.

    Raises:
        InvalidRecipe: the stream has no round, since it was not derived from the runner's.
    """
    path = path_of(rng)
    if path is None:
        raise InvalidRecipe(
            "needs the round, which this generator does not carry: run it by `select`, not inside a step that draws a "
            "generator of its own",
            step=step,
        )
    return path[:ROUND] + path[ROUND + 1 :], path[ROUND]
