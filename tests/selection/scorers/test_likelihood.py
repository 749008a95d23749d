from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from selection import InvalidBudget, InvalidInput, InvalidOption, Pool, select
from selection.checks import check_step
from selection.scorers.likelihood import Ifd, Perplexity, TokenUncertainty


def picks(step: Any, budget: int, *, allow_short: bool = False, **columns: Any) -> list[int]:
    pool = Pool(columns={name: np.asarray(values, float) for name, values in columns.items()})
    return select([step], pool, budget=budget, allow_short=allow_short).rows.tolist()


def test_perplexity__known_answers() -> None:
    nll = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]
    assert picks(Perplexity(tokens=None, prefer="middle", middle="third"), 2, nll_sum=nll) == [8, 7]
    assert picks(Perplexity(tokens=None, prefer="middle"), 2, nll_sum=nll) == [6, 5]
    assert picks(Perplexity(tokens=None), 2, nll_sum=nll) == [11, 10]
    assert picks(Perplexity(tokens=None, prefer="bottom"), 2, nll_sum=nll) == [0, 1]


def literal_perplexity(sums: list[float], counts: list[float], prefer: str, middle: str, budget: int) -> list[int]:
    """The rows by sorting Python tuples."""
    descending = sorted(range(len(sums)), key=lambda row: (-(sums[row] / counts[row]), row))
    if prefer == "top":
        return descending[:budget]
    if prefer == "bottom":
        return sorted(range(len(sums)), key=lambda row: (sums[row] / counts[row], row))[:budget]
    start = int(0.33 * len(sums)) if middle == "third" else (len(sums) - budget) // 2
    return descending[start : start + budget]


@pytest.mark.parametrize("seed", range(80))
def test_perplexity__equals_a_literal_sort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 25))
    sums, counts = rng.integers(0, 9, n) / 4, rng.integers(1, 4, n).astype(float)
    for prefer, middle in (("top", "centred"), ("bottom", "centred"), ("middle", "centred"), ("middle", "third")):
        budget = int(rng.integers(1, n + 1))
        step = Perplexity(nll="s", tokens="t", prefer=prefer, middle=middle)
        expected = literal_perplexity(sums.tolist(), counts.tolist(), prefer, middle, budget)
        got = picks(step, budget, allow_short=True, s=sums, t=counts)
        assert (set(got) if middle == "centred" and prefer == "middle" else got) == (
            set(expected) if middle == "centred" and prefer == "middle" else expected
        )
        assert len(got) == len(expected)


def test_perplexity__a_window_that_runs_out_is_an_error() -> None:
    step = Perplexity(nll="s", tokens=None, prefer="middle", middle="third")
    with pytest.raises(InvalidBudget, match=r"budget must be in 0..3 \(candidates left after perplexity\), got 4"):
        picks(step, 4, s=[4, 3, 2, 1])
    assert picks(step, 4, allow_short=True, s=[4, 3, 2, 1]) == [1, 2, 3]


def test_ifd__known_answer() -> None:
    answer = [sum(-math.log(p) for p in (0.5, 0.25, 0.5)) / 3]
    alone = [sum(-math.log(p) for p in (0.25, 0.125, 0.25)) / 3]
    np.testing.assert_allclose([answer[0], alone[0]], [0.924196, 1.617343], atol=1e-6)
    pool = Pool(columns={"nll_answer": answer, "nll_alone": alone})
    np.testing.assert_allclose(select(["ifd"], pool, budget=1).gain, [0.571429], atol=1e-6)


