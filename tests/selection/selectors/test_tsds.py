from __future__ import annotations

import math

import numpy as np
import pytest

from selection import InvalidBudget, InvalidInput, InvalidOption, MissingInput, Pool, Targets, select
from selection.kernels import density
from selection.kernels.density import epanechnikov_density
from selection.selectors import tsds
from selection.selectors.tsds import masses, optimal_spread
from selection.vectors import ArrayVectors

POINTS = np.array([0, 0.1, 1, 2, 3, 5])
QUERIES = np.array([0.2, 2.2])
KNOWN = [
    (0, 0.5, [0.25, 0.25, 0, 0.25, 0.25, 0], 0.4125),
    (0, 0.3, [1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6, 0], 0.398333),
    (0.5, 0.5, [0.127551, 0.127551, 0.244898, 0.25, 0.25, 0], 0.492092),
    (0.5, 0.3, [0.085034, 0.085034, 0.333333, 0.329932, 0.166667, 0], 0.47915),
]


def unit(X):
    X = np.asarray(X, np.float64)
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(length > 0, length, 1)


def draw(X, Q, budget, *, already=(), seed=0, allow_short=True, **options):
    pool = Pool(vectors=np.asarray(X), targets=np.asarray(Q, np.float32), already_selected=list(already))
    return select([{"tsds": options}], pool, budget=budget, seed=seed, allow_short=allow_short)


def probabilities(X, Q, **options):
    s = draw(X, Q, len(X), **options)
    p = np.zeros(len(X))
    p[s.rows] = s.gain
    return p


def objective(distance, mass, rho, alpha, C):
    """Of masses (m, n); t is the largest m * rho * mass."""
    return alpha / C * (distance * mass).sum() + (1 - alpha) * (len(mass) * rho * mass).max()


def optimum(distance, rho, alpha, C):
    """The objective of the linear program, by HiGHS."""
    from scipy.optimize import linprog

    m, n = distance.shape
    cost = np.append(alpha / C * distance.ravel(), 1 - alpha)
    rows = np.kron(np.eye(m), np.ones(n))
    equal = np.hstack([rows, np.zeros((m, 1))])
    below = np.hstack([np.diag(np.tile(m * rho, m)), -np.ones((m * n, 1))])
    return linprog(cost, A_ub=below, b_ub=np.zeros(m * n), A_eq=equal, b_eq=np.full(m, 1 / m), method="highs").fun


def literal(distance, rho, alpha, C):
    """Masses (m, n) as the released code finds them: 1/t grows from one event to the next until the slope is enough."""
    m, n = distance.shape
    order = [sorted(range(n), key=lambda i: (row[i], i)) for row in distance.tolist()]
    used, slope, spread = [0] * m, 0.0, 0.0
    reach = [1 / rho[order[j][0]] for j in range(m)]
    while True:
        j = min(range(m), key=lambda j: reach[j])
        spread = reach[j]
        used[j] += 1
        if used[j] == n:
            break  # no further row may take anything
        now = [distance[j][i] for i in order[j]]
        inverse = [1 / rho[i] for i in order[j]]
        k = used[j]
        slope += (now[k] - now[k - 1]) * sum(inverse[:k])
        if alpha / C * slope >= (1 - alpha) * m - 1e-12:
            break
        reach[j] += inverse[k]
    mass = np.zeros((m, n))
    for j in range(m):
        left = 1.0
        for i in order[j]:
            part = min(left, 1 / (spread * rho[i]))
            mass[j, i] = part / m
            left -= part
            if left < 1e-9:
                break
    return mass


@pytest.mark.parametrize(("sigma", "alpha", "p", "least"), KNOWN)
def test_masses__known_answers(sigma, alpha, p, least):
    distance = np.abs(QUERIES[:, None] - POINTS)
    between = np.abs(POINTS[:, None] - POINTS)
    rho = np.maximum(1 - between**2 / sigma**2, 0).sum(axis=1) if sigma else np.ones(6)
    assert rho.tolist() == pytest.approx([1.96, 1.96, 1, 1, 1, 1] if sigma else [1] * 6)
    order = np.argsort(distance, axis=1, kind="stable")
    inverse = (1 / rho)[order]
    spread, exhausted = optimal_spread(np.take_along_axis(distance, order, axis=1), inverse, alpha, 1)
    mass = np.zeros((2, 6))
    np.put_along_axis(mass, order, masses(inverse, spread), axis=1)
    assert exhausted == -1
    assert mass.sum(axis=0) == pytest.approx(p, abs=1e-6)
    assert objective(distance, mass, rho, alpha, 1) == pytest.approx(least, abs=1e-6)
    assert literal(distance, rho, alpha, 1) == pytest.approx(mass, abs=1e-9)


