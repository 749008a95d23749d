"""How high a row ranks for its best target; on large pools, as a classifier extends it from a sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np

from selection.blocks import restricted
from selection.errors import InvalidInput, rows_of_parent
from selection.kernels.ngrams import CLASSIFIER_BUCKETS, NgramRows
from selection.kernels.round_robin import LIST_BYTES, lists_by_query, lose_turn
from selection.noise import hash_uniform
from selection.pool import Pool, Targets
from selection.scorers.rds import similarity_inputs
from selection.step import Scorer, check_choice, check_flag, check_integer
from selection.types import Doubles, Floats, Input, Points, Rows

# The share of the sample that is like the targets, and the size of the hashed texts' vocabulary.
POSITIVE = 0.1
BUCKETS = CLASSIFIER_BUCKETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Betr(Scorer):
    """The rank of each row in the lists of the targets, by similarity (BETR).

    A target gives the row of rank r (1 is the most similar) the value log2(1/r) or 1/r. A row's value is the highest,
    or the mean, over the targets. Where the sample holds the whole pool, that is the score. Else a linear classifier is
    fitted to the best tenth of the sample against as many rows of the rest, and its log-odds are the score of all rows.

    Args:
        sample: how many rows are ranked, a sample by hash of the id.
        aggregate: "max" or "mean". The score of "max" is minus the row's place in the order, in which equal ranks go
            by the order of the targets: the order in which `rds_plus` with `per: query` picks. Exact for up to 16
            million rows. The score of "mean" is the mean value, in float32.
        value: "log2" or "inverse"; matters for "mean" only.
        equal_sets: use as many targets of each set as the smallest has, a sample by hash of the target's name.
        classifier: of what it is: the pool's "vectors", or its "texts" as hashed words and pairs of words.

    Similarity: see `selection.scorers.rds.similarity_inputs`. Ranks are exact, ties to the lowest row. The classifier
    is scikit-learn's logistic regression on one thread; the log-odds of a row depend on that row and the fit alone.

    Not for: a pool that `rds_plus` can search: that is exact, and says which target took a row.

    Source: Mizrahi et al. 2025 (BETR), which samples 10 million documents and keeps a tenth of the tokens: a budget in
    tokens does that. Cost where all s rows are ranked, and of "mean": s*m*d operations in float64 and m sorts of s. To
    label a sample of s by "max": as `rds_plus` for a budget of s/10. Then the fit, and n*d operations or a pass over
    the texts. Memory: 64 MiB of similarities, 50 bytes for each row ranked, the vectors of s/5 rows in float64, and
    n floats; or, for a sample by "max", the lists of `rds_plus`.
    """

    sample: int = 100_000
    aggregate: str = "max"
    value: str = "log2"
    equal_sets: bool = True
    classifier: str = "vectors"
    name: ClassVar[str] = "betr"

    def __post_init__(self) -> None:
        check_integer(self.name, "sample", self.sample, least=2)
        check_choice(self.name, "aggregate", self.aggregate, ("max", "mean"))
        check_choice(self.name, "value", self.value, ("log2", "inverse"))
        check_flag(self.name, "equal_sets", self.equal_sets)
        check_choice(self.name, "classifier", self.classifier, ("vectors", "texts"))

    @property
    def needs(self) -> frozenset[Input]:
        """Vectors and targets; texts if the classifier reads them."""
        return frozenset({Input.VECTORS, Input.TARGETS} | ({Input.TEXTS} if self.classifier == "texts" else set()))

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:
        """See `Scorer.score`.

        Raises:
            InvalidInput: there are no targets, or a set has none.
        """
        vectors, targets = similarity_inputs(pool)
        chosen = balanced(pool.get_targets(), rng) if self.equal_sets else np.arange(len(targets))
        noise, others = (hash_uniform(pool.get_keys(), rng) for _ in range(2))
        if len(pool) <= self.sample:
            return self._ranked(vectors, targets[chosen]).astype(np.float32)
        sample = np.sort(np.argsort(noise, kind="stable")[: self.sample])
        with rows_of_parent(sample):
            best = self._best(restricted(vectors, sample), targets[chosen], max(1, int(POSITIVE * len(sample))))
        examples, labels = training_rows(pool, sample[best], np.delete(sample, best), others)
        if self.classifier == "texts":
            return text_log_odds(pool.get_texts(), examples, labels)
        return vector_log_odds(vectors, examples, labels)

    def _ranked(self, vectors: Points, targets: Floats) -> Doubles:
        """(n,) the score where all rows are ranked."""
        if not vectors.shape[0]:
            return np.empty(0)
        if self.aggregate == "mean":
            return mean_values(vectors, targets, self.value)
        scores = np.empty(vectors.shape[0])
        scores[np.argsort(best_turns(vectors, targets), kind="stable")] = -np.arange(len(scores))
        return scores

    def _best(self, vectors: Points, targets: Floats, count: int) -> Rows:
        """The first rows in the order of the score."""
        if self.aggregate == "mean":
            return np.argsort(-self._ranked(vectors, targets), kind="stable")[:count]
        none = np.empty(0, np.int64)
        excluded = np.zeros(vectors.shape[0], bool)
        lists = lists_by_query(targets)
        return lose_turn(vectors, lists, count, taken=none, excluded=excluded, max_bytes=LIST_BYTES)[0]


def best_turns(vectors: Points, targets: Floats) -> Rows:
    """(n,) min over targets of (rank - 1) * m + place of the target: the turn at which round robin picks the row."""
    m = len(targets)
    best = np.full(vectors.shape[0], np.iinfo(np.int64).max)
    for place, order in enumerate(_orders(vectors, targets)):
        best[order] = np.minimum(best[order], np.arange(len(order)) * m + place)
    return best


def mean_values(vectors: Points, targets: Floats, value: str) -> Doubles:
    """(n,) the mean over targets of the value of the row's rank."""
    values = rank_values(vectors.shape[0], value)
    total = np.zeros(vectors.shape[0])
    for order in _orders(vectors, targets):
        total[order] += values
    return total / len(targets)


