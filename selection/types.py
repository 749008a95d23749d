"""The vocabulary of selection: what a step takes, what it gives, and what it may ask of the vectors.

A candidate is its **row** here: int64, 0 .. n-1 of one pool. Ids live in `storage` only.
Axes in docstrings: n candidates, m targets, d dimensions, C classes, b budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
UInts = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

NO_REF = -1

R = TypeVar("R")


class Input(StrEnum):
    """An input that a step may need; the names are the fields of `Pool`."""

    VECTORS = "vectors"
    SCORES = "scores"
    PROBABILITIES = "probabilities"
    COMMITTEE = "committee"
    LABELS = "labels"
    GROUPS = "groups"
    TARGETS = "targets"
    TARGET_TEXTS = "target_texts"
    TARGET_QUESTIONS = "target_questions"
    TEXTS = "texts"
    COLUMNS = "columns"


@runtime_checkable
class RowBlocks(Protocol):
    """Anything by row that can be read in blocks or by row numbers: probabilities, vectors."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)`: every row exactly once, in storage order, not row order."""

    def take(self, rows: Rows) -> Array:
        """The values of `rows`, in that order. Called from several threads at once."""


class Points(RowBlocks, Protocol):
    """Vectors that need not be searched: (n, d) float16 or float32."""

    @property
    def device(self) -> str:
        """Where the vectors lie: "cpu", or the device of `DeviceVectors`.

        What `blocks` and `take` give lies on the host whatever this says.
        """


@runtime_checkable
class DeviceVectors(Points, Protocol):
    """Vectors of which a device holds a copy. Kernels that are implemented for devices dispatch on this class."""

    def part(self, rows: Any) -> Any:
        """(r, d) tensor on the device, as stored, of a slice of the rows or of those that an int64 tensor names."""

    def squares(self) -> Any:
        """(n,) float64 tensor of squared lengths, summed as `kernels.compiled.sums.dot`; not finite where a vector is not."""

    def norms(self) -> Any:
        """(n,) float64 tensor of lengths, to the bit those of the compiled loops."""


