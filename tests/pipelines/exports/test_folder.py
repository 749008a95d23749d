"""The swap: at once, over nothing but an earlier export, and what a killed one left is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import WouldOverwrite
from pipelines.exports.card import write_simple_card
from pipelines.exports.folder import check_target, replacing
from storage import scratch


def export(target: Path, text: str) -> None:
    with replacing(target) as staging:
        (staging.content / "data").mkdir()
        file = staging.content / "data" / "train.jsonl"
        file.write_text(text)
        (staging.scratch / "block").write_text("gone at the end")
        write_simple_card(staging.content, "x", {"rows": 1}, [file], [], None)


@pytest.mark.parametrize("exchanges", [True, False])
def test_replacing__swaps_the_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    if not exchanges:  # a file system without RENAME_EXCHANGE

        class NoExchange:
            def __getattr__(self, name: str) -> Any:
                raise AttributeError(name)

        monkeypatch.setattr(scratch.ctypes, "CDLL", lambda *_, **__: NoExchange())
    for text in ("first", "second"):
        export(tmp_path / "new" / "out", text)
        assert (tmp_path / "new/out/data/train.jsonl").read_text() == text
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_replacing__the_same_bytes_again_leave_every_file_as_it_is(tmp_path: Path) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}

    export(tmp_path / "out", "first")
    before = files()
    export(tmp_path / "out", "first")
    assert files() == before
    export(tmp_path / "out", "other")
    assert files() != before
    assert (tmp_path / "out" / "data" / "train.jsonl").read_text() == "other"


def test_replacing__an_error_leaves_what_was_there(tmp_path: Path) -> None:
    export(tmp_path / "out", "first")

    def interrupted() -> None:
        with replacing(tmp_path / "out") as staging:
            (staging.content / "half").write_text("...")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "out/data/train.jsonl").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replacing__what_was_put_there_meanwhile_stays(tmp_path: Path) -> None:
    def slow() -> None:
        with replacing(tmp_path / "out") as staging:
            (staging.content / "a").write_text("b")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine").write_text("mine")

    with pytest.raises(WouldOverwrite, match="was not written by"):
        slow()
    assert (tmp_path / "out/mine").read_text() == "mine"


def test_check_target__a_damaged_provenance_is_nobody_s(tmp_path: Path) -> None:
    export(tmp_path / "out", "first")
    (tmp_path / "out/provenance.json").write_text("{")
    with pytest.raises(WouldOverwrite, match="was not written by"):
        check_target(tmp_path / "out")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")


def test_replacing__what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    export(tmp_path / "out", "first")
    code = (
        "import sys, time; from pathlib import Path; from pipelines.exports.folder import replacing\n"
        "with replacing(Path(sys.argv[1])) as staging:\n"
        "    (staging.content / 'half').write_text('x'); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".other.1.00000000").mkdir()  # somebody else's
    deadline = time.monotonic() + 5
    while len(list(tmp_path.iterdir())) > 2 and time.monotonic() < deadline:
        export(tmp_path / "out", "second")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.1.00000000", "out"]
