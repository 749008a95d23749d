"""Round robin over the targets: each target in turn takes the candidate most similar to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.kernels.round_robin import (
    ENTRY_BYTES,
    LIST_BYTES,
    TurnLists,
    capped_round_robin,
    distinct,
    first_depth,
    lists_by_query,
    lose_turn,
)
from selection.pool import Pool, Targets
from selection.scorers.rds import similarity_inputs
from selection.step import Selector, check_choice, check_version
from selection.types import Array, Capacity, Floats, Input, Points, Reason, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class RdsPlus(Selector):
    """Each target has a list of the candidates by descending similarity; the lists take turns, round by round.

    Args:
        on_duplicate: what a list does when its next row is already taken: "lose_turn" (as in the released RDS+ code),
            or "advance" to its next row that is not taken.
        per: one list for each target ("query"), or for each target set ("set": the highest similarity to any of its
            targets). "auto" means sets if there is more than one.
        on_full_group: what a list does, within a quota or `max_per_group`, when its next free row is of a full group:
            "lose_turn", so that the order is that without groups, or "advance" to its next row of a group with room.
            A row that is taken already counts by `on_duplicate`, whatever its group; so does, for later turns, a row
            that cost a list its turn because its group was full.
        version: 1 takes stored vectors as they are, rounded, without dividing by their lengths, as winnow 0.2 did.

    Similarity is the inner product, for stored vectors the cosine: see `selection.scorers.rds.similarity_inputs`. Ties
    go to the lowest row. With `on_duplicate` "lose_turn", already selected rows keep their places in the lists and cost
    them the turn, so that a selection can be continued; with "advance" they are skipped. The gain and the reason's
    value are the similarity, `ref` is the target or set that took the row, `rank` the round.

    Exact for any order and size of blocks. Cost for m targets and budget b: a pass over the vectors is 2*n*m*d
    operations. The lists have about 4*b entries at first; another pass follows if these are too few. Memory: the lists,
    at most 256 MiB, n bits and n bytes to mark rows, and one tile. A budget near n needs lists as long as the pool, in
    many passes.

    Not for: the proportions of the targets: it takes the most similar rows alone, see `tsds` and `interests`.

    Source: Ivison et al. 2025 (RDS+), `get_top_influences.py` and `get_top_aggregated_influences.py`.
    """

    on_duplicate: str = "lose_turn"
    per: str = "auto"
    on_full_group: str = "lose_turn"
    version: int = 2
    name: ClassVar[str] = "rds_plus"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.TARGETS})
    nested: ClassVar[bool] = True
    added_options: ClassVar[tuple[str, ...]] = ("on_full_group",)

    def __post_init__(self) -> None:
        check_choice(self.name, "on_duplicate", self.on_duplicate, ("lose_turn", "advance"))
        check_choice(self.name, "per", self.per, ("auto", "query", "set"))
        check_choice(self.name, "on_full_group", self.on_full_group, ("lose_turn", "advance"))
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """Every similarity is another."""
        return self.version

    @property
    def incremental(self) -> bool:
        """Only with "lose_turn", where a row's turn does not depend on earlier picks."""
        return self.on_duplicate == "lose_turn"

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:  # noqa: ARG002
        """See `Selector.select`."""
        lists, vectors, kind, names = self._lists(pool)
        taken, excluded = self._taken(pool)
        round_robin = lose_turn if self.on_duplicate == "lose_turn" else advance
        rows, turn, value = round_robin(vectors, lists, budget, taken=taken, excluded=excluded, max_bytes=LIST_BYTES)
        return self._selection(rows, turn, value, kind, names, cosine=vectors is not pool.vectors)

    @property
    def caps_inside(self) -> bool:
        """With `on_full_group: advance`."""
        return self.on_full_group == "advance"

    def select_within(
        self,
        pool: Pool,
        capacities: Sequence[Capacity],
        expected: int,
        *,
        rng: np.random.Generator,  # noqa: ARG002
    ) -> tuple[Selection, float]:
        """See `Selector.select_within`."""
        lists, vectors, kind, names = self._lists(pool)
        taken, excluded = self._taken(pool)
        rows, turn, value, left_over = capped_round_robin(
            vectors,
            lists,
            capacities,
            taken=taken,
            excluded=excluded,
            lose=self.on_duplicate == "lose_turn",
            first=expected,
            max_bytes=LIST_BYTES,
        )
        return self._selection(rows, turn, value, kind, names, cosine=vectors is not pool.vectors), left_over

    def _lists(self, pool: Pool) -> tuple[TurnLists, Points, str, tuple[str, ...]]:
        """The lists, what they rank, and the kind and the names of what takes turns."""
        targets = pool.get_targets()
        per_set = self.per == "set" or (self.per == "auto" and len(targets.names) > 1)
        vectors, queries = similarity_inputs(pool, self.version)
        if per_set:
            return lists_by_set(targets, queries), vectors, "target_set", targets.names
        return lists_by_query(queries), vectors, "target", targets.printable()

    @staticmethod
    def _taken(pool: Pool) -> tuple[Rows, Array]:
        """The rows that keep their places in the lists, and (n,) those that are in no list."""
        taken = pool.get_already_selected()
        excluded = ~pool.candidates
        excluded[taken] = False
        return taken, excluded

    @staticmethod
    def _selection(
        rows: Rows, turn: Rows, value: Array, kind: str, names: tuple[str, ...], *, cosine: bool
    ) -> Selection:
        value = np.minimum(value, 1.0) if cosine else value  # but for the last bits
        rank, ref = np.divmod(turn, len(names))
        reason = Reason.of(kind, len(rows), ref=ref, rank=rank, value=value, names=names)
        return Selection(rows, value.astype(np.float32), reason)


def lists_by_set(targets: Targets, vectors: Floats) -> TurnLists:
    """One turn for each target set; the vectors of the targets are (m, d).

    Raises:
        InvalidInput: a set has no targets.
    """
    parts = []
    for i, name in enumerate(targets.names):
        part = vectors[np.asarray(targets.sets) == i]
        if not len(part):
            raise InvalidInput(f"targets: the set {name!r} has none")
        parts.append(distinct(part)[0])
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return TurnLists(np.concatenate(parts), starts, np.arange(len(parts)))


def advance(
    vectors: Points, lists: TurnLists, budget: int, *, taken: Rows, excluded: Array, max_bytes: int
) -> tuple[Rows, Rows, Array]:
    """Round robin in which a list whose next row is already taken moves on to its next row that is not.

    When a list ends in the middle of a round, all lists are filled again with the rows that are not used yet, and the
    round continues. Arguments and result as for `lose_turn`.
    """
    from selection.kernels.compiled import top_k as loops
    from selection.kernels.top_k import top_k

    n, count = vectors.shape[0], len(lists.starts) - 1
    used = excluded.copy()
    used[taken] = True
    rows, turn_of = np.empty(budget, np.int64), np.empty(budget, np.int64)
    place_of, value = np.empty(budget, np.int64), np.empty(budget)
    turn, picked = 0, 0
    depth = first_depth(budget, count)
    while picked < budget:
        depth = max(1, min(depth, n, max_bytes // (ENTRY_BYTES * count)))
        top = top_k(vectors, lists.queries, starts=lists.starts, depth=depth, skip=used)
        before = picked
        turn, picked = loops.advance(
            top.row, lists.turns, used, budget, np.zeros(count, np.int64), turn, rows, turn_of, place_of, picked
        )
        new = slice(before, picked)
        value[new] = top.score[lists.turns[turn_of[new] % len(lists.turns)], place_of[new]]
        depth *= 2
    return rows, turn_of, value
