"""The user's own file of class probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pipelines.classifiers.source import Source, SourceRecord
from pipelines.config.schema import Keyed
from selection.types import Floats, Mask
from storage.errors import BadInput
from storage.labels.imported_probabilities import probabilities_id, probability_classes, read_probabilities
from storage.pool.snapshot import Snapshot
from storage.store import Store


class OwnFile(Source):
    """A file as a source.

    Args:
        file: its `url`, the field `id` of its keys, and its `digest`.
        classes: their names; those of its columns by default.
    """

    def __init__(
        self, store: Store, file: Mapping[str, Any], snapshot: Snapshot, classes: Sequence[str] | None = None
    ) -> None:
        self.store, self.file, self.snapshot = store, file, snapshot
        if classes is None:
            require_digest(store, file)
            classes = probability_classes(store, file["url"], file["id"])
        self.classes = tuple(classes)

    @cached_property
    def _read(self) -> tuple[Floats, Mask]:
        return own_probabilities(self.store, self.file, self.classes, self.snapshot)

    def probabilities(self) -> Floats:
        """Those of the file."""
        return self._read[0]

    def unknown(self) -> Mask:
        """The rows that the file does not name."""
        return ~self._read[1]


def file_record(store: Store, file: Keyed) -> SourceRecord:
    """What a selection depends on."""
    return {"file": probabilities_id(store, file.url), "id": file.id, "url": file.url}


def own_probabilities(
    store: Store, file: Mapping[str, Any], classes: Sequence[str], snapshot: Snapshot
) -> tuple[Floats, Mask]:
    """(n, C) the probabilities of a file and (n,) the rows that it names.

    Raises:
        BadInput: the file is not what a record says it was.
    """
    require_digest(store, file)
    return read_probabilities(store, file["url"], file["id"], classes, snapshot, file["digest"])


def require_digest(store: Store, file: Mapping[str, Any]) -> None:
    """Raise `BadInput` if the file is not what a record says it was."""
    if file["digest"] != probabilities_id(store, file["url"]):
        raise BadInput(f"the probabilities {file['url']} are not those of the record: the file has changed since")
