"""Records into files: JSON Lines or Parquet, in shards of consecutive rows.

A Parquet field is text, a number, messages (a list of role and content) or, where its values differ or nest, JSON: the
type `arrow.json`, which `datasets` gives back as objects, without a key more or less, and DuckDB reads as JSON.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.exports.conversation import is_plain
from pipelines.exports.exact_json import dumps
from pipelines.exports.shapes import Record

_JSON = "json"
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TYPES: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "messages": _MESSAGES,
    _JSON: pa.json_(pa.string()),
}
_FEATURES: Mapping[str, Any] = {
    "text": {"dtype": "string", "_type": "Value"},
    "integer": {"dtype": "int64", "_type": "Value"},
    "number": {"dtype": "float64", "_type": "Value"},
    "boolean": {"dtype": "bool", "_type": "Value"},
    "messages": {
        "feature": {
            "role": {"dtype": "string", "_type": "Value"},
            "content": {"dtype": "string", "_type": "Value"},
        },
        "_type": "List",
    },
    _JSON: {"_type": "Json"},
}


class Writer:
    """Writes records in shards, each a file under `folder`.

    Args:
        folder: of the files, which is there.
        shards: how many.
        rows: how many places there are; a record's place decides its shard.
    """

    suffix: str

    def __init__(self, folder: Path, shards: int, rows: int) -> None:
        self.folder, self.shards, self._rows = folder, shards, rows
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    @property
    def files(self) -> list[Path]:
        """The files, in order."""
        if self.shards == 1:
            return [self.folder / f"train.{self.suffix}"]
        count = self.shards
        return [self.folder / f"train-{number:05d}-of-{count:05d}.{self.suffix}" for number in range(count)]

    def shard_of(self, place: int) -> int:
        """Shards hold as many places as each other, or one less."""
        return place * self.shards // max(self._rows, 1)

    @abstractmethod
    def write(self, places: list[int], records: list[Record]) -> None:
        """Write the records of a block, with their places, ascending."""


class JsonLines(Writer):
    """A JSON object a line, UTF-8."""

    suffix = "jsonl"

    def __init__(self, folder: Path, shards: int, rows: int) -> None:
        super().__init__(folder, shards, rows)
        self._streams: list[BinaryIO] = [self._opened.enter_context(path.open("wb")) for path in self.files]

    def write(self, places: list[int], records: list[Record]) -> None:
        """Write a block."""
        for place, record in zip(places, records, strict=True):
            self._streams[self.shard_of(place)].write(dumps(record) + b"\n")


class Parquet(Writer):
    """Parquet, zstd.

    Args:
        kinds: field -> kind, in order, as `FieldKinds` gives them.
    """

    suffix = "parquet"

    def __init__(self, folder: Path, shards: int, rows: int, kinds: Mapping[str, str]) -> None:
        super().__init__(folder, shards, rows)
        self._kinds = kinds
        features = {name: _FEATURES[kind] for name, kind in kinds.items()}
        info = {"huggingface": json.dumps({"info": {"features": features}})}
        self._schema = pa.schema([(name, _TYPES[kind]) for name, kind in kinds.items()], metadata=info)
        self._writers = [
            self._opened.enter_context(pq.ParquetWriter(path, self._schema, compression="zstd")) for path in self.files
        ]

    def write(self, places: list[int], records: list[Record]) -> None:
        """Write a block; a row group of each shard that it touches."""
        shards: dict[int, list[Record]] = {}
        for place, record in zip(places, records, strict=True):
            shards.setdefault(self.shard_of(place), []).append(record)
        for shard, some in shards.items():
            columns = [self._column(name, kind, some) for name, kind in self._kinds.items()]
            self._writers[shard].write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def _column(self, name: str, kind: str, records: list[Record]) -> pa.Array:
        values = [record.get(name) for record in records]
        if kind != _JSON:
            return pa.array(values, _TYPES[kind])
        texts = [None if value is None else dumps(value).decode() for value in values]
        return pa.array(texts, pa.string()).cast(_TYPES[kind])


class FieldKinds:
    """Which kind holds all values of each field, exactly."""

    def __init__(self) -> None:
        self._kinds: dict[str, str | None] = {}

    def add(self, records: Iterable[Record]) -> None:
        """Take in the fields of some records."""
        for record in records:
            for name, value in record.items():
                known, kind = self._kinds.get(name), _kind(value)
                self._kinds[name] = kind if known is None or kind == known else known if kind is None else _JSON

    @property
    def kinds(self) -> dict[str, str]:
        """Field -> kind, in the order in which the fields came; a field without values is text."""
        return {name: kind or "text" for name, kind in self._kinds.items()}


def _kind(value: Any) -> str | None:
    """The kind of a value; None for one that any kind has."""
    if value is None:
        return None
    simple = {str: "text", bool: "boolean", float: "number"}.get(type(value))
    if simple is not None:
        return simple
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else _JSON
    is_chat = isinstance(value, list) and all(isinstance(item, dict) and is_plain(item) for item in value)
    return "messages" if is_chat else _JSON


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
