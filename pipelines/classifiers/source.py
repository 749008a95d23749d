"""Where the class probabilities of a recipe come from: named in its configuration, recorded, opened again from the record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.workers import Workers
from selection.types import Array, Floats, Mask, RowBlocks, Rows

# JSON-plain: what a selection depends on, and `url`, which only says where a file lies.
SourceRecord = Mapping[str, Any]


class Source(ABC):
    """What is said of the rows of a snapshot; each part is computed when it is asked for.

    Attributes:
        classes: (C,) their names.
        reads_texts: whether it reads the texts of all rows.
        workers: other processes that may read the pool for it.
    """

    classes: Sequence[str]
    reads_texts: bool = False
    workers: Workers | None = None

    @abstractmethod
    def probabilities(self) -> RowBlocks | Floats:
        """(n, C)."""

    @abstractmethod
    def unknown(self) -> Mask:
        """(n,) the rows that have no probabilities, so that no step may choose them."""

    def committee(self) -> RowBlocks | None:
        """(n, members, C), where there are members."""
        return None

    def committee_of(self, encoder: str, vectors: Array, texts: Callable[[], list[str]]) -> Array | None:
        """(m, members, C) of targets, where there are members.

        Args:
            encoder, vectors: their vectors (m, d), and the fingerprint of what made those of the pool.
            texts: gives (m,) their texts.
        """
        del encoder, vectors, texts
        return None

    def labels(self) -> Rows | None:
        """(n,) class numbers of the rows that train, -1 elsewhere, where rows are labelled."""
        return None
