"""Every registered step meets the contract, and the contract can fail: faulty copies of steps are each caught."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from selection import ArrayVectors, Filter, Input, Pool, Reason, Scorer, Selection, Selector, step_names
from selection.checks import CHECKS, BrokenContract, check_step
from selection.filters.anchors import Anchors
from selection.filters.best_of import BestOf
from selection.filters.decontaminate import Decontaminate
from selection.filters.keep_top import KeepTop
from selection.filters.near_duplicates import NearDuplicates
from selection.filters.outliers import Outliers
from selection.filters.random_subpool import RandomSubpool
from selection.filters.seals import Seals
from selection.filters.semdedup import SemDedup
from selection.registry import BUILT_IN, find_step
from selection.scorers.betr import Betr
from selection.scorers.cal import Cal
from selection.scorers.class_probability import ClassProbability
from selection.scorers.column import Column
from selection.scorers.combine import Combine
from selection.scorers.committee import Bald, CommitteeKL, VoteEntropy
from selection.scorers.density import Density
from selection.scorers.dsir import Dsir
from selection.scorers.epig import Epig
from selection.scorers.expected_gradient_length import ExpectedGradientLength
from selection.scorers.expression import Expression
from selection.scorers.likelihood import Ifd, Perplexity, TokenUncertainty
from selection.scorers.prototypicality import Prototypicality
from selection.scorers.rds import RdsMax, RdsMean
from selection.scorers.training_dynamics import Aum, Cartography, El2n, Forgetting
from selection.scorers.uncertainty import Entropy, ExpectedCost, LeastConfidence, Margin
from selection.selectors.badge import Badge
from selection.selectors.batch_bald import BatchBald
from selection.selectors.ccs import Ccs
from selection.selectors.clue import Clue
from selection.selectors.diversity_filter import DiversityFilter
from selection.selectors.facility_location import FacilityLocation
from selection.selectors.falcun import Falcun
from selection.selectors.herding import Herding
from selection.selectors.influence import Influence
from selection.selectors.interests import Interests
from selection.selectors.k_center import KCenter
from selection.selectors.kmeans_pp import KMeansPP
from selection.selectors.lightweight import Lightweight
from selection.selectors.pcoreset import PCoreSet
from selection.selectors.probcover import ProbCover
from selection.selectors.random import Random
from selection.selectors.ranked_batch import RankedBatch
from selection.selectors.rds_plus import RdsPlus
from selection.selectors.rs2 import Rs2
from selection.selectors.stochastic import Power, Softmax, Softrank
from selection.selectors.stratified import Stratified
from selection.selectors.top import Top
from selection.selectors.tsds import Tsds
from selection.selectors.typiclust import TypiClust
from selection.selectors.vote_k import VoteK

STEPS = [
    Anchors(rows=30),
    Anchors(n_anchors=3, n_neighbors=12, rows=25, aggregation="max", balanced=False, choose="random"),
    Anchors(n_anchors=2, n_neighbors=20, rows=25, aggregation="mean_all", local_trials=3),
    Anchors(n_neighbors=20, rows=25, choose="all"),
    BestOf(by="prompt_id"),
    BestOf(by="prompt_id", score="length"),
    BestOf(by="question_id", score="depth"),
    Decontaminate(),
    Decontaminate(n=3, short_n=3, threshold=0.5),
    Decontaminate(n=6, short_n=2, threshold=1.0, similarity=0.9),
    KeepTop(times=1.5),
    KeepTop(times=2.5),
    RandomSubpool(rows=30),
    RandomSubpool(rows=40),
    NearDuplicates(),
    NearDuplicates(threshold=1.0, unit="char", length=6, num_perm=64, column="length"),
    Outliers(drop=0.1),
    Outliers(drop=0.25, n_neighbors=3),
    Outliers(drop=0.1, fields=["forgotten"]),
    Seals(n_neighbors=20),
    Seals(n_neighbors=20, rows=25),
    Seals(n_neighbors=12),
    SemDedup(eps=0.002),
    SemDedup(eps=0.05),
    SemDedup(eps=0.002, n_clusters=1, prefer="column", column="length", rule="component"),
    SemDedup(eps=0.002, n_clusters=3, prefer="random", rule="reference"),
    Bald(),
    Betr(),
    Betr(sample=30, aggregate="mean", equal_sets=False),
    Betr(sample=30, value="inverse", classifier="texts"),
    Cal(),
    Cal(n_neighbors=2),
    ClassProbability(of=0),
    ClassProbability(of=3),
    Column(field="length"),
    Column(field="length", descending=False),
    Column(field="depth"),
    Combine(weights={"rds_max": 1, "column": [{"field": "length", "weight": 0.5}, {"field": "depth", "weight": -1}]}),
    CommitteeKL(),
    CommitteeKL(over="max"),
    Density(),
    Density(beta=0.5),
    Dsir(),
    Dsir(length_normalize=False, laplace=0, min_tokens=5, buckets=64, hash="sha256"),
    Entropy(),
    Epig(targets=20),
    Epig(targets=1000),
    Expression(sql="length / 2"),
    Expression(sql="-length"),
    ExpectedCost(cost=[[0, 1, 5, 1], [1, 0, 1, 1], [10, 1, 0, 1], [2, 1, 1, 0]]),
    ExpectedCost(cost=[[0, 1, 5, 1], [1, 0, 1, 1], [10, 1, 0, 1], [2, 1, 1, 0]], by="margin"),
    ExpectedGradientLength(),
    ExpectedGradientLength(squared=True),
    Ifd(),
    Ifd(answer="length", alone="depth"),
    LeastConfidence(),
    Margin(),
    Perplexity(tokens=None),
    Perplexity(nll="length", tokens=None, prefer="bottom"),
    Perplexity(nll="length", tokens=None, prefer="middle"),
    Perplexity(nll="length", tokens=None, prefer="middle", middle="third"),
    Prototypicality(),
    Prototypicality(n_clusters=3, prefer="near"),
    RdsMax(),
    RdsMax(per="subtask"),
    RdsMean(),
    RdsMean(normalized=True),
    Aum(fields=["epoch_0", "epoch_1"], descending=False),
    Aum(fields="ready"),
    Cartography(fields="ready"),
    Cartography(fields="ready", descending=False),
    El2n(fields=["epoch_0", "epoch_1"]),
    El2n(fields="ready", descending=False),
    Forgetting(fields="forgotten"),
    Forgetting(fields="forgotten", descending=False, never_learned="zero"),
    TokenUncertainty(),
    TokenUncertainty(field="length", descending=False),
    VoteEntropy(),
    Badge(),
    Badge(greedy=True),
    BatchBald(candidates=25),
    BatchBald(candidates=1000),
    Ccs(beta=0, n_strata=4, hard="high", within={"rds_plus": {}}),
    Ccs(beta=0, cut_by="length"),
    Clue(),
    DiversityFilter(),
    DiversityFilter(tau=1.0),
    FacilityLocation(),
    FacilityLocation(mode="reference", n_ref=50),
    FacilityLocation(mode="knn", n_neighbors=6),
    FacilityLocation(mode="stochastic"),
    FacilityLocation(mode="stochastic", eps=0.5),
    FacilityLocation(weights="length", memory_gb=1e-6),
    Falcun(),
    Falcun(gamma=0),
    Herding(),
    Herding(weights="length"),
    Influence(),
    Influence(n_neighbors=3),
    Interests(),
    Interests(n_clusters=1, smoothing=0),
    Interests(n_clusters=3, smoothing=1, n_neighbors=60),
    KCenter(),
    KCenter(first="farthest_from_mean", weights="length", outlier_quantile=0.1),
    KMeansPP(),
    KMeansPP(local_trials=3, max_rejects=2),
    KMeansPP(local_trials=2, weights="length"),
    Lightweight(),
    PCoreSet(),
    PCoreSet(first="farthest_from_mean", weights="length", outlier_quantile=0.1),
    ProbCover(delta=0.1),
    ProbCover(delta=0.1, when_covered="random"),
    ProbCover(delta=0.1, memory_gb=2),
    ProbCover(classes=20, alpha=1.0),
    Power(),
    Power(beta=0),
    Random(),
    RankedBatch(),
    RdsPlus(),
    RdsPlus(per="query"),
    RdsPlus(on_duplicate="advance"),
    RdsPlus(on_duplicate="advance", per="query", on_full_group="advance"),
    Rs2(),
    Rs2(tail="drop"),
    Softmax(),
    Softmax(beta=3.5),
    Softrank(),
    Softrank(beta=3),
    Stratified(),
    Stratified(by="source", alloc="equal", min_per_stratum=0, within="top"),
    Stratified(by="source", alloc="sqrt", within={"rds_plus": {"per": "query"}}),
    Top(),
    Tsds(),
    Tsds(alpha=1e-3, C=1, sigma=0, draw="ranked"),
    Tsds(alpha=1e-3, n_neighbors=3000),
    TypiClust(),
    TypiClust(n_neighbors=3, min_size=3, max_clusters=2, squared=True),
    VoteK(),
    VoteK(n_neighbors=5, buckets=True),
    VoteK(n_neighbors=5, rho=2),
]

# Gains that are whole numbers often tie, and the lowest row wins.
TIES = {"check_permuted_pool": "ties go to the lowest row"}
STOPS = "gives no row that covers nothing new"
KEEPS = "check_memory_grows_with_rows_alone"
FULL = ("check_identical_candidates", "check_whole_pool", "check_zero_vectors")
SKIPPED = {
    "best_of": TIES,
    "batch_bald": {KEEPS: "a budget of 500 takes minutes"},
    "DiversityFilter(tau=0.9)": dict.fromkeys(
        (*FULL, "check_already_selected_never_returned"), "gives no row that is like a taken one"
    ),
    "facility_location": {KEEPS: "keeps all similarities, up to memory_gb"},
    "influence": TIES,
    "perplexity": TIES,
    "interests": dict.fromkeys(("check_whole_pool", "check_zero_vectors"), "gives no row of a cluster without mass"),
    "semdedup": {KEEPS: "holds the vectors and pairs of its largest cluster"},
    "Tsds(alpha=0.001, C=1, sigma=0, n_neighbors=5000, draw='ranked')": TIES,
    "tsds": dict.fromkeys((*FULL, "check_already_selected_never_returned"), "gives no row of probability 0"),
    "typiclust": {
        KEEPS: "holds the distances within its largest cluster",
        "check_permuted_pool": "two rows that are left of a cluster tie, and the lowest wins",
    },
    "probcover": TIES | dict.fromkeys(FULL, STOPS),
    "vote_k": TIES | {KEEPS: "keeps 150 neighbours of each row"},
}


SLOW = [
    BatchBald(candidates=1000),
    BatchBald(candidates=25),
    Epig(),
    NearDuplicates(),
    TypiClust(n_neighbors=3, min_size=3, max_clusters=2, squared=True),
]


# The first of each step is checked by `make test`, the others and what takes long with the slow tests.
FIRST = {step.name: step for step in reversed(STEPS) if step not in SLOW}


@pytest.mark.parametrize(
    "step",
    [pytest.param(step, marks=[] if step is FIRST.get(step.name) else [pytest.mark.slow]) for step in STEPS],
    ids=str,
)
def test_check_step__every_step_meets_the_contract(step):
    check_step(step, skip=SKIPPED.get(str(step), SKIPPED.get(step.name)))


# Options that the contract cannot vary, and where they are tested.
VARIED_ELSEWHERE = {
    ("cartography", "fields"): "columns of epochs hold probabilities: scorers/test_training_dynamics.py",
    ("ccs", "beta"): "gives fewer rows than the budget: selectors/test_ccs.py",
    ("combine", "weights"): "scorers/test_combine.py",
    ("expected_cost", "cost"): "scorers/test_uncertainty.py",
    ("forgetting", "fields"): "columns of epochs hold 0 and 1: scorers/test_training_dynamics.py",
    ("ifd", "drop"): "columns hold zeros, by which nothing is divided: scorers/test_likelihood.py",
    ("k_center", "zero"): "gives fewer rows than the budget: selectors/test_k_center.py",
    ("kmeans_pp", "first"): "a row is another in another order: selectors/test_kmeans_pp.py",
    ("pcoreset", "zero"): "gives fewer rows than the budget: selectors/test_pcoreset.py",
    ("perplexity", "tokens"): "no row has no tokens: scorers/test_likelihood.py",
    ("stratified", "min_per_stratum"): "asks for a larger budget: selectors/test_stratified.py",
}


def test_check_step__every_option_is_checked_with_two_values():
    values: dict[tuple[str, str], set[str]] = {}
    for step in STEPS:
        for field in fields(step):
            if field.name != "version":  # older versions keep what they drew: tests of each step
                values.setdefault((step.name, field.name), set()).add(repr(getattr(step, field.name)))
    assert {option for option, seen in values.items() if len(seen) < 2} == set(VARIED_ELSEWHERE)
    folder = Path(__file__).parent
    for (_, option), reason in VARIED_ELSEWHERE.items():
        assert f"{option}=" in (folder / reason.split(": ")[-1]).read_text()


def test_check_step__every_built_in_step_is_checked():
    assert {type(step) for step in STEPS} == set(map(find_step, BUILT_IN))
    assert {step.name for step in STEPS} <= set(step_names())


def selection_of(rows, gain=None):
    rows = np.asarray(rows)
    return Selection(rows, np.zeros(len(rows), np.float32) if gain is None else gain, Reason.of("score", len(rows)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulty(Selector):
    name: ClassVar[str] = "faulty"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.SCORES})


class GlobalGenerator(Faulty):
    """Draws from np.random, as 60 calls in peers do."""

    def select(self, pool, budget, *, rng):
        rows = np.flatnonzero(pool.candidates)
        return selection_of(np.random.permutation(rows)[:budget])  # noqa: NPY002


class PicksSelectedAgain(Faulty):
    """Top scores without regard to what is already selected."""

    def select(self, pool, budget, *, rng):
        return selection_of(np.argsort(-pool.get_scores(), kind="stable")[:budget])


class TwoFrames(Faulty):
    """Returns positions among the candidates for rows of the pool (small-text greedy_coreset)."""

    def select(self, pool, budget, *, rng):
        rows = np.flatnonzero(pool.candidates)
        return selection_of(np.argsort(-pool.get_scores()[rows], kind="stable")[:budget])


class MaskThenUnmasked(Faulty):
    """Marks a taken score by 0, which is no mark where all scores are 0 or the same (bmdal)."""

    def select(self, pool, budget, *, rng):
        scores = pool.get_scores() * pool.candidates
        picked = []
        for _ in range(budget):
            picked.append(int(np.argmax(scores)))
            scores[picked[-1]] = scores.min()
        return selection_of(picked)


class WritesTheScores(Faulty):
    """Masks in the caller's array."""

    def select(self, pool, budget, *, rng):
        scores = pool.get_column("score")
        scores[~pool.candidates] = -np.inf
        rows = np.argsort(-scores, kind="stable")[:budget]
        return selection_of(rows)

    needs: ClassVar[frozenset[Input]] = frozenset({Input.COLUMNS})
    columns: ClassVar[frozenset[str]] = frozenset({"score"})


