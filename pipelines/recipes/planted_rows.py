"""Rows that hold an example of a target set in disguise, to measure how many of them a threshold on cosines finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.recipes.contamination import question_of
from pipelines.recipes.planted import CARRIERS, PARAPHRASE, sampled
from selection.contamination import ContaminationRules
from selection.streams import stable_hash
from selection.types import Array, Points, Rows
from storage.ids import Ids, from_bytes, hash_keys
from storage.pool.contamination import EMBEDDING_RECALL_COLUMNS
from storage.pool.content import Turns, identity, text_of
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet

# Examples of a set that are planted, in each kind of disguise that goes with them: each costs two texts to encode.
PLANTS = 25
ALONE, INSIDE = "alone", "inside"
_ASKS = ("user", "text")


@dataclass(frozen=True)
class PlantedRow:
    """A row that holds an example of a target set.

    Attributes:
        target_set: the place of the set.
        kind: the disguise.
        form: "alone", the row is the example; "inside", its question stands within a turn of a row of the pool.
    """

    target_set: int
    kind: str
    form: str
    turns: Turns


@dataclass(frozen=True)
class PlantedTexts:
    """Planted conversations as a source of texts for an encoder: each is named by its content, as the pool's rows are."""

    name: str
    conversations: Sequence[Turns]

    @cached_property
    def ids(self) -> Ids:
        """(n,) S16, in the order of the conversations; those of the same content share one."""
        return from_bytes(identity(turns) for turns in self.conversations)

    def turns(self, wanted: Ids) -> Iterator[tuple[Ids, list[Turns]]]:
        """The turns of some ids, each once."""
        ids, first = np.unique(self.ids, return_index=True)
        chosen = np.isin(ids, wanted)
        yield ids[chosen], [self.conversations[place] for place in first[chosen].tolist()]


@dataclass(frozen=True)
class Carriers:
    """Rows of the pool into which examples are planted; alone, no example must be found in them.

    Attributes:
        rows: (n,) of the snapshot, drawn by hash of their ids, so that most stay the same while the pool grows.
        turns: (n,) of each.
    """

    rows: Rows
    turns: list[Turns]

    @classmethod
    def of(cls, snapshot: Snapshot, seed: int, *, without: Rows) -> Carriers:
        """Some rows of a snapshot; none of those `without` a vector."""
        usable = np.setdiff1d(np.arange(len(snapshot)), without)
        rows = usable[sampled(snapshot.ids[usable], CARRIERS, seed)]
        return cls(rows, snapshot.turns_of(rows))


def planted_rows(
    examples: Sequence[tuple[TargetSet, Rows]],
    carriers: Sequence[Turns],
    *,
    seed: int,
    paraphrases: Sequence[tuple[int, int, str]] = (),
) -> list[PlantedRow]:
    """Rows with examples, drawn by hash of their ids; those without a word cannot be planted.

    Args:
        examples: target sets, each with the places of the examples that may be planted.
        paraphrases: place of the set, place of the example in it, and other words for what the example asks.
    """
    from selection.kernels.words import words
    from selection.plants import KINDS

    planted = []

    def plant(number: int, kind: str, row: Turns, rng: np.random.Generator) -> None:
        planted.append(PlantedRow(number, kind, ALONE, row))
        if carriers:
            carrier = carriers[int(rng.integers(len(carriers)))]
            planted.append(PlantedRow(number, kind, INSIDE, _within(carrier, question_of(row), rng)))

    for number, (target_set, places) in enumerate(examples):
        for place in places[sampled(target_set.ids[places], PLANTS, seed)].tolist():
            example, key = target_set.conversations[place], _key(target_set, place)
            for kind, disguise in KINDS.items() if words(question_of(example)) else ():
                rng = np.random.default_rng([seed, key, stable_hash(kind)])
                row = _disguised(example, disguise, rng)
                if row is not None:
                    plant(number, kind, row, rng)
    for i, (number, place, text) in enumerate(paraphrases):
        target_set = examples[number][0]
        rng = np.random.default_rng([seed, _key(target_set, place), i])
        plant(number, PARAPHRASE, _reworded(target_set.conversations[place], text), rng)
    return planted