@pytest.mark.parametrize("seed", range(80))
def test_ifd__equals_a_literal_ratio(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    answer, alone = rng.integers(0, 9, n) / 8, rng.integers(1, 9, n) / 8
    kept_if = {"at_least_1": lambda ratio: ratio < 1, "above_1": lambda ratio: ratio <= 1, "none": lambda _: True}
    for drop, keeps in kept_if.items():
        ratios = {row: answer[row] / alone[row] for row in range(n)}
        kept = sorted((row for row in ratios if keeps(ratios[row])), key=lambda row: (-ratios[row], row))
        pool = Pool(columns={"a": answer, "b": alone})
        selection = select([Ifd(answer="a", alone="b", drop=drop)], pool, budget=n, allow_short=True)
        assert selection.rows.tolist() == kept
        assert selection.gain.tolist() == [np.float32(ratios[row]) for row in kept]
        assert [report.rows.tolist() for report in selection.dropped] == (
            [sorted(set(range(n)) - set(kept))] if len(kept) < n else []
        )


def test_ifd__dropped_rows_do_not_fill_a_budget() -> None:
    columns = {"nll_answer": [1.0, 2.0, 3.0], "nll_alone": [2.0, 2.0, 2.0]}
    with pytest.raises(InvalidBudget, match=r"budget must be in 0..1 \(candidates left after ifd\), got 2"):
        picks("ifd", 2, **columns)
    assert picks(Ifd(drop="above_1"), 2, **columns) == [1, 0]
    assert picks(Ifd(drop="none"), 2, **columns) == [2, 1]
    with pytest.raises(InvalidBudget, match="candidates left after combine"):
        picks({"combine": {"ifd": 1, "column": {"field": "nll_alone", "weight": -2}}}, 2, **columns)
    assert picks({"combine": {"ifd": -1, "column": {"field": "nll_alone", "weight": 2}}}, 1, **columns) == [0]


def test_ifd__already_selected_rows_stay_where_they_are() -> None:
    columns = {"nll_answer": [3.0, 1.0, 0.5], "nll_alone": [2.0, 2.0, 2.0]}
    selection = select(["ifd"], Pool(columns=columns, already_selected=[0]), budget=2)
    assert selection.rows.tolist() == [1, 2]
    assert not any(len(report.rows) for report in selection.dropped)


@pytest.mark.parametrize(
    ("step", "columns", "message"),
    [
        (
            Ifd(),
            {"nll_answer": [1, np.nan], "nll_alone": [2, 2]},
            "column 'nll_answer': row 1 is nan, must be a finite",
        ),
        (
            Ifd(),
            {"nll_answer": [1, 1], "nll_alone": [2, -2]},
            "column 'nll_alone': row 1 is -2, but a negative log-lik",
        ),
        (
            Ifd(drop="none"),
            {"nll_answer": [1, 1], "nll_alone": [2, 0]},
            "column 'nll_alone': row 1 is 0, so there is no",
        ),
        (Ifd(drop="above_1"), {"nll_answer": [1, 0], "nll_alone": [2, 0]}, "'nll_alone': row 1 is 0, so there is no"),
        (Perplexity(), {"nll_sum": [1, 1], "n_tok": [0, 2]}, "column 'n_tok': row 0 is 0, must be > 0 tokens"),
        (Perplexity(), {"nll_sum": [1, np.inf], "n_tok": [1, 2]}, "column 'nll_sum': row 1 is inf"),
        (Perplexity(), {"nll_sum": [1, -0.5], "n_tok": [1, 2]}, "column 'nll_sum': row 1 is -0.5, but a negative"),
        (TokenUncertainty(), {"nll_mean": [1, -0.5]}, "column 'nll_mean': row 1 is -0.5, but a negative"),
        (TokenUncertainty(), {"nll_mean": [np.nan, 1]}, "column 'nll_mean': row 0 is nan"),
    ],
)
def test_likelihood__bad_values_name_column_and_row(step: Any, columns: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        picks(step, 1, **columns)


@pytest.mark.parametrize(
    ("step", "options", "message"),
    [
        (Perplexity, {"prefer": "mid"}, "prefer must be one of top, middle, bottom, got 'mid'"),
        (Perplexity, {"middle": 0.33}, "middle must be one of centred, third, got 0.33"),
        (Perplexity, {"nll": ""}, "nll must be a name"),
        (Perplexity, {"tokens": 3}, "tokens must be a name"),
        (Ifd, {"drop": 1}, "drop must be one of at_least_1, above_1, none, got 1"),
        (Ifd, {"alone": None}, "alone must be a name"),
        (TokenUncertainty, {"field": []}, "field must be a name"),
        (TokenUncertainty, {"descending": "no"}, "descending must be true or false"),
    ],
)
def test_likelihood__bad_options(step: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        step(**options)


def test_token_uncertainty__is_the_column() -> None:
    assert picks("token_uncertainty", 2, nll_mean=[1, 3, 2]) == [1, 2]
    assert picks(TokenUncertainty(field="q90", descending=False), 2, q90=[1, 3, 2]) == [0, 2]


@pytest.mark.parametrize(
    "step", [Ifd(drop="above_1"), Ifd(drop="none"), Perplexity(), Perplexity(prefer="bottom")], ids=str
)
def test_likelihood__contract_on_columns_without_zeros(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from selection import checks

    make_inputs = checks.make_inputs

    def positive(*args: Any, **options: Any) -> dict[str, Any]:
        inputs = make_inputs(*args, **options)
        return inputs | {"columns": {name: values + 1 for name, values in inputs["columns"].items()}}

    monkeypatch.setattr(checks, "make_inputs", positive)
    check_step(step)


def test_perplexity__a_permuted_pool_without_ties_has_the_same_scores() -> None:
    nll, order = np.random.default_rng(0).random((2, 50)).argsort(axis=1) / 7.0
    order = (7 * order).round().astype(int)
    for middle in ("centred", "third"):
        step = Perplexity(nll="s", tokens=None, prefer="middle", middle=middle)
        rng = np.random.default_rng(0)
        scores = step.score(Pool(columns={"s": nll}), rng=rng)
        assert (scores[order] == step.score(Pool(columns={"s": nll[order]}), rng=rng)).all()
