"""The candidates of a recipe: a pool with all that its steps and constraints read, and nothing else."""

from __future__ import annotations

from pipelines.recipes.contamination import Examples
from pipelines.recipes.eligible import eligible_rows
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.targets import target_texts, target_vectors
from selection import Pool
from selection.types import Array, Input, Vectors
from selection.vectors import VectorsInParts, exact, on_gpu
from storage.ids import hash_keys
from storage.pool.token_counts import read_counts


def assemble(inputs: DrawInputs) -> tuple[Pool, dict[str, int]]:
    """The pool that the steps choose from, a row for each of the snapshot's, and how many rows each rule keeps out."""
    needs, snapshot = inputs.spec.inputs, inputs.snapshot
    targets = target_vectors(inputs) if Input.TARGETS in needs else None
    texts = target_texts(inputs) if Input.TARGET_TEXTS in needs else None
    examples = Examples.of(inputs.target_sets) if Input.TARGET_QUESTIONS in needs else None
    columns = {name: _column(inputs, name) for name in sorted(inputs.spec.columns)}
    eligible, counts = eligible_rows(inputs)
    pool = Pool(
        vectors=_vectors(inputs),
        unit_length=True,
        probabilities=inputs.probabilities if Input.PROBABILITIES in needs else None,
        committee=inputs.committee if Input.COMMITTEE in needs else None,
        classes=inputs.classes if Input.PROBABILITIES in needs else (),
        labels=inputs.labels,
        targets=None if targets is None else inputs.on_targets(targets),
        target_texts=texts,
        target_questions=None if examples is None else examples.questions,
        target_names=() if examples is None else examples.printable(),
        texts=snapshot.texts() if Input.TEXTS in needs else None,
        text_map=None if inputs.workers is None else inputs.workers.texts_of(snapshot),
        columns=columns,
        keys=hash_keys(snapshot.ids),
        eligible=eligible,
    )
    return pool, counts


def _vectors(inputs: DrawInputs) -> Vectors | None:
    """(n, d) where a step reads them: from other processes, a device or the store."""
    if inputs.vectors is None:
        return None
    vectors = inputs.vectors if inputs.spec.index else exact(inputs.vectors)
    parts = None if inputs.workers is None else inputs.workers.parts_of(inputs.vectors)
    return on_gpu(vectors) if parts is None else VectorsInParts(vectors, parts)


def _column(inputs: DrawInputs, name: str) -> Array:
    """(n,) a column, the count of tokens, or the value of an expression; a column is meant first by its name."""
    spec, snapshot = inputs.spec, inputs.snapshot
    if spec.tokenizer is not None and name == spec.token_column:
        return read_counts(inputs.view.store, spec.tokenizer, snapshot.ids)
    if name in spec.expressions and name not in snapshot.known_columns():
        return snapshot.values_of(name)
    return snapshot.column(name)
