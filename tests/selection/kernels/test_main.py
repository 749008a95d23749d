from __future__ import annotations

from pathlib import Path

from selection.kernels.__main__ import main, steps
from selection.kernels.cached import cache_folder


def test_main__runs_every_step_that_has_loops(capsys):
    names = {step.name for step in steps()}
    assert {"k_center", "kmeans_pp", "facility_location", "semdedup", "rds_plus", "badge", "probcover"} <= names
    assert main() == 0
    assert "are compiled" in capsys.readouterr().out


def test_cache_folder__is_another_when_any_source_changes(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("calls b")
    (tmp_path / "b.py").write_text("1")
    before = cache_folder(tmp_path)
    assert before == cache_folder(tmp_path)
    assert before.parent == tmp_path / "__pycache__"
    (tmp_path / "b.py").write_text("2")
    assert cache_folder(tmp_path) != before
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    assert cache_folder(tmp_path).parent == Path("elsewhere")
