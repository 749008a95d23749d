"""What the exit code of the `winnow` command says."""

from __future__ import annotations

DEFECT, MISTAKE, FAILED, HELD_BACK, REFUSED, INTERRUPTED = 1, 2, 3, 4, 5, 130

EXIT_CODES = {
    0: "done",
    DEFECT: "a defect of winnow, with its traceback",
    MISTAKE: "a mistake in the command, the configuration or the data, which the message locates",
    FAILED: "some recipes or exports failed; a run draws and publishes the others",
    HELD_BACK: "a check failed: a result is held back, and what was published before stays; or the store is damaged",
    REFUSED: "the disk, the memory or the network refused, or a run is under way; the same command may work later",
    INTERRUPTED: "stopped by Ctrl-C; the next run goes on from there",
}
"""Exit code -> what it says."""

_WRONG_PATHS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


def exit_code(error: Exception) -> int:
    """The code of a command that an expected error ended.

    >>> exit_code(OSError("")), exit_code(ValueError(""))
    (5, 2)
    """
    from pipelines.errors import HeldBack, OutOfMemory, RecipesFailed
    from storage.errors import StoreBusy

    if isinstance(error, RecipesFailed):
        held = all(isinstance(each, HeldBack) for each in (*error.errors.values(), *error.exports.values()))
        return HELD_BACK if held else FAILED
    if isinstance(error, HeldBack):
        return HELD_BACK
    if isinstance(error, (StoreBusy, OutOfMemory)):
        return REFUSED
    return REFUSED if isinstance(error, OSError) and not isinstance(error, _WRONG_PATHS) else MISTAKE
