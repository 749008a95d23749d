from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, Targets, select
from selection.scorers import betr
from selection.scorers.betr import Betr, balanced, best_turns, mean_values, rank_values, text_log_odds

S = np.array(
    [
        [0.90, 0.80, 0.70, 0.10, 0.20, 0.30],
        [0.95, 0.60, 0.85, 0.40, 0.10, 0.20],
        [0.50, 0.99, 0.20, 0.60, 0.65, 0.10],
    ]
)
RNG = np.random.default_rng


def pool_of(similarity: Any) -> Pool:
    """Rows whose inner products with the targets are these."""
    similarity = np.asarray(similarity)
    m = len(similarity)
    return Pool(vectors=similarity.T, targets=Targets(np.eye(m), np.zeros(m, int), ("t",)))


def test_betr__known_answers() -> None:
    pool = pool_of(S)
    vectors, targets = pool.get_vectors(), pool.get_targets().vectors
    turns = best_turns(vectors, targets)
    assert turns.tolist() == [0, 2, 4, 8, 5, 9]
    max_log2 = rank_values(6, "log2")[turns // 3]
    np.testing.assert_allclose(max_log2, [0.0, 0.0, -1.0, -1.584963, -1.0, -2.0], atol=1e-6)
    mean_log2 = [-0.666667, -0.861654, -1.63563, -2.056642, -1.968964, -2.302297]
    np.testing.assert_allclose(mean_values(vectors, targets, "log2"), mean_log2, atol=1e-6)
    mean_inverse = [0.75, 0.611111, 0.344444, 0.25, 0.288889, 0.205556]
    np.testing.assert_allclose(Betr(aggregate="mean", value="inverse").score(pool, rng=RNG(0)), mean_inverse, atol=1e-6)
    for step in (Betr(), Betr(aggregate="mean")):
        assert select([step], pool, budget=6).rows.tolist() == [0, 1, 2, 4, 3, 5]


def literal_values(similarity: list[list[float]], value: str, aggregate: str) -> list[Any]:
    """For each row its best (rank, target), or the mean value."""
    n, ranks = len(similarity[0]), []
    for of_target in similarity:
        order = sorted(range(n), key=lambda row: (-of_target[row], row))
        ranks.append({row: place + 1 for place, row in enumerate(order)})
    if aggregate == "max":
        return [min((ranks[q][row], q) for q in range(len(ranks))) for row in range(n)]
    v = (lambda r: math.log2(1 / r)) if value == "log2" else (lambda r: 1 / r)
    return [sum(v(rank[row]) for rank in ranks) / len(ranks) for row in range(n)]


@pytest.mark.parametrize("seed", range(80))
def test_betr__equals_literal_ranks_and_the_order_of_rds_plus(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m, d = int(rng.integers(1, 40)), int(rng.integers(1, 7)), int(rng.integers(1, 4))
    # Small whole numbers tie often; some rows and targets are equal, some are zero.
    x = rng.integers(-2, 3, (n, d)).astype([np.float16, np.float32][seed % 2])
    q = rng.integers(-2, 3, (m, d)).astype(np.float32)
    similarity = (q.astype(float) @ x.T.astype(float)).tolist()
    pool = Pool(vectors=x, targets=q)
    best = literal_values(similarity, "log2", "max")
    expected = sorted(range(n), key=lambda row: (*best[row], row))
    got = select([Betr()], pool, budget=n)
    assert got.rows.tolist() == expected
    assert got.rows.tolist() == select([{"rds_plus": {"per": "query"}}], pool, budget=n).rows.tolist()
    assert got.gain.tolist() == [-place for place in range(n)]
    for value in ("log2", "inverse"):
        mean = literal_values(similarity, value, "mean")
        scores = Betr(aggregate="mean", value=value).score(pool, rng=RNG(0))
        np.testing.assert_allclose(scores, mean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_betr__stored_vectors_go_by_the_angle_as_in_rds_plus(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=64) + 0.02 * rng.normal(size=(200, 64))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
    pool = Pool(vectors=x, targets=x[rng.choice(200, 7, replace=False)], unit_length=True)
    rows = select([Betr()], pool, budget=200).rows
    assert rows.tolist() == select([{"rds_plus": {"per": "query"}}], pool, budget=200).rows.tolist()


def sets_of(sizes: list[int]) -> Targets:
    m = sum(sizes)
    sets = np.repeat(np.arange(len(sizes)), sizes)
    return Targets(np.arange(2.0 * m).reshape(m, 2), sets, tuple("abcdef"[: len(sizes)]), tuple(map(str, range(m))))


@pytest.mark.parametrize("seed", range(20))
def test_balanced__as_many_of_each_set_as_the_smallest_has(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 9, 3).tolist()
    targets = sets_of(sizes)
    chosen = balanced(targets, RNG(seed))
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert np.bincount(targets.sets[chosen]).tolist() == [min(sizes)] * 3
    # Which of a set, its other targets and the place of the set do not say.
    turned = Targets(targets.vectors[::-1], 2 - targets.sets[::-1], targets.names[::-1], targets.ids[::-1])
    again = balanced(turned, RNG(seed))
    assert {turned.printable()[i] for i in again} == {targets.printable()[i] for i in chosen}


def test_balanced__another_seed_takes_others_and_an_empty_set_is_an_error() -> None:
    targets = sets_of([3, 200])
    assert balanced(targets, RNG(0)).tolist() != balanced(targets, RNG(1)).tolist()
    empty = Targets(np.eye(2), np.zeros(2, int), ("a", "b"))
    with pytest.raises(InvalidInput, match="targets: the set 'b' has none"):
        select([Betr()], Pool(vectors=np.eye(2), targets=empty), budget=1)


def test_betr__a_large_set_does_not_outweigh_a_small_one() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.eye(8)[[0] * 50], np.eye(8)[[1] * 50]]) + 0.1 * rng.normal(size=(100, 8))
    q = np.concatenate([np.eye(8)[[0] * 30], np.eye(8)[[1] * 2]]) + 0.1 * rng.normal(size=(32, 8))
    pool = Pool(vectors=x, targets=Targets(q, np.repeat([0, 1], [30, 2]), ("many", "few")))
    of_few = [int((select([Betr(equal_sets=equal)], pool, budget=20).rows >= 50).sum()) for equal in (True, False)]
    assert of_few[0] >= 8
    assert of_few[1] < of_few[0]


def clusters(n: int, seed: int) -> tuple[Pool, np.ndarray]:
    """Ten kinds of rows with texts; targets of kind 0. And the kinds."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 10, n)
    centres = np.eye(16)[:10]
    x = centres[kinds] + 0.3 * rng.normal(size=(n, 16))
    texts = [" ".join(f"w{kind}x{w}" for w in rng.integers(0, 30, 12)) for kind in kinds]
    targets = centres[[0] * 20] + 0.3 * rng.normal(size=(20, 16))
    keys = rng.integers(0, 2**63, n, dtype=np.uint64)
    return Pool(vectors=x.astype(np.float16), targets=targets, texts=texts, keys=keys), kinds


@pytest.mark.parametrize("classifier", ["vectors", "texts"])
@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_betr__the_classifier_extends_the_ranks_to_the_whole_pool(classifier: str, aggregate: str) -> None:
    pool, kinds = clusters(2000, 0)
    step = Betr(sample=600, classifier=classifier, aggregate=aggregate)
    rows = select([step], pool, budget=100).rows
    assert (kinds[rows] == 0).mean() > 0.8  # a random draw has 0.1


@pytest.mark.parametrize("classifier", ["vectors", "texts"])
def test_betr__the_fit_does_not_depend_on_order_blocks_or_dtype(classifier: str) -> None:
    pool, _ = clusters(300, 1)
    step = Betr(sample=100, classifier=classifier)
    scores = step.score(pool, rng=RNG(3))
    order = np.random.default_rng(0).permutation(300)
    x = pool.get_vectors().take(np.arange(300))
    permuted = Pool(
        vectors=x[order].astype(np.float32),
        targets=pool.targets,
        texts=[pool.get_texts()[i] for i in order],
        keys=pool.get_keys()[order],
    )
    assert step.score(permuted, rng=RNG(3)).tolist() == scores[order].tolist()


def test_betr__literal_second_stage() -> None:
    """The sample, the labels and the log-odds by scikit-learn itself."""
    from sklearn.linear_model import LogisticRegression

    from selection.noise import hash_uniform

    pool, _ = clusters(200, 2)
    scores = Betr(sample=80).score(pool, rng=RNG(5))
    rng = RNG(5)
    hash_uniform(np.zeros(20, np.uint64), rng)  # the noise of the targets, all of which are of one set
    noise, others = hash_uniform(pool.get_keys(), rng), hash_uniform(pool.get_keys(), rng)
    sample = sorted(sorted(range(200), key=lambda row: noise[row])[:80])
    x = pool.get_vectors().take(np.arange(200)).astype(float)
    q = pool.get_targets().vectors.astype(float)
    best = literal_values((q @ x[sample].T).tolist(), "log2", "max")
    ranked = [sample[i] for i in sorted(range(80), key=lambda i: (*best[i], i))]
    positive, rest = ranked[:8], sorted(ranked[8:], key=lambda row: others[row])[:8]
    model = LogisticRegression(C=10.0, max_iter=2000)
    model.fit(x[positive + rest], [1] * 8 + [0] * 8)
    np.testing.assert_allclose(scores, model.decision_function(x), rtol=1e-3, atol=1e-3)


def test_betr__the_sample_that_holds_the_pool_is_the_first_stage() -> None:
    pool, _ = clusters(50, 3)
    whole = Betr(sample=50).score(pool, rng=RNG(0))
    assert sorted(whole.tolist()) == [-float(place) for place in reversed(range(50))]
    assert Betr(sample=49).score(pool, rng=RNG(0)).tolist() != whole.tolist()


def test_betr__two_rows_in_the_sample_are_enough() -> None:
    pool, _ = clusters(50, 3)
    assert np.isfinite(Betr(sample=2).score(pool, rng=RNG(0))).all()
    same = Pool(vectors=np.ones((9, 3)), targets=np.ones((1, 3)), texts=[""] * 9)
    for classifier in ("vectors", "texts"):
        assert len(select([Betr(sample=4, classifier=classifier)], same, budget=9).rows) == 9


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 17, 49])
def test_betr__a_vector_that_is_not_finite_is_named(bad: float, row: int) -> None:
    pool, _ = clusters(50, 3)
    x = pool.get_vectors().take(np.arange(50)).copy()
    x[row, 2] = bad
    broken = Pool(vectors=x, targets=pool.targets)
    for step in (Betr(), Betr(sample=20)):
        with pytest.raises(InvalidInput, match=f"vectors: row {row} holds a value that is not finite"):
            select([step], broken, budget=5)


def test_betr__missing_inputs() -> None:
    with pytest.raises(MissingInput, match="betr needs targets"):
        select(["betr"], Pool(vectors=np.eye(2)), budget=1)
    with pytest.raises(MissingInput, match="betr needs texts"):
        select([Betr(classifier="texts")], Pool(vectors=np.eye(2), targets=np.eye(2)), budget=1)
    none = Targets(np.zeros((0, 2)), np.zeros(0, int), ())
    with pytest.raises(InvalidInput, match="targets: there are none"):
        select(["betr"], Pool(vectors=np.eye(2), targets=none), budget=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 1}, "sample must be an integer >= 2"),
        ({"sample": 1e5}, "sample must be an integer >= 2"),
        ({"aggregate": "median"}, "aggregate must be one of max, mean"),
        ({"value": "rank"}, "value must be one of log2, inverse"),
        ({"equal_sets": 1}, "equal_sets must be true or false"),
        ({"classifier": "fasttext"}, "classifier must be one of vectors, texts"),
    ],
)
def test_betr__bad_options(options: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Betr(**options)


@pytest.mark.parametrize("seed", [0, 1])  # of 2, two words share a bucket
def test_text_log_odds__equals_scikit_learn_on_counts_without_hashing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    monkeypatch.setattr(betr, "BUCKETS", 2**22)
    pool, kinds = clusters(60, seed)
    texts = [*pool.get_texts(), "", "Other words, never seen!"]
    examples = np.arange(0, 60, 2)
    labels = (kinds[examples] < 5).astype(np.int64)
    counts = CountVectorizer(token_pattern=r"\w+|[^\w\s]+", ngram_range=(1, 2))
    X = normalize(counts.fit_transform([texts[row] for row in examples]))
    model = LogisticRegression(C=10.0, max_iter=2000).fit(X, labels)
    # Words that are not among the examples have no weight, but count in the length of a row.
    every = CountVectorizer(token_pattern=r"\w+|[^\w\s]+", ngram_range=(1, 2)).fit(texts)
    weights = np.zeros(len(every.vocabulary_))
    for word, place in counts.vocabulary_.items():
        weights[every.vocabulary_[word]] = model.coef_[0][place]
    expected = normalize(every.transform(texts)) @ weights + model.intercept_[0]
    np.testing.assert_allclose(text_log_odds(texts, examples, labels), expected, rtol=1e-3, atol=1e-3)
