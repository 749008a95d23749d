from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, build_step, select, step_spec
from selection.scorers.training_dynamics import Aum, El2n, Forgetting

RNG = np.random.default_rng(0)


def pool(**columns: list[float]) -> Pool:
    return Pool(columns={name: np.array(values, float) for name, values in columns.items()})


def test_el2n__sum_of_the_error_norms_of_the_epochs() -> None:
    # Two classes, label 0: p = (1, 0) then (0.5, 0.5) against p = (0, 1) twice.
    norms = [[0.0, 2**0.5], [0.5**0.5, 2**0.5]]
    scores = El2n(fields=["e0", "e1"]).score(pool(e0=norms[0], e1=norms[1]), rng=RNG)
    np.testing.assert_allclose(scores, [0.5**0.5, 2 * 2**0.5], rtol=1e-6)
    assert scores.dtype == np.float32


def test_aum__sum_of_the_margins_and_the_easiest_first() -> None:
    epochs = pool(m0=[0.8, -0.5, 0.1], m1=[0.9, -0.7, 0.3])
    np.testing.assert_allclose(Aum(fields=["m0", "m1"]).score(epochs, rng=RNG), [1.7, -1.2, 0.4], rtol=1e-6)
    assert select([{"aum": {"fields": ["m0", "m1"]}}], epochs, budget=1).rows.tolist() == [0]
    hardest = select([{"aum": {"fields": ["m0", "m1"], "descending": False}}], epochs, budget=1)
    assert hardest.rows.tolist() == [1]


def test_forgetting__counts_right_then_wrong() -> None:
    # Rows: always right; learned once; forgotten twice; never learned; forgotten once at the end.
    right = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]], float)
    epochs = pool(**{f"e{i}": right[:, i].tolist() for i in range(5)})
    fields = [f"e{i}" for i in range(5)]
    assert Forgetting(fields=fields).score(epochs, rng=RNG).tolist() == [0, 0, 2, 5, 1]
    assert Forgetting(fields=fields, never_learned="zero").score(epochs, rng=RNG).tolist() == [0, 0, 2, 0, 1]


@pytest.mark.parametrize("step", [El2n, Aum, Forgetting])
def test_score__one_column_is_the_ready_score(step: type) -> None:
    assert step(fields="ready").score(pool(ready=[3, 0, 1]), rng=RNG).tolist() == [3, 0, 1]


def test_score__impossible_and_missing_values_are_named() -> None:
    with pytest.raises(InvalidInput, match=r"'e1': row 2 is 0\.5"):
        Forgetting(fields=["e0", "e1"]).score(pool(e0=[0, 1, 1], e1=[0, 1, 0.5]), rng=RNG)
    with pytest.raises(InvalidInput, match="row 1 is -1"):
        El2n(fields="e0").score(pool(e0=[0, -1]), rng=RNG)
    with pytest.raises(InvalidInput, match="row 1 is nan"):
        Aum(fields="e0").score(pool(e0=[0, np.nan]), rng=RNG)
    with pytest.raises(MissingInput, match="aum needs column 'e9'"):
        select([{"aum": {"fields": ["e0", "e9"]}}], pool(e0=[0, 1]), budget=1)


@pytest.mark.parametrize("fields", ["", [], [1], ["a", "a"], {"a": 1}, None])
def test_options__fields_must_be_columns(fields: object) -> None:
    with pytest.raises(InvalidOption, match="fields"):
        El2n(fields=fields)
    with pytest.raises(InvalidOption, match="never_learned"):
        Forgetting(fields="a", never_learned="last")


def test_options__round_trip_and_reach_ccs() -> None:
    step = build_step({"forgetting": {"fields": ["a", "b"], "never_learned": "zero"}})
    assert build_step(step_spec(step)) == step
    epochs = pool(a=[1, 1, 1, 0, 0, 0], b=[0, 1, 0, 1, 0, 0])
    picked = select([step, {"ccs": {"beta": 0.3, "hard": "high", "n_strata": 2}}], epochs, budget=5)
    assert len(picked.rows) == 5
    assert 0 not in picked.rows  # forgotten once, as row 2; one of six is cut off, the lower row
