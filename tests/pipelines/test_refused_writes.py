"""What the disk refuses is said, loses nothing, and the next run goes on from what was committed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.run import run_all
from storage.catalog.publish import rebuild_catalog
from storage.ids import from_arrow, to_text
from storage.records import read_selection
from storage.store import Store
from tests.pipelines.conftest import make_light, opened
from tests.quick import torture_last

CALLS = ("fsync", "mkdir", "rename", "symlink")


def selections(store: Store) -> dict[str, list[str]]:
    """The rows of each selection."""
    return {name: to_text(from_arrow(read_selection(store, name)[1]["id"])) for name in store.records("selections")}


def calls_refused(monkeypatch: pytest.MonkeyPatch, nth: int = 0) -> list[str]:
    """Let the nth call that writes fail; 0 for none. The list gets the name of each call."""
    calls: list[str] = []

    def refusing(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) == nth:
                raise OSError(errno.EIO, "Input/output error")
            return original(*arguments, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, refusing(name, getattr(os, name)))
    return calls


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, list[str]]]:
    """A run to which nothing is refused: how many calls write, and the selections."""
    project = make_light(tmp_path_factory.mktemp("whole") / "light")
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = calls_refused(monkeypatch)
        run_all(opened(project))
    return len(calls), selections(opened(project).store)


@pytest.mark.slow
@pytest.mark.parametrize("share", torture_last(3, [0, 3, 7, 1, 2, 4, 5, 6]))
def test_run__a_call_that_fails_loses_nothing(
    light: Path, whole: tuple[int, dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    count, drawn = whole
    nth = 1 + share * (count - 20) // 7  # the number of calls differs a little from run to run
    with monkeypatch.context() as patched:
        calls = calls_refused(patched, nth)
        try:
            run_all(opened(light))
        except OSError:
            failed = True
        else:
            failed = False
    # What only tidies up may go on; a commit may not.
    assert failed or calls[nth - 1] != "rename"
    run_all(opened(light))
    store = opened(light).store
    assert selections(store) == drawn
    assert rebuild_catalog(store).exists()


CAN_MOUNT = (
    shutil.which("unshare")
    and not subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k none /tmp"],
        capture_output=True,
        check=False,
    ).returncode
)

ON_A_SMALL_DISK = """
mkdir store
mount -t tmpfs -o size={size}k none store
{python} -m pipelines run && exit 9
mount -o remount,size=256m store
{python} -m pipelines run || exit 8
cp -r store kept
"""


@pytest.mark.slow
@pytest.mark.skipif(not CAN_MOUNT, reason="this system does not let users mount a small disk")
@pytest.mark.parametrize("size", torture_last(2, [96, 1200, 240, 16, 800, 2000]))
def test_run__a_disk_of_any_size_that_is_full(light: Path, whole: tuple[int, dict[str, list[str]]], size: int) -> None:
    script = ON_A_SMALL_DISK.format(size=size, python=sys.executable)
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        cwd=light,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"no room on the disk of {light / 'store'}" in ended.stderr or "No space left on device" in ended.stderr
    assert selections(Store(light / "kept")) == whole[1]
