from __future__ import annotations

from selection.kernels.__main__ import main, steps


def test_main__runs_every_step_that_has_loops(capsys):
    names = {step.name for step in steps()}
    assert {"k_center", "kmeans_pp", "facility_location", "semdedup", "rds_plus", "badge", "probcover"} <= names
    assert main() == 0
    assert "are compiled" in capsys.readouterr().out
