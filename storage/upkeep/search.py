"""A search of files for rows that must not be in them: their ids, their texts, their vectors.

Parquet is searched decompressed, column by column, a catalog table by table, any other file byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from storage import duck
from storage.duck import quoted
from storage.ids import Ids, from_arrow, rows_of, to_bytes, to_text
from storage.pool.ingest import parts
from storage.store import Store, read_array
from storage.upkeep.rewrite import Rows, contains, ids_of, is_id, json_forms
from storage.vectors.segments import segment_folders

# A text is searched by its beginning; where another row has that too, by all of it; a shorter one by nothing.
BEGINNING_CHARS, SHORTEST = 60, 16
_BLOCK_BYTES = 1 << 24
_WORD = 8  # bytes of a pattern that are compared first
_TEXTS = ("prompt", "response", "messages", "content_json")


@dataclass(frozen=True, eq=False)
class Patterns:
    """What is searched for.

    Attributes:
        ids: (n,) ascending.
        texts: of the rows that have a text which no other row has.
        without: how many rows have none, and are searched by id alone.
        vectors: the bytes of their vectors, of those that no other row has.
    """

    ids: Ids
    texts: tuple[str, ...] = ()
    without: int = 0
    vectors: tuple[bytes, ...] = ()

    @cached_property
    def words(self) -> list[str]:
        """What no text may hold."""
        names = to_text(self.ids)
        forms = [form for text in self.texts for form in json_forms(text)]
        return [*names, *(name.replace("-", "") for name in names), *forms]

    @cached_property
    def _bytes(self) -> tuple[npt.NDArray[np.uint64], dict[bytes, list[bytes]]]:
        """The first words of all patterns, ascending; and word -> the patterns that begin so."""
        by_word: dict[bytes, list[bytes]] = {}
        for pattern in [*to_bytes(self.ids), *(word.encode() for word in self.words), *self.vectors]:
            by_word.setdefault(pattern[:_WORD], []).append(pattern)
        return np.sort(np.frombuffer(b"".join(by_word), np.uint64)), by_word

    def in_file(self, path: Path) -> bool:
        """Whether a file holds one.

        Raises:
            OSError, ArrowException, duckdb.Error: it cannot be read.
        """
        if path.suffix == ".parquet":
            return self._in_parquet(path)
        return self._in_bytes(path) or (path.suffix == ".duckdb" and self._in_catalog(path))

    def _in_parquet(self, path: Path) -> bool:
        with pq.ParquetFile(path) as file:
            groups = (file.read_row_group(number) for number in range(file.num_row_groups))
            return any(self._in_column(column) for table in groups for column in table.columns)

    def _in_column(self, column: pa.ChunkedArray) -> bool:
        kind = column.type
        if is_id(kind):
            return bool((rows_of(ids_of(column), self.ids) >= 0).any())
        if pa.types.is_dictionary(kind):
            return self._in_column(column.cast(kind.value_type))
        if pa.types.is_list(kind):
            return any(self._in_column(pa.chunked_array([chunk.flatten()])) for chunk in column.chunks)
        return kind in (pa.string(), pa.large_string()) and bool(contains(column.cast(pa.string()), self.words).any())

    def _in_catalog(self, path: Path) -> bool:
        with duck.connect(path, read_only=True) as connection:
            names = connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
            for (name,) in names:
                table = connection.sql(f"SELECT COLUMNS(*)::VARCHAR FROM {quoted(name)}").to_arrow_table()  # noqa: S608
                if any(self._in_column(column) for column in table.columns):
                    return True
        return False

    def _in_bytes(self, path: Path) -> bool:
        words, by_word = self._bytes
        longest = max((len(each) for patterns in by_word.values() for each in patterns), default=0)
        with path.open("rb") as file:
            tail = b""
            while block := file.read(_BLOCK_BYTES):
                block = tail + block
                if _holds(block, words, by_word):
                    return True
                tail = block[-longest:]
        return False


def _holds(block: bytes, words: npt.NDArray[np.uint64], by_word: dict[bytes, list[bytes]]) -> bool:
    for shift in range(min(_WORD, len(block))):
        count = (len(block) - shift) // _WORD
        if not count or not len(words):
            continue
        window = np.frombuffer(block, np.uint64, count, shift)
        places = np.minimum(np.searchsorted(words, window), len(words) - 1)
        for number in np.flatnonzero(words[places] == window).tolist():
            start = shift + number * _WORD
            if any(block.startswith(pattern, start) for pattern in by_word[block[start : start + _WORD]]):
                return True
    return False


def files_that_hold(paths: Iterable[Path], patterns: Patterns) -> Iterator[Path]:
    """The files that hold a row, and those that cannot be read, so that it is not known.

    Cost: reads all of them; about 5 s a GB.
    """
    for path in paths:
        try:
            if path.stat().st_size and patterns.in_file(path):
                yield path
        except (OSError, pa.ArrowException, duckdb.Error, ValueError):
            if path.exists():
                yield path


def patterns_of(store: Store, rows: Rows) -> tuple[Patterns, list[str]]:
    """What to search for to know that rows are gone, while they are there; and how their texts begin.

    Cost: reads the texts of the pool's files, and the vectors of the rows.
    """
    texts, beginnings = _texts(store, rows)
    candidates = [form for each in texts for form in _forms(each)]
    shared = _shared(store, rows, candidates)
    own = [next((form for form in _forms(each) if form not in shared), None) for each in texts]
    chosen = tuple(dict.fromkeys(form for form in own if form is not None))
    without = len(rows.ids) - sum(form is not None for form in own)
    return Patterns(rows.ids, chosen, without, tuple(_vectors(store, rows))), beginnings


def _forms(text: str) -> list[str]:
    return [form for form in dict.fromkeys((text[:BEGINNING_CHARS], text)) if len(form) >= SHORTEST]


def _texts(store: Store, rows: Rows) -> tuple[list[str], list[str]]:
    """The longest text of each row, once for each row; and the beginning of every text."""
    longest: dict[bytes, str] = {}
    beginnings: dict[str, None] = {}
    for ingest in store.committed("pool"):
        for path in parts(store, ingest):
            with pq.ParquetFile(path) as file:
                columns = [name for name in _TEXTS if name in file.schema_arrow.names]
                for number in range(file.num_row_groups):
                    going = rows.are(from_arrow(file.read_row_group(number, columns=["id"])["id"]))
                    if not going.any():
                        continue
                    table = file.read_row_group(number, columns=["id", *columns]).filter(pa.array(going))
                    for row_id, texts in zip(to_bytes(from_arrow(table["id"])), _texts_of(table, columns), strict=True):
                        longest[row_id] = max(texts, key=len, default="")
                        beginnings |= dict.fromkeys(text[:24] for text in texts if len(text) >= SHORTEST)
    return list(longest.values()), list(beginnings)


def _texts_of(table: pa.Table, columns: list[str]) -> Iterator[list[str]]:
    """The texts of each row."""
    for row in table.select(columns).to_pylist():
        turns = [row["prompt"], row["response"]]
        if row.get("messages") is not None:
            turns = [text for _, text in json.loads(row["messages"])]
        content = _strings(json.loads(row["content_json"])) if row.get("content_json") else ()
        yield list(dict.fromkeys(text for text in [*turns, *content] if text))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _shared(store: Store, rows: Rows, candidates: list[str]) -> set[str]:
    """Those of some texts that a row which stays holds, or an example of a target."""
    import polars as pl

    by_form = {form: text for text in candidates for form in json_forms(text)}
    shared: set[str] = set()
    files = [path for ingest in store.committed("pool") for path in parts(store, ingest)]
    files += [store.path("records", "targets", name, "items.parquet") for name in store.records("targets")]
    for path in files if by_form else ():
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                table = table.filter(pa.array(~rows.are(from_arrow(table["id"]))))
                for column in table.select([f.name for f in table.schema if f.type == pa.string()]).columns:
                    series = pl.Series(column, dtype=pl.String).drop_nulls()
                    hits = series.filter(series.str.contains_any(list(by_form)))
                    matches = hits.str.extract_many(list(by_form), overlapping=True).explode().drop_nulls()
                    shared |= {by_form[form] for form in matches.unique().to_list()}
    return shared


def _vectors(store: Store, rows: Rows) -> Iterator[bytes]:
    """The vectors of the rows as they are stored, and as float32; those that no other row of the encoder has."""
    for encoder in store.committed("vectors"):
        ours: set[bytes] = set()
        others: set[bytes] = set()
        segments = [
            (read_array(folder / "vectors.npy"), rows.are(read_array(folder / "keys.npy")))
            for folder in segment_folders(store, encoder)
        ]
        for vectors, going in segments:
            ours |= {row.tobytes() for row in vectors[going] if np.count_nonzero(row) >= _WORD}
        for vectors, going in segments if ours else ():
            for start in range(0, len(vectors), 1 << 14):
                block = vectors[start : start + (1 << 14)][~going[start : start + (1 << 14)]]
                raw = (
                    np.ascontiguousarray(block).view(f"V{block.dtype.itemsize * block.shape[1]}")
                    if len(block)
                    else block
                )
                others |= ours & set(map(bytes, raw.ravel().tolist())) if len(block) else set()
        for vector in ours - others:
            yield vector
            yield np.frombuffer(vector, segments[0][0].dtype).astype(np.float32).tobytes()