class PartMap(Protocol):
    """Where several processes can read the vectors of a pool, a part each."""

    def __call__(
        self, work: Callable[..., R], arguments: Callable[[Rows], tuple[Any, ...] | None]
    ) -> Iterator[tuple[Rows, R]]:
        """Yield the rows of each part, ascending, and what the work gives for it; every row is in one part, and no part
        is empty.

        Args:
            work: a function of a module, with its options; called as `work(points, *arguments(rows))`, in any process.
                Row i of the points is the i-th row of the part.
            arguments: what the work needs to know of some rows of the pool that a draw began with; None leaves the part
                out.
        """
        ...

    def groups(
        self, work: Callable[..., R], groups: Sequence[Rows], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[R]:
        """Yield what the work gives for each of some groups of rows, in whatever parts these are, in the order of groups.

        Args:
            work: as above; called as `work(points, *arguments[g])`, where row i of the points is `groups[g][i]`.
            groups: of rows of the pool that a draw began with, none empty.
            arguments: one tuple a group.
        """
        ...


@runtime_checkable
class PartedVectors(Points, Protocol):
    """Vectors that other processes can read. Kernels whose results of parts add up exactly dispatch on this class."""

    def map_parts(
        self, work: Callable[..., R], arguments: Callable[[Rows], tuple[Any, ...] | None] = lambda _: ()
    ) -> Iterator[tuple[Rows, R]]:
        """As `PartMap`, of these rows."""


@runtime_checkable
class GroupedVectors(Points, Protocol):
    """Vectors that other processes can read, any rows together: for work on groups that has nothing to do with others."""

    def map_groups(
        self, work: Callable[..., R], groups: Sequence[Rows], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[R]:
        """As `PartMap.groups`, of these rows."""


class TextMap(Protocol):
    """Where several processes can read the texts of a pool."""

    def __call__(self, work: Callable[[list[str]], list[bytes]], rows: Rows) -> Iterable[bytes]:
        """What the work gives for the text of each of some rows, in their order.

        Args:
            work: a function of a module, with its options; called for some texts at a time, in any process.
            rows: of the pool that a draw began with, each once.
        """
        ...


@runtime_checkable
class Vectors(Points, Protocol):
    """The candidates' vectors, wherever they are stored."""

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The `k` rows of highest inner product with each query, among `within` if given.

        Args:
            queries: (m, d) float32.
            k: >= 1; fewer rows give rows of -1 and similarity -inf at the end.

        Returns:
            similarity (m, k) float32 and row (m, k) int64, both by descending similarity.
        """


@dataclass(frozen=True, eq=False)
class Reason:
    """Why each row was taken: columns aligned to the rows of a `Selection`.

    Attributes:
        kind: (b,) str: what pulled the row. "target", "target_set", "stratum", "cluster", "score", "draw" index
            `names` by `ref`; the `ROW_KINDS` ("anchor", "neighbour", "centre", "better", "replaces", "replaced") have a
            row of the pool as `ref`.
        ref: (b,) int64, `NO_REF` where there is none.
        rank: (b,) int64: place in the list of `ref` (0 = first; for round robin, the round); -1 where there is none.
        value: (b,) float32: similarity, score or distance that decided; of a "weighted_draw" the chance that the draw
            had to take the row; NaN where there is none.
        names: what `ref` indexes.
    """

    ROW_KINDS: ClassVar[frozenset[str]] = frozenset({"anchor", "neighbour", "centre", "better", "replaces", "replaced"})
    COLUMNS: ClassVar[tuple[str, ...]] = ("kind", "ref", "rank", "value")

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
        return replace(self, **{name: getattr(self, name)[places] for name in self.COLUMNS})

    def text(self) -> list[str | None]:
        """`ref` as a name: of the target, set or stratum; None where it is a row or nothing."""
        is_row = np.isin(self.kind, list(self.ROW_KINDS))
        return [
            None if r or ref < 0 or not self.names else self.names[ref]
            for r, ref in zip(is_row.tolist(), self.ref.tolist(), strict=True)
        ]


@dataclass(frozen=True, eq=False)
class FilterReport:
    """What a filter reports of some rows.

    Attributes:
        step: the filter's name.
        rows: (r,) int64.
        reason: for each.
    """

    step: str
    rows: Rows
    reason: Reason

    def of(self, rows: Rows) -> Self:
        """The report of `rows`, in their order; a filter need not report every row."""
        order = np.argsort(self.rows)
        at = np.searchsorted(self.rows[order], rows)
        inside = at < len(order)
        place = order[at[inside]]
        place = place[self.rows[place] == rows[inside]]
        return replace(self, rows=self.rows[place], reason=self.reason.take(place))


class DroppedRows(FilterReport):
    """Rows that a step left out, and why.

    "neighbour" with the row that it is a duplicate of as `ref`, and their similarity; "exact" and "ngrams" with the
    target that the row holds, by name, and the share of its n-grams; "better" with the row of its group that stays, and
    its own score; "score", where a scorer gives none.
    """


class RetrievedRows(FilterReport):
    """Rows that a filter kept, and why: "anchor" with the row searched from as `ref`, and their similarity."""


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Rows to drop, and why.

    Attributes:
        row: (dropped,) int64, ascending.
        of: (dropped,) the row that each is a duplicate of.
        similarity: (dropped,) float64, how similar the two are.
    """

    row: Rows
    of: Rows
    similarity: Doubles

    def as_dropped(self, step: str) -> DroppedRows:
        """The form in which a selection tells them."""
        return DroppedRows(step, self.row, Reason.of("neighbour", len(self.row), ref=self.of, value=self.similarity))

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Those of several clusters, in the order of rows."""
        row = np.concatenate([np.empty(0, np.int64), *(part.row for part in parts)])
        of = np.concatenate([np.empty(0, np.int64), *(part.of for part in parts)])
        similarity = np.concatenate([np.empty(0), *(part.similarity for part in parts)])
        order = np.argsort(row, kind="stable")
        return cls(row[order], of[order], similarity[order])


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """What a selector gives.

    Attributes:
        rows: (b,) int64, in pick order, unique, never an already selected row.
        gain: (b,) float32, the value of each pick at the moment of picking.
        reason: why each was taken.
        exhausted: the pool could not fill the budget (only with `allow_short`).
        dropped: what the filters left out, one entry for each filter that reports why.
        retrieved: why the filters kept the rows, one entry for each filter that reports it; only of `rows`, in their
            order.
    """

    rows: Rows
    gain: Floats
    reason: Reason
    exhausted: bool = False
    dropped: tuple[DroppedRows, ...] = ()
    retrieved: tuple[RetrievedRows, ...] = ()

    @classmethod
    def in_order(cls, kind: str, rows: Rows, gain: Array, value: Array | None = None) -> Self:
        """Picks that have their place as the reason's rank, and as its value the gain unless another is given."""
        value = gain if value is None else value
        return cls(rows, gain.astype(np.float32), Reason.of(kind, len(rows), rank=np.arange(len(rows)), value=value))

    def as_columns(self) -> dict[str, Array | list[str | None]]:
        """The picks as columns of a table, name -> (b,) values: what `polars.DataFrame` and `pandas.DataFrame` take.

        `rank` counts from 1. `ref` is the row that pulled the pick, -1 for none, and `name` the target, set or stratum.

        >>> import numpy as np
        >>> from selection import Pool, select
        >>> columns = select("top", Pool(scores=[0.1, 0.9]), budget=1).as_columns()
        >>> list(columns), columns["row"]
        (['rank', 'row', 'gain', 'kind', 'ref', 'name', 'value'], array([1]))
        """
        is_row = np.isin(self.reason.kind, list(Reason.ROW_KINDS))
        return {
            "rank": np.arange(1, len(self.rows) + 1),
            "row": self.rows,
            "gain": self.gain,
            "kind": self.reason.kind,
            "ref": np.where(is_row, self.reason.ref, NO_REF),
            "name": self.reason.text(),
            "value": self.reason.value,
        }

    def __repr__(self) -> str:
        rows = ", ".join(map(str, self.rows[:8].tolist())) + (", ..." if len(self.rows) > 8 else "")
        return f"Selection({len(self.rows)} rows: {rows}{'; exhausted' if self.exhausted else ''})"


class Capacity(Protocol):
    """What each group of one division of the rows may still get.

    Attributes:
        group: (n,) the group of each row, -1 = in none.
        cost: (n,) what each row takes.
        left: of each group.
        closed: of each group, 0 while it takes more, else 1 + how many rows were selected when it closed.
    """

    group: Rows
    cost: Doubles
    left: list[float]
    closed: list[int]


SCORES = (
    *("nll_sum", "n_tok", "nll_mean", "nll_q10", "nll_q50", "nll_q90", "mean_rank"),
    *("nll_prompt_sum", "n_prompt", "nll_answer_sum", "n_answer", "nll_answer"),
    *("nll_alone_sum", "n_alone", "nll_alone"),
)
"""What a causal language model says of a row, by name: negative log-likelihoods (NLL, natural logarithm) and numbers of tokens.

nll_sum, n_tok, nll_mean, nll_q10, nll_q50, nll_q90: of all tokens but the first, which nothing predicts: the sum, how
many, the mean and quantiles. mean_rank: the mean place of the true token among all, by probability (1 is the
likeliest).
nll_prompt_sum, n_prompt: of the tokens before the answer. nll_answer_sum, n_answer, nll_answer: of the answer after the
prompt; nll_alone_sum, n_alone, nll_alone: of the same answer without the prompt.
"""
