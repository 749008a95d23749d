"""What a search of the pool for evaluation texts depends on, and the search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config.schema import Decontamination
from pipelines.pool_view import PoolView
from selection.contamination import ContaminationRules
from selection.types import Floats, Rows
from selection.vectors import exact
from storage.files.user_files import url_digest
from storage.ids import Ids, rows_of, to_arrow
from storage.pool.contamination import MATCH_COLUMNS
from storage.pool.content import Turns, text_of
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.records import digest_of
from storage.vectors.segments import StoredVectors

# Which version of the rules and plants is in use: another one makes another record.
VERSION = 1
EXCERPT = 200


@dataclass(frozen=True, kw_only=True)
class ContaminationSpec:
    """All that a search depends on.

    Attributes:
        snapshot: of the pool.
        against: evaluation set -> the id of its record.
        rules: the rules on texts.
        embedding: the encoder's fingerprint and the threshold of the rule on vectors; None without it.
        target_encoders: evaluation set -> the fingerprint of its vectors, where these are imported ones.
        paraphrases: digest of the file of rewordings.
        plants: how many examples of a set are planted.
        seed: of the plants.
    """

    snapshot: str
    against: Mapping[str, str]
    rules: ContaminationRules
    embedding: tuple[str, float] | None
    target_encoders: Mapping[str, str]
    paraphrases: str | None
    plants: int
    seed: int

    def record(self) -> dict[str, Any]:
        """The JSON-plain form that is hashed and kept."""
        plain = asdict(self) | {"against": list(self.against.items()), "version": VERSION}
        return plain | {"embedding": None if self.embedding is None else list(self.embedding)}

    @cached_property
    def contamination_id(self) -> str:
        """32 hex digits."""
        return digest_of(self.record())


def evaluation_sets(view: PoolView, settings: Decontamination) -> list[TargetSet]:
    """The sets whose examples are looked for, in the order of the configuration."""
    return [view.target_set(name) for name in (*settings.against, *settings.files)]


def contamination_spec(view: PoolView) -> ContaminationSpec | None:
    """What a search of the pool as it is now depends on; None where the configuration wants none."""
    settings = view.config.decontamination
    if settings is None:
        return None
    sets = evaluation_sets(view, settings)
    rule = settings.embedding
    return ContaminationSpec(
        snapshot=view.snapshot.id,
        against={each.name: each.id for each in sets},
        rules=settings.rules,
        embedding=None if rule is None else (view.fingerprint(rule.encoder), rule.threshold),
        target_encoders={} if rule is None else view.target_encoders(rule.encoder, [each.name for each in sets]),
        paraphrases=None if settings.paraphrases is None else url_digest(view.store, settings.paraphrases),
        plants=settings.plants,
        seed=settings.seed,
    )


def question_of(turns: Turns) -> str:
    """What an example asks: the turns of its user, or its text; all of it where there is neither."""
    asked = [(role, text) for role, text in turns if role in ("user", "text") and text]
    return text_of(asked or turns)


@dataclass(frozen=True)
class Examples:
    """The examples of all evaluation sets, one after the other.

    Attributes:
        sets: the names of the sets.
        place: (m,) which set each example is of.
        ids: (m,) S16.
        names: (m,) what a person calls each: the id in its file, else its place.
        questions: (m,) what each asks.
    """

    sets: tuple[str, ...]
    place: Rows
    ids: Ids
    names: tuple[str, ...]
    questions: tuple[str, ...]

    @classmethod
    def of(cls, sets: Sequence[TargetSet]) -> Examples:
        """Those of some sets."""
        return cls(
            sets=tuple(each.name for each in sets),
            place=np.repeat(np.arange(len(sets)), [len(each) for each in sets]),
            ids=np.concatenate([each.ids for each in sets]),
            names=tuple(name for each in sets for name in each.example_names),
            questions=tuple(question_of(turns) for each in sets for turns in each.conversations),
        )

    def printable(self) -> tuple[str, ...]:
        """The name of each example behind that of its set."""
        return tuple(f"{self.sets[place]}/{name}" for place, name in zip(self.place.tolist(), self.names, strict=True))


def text_matches(snapshot: Snapshot, examples: Examples, rules: ContaminationRules) -> pa.Table:
    """Rows of a snapshot and the examples that they hold, as `MATCH_COLUMNS`, by row and then example.

    Cost: reads the texts, a row group at a time.
    """
    from selection.kernels.contamination import Contamination

    ids: list[Ids] = []
    kept: dict[int, str] = {}
    matches = []

    def texts() -> Iterator[str]:
        for batch, conversations in snapshot.turns(snapshot.ids):
            ids.append(batch)
            yield from map(text_of, conversations)

    search = Contamination(examples.questions, rules)
    for text, match in search.with_texts(texts()):
        matches.append(match)
        kept[len(matches) - 1] = text[match.start : match.stop][:EXCERPT]
    rows = rows_of(np.concatenate(ids), snapshot.ids) if ids else np.empty(0, np.int64)
    row = rows[[match.row for match in matches]].astype(np.int64)
    target = np.array([match.target for match in matches], np.int64)
    order = np.lexsort((target, row))
    ordered = [matches[i] for i in order.tolist()]
    return _table(
        snapshot.ids[row[order]],
        examples,
        target[order],
        rule=[match.rule for match in ordered],
        score=[match.score for match in ordered],
        start=[match.start for match in ordered],
        stop=[match.stop for match in ordered],
        excerpt=[kept[i] for i in order.tolist()],
    )


def vector_matches(view: PoolView, spec: ContaminationSpec, examples: Examples) -> pa.Table:
    """Rows whose vector is near that of an example, each with the nearest one, as `MATCH_COLUMNS`.

    Cost: 2*n*m*d operations in float32 for n rows and m examples of d dimensions. Examples without a vector are left out.
    """
    from selection.kernels.assign import most_similar_centre

    assert spec.embedding is not None
    encoder, threshold = spec.embedding
    snapshot = view.snapshot_of(spec.snapshot)
    sets = [view.target_set_of(record) for record in spec.against.values()]
    centres = np.concatenate(vectors_of_sets(view, spec, sets))
    nearest = most_similar_centre(exact(view.vectors(encoder, snapshot)), centres)
    rows = np.flatnonzero((nearest.place >= 0) & (nearest.value >= threshold))
    nothing = [None] * len(rows)
    return _table(
        snapshot.ids[rows],
        examples,
        nearest.place[rows],
        rule=["embedding"] * len(rows),
        score=nearest.value[rows].tolist(),
        start=nothing,
        stop=nothing,
        excerpt=nothing,
    )


def vectors_of_sets(view: PoolView, spec: ContaminationSpec, sets: Sequence[TargetSet]) -> list[Floats]:
    """(m, d) float32 of the examples of each evaluation set; zeros for those without a vector."""
    assert spec.embedding is not None
    stored = [
        StoredVectors(view.store, spec.target_encoders.get(each.name, spec.embedding[0]), each.ids) for each in sets
    ]
    return [each.take(np.arange(each.shape[0])).astype(np.float32) for each in stored]


def _table(ids: Ids, examples: Examples, target: Rows, **columns: list[Any]) -> pa.Table:
    places = target.tolist()
    return pa.table(
        {
            "id": to_arrow(ids),
            "target_set": [examples.sets[examples.place[place]] for place in places],
            "example": to_arrow(examples.ids[target]),
            "example_name": [examples.names[place] for place in places],
            **columns,
        },
        schema=pa.schema(MATCH_COLUMNS),
    )
