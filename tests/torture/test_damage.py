"""One byte of any file of a store that has everything flips: `winnow check` names the file, and so does what reads it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.check import check_lines
from pipelines.run import run_and_report, run_trial
from pipelines.trials import network
from pipelines.trials.network import Size
from storage.checksums import FILE as CHECKSUMS
from storage.damage import KINDS
from storage.errors import NewerStore, StoreDamaged
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import Winnow, change, make_light, opened
from tests.pipelines.test_damage import NOT_SEEN, finish, problems, selections
from tests.pipelines.trials.conftest import Unigrams
from tests.quick import torture_last

pytestmark = pytest.mark.slow

MORE = """\
decontamination: {}
exports:
  train: {recipe: near, to: parquet, out: train}
encoders:
  words: {kind: ngrams, dims: 16, postprocess: center}
classifiers:
  good: {features: ngrams, classes: {fit: {targets: foxes}, other: {sample: 20}}}
trials: {targets: [more], size: tiny, seeds: 3, tokens: 600, held_out: 10}
"""


def make_everything(project: Path, winnow: Winnow) -> None:
    """Beside what `finish` makes: a classifier, a sticky recipe, a trial, a comparison, scores, a pin, a rollback, a row
    that was forgotten, exports, reports."""

    def call(*command: str | Path) -> None:
        ended = winnow(*command, "--config", project)
        assert ended.code == 0, (command, ended.err)

    finish(project)
    path = project / "winnow.yaml"
    path.write_text(path.read_text() + MORE)
    recipes = (
        "unsure: {steps: [entropy], probabilities: good, budget: 4}",
        "calm: {steps: [random], budget: 6, mode: sticky}",
        "worded: {steps: [rds_plus], targets: [foxes], encoder: words, budget: 4}",
    )
    change(project, "recipes:\n", "\n  ".join(("recipes:", *recipes)) + "\n")
    write_rows(project / "targets" / "more.jsonl", [row(n, "fox") for n in range(200, 220)])
    change(project, "targets:\n", "targets:\n  more: {files: targets/more.jsonl, measure: 0.9}\n")
    change(
        project,
        "{steps: [{outliers: {drop: 0.1}}, rds_plus], budget",
        "{steps: [{outliers: {drop: 0.1}}, rds_plus], targets: [foxes], budget",
    )
    run_and_report(opened(project))
    call("forget", "dog-2", "--yes")
    with (project / "data" / "b.jsonl").open("a") as file:
        file.write(json.dumps(row(11, "text")) + "\n")
    run_and_report(opened(project))
    run_trial(opened(project), "near")
    (project / "scores.json").write_text(json.dumps({"seed": 1, "mmlu": 0.5}))
    call("result", "add", "near", project / "scores.json")
    call("compare", "near", "any", "--record")
    call("pin", "any")
    call("rollback", "any")


@pytest.fixture(scope="module")
def _unigrams() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(network.SIZES, "tiny", Size(32, 1, 2, 400, 32, 4, (1e-3, 1e-2)))
        patch.setattr("pipelines.trials.plan.Network", Unigrams)
        yield


_made: dict[str, Path] = {}


@pytest.fixture
def project(_unigrams: None, winnow: Winnow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, whole again."""
    if not _made:
        made = make_light(tmp_path_factory.mktemp("everything") / "light")
        make_everything(made, winnow)
        shutil.copytree(made / "store", made / "whole", symlinks=True)
        _made["project"] = made
    again(_made["project"])
    return _made["project"]


def again(project: Path) -> None:
    shutil.rmtree(project / "store")
    shutil.copytree(project / "whole", project / "store", symlinks=True)


def files(project: Path) -> list[Path]:
    """Every file of the store that says something."""
    paths = [path for path in (project / "store").rglob("*") if path.is_file() and not path.is_symlink()]
    # What is noted in last/ is known from the rest: a wrong note costs a look at all records, or a copy of vectors.
    return sorted(path for path in paths if path.parent.name not in ("locks", "last") and path.stat().st_size)


