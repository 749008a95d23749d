"""Labelled vectors in clusters, one for each class."""

from __future__ import annotations

import numpy as np


def blobs(m: int, n_classes: int, *, d: int = 24, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(m) % n_classes)
    X = rng.normal(size=(n_classes, d))[y] + noise * rng.normal(size=(m, d))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float16), y
