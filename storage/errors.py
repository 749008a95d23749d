"""What can go wrong in the store, as one small tree.

StorageError
|- BadInput        (a user's file is missing, damaged or has too many unreadable rows)
|  `- NothingMatches  (a path or pattern names no file)
|- StoreDamaged    (a record in the store fails its checksum or misses a file)
|- StoreBusy       (another process works on the store, and this needs it alone)
|- NewerStore      (a later version of winnow wrote the store)
|- NotInStore      (asked for a selection, snapshot, encoder or index that is not there)
`- MissingExtra    (an optional package is not installed; says which extra to install)
"""


class StorageError(Exception):
    """Base of all errors that `storage` raises for something a user can mend."""


class BadInput(StorageError, ValueError):
    """A file that the user named cannot be used; the message says which, where and why."""


class NothingMatches(BadInput):
    """A path or pattern that a user wrote names no file."""


class StoreDamaged(StorageError, RuntimeError):
    """A committed record is not what was committed."""


class StoreBusy(StorageError, RuntimeError):
    """Another process works on the store; the message says who."""


class NewerStore(StorageError, RuntimeError):
    """The store was written by a later version of winnow, which knows what this one does not."""


class NotInStore(StorageError, LookupError):
    """The store holds no such record."""


class MissingExtra(StorageError, ImportError):
    """An optional package is missing."""
