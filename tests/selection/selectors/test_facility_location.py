from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection import ArrayVectors, InvalidInput, InvalidOption, Pool, Selection, build_step, select, step_spec
from selection.checks import in_parts
from selection.kernels import estimates
from selection.kernels import facility_location as kernel
from selection.kernels.compiled import quantized
from selection.kernels.facility_location import greedy_lists, neighbour_lists
from selection.selectors.facility_location import FacilityLocation

EIGHT = np.array([[-1, 0], [5, 9], [-9, -7], [6, 9], [-5, -4], [7, -1], [-4, 6], [-5, -2]], np.float32)


def similarities(x: np.ndarray) -> np.ndarray:
    """Plain float64 (1 + cosine) / 2, 0 with a zero vector."""
    x = x.astype(np.float64)
    norm = np.linalg.norm(x, axis=1)
    unit = x / np.where(norm > 0, norm, 1)[:, None]
    s = (1 + np.clip(unit @ unit.T, -1, 1)) / 2
    s[norm == 0] = 0
    s[:, norm == 0] = 0
    return s


def naive(s: np.ndarray, k: int, weights: np.ndarray | None = None, taken: tuple[int, ...] = ()) -> tuple[list, list]:
    """Look at every candidate before each pick; near ties (1e-9) go to the lowest row."""
    w = np.ones(len(s)) if weights is None else weights
    covered = s[list(taken)].max(axis=0) if taken else np.zeros(len(s))
    rows: list[int] = []
    gains: list[float] = []
    for _ in range(k):
        gain = np.maximum(s - covered, 0) @ w
        gain[rows + list(taken)] = -1
        best = int(np.flatnonzero(gain >= gain.max() - 1e-9)[0])
        rows.append(best)
        gains.append(gain[best])
        covered = np.maximum(covered, s[best])
    return rows, gains