def _key(target_set: TargetSet, place: int) -> int:
    return int(hash_keys(target_set.ids[place : place + 1])[0])


def _reworded(example: Turns, text: str) -> Turns:
    """The example with a text in place of all that it asks."""
    asked = [i for i, (role, said) in enumerate(example) if role in _ASKS and said] or list(range(len(example)))
    kept = [turn for i, turn in enumerate(example) if i not in asked[1:]]
    kept[asked[0]] = (example[asked[0]][0], text)
    return kept


def _disguised(
    example: Turns, disguise: Callable[[str, np.random.Generator], str | None], rng: np.random.Generator
) -> Turns | None:
    """The example with what it asks in disguise, its answer as it is; None where the disguise changes nothing."""
    asks = any(role in _ASKS and text for role, text in example)
    texts = [disguise(text, rng) if text and (role in _ASKS or not asks) else None for role, text in example]
    if all(text is None for text in texts):
        return None
    return [(role, before if text is None else text) for (role, before), text in zip(example, texts, strict=True)]


def _within(carrier: Turns, question: str, rng: np.random.Generator) -> Turns:
    """The carrier with a question inside of what its user says first, or of its first turn."""
    from selection.plants import inside

    place = next((i for i, (role, _) in enumerate(carrier) if role in _ASKS), 0)
    planted = [*carrier]
    role, text = carrier[place]
    planted[place] = (role, inside(text, question, rng))
    return planted


def recall_by_vectors(
    planted: Sequence[PlantedRow],
    vectors: Points,
    carriers: Carriers,
    carrier_vectors: Points,
    targets: Sequence[tuple[str, Sequence[str], Array]],
    rules: ContaminationRules,
    threshold: float,
) -> pa.Table:
    """How many planted rows, and how many rows without an example, are as similar to one of the set's as the rule demands.

    A carrier that holds a question of the set word for word is no row without one, and does not count.

    Args:
        vectors: (len(planted), d) of the planted rows; zeros where the encoder gave none: not found.
        carrier_vectors: (len(carriers.rows), d).
        targets: for each set its name, what its examples ask, and their vectors.
        rules: by which a carrier holds a question.
        threshold: the least cosine.

    Returns:
        `EMBEDDING_RECALL_COLUMNS` without those of the record.
    """
    rows: list[dict[str, Any]] = []
    groups = list(dict.fromkeys((row.target_set, row.form, row.kind) for row in planted))
    clean = [text_of(turns) for turns in carriers.turns]
    for number, (name, questions, examples) in enumerate(targets):
        near = _is_near(vectors, examples, threshold)
        negatives = np.setdiff1d(np.arange(len(clean)), _holders(clean, questions, rules))
        wrong = int(_is_near(carrier_vectors, examples, threshold)[negatives].sum())
        for target_set, form, kind in groups:
            if target_set != number:
                continue
            own = [i for i, row in enumerate(planted) if (row.target_set, row.form, row.kind) == (number, form, kind)]
            hits = int(near[own].sum())
            rows.append(
                {
                    "target_set": name,
                    "form": form,
                    "kind": kind,
                    "threshold": threshold,
                    "planted": len(own),
                    "found": hits,
                    "recall": hits / len(own),
                    "negatives": len(negatives),
                    "false_positives": wrong,
                }
            )
    return pa.Table.from_pylist(rows, pa.schema(EMBEDDING_RECALL_COLUMNS))


def _is_near(vectors: Points, examples: Array, threshold: float) -> Any:
    """(n,) bool: as the filter decides."""
    from selection.kernels.assign import most_similar_centre

    if not vectors.shape[0] or not len(examples):
        return np.zeros(vectors.shape[0], np.bool_)
    nearest = most_similar_centre(vectors, np.asarray(examples, np.float32))
    return (nearest.place >= 0) & (nearest.value >= threshold)


def _holders(texts: Iterable[str], questions: Sequence[str], rules: ContaminationRules) -> Rows:
    """The places of texts that hold a question word for word."""
    from selection.kernels.contamination import Contamination

    matches = Contamination(tuple(questions), rules).matches(list(texts))
    return np.unique(np.array([match.row for match in matches if match.rule == "exact"], np.int64))
