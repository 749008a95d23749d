"""Vectors moved into another frame: their sample's mean taken off, or whitened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from selection.encoders.representation import Representation
from selection.errors import InvalidInput, InvalidOption
from selection.step import check_choice, check_integer, check_number
from selection.types import Array, Doubles, Floats, Mask

# Part of the fingerprint. Increase it whenever the same sample would give another frame.
POSTPROCESS_VERSION = 1
MIN_NORM = 1e-12
_METHODS = ("center", "whiten")
_KEYS = ("method", "sample", "eps", "fit")
_BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class Postprocess:
    """What is done with the vectors of a model.

    Attributes:
        method: "center" or "whiten".
        sample: rows of the pool that it is fitted on, at most.
        eps: added to the eigenvalues of the covariance by "whiten".
        fit: the number of the fit; another number is fitted anew, on the pool as it is then.
    """

    method: str
    sample: int = 16384
    eps: float = 1e-6
    fit: int = 1

    def __post_init__(self) -> None:
        check_choice("encoder", "method", self.method, _METHODS)
        check_integer("encoder", "sample", self.sample, least=2)
        check_number("encoder", "eps", self.eps, above=0, below=1)
        check_integer("encoder", "fit", self.fit, least=1)

    @classmethod
    def of(cls, options: Any) -> Postprocess:
        """From the value of `postprocess`: a method, or a mapping.

        Raises:
            InvalidOption: it is neither, or a key or value is wrong.
        """
        if isinstance(options, str):
            options = {"method": options}
        if not isinstance(options, Mapping):
            raise _invalid(f"must be center, whiten or a mapping of {', '.join(_KEYS)}, got {options!r}")
        unknown = [key for key in options if key not in _KEYS]
        if unknown:
            raise _invalid(f"unknown key {unknown[0]!r}; allowed: {', '.join(_KEYS)}")
        if "method" not in options:
            raise _invalid("needs `method`, center or whiten")
        try:
            return cls(**options)
        except InvalidOption as error:
            raise _invalid(error.reason) from None

    def key(self, base: str) -> str:
        """32 hex digits that name the fit, whatever the pool.

        Args:
            base: the fingerprint of the pool's vectors that it is fitted on.
        """
        return _digest([base, asdict(self), POSTPROCESS_VERSION])


def checked(options: Any) -> dict[str, Any] | None:
    """The value of `postprocess` with its defaults filled in, so that the same frame has the same record."""
    return None if options is None else asdict(Postprocess.of(options))


def postprocess_of(spec: Representation) -> Postprocess | None:
    """What is done with the vectors of a representation; None where its kind, or the user, has none."""
    options = getattr(spec, "postprocess", None)
    return None if options is None else Postprocess.of(options)


@dataclass(frozen=True)
class Postprocessed:
    """A representation whose stored vectors are those of another one, in the frame of a fit.

    Attributes:
        spec: as in the configuration, or its `for_targets`.
        fit: what the frame was fitted on; see `storage.vectors.fits.Fit.id`.
    """

    spec: Representation
    fit: str

    @property
    def base(self) -> Representation:
        """The representation before."""
        return without_postprocess(self.spec)

    @property
    def store(self) -> Literal["float16", "float32"]:
        return self.spec.store

    def fingerprint(self) -> str:
        """32 hex digits of the vectors before, and of the fit."""
        return _digest([self.base.fingerprint(), self.fit])


def without_postprocess(spec: Representation) -> Representation:
    """The same, of which nothing is done with the vectors."""
    return spec if postprocess_of(spec) is None else replace(spec, postprocess=None)


@dataclass(frozen=True)
class Frame:
    """Where vectors are moved to.

    Attributes:
        mean: (d,) float64, of the sample.
        matrix: (d, d) float64, symmetric; None where vectors are centred only.
    """

    mean: Doubles
    matrix: Doubles | None

    def apply(self, vectors: Array) -> tuple[Floats, Mask]:
        """Vectors in this frame, made unit.

        Args:
            vectors: (n, d) float, divided by their stored lengths.

        Returns:
            (n, d) float32 of norm 1, zeros for rows without a direction; (n,) bool, whether a row has a direction.

        Cost: n*d*d multiply-adds in float64 to whiten, n*d to centre; a block of 4,096 rows of memory.
        """
        unit = np.zeros(vectors.shape, np.float32)
        usable = np.zeros(len(vectors), np.bool_)
        for start in range(0, len(vectors), _BLOCK):
            rows = slice(start, start + _BLOCK)
            moved = np.asarray(vectors[rows], np.float64) - self.mean
            moved = moved if self.matrix is None else moved @ self.matrix
            lengths = np.linalg.norm(moved, axis=1)
            usable[rows] = lengths > MIN_NORM
            unit[rows] = moved / np.where(lengths > MIN_NORM, lengths, np.inf)[:, None]
        return unit, usable


def fit_frame(vectors: Array, method: str, eps: float) -> Frame:
    """The frame of a sample.

    "center" takes off its mean. "whiten" also turns and stretches so that the sample has the identity as covariance
    (ZCA: by the inverse square root of the population covariance, `eps` added to its eigenvalues).

    Args:
        vectors: (n, d) float, n >= 2, divided by their stored lengths.

    Raises:
        InvalidInput: fewer than two vectors.

    Cost: n*d*d multiply-adds and an eigendecomposition of (d, d) to whiten.
    Source: Mu and Viswanath 2018 (all-but-the-top) for centring; Su et al. 2021 for whitening.
    """
    if len(vectors) < 2:
        raise InvalidInput(f"postprocess: {method} is fitted on two vectors at least, got {len(vectors)}")
    blocks = [vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK)]
    mean = np.sum([block.sum(0, dtype=np.float64) for block in blocks], axis=0) / len(vectors)
    if method == "center":
        return Frame(mean, None)
    covariance = np.zeros((vectors.shape[1], vectors.shape[1]))
    for block in blocks:
        deviations = block.astype(np.float64) - mean
        covariance += deviations.T @ deviations
    values, axes = np.linalg.eigh(covariance / len(vectors))
    return Frame(mean, (axes / np.sqrt(np.maximum(values, 0) + eps)) @ axes.T)


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _invalid(reason: str) -> InvalidOption:
    return InvalidOption(f"postprocess: {reason}", step="encoder", option="postprocess")
