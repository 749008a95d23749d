"""What a classifier of `classifiers:` learns from: rows of target sets and of the pool, by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.config.schema import ClassExamples, Classifier
from pipelines.messages import counted
from pipelines.pool_view import PoolView
from selection.noise import hash_uniform
from selection.types import Doubles, Mask, Rows
from storage.errors import BadInput
from storage.ids import Ids, from_arrow, hash_keys, to_arrow, to_text

POOL = None


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a classifier, by ascending id; none comes twice.

    Attributes:
        ids: (m,).
        labels: (m,) class numbers.
        target_sets: (m,) the target set that each is of, None for a row of the pool.
        held_out: (m,) which of them measure and do not train.
    """

    ids: Ids
    labels: Rows
    target_sets: tuple[str | None, ...]
    held_out: Mask

    def origins(self) -> Iterator[tuple[str | None, Rows]]:
        """Each target set, and the pool, with the places of its examples."""
        names = np.array([name or "" for name in self.target_sets], object)
        for name in dict.fromkeys(self.target_sets):
            yield name, np.flatnonzero(names == (name or ""))

    def plain(self) -> list[list[object]]:
        """A JSON-plain form."""
        columns = (to_text(self.ids), self.labels.tolist(), self.target_sets, self.held_out.tolist())
        return [list(row) for row in zip(*columns, strict=True)]

    def table(self, classes: tuple[str, ...]) -> pa.Table:
        """As the store keeps them."""
        return pa.table(
            {
                "id": to_arrow(self.ids),
                "class": pa.array([classes[label] for label in self.labels], pa.string()),
                "target_set": pa.array(self.target_sets, pa.string()),
                "held_out": pa.array(self.held_out),
            }
        )

    @classmethod
    def of_table(cls, table: pa.Table, classes: tuple[str, ...]) -> Examples:
        """From what the store keeps."""
        labels = np.array([classes.index(name) for name in table["class"].to_pylist()], np.int64)
        held_out = np.array(table["held_out"].to_pylist(), np.bool_)
        return cls(from_arrow(table["id"]), labels, tuple(table["target_set"].to_pylist()), held_out)


def collect_examples(view: PoolView, name: str, settings: Classifier, unusable: Ids) -> Examples:
    """The examples of a classifier from the pool and the target sets as they are now.

    A row that several classes name is of the first of them; rows of the pool at random are those that no other class
    names. Which rows are sampled, left out for equal classes or held out, a hash of id and seed says.

    Args:
        unusable: ids without features.

    Raises:
        BadInput: a class has fewer than two examples; names it.
    """
    at_random = [rule.targets == () and rule.where is None for rule in settings.classes.values()]
    class_names, taken = list(settings.classes), unusable
    parts: list[tuple[int, str | None, Ids]] = []
    for number in sorted(range(len(at_random)), key=at_random.__getitem__):  # stable: those at random are last
        rule = settings.classes[class_names[number]]
        for origin, named in _named(view, rule):
            new = np.setdiff1d(named, taken)
            chosen = new if rule.sample is None else new[_order(new, settings.seed, 0)[: rule.sample]]
            parts.append((number, origin, chosen))
            taken = np.union1d(taken, chosen)
    ids = np.concatenate([part for _, _, part in parts])
    labels = np.concatenate([np.full(len(part), number, np.int64) for number, _, part in parts])
    origins = [origin for _, origin, part in parts for _ in range(len(part))]
    counts = np.bincount(labels, minlength=len(class_names))
    for class_name, count in zip(class_names, counts.tolist(), strict=True):
        if count < 2:
            raise BadInput(
                f"classifiers.{name}.classes.{class_name}: {counted(count, 'example')}, but two at least are needed: one "
                "to learn from, one to measure by"
            )
    order = np.argsort(ids, kind="stable")
    ids, labels = ids[order], labels[order]
    used, held_out = _divided(ids, labels, settings)
    target_sets = tuple(origins[place] for place in order[used].tolist())
    return Examples(ids[used], labels[used], target_sets, held_out[used])


def _named(view: PoolView, rule: ClassExamples) -> Iterator[tuple[str | None, Ids]]:
    """What a rule names: a target set, or None for the pool, and ids."""
    for target in rule.targets:
        yield target, view.target_set(target).ids
    if not rule.targets:
        ids = np.asarray(view.snapshot.ids)
        if rule.where is not None:
            ids = ids[view.with_scores_read_by(view.snapshot, rule.where).where(rule.where)]
        yield POOL, ids


def _divided(ids: Ids, labels: Rows, settings: Classifier) -> tuple[Mask, Mask]:
    """(m,) which examples are used, and (m,) which are held out: in each class the same share, and never all."""
    fewest = int(np.bincount(labels).min())
    chosen, held_out = np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.bool_)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if settings.equal_classes:
            rows = rows[_order(ids[rows], settings.seed, 1)[:fewest]]
        chosen[rows] = True
        if settings.held_out:
            count = min(max(round(settings.held_out * len(rows)), 1), len(rows) - 1)
            held_out[rows[_order(ids[rows], settings.seed, 2)[:count]]] = True
    return chosen, held_out


def _order(ids: Ids, seed: int, purpose: int) -> Rows:
    """The ids in an order that looks random and depends on each id, the seed and the purpose alone."""
    noise: Doubles = hash_uniform(hash_keys(ids), np.random.default_rng([seed, purpose]))
    return np.argsort(noise, kind="stable")
