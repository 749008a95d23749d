"""What a search of the pool for evaluation texts depends on, and the search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config.schema import Decontamination
from pipelines.pool_view import PoolView
from selection.contamination import ContaminationRules, Match
from selection.types import Floats, Rows
from selection.vectors import exact
from storage.files.user_files import url_digest
from storage.ids import Ids, from_arrow, to_arrow
from storage.pool.contamination import MATCH_COLUMNS
from storage.pool.content import Turns, text_of
from storage.pool.snapshot import RowGroups, Snapshot, open_snapshot
from storage.pool.targets import TargetSet, open_targets
from storage.records import digest_of
from storage.shards import Map, Report, in_turn
from storage.store import Store
from storage.vectors.segments import StoredVectors

if TYPE_CHECKING:
    from selection.kernels.contamination import Contamination

# Which version of the rules and plants is in use: another one makes another record.
VERSION = 1
EXCERPT = 200
# Of a shard of the pool that is searched for evaluation texts.
SHARD_ROWS = 2**17


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


def text_matches(
    snapshot: Snapshot,
    sets: Sequence[TargetSet],
    rules: ContaminationRules,
    *,
    parallel: Map = in_turn,
    on_rows: Callable[[int], object] = int,
) -> pa.Table:
    """Rows of a snapshot and the examples that they hold, as `MATCH_COLUMNS`, by row and then example.

    Args:
        parallel: where the shards of the pool are searched.
        on_rows: called now and then with the number of rows searched since the last call.

    Cost: reads the texts, a row group at a time.
    """
    store = snapshot.store
    with store.scratch("matches") as folder:
        names = tuple(each.id for each in sets)
        shards = [
            SearchShard(store.root, snapshot.id, names, rules, rows, folder / f"part-{number:05d}.parquet")
            for number, rows in enumerate(snapshot.shards(SHARD_ROWS))
        ]
        for _ in parallel(search_shard, shards, on_rows):
            pass
        tables = [pq.read_table(shard.file) for shard in shards]
    matches = pa.concat_tables([pa.schema(MATCH_COLUMNS).empty_table(), *tables])
    # A row stands in one shard, where its examples are in order; ids in the order of rows.
    return matches.take(np.argsort(from_arrow(matches["id"]), kind="stable")) if len(matches) else matches


@dataclass(frozen=True)
class SearchShard:
    """Rows of a pool that any process can search.

    Attributes:
        root: of the store.
        sets: the records of the evaluation sets.
        file: where the matches go.
    """

    root: Path
    snapshot: str
    sets: tuple[str, ...]
    rules: ContaminationRules
    rows: RowGroups
    file: Path

    def __str__(self) -> str:
        return f"search for evaluation texts: {self.rows}"


def search_shard(shard: SearchShard, report: Report) -> int:
    """Write the matches of a shard; gives how many."""
    snapshot = open_snapshot(Store(shard.root), shard.snapshot)
    examples, search = _searcher(shard.root, shard.sets, shard.rules)
    ids: list[Ids] = []
    kept: list[str] = []
    matches: list[Match] = []

    def texts() -> Iterator[str]:
        for batch, conversations in snapshot.turns_in(shard.rows):
            ids.append(batch)
            yield from map(text_of, conversations)
            report(len(batch))

    for text, match in search.with_texts(texts()):
        matches.append(match)
        kept.append(text[match.start : match.stop][:EXCERPT])
    rows = np.array([match.row for match in matches], np.int64)
    target = np.array([match.target for match in matches], np.int64)
    table = _table(
        np.concatenate([np.empty(0, "S16"), *ids])[rows],
        examples,
        target,
        rule=[match.rule for match in matches],
        score=[match.score for match in matches],
        start=[match.start for match in matches],
        stop=[match.stop for match in matches],
        excerpt=kept,
    )
    pq.write_table(table, shard.file)
    return len(table)


@lru_cache(maxsize=1)
def _searcher(root: Path, sets: tuple[str, ...], rules: ContaminationRules) -> tuple[Examples, Contamination]:
    """The examples of some sets, and what finds them: made once in a process."""
    from selection.kernels.contamination import Contamination

    examples = Examples.of([open_targets(Store(root), name) for name in sets])
    return examples, Contamination(examples.questions, rules)


def vector_matches(view: PoolView, spec: ContaminationSpec, examples: Examples) -> pa.Table:
    """Rows whose vector is near that of an example, each with the nearest one, as `MATCH_COLUMNS`.

    Cost: 2*n*m*d operations in float32 for n rows and m examples of d dimensions. Examples without a vector are left
    out.
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
