"""The vocabulary of selection: what a step takes, what it gives, and what it may ask of the vectors.

A candidate is its **row** here: int64, 0 .. n-1 of one pool. Ids live in `storage` only.
Axes in docstrings: n candidates, m targets, d dimensions, C classes, b budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from selection.errors import InvalidInput, MissingInput

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

NO_REF = -1


class Input(StrEnum):
    """An input that a step may need; the names are the fields of `Pool`."""

    VECTORS = "vectors"
    SCORES = "scores"
    PROBABILITIES = "probabilities"
    COMMITTEE = "committee"
    LABELS = "labels"
    GROUPS = "groups"
    TARGETS = "targets"
    TEXTS = "texts"
    COLUMNS = "columns"


class RowBlocks(Protocol):
    """Anything by row that can be read in blocks or by row numbers: probabilities, vectors."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)`: every row exactly once, in storage order, not row order."""
        ...

    def take(self, rows: Rows) -> Array:
        """The values of `rows`, in that order. Called from several threads at once."""
        ...


@runtime_checkable
class Vectors(RowBlocks, Protocol):
    """The candidates' vectors, (n, d) float16 or float32, wherever they are stored."""

    @property
    def device(self) -> str:
        """Where the vectors lie: "cpu", or the device that holds the copy of `TensorVectors`, on which kernels dispatch.

        What `blocks` and `take` give lies on the host whatever this says.
        """
        ...

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The `k` rows of highest inner product with each query, among `within` if given.

        Args:
            queries: (m, d) float32.
            k: >= 1; fewer rows give rows of -1 and similarity -inf at the end.

        Returns:
            similarity (m, k) float32 and row (m, k) int64, both by descending similarity.
        """
        ...


@dataclass(frozen=True, eq=False)
class Targets:
    """Examples of the task to match.

    Attributes:
        vectors: (m, d) float16 or float32, the same encoder as the candidates.
        sets: (m,) int64, which target set each belongs to: an index into `names`.
        names: the target sets' names, in the order in which round robin visits them.
        ids: (m,) a printable name of each target, for the reasons of a selection.
        committee: (m, members, C) each target's class probabilities by the members of the pool's committee, in their order.

    Raises:
        InvalidInput: the lengths differ, a set is out of range, a vector is not finite or probabilities are none.
    """

    vectors: Array
    sets: Rows
    names: tuple[str, ...]
    ids: tuple[str, ...] = ()
    committee: Array | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.vectors) != 2:
            raise InvalidInput(
                f"targets: vectors must have two axes (targets, dimensions), got shape {np.shape(self.vectors)}"
            )
        m = len(self.vectors)
        if len(self.sets) != m or (self.ids and len(self.ids) != m):
            raise InvalidInput(
                f"targets: {m} vectors need as many sets and ids, got {len(self.sets)} sets and {len(self.ids)} ids"
            )
        if m and not (int(np.min(self.sets)) >= 0 and int(np.max(self.sets)) < len(self.names)):
            raise InvalidInput(f"targets: sets must be in 0..{len(self.names) - 1}, the indices of {self.names}")
        bad = np.flatnonzero(~np.isfinite(np.asarray(self.vectors, np.float32)).all(axis=1))
        if len(bad):
            raise InvalidInput(f"targets: vector {bad[0]} holds a value that is not finite")
        if self.committee is not None:
            from selection import inputs

            inputs.check_target_committee(self.committee, m)

    def printable(self) -> tuple[str, ...]:
        """One name for each target: `set/id`, or `set/position` where no ids were given."""
        ids = self.ids or tuple(str(i) for i in range(len(self.sets)))
        return tuple(f"{self.names[s]}/{i}" for s, i in zip(self.sets, ids, strict=True))


@dataclass(frozen=True, eq=False)
class Reason:
    """Why each row was taken: columns aligned to the rows of a `Selection`.

    Attributes:
        kind: (b,) str: what pulled the row. "target", "target_set", "stratum", "cluster", "score", "draw" index
            `names` by `ref`; the `ROW_KINDS` ("anchor", "neighbour", "centre") have a row of the pool as `ref`.
        ref: (b,) int64, `NO_REF` where there is none.
        rank: (b,) int64: place in the list of `ref` (0 = first; for round robin, the round); -1 where there is none.
        value: (b,) float32: similarity, score or distance that decided; of a "weighted_draw" the chance that the draw had to
            take the row; NaN where there is none.
        names: what `ref` indexes.
    """

    ROW_KINDS: ClassVar[frozenset[str]] = frozenset({"anchor", "neighbour", "centre"})

    kind: npt.NDArray[np.str_]
    ref: Rows
    rank: Rows
    value: Floats
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        kind: str,
        count: int,
        *,
        ref: Array | None = None,
        rank: Array | None = None,
        value: Array | None = None,
        names: Sequence[str] = (),
    ) -> Reason:
        """Columns of `count` rows of one kind; what is left out is "none"."""
        return cls(
            kind=np.full(count, kind),
            ref=np.full(count, NO_REF, np.int64) if ref is None else np.asarray(ref, np.int64),
            rank=np.full(count, -1, np.int64) if rank is None else np.asarray(rank, np.int64),
            value=np.full(count, np.nan, np.float32) if value is None else np.asarray(value, np.float32),
            names=tuple(names),
        )

    def translated(self, rows: Rows) -> Reason:
        """The same reasons with row references of a subpool turned into rows of the pool that `rows` indexes."""
        is_row = np.isin(self.kind, list(self.ROW_KINDS)) & (self.ref >= 0)
        if not is_row.any():
            return self
        return replace(self, ref=np.where(is_row, rows[np.where(is_row, self.ref, 0)], self.ref))

    def take(self, places: Array) -> Reason:
        """Those at some places, in that order."""
        columns = {name: getattr(self, name)[places] for name in ("kind", "ref", "rank", "value")}
        return replace(self, **columns)

    def text(self) -> list[str | None]:
        """`ref` as a name: of the target, set or stratum; None where it is a row or nothing."""
        is_row = np.isin(self.kind, list(self.ROW_KINDS))
        return [
            None if r or ref < 0 or not self.names else self.names[ref]
            for r, ref in zip(is_row.tolist(), self.ref.tolist(), strict=True)
        ]


@dataclass(frozen=True, eq=False)
class FilterReport:
    """What a filter tells of some rows.

    Attributes:
        step: the filter's name.
        rows: (r,) int64.
        reason: for each.
    """

    step: str
    rows: Rows
    reason: Reason

    def of(self, rows: Rows) -> Self:
        """What is told of `rows`, in their order; a filter need not tell of every row."""
        order = np.argsort(self.rows)
        at = np.searchsorted(self.rows[order], rows)
        inside = at < len(order)
        place = order[at[inside]]
        place = place[self.rows[place] == rows[inside]]
        return replace(self, rows=self.rows[place], reason=self.reason.take(place))


class DroppedRows(FilterReport):
    """Rows that a filter left out, and why: "neighbour" with the row that it is a duplicate of as `ref`, and their similarity."""


class RetrievedRows(FilterReport):
    """Rows that a filter kept, and why: "anchor" with the row searched from as `ref`, and their similarity."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What a selector gives.

    Attributes:
        rows: (b,) int64, in pick order, unique, never an already selected row.
        gain: (b,) float32, the value of each pick at the moment of picking.
        reason: why each was taken.
        exhausted: the pool could not fill the budget (only with `allow_short`).
        dropped: what the filters left out, one entry for each filter that reports why.
        retrieved: why the filters kept the rows, one entry for each filter that reports it; only of `rows`, in their order.
    """

    rows: Rows
    gain: Floats
    reason: Reason
    exhausted: bool = False
    dropped: tuple[DroppedRows, ...] = ()
    retrieved: tuple[RetrievedRows, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """The candidates and all that is known of them, by row. Everything is optional; the length is that of what is given.

    Attributes:
        vectors: (n, d), an array or anything that satisfies `Vectors`.
        scores: (n,) float32, higher = take first.
        probabilities: (n, C), array or `RowBlocks`.
        committee: (n, members, C), array or `RowBlocks`.
        labels: (n,) int64, -1 = none.
        groups: (n,) any hashable values, the strata of `stratified` when it names no column.
        targets: examples of the task to match.
        texts: (n,) str.
        columns: name -> (n,) array, numeric or str.
        keys: (n,) uint64 drawn from the candidate's id; they feed hash noise, so that a random draw does not depend
            on the order or growth of the pool. Row numbers by default.
        already_selected: rows (or a mask) that count as centres and are never returned; kept as ascending int64.
        eligible: (n,) bool; the others (leased, ignored, denied) are neither returned nor centres. All by default.

    Raises:
        InvalidInput: an input has another length, a wrong dtype or a value that is not finite; names input and row.

    >>> pool = Pool(vectors=np.eye(3, dtype=np.float32), already_selected=[2])
    >>> len(pool), pool.candidates.tolist()
    (3, [True, True, False])
    """

    vectors: Vectors | Array | None = None
    scores: Array | None = None
    probabilities: RowBlocks | Array | None = None
    committee: RowBlocks | Array | None = None
    labels: Array | None = None
    groups: Array | None = None
    targets: Targets | None = None
    texts: Sequence[str] | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)
    keys: Array | None = None
    already_selected: Array | Sequence[int] | None = None
    eligible: Array | None = None
    _size: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        from selection import inputs

        inputs.normalise(self)

    def __len__(self) -> int:
        return self._size

    @property
    def candidates(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: the rows that a selector may return, eligible and not already selected."""
        mask = np.ones(len(self), bool) if self.eligible is None else np.array(self.eligible, bool)
        mask[self.get_already_selected()] = False
        return mask

    @property
    def given(self) -> frozenset[Input]:
        """The inputs that this pool holds."""
        return frozenset(i for i in Input if getattr(self, i) is not None and (i is not Input.COLUMNS or self.columns))

    def get_vectors(self) -> Vectors:
        """The vectors.

        Raises:
            MissingInput: there are none; so say the other `get_` methods of theirs.
        """
        return cast("Vectors", self._get(Input.VECTORS))

    def get_scores(self) -> Floats:
        """(n,) float32."""
        return cast("Floats", self._get(Input.SCORES))

    def get_probabilities(self) -> RowBlocks:
        """(n, C)."""
        return cast("RowBlocks", self._get(Input.PROBABILITIES))

    def get_committee(self) -> RowBlocks:
        """(n, members, C)."""
        return cast("RowBlocks", self._get(Input.COMMITTEE))

    def get_labels(self) -> Rows:
        """(n,) int64, -1 = none."""
        return cast("Rows", self._get(Input.LABELS))

    def get_groups(self) -> Array:
        """(n,) of any dtype."""
        return cast("Array", self._get(Input.GROUPS))

    def get_targets(self) -> Targets:
        """The examples of the task; at least one, and one or more in each set."""
        return cast("Targets", self._get(Input.TARGETS))

    def get_texts(self) -> Sequence[str]:
        """(n,) str."""
        return cast("Sequence[str]", self._get(Input.TEXTS))

    def get_column(self, name: str) -> Array:
        """One of the named columns."""
        if name not in self.columns:
            raise MissingInput(f"the pool has no column {name!r}; it has {sorted(self.columns) or 'none'}")
        return self.columns[name]

    def get_keys(self) -> npt.NDArray[np.uint64]:
        """(n,) uint64."""
        return cast("npt.NDArray[np.uint64]", self.keys)

    def get_already_selected(self) -> Rows:
        """The rows taken before, ascending."""
        return cast("Rows", self.already_selected)

    def take(self, rows: Rows) -> Pool:
        """The subpool of `rows` in its own frame: its row i is row `rows[i]` here.

        Args:
            rows: int64, ascending and unique, so that the lowest row stays the lowest id.

        Vectors, probabilities and committee are restricted lazily; the rest is copied.
        """
        from selection import inputs

        return inputs.subpool(self, rows)

    def _get(self, what: Input) -> object:
        value = getattr(self, what)
        if value is None:
            raise MissingInput(f"the pool has no {what}")
        return value