def case(seed):
    rng = np.random.default_rng(seed)
    n, m, d = int(rng.integers(1, 16)), int(rng.integers(1, 5)), int(rng.integers(2, 6))
    X = rng.normal(size=(n, d)) if seed % 2 else rng.integers(-2, 3, (n, d)).astype(float)
    X[rng.random(n) < 0.25] = X[0]
    X[rng.random(n) < 0.1] = 0
    Q = rng.normal(size=(m, d)) if seed % 4 < 2 else rng.integers(-2, 3, (m, d)).astype(float)
    Q[rng.random(m) < 0.3] = X[0]
    options = {
        "alpha": float(rng.choice([0.05, 0.3, 0.5, 0.9, 1.0])),
        "C": float(rng.choice([0.2, 1, 5])),
        "sigma": float(rng.choice([0, 0.3, 0.75, 3])),
    }
    return X.astype(np.float16 if seed % 3 == 0 else np.float32), Q.astype(np.float32), options


def problem(X, Q, sigma):
    """Distances (m, n) and densities (n,), from the formulas."""
    U, V = unit(X), unit(Q)
    distance = np.sqrt(np.maximum(2 - 2 * np.clip(V @ U.T, -1, 1), 0))
    if not sigma:
        return distance, np.ones(len(X))
    kernel = np.maximum(1 - (2 - 2 * np.clip(U @ U.T, -1, 1)) / sigma**2, 0)
    np.fill_diagonal(kernel, 1)
    return distance, kernel.sum(axis=1)


@pytest.mark.parametrize("seed", range(100))
def test_select__equals_the_released_code_and_the_linear_program(seed, monkeypatch):
    monkeypatch.setattr(tsds, "FIRST_DEPTH", 1 + seed % 4)
    X, Q, options = case(seed)
    distance, rho = problem(X, Q, options["sigma"])
    p = probabilities(X, Q, draw="ranked", **options)
    # Distances that are equal here may differ by a rounding there, so equally near rows are compared together.
    mass = literal(np.round(distance, 5), rho, options["alpha"], options["C"])
    least = optimum(distance, rho, options["alpha"], options["C"])
    assert p.sum() == pytest.approx(1, abs=1e-6)
    if options["alpha"] < 1:  # else every t is as good
        assert objective(distance, mass, rho, options["alpha"], options["C"]) == pytest.approx(least, abs=1e-4)
    # Of different rows that are equally near a target, rounding decides which comes first.
    kinds = len(np.unique(np.round(unit(X), 5), axis=0))
    if all(len(np.unique(np.round(row, 5))) == kinds for row in distance):
        assert p == pytest.approx(mass.sum(axis=0), abs=1e-5)


def test_case__most_are_compared_row_by_row_and_many_have_copies():
    compared = copies = 0
    for seed in range(100):
        X, Q, options = case(seed)
        kinds = len(np.unique(np.round(unit(X), 5), axis=0))
        near = problem(X, Q, options["sigma"])[0]
        same = all(len(np.unique(np.round(row, 5))) == kinds for row in near)
        compared, copies = compared + same, copies + (same and kinds < len(X))
    assert (compared >= 60, copies >= 30) == (True, True)


@pytest.mark.parametrize("seed", range(60))
def test_masses__are_the_optimum_of_the_linear_program(seed):
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(1, 6)), int(rng.integers(1, 12))
    distance = np.sort(rng.random((m, n)) if seed % 2 else rng.integers(0, 4, (m, n)).astype(float), axis=1)
    rho = np.ones(n) if seed % 3 else 1 + rng.random(n)
    order = np.array([rng.permutation(n) for _ in range(m)])
    alpha, C = float(rng.choice([0.1, 0.5, 0.8])), float(rng.choice([0.1, 1, 5]))
    inverse = (1 / rho)[order]
    mass = masses(inverse, optimal_spread(distance, inverse, alpha, C)[0])
    full, full_mass = np.zeros((m, n)), np.zeros((m, n))
    np.put_along_axis(full, order, distance, axis=1)
    np.put_along_axis(full_mass, order, mass, axis=1)
    assert full_mass.sum(axis=1) == pytest.approx(np.full(m, 1 / m))
    assert objective(full, full_mass, rho, alpha, C) == pytest.approx(optimum(full, rho, alpha, C), abs=1e-7)


@pytest.mark.parametrize("pair_rows", [1, 7, 256])
@pytest.mark.parametrize("sigma", [0.2, 0.75, 1.5, 5])
def test_epanechnikov_density__is_the_definition_in_any_order(sigma, pair_rows, monkeypatch):
    monkeypatch.setattr(density, "PAIR_ROWS", pair_rows)
    rng = np.random.default_rng(0)
    X = unit(rng.normal(size=(60, 4))).astype(np.float32)
    X[5:9], X[20:22] = X[5], 0
    rows = np.flatnonzero(rng.random(60) < 0.8)
    expected = problem(X[rows], X[:1], sigma)[1]
    values = epanechnikov_density(ArrayVectors(X), rows, rows, sigma)
    assert values == pytest.approx(expected, abs=1e-5)
    order = rng.permutation(len(rows))
    assert (epanechnikov_density(ArrayVectors(X), rows[order], rows[::-1], sigma) == values[order]).all()


