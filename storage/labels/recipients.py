"""The row that an answer was given for, checked against what was sent out.

A record names its row by `winnow_id`, which means winnow's id alone; without it by `id`, if that is winnow's id; else
by `given_id`, the row's own id as a batch has it; else by an `id` that is the row's own. What a tool calls `id` may be
a number of its own that some other row has as its own id, so what the record repeats of a batch must be true of the
row: its round, its text digest, its text.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from functools import cache

from storage.ids import from_arrow, from_bytes, id_of_text, rows_of, to_bytes, to_text
from storage.labels.batches import shown_texts, text_digest
from storage.labels.files import Address, Label
from storage.labels.rounds import read_round_items, read_rounds
from storage.pool.content import Turns
from storage.pool.leaks import normalized
from storage.pool.snapshot import Snapshot
from storage.store import Store

# A tool or a spreadsheet may cut a long text; the beginning of so many characters tells rows apart.
_CUT_CHARS = 200


class UnknownRow(ValueError):
    """The record names no row of the pool, or several; the message is the cause."""


class WrongRow(ValueError):
    """The record names a row that its answer was not given for; the message is the cause."""


class Recipients:
    """The rows that some labels of a project were given for.

    Cost: one pass over the rows' own ids; the texts of the rows whose text the labels repeat.
    """

    def __init__(self, store: Store, project: str, snapshot: Snapshot, labels: Iterable[Label]) -> None:
        self._snapshot = snapshot
        self._rounds = {header["round_id"]: header for header in read_rounds(store, project)}
        self._sent = cache(lambda name: frozenset(to_bytes(from_arrow(read_round_items(store, name)["id"]))))
        addresses = {label.line: label.address for label in labels}.values()
        self._match_names(addresses)
        self._read_texts(addresses)

    def id_of(self, label: Label) -> bytes:
        """The id of the row that a label was given for.

        Raises:
            UnknownRow: it names none or several.
            WrongRow: what it repeats of a batch is not true of the row that it names.
        """
        row_id = self._named(label.address)
        name, digest = repr((label.address.name or "")[:60]), label.address.text_digest
        if digest is not None and digest != text_digest(row_id):
            raise WrongRow(f"text_digest is {digest[:20]!r}, that of row {name} is {text_digest(row_id)!r}")
        if digest is None:
            self._check_given_id(label.address, row_id)
        round_id = label.round_id or ""
        if round_id in self._rounds and row_id not in self._sent(round_id):
            raise WrongRow(f"round {round_id[:12]} did not send row {name}")
        turns = self._turns.get(row_id, [])
        for text in label.address.texts:
            if turns and not _shows(text, turns):
                begins = " ".join(content for _, content in turns)[:40]
                raise WrongRow(f"row {name} has another text, which begins {begins!r}, not {text[:40]!r}")
        return row_id

    def _match_names(self, addresses: Iterable[Address]) -> None:
        names = sorted(
            {name for each in addresses for name in (each.winnow_id, each.id, each.given_id) if name is not None}
        )
        match = self._snapshot.match(names)
        self._rows = dict(zip(names, match.rows.tolist(), strict=True))
        self._counts = dict(zip(names, match.counts.tolist(), strict=True))

    def _read_texts(self, addresses: Iterable[Address]) -> None:
        self._turns: dict[bytes, Turns] = {}
        named = set()
        for address in addresses:
            if address.texts:
                try:
                    named.add(self._named(address))
                except UnknownRow:
                    continue
        ids = from_bytes(sorted(named))
        for batch_ids, turns in self._snapshot.turns(ids[rows_of(ids, self._snapshot.ids) >= 0]):
            self._turns.update(zip(to_bytes(batch_ids), turns, strict=True))

    def _named(self, address: Address) -> bytes:
        if address.winnow_id is not None:
            if (row_id := self._by_winnow_id(address.winnow_id)) is None:
                raise UnknownRow(f"winnow_id {address.winnow_id[:60]!r} names no row of the pool")
            return row_id
        if address.id is not None and (row_id := self._by_winnow_id(address.id)) is not None:
            return row_id
        name = address.given_id or address.id or ""
        if self._counts[name] != 1:
            rows = f"{self._counts[name]} rows" if self._counts[name] else "no row"
            raise UnknownRow(f"{name[:60]!r} names {rows} of the pool")
        return self._id_of_row(self._rows[name])

    def _by_winnow_id(self, name: str) -> bytes | None:
        """Of a row of the pool, or of one that left it after a batch sent it out."""
        row_id = id_of_text(name)
        if row_id is None:
            return None
        in_pool = self._rows[name] >= 0 and self._id_of_row(self._rows[name]) == row_id
        return row_id if in_pool or any(row_id in self._sent(round_id) for round_id in self._rounds) else None

    def _check_given_id(self, address: Address, row_id: bytes) -> None:
        """A record with both ids of a batch must mean one row by them."""
        row = self._rows.get(address.given_id or "", -1)
        in_pool = rows_of(from_bytes([row_id]), self._snapshot.ids)[0] >= 0
        if row >= 0 and in_pool and self._id_of_row(row) != row_id:
            ours, other = to_text(from_bytes([row_id, self._id_of_row(row)]))
            raise WrongRow(f"{address.name!r} is row {ours}, but given_id {address.given_id!r} is row {other}")

    def _id_of_row(self, row: int) -> bytes:
        return to_bytes(self._snapshot.ids[row : row + 1])[0]


def _shows(text: str, turns: Turns) -> bool:
    """Whether a text that came back is that of a row, whole or of a turn; tools change white space, escape HTML, cut."""
    contents = [content for _, content in turns]
    whole = ["\n".join(contents), "\n".join(f"{role}: {content}" for role, content in turns)]
    known = [*contents, *shown_texts(turns).values(), *whole]
    if " ".join(text.split()) in (" ".join(part.split()) for part in known):
        return True  # most are: what follows takes a hundred times as long
    plain = _plain(text)
    known = [_plain(part) for part in known]
    return plain in known or (len(plain) >= _CUT_CHARS and any(part.startswith(plain) for part in known))


def _plain(text: str) -> str:
    return normalized(html.unescape(text))
