"""The code location that `dagster dev -w workspace.yaml` loads."""

from __future__ import annotations

import runpy
from pathlib import Path

import dagster as dg
import pytest

from pipelines.errors import ConfigError
from tests.pipelines.conftest import change

FILE = Path(__file__).parents[2] / "pipelines" / "definitions.py"


def test_definitions__are_those_of_the_project_that_the_environment_names(
    light: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINNOW_CONFIG", str(light))
    defs = runpy.run_path(str(FILE))["defs"]
    dg.Definitions.validate_loadable(defs)
    assert dg.AssetKey(["selection", "near"]) in defs.resolve_asset_graph().materializable_asset_keys
    change(light, "budget: 8", "budget: 0")
    with pytest.raises(ConfigError, match=r"recipes\.any\.budget"):
        runpy.run_path(str(FILE))
