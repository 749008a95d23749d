"""A linear classifier whose probabilities of a row depend on that row alone.

They do not depend on the other rows of a block, the number of threads or the BLAS library. Both factors of each logit
are rounded to integers whose products sum to less than 2**53, so float64 adds them without error in any order. The
remaining arithmetic uses a single row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from selection.blocks import check_finite
from selection.types import Array, Doubles, Floats

# Significant bits of a vector's largest value (float16 has 11), and of the sum of a class's weights: 53 together.
VECTOR_BITS = 22
WEIGHT_BITS = 53 - VECTOR_BITS

TILE_ROWS = 1024  # 1.5 MB of float32 at 384 dimensions, about the size of a cache


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Softmax of a linear function.

    Attributes:
        weights: (d, C) float64.
        bias: (C,) float64, -inf for a class without labels.
        temperature: logits are divided by it; 1 if the model is not calibrated.
        notes: messages for the user: how the model was calibrated, or why not.
        scaled: (d, C) the weights over the temperature as integers, and the exponent of two by which they were
            multiplied.
    """

    weights: Doubles
    bias: Doubles
    temperature: float = 1.0
    notes: tuple[str, ...] = ()
    scaled: tuple[Doubles, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        W = self.weights / self.temperature
        # The power of two above the largest sum of absolute weights of a class, twice to allow for rounding.
        largest = float(np.abs(W).sum(axis=0).max(initial=0))
        exponent = WEIGHT_BITS - 1 - int(np.frexp(largest)[1])
        object.__setattr__(self, "scaled", (np.rint(np.ldexp(W, exponent)), exponent))

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.bias)

    def probabilities(self, vectors: Array) -> Floats:
        """(r, C) float32, see `linear_probabilities`."""
        return linear_probabilities(vectors, [self])[:, 0]


def linear_probabilities(vectors: Array, models: Sequence[LinearModel]) -> Floats:
    """(r, models, C) float32.

    Raises:
        InvalidInput: a vector is not finite; names its row.

    Sparse rows are added in float64 value by value, in the order of their columns; that needs no rounding.

    Cost: 2*r*d*models*C operations in float64 (BLAS) and a few passes over one tile of vectors at a time.
    """
    if is_sparse(vectors):
        return _of_sparse(vectors, models)
    W = np.concatenate([model.scaled[0] for model in models], axis=1)
    unit = np.ldexp(1.0, -np.repeat([model.scaled[1] for model in models], models[0].n_classes))
    bias = np.concatenate([model.bias / model.temperature for model in models])
    P = np.empty((len(vectors), len(models), models[0].n_classes), np.float32)
    for start in range(0, len(vectors), TILE_ROWS):
        tile = np.array(vectors[start : start + TILE_ROWS], np.float32)
        largest = np.maximum(tile.max(axis=1, initial=0), -tile.min(axis=1, initial=0))
        check_finite(largest[:, None], start + np.arange(len(tile)))
        # Scaling by powers of two is exact. Vectors of norm below 2**-100 keep fewer bits.
        exponents = np.maximum(np.frexp(largest)[1], -100)
        tile *= np.ldexp(np.float32(1), VECTOR_BITS - exponents)[:, None]
        integers = np.rint(tile, out=tile).astype(np.float64)
        logits = (integers @ W) * np.ldexp(1.0, exponents - VECTOR_BITS)[:, None] * unit + bias
        P[start : start + TILE_ROWS] = _softmax(logits.reshape(-1, *P.shape[1:]))
    return P


def _of_sparse(rows: Any, models: Sequence[LinearModel]) -> Floats:
    W = np.concatenate([model.weights / model.temperature for model in models], axis=1)
    bias = np.concatenate([model.bias / model.temperature for model in models])
    logits = np.asarray(rows @ W) + bias
    return _softmax(logits.reshape(rows.shape[0], len(models), -1)).astype(np.float32)


def is_sparse(rows: Any) -> bool:
    """Whether rows are a sparse array of scipy's, which need not be imported for it."""
    return hasattr(rows, "tocsr")


def _softmax(logits: Doubles) -> Doubles:
    """Over the last axis."""
    P = np.exp(logits - logits.max(axis=-1, keepdims=True))
    # Summed class by class, since the order of a sum must not depend on the number of rows.
    total = np.zeros(P.shape[:-1])
    for c in range(P.shape[-1]):
        total += P[..., c]
    return cast("Doubles", P / total[..., None])
