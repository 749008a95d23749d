from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, Pool, build_step, select
from selection.filters import outliers
from selection.filters.outliers import Outliers
from selection.scorers.training_dynamics import Cartography

RNG = np.random.default_rng(0)
P_GOLD = np.array([[0.1, 0.2, 0.15], [0.9, 0.95, 0.97], [0.2, 0.6, 0.9], [0.4, 0.5, 0.45]])
EPOCHS = {f"p_{i}": P_GOLD[:, i] for i in range(3)}


def unit(n=200, d=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + 2 * rng.normal(size=(3, d))[rng.integers(0, 3, n)]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_cartography__known_answers():
    pool = Pool(columns=EPOCHS)
    score = Cartography(fields=list(EPOCHS)).score(pool, rng=RNG)
    np.testing.assert_allclose(score, [0.0061237244, 0.0276728507, 0.1624883662, 0.0183711731], rtol=1e-6)
    kept, dropped = Outliers(drop=0.25, fields=list(EPOCHS)).apply(pool, 1, rng=RNG)
    assert kept.tolist() == [1, 2, 3]
    assert dropped.rows.tolist() == [0]
    np.testing.assert_allclose(dropped.reason.value, [0.0061237244], rtol=1e-6)


def test_cartography__a_ready_score_is_taken_as_it_is():
    score = Cartography(fields="ready", descending=False).score(Pool(columns={"ready": [3.0, -1.0]}), rng=RNG)
    assert score.tolist() == [-3, 1]


def test_cartography__a_value_that_is_no_probability_is_named():
    with pytest.raises(InvalidInput, match=r"cartography: column 'b': row 1 is 1\.5, must be a probability"):
        Cartography(fields=["a", "b"]).score(Pool(columns={"a": [0.1, 0.2], "b": [0.5, 1.5]}), rng=RNG)


@pytest.mark.parametrize("k", [1, 10, 400])
@pytest.mark.parametrize("drop", [0.001, 0.1, 0.25])
def test_keep__is_the_definition(k, drop, monkeypatch):
    monkeypatch.setattr(outliers, "QUERY_ROWS", 64)
    x = unit()
    taken = np.arange(0, 200, 9)
    pool = Pool(vectors=x, already_selected=taken)
    similarity = x.astype(np.float64) @ x.T.astype(np.float64)
    np.fill_diagonal(similarity, -np.inf)
    mean = np.sort(similarity, axis=1)[:, ::-1][:, : min(k, 199)].mean(axis=1)
    rows = np.setdiff1d(np.arange(200), taken)
    worst = rows[np.argsort(mean[rows])][: int(drop * len(rows))]
    kept, dropped = Outliers(drop=drop, n_neighbors=k).apply(pool, 1, rng=RNG)
    assert dropped.rows.tolist() == np.sort(worst).tolist()
    assert kept.tolist() == np.setdiff1d(rows, worst).tolist()
    np.testing.assert_allclose(dropped.reason.value, mean[dropped.rows], atol=1e-6)


def test_neighbour_similarity__a_row_that_does_not_find_itself_is_compared_with_as_many() -> None:
    pool = Pool(vectors=np.array([[1.0], [2.0], [3.0], [4.0]], np.float32))
    assert outliers.neighbour_similarity(pool.get_vectors(), np.arange(4), 1).tolist() == [4, 8, 12, 12]


def test_keep__rows_that_are_alike_all_stay():
    same = Pool(vectors=np.tile(unit(1), (50, 1)))
    assert len(Outliers(drop=0.25).keep(same, 1, rng=RNG)) == 50
    apart = np.concatenate([np.tile(unit(1), (50, 1)), -unit(1)])
    assert Outliers(drop=0.25, n_neighbors=3).apply(Pool(vectors=apart), 1, rng=RNG)[1].rows.tolist() == [50]
    assert Outliers().keep(Pool(vectors=unit(1)), 1, rng=RNG).tolist() == [0]


def test_keep__the_part_is_counted_as_it_is_written():
    _, dropped = Outliers(drop=0.145).apply(Pool(vectors=unit()), 1, rng=RNG)
    assert len(dropped.rows) == 29  # 0.145 * 200 is 28.999999999999996 in floats


def test_select__what_was_dropped_is_told():
    picked = select([{"outliers": {"drop": 0.1}}, "random"], Pool(vectors=unit()), budget=5)
    (dropped,) = picked.dropped
    assert dropped.step == "outliers"
    assert len(dropped.rows) == 20
    assert set(dropped.reason.kind) == {"outlier"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": 0}, "drop must be a finite number > 0"),
        ({"drop": 0.3}, r"outliers: drop must be in 0 < drop <= 0\.25, got 0\.3"),
        ({"n_neighbors": 0}, "n_neighbors must be an integer >= 1"),
        ({"fields": ["a", "a"]}, "outliers: fields names a column twice: a"),
        ({"fields": 3}, "outliers: fields must be a column or a list"),
    ],
)
def test_options__out_of_range_are_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        build_step({"outliers": options})


def test_needs__columns_or_vectors():
    assert Outliers().needs == {"vectors"}
    step = Outliers(fields="score")
    assert (step.needs, step.columns, step.searches) == ({"columns"}, {"score"}, False)
