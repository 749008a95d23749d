"""Round robin over the targets: each in turn names the candidate most similar to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.step import Selector, check_choice
from selection.types import Array, Floats, Input, Pool, Reason, Rows, Selection, Targets, Vectors

# How many entries the lists hold for each row wanted, at first: 1.2 to 14 measured on clustered data, 2.8 in BETR.
OVERLAP = 4
LEAST_DEPTH = 64
# All lists together take at most this much; a deeper search goes on in bands, one pass over the vectors each.
LIST_BYTES = 256 * 2**20
ENTRY_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RdsPlus(Selector):
    """Each target has a list of the candidates by descending similarity; the lists are read in turn, round by round.

    Args:
        on_duplicate: what a list does whose next row was taken before: "lose_turn" (the released RDS+ code), or
            "advance" to its next row that was not.
        per: a list for each target ("query"), or for each target set ("set": the highest similarity to any of its
            targets). "auto": sets if there is more than one.

    Similarity is the inner product of the vectors as they are (unit vectors: the cosine). Ties go to the lowest row.
    With "lose_turn", rows that are already selected keep their places and cost their lists the turn, so a selection
    can be continued; with "advance" they are passed over. Gain and the reason's value are the similarity, `ref` the
    target or set that named the row, `rank` the round.

    Exact, whatever the order and size of blocks. Cost for m targets and budget b: a pass over the vectors is 2*n*m*d
    operations; the lists hold about 4*b entries at first, and a further pass follows if these are too few. Memory:
    the lists, at most 256 MiB, n bits and bytes for the rows seen, one tile. A budget near n needs lists as long
    as the pool, in many passes.

    Source: Ivison et al. 2025 (RDS+), `get_top_influences.py` and `get_top_aggregated_influences.py`.
    """

    on_duplicate: str = "lose_turn"
    per: str = "auto"
    name: ClassVar[str] = "rds_plus"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.TARGETS})
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice(self.name, "on_duplicate", self.on_duplicate, ("lose_turn", "advance"))
        check_choice(self.name, "per", self.per, ("auto", "query", "set"))

    @property
    def incremental(self) -> bool:
        """Only where a list keeps its turn in step with the round."""
        return self.on_duplicate == "lose_turn"

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:  # noqa: ARG002
        """See `Selector.select`."""
        targets = pool.get_targets()
        per_set = self.per == "set" or (self.per == "auto" and len(targets.names) > 1)
        lists = lists_by_set(targets) if per_set else lists_by_query(targets)
        candidates = pool.candidates
        closed = ~candidates
        closed[pool.get_already_selected()] = False
        robin = lose_turn if self.on_duplicate == "lose_turn" else advance
        rows, turn, value = robin(
            pool.get_vectors(), lists, budget, taken=pool.get_already_selected(), closed=closed, max_bytes=LIST_BYTES
        )
        names = targets.names if per_set else targets.printable()
        reason = Reason.of(
            "target_set" if per_set else "target",
            len(rows),
            ref=turn % len(names),
            rank=turn // len(names),
            value=value,
            names=names,
        )
        return Selection(rows, value.astype(np.float32), reason)


@dataclass(frozen=True, eq=False)
class QueryLists:
    """The lists that take turns.

    Attributes:
        queries: (q, d) float32, without repetition inside a list.
        starts: (lists + 1,) int64: list l is the maximum over queries starts[l] .. starts[l+1]-1.
        turns: (t,) int64: the list whose turn each turn of a round is; equal targets share a list.
    """

    queries: Floats
    starts: Rows
    turns: Rows


def target_vectors(targets: Targets) -> Floats:
    """(m, d) float32.

    Raises:
        InvalidInput: there are no targets.
    """
    if not len(targets.vectors):
        raise InvalidInput("targets: there are none")
    return np.asarray(targets.vectors, np.float32)


def lists_by_query(targets: Targets) -> QueryLists:
    """One turn for each target."""
    queries, which = _distinct(target_vectors(targets))
    return QueryLists(queries, np.arange(len(queries) + 1), which)


def lists_by_set(targets: Targets) -> QueryLists:
    """One turn for each target set.

    Raises:
        InvalidInput: a set has no targets.
    """
    vectors = target_vectors(targets)
    parts = []
    for i, name in enumerate(targets.names):
        part = vectors[np.asarray(targets.sets) == i]
        if not len(part):
            raise InvalidInput(f"targets: the set {name!r} has none")
        parts.append(_distinct(part)[0])
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return QueryLists(np.concatenate(parts), starts, np.arange(len(parts)))


def lose_turn(
    vectors: Vectors, lists: QueryLists, budget: int, *, taken: Rows, closed: Array, max_bytes: int
) -> tuple[Rows, Rows, Array]:
    """Round robin in which a list whose next row was taken loses its turn.

    Read round by round, the first occurrence of each row is a pick: row x comes at turn min over lists of
    rank * lists + position. A row outside all lists of depth R comes after round R, so lists of depth R suffice as
    soon as they name `budget` rows.

    Args:
        taken: rows that keep their places in the lists and are never picked.
        closed: (n,) bool, rows outside every list.
        max_bytes: how much the lists may take at a time.

    Returns:
        picked rows, the turn of each, and its similarity (float64).
    """
    from selection.kernels.top_k import top_k

    n, turns = vectors.shape[0], len(lists.turns)
    # Equal targets have equal lists, and the first of them always comes first: only its turn counts.
    count = len(lists.starts) - 1
    position = np.full(count, turns, np.int64)
    np.minimum.at(position, lists.turns, np.arange(turns))
    order = np.argsort(position)
    seen = np.zeros(n, bool)
    seen[taken] = True
    below: tuple[Array, Rows] | None = None
    picks: list[tuple[Rows, Rows, Array]] = []
    found, depth = 0, 0
    wanted = _first_depth(budget + len(taken), count)
    while found < budget and depth < n:
        band = max(1, min(wanted - depth, n - depth, max_bytes // (ENTRY_BYTES * count)))
        top = top_k(vectors, lists.queries, starts=lists.starts, depth=band, skip=closed, below=below)
        rows = top.row[order].T.ravel()
        turn = ((depth + np.arange(band))[:, None] * turns + position[order]).ravel()
        score = top.score[order].T.ravel()
        new = np.flatnonzero(rows >= 0)
        new = new[~seen[rows[new]]]
        new = new[np.sort(np.unique(rows[new], return_index=True)[1])]
        seen[rows[new]] = True
        picks.append((rows[new], turn[new], score[new]))
        found += len(new)
        depth += band
        # A list that came to its end names nothing more: the bound -inf lets nothing pass.
        below = top.score[:, -1].copy(), top.row[:, -1].copy()
        wanted = max(wanted, int(np.ceil(depth * max(1.5, 1.3 * budget / max(found, 1)))))
    rows, turn, score = (np.concatenate(parts)[:budget] for parts in zip(*picks, strict=True))
    return rows, turn, score


def advance(
    vectors: Vectors, lists: QueryLists, budget: int, *, taken: Rows, closed: Array, max_bytes: int
) -> tuple[Rows, Rows, Array]:
    """Round robin in which a list whose next row was taken moves to its next row that was not.

    When a list is read to its end in the middle of a round, all lists are filled again with the rows not used yet
    (whatever stood before was used) and the round goes on. Arguments and result as for `lose_turn`.
    """
    from selection.kernels.compiled import top_k as loops
    from selection.kernels.top_k import top_k

    n, count = vectors.shape[0], len(lists.starts) - 1
    used = closed.copy()
    used[taken] = True
    picked, turn_of = np.empty(budget, np.int64), np.empty(budget, np.int64)
    place_of, value = np.empty(budget, np.int64), np.empty(budget)
    turn, found = 0, 0
    depth = _first_depth(budget, count)
    while found < budget:
        depth = max(1, min(depth, n, max_bytes // (ENTRY_BYTES * count)))
        top = top_k(vectors, lists.queries, starts=lists.starts, depth=depth, skip=used)
        before = found
        turn, found = loops.advance(
            top.row, lists.turns, used, budget, np.zeros(count, np.int64), turn, picked, turn_of, place_of, found
        )
        new = slice(before, found)
        value[new] = top.score[lists.turns[turn_of[new] % len(lists.turns)], place_of[new]]
        depth *= 2
    return picked, turn_of, value


def _first_depth(wanted: int, lists: int) -> int:
    """A depth that mostly suffices; one of `wanted` always does, since a single list then names that many rows."""
    return min(wanted, max(LEAST_DEPTH, -(-OVERLAP * wanted // lists)))


def _distinct(vectors: Floats) -> tuple[Floats, Rows]:
    """The bit-different vectors in the order of their first occurrence, and which of them each vector is."""
    as_bytes = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.shape[1] * 4))).ravel()
    _, first, which = np.unique(as_bytes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return vectors[first[order]], place[which.ravel()].astype(np.int64)