def rank_values(n: int, value: str) -> Doubles:
    """The value of rank 1, 2, ..., n.

    >>> rank_values(4, "log2").round(6).tolist(), rank_values(4, "inverse").tolist()
    ([0.0, -1.0, -1.584963, -2.0], [1.0, 0.5, 0.3333333333333333, 0.25])
    """
    from selection.kernels.compiled.probabilities import logs

    rank = np.arange(1.0, n + 1)
    return np.asarray(logs(rank) / -math.log(2) + 0.0 if value == "log2" else 1 / rank)


def _orders(vectors: Points, targets: Floats) -> Iterator[Rows]:
    """The rows of each target, the most similar first, ties to the lowest row."""
    from selection.kernels.top_k import similarities

    for similarity in similarities(vectors, targets):
        yield np.argsort(-similarity, kind="stable")


def balanced(targets: Targets, rng: np.random.Generator) -> Rows:
    """As many targets of each set as the smallest has, in their order; which ones, a hash of their names says.

    Raises:
        InvalidInput: a set has none.
    """
    names = [blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in targets.printable()]
    noise = hash_uniform(np.frombuffer(b"".join(names), "<u8").astype(np.uint64), rng)
    sizes = np.bincount(targets.sets, minlength=len(targets.names))
    if not sizes.all():
        raise InvalidInput(f"targets: the set {targets.names[int(sizes.argmin())]!r} has none")
    by_set = np.lexsort((noise, targets.sets))
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(by_set[np.arange(len(by_set)) - first < sizes.min()])


def training_rows(pool: Pool, best: Rows, rest: Rows, noise: Doubles) -> tuple[Rows, Rows]:
    """The best rows and as many of the rest, by key; and for each 1 if it is of the best, else 0."""
    rest = rest[np.argsort(noise[rest], kind="stable")[: len(best)]]
    rows = np.concatenate([best, rest])
    labels = np.repeat([1, 0], [len(best), len(rest)])
    # The fit adds in the order of its examples, which must not depend on the order of the pool.
    by_key = np.argsort(pool.get_keys()[rows], kind="stable")
    return rows[by_key], labels[by_key]


def vector_log_odds(vectors: Points, examples: Rows, labels: Rows) -> Floats:
    """(n,) ln of the odds that a row is like the examples of label 1, by logistic regression on the vectors."""
    from selection.kernels.top_k import similarity_to
    from selection.learning.classifier import LogisticRegression

    model = LogisticRegression(calibrated=False).fit(vectors.take(examples), labels, 2, seed=0)
    weights, bias = model.weights[:, 1] - model.weights[:, 0], model.bias[1] - model.bias[0]
    return np.asarray(similarity_to(vectors, weights) + bias, np.float32)


def text_log_odds(texts: Any, examples: Rows, labels: Rows) -> Floats:
    """(n,) the same by logistic regression on hashed n-grams, whose counts have length 1 in each row."""
    from selection.learning.classifier import LogisticRegression

    ngrams = NgramRows(texts, BUCKETS)
    model = LogisticRegression(calibrated=False, balanced=False).fit(ngrams.take(examples), labels, 2, seed=0)
    weights, bias = model.weights[:, 1] - model.weights[:, 0], model.bias[1] - model.bias[0]
    scores = np.empty(len(texts), np.float32)
    for rows, block in ngrams.blocks():
        scores[rows] = block @ weights + bias
    return scores
