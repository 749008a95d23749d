"""The candidates of a recipe: a pool with all that its steps and constraints read, and nothing else."""

from __future__ import annotations

from pipelines.pool_view import PoolView
from pipelines.recipes.contamination import Examples
from pipelines.recipes.eligible import eligible_rows
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.spec import SelectionSpec
from pipelines.recipes.targets import target_texts, target_vectors
from selection import Pool
from selection.types import Array, Input, Vectors
from selection.vectors import exact, on_gpu
from storage.ids import hash_keys
from storage.pool.snapshot import Snapshot
from storage.pool.token_counts import read_counts


def assemble(view: PoolView, spec: SelectionSpec, inputs: DrawInputs) -> tuple[Pool, Snapshot, dict[str, int]]:
    """The pool that the steps choose from, the snapshot whose rows it has, and how many rows each rule keeps out."""
    snapshot = view.with_scores(view.snapshot_of(spec.snapshot), spec.scores)
    stored = None if spec.encoder is None else view.vectors(spec.encoder, snapshot, spec.index)
    vectors: Vectors | None = stored if stored is None or spec.index else exact(stored)
    if vectors is not None:
        vectors = on_gpu(vectors)
    targets = target_vectors(view, spec) if Input.TARGETS in spec.inputs else None
    examples = None
    if Input.TARGET_QUESTIONS in spec.inputs:
        examples = Examples.of([view.target_set_of(record) for record in spec.targets.values()])
    held_out = [view.target_set_of(targets_id) for targets_id in spec.held_out]
    eligible, counts = eligible_rows(snapshot, spec, stored, held_out, inputs.exclusions)
    pool = Pool(
        vectors=vectors,
        unit_length=True,
        probabilities=inputs.probabilities if Input.PROBABILITIES in spec.inputs else None,
        committee=inputs.committee if Input.COMMITTEE in spec.inputs else None,
        classes=inputs.classes if Input.PROBABILITIES in spec.inputs else (),
        labels=inputs.labels,
        targets=None if targets is None else inputs.on_targets(targets),
        target_texts=target_texts(view, spec) if Input.TARGET_TEXTS in spec.inputs else None,
        target_questions=None if examples is None else examples.questions,
        target_names=() if examples is None else examples.printable(),
        texts=snapshot.texts() if Input.TEXTS in spec.inputs else None,
        columns={name: _column(view, spec, snapshot, name) for name in sorted(spec.columns)},
        keys=hash_keys(snapshot.ids),
        eligible=eligible,
    )
    return pool, snapshot, counts


def _column(view: PoolView, spec: SelectionSpec, snapshot: Snapshot, name: str) -> Array:
    """(n,) a column, the count of tokens, or the value of an expression; a column is meant first by its name."""
    if spec.tokenizer is not None and name == spec.token_column:
        return read_counts(view.store, spec.tokenizer, snapshot.ids)
    if name in spec.expressions and name not in snapshot.known_columns():
        return snapshot.values_of(name)
    return snapshot.column(name)
