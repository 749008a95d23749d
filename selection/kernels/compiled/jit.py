"""How this package compiles its loops: with a cache that no change of the sources outlives.

numba keeps what it compiles for as long as the file of a function stays as it is, but a compiled function holds those
of other files that it calls: after an upgrade it would go on with the old ones. So here the cache has a folder for each
state of all sources of this package.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba


def compiled(function: Any = None, /, **options: Any) -> Any:
    """Numba's `njit`, cached and without the interpreter's lock; as a decorator, or called with more options.

    The setting that says where to keep what is compiled is read when a function is decorated, and is numba's own again
    after that.
    """
    if function is None:
        return partial(compiled, **options)
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    try:
        numba.config.CACHE_DIR = _folder()  # type: ignore[attr-defined]
        return numba.njit(cache=True, nogil=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


def cache_folder(sources: Path) -> Path:
    """Where numba keeps what it compiles of the `*.py` in a folder and below, for their present state.

    Below NUMBA_CACHE_DIR if that is set, else beside the sources, or among temporary files where they cannot be written
    to.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(sources.rglob("*.py")):
        digest.update(
            b"%s\0%d\0" % (path.relative_to(sources).as_posix().encode(), path.stat().st_size) + path.read_bytes()
        )
    beside = sources / "__pycache__" if os.access(sources, os.W_OK) else tempfile.gettempdir()
    return Path(os.environ.get("NUMBA_CACHE_DIR") or beside) / f"numba-{digest.hexdigest()}"


@cache
def _folder() -> str:
    return str(cache_folder(Path(__file__).parent))


def thread_count() -> int:
    """How many threads numba is allowed."""
    return int(numba.get_num_threads())