class TopsUpAtRandom(Faulty):
    """Fills what a deterministic rule does not give from a generator of its own, seeded by nothing."""

    def select(self, pool, budget, *, rng):
        rows = np.flatnonzero(pool.candidates)
        best = rows[pool.get_scores()[rows] > 0.9]
        rest = np.random.default_rng().permutation(np.setdiff1d(rows, best))
        return selection_of(np.concatenate([best, rest])[:budget])


class BlockOffsetForgotten(Faulty):
    """Numbers the rows of each block from zero (small-text lightweight_coreset)."""

    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def select(self, pool, budget, *, rng):
        size = np.full(len(pool), -1.0)
        for _, block in pool.get_vectors().blocks():
            size[: len(block)] = np.maximum(size[: len(block)], np.abs(block).sum(axis=1))
        size[~pool.candidates] = -2
        return selection_of(np.argsort(-size, kind="stable")[:budget])


class TiesByStorageOrder(Faulty):
    """Settles ties by what was read first."""

    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def select(self, pool, budget, *, rng):
        entries = [
            (-abs(float(v[0])), int(r)) for rows, b in pool.get_vectors().blocks() for r, v in zip(rows, b, strict=True)
        ]
        entries.sort(key=lambda entry: entry[0])
        return selection_of([row for _, row in entries if pool.candidates[row]][:budget])


