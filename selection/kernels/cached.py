"""numba's `njit` for this package, with a cache that no change of the sources outlives.

numba keeps what it compiles for as long as the file of a function stays as it is, but a compiled function holds those of other
files that it calls: after an upgrade it would go on with the old ones. So here the cache has a folder for each state of all
sources of this package.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numba
from numba import njit

__all__ = ["cache_folder", "njit"]


def cache_folder(sources: Path) -> Path:
    """Where numba keeps what it compiles of the `*.py` in a folder, as they are now.

    Below NUMBA_CACHE_DIR if that is set, else beside the sources, or in the user's cache where they cannot be written to.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(sources.glob("*.py")):
        digest.update(b"%s\0%d\0" % (path.name.encode(), path.stat().st_size) + path.read_bytes())
    given = os.environ.get("NUMBA_CACHE_DIR")
    beside = sources / "__pycache__" if os.access(sources, os.W_OK) else Path.home() / ".cache" / "winnow"
    return (Path(given) if given else beside) / f"numba-{digest.hexdigest()}"


setattr(numba.config, "CACHE_DIR", str(cache_folder(Path(__file__).parent)))  # noqa: B010  # mypy knows no attribute