def test_select__ranked_takes_the_highest_probability_ties_to_the_lowest_row():
    X = np.eye(8, dtype=np.float32)
    s = draw(X, X[[6, 3]], 8, alpha=0.9, C=1, sigma=0, draw="ranked")
    assert s.rows.tolist() == [3, 6]
    assert s.gain.tolist() == [0.5, 0.5]
    assert s.reason.kind.tolist() == ["target", "target"]
    assert s.reason.text() == ["target/1", "target/0"]
    assert s.reason.rank.tolist() == [0, 0]
    assert s.reason.value.tolist() == [1, 1]
    for seed in range(10):
        X = unit(np.random.default_rng(seed).normal(size=(40, 4))).astype(np.float32)
        p = probabilities(X, X[:3]).astype(np.float32)
        rows = draw(X, X[:3], 40, draw="ranked").rows.tolist()
        assert rows == sorted(np.flatnonzero(p).tolist(), key=lambda row: (-p[row], row))


def test_select__copies_share_what_one_of_them_would_get():
    rng = np.random.default_rng(1)
    X = unit(rng.normal(size=(40, 6))).astype(np.float32)
    copied = np.concatenate([X, np.repeat(X[:1], 19, axis=0)])
    options = {"alpha": 0.3, "sigma": 1e-3}
    p, q = probabilities(X, X[[0, 1]], **options), probabilities(copied, X[[0, 1]], **options)
    assert q[np.r_[0, 40:59]] == pytest.approx(np.full(20, p[0] / 20), rel=1e-3)
    assert q[1:40] == pytest.approx(p[1:], abs=1e-4)


@pytest.mark.slow
def test_select__draws_by_the_probabilities_and_without_replacement():
    X = unit(np.random.default_rng(2).normal(size=(12, 3))).astype(np.float32)
    options = {"alpha": 0.6, "sigma": 0.5}
    p = probabilities(X, X[:2], **options)
    first = np.bincount([int(draw(X, X[:2], 1, seed=seed, **options).rows[0]) for seed in range(600)], minlength=12)
    assert (first[p == 0] == 0).all()
    assert first / 600 == pytest.approx(p, abs=0.06)
    s = draw(X, X[:2], 12, **options)
    assert sorted(s.rows.tolist()) == np.flatnonzero(p).tolist()
    assert s.exhausted


def test_select__already_selected_rows_keep_their_probabilities():
    X = unit(np.random.default_rng(3).normal(size=(30, 4))).astype(np.float32)
    whole = draw(X, X[:3], 9, alpha=0.3)
    rest = draw(X, X[:3], 5, alpha=0.3, already=whole.rows[:4])
    assert rest.rows.tolist() == whole.rows[4:].tolist()
    assert rest.gain.tolist() == whole.gain[4:].tolist()


def test_select__rows_of_probability_0_are_not_given():
    X = unit(np.random.default_rng(4).normal(size=(30, 4))).astype(np.float32)
    assert draw(X, X[:2], 30, alpha=1).rows.tolist() in ([0, 1], [1, 0])
    with pytest.raises(InvalidBudget, match="tsds found only 2 rows for a budget of 3; allow_short takes these"):
        draw(X, X[:2], 3, alpha=1, allow_short=False)


def test_select__more_neighbours_change_nothing_but_density_and_too_few_are_an_error():
    X = unit(np.random.default_rng(5).normal(size=(50, 4))).astype(np.float32)
    few = probabilities(X, X[:2], sigma=0, alpha=0.9, n_neighbors=20)
    assert few == pytest.approx(probabilities(X, X[:2], sigma=0, alpha=0.9), abs=1e-9)
    targets = Targets(X[:2], ids=("p", "q"), names=("task",))
    with pytest.raises(
        InvalidOption, match=r"n_neighbors must be above 3 \(the pool has 50 rows\): .*target task/p needs"
    ):
        select([{"tsds": {"n_neighbors": 3, "sigma": 0}}], Pool(vectors=X, targets=targets), budget=1)
    assert np.count_nonzero(probabilities(X, X[:1], alpha=1e-9, sigma=0)) == 50  # all rows are in the list: uniform


def test_select__lengths_do_not_matter():
    X = unit(np.random.default_rng(6).normal(size=(30, 4))).astype(np.float32)
    longer = X * 2.0 ** np.random.default_rng(7).integers(-9, 9, (30, 1)).astype(np.float32)
    assert draw(longer, 4 * X[:2], 9).rows.tolist() == draw(X, X[:2], 9).rows.tolist()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("alpha", 0), ("alpha", 1.5), ("alpha", math.nan), ("C", 0), ("C", "5"), ("sigma", -1), ("n_neighbors", 0),
        ("n_neighbors", 2.5), ("draw", "with_replacement"),
    ],
)  # fmt: skip
def test_options__out_of_range_is_an_error(option, value):
    with pytest.raises(InvalidOption, match=f"tsds: {option} must be"):
        draw(np.eye(2), np.eye(2), 1, **{option: value})


def test_select__no_targets():
    with pytest.raises(MissingInput, match="tsds needs targets"):
        select(["tsds"], Pool(vectors=np.eye(2, dtype=np.float32)), budget=1)
    with pytest.raises(InvalidInput, match="targets: there are none"):
        draw(np.eye(2), np.empty((0, 2)), 1)
