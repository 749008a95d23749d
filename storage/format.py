"""The version of a store's layout, in `format.json`: what this version of winnow could read wrongly, it refuses to open.

1: stores without this file; read as they are. 2: indexes in parts; rows that were forgotten. 3: records in packs.

Raised by one when an earlier winnow would read a new store wrongly, not when it would only miss what is new.
"""

from __future__ import annotations

import json

from storage.errors import NewerStore, StoreDamaged
from storage.store import Store, write_durably

FORMAT = 3
FILE = "format.json"


def check_format(store: Store) -> None:
    """Refuse a store that a later version of winnow has written.

    Raises:
        NewerStore: it has.
        StoreDamaged: the file does not say.
    """
    present = _format_of(store)
    if present > FORMAT:
        raise NewerStore(
            f"{store.root} was written by a later version of winnow (store format {present}; this one knows {FORMAT} and "
            "below). Install that version, or name another folder as `store`; nothing was changed"
        )


def note_format(store: Store) -> None:
    """Write the format that this version writes, unless the store has it; whoever holds a lock of it calls this."""
    if _format_of(store) < FORMAT:
        write_durably(store.path(FILE), json.dumps({"format": FORMAT}) + "\n")


def _format_of(store: Store) -> int:
    path = store.path(FILE)
    try:
        present = json.loads(path.read_text("utf-8"))["format"]
    except FileNotFoundError:
        return 1
    except (ValueError, KeyError, TypeError):
        present = None
    if type(present) is not int:
        raise StoreDamaged(
            f'{path} does not say {{"format": {FORMAT}}}; if this store is of this version, remove the file'
        )
    return present
