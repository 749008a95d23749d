"""A fitted linear model as plain arrays: model.npz and model.json, read without pickle by numpy alone.

    model.npz    weights (d, C) float64, bias (C,) float64 with -inf for a class without labels, temperature () float64
    model.json   classes, project, model_id, encoder, notes

The probabilities of vectors X (r, d) are softmax((X @ weights + bias) / temperature), where X are the unit vectors of
the encoder that model.json names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selection.learning.linear import LinearModel
from selection.types import Array, Floats
from storage.errors import BadInput
from storage.store import write_json


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A model as it was exported.

    Attributes:
        classes: (C,) the names of the classes.
        model: gives probabilities.
        about: the content of model.json.
    """

    classes: tuple[str, ...]
    model: LinearModel
    about: Mapping[str, Any]

    def probabilities(self, vectors: Array) -> Floats:
        """(r, C) float32 of vectors (r, d): those that winnow itself gives, bit for bit."""
        return self.model.probabilities(vectors)


def save_model(folder: Path, model: LinearModel, about: Mapping[str, Any]) -> list[Path]:
    """Write a model into a new folder; gives its files.

    Args:
        about: JSON-plain, with `classes`.
    """
    folder.mkdir()
    arrays, description = folder / "model.npz", folder / "model.json"
    np.savez(arrays, weights=model.weights, bias=model.bias, temperature=np.float64(model.temperature))
    write_json(description, {**about, "notes": list(model.notes)})
    return [arrays, description]


def load_model(folder: Path) -> FittedModel:
    """A model that `winnow export --predictions` wrote; `folder` holds model.npz and model.json.

    Raises:
        BadInput: a file is missing, or is not what was written.
    """
    try:
        about = json.loads((folder / "model.json").read_text("utf-8"))
        with np.load(folder / "model.npz", allow_pickle=False) as arrays:
            weights, bias, temperature = arrays["weights"], arrays["bias"], float(arrays["temperature"])
        classes = tuple(about["classes"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _no_model(folder, error) from error
    if weights.shape[1:] != bias.shape or bias.shape != (len(classes),):
        raise _no_model(folder, f"{weights.shape} weights, {bias.shape} biases, {len(classes)} classes")
    return FittedModel(classes, LinearModel(weights, bias, temperature, tuple(about.get("notes", ()))), about)


def _no_model(folder: Path, cause: object) -> BadInput:
    return BadInput(f"{folder} does not hold a model as `winnow export --predictions` writes it: {cause}")
