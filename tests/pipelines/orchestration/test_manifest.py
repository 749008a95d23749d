"""What a sensor remembers of files, and which changes count."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config.load import load_config
from pipelines.orchestration import manifest
from pipelines.orchestration.manifest import Seen, Unfinished, labeling_files, look, project_files
from tests.pipelines.conftest import change


def changed(files: list[Path], touch: Callable[[Path], object]) -> bool:
    """Whether what `touch` does to the first file counts, after two looks."""
    urls = [str(file) for file in files]
    before, _ = look(urls, None)
    touch(files[0])
    waiting, at_once = look(urls, before)
    assert not at_once
    return look(urls, waiting)[1]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of 100,000 bytes."""
    for name in "ab":
        (tmp_path / name).write_bytes(b"x" * 100_000)
    return [tmp_path / name for name in "ab"]


def written_at(place: int) -> Callable[[Path], object]:
    """Other bytes at a place, with the size and the time of change that the file had."""

    def write(path: Path) -> None:
        times = path.stat()
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"other")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    return write


@pytest.mark.parametrize("place", [0, 50_000, 99_995])
def test_look__a_change_of_the_same_size_and_time_counts(files: list[Path], place: int) -> None:
    assert changed(files, written_at(place))


@pytest.mark.parametrize(("place", "seen"), [(0, True), (99_995, True), (50_000, False)])
def test_look__where_no_time_tells_head_and_tail_do(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, place: int, seen: bool
) -> None:
    """As on a file system that leaves all times alone."""
    really = manifest._look_at
    monkeypatch.setattr(manifest, "_look_at", lambda url: really(url)._replace(modified_ns=0, changed_ns=0))
    assert changed(files, written_at(place)) is seen


def copied_over(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize(
    "touch",
    [lambda path: os.utime(path, (1, 1)), lambda path: path.chmod(0o600), copied_over],
    ids=["t", "mode", "copy"],
)
def test_look__new_times_of_the_same_content_count_not(files: list[Path], touch: Callable[[Path], object]) -> None:
    assert not changed(files, touch)


def test_look__of_a_large_file_the_time_counts(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "WHOLE_BYTES", 99_999)
    assert changed(files, lambda path: os.utime(path, (1, 1)))
    assert not changed(files, lambda path: path.chmod(0o600))


def test_look__a_file_that_vanishes_and_one_that_is_remote(files: list[Path]) -> None:
    assert changed(files, Path.unlink)
    seen, _ = look(["s3://bucket/a"], None)
    assert look(["s3://bucket/a"], seen) == (seen, False)
    assert look(["s3://bucket/b"], Seen("", "", seen.content))[0].looked != seen.looked


def test_look__goes_on_where_the_last_one_ran_out_of_time(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 99.0, 0.0, 1.0])
    monkeypatch.setattr(manifest, "_whole", {})
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    urls = [str(file) for file in files]
    with pytest.raises(Unfinished):
        look(urls, None)
    assert look(urls, None)[0].content == look(urls, Seen())[0].content or next(clock, None) is None


def test_project_files__all_that_the_configuration_names(light: Path) -> None:
    (light / "model").mkdir()
    for name in ("model/config.json", "model/model.safetensors", "model/notes.md", "deny.txt", "p.parquet"):
        (light / name).touch()
    (light / "evaluation").mkdir()
    (light / "evaluation" / "e.jsonl").write_text("{}\n")
    change(light, "budget: 8", "budget: 8, deny: deny.txt, allow: deny.txt")
    change(light, "steps: [rds_plus],", "steps: [entropy], probabilities: {url: p.parquet, id: id},")
    change(
        light,
        "recipes:\n",
        "encoders:\n  mine: {model: ./model}\ndecontamination: {files: {e: {files: evaluation}}}\nrecipes:\n",
    )
    read = {Path(url).relative_to(light).as_posix() for url in project_files(load_config(light))}
    assert read == {
        "data/a.jsonl",
        "data/b.jsonl",
        "deny.txt",
        "evaluation/e.jsonl",
        "model/config.json",
        "model/model.safetensors",
        "p.parquet",
        "targets/foxes.jsonl",
        *(f"vectors/{name}" for name in ("pool.npy", "pool.ids.txt", "foxes.npy", "foxes.ids.txt")),
    }


def test_labeling_files__labels_gold_lists_and_own_probabilities(labeling: Path) -> None:
    for name in ("labels/one.jsonl", "gold.jsonl", "deny.txt", "p.parquet"):
        (labeling / name).write_text("")
    own = "classifier: {probabilities: {url: p.parquet, id: id}}"
    change(labeling, "labels/*.jsonl'", f"labels/*.jsonl', gold: gold.jsonl, deny: deny.txt, {own}")
    config = load_config(labeling)
    read = {Path(url).relative_to(labeling).as_posix() for url in labeling_files(config.labeling["a-b"], config.root)}
    assert read == {"labels/one.jsonl", "gold.jsonl", "deny.txt", "p.parquet"}