def flip(path: Path) -> None:
    """Flip a bit of a byte that the path decides."""
    chance = random.Random(path.name)
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(7)
    path.chmod(0o644)
    path.write_bytes(data)


def found(project: Path, path: Path) -> bool:
    """Whether `winnow check --deep` names the file, or, for checksums, a file beside them."""
    try:
        lines = list(check_lines(opened(project), deep=True))
    except (StoreDamaged, NewerStore) as error:
        lines = [str(error)]
    return any(str(path.parent if path.name == CHECKSUMS else path) in line for line in lines)


def test_the_store__has_records_of_nearly_every_kind(project: Path) -> None:
    store = Store(project / "store")
    missing = {kind for kind, about in KINDS.items() if not list(about.folders(store))}
    assert missing <= {"plans", "cells", "embedding_recalls", "shared"}
    assert not [line for line in check_lines(opened(project), deep=True) if "damaged" in line]


@pytest.mark.parametrize("of_checksums", [False, True], ids=["files", "checksums"])
def test_a_flipped_byte_of_any_file__is_found_by_check(project: Path, *, of_checksums: bool) -> None:
    paths = [path for path in files(project) if (path.name == CHECKSUMS) == of_checksums]
    latest = (project / "store" / "winnow.duckdb").resolve()
    old = [path for path in paths if path.parent.name == "catalog" and path not in (latest, latest.parent / CHECKSUMS)]
    paths = [path for path in paths if path not in old and path.name != "format.json"]  # that stops the others
    for path in paths:
        flip(path)
    lines = list(check_lines(opened(project), deep=True))
    unseen = [p for p in paths if not any(str(p.parent if of_checksums else p) in line for line in lines)]
    for path in unseen:  # perhaps another damage was in the way
        again(project)
        flip(path)
        if found(project, path):
            unseen = [each for each in unseen if each != path]
    assert unseen == []
    assert len(paths) > 50


@pytest.mark.parametrize("byte", torture_last(2, (11, 0, 2, 4, 6, 8, 10, 12, 13)))
def test_a_flipped_byte_of_the_format__is_refused_or_written_again(project: Path, winnow: Winnow, byte: int) -> None:
    path = project / "store" / "format.json"
    whole = data = path.read_bytes()
    path.write_bytes(data[:byte] + bytes([data[byte] ^ 1]) + data[byte + 1 :])
    ended = winnow("run", "any", "--config", project)
    assert (ended.code == 2 and str(path.parent) in ended.err) or (ended.code == 0 and path.read_bytes() == whole)


def kinds_of_files() -> list[str]:
    """A pattern for each kind of file: `records/runs/*/run.json`."""
    return sorted(
        {
            *(
                "/".join((*about.root, *["*"] * about.depth, file))
                for about in KINDS.values()
                if about.depth == 1
                for file in (*about.needs, *((about.file,) if about.file else ()))
            ),
            *("vectors/*/*/*.npy", "vectors/*/*/*.json", "vectors/*/*.json", "records/trials/*/*/*"),
            *("index_parts/*/*", "indexes/*/*", "tokens/*/*/*", "configs/*.yaml", "configs/runs/*", "pages/*.html"),
            *("records/reports/*/*", "records/selections/*/*", "records/snapshots/*/column_rows/*", "catalog/*"),
        }
    )


@pytest.mark.parametrize("pattern", torture_last(0, kinds_of_files()))
def test_a_flipped_byte_of_any_file__stops_nothing_and_changes_no_selection(
    project: Path, winnow: Winnow, pattern: str
) -> None:
    whole = selections(project)
    paths = sorted((project / "store").glob(pattern))
    result = {}
    for path in dict.fromkeys((*paths[:1], *paths[-1:])):
        again(project)
        flip(path)
        seen = [problem for problem in problems(winnow, project, path, whole) if problem != NOT_SEEN]
        result |= {str(path): seen} if seen else {}
    assert result == {}
