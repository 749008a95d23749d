"""A full disk, however a library words it."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
# In the words of the C library, which faiss, DuckDB and Arrow pass on; numpy says only how much it could write.
_WORDS = re.compile(r"no space left on device|disk quota exceeded|\d+ requested and \d+ written", re.IGNORECASE)


def disk_full(error: BaseException, folder: Path) -> OSError | None:
    """What to say of an error, if it or what led to it is that the disk of `folder` is full; else None."""
    cause: BaseException | None = error
    while cause is not None:
        if (isinstance(cause, OSError) and cause.errno in _FULL) or _WORDS.search(str(cause)):
            usage = shutil.disk_usage(folder)
            return OSError(
                f"no room on the disk of {folder}: {usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB are free, and "
                "more is needed. Everything committed is kept; make room and run again"
            )
        cause = cause.__cause__ or cause.__context__
    return None
