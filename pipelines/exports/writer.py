"""Records into files: JSON Lines or Parquet, in shards of consecutive rows.

A Parquet field is text, a number, messages (a list of role and content) or, where its values differ or nest, JSON: the
type `arrow.json`, which `datasets` gives back as objects, without a key more or less, and DuckDB reads as JSON.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.exports.conversation import is_plain
from pipelines.exports.exact_json import Number, dumps
from pipelines.exports.shapes import Record

# Kinds of field. A `HUGE` number has more digits than 64 bits or a double hold.
_JSON, _HUGE, _MESSAGES = "json", "huge", "messages"


@dataclass(frozen=True)
class _Kind:
    """How a kind of field is stored: in Parquet, and what `datasets` calls it, in Parquet's metadata and in a card."""

    arrow: pa.DataType
    feature: Mapping[str, Any]
    card: Mapping[str, Any]


def _simple(arrow: pa.DataType, name: str, in_card: str | None = None) -> _Kind:
    return _Kind(arrow, {"dtype": name, "_type": "Value"}, {"dtype": in_card or name})


_TEXT = _simple(pa.string(), "string")
_KINDS: Mapping[str, _Kind] = {
    "text": _TEXT,
    "integer": _simple(pa.int64(), "int64"),
    "number": _simple(pa.float64(), "float64"),
    "boolean": _simple(pa.bool_(), "bool"),
    # Of JSON Lines, `datasets` reads no more than a double; of Parquet, the digits as text.
    _HUGE: _simple(pa.string(), "string", "float64"),
    _MESSAGES: _Kind(
        pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
        {"feature": {"role": _TEXT.feature, "content": _TEXT.feature}, "_type": "List"},
        {"list": [{"name": "role", **_TEXT.card}, {"name": "content", **_TEXT.card}]},
    ),
    _JSON: _Kind(pa.json_(pa.string()), {"_type": "Json"}, {"dtype": "json"}),
}


class Writer:
    """Writes records in shards, each a file under `folder`, one after the other.

    Args:
        folder: of the files, which is there.
        shards: how many; each is written, also one without rows.
        rows: how many places there are; a record's place decides its shard.
    """

    suffix: str

    def __init__(self, folder: Path, shards: int, rows: int) -> None:
        self.folder, self.shards, self._rows = folder, shards, rows
        self._shard = -1
        self._stream: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self._open(self.shards - 1)
        self._close()

    @property
    def files(self) -> list[Path]:
        """The files, in order."""
        return [self._file(number) for number in range(self.shards)]

    def write(self, places: list[int], records: list[Record]) -> None:
        """Write the records of a block, with their places, which ascend from call to call."""
        for shard, some in groupby(zip(places, records, strict=True), key=lambda item: self._shard_of(item[0])):
            self._open(shard)
            self._write([record for _, record in some])

    @abstractmethod
    def _opened(self, path: Path) -> Any:
        """What is written to, which has `close`."""

    @abstractmethod
    def _write(self, records: list[Record]) -> None:
        """Write records to the shard that is open."""

    def _shard_of(self, place: int) -> int:
        """Shards hold as many places as each other, or one less."""
        return place * self.shards // self._rows

    def _open(self, shard: int) -> None:
        while self._shard < shard:
            self._close()
            self._shard += 1
            self._stream = self._opened(self._file(self._shard))

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _file(self, number: int) -> Path:
        part = "" if self.shards == 1 else f"-{number:05d}-of-{self.shards:05d}"
        return self.folder / f"train{part}.{self.suffix}"


class JsonLines(Writer):
    """A JSON object a line, UTF-8."""

    suffix = "jsonl"

    def _opened(self, path: Path) -> BinaryIO:
        return path.open("wb")

    def _write(self, records: list[Record]) -> None:
        self._stream.writelines(dumps(record) + b"\n" for record in records)


class Parquet(Writer):
    """Parquet, zstd; a row group a block.

    Args:
        kinds: field -> kind, in order, as `FieldKinds` gives them.
    """

    suffix = "parquet"

    def __init__(self, folder: Path, shards: int, rows: int, kinds: Mapping[str, str]) -> None:
        super().__init__(folder, shards, rows)
        self._kinds = kinds
        features = {name: _KINDS[kind].feature for name, kind in kinds.items()}
        info = {"huggingface": json.dumps({"info": {"features": features}})}
        self._schema = pa.schema([(name, _KINDS[kind].arrow) for name, kind in kinds.items()], metadata=info)

    def _opened(self, path: Path) -> pq.ParquetWriter:
        return pq.ParquetWriter(path, self._schema, compression="zstd")

    def _write(self, records: list[Record]) -> None:
        columns = [self._column(name, kind, records) for name, kind in self._kinds.items()]
        self._stream.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def _column(self, name: str, kind: str, records: list[Record]) -> pa.Array:
        values = [record.get(name) for record in records]
        if kind not in (_JSON, _HUGE):
            return pa.array(values, _KINDS[kind].arrow)
        texts = [None if value is None else dumps(value).decode() for value in values]
        return pa.array(texts, pa.string()).cast(_KINDS[kind].arrow)


class FieldKinds:
    """Which kind holds all values of each field, exactly."""

    def __init__(self) -> None:
        self._kinds: dict[str, str | None] = {}

    def add(self, records: Iterable[Record]) -> None:
        """Take in the fields of some records."""
        for record in records:
            for name, value in record.items():
                self._kinds[name] = _common(self._kinds.get(name), _kind(value))

    @property
    def kinds(self) -> dict[str, str]:
        """Field -> kind, in the order in which the fields came; a field without values is text."""
        return {name: kind or "text" for name, kind in self._kinds.items()}

    def features(self, container: str) -> list[dict[str, Any]]:
        """The fields as the card of a data set lists them, so that shards with other fields load as one."""
        in_card = {
            name: _KINDS["text" if kind == _HUGE and container == "parquet" else kind].card
            for name, kind in self.kinds.items()
        }
        return [{"name": name, **card} for name, card in in_card.items()]


def _common(known: str | None, kind: str | None) -> str | None:
    """The kind that holds values of two kinds; None holds none yet."""
    if known is None or kind is None or known == kind:
        return known or kind
    return _HUGE if {known, kind} == {_HUGE, "integer"} else _JSON


def _kind(value: Any) -> str | None:
    """The kind of a value; None for one that any kind has."""
    if value is None:
        return None
    simple = {str: "text", bool: "boolean", float: "number"}.get(type(value))
    if simple is not None:
        return simple
    if isinstance(value, int):
        return "integer"  # of more digits it is a `Number`
    if isinstance(value, Number):
        return _HUGE
    is_chat = isinstance(value, list) and all(isinstance(item, dict) and is_plain(item) for item in value)
    return _MESSAGES if is_chat else _JSON


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
