"""The asset of a trial."""

from __future__ import annotations

from pipelines.orchestration.definitions import build_definitions
from tests.pipelines.orchestration.conftest import materialize


def test_trial_asset__shows_the_verdict_and_the_nightly_job_leaves_it_out(tried) -> None:
    definitions = build_definitions(tried / "winnow.yaml")
    job = definitions.resolve_job_def("reselect")
    keys = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
    assert "selection/chosen" in keys
    assert "trial/chosen" not in keys
    result = materialize(tried, ["trial/chosen"])
    assert result.success
    (made,) = result.asset_materializations_for_node("trial__chosen")
    assert made.metadata["verdict"].value == "helped"
    passed = sorted(check.check_name for check in result.get_asset_check_evaluations() if check.passed)
    assert passed == ["made", "not_hurt"]
