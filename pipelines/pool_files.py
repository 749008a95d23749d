"""The pool's files as they are now: which are new, and how many rows they seem to hold."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.context import Context
from storage.damage import KINDS, damage_of
from storage.errors import BadInput
from storage.pool.content import Turns
from storage.pool.ingest import ingest_id, read_ingest
from storage.pool.peek import peek, size_of

# New files that are looked into, for how many rows the new files have.
_PEEKED = 3


@dataclass(frozen=True)
class PoolFiles:
    """The pool's files as they are now.

    Attributes:
        ingests: their ids.
        count: how many files there are.
        new: those whose ingest is not in the store.
        new_bytes: of these.
        known_rows: rows of the others, equal ones counted as often as they are there.
        new_rows: of the new ones, by the first rows of some.
        turns: of some rows of the new ones.
        errors: why some cannot be looked into.
    """

    ingests: frozenset[str]
    count: int
    new: int
    new_bytes: int
    known_rows: int
    new_rows: int
    turns: list[Turns]
    errors: tuple[str, ...]

    @property
    def rows(self) -> int:
        """All rows, about."""
        return self.known_rows + self.new_rows


def pool_files(context: Context) -> PoolFiles:
    """Which files the pool has and how many rows they seem to hold; looks into a few of the new ones."""
    store, specs = context.store, context.config.pool.specs(context.config.root)
    by_ingest = {ingest_id(store, spec): spec for spec in specs}
    new = {ingest: spec for ingest, spec in by_ingest.items() if not store.has("pool", ingest)}
    known = [
        read_ingest(store, each).readable
        for each in by_ingest
        if each not in new and damage_in(context, "pool", each) is None
    ]
    peeks, errors = [], []
    for spec in list(new.values())[:: max(len(new) // _PEEKED, 1)][:_PEEKED]:
        try:
            peeks.append(peek(store, spec))
        except BadInput as error:
            errors.append(str(error))
    new_bytes, peeked_bytes = (
        sum(size_of(store, spec.url) for spec in new.values()),
        sum(each.size_bytes for each in peeks),
    )
    rows = sum(each.rows for each in peeks)
    return PoolFiles(
        ingests=frozenset(by_ingest),
        count=len(specs),
        new=len(new),
        new_bytes=new_bytes,
        known_rows=sum(known),
        new_rows=round(rows * new_bytes / peeked_bytes) if peeked_bytes else 0,
        turns=[turns for each in peeks for turns in each.turns],
        errors=tuple(errors),
    )


def damage_in(context: Context, kind: str, name: str) -> str | None:
    """What is wrong with a record of the store; None where nothing is, or there is none."""
    root, store = KINDS[kind].root, context.store
    return damage_of(kind, store.place(*root, name)) if store.has(*root, name) else None
