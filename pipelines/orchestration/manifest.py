"""Which local files a project reads, and whether what they hold has changed since the last look."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pipelines.config.schema import Config, Files, Keyed, Labeling
from pipelines.stages.pull import label_files
from selection.encoders.gradients import GradientSpec
from selection.encoders.remote_spec import RemoteSpec
from selection.encoders.spec import MODEL_FILES
from storage.files.user_files import file_digest

ENDS_BYTES = 4096
# A larger file is not read whole to learn whether only its time changed; the run that it starts finds nothing new.
WHOLE_BYTES = 64 << 20
# Dagster gives a sensor 60 seconds. What was read by then is remembered, and the next look goes on.
READ_S = 20.0
_MODEL_FILES = MODEL_FILES | {".pt"}  # with an optimizer's moments


class Unfinished(Exception):
    """Too much to read in one look."""


class FileLook(NamedTuple):
    """What one cheap look says of a file; the same look, the same content.

    Attributes:
        ends: digest of the first and the last `ENDS_BYTES`: a change that leaves size and times alone is seen there.
    """

    url: str
    size: int = -1
    modified_ns: int = 0
    changed_ns: int = 0
    inode: int = 0
    ends: str = ""


@dataclass(frozen=True)
class Seen:
    """What a sensor remembers of its files.

    Attributes:
        looked: how they stood at the last look.
        settled: how they stood when their content was compared last.
        content: digest of that content.
    """

    looked: str = ""
    settled: str = ""
    content: str = ""


def look(urls: Iterable[str], before: Seen | None) -> tuple[Seen, bool]:
    """Look at files once more: what to remember, and whether their content changed and they stand still.

    A change counts when two looks agree, so that a file that is still written starts nothing.

    Args:
        urls: local paths; what is no local file counts by its name alone.
        before: None for a first look, which is no change.

    Raises:
        Unfinished: their content takes longer to read than one look may; call again.

    Cost: 8 KiB of each file; the whole of those up to 64 MiB whose times changed.
    """
    files = [_look_at(url) for url in sorted(set(urls))]
    state = _digest(map(str, files))
    if before is not None and state != before.looked:
        return replace(before, looked=state), False
    if before is not None and state == before.settled:
        return before, False
    until = time.monotonic() + READ_S
    content = _digest(_content(file, until) for file in files)
    return Seen(state, state, content), before is not None and content != before.content


def project_files(config: Config) -> Iterator[str]:
    """The files that pool, targets, recipes and their models are made of; not those of labeling projects."""
    sets: list[Files] = list(config.targets.values())
    if config.decontamination is not None:
        sets += config.decontamination.files.values()
        yield from _given(config.decontamination.paraphrases)
    for spec in config.pool.specs(config.root):
        yield spec.url
    for files in sets:
        yield from (spec.url for spec in files.specs(config.root))
    yield from (column.url for column in config.pool.columns)
    for name in (None, *config.targets):
        for file in config.vector_files(name):
            yield from file.urls
    for recipe in config.recipes.values():
        yield from _given(recipe.allow, recipe.deny)
        if isinstance(recipe.probabilities, Keyed):
            yield recipe.probabilities.url
    yield from _model_files(config)


def labeling_files(project: Labeling, root: Path) -> Iterator[str]:
    """The files of a labeling project: labels, gold, lists of ids, own probabilities."""
    yield from label_files(project, root)
    yield from _given(project.gold, project.allow, project.deny)
    if project.own_probabilities is not None:
        yield project.own_probabilities.url


def _model_files(config: Config) -> Iterator[str]:
    """The files in the local folders of encoders and models."""
    for spec in (*config.encoders.values(), *config.models.values()):
        if isinstance(spec, RemoteSpec):
            continue  # the name of a model on a server, whatever folder is called so
        for part in spec.all_checkpoints if isinstance(spec, GradientSpec) else [spec]:
            yield from _given(getattr(part, "optimizer", None))
            name = getattr(part, "model", None)  # n-grams have none
            folder = Path(name).expanduser() if name else None
            if folder is not None and folder.is_dir():
                yield from (str(file) for file in folder.rglob("*") if file.suffix in _MODEL_FILES)


def _given(*files: str | None) -> list[str]:
    return [file for file in files if file]


def _look_at(url: str) -> FileLook:
    try:
        with Path(url).open("rb", buffering=0) as file:
            now = os.fstat(file.fileno())
            ends = hashlib.blake2b(file.read(ENDS_BYTES), digest_size=16)
            file.seek(max(0, now.st_size - ENDS_BYTES))
            ends.update(file.read(ENDS_BYTES))
    except OSError:
        return FileLook(url)
    return FileLook(url, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, ends.hexdigest())


_whole: dict[str, tuple[FileLook, str]] = {}


def _content(look: FileLook, until: float) -> str:
    """What of a file has to differ for a run to start."""
    if look.size < 0:
        return look.url
    if look.size > WHOLE_BYTES:
        return f"{look.url}\0{look.size}\0{look.modified_ns}\0{look.ends}"
    known = _whole.get(look.url)
    if known is None or known[0] != look:
        if time.monotonic() > until:
            raise Unfinished
        try:
            with Path(look.url).open("rb") as file:
                known = _whole[look.url] = (look, file_digest(file))
        except OSError:
            return look.url
    return f"{look.url}\0{known[1]}\0{look.ends}"


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
