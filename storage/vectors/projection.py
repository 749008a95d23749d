"""Two directions in which an encoder's vectors are looked at, fitted once and kept, so that maps of different days compare.

`vectors/<encoder>/map-<hash>/` holds `axes.npy`: (3, d) float32, the mean of a sample and its first two principal axes;
and `map.json`: what it was fitted on and the frame in which maps are drawn. The name is a hash of the encoder and the
method: the first pool that is mapped decides, whatever comes later, and another encoder has another map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.types import Array, Floats
from storage.damage import committed_whole, read_record
from storage.records import digest_of
from storage.store import Store, read_array, utc_now, write_json

SAMPLE, SEED, VERSION = 10_000, 0, 1
# Of the frame around the sample, in its width and height.
MARGIN = 0.08


@dataclass(frozen=True, eq=False)
class Projection:
    """The plane of an encoder's maps.

    Attributes:
        name: its folder.
        axes: (3, d) float32, the mean and the two axes.
        frame: x from, x to, y from, y to.
        explained: the share of the sample's variance that lies in the plane.
    """

    name: str
    axes: Floats
    frame: tuple[float, float, float, float]
    explained: float

    def project(self, vectors: Array) -> Floats:
        """(n, 2) float32, where vectors of norm 1 lie; what lies outside of the frame is put on its edge.

        Cost: 4*n*d operations.
        """
        mean, axes = self.axes[0], self.axes[1:]
        left, right, low, high = self.frame
        return np.asarray(np.clip((vectors - mean) @ axes.T, [left, low], [right, high]), np.float32)


def projection_name(encoder: str) -> str:
    """The folder of an encoder's projection."""
    return "map-" + digest_of({"encoder": encoder, "method": "pca", "sample": SAMPLE, "seed": SEED, "version": VERSION})


def fit_projection(store: Store, encoder: str, sample: Floats, snapshot: str) -> Projection:
    """The encoder's projection; fitted to the sample and kept, if there is none yet.

    Args:
        sample: (s, d) float32 vectors of norm 1, s >= 1.
        snapshot: where the sample is from, for the record.

    Cost: 2*s*d*d operations.
    """
    name = projection_name(encoder)
    if not committed_whole(store, "maps", encoder, name):
        axes, explained = principal_axes(sample)
        places = (sample - axes[0]) @ axes[1:].T
        low, high = places.min(axis=0), places.max(axis=0)
        edge = MARGIN * np.maximum(high - low, 1e-6)
        (left, bottom), (right, top) = (low - edge).tolist(), (high + edge).tolist()
        with store.committing("vectors", encoder, name) as folder:
            np.save(folder / "axes.npy", axes, allow_pickle=False)
            header: dict[str, Any] = {
                "encoder": encoder,
                "method": "pca",
                "snapshot": snapshot,
                "rows": len(sample),
                "seed": SEED,
            }
            header |= {"frame": [left, right, bottom, top], "explained": explained, "created_at": utc_now()}
            write_json(folder / "map.json", header)
    folder = store.path("vectors", encoder, name)
    kept = read_record("maps", folder)
    left, right, bottom, top = kept["frame"]
    return Projection(name, read_array(folder / "axes.npy"), (left, right, bottom, top), kept["explained"])


def principal_axes(sample: Floats) -> tuple[Floats, float]:
    """(3, d) float32: the mean and the first two principal axes, each with its largest part positive; and their share of the variance.

    >>> axes, explained = principal_axes(np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]], np.float32))
    >>> np.abs(axes).round(3).tolist(), round(explained, 3)
    ([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], 1.0)
    """
    wide = np.asarray(sample, np.float64)
    mean = wide.mean(axis=0)
    values, axes = np.linalg.eigh((wide - mean).T @ (wide - mean) / len(wide))
    first = np.zeros((2, wide.shape[1]))
    first[: min(2, len(values))] = axes[:, ::-1][:, :2].T
    signs = np.sign(first[np.arange(2), np.abs(first).argmax(axis=1)])
    first *= np.where(signs == 0, 1, signs)[:, None]
    total = float(values.sum())
    explained = float(values[::-1][:2].sum()) / total if total > 0 else 1.0
    return np.vstack([mean, first]).astype(np.float32), round(min(max(explained, 0.0), 1.0), 4)
