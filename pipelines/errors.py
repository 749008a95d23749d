"""The errors that a user can mend, as one small tree.

    PipelineError
    |- BadExport       (an export was asked for that makes no sense; says what is allowed)
    |- ConfigError     (winnow.yaml, or what it names, is wrong; lists every problem found)
    |- EngineRefused   (a cluster, or a machine of it, cannot do the work; says why)
    |- HeldBack        (a blocking check failed; what follows it did not run)
    |- NoProject       (there is no winnow.yaml to work on)
    |- NothingYet      (an earlier stage has not run yet; says which)
    |- RecipesFailed   (some recipes or exports of a run failed; the others were drawn and published)
    |- RollbackRefused (an earlier selection cannot be the latest again; says why)
    |- RowsLeft        (rows that were to be forgotten are still in the store)
    |- RowsLeftOut     (a shape cannot hold more of an export's rows than allowed; nothing was written)
    |- TrialRefused    (a trial cannot be made as it was asked for; says what to change)
    |- UnknownEncoder  (the configuration has no encoder of this name)
    |- UnknownProject  (the configuration has no labeling project of this name)
    |- UnknownRecipe   (the configuration has no recipe of this name)
    |- WorkerDied      (a process that worked on a part was killed again and again; says on which)
    `- WouldOverwrite  (a file that a command would write is already there)

Each class is also the built-in exception that fits it, so a caller who knows nothing of this tree still catches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selection.errors import SelectionError
from storage.errors import StorageError


class PipelineError(Exception):
    """Base of all errors that `pipelines` raises for something a user can mend."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration file.

    Attributes:
        file: the file as the user should find it, or "override" for a value given on the command line.
        line: 1-based; 0 where no line can be named.
        path: the key's path, for example `recipes.math.steps[1]`; empty for the file as a whole.
        message: the value that stands there and what is allowed.

    >>> print(Problem("winnow.yaml", 3, "recipes.math.budget", "must be above 0, found -5"))
    winnow.yaml:3: recipes.math.budget: must be above 0, found -5
    """

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class BadExport(PipelineError, ValueError):
    """An export cannot be made as it was asked for.

    Args:
        option: which of `ExportOptions` is wrong.
        reason: what is allowed, and what was found.
    """

    def __init__(self, option: str, reason: str) -> None:
        self.option, self.reason = option, reason
        super().__init__(f"{option}: {reason}")


class ConfigError(PipelineError, ValueError):
    """The configuration cannot be used; `problems` holds every mistake found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        if len(lines) > 1:
            lines.insert(0, f"{len(lines)} problems in the configuration; nothing was run:")
        super().__init__("\n".join(lines))


class EngineRefused(PipelineError, RuntimeError):
    """Work cannot be done where the configuration says: no cluster, another store, other code."""


class HeldBack(PipelineError, RuntimeError):
    """A blocking check failed: the result is recorded, nothing after it ran."""


class NoProject(PipelineError, FileNotFoundError):
    """There is no configuration file where one was looked for."""


class NothingYet(PipelineError, LookupError):
    """A stage needs the result of an earlier stage that has not run yet."""


class RecipesFailed(PipelineError, RuntimeError):
    """Recipes that failed or were held back, and exports that failed; `errors` holds the error of each recipe.

    Args:
        errors: recipe -> its error.
        count: how many recipes the run had.
        exports: entry of `exports` -> its error.
    """

    def __init__(
        self, errors: Mapping[str, Exception], count: int, exports: Mapping[str, Exception] | None = None
    ) -> None:
        self.errors, self.exports = errors, exports or {}
        lines = [_described("recipe", name, error) for name, error in errors.items()]
        if len(lines) > 1:
            lines.insert(0, f"{len(lines)} of {count} recipes failed:")
        lines += [_described("export", name, error) for name, error in self.exports.items()]
        super().__init__("\n".join(lines))


def _described(what: str, name: str, error: Exception) -> str:
    return str(error) if isinstance(error, HeldBack) else f"{what} {name}: {error}"


class RollbackRefused(PipelineError, ValueError):
    """A selection cannot be the latest of its recipe again."""


class RowsLeft(PipelineError, RuntimeError):
    """Rows that were to be forgotten are still in files of the store."""


class RowsLeftOut(PipelineError, RuntimeError):
    """More rows of an export cannot be held by its shape than may be left out."""


class TrialRefused(PipelineError, ValueError):
    """A trial cannot be made: nothing to measure on, too few examples or tokens, or no time for it."""


class UnknownEncoder(PipelineError, LookupError):
    """No encoder has this name."""


class UnknownProject(PipelineError, LookupError):
    """No labeling project has this name."""


class UnknownRecipe(PipelineError, LookupError):
    """No recipe has this name."""


class WorkerDied(PipelineError, RuntimeError):
    """The processes that worked on a part of the work were killed, every time it was tried."""


class OutOfMemory(PipelineError):
    """There was not enough memory for a piece of work."""


class WouldOverwrite(PipelineError, FileExistsError):
    """A command would overwrite a file, and `--force` was not given."""


USER_ERRORS = (PipelineError, SelectionError, StorageError)
"""A command or an asset shows these as a message; any other error is a bug and shows its traceback."""
