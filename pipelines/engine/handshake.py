"""What a machine of a cluster must share with the one that gives out the work: code, libraries and the store."""

from __future__ import annotations

import hashlib
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.errors import EngineRefused
from storage.store import Store

PACKAGES = ("pipelines", "selection", "storage")
# Libraries whose next major version may give other rows.
LIBRARIES = ("numpy", "polars", "torch")
_ASKED = "asked"


@dataclass(frozen=True)
class Handshake:
    """What a worker compares itself with.

    Attributes:
        versions: what -> its version, where the work is given out.
        probe: a folder of the store with a file that holds `token`.
    """

    versions: dict[str, str]
    probe: Path
    token: str

    def answer(self, machine: str) -> str:
        """Compare this process, and write into the store; gives the name of the file that it wrote.

        Args:
            machine: what to call it in an error.

        Raises:
            EngineRefused: it runs other code, or has another store.
        """
        mine = versions()
        if other := [
            f"{what} {mine[what]}, not {theirs}" for what, theirs in self.versions.items() if mine[what] != theirs
        ]:
            raise EngineRefused(
                f"{machine} has {'; '.join(other)}. Every machine of the cluster needs the same winnow, Python and libraries "
                "as the one that gives out the work"
            )
        store, name = self.probe.parent.parent, uuid.uuid4().hex
        if not self._holds_token(_ASKED):
            raise EngineRefused(_not_shared(machine, store))
        try:
            (self.probe / name).write_text(self.token, "ascii")
        except OSError as error:
            raise EngineRefused(f"{machine} cannot write into the store {store}: {error.strerror}") from None
        return name

    def check(self, name: str, machine: str) -> None:
        """Read what a worker wrote.

        Raises:
            EngineRefused: it wrote into another store.
        """
        if not self._holds_token(name):
            raise EngineRefused(_not_shared(machine, self.probe.parent.parent))
        (self.probe / name).unlink()

    def _holds_token(self, name: str) -> bool:
        try:
            return (self.probe / name).read_text("ascii") == self.token
        except FileNotFoundError:
            return False


@contextmanager
def handshake(store: Store) -> Iterator[Handshake]:
    """What workers are asked while the block runs."""
    with store.scratch("probe") as folder:
        token = uuid.uuid4().hex
        (folder / _ASKED).write_text(token, "ascii")
        yield Handshake(versions(), folder, token)


@cache
def versions() -> dict[str, str]:
    """What the rows of a result may depend on -> its version in this process."""
    return {
        "winnow": f"{_version('winnow-pool')} (sources {sources_digest(Path(__file__).parents[2])})",
        "Python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        **{name: _version(name).partition(".")[0] for name in LIBRARIES},
    }


def sources_digest(root: Path) -> str:
    """12 hex digits of all Python files of winnow's packages below a folder."""
    digest = hashlib.blake2b(digest_size=6)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _not_shared(machine: str, store: Path) -> str:
    return (
        f"{machine} does not see this store: what one machine writes into {store}, the other does not find there. All "
        "machines of the cluster need the store under this path, for example on a network file system"
    )
