"""What all selections of a comparison are measured with: the same vectors, rows of the pool and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.compare.draws import Draw
from pipelines.context import Context
from pipelines.errors import UnknownEncoder
from pipelines.messages import listed, nearest
from pipelines.recipes.drawn import unit
from pipelines.recipes.targets import examples_of
from pipelines.report.quality import SEED, distances, highest_cosines, judging, pool_sample
from selection.types import Array, Rows
from storage.errors import BadInput, NotInStore
from storage.vectors.segments import StoredVectors


@dataclass(frozen=True, eq=False)
class Yardstick:
    """See the module.

    Attributes:
        title: the encoder's name.
        vectors: of the pool.
        sample: (s, d) vectors of some rows of the pool, of norm 1.
        examples: target set -> (m, d) the vectors of the examples that judge, of norm 1.
        described: `target_set`, `half` and `examples` (how many) of each.
        notes: what a reader should know.
    """

    title: str
    vectors: StoredVectors
    sample: Array
    examples: dict[str, Array]
    described: list[dict[str, Any]]
    notes: list[str]

    def of(self, rows: Rows) -> dict[str, float]:
        """The metrics of a selection.

        Cost: 2*(s + m)*b*d operations; the vectors of its rows in float32.
        """
        chosen = unit(self.vectors.take(rows))
        mean, most = distances(highest_cosines(self.sample, chosen))
        near = {name: highest_cosines(examples, chosen).mean() for name, examples in self.examples.items()}
        similar = {f"similarity_{name}": round(float(value), 4) for name, value in near.items()}
        return {"mean_distance": mean, "most_distance": most, **similar}


def yardstick(context: Context, draws: Sequence[Draw], encoder: str | None) -> Yardstick | None:
    """What the draws are measured with; None where no encoder has vectors of the whole pool.

    Args:
        encoder: its name; the first that a draw was made by, else the first of the configuration, if left out.

    Raises:
        UnknownEncoder: no encoder has this name.
        NotInStore: an encoder was named, and it has no vectors of the whole pool.
    """
    view = context.pool
    known = _encoders(context)
    if encoder is not None and encoder not in known:
        raise UnknownEncoder(f"no encoder is called {encoder!r}{nearest(encoder, known)}; there are: {listed(known)}")
    used = dict.fromkeys(draw.encoder for draw in draws if draw.encoder is not None)
    names = [encoder] if encoder is not None else sorted(known, key=lambda name: known[name] not in used)
    for name in names:
        try:
            vectors = view.vectors(known[name], view.snapshot)
        except NotInStore:
            if encoder is not None:
                raise
            continue
        sample = pool_sample(vectors, max(1, *(len(draw.rows) for draw in draws)), np.random.default_rng(SEED))
        examples, described, notes = _examples(context, name)
        other = dict.fromkeys(draw.name for draw in draws if draw.encoder not in (None, known[name]))
        if other:
            notes.append(
                f"{listed(other)}: drawn by other vectors than those that measure ({name}); --encoder names others"
            )
        return Yardstick(name, vectors, sample, examples, described, notes)
    return None


def _encoders(context: Context) -> dict[str, str]:
    """The encoders of the configuration, each with the fingerprint of its vectors."""
    return {name: context.pool.fingerprint(name) for name in context.config.vector_names}


def _examples(context: Context, encoder: str) -> tuple[dict[str, Array], list[dict[str, Any]], list[str]]:
    """The examples of each target set of the configuration that judge, a line on each, and what is amiss."""
    view = context.pool
    names = [name for name in context.config.targets_in(encoder) if name in context.config.targets]
    own = view.target_encoders(encoder, names)
    examples, described, notes = dict[str, Array](), list[dict[str, Any]](), list[str]()
    for target_set in view.target_sets(names):
        half, places = judging(target_set)
        fingerprint = own.get(target_set.name, view.fingerprint(encoder))
        try:
            examples[target_set.name] = unit(examples_of(view, fingerprint, target_set, places))
        except (BadInput, NotInStore) as error:
            notes.append(f"{target_set.name}: not measured: {error}")
            continue
        described.append({"target_set": target_set.name, "half": half, "examples": len(places)})
        if half == "selecting":
            notes.append(
                f"{target_set.name} has no measuring half (`targets.{target_set.name}.measure`): the examples that choose rows "
                "also judge them, which flatters recipes that see them"
            )
    return examples, described, notes
