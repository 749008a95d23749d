from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, build_step, select
from selection.types import Input

STEPS = ["facility_location", "herding", "k_center", "kmeans_pp", "pcoreset"]


@pytest.mark.parametrize("name", STEPS)
def test_needs__the_covered_input_and_with_weights_a_column(name):
    covered = Input.PROBABILITIES if name == "pcoreset" else Input.VECTORS
    assert build_step(name).needs == {covered}
    assert build_step(name).columns == frozenset()
    weighted = build_step({name: {"weights": "quality"}})
    assert weighted.needs == {covered, Input.COLUMNS}
    assert weighted.columns == {"quality"}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("weights", ["", 3, ["quality"]])
def test_weights__that_are_no_name_are_refused(name, weights):
    with pytest.raises(InvalidOption, match=f"{name}: weights must be a name"):
        build_step({name: {"weights": weights}})


@pytest.mark.parametrize("name", STEPS)
def test_select__a_negative_weight_is_named_and_a_missing_column_too(name):
    inputs = {"vectors": np.eye(4, dtype=np.float32), "probabilities": np.eye(4)}
    step = {name: {"weights": "quality"}}
    with pytest.raises(InvalidInput, match="row 2"):
        select([step], Pool(**inputs, columns={"quality": np.array([1.0, 1.0, -1.0, 1.0])}), budget=2)
    with pytest.raises(MissingInput, match="quality"):
        select([step], Pool(**inputs, columns={"length": np.ones(4)}), budget=2)
