"""The `winnow` command, called many times in one process of its own.

Started as a script, this file reads one command a line (a JSON list of arguments) and answers each with a line of
JSON: the exit code, and what was printed. Every command runs what `python -m pipelines` runs; only the start of the
interpreter and the imports are shared.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str


class Winnow:
    """A process that runs `winnow` commands in a project's folder."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, *arguments: str, code: int | None = 0) -> Ended:
        """Run a command; it must end with this exit code, if one is named."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process died in `winnow {' '.join(arguments)}`"
        ended = Ended(arguments, **json.loads(line))
        said = f"`winnow {' '.join(arguments)}` ended with exit code {ended.code}:\n{ended.out}\n{ended.err[-6000:]}"
        assert code in (None, ended.code), said
        return ended


@contextlib.contextmanager
def winnow_in(folder: Path) -> Iterator[Winnow]:
    """Commands for the project in a folder."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
    ) as process:
        try:
            yield Winnow(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def environment() -> dict[str, str]:
    """These sources first, whatever is installed; no project but the one in the working directory."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if name != "WINNOW_CONFIG"}
    return kept | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}


def _serve() -> None:
    from storage.upkeep import compact

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    compact.FOLDERS = 1_000_000  # what is compared are folders
    os.dup2(2, 1)  # what a library prints past Python must not get among the answers
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        sys.argv = ["winnow", *json.loads(line)]
        code: object = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_module("pipelines", run_name="__main__")
            except SystemExit as ended:
                code = ended.code
            except BaseException as error:  # noqa: BLE001 - the caller shows it
                code = 1
                import traceback

                traceback.print_exception(error, file=err)
        answers.write(json.dumps({"code": code or 0, "out": out.getvalue(), "err": err.getvalue()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    _serve()
