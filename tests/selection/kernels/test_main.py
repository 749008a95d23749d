from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import pytest

from selection.kernels.__main__ import main, steps
from selection.kernels.compiled.jit import cache_folder, compiled


def test_main__runs_every_step_that_has_loops(capsys):
    names = {step.name for step in steps()}
    assert {"k_center", "kmeans_pp", "facility_location", "semdedup", "rds_plus", "badge", "probcover"} <= names
    assert main() == 0
    assert "are compiled" in capsys.readouterr().out


LEFT_OUT = """\
from selection.kernels.__main__ import main
from selection.kernels.compiled import estimates, facility_location, quantized

main()
names = ["look", "multiply_open", "compact", "write_kept", "measure", "sift_all", "places_above"]
loops = [getattr(facility_location, name) for name in names]
if quantized.has_instruction():
    loops += [facility_location.estimate, facility_location.copy_kept, estimates.quantized_rows]
print("not compiled:", *(loop.__name__ for loop in loops if not loop.signatures), "end")
"""


@pytest.mark.slow
def test_main__compiles_what_only_large_pools_need():
    done = subprocess.run([sys.executable, "-c", LEFT_OUT], capture_output=True, check=True, text=True)
    assert done.stdout.endswith("not compiled: end\n")


def test_cache_folder__is_another_when_any_source_changes(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("calls b")
    (tmp_path / "b.py").write_text("1")
    before = cache_folder(tmp_path)
    assert before == cache_folder(tmp_path)
    assert before.parent == tmp_path / "__pycache__"
    (tmp_path / "b.py").write_text("2")
    assert cache_folder(tmp_path) != before
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache_folder(tmp_path).parent == Path(tempfile.gettempdir())
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    assert cache_folder(tmp_path).parent == Path("elsewhere")


def test_compiled__leaves_numbas_own_settings_alone():
    before = numba.config.CACHE_DIR
    assert compiled(lambda x: x + 1)(2) == 3
    assert compiled(fastmath=True)(lambda x: x * 2)(2) == 4
    assert before == numba.config.CACHE_DIR
