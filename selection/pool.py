"""The pool: the candidates of a selection and all that is known of them, checked and brought into one form when it is made."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np

from selection.blocks import ArrayBlocks, restricted
from selection.errors import InvalidInput, MissingInput
from selection.kernels.probabilities import checked
from selection.types import Array, Floats, Input, Mask, RowBlocks, Rows, TextMap, UInts, Vectors
from selection.vectors import ArrayVectors


@dataclass(frozen=True, eq=False, repr=False)
class Targets:
    """Examples of the task to match.

    Attributes:
        vectors: (m, d) float16 or float32, the same encoder as the candidates.
        sets: (m,) int64, which target set each belongs to: an index into `names`. All in one set by default.
        names: the target sets' names, in the order in which round robin visits them; "target" by default, or numbers.
        ids: (m,) a printable name of each target, for the reasons of a selection.
        committee: (m, members, C) each target's class probabilities by the members of the pool's committee, in their
            order.

    Raises:
        InvalidInput: the lengths differ, a set is out of range, a vector is not finite or probabilities are none.

    >>> Targets([[1.0, 0.0], [0.0, 1.0]]).printable()
    ('target/0', 'target/1')
    """

    vectors: Array
    sets: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    committee: Array | None = None

    def __post_init__(self) -> None:
        vectors = _matrix("targets: vectors", "targets, dimensions", self.vectors)
        m = len(vectors)
        names = _names("targets: names", self.names)
        sets = _integers("targets: sets", () if self.sets is None else self.sets).astype(np.int64)
        if not len(sets) and len(names) < 2:
            sets, names = np.zeros(m, np.int64), names or ("target",)
        ids = _names("targets: ids", self.ids)
        if len(sets) != m or (ids and len(ids) != m):
            raise InvalidInput(
                f"targets: {m} vectors need as many sets and ids, got {len(sets)} sets and {len(ids)} ids"
            )
        names = names or tuple(str(i) for i in range(int(sets.max(initial=-1)) + 1))
        if m and not (int(sets.min()) >= 0 and int(sets.max()) < len(names)):
            raise InvalidInput(f"targets: sets must be in 0..{len(names) - 1}, the indices of {names}")
        bad = np.flatnonzero(~np.isfinite(vectors.astype(np.float32)).all(axis=1))
        if len(bad):
            raise InvalidInput(f"targets: vector {bad[0]} holds a value that is not finite")
        committee = None if self.committee is None else _target_committee(self.committee, m)
        forms = {"vectors": vectors, "sets": sets, "names": names, "ids": ids, "committee": committee}
        for name, value in forms.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        m, d = self.vectors.shape
        return f"Targets({m} vectors of {d} dimensions in {len(self.names)} sets)"

    def printable(self) -> tuple[str, ...]:
        """One name for each target: `set/id`, or `set/position` where no ids were given."""
        ids = self.ids or tuple(str(i) for i in range(len(self.sets)))
        return tuple(f"{self.names[s]}/{i}" for s, i in zip(self.sets, ids, strict=True))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pool:
    """The candidates and all that is known of them, by row. Everything is optional; the length is that of what is given.

    Attributes:
        vectors: (n, d), an array or anything that satisfies `Vectors`.
        unit_length: the vectors, and those of the targets, stand for vectors of length 1 that were rounded when they
            were stored: where a step goes by inner products, it divides by the lengths first.
        scores: (n,) float32, higher = take first.
        probabilities: (n, C), array or `RowBlocks`.
        committee: (n, members, C), array or `RowBlocks`.
        classes: the C names of the classes, where they are known.
        labels: (n,) int64, -1 = none.
        groups: (n,) hashable values, the strata of `stratified` when it names no column.
        targets: examples of the task to match; an array (m, d) is one target set named "target".
        target_texts: (m,) str, the examples of the task as texts, of all target sets.
        target_questions: (m,) str, what each target asks: its text without the answer.
        target_names: (m,) what a person calls each of `target_questions`, for the reasons of a selection; its place by
            default.
        texts: (n,) str.
        text_map: where several processes can read the same texts.
        columns: name -> (n,) array or list, numeric or str.
        keys: (n,) uint64 drawn from the candidate's id; they feed hash noise, so that a random draw does not depend
            on the order or growth of the pool. Row numbers by default.
        source_rows: (n,) which row each is of the pool that a draw began with; the row numbers by default.
        already_selected: rows (or a mask) that count as centres and are never returned; kept as ascending int64.
        eligible: (n,) bool; the others (leased, ignored, denied) are neither returned nor centres. All by default.

    Raises:
        InvalidInput: an input has another form or length than this, or a value that is not finite; names input and row.

    >>> pool = Pool(vectors=np.eye(3, dtype=np.float32), already_selected=[2])
    >>> len(pool), pool.candidates.tolist()
    (3, [True, True, False])
    >>> pool
    Pool(3 rows: vectors; 1 already selected)
    """

    vectors: Vectors | Array | None = None
    unit_length: bool = False
    scores: Array | None = None
    probabilities: RowBlocks | Array | None = None
    committee: RowBlocks | Array | None = None
    classes: Sequence[str] = ()
    labels: Array | None = None
    groups: Array | None = None
    targets: Targets | Array | None = None
    target_texts: Sequence[str] | None = None
    target_questions: Sequence[str] | None = None
    target_names: Sequence[str] = ()
    texts: Sequence[str] | None = None
    text_map: TextMap | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)
    keys: Array | None = None
    source_rows: Array | None = None
    already_selected: Array | Sequence[int] | None = None
    eligible: Array | None = None
    _size: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        inputs = {name: FORMS[name](getattr(self, name)) for name in FORMS if getattr(self, name) is not None}
        columns = _columns(self.columns)
        n = _common_length(inputs, columns)
        inputs.setdefault("keys", np.arange(n, dtype=np.uint64))
        inputs.setdefault("source_rows", np.arange(n, dtype=np.int64))
        inputs["columns"] = columns
        inputs["already_selected"] = _already_selected(self.already_selected, n)
        inputs["_size"] = n
        if self.targets is not None:
            targets = self.targets if isinstance(self.targets, Targets) else Targets(self.targets)
            inputs["targets"] = targets
            if "vectors" in inputs:
                _check_dimensions(targets, inputs["vectors"])
        inputs["classes"] = _classes(self.classes, inputs.get("probabilities"))
        if self.target_texts is not None:
            inputs["target_texts"] = _strings("target_texts", self.target_texts)
        if self.target_questions is not None:
            inputs["target_questions"] = _strings("target_questions", self.target_questions)
            names = inputs["target_names"] = _names("target_names", self.target_names)
            if names and len(names) != len(inputs["target_questions"]):
                raise InvalidInput(
                    f"target_names: must be one for each of {len(inputs['target_questions'])} questions, got {len(names)}"
                )
        for name, value in inputs.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"Pool({len(self)} rows: {available(self)}; {len(self.get_already_selected())} already selected)"

    @property
    def candidates(self) -> Mask:
        """(n,) bool: the rows that a selector may return, eligible and not already selected."""
        mask = np.ones(len(self), bool) if self.eligible is None else np.array(self.eligible, bool)
        mask[self.get_already_selected()] = False
        return mask

    @property
    def candidate_rows(self) -> Rows:
        """The candidates, ascending."""
        return np.flatnonzero(self.candidates).astype(np.int64)

    def candidates_by_key(self) -> Rows:
        """The candidates by ascending key. Sums in this order are the same for any order of the pool."""
        order = np.argsort(self.get_keys(), kind="stable").astype(np.int64)
        return order[self.candidates[order]]

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

    def get_target_texts(self) -> Sequence[str]:
        """(m,) str."""
        return cast("Sequence[str]", self._get(Input.TARGET_TEXTS))

    def get_target_questions(self) -> Sequence[str]:
        """(m,) str."""
        return cast("Sequence[str]", self._get(Input.TARGET_QUESTIONS))

    def get_column(self, name: str) -> Array:
        """One of the named columns."""
        if name not in self.columns:
            raise MissingInput(f"the pool has no column {name!r}; it has {sorted(self.columns) or 'none'}")
        return self.columns[name]

    def get_keys(self) -> UInts:
        """(n,) uint64."""
        return cast("UInts", self.keys)

    def row_of_source(self, source: int) -> int | None:
        """The row that was `source` in the pool that the draw began with; None if it is not here any more."""
        rows = np.flatnonzero(np.asarray(self.source_rows) == source)
        return int(rows[0]) if len(rows) else None

    def get_already_selected(self) -> Rows:
        """The rows taken before, ascending."""
        return cast("Rows", self.already_selected)

    def take(self, rows: Rows) -> Pool:
        """The subpool of `rows` in its own frame: its row i is row `rows[i]` here.

        Args:
            rows: int64, ascending and unique, so that the lowest row stays the lowest id.

        Vectors, probabilities and committee are restricted lazily; the rest is copied.
        """
        rows = _array("take: rows", rows)
        if rows.ndim != 1 or not (np.issubdtype(rows.dtype, np.integer) or not len(rows)):
            raise InvalidInput(f"take: rows must be a flat array of integers, got {rows.dtype} of shape {rows.shape}")
        rows = rows.astype(np.int64)
        if len(rows) and (rows[0] < 0 or rows[-1] >= len(self) or (np.diff(rows) <= 0).any()):
            raise InvalidInput(f"take: rows must be ascending, unique and in 0..{len(self) - 1}")
        inputs: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "targets",
                "target_texts",
                "target_questions",
                "target_names",
                "text_map",
                "unit_length",
                "classes",
            )
        }
        for name in ("vectors", "probabilities", "committee"):
            value = getattr(self, name)
            inputs[name] = None if value is None else restricted(value, rows)
        for name in ("scores", "labels", "groups", "keys", "source_rows", "eligible"):
            value = getattr(self, name)
            inputs[name] = None if value is None else value[rows]
        inputs["texts"] = None if self.texts is None else [self.texts[row] for row in rows.tolist()]
        inputs["columns"] = {name: values[rows] for name, values in self.columns.items()}
        inputs["already_selected"] = np.isin(rows, self.get_already_selected(), assume_unique=True)
        return Pool(**inputs)

    def _get(self, name: Input) -> object:
        value = getattr(self, name)
        if value is None:
            raise MissingInput(f"the pool has no {name}")
        return value


def _target_committee(committee: Any, m: int) -> Array:
    array = _array("targets: committee", committee)
    if array.ndim != 3 or len(array) != m:
        raise InvalidInput(
            f"targets: committee must have three axes (targets, members, classes) and {m} targets, got shape {array.shape}"
        )
    checked(array, None, "targets: committee")
    return array


def available(pool: Pool) -> str:
    """What the pool holds, for a message: "vectors, labels, columns length, source"."""
    names = [str(i) for i in Input if i in pool.given and i is not Input.COLUMNS]
    if pool.columns:
        names.append("columns " + ", ".join(sorted(pool.columns)))
    return ", ".join(names) or "nothing"


def _array(name: str, value: Any) -> Array:
    try:
        return np.asarray(value)
    except Exception as error:  # of whatever kind: lists of different lengths, a tensor on a GPU, a class of the user's
        raise InvalidInput(
            f"{name}: must be an array or lists of equal lengths, got {_kind(value)} ({error})"
        ) from error


def _kind(value: Any) -> str:
    """The class of a value, for a message."""
    return f"a {type(value).__name__}"


def _matrix(name: str, axes: str, value: Any) -> Array:
    """(rows, d) float16 or float32."""
    array = _array(name.rstrip(":"), value)
    if array.ndim != 2:
        raise InvalidInput(f"{name} must have two axes ({axes}), got {_shape(value, array)}")
    if array.dtype not in (np.float16, np.float32):
        if array.dtype.kind not in "fiu":
            raise InvalidInput(f"{name} must be float16 or float32, got {array.dtype}")
        # Stored vectors are float16 or float32; others become the nearest float32, and exactness refers to these.
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    return array


def _shape(value: Any, array: Array) -> str:
    """What a value is instead of an array of another shape, for a message."""
    return f"shape {array.shape}" if array.ndim else f"{_kind(value)} without axes"


def _vectors(value: Any) -> Vectors:
    return value if isinstance(value, Vectors) else ArrayVectors(_matrix("vectors:", "rows, dimensions", value))


def _blocks(name: str, axes: int, value: Any) -> RowBlocks:
    blocks: RowBlocks = value if isinstance(value, RowBlocks) else ArrayBlocks(_array(name, value))
    if len(blocks.shape) != axes:
        raise InvalidInput(f"{name}: must have {axes} axes, the first by row, got shape {blocks.shape}")
    return blocks


def _scores(value: Any) -> Array:
    scores = _flat("scores", value)
    if scores.dtype.kind not in "fiub":
        raise InvalidInput(f"scores: must be numbers, got {scores.dtype}")
    with np.errstate(over="ignore"):
        scores = scores.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise InvalidInput(f"scores: row {{row}} is {scores[bad[0]]}, must be finite", row=int(bad[0]))
    return scores


def _labels(value: Any) -> Array:
    return _integers("labels", value).astype(np.int64)


def _keys(value: Any) -> Array:
    return _integers("keys", value).astype(np.uint64, copy=False)


def _integers(name: str, value: Any) -> Array:
    array = _flat(name, value)
    if len(array) and array.dtype.kind not in "iu":
        raise InvalidInput(f"{name}: must be integers, got {array.dtype}")
    return array


def _eligible(value: Any) -> Array:
    array = _flat("eligible", value)
    if len(array) and array.dtype != bool:
        raise InvalidInput(f"eligible: must be a mask of true and false, one a row, got {array.dtype}")
    return array.astype(bool)


def _texts(value: Any) -> list[str]:
    texts = _list("texts", value)
    _check_entries("texts", texts, str, "a string")
    return texts


def _classes(value: Any, probabilities: Any) -> tuple[str, ...]:
    names = _names("classes", value)
    count = len(names) if probabilities is None else probabilities.shape[1]
    if names and (len(names) != count or len(set(names)) < count):
        raise InvalidInput(f"classes: must be {count} different names, one for each class, got {', '.join(names)}")
    return names


def _strings(name: str, value: Any) -> list[str]:
    texts = _list(name, value)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"{name}: number {place} is {_kind(text)}, must be a string")
    return texts


def _names(name: str, value: Any) -> tuple[str, ...]:
    names = tuple(_list(name, value))
    if not all(isinstance(text, str) for text in names):
        raise InvalidInput(f"{name} must be strings, got {names!r:.80}")
    return names


def _list(name: str, value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidInput(f"{name}: must be a list of strings, got {_kind(value)}")
    return list(value)


def _columns(value: Any) -> dict[str, Array]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InvalidInput(f"columns: must be a mapping of names to one value a row, got {_kind(value)}")
    return {name: _values(f"column {name!r}", values) for name, values in value.items()}


def _values(name: str, value: Any) -> Array:
    values = _flat(name, value)
    if values.dtype == object:
        _check_entries(name, values.tolist(), Hashable, "a number or a string")
    return values


def _check_entries(name: str, entries: list[Any], kind: type[Any], wanted: str) -> None:
    """Raise `InvalidInput` for the first entry of another kind. Pools are remade at each step, so it looks at classes only."""
    wrong = tuple(entry_class for entry_class in set(map(type, entries)) if not issubclass(entry_class, kind))
    if wrong:
        row, entry = next((row, entry) for row, entry in enumerate(entries) if type(entry) in wrong)
        raise InvalidInput(f"{name}: row {{row}} is {_kind(entry)}, must be {wanted}", row=row)


def _flat(name: str, value: Any) -> Array:
    array = _array(name, value)
    if array.ndim != 1:
        raise InvalidInput(f"{name}: must have one value a row, got {_shape(value, array)}")
    return array


def _common_length(inputs: dict[str, Any], columns: dict[str, Array]) -> int:
    lengths = {name: _length(value) for name, value in inputs.items()}
    lengths |= {f"column {name!r}": len(values) for name, values in columns.items()}
    if not lengths:
        raise InvalidInput(f"a pool needs at least one input by row: {', '.join(FORMS)} or columns")
    first, n = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != n:
            raise InvalidInput(f"{name}: {length} rows, but {first} has {n}")
    return n


def _length(value: Any) -> int:
    return int(value.shape[0]) if hasattr(value, "shape") else len(value)


def _already_selected(value: Array | Sequence[int] | None, n: int) -> Rows:
    if value is None:
        return np.empty(0, np.int64)
    rows = _flat("already_selected", value)
    if rows.dtype == bool:
        if len(rows) != n:
            raise InvalidInput(f"already_selected: a mask of {len(rows)} rows for a pool of {n}")
        return np.flatnonzero(rows).astype(np.int64)
    if len(rows) and rows.dtype.kind not in "iu":
        raise InvalidInput(f"already_selected: must be rows (integers) or a mask, got {rows.dtype}")
    ordered = np.sort(rows.astype(np.int64))
    outside = ordered[(ordered < 0) | (ordered >= n)]
    if len(outside):
        raise InvalidInput(f"already_selected: row {outside[0]} is outside 0..{n - 1}")
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise InvalidInput("already_selected: row {row} is given twice", row=int(twice[0]))
    return ordered


def _check_dimensions(targets: Targets, vectors: Vectors) -> None:
    d, target_d = vectors.shape[1], targets.vectors.shape[1]
    if d != target_d and vectors.shape[0]:
        raise InvalidInput(f"targets: {target_d} dimensions, but the pool's vectors have {d}: not the same encoder")


# Inputs with one entry a row: what brings each into the form that steps read. The first given decides the length.
FORMS: dict[str, Callable[[Any], Any]] = {
    "vectors": _vectors,
    "scores": _scores,
    "probabilities": partial(_blocks, "probabilities", 2),
    "committee": partial(_blocks, "committee", 3),
    "labels": _labels,
    "groups": partial(_values, "groups"),
    "texts": _texts,
    "keys": _keys,
    "source_rows": partial(_integers, "source_rows"),
    "eligible": _eligible,
}
