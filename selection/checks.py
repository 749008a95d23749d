"""The contract that every step meets, as checks that anyone can run on a step of their own.

    from selection.checks import check_step
    check_step(MyStep(option=3))

Each check is a function of the step; it raises `BrokenContract` with what was expected and what came. A step that
cannot meet one for a good reason is run with `skip={"check_permuted_pool": "why"}`.
"""

from __future__ import annotations

import copy
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from selection.blocks import SubVectors, chunks
from selection.errors import InvalidBudget, InvalidInput, MissingInput, SelectionError, rows_of_parent
from selection.pool import Pool, Targets
from selection.registry import build_step, step_spec
from selection.run import select
from selection.step import Filter, Scorer, Selector, Step
from selection.sticky import REPLACED, Sticky
from selection.types import Array, Input, R, Reason, Rows, Selection, Vectors
from selection.vectors import ArrayVectors, TensorVectors, VectorsInParts

N, D, CLASSES = 60, 12, 4
BUDGETS = (0, 1, 7, 20)

# Less than float32 for each row and each of a budget of 500.
ROW_BYTES = 1500


class BrokenContract(AssertionError):
    """A step does not meet the contract."""


class ShuffledVectors(ArrayVectors):
    """Vectors (or probabilities) whose storage order is not their row order, as in a store; for tests.

    Args:
        array: (n, ...), by row.
        order: (n,) the rows in storage order.
        block_rows: rows in a block.
    """

    def __init__(self, array: Array, order: Rows, *, block_rows: int) -> None:
        super().__init__(array, block_rows=block_rows)
        self.order = order

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)` in storage order."""
        for rows in chunks(self.order, self.block_rows):
            yield rows, self.array[rows]


def in_parts(vectors: Vectors, parts: int = 5) -> VectorsInParts:
    """Vectors whose rows are in random parts, as other processes have them; what is sent is read-only. For tests."""
    return VectorsInParts(vectors, _Parts(vectors, parts))


class _Parts:
    """See `PartMap`."""

    def __init__(self, vectors: Vectors, parts: int) -> None:
        self.vectors, self.parts = vectors, parts
        self.part_of = np.random.default_rng(parts).integers(0, parts, vectors.shape[0])

    def __call__(
        self, work: Callable[..., R], arguments: Callable[[Rows], tuple[Any, ...] | None]
    ) -> Iterator[tuple[Rows, R]]:
        for part in range(self.parts):
            rows = np.flatnonzero(self.part_of == part)
            if len(rows) and (known := arguments(rows)) is not None:
                yield rows, self._done(work, rows, known)

    def groups(
        self, work: Callable[..., R], groups: Sequence[Rows], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[R]:
        for rows, known in zip(groups, arguments, strict=True):
            yield self._done(work, rows, known)

    def _done(self, work: Callable[..., R], rows: Rows, known: tuple[Any, ...]) -> R:
        with rows_of_parent(rows):
            return work(SubVectors(self.vectors, rows), *map(_read_only, known))


def _read_only(argument: Any) -> Any:
    if not isinstance(argument, np.ndarray):
        return argument
    view = argument.view()
    view.flags.writeable = False
    return view


def make_inputs(step: Step, *, n: int = N, seed: int = 0) -> dict[str, Any]:
    """Every input of a pool of `n` rows, with the columns that the step reads; arrays of its own, to be changed at will.

    A column has four values; one whose name ends in `_id` has about two thirds as many as there are rows. They begin
    with 0, and with 1 in a column of counts, whose name begins with `n_`.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, D)) + 2 * rng.normal(size=(5, D))[rng.integers(0, 5, n)]
    targets = rng.normal(size=(6, D))
    return {
        "vectors": _unit(vectors).astype(np.float16).astype(np.float32),
        "scores": rng.random(n).astype(np.float32),
        "probabilities": rng.dirichlet(np.ones(CLASSES), n).astype(np.float32),
        "committee": rng.dirichlet(np.ones(CLASSES), (n, 3)).astype(np.float32),
        "labels": np.where(rng.random(n) < 0.3, rng.integers(0, CLASSES, n), -1),
        "groups": rng.integers(0, 3, n),
        "targets": Targets(_unit(targets).astype(np.float32), np.array([0, 0, 0, 1, 1, 1]), ("first", "second")),
        "target_texts": ["text word", "word 3 and text 7"],
        "target_questions": ["text 7 word word", "text 3 " + "word " * 11],
        "texts": [f"text {i} {'word ' * int(k)}" for i, k in enumerate(rng.integers(1, 20, n))],
        "columns": {
            name: (rng.integers(0, max(4, n) if name.endswith("_id") else 4, n) + name.startswith("n_")).astype(
                np.float64
            )
            for name in sorted(step.columns)
        },
        "keys": rng.integers(0, 2**63, n, dtype=np.uint64),
    }


def check_step(step: Step, *, skip: Mapping[str, str] | None = None) -> None:
    """Run every check of the contract.

    Args:
        step: an instance, with the options to check it with.
        skip: names of checks that this step is known not to meet, each with the reason.

    Raises:
        BrokenContract: names the step and the check.
    """
    skip = skip or {}
    unknown = set(skip) - {check.__name__ for check in CHECKS}
    if unknown:
        raise ValueError(f"no such check: {', '.join(sorted(unknown))}")
    for check in CHECKS:
        if check.__name__ not in skip:
            _run(check, step)


def check_options_round_trip(step: Step) -> None:
    """A record rebuilds the step: its options survive JSON."""
    spec = json.loads(json.dumps(step_spec(step), allow_nan=False))
    ((name, options),) = spec.items()
    expect(name == step.name, f"the spec names {name!r}")
    cls: Any = type(step)
    again = cls(**({step.open_options: options} if step.open_options is not None else options))
    expect(again == step, f"{step} came back as {again}")


def check_selection_is_well_formed(step: Step) -> None:
    """Rows are unique, in range, int64 and as many as the budget; gains and reasons are aligned to them."""
    for seed in range(3):
        pool = Pool(**make_inputs(step, seed=seed))
        for budget in BUDGETS:
            _check_form(step, run(step, pool, budget, seed=seed), pool, budget)


def check_whole_pool(step: Step) -> None:
    """A budget of all rows gives all rows, one more is refused by name, or gives all with `allow_short`."""
    pool = Pool(**make_inputs(step))
    if not step.drops:
        _check_form(step, run(step, pool, len(pool)), pool, len(pool))
    raises(InvalidBudget, "more than the pool", lambda: run(step, pool, len(pool) + 1))
    short = run(step, pool, len(pool) + 1, allow_short=True)
    expect(short.exhausted, "exhausted must be True where the budget was not met")
    raises(InvalidBudget, "-1", lambda: run(step, pool, -1))


def check_empty_pool(step: Step) -> None:
    """A pool without rows gives an empty selection for a budget of 0, and an error for 1."""
    pool = Pool(**make_inputs(step, n=0))
    expect(len(run(step, pool, 0).rows) == 0, "rows from an empty pool")
    raises(InvalidBudget, "a row of none", lambda: run(step, pool, 1))
    if isinstance(step, Scorer):
        expect(np.shape(step.score(pool, rng=_rng())) == (0,), "scores of an empty pool must be empty")


def check_declared_needs_suffice(step: Step) -> None:
    """A pool with nothing but the declared inputs is enough; without any one of them the error names it."""
    inputs = make_inputs(step)
    needed = {str(name) for name in step.needs} | {"keys"}
    if step.columns:
        needed.add("columns")
    run(step, Pool(**{name: inputs[name] for name in needed}), 5)
    for name in sorted(needed - {"keys"}):
        without: dict[str, Any] = {other: inputs[other] for other in needed - {name}}
        error = raises(MissingInput, f"without {name}", partial(run, step, Pool(**without), 5))
        words = step.columns if name == "columns" else {name}
        expect(all(word in str(error) for word in words), f"the error must name {sorted(words)}, says: {error}")


def check_same_seed_same_rows(step: Step) -> None:
    """The same inputs and seed give the same rows, whatever the step did in between."""
    pool, other = Pool(**make_inputs(step)), Pool(**make_inputs(step, seed=9))
    first = run(step, pool, 10, seed=5)
    run(step, other, 13, seed=6)
    same(first, run(step, pool, 10, seed=5), "a second run")


def check_nested_where_claimed(step: Step) -> None:
    """A smaller budget is a prefix of a larger one."""
    if isinstance(step, Selector) and step.nested:
        pool = Pool(**make_inputs(step))
        large = run(step, pool, 30, seed=4).rows
        for budget in (1, 8, 17):
            equal(large[:budget], run(step, pool, budget, seed=4).rows, f"a budget of {budget} of 30")


def check_incremental_where_claimed(step: Step) -> None:
    """Some picks, then the rest with those already selected, equal all picks at once."""
    if isinstance(step, Selector) and step.incremental:
        inputs = make_inputs(step)
        whole = run(step, Pool(**inputs), 20, seed=4).rows
        for first in (1, 8, 13):
            before = run(step, Pool(**inputs), first, seed=4).rows
            after = run(step, Pool(**inputs, already_selected=before), 20 - first, seed=4).rows
            equal(whole, np.concatenate([before, after]), f"{first} picks, then {20 - first}")


def check_already_selected_never_returned(step: Step) -> None:
    """Rows that are already selected are not picked again, also when only few others are left."""
    inputs = make_inputs(step)
    for count in (1, 20, N - 3):
        before = np.random.default_rng(count).permutation(N)[:count]
        pool = Pool(**inputs, already_selected=before)
        picked = run(step, pool, 3, allow_short=step.drops).rows
        expect(not np.isin(picked, before).any(), f"{picked} repeats an already selected row")


def check_earlier_selection_is_given_up_by_parts(step: Step) -> None:
    """With `Sticky`, at most the part that it allows of an earlier selection is replaced; all of it gives the fresh draw."""
    pool = Pool(**make_inputs(step))
    last = run(step, pool, 12, seed=1, allow_short=True).rows
    fresh = run(step, pool, 12, seed=2, allow_short=True)
    for max_churn in (0.0, 0.25, 1.0):
        sticky = Sticky(last, np.zeros(len(last), np.float32), max_churn)
        chosen = run(step, pool, 12, seed=2, allow_short=True, sticky=sticky)
        expect(len(chosen.rows) == len(fresh.rows), f"{len(chosen.rows)} rows with max_churn {max_churn}")
        replaced = int((chosen.dropped[-1].reason.kind == REPLACED).sum())
        expect(replaced <= 12 * max_churn, f"{replaced} rows of 12 are replaced with max_churn {max_churn}")
    same(fresh, chosen, "max_churn 1")


def check_ineligible_rows_do_not_matter(step: Step) -> None:
    """Rows that are not eligible change nothing: the pool without them gives the same."""
    inputs = make_inputs(step)
    eligible = np.random.default_rng(3).random(N) < 0.6
    rows = np.flatnonzero(eligible)
    whole = run(step, Pool(**inputs, eligible=eligible), 9)
    part = run(step, Pool(**inputs).take(rows), 9)
    equal(rows[part.rows], whole.rows, "the pool without the ineligible rows")


def check_inputs_not_written(step: Step) -> None:
    """The caller's arrays are as they were."""
    inputs = make_inputs(step)
    before = copy.deepcopy({name: value for name, value in inputs.items() if name != "targets"})
    targets = inputs["targets"].vectors.copy()
    run(step, Pool(**inputs, already_selected=[4, 2]), 9)
    for name, value in before.items():
        for key, array in value.items() if name == "columns" else [(name, value)]:
            now = inputs[name][key] if name == "columns" else inputs[name]
            equal(np.asarray(array), np.asarray(now), f"the caller's {key} after the run")
    equal(targets, inputs["targets"].vectors, "the caller's targets after the run")


def check_global_rng_untouched(step: Step) -> None:
    """Randomness comes from the generator alone."""
    pool = Pool(**make_inputs(step))
    before = np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002  # watched, not used
    run(step, pool, 9)
    now = np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002
    expect(repr(before) == repr(now), "the state of np.random or random was changed")


def check_blocks_do_not_matter(step: Step) -> None:
    """Block size and storage order change memory, never the result."""
    for name in sorted({Input.VECTORS, Input.PROBABILITIES, Input.COMMITTEE} & step.needs):
        inputs, array, first = _with_ties(step, name)
        for seed, block_rows in enumerate((1, 7, 16, 1000)):
            inputs[name] = ArrayVectors(array, block_rows=block_rows)
            same(first, run(step, Pool(**inputs), 15), f"{name} in blocks of {block_rows} rows")
            order = np.random.default_rng(seed).permutation(N)
            inputs[name] = ShuffledVectors(array, order, block_rows=block_rows)
            same(first, run(step, Pool(**inputs), 15), f"{name} in shuffled blocks of {block_rows} rows")


def check_device_does_not_matter(step: Step) -> None:
    """Vectors of which a device holds a copy lead to the same result (on the host, through the bodies that a card uses)."""
    if Input.VECTORS in step.needs:
        inputs, array, first = _with_ties(step, Input.VECTORS)
        inputs["vectors"] = TensorVectors(ArrayVectors(array, block_rows=7), "cpu")
        same(first, run(step, Pool(**inputs), 15), "vectors with a copy on a device")


def check_parts_do_not_matter(step: Step) -> None:
    """Vectors that other processes have in parts lead to the same result."""
    if Input.VECTORS in step.needs:
        inputs, array, first = _with_ties(step, Input.VECTORS)
        for parts in (1, 2, 7):
            inputs["vectors"] = in_parts(ArrayVectors(array, block_rows=7), parts)
            same(first, run(step, Pool(**inputs), 15), f"vectors in {parts} parts")


def _with_ties(step: Step, name: Input) -> tuple[dict[str, Any], Array, Selection]:
    """Inputs, one of them with ties to be settled by row and not by what comes first; that one; and what is drawn."""
    inputs = make_inputs(step)
    array = inputs[name]
    array[10:30] = array[10]
    return inputs, array, run(step, Pool(**inputs), 15)


def check_permuted_pool(step: Step) -> None:
    """The order of the pool changes nothing but the order of ties."""
    inputs = make_inputs(step)
    order = np.random.default_rng(2).permutation(N)
    pool, permuted = Pool(**inputs), Pool(**_permuted(inputs, order))
    if isinstance(step, Scorer):
        scores = np.asarray(step.score(pool, rng=_rng()))
        equal(scores[order], np.asarray(step.score(permuted, rng=_rng())), "scores of the permuted pool")
    elif isinstance(step, Filter):
        kept = np.sort(step.keep(pool, 10, rng=_rng()))
        equal(kept, np.sort(order[step.keep(permuted, 10, rng=_rng())]), "rows kept of the permuted pool")
    else:
        equal(run(step, pool, 15).rows, order[run(step, permuted, 15).rows], "rows of the permuted pool")


def check_identical_candidates(step: Step) -> None:
    """Candidates that differ in nothing but their key are still each taken once; some are labelled, as in any pool."""
    inputs = make_inputs(step)
    own = {name: inputs[name] for name in ("keys", "labels")}
    inputs = _permuted(inputs, np.zeros(N, np.int64)) | own
    for budget in (1, 15, N):
        pool = Pool(**inputs)
        _check_form(step, run(step, pool, budget, allow_short=step.drops), pool, budget)
    pool = Pool(**inputs, already_selected=np.arange(10))
    _check_form(step, run(step, pool, 15, allow_short=step.drops), pool, 15)


def check_zero_vectors(step: Step) -> None:
    """Zero vectors are similar to nothing, and no NaN comes of them."""
    if Input.VECTORS not in step.needs:
        return
    inputs = make_inputs(step)
    for zero in (slice(5, 20), slice(None)):
        inputs["vectors"] = inputs["vectors"].copy()
        inputs["vectors"][zero] = 0
        pool = Pool(**inputs)
        _check_form(step, run(step, pool, 50, allow_short=step.drops), pool, 50)


def check_bad_value_named(step: Step) -> None:
    """A value that is not finite is an error that names the row in the caller's frame; nothing is filled in."""
    for name in ("vectors", "probabilities", "committee", "scores"):
        if Input(name) not in step.needs:
            continue
        for bad in (np.nan, np.inf):
            inputs = make_inputs(step)
            inputs[name][37] = bad
            eligible = np.ones(N, bool)
            eligible[:20] = False
            error = raises(InvalidInput, f"{bad} in {name}", partial(_run_on, step, inputs, eligible))
            expect("37" in str(error), f"the error must name row 37, says: {error}")


def check_float16_vectors(step: Step) -> None:
    """float16 vectors give what the same values in float32 give."""
    if Input.VECTORS in step.needs:
        inputs = make_inputs(step)
        narrow = inputs | {"vectors": inputs["vectors"].astype(np.float16)}
        same(run(step, Pool(**inputs), 15), run(step, Pool(**narrow), 15), "float16 vectors")


def check_memory_grows_with_rows_alone(step: Step) -> None:
    """Memory beside the inputs grows neither with rows x budget nor with rows x rows: at most ROW_BYTES for each row more."""
    peaks: list[int] = []
    for n in (1000, 1000, 2000):
        inputs: dict[str, Any] = make_inputs(step, n=n)
        for name in ("vectors", "probabilities", "committee"):
            inputs[name] = ArrayVectors(inputs[name], block_rows=64)
        pool = Pool(**inputs)
        if peaks:
            tracemalloc.start()
        try:
            run(step, pool, 500, allow_short=True)
            peaks.append(tracemalloc.get_traced_memory()[1])  # 0 of the first, which compiles and imports
        finally:
            tracemalloc.stop()
    grown = (peaks[2] - peaks[1]) / 1000
    expect(
        grown <= ROW_BYTES,
        f"with a budget of 500 it takes {grown:.0f} bytes more for each row more, {ROW_BYTES} are allowed",
    )


CHECKS: tuple[Callable[[Step], None], ...] = (
    check_options_round_trip,
    check_selection_is_well_formed,
    check_whole_pool,
    check_empty_pool,
    check_declared_needs_suffice,
    check_same_seed_same_rows,
    check_nested_where_claimed,
    check_incremental_where_claimed,
    check_already_selected_never_returned,
    check_earlier_selection_is_given_up_by_parts,
    check_ineligible_rows_do_not_matter,
    check_inputs_not_written,
    check_global_rng_untouched,
    check_blocks_do_not_matter,
    check_device_does_not_matter,
    check_parts_do_not_matter,
    check_permuted_pool,
    check_identical_candidates,
    check_zero_vectors,
    check_bad_value_named,
    check_float16_vectors,
    check_memory_grows_with_rows_alone,
)


def run(
    step: Step, pool: Pool, budget: int, *, seed: int = 0, allow_short: bool = False, sticky: Sticky | None = None
) -> Selection:
    """The step in its shortest recipe: a scorer is followed by `top`, a filter by `random`."""
    steps = [step, build_step("random")] if isinstance(step, Filter) else [step]
    return select(steps, pool, budget=budget, seed=seed, allow_short=allow_short, sticky=sticky)


def expect(met: bool, message: str) -> None:
    """Raise `BrokenContract` unless met."""
    if not met:
        raise BrokenContract(message)


def equal(expected: Array, got: Array, subject: str) -> None:
    """Raise `BrokenContract` unless two arrays are the same."""
    expect(np.array_equal(expected, got), f"{subject}: expected {expected}, got {got}")


def same(expected: Selection, got: Selection, subject: str) -> None:
    """Raise `BrokenContract` unless two selections are the same to the bit."""
    equal(expected.rows, got.rows, f"rows with {subject}")
    equal(expected.gain, got.gain, f"gains with {subject}")
    equal(expected.reason.ref, got.reason.ref, f"reasons with {subject}")
    equal(expected.reason.rank, got.reason.rank, f"ranks with {subject}")


def raises(kind: type[SelectionError], subject: str, act: Callable[[], object]) -> SelectionError:
    """Raise `BrokenContract` unless `act` raises an error of one kind; return that error."""
    try:
        result = act()
    except kind as error:
        return error
    raise BrokenContract(f"{subject}: must raise {kind.__name__}, gave {result}")


def _run_on(step: Step, inputs: Mapping[str, Any], eligible: Array) -> Selection:
    # The pool is made here since it may be the one to refuse a value.
    return run(step, Pool(**inputs, eligible=eligible), 9)


def _run(check: Callable[[Step], None], step: Step) -> None:
    try:
        check(step)
    except BrokenContract as error:
        raise BrokenContract(f"{step.name}, {check.__name__}: {error}") from error
    except Exception as error:  # whatever a step raises on good input is a finding
        raise BrokenContract(f"{step.name}, {check.__name__}: {type(error).__name__}: {error}") from error


def _check_form(step: Step, selection: Selection, pool: Pool, budget: int) -> None:
    rows, reason = selection.rows, selection.reason
    expect(rows.dtype == np.int64 and rows.ndim == 1, f"rows must be flat int64, got {rows.dtype} {rows.shape}")
    expect(len(rows) == budget or selection.exhausted, f"{len(rows)} rows for a budget of {budget}")
    expect(len(np.unique(rows)) == len(rows), f"rows repeat: {rows}")
    expect(bool(pool.candidates[rows].all()), f"rows that are not candidates: {rows}")
    expect(selection.gain.dtype == np.float32, f"gain must be float32, got {selection.gain.dtype}")
    expect(len(selection.gain) == len(rows) and bool(np.isfinite(selection.gain).all()), "one finite gain a row")
    for name in Reason.COLUMNS:
        expect(len(getattr(reason, name)) == len(rows), f"reason.{name} must be aligned to the rows")
    if isinstance(step, Selector):
        reason.text()  # every `ref` is within the names


def _permuted(inputs: Mapping[str, Any], order: Rows) -> dict[str, Any]:
    permuted: dict[str, Any] = {}
    for name, value in inputs.items():
        if name == "columns":
            permuted[name] = {key: column[order] for key, column in value.items()}
        elif name == "texts":
            permuted[name] = [value[i] for i in order.tolist()]
        else:
            permuted[name] = value if name.startswith("target") else value[order]
    return permuted


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _rng() -> np.random.Generator:
    return np.random.default_rng(8)