class HidesNaN(Faulty):
    """Replaces values that are not finite (baal)."""

    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def select(self, pool, budget, *, rng):
        first = np.nan_to_num(pool.get_vectors().take(np.arange(len(pool)))[:, 0], posinf=0, neginf=0)
        rows = np.flatnonzero(pool.candidates)
        return selection_of(rows[np.argsort(-first[rows], kind="stable")[:budget]])


class ReadsUndeclaredInput(Faulty):
    """Uses labels that it does not declare."""

    def select(self, pool, budget, *, rng):
        rows = np.flatnonzero(pool.candidates)
        return selection_of(rows[np.argsort(pool.get_labels()[rows], kind="stable")[:budget]])


class ClaimsNested(Faulty):
    """Takes every second row of twice the budget."""

    nested: ClassVar[bool] = True

    def select(self, pool, budget, *, rng):
        rows = np.flatnonzero(pool.candidates)
        ordered = rows[np.argsort(-pool.get_scores()[rows], kind="stable")]
        return selection_of(ordered[:budget][::-1])


class ClaimsIncremental(Faulty):
    """A fresh stream of noise by row, which shifts when rows are taken."""

    incremental: ClassVar[bool] = True

    def select(self, pool, budget, *, rng):
        rows = np.flatnonzero(pool.candidates)
        return selection_of(rng.permutation(rows)[:budget])