def clustered(n: int, d: int, seed: int, *, noise: float = 0.7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(max(2, n // 20), d))[rng.integers(0, max(2, n // 20), n)] + noise * rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def value(s: np.ndarray, rows: list[int]) -> float:
    return float(s[rows].max(axis=0).sum())


def run(x: np.ndarray, budget: int, **options: object) -> Selection:
    return select([FacilityLocation(**options)], Pool(vectors=x), budget=budget)


def test_select__eight_in_the_plane() -> None:
    picked = run(EIGHT, 3)
    assert picked.rows.tolist() == [0, 3, 5]
    np.testing.assert_allclose(picked.gain, [5.011552646432408, 2.2292385832418544, 0.28427225134799716], rtol=1e-6)
    assert picked.reason.value[-1] == pytest.approx(7.52506348102226 / 8, rel=1e-6)


def test_select__weights_of_a_column() -> None:
    weights = np.array([1.0, 1, 1, 1, 1, 5, 1, 1])
    pool = Pool(vectors=EIGHT, columns={"w": weights})
    picked = select([FacilityLocation(weights="w")], pool, budget=2)
    assert picked.rows.tolist() == [5, 0]
    assert picked.gain.sum() == pytest.approx(10.920995438750221, rel=1e-6)


def test_greedy_lists__precomputed_similarities() -> None:
    s = np.array([[1.0, 0.9, 0.1, 0.0], [0.9, 1.0, 0.1, 0.0], [0.1, 0.1, 1.0, 0.2], [0.0, 0.0, 0.2, 1.0]])
    refs = np.tile(np.arange(4), 4)
    none = np.empty(0, np.int64)
    picks, gain, _ = greedy_lists(np.arange(0, 17, 4), refs, s.ravel(), np.arange(4), 4, weights=np.ones(4), taken=none)
    assert picks.tolist() == [0, 2, 3, 1]  # 0 and 1 tie: the lowest row
    np.testing.assert_allclose(gain, [2.0, 1.1, 0.8, 0.1], atol=1e-10)


def test_greedy_lists__cosines_cut_off_at_zero() -> None:
    angle = np.deg2rad([0, 10, 20, 90, 100, 180])
    s = np.maximum(np.cos(angle[:, None] - angle), 0)
    refs = np.tile(np.arange(6), 6)
    none = np.empty(0, np.int64)
    picks, gain, _ = greedy_lists(np.arange(0, 37, 6), refs, s.ravel(), np.arange(6), 3, weights=np.ones(6), taken=none)
    assert picks.tolist() == [2, 4, 5]
    np.testing.assert_allclose(gain, [3.4401686948, 1.6427876097, 0.8263518223], atol=1e-9)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert run(x, 3).rows.tolist() == [2, 4, 5]  # (1 + cosine) / 2 gives the same picks here


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "d"), [(60, 3), (300, 16), (500, 64)])
def test_select__lazy_is_naive_pick_for_pick(seed: int, n: int, d: int) -> None:
    x = clustered(n, d, seed)
    rows, gains = naive(similarities(x), 40)
    picked = run(x, 40, mode="exact")
    assert picked.rows.tolist() == rows
    np.testing.assert_allclose(picked.gain, gains, rtol=1e-5, atol=1e-7)
    assert (np.diff(picked.gain) <= 0).all()


# Two gains of 1.7071067811865475 after row 2; then a row of weight 3 among copies; then decimals, and large weights.
TIES = [
    ([[3, -3], [1, 0], [-2, 0]], [1, 1, 3], (2,)),
    ([[1, 0], [1, 0], [0, 1], [0, 2]], [3, 4, 5, 2], ()),
    ([[1, 0], [0, 1], [0, 1], [0, -1]], [0.3, 0.1, 0.2, 0.0], ()),
    ([[5, 1], [1, 5], [-5, -1], [-1, -5]], [1000003, 1000003, 7, 7], ()),
    ([[1, 1], [-1, 1], [-1, -1], [1, -1]], [0.7, 0.7, 0.7, 0.7], (0,)),
    ([[2, 1], [1, 2], [0, 0], [-1, 3]], [11, 11, 9, 0], ()),
]


def exact_naive(x: list, weights: list[float], k: int, taken: tuple[int, ...]) -> list[int]:
    """Whole numbers throughout: similarities in units of 2**-40 times weights in thousandths, ties to the lowest row."""
    units = np.rint(similarities(np.array(x, np.float32)) * 2.0**40).astype(np.int64).tolist()
    whole = [round(1000 * weight) for weight in weights]
    covered = [max((units[row][i] for row in taken), default=0) for i in range(len(x))]
    rows: list[int] = []
    for _ in range(k):
        gain = {
            j: sum(w * max(0, s - c) for w, s, c in zip(whole, units[j], covered, strict=True))
            for j in range(len(x))
            if j not in (*rows, *taken)
        }
        rows.append(max(gain, key=lambda j: (gain[j], -j)))
        covered = [max(s, c) for s, c in zip(units[rows[-1]], covered, strict=True)]
    return rows


@pytest.mark.parametrize("mode", ["exact", "knn"])
@pytest.mark.parametrize(("x", "weights", "taken"), TIES)
def test_select__weighted_gains_that_tie_in_truth_tie(x: list, weights: list[float], taken: tuple, mode: str) -> None:
    k = len(x) - len(taken)
    pool = Pool(vectors=np.array(x, np.float32), columns={"w": np.array(weights)}, already_selected=list(taken))
    picked = select([FacilityLocation(mode=mode, weights="w")], pool, budget=k)
    assert picked.rows.tolist() == exact_naive(x, weights, k, taken)


def test_select__the_two_gains_of_the_first_tie() -> None:
    x, weights, taken = TIES[0]
    pool = Pool(vectors=np.array(x, np.float32), columns={"w": np.array(weights)}, already_selected=list(taken))
    picked = select(["facility_location"], Pool(vectors=pool.get_vectors(), already_selected=[2]), budget=1)
    assert picked.rows.tolist() == [0]
    picked = select([FacilityLocation(weights="w")], pool, budget=1)
    assert (picked.rows.tolist(), picked.gain.tolist()) == ([0], [pytest.approx(1.7071067811865475, rel=1e-6)])


@pytest.mark.parametrize("seed", range(6))
def test_select__whole_weights_are_counted_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (40, 2)).astype(np.float32)  # few directions, so ties all over
    weights = rng.integers(0, 6, 40) * (0.25 if seed % 2 else 1.0)
    pool = Pool(vectors=x, columns={"w": weights}, already_selected=[5])
    picked = select([FacilityLocation(weights="w")], pool, budget=30)
    assert picked.rows.tolist() == exact_naive(x.tolist(), weights.tolist(), 30, (5,))


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ([6, 4, 0], [3, 2, 0]),
        ([0.1, 0.2, 0.3], [1, 2, 3]),
        ([0.5, 1.75], [2, 7]),
        ([5, 5, 5], [1, 1, 1]),
        ([0, 0], [0, 0]),
        ([1 / 3, np.pi], [1 / 3 / np.pi, 1]),  # not in proportion to whole numbers that are small enough
        ([1, 1e12], [1e-12, 1]),
        ([], []),
    ],
)
def test_scaled__the_smallest_whole_numbers_in_proportion(weights: list[float], whole: list[float]) -> None:
    scaled, scale, unit = kernel.scaled(np.array(weights, float))
    assert scaled.tolist() == whole
    np.testing.assert_allclose(scaled * scale, weights, rtol=1e-15)
    assert scaled.sum() * unit <= 2.0**62
    assert unit >= 2.0**32


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_select__kept_similarities_change_no_pick(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = clustered(400, 24, 1)
    x[50:70] = x[50]
    whole = run(x, 120, mode="exact")
    monkeypatch.setattr(kernel, "CHUNK_ROWS", chunk)
    for memory in (1e-9, 1e-4):
        part = run(x, 120, mode="exact", memory_gb=memory)
        assert part.rows.tolist() == whole.rows.tolist()
        assert part.gain.tolist() == whole.gain.tolist()


def naive_units(s: np.ndarray, weights: np.ndarray, k: int, taken: np.ndarray) -> list[int]:
    """Look at every candidate before each pick, similarities [candidate, reference] and weights in whole numbers."""
    units = np.rint(s * 2.0**40).astype(np.int64)
    covered = units[taken].max(axis=0, initial=0)
    rows: list[int] = []
    for _ in range(k):
        gain = np.maximum(units - covered, 0) @ weights
        gain[[*rows, *taken]] = -1
        rows.append(int(gain.argmax()))  # the lowest row of the highest gain
        covered = np.maximum(covered, units[rows[-1]])
    return rows


@pytest.mark.parametrize("how", ["in bytes", "singly", "all at once"])
@pytest.mark.parametrize("references", [1, 17, 130])
@pytest.mark.parametrize("units", [0, 3, 8, 40])  # entries for each row: 130 compressed similarities take 3 to 20
def test_coverage__what_is_kept_changes_no_pick(
    units: int, references: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = {"in bytes": 1 / 6, "singly": 2, "all at once": -1}[how]
    for name, value in {"CHUNK_ROWS": 64, "SEEDS": 3, "OPEN_ROWS": 7, "OPEN_SHARE": share}.items():
        monkeypatch.setattr(kernel, name, value)
    in_bytes = how == "in bytes" and quantized.has_instruction()
    monkeypatch.setattr(estimates, "PAIRS", 0 if in_bytes else 2**40)
    name = {"in bytes": "_estimate", "singly": "_multiply_singly", "all at once": "_multiply_in_place"}[how]
    multiply, multiplied = getattr(kernel._Kept, name), []

    def counted(self: object, *arguments: np.ndarray) -> None:
        multiplied.extend(next(rows for rows in arguments if isinstance(rows, np.ndarray)))
        multiply(self, *arguments)

    monkeypatch.setattr(kernel._Kept, name, counted)
    for seed in range(3):
        x = clustered(700, 18, seed)
        x[50:70], x[80:90], x[300:302] = x[50], 0, x[65]  # gains that tie, and zero vectors
        rng = np.random.default_rng(seed)
        refs = np.sort(rng.permutation(700)[:references])
        weights = rng.integers(0, 4, 700) if seed else np.ones(700, np.int64)
        taken = np.array([5, 51, 81]) if seed == 2 else np.empty(0, np.int64)
        known = Pool(vectors=x).get_vectors()
        coverage = kernel.Coverage(
            known, references=refs, weights=weights.astype(float), taken=taken, max_bytes=700 * 8 * units
        )
        rows, gain = coverage.greedy(np.setdiff1d(np.arange(700), taken), 90)
        s = similarities(x)[:, refs]
        assert rows.tolist() == naive_units(s, weights[refs], 90, taken)
        covered = s[[*taken, *rows]].max(axis=0)
        np.testing.assert_allclose(coverage.before + gain.sum(), covered @ weights[refs], rtol=1e-9)
    if how == "in bytes":
        assert bool(multiplied) == in_bytes
    elif references == 130 and units == 8:  # lists of all rows do not fit, compressed similarities do
        assert len(multiplied) > 500


@pytest.mark.parametrize("kind", ["large feature", "near copies", "heavy weights", "one direction"])
@pytest.mark.parametrize("memory", [0, 2**15, 2**24])
def test_coverage__estimates_change_no_pick(kind: str, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "PAIRS", 0)
    rng = np.random.default_rng(7)
    x, weights = clustered(900, 70, 3), np.ones(900, np.int64)
    if kind == "large feature":
        x[:, 3] *= 40
    elif kind == "near copies":
        x = x[rng.integers(30, size=900)] * (1 + 1e-4 * rng.normal(size=x.shape)).astype(np.float32)
    elif kind == "heavy weights":
        weights = np.exp(rng.normal(size=900) * 3).astype(np.int64)
    else:
        x += 3 * np.ones(70, np.float32)
    refs, none = np.sort(rng.permutation(900)[:400]), np.empty(0, np.int64)
    known = Pool(vectors=x).get_vectors()
    coverage = kernel.Coverage(known, references=refs, weights=weights.astype(float), taken=none, max_bytes=memory)
    first = coverage.greedy(np.arange(900), 40)[0]
    rows = np.concatenate([first, coverage.greedy(np.setdiff1d(np.arange(900), first), 60)[0]])
    assert rows.tolist() == naive_units(similarities(x)[:, refs], weights[refs], 100, none)


@pytest.mark.parametrize("memory", [0, 2**30])
@pytest.mark.parametrize("kind", ["one direction", "near copies"])
def test_coverage__rows_of_equal_bounds_are_not_multiplied_again_and_again(
    kind: str, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x = np.tile(rng.normal(size=24), (600, 1))
    x = x * rng.uniform(0.5, 2, (600, 1)) if kind == "one direction" else x + 1e-4 * rng.normal(size=x.shape)
    multiplied = []
    multiply = kernel._Kept._multiply

    def counted(self: kernel._Kept, rows: np.ndarray, first: int) -> None:
        multiplied.extend(rows)
        multiply(self, rows, first)

    monkeypatch.setattr(kernel._Kept, "_multiply", counted)
    known = Pool(vectors=x.astype(np.float32)).get_vectors()
    coverage = kernel.Coverage(known, taken=np.empty(0, np.int64), max_bytes=memory)
    rows = coverage.greedy(np.arange(600), 3)[0]
    none = np.empty(0, np.int64)
    assert rows.tolist() == naive_units(similarities(x.astype(np.float32)), np.ones(600, np.int64), 3, none)
    assert len(multiplied) <= 600 * 8


def test_coverage__without_the_instruction_makes_the_same_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "PAIRS", 0)
    x = clustered(800, 40, 5)
    expected = run(x, 100, mode="reference", n_ref=300)
    monkeypatch.setattr(quantized, "has_instruction", lambda: False)
    monkeypatch.setattr(kernel, "Estimates", None)  # not to be made
    got = run(x, 100, mode="reference", n_ref=300)
    assert (got.rows.tolist(), got.gain.tolist()) == (expected.rows.tolist(), expected.gain.tolist())


@pytest.mark.parametrize("pairs", [0, 2**40])  # in bytes, where the processor multiplies these, or not
@pytest.mark.parametrize("memory", [1e-9, 1e-4])
def test_coverage__bounds_of_other_processes_leave_few_rows_and_change_no_pick(
    memory: float, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "PAIRS", pairs)
    monkeypatch.setattr(kernel, "CHUNK_ROWS", 32)
    monkeypatch.setattr(kernel, "PARTED_PRODUCTS", 0)
    x = clustered(600, 24, 1)
    x[50:70], x[80:90] = x[50], 0
    measured: list[int] = []
    similarities_of = kernel.Coverage.similarities

    def counted(self: kernel.Coverage, rows: np.ndarray, *out: np.ndarray) -> tuple:
        measured.append(len(rows))
        return similarities_of(self, rows, *out)

    monkeypatch.setattr(kernel.Coverage, "similarities", counted)
    estimate = kernel._Kept._estimate

    def counted_too(self: kernel._Kept, made: object, rows: np.ndarray, base: int) -> None:
        measured.append(len(rows))
        estimate(self, made, rows, base)

    monkeypatch.setattr(kernel._Kept, "_estimate", counted_too)
    picks, counts = [], []
    for vectors in (ArrayVectors(x), in_parts(ArrayVectors(x))):
        measured.clear()
        pool = Pool(vectors=vectors, already_selected=[5, 81])
        options = {"mode": "reference", "n_ref": 80, "memory_gb": memory}
        picked = select([{"facility_location": options}], pool, budget=120, seed=3)
        picks.append((picked.rows.tolist(), picked.gain.tolist()))
        counts.append(sum(measured))
    assert picks[0] == picks[1]
    assert counts[1] < counts[0] * (1 / 2 if pairs else 2 / 3), counts  # estimates are not as close


@pytest.mark.parametrize("mode", ["exact", "knn"])
def test_select__whole_pool_with_copies_and_zeros_and_little_memory(mode: str) -> None:
    x = clustered(90, 8, 0)
    x[10:40] = x[10]
    x[40:50] = 0
    picked = run(x, 90, mode=mode, memory_gb=1e-9)
    assert sorted(picked.rows.tolist()) == list(range(90))
    last = picked.rows[np.isin(picked.rows, [*range(11, 50)])]
    assert picked.rows[-39:].tolist() == last.tolist() == sorted(last.tolist())  # gain 0: by row
    assert (picked.gain[-39:] == 0).all()


def test_select__ties_in_truth_tie_whatever_the_order() -> None:
    # Pairs that are near nothing else: in each the two have the same gain.
    rng = np.random.default_rng(5)
    x = np.zeros((40, 40), np.float32)
    for i in range(20):
        x[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[1, 0.5], [0.5, 1]]
    x *= rng.random(40).astype(np.float32)[:, None] + 0.5
    order = rng.permutation(40)
    assert set((run(x, 20).rows // 2).tolist()) == set(range(20))
    picked = run(x[order], 20)
    assert set((order[picked.rows] // 2).tolist()) == set(range(20))


@pytest.mark.parametrize("seed", range(5))
def test_coverage__a_bound_is_never_below_the_gain_and_close_to_it(seed: int) -> None:
    x = clustered(300, 48, seed)
    rng = np.random.default_rng(seed)
    weights = rng.random(300) * (rng.random(300) < 0.8)
    taken = rng.choice(300, seed * 5, replace=False)
    known = Pool(vectors=x).get_vectors()
    coverage = kernel.Coverage(known, weights=weights, taken=taken, max_bytes=2**20)
    s = similarities(x)
    covered = s[taken].max(axis=0) if len(taken) else np.zeros(300)
    gain = np.maximum(s - covered, 0) @ weights
    rows = np.setdiff1d(np.arange(300), taken)
    for bound in (1e-8, 2e-2):  # the closed form, which knows nothing of what is taken, then the coarse similarities
        upper = coverage.upper[rows] / coverage.unit * coverage.scale
        assert (upper >= gain[rows] - 1e-9).all()
        if bound > 1e-2 or not len(taken):
            np.testing.assert_allclose(upper, gain[rows], rtol=bound, atol=1e-3)
        coverage.bound(rows, coverage.similarities(rows)[0])


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 10), k=st.integers(1, 3), d=st.integers(1, 4))
def test_select__value_is_at_least_what_greedy_promises(seed: int, n: int, k: int, d: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    s = similarities(x)
    best = max(value(s, list(rows)) for rows in combinations(range(n), k))
    assert value(s, run(x, k).rows.tolist()) >= (1 - 1 / np.e) * best - 1e-9


def test_select__already_selected_rows_cover() -> None:
    x = clustered(200, 12, 3)
    rows, _ = naive(similarities(x), 15, taken=(4, 17, 90))
    picked = select([FacilityLocation()], Pool(vectors=x, already_selected=[4, 17, 90]), budget=15)
    assert picked.rows.tolist() == rows
    s = similarities(x)
    assert picked.reason.value[-1] == pytest.approx(value(s, [4, 17, 90, *rows]) / 200, rel=1e-6)


def test_select__reference_covers_a_sample_that_follows_the_keys() -> None:
    x = clustered(300, 12, 3)
    keys = np.random.default_rng(0).integers(0, 2**63, 300)
    step = FacilityLocation(mode="reference", n_ref=80)
    picked = select([step], Pool(vectors=x, keys=keys), budget=20)
    order = np.random.default_rng(1).permutation(300)
    again = select([step], Pool(vectors=x[order], keys=keys[order]), budget=20)
    assert picked.rows.tolist() == order[again.rows].tolist()
    s = similarities(x)
    assert value(s, picked.rows.tolist()) > 0.97 * value(s, run(x, 20).rows.tolist())


def test_select__reference_reports_what_it_reaches_on_rows_held_out() -> None:
    x = clustered(400, 12, 3)
    x[7] = 0
    s = similarities(x)
    weights = np.random.default_rng(2).random(400)
    weights[:20] = 0
    pool = Pool(vectors=x, already_selected=[30, 31], columns={"w": weights})
    picked = select([FacilityLocation(mode="reference", n_ref=200, weights="w")], pool, budget=15)
    # 200 references leave 180 rows with a weight: all of them are held out. What covers them is in the picks.
    reached = picked.reason.value
    assert (np.diff(reached) >= 0).all()
    whole = [np.average(s[[30, 31, *picked.rows[: i + 1]]].max(axis=0), weights=weights) for i in range(15)]
    np.testing.assert_allclose(reached, whole, atol=0.02)
    sample = np.array([0, 7, 100, 399])
    weights[0] = 2
    known = pool.get_vectors()
    taken = np.array([30, 31])
    exact = kernel.mean_similarity_after(known, sample, picked.rows, weights=weights, taken=taken)
    cover = [s[[30, 31, *picked.rows[: i + 1]]].max(axis=0)[sample] for i in range(15)]
    np.testing.assert_allclose(exact, [np.average(c, weights=weights[sample]) for c in cover], rtol=1e-12)


def test_select__more_references_than_rows_is_exact() -> None:
    x = clustered(100, 12, 3)
    assert run(x, 10, mode="reference", n_ref=100).rows.tolist() == run(x, 10, mode="exact").rows.tolist()


def test_select__auto_goes_by_memory() -> None:
    x = clustered(300, 8, 2)
    exact, reference = run(x, 10, mode="exact"), run(x, 10, mode="reference", n_ref=50)
    assert exact.rows.tolist() != reference.rows.tolist()
    assert run(x, 10, mode="auto", n_ref=50).rows.tolist() == exact.rows.tolist()
    assert run(x, 10, mode="auto", n_ref=50, memory_gb=1e-4).rows.tolist() == reference.rows.tolist()


def test_select__knn_of_all_neighbours_is_exact_and_of_few_is_close() -> None:
    x = clustered(200, 12, 4)
    s = similarities(x)
    exact = run(x, 20, mode="exact").rows.tolist()
    assert run(x, 20, mode="knn", n_neighbors=200).rows.tolist() == exact
    assert value(s, run(x, 20, mode="knn", n_neighbors=20).rows.tolist()) > 0.95 * value(s, exact)


def of_neighbours(s: np.ndarray, k: int) -> np.ndarray:
    """s where a row's k nearest others, or itself, cover it; 0 elsewhere. [candidate, covered row]"""
    sparse = np.zeros_like(s)
    for i in range(len(s)):
        others = [j for j in np.argsort(-s[i], kind="stable").tolist() if j != i]
        for j in [i, *others[:k]]:
            sparse[j, i] = s[i, j]
    return sparse


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 5, 40])
def test_select__knn_counts_so_many_other_rows(seed: int, k: int) -> None:
    x = clustered(200, 12, seed)
    assert run(x, 20, mode="knn", n_neighbors=k).rows.tolist() == naive(of_neighbours(similarities(x), k), 20)[0]


@pytest.mark.parametrize("mode", ["long", "copies", "two", "zero"])
def test_select__knn_of_rows_that_are_not_their_own_nearest(mode: str) -> None:
    x = clustered(60, 4, 3)
    if mode == "long":  # the highest inner product is with the longest rows
        x *= np.exp2(np.arange(60) % 7).astype(np.float32)[:, None]
    elif mode == "copies":  # a row is not the first among its copies
        x[20:26] = x[20]
        assert neighbour_lists(Pool(vectors=x).get_vectors(), 3)[0][-1] == 60 * 4
        return
    elif mode == "two":
        x = x[:2]
    else:
        x[7] = 0
    budget = min(20, len(x))
    rows = run(x, budget, mode="knn", n_neighbors=3).rows.tolist()
    assert rows == naive(of_neighbours(similarities(x), 3), budget)[0]


def test_select__version_1_draws_as_before() -> None:
    x = clustered(200, 12, 4)
    s = similarities(x)
    near = np.argsort(-s, axis=1, kind="stable")[:, :5]  # itself among them
    sparse = np.zeros_like(s)
    np.put_along_axis(sparse, near, np.take_along_axis(s, near, 1), 1)
    assert run(x, 20, mode="knn", n_neighbors=5, version=1).rows.tolist() == naive(sparse.T, 20)[0]
    assert run(x, 20, version=1).gain.tolist() == run(x, 20).gain.tolist()
    points, weights, taken = TIES[0]
    pool = Pool(vectors=np.array(points, np.float32), columns={"w": np.array(weights)}, already_selected=list(taken))
    assert select([FacilityLocation(weights="w", version=1)], pool, budget=1).rows.tolist() == [1]


def test_select__stochastic_keeps_its_promise_on_average_and_looks_at_all_for_tiny_eps() -> None:
    x = clustered(150, 8, 6)
    s = similarities(x)
    best = run(x, 10, mode="exact")
    values = [
        value(
            s, select([FacilityLocation(mode="stochastic", eps=0.2)], Pool(vectors=x), budget=10, seed=i).rows.tolist()
        )
        for i in range(20)
    ]
    assert np.mean(values) >= (1 - 1 / np.e - 0.2) * value(s, best.rows.tolist())
    assert np.mean(values) > 0.97 * value(s, best.rows.tolist())
    assert run(x, 10, mode="stochastic", eps=1e-6).rows.tolist() == best.rows.tolist()


def test_select__large_and_tiny_vectors_count_by_direction() -> None:
    x = clustered(80, 8, 6)
    scale = np.exp2(np.random.default_rng(0).integers(-40, 40, 80)).astype(np.float32)
    assert run(x * scale[:, None], 20).rows.tolist() == run(x, 20).rows.tolist()


def test_select__storage_order_does_not_matter() -> None:
    x = clustered(120, 8, 6)
    assert (
        select(["facility_location"], Pool(vectors=ArrayVectors(x, block_rows=7)), budget=9).rows.tolist()
        == run(x, 9).rows.tolist()
    )


@pytest.mark.parametrize(("weights", "message"), [([1, -1, 1], "row 1 is -1"), ([0, 0, 0], "every weight is 0")])
def test_select__bad_weights_are_named(weights: list[float], message: str) -> None:
    pool = Pool(vectors=np.eye(3, dtype=np.float32), columns={"w": np.array(weights, float)})
    with pytest.raises(InvalidInput, match=message):
        select([FacilityLocation(weights="w")], pool, budget=1)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "lazy"},
        {"n_ref": 0},
        {"n_neighbors": 0},
        {"eps": 0},
        {"eps": 1},
        {"weights": ""},
        {"memory_gb": 0},
        {"version": 3},
    ],
)
def test_options__out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InvalidOption):
        build_step({"facility_location": options})


def test_options__round_trip() -> None:
    step = FacilityLocation(mode="knn", n_ref=3, n_neighbors=4, eps=0.3, weights="w", memory_gb=2.0)
    assert FacilityLocation(**step_spec(step)["facility_location"]) == step
