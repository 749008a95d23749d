"""Committees of classifiers: one that can be checked by hand, and random ones."""

from __future__ import annotations

import numpy as np

# (members, rows, classes)
MEMBERS = [
    [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]],
    [[0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.5, 0.5]],
    [[0.1, 0.9], [0.55, 0.45], [0.2, 0.8], [0.5, 0.5]],
]
COMMITTEE = np.array(MEMBERS).transpose(1, 0, 2)


def random_committee(n, members, classes, seed=0):
    rng = np.random.default_rng(seed)
    committee = rng.dirichlet(np.full(classes, 0.5), (n, members)).astype(np.float32)
    committee[:5] = np.eye(classes)[rng.integers(0, classes, (5, members))]
    return committee