class Remembers(Faulty):
    """Keeps state between calls (google/active-learning kcenter_greedy)."""

    seen: ClassVar[dict[str, Any]] = {"calls": 0}

    def select(self, pool, budget, *, rng):
        self.seen["calls"] += 1
        rows = np.roll(np.flatnonzero(pool.candidates), self.seen["calls"])
        return selection_of(rows[:budget])


class NoiseByRow(Faulty):
    """Noise by place in the pool, so the draw depends on its order."""

    def select(self, pool, budget, *, rng):
        noise = rng.random(len(pool))
        noise[~pool.candidates] = -1
        return selection_of(np.argsort(-noise)[:budget])


class DividesByNorm(Faulty):
    """Cosine with no thought of zero vectors."""

    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def select(self, pool, budget, *, rng):
        vectors = pool.get_vectors().take(np.arange(len(pool)))
        with np.errstate(all="ignore"):
            cosine = vectors[:, 0] / np.linalg.norm(vectors, axis=1)
        rows = np.flatnonzero(pool.candidates)[:budget]
        return selection_of(rows, gain=cosine[rows].astype(np.float32))


class ShortWithoutSaying(Faulty):
    """Gives less than was asked for."""

    def select(self, pool, budget, *, rng):
        return selection_of(np.flatnonzero(pool.candidates)[: budget - budget // 10])


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionIsASet(Faulty):
    """An option that JSON cannot hold."""

    wanted: frozenset[int] = frozenset({1})

    def select(self, pool, budget, *, rng):
        return selection_of(np.flatnonzero(pool.candidates)[:budget])


class ScoresNothing(Scorer):
    """A score for the candidates only, so the frame is lost."""

    name = "scores_nothing"

    def score(self, pool, *, rng):
        return np.zeros(int(pool.candidates.sum()), np.float32)


class ScoresByStandardizing(Scorer):
    """Divides by the spread of the pool, which may be 0."""

    name = "standardized"
    needs = frozenset({Input.VECTORS})

    def score(self, pool, *, rng):
        first = pool.get_vectors().take(np.arange(len(pool)))[:, 0].astype(np.float64)
        with np.errstate(all="ignore"):
            return ((first - first.mean()) / first.std()).astype(np.float32)


class KeepsRowsTwice(Filter):
    """Rows near several anchors are named by each."""

    name = "keeps_twice"

    def keep(self, pool, budget, *, rng):
        rows = np.flatnonzero(pool.candidates)
        return np.concatenate([rows[:30], rows[20:]])


class KeepsAllDistances(Faulty):
    """Greedy k-center that keeps the distance of each row to each pick (DeepCore)."""

    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def select(self, pool, budget, *, rng):
        vectors = pool.get_vectors().take(np.arange(len(pool))).astype(np.float32)
        distance = np.full((len(pool), budget + 1), np.inf, np.float32)
        distance[~pool.candidates] = -np.inf
        picked = []
        for t in range(budget):
            picked.append(int(np.argmax(distance.min(axis=1))))
            distance[:, t + 1] = np.linalg.norm(vectors - vectors[picked[-1]], axis=1)
            distance[picked[-1]] = -np.inf
        return selection_of(picked)


FAULTS = {
    KeepsAllDistances: KEEPS,
    GlobalGenerator: "check_same_seed_same_rows",
    PicksSelectedAgain: "check_already_selected_never_returned",
    TwoFrames: "check_already_selected_never_returned",
    MaskThenUnmasked: "check_whole_pool",
    WritesTheScores: "check_inputs_not_written",
    TopsUpAtRandom: "check_same_seed_same_rows",
    BlockOffsetForgotten: "check_blocks_do_not_matter",
    TiesByStorageOrder: "check_blocks_do_not_matter",
    HidesNaN: "check_bad_value_named",
    ReadsUndeclaredInput: "check_declared_needs_suffice",
    ClaimsNested: "check_nested_where_claimed",
    ClaimsIncremental: "check_incremental_where_claimed",
    Remembers: "check_same_seed_same_rows",
    NoiseByRow: "check_permuted_pool",
    DividesByNorm: "check_zero_vectors",
    ShortWithoutSaying: "check_selection_is_well_formed",
    OptionIsASet: "check_options_round_trip",
    ScoresNothing: "check_already_selected_never_returned",
    ScoresByStandardizing: "check_identical_candidates",
    KeepsRowsTwice: "check_selection_is_well_formed",
}


def failing_checks(step):
    names = []
    for check in CHECKS:
        others = {c.__name__: "not now" for c in CHECKS if c is not check}
        try:
            check_step(step, skip=others)
        except BrokenContract:
            names.append(check.__name__)
    return names


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda cls: cls.__name__)
def test_check_step__catches_a_faulty_copy(fault):
    with pytest.raises(BrokenContract):
        check_step(fault())
    assert FAULTS[fault] in failing_checks(fault())


def test_check_step__global_generator_is_caught_by_its_own_check():
    assert "check_global_rng_untouched" in failing_checks(GlobalGenerator())


def test_check_step__skip_names_must_exist():
    with pytest.raises(ValueError, match="no such check: check_nothing"):
        check_step(Top(), skip={"check_nothing": "typo"})


def test_check_step__skipped_checks_are_not_run():
    check_step(
        NoiseByRow(), skip={"check_permuted_pool": "draws by row", "check_ineligible_rows_do_not_matter": "same"}
    )


def test_make_pool__array_vectors_are_read_only():
    block = next(ArrayVectors(np.zeros((2, 2), np.float32)).blocks())[1]
    with pytest.raises(ValueError, match="read-only"):
        block[0] = 1
    assert Pool(vectors=np.zeros((2, 2))).get_vectors().take(np.array([1])).shape == (1, 2)
