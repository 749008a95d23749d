"""Exports at URLs, on fsspec's file system in memory; those of a bucket are for tests/end_to_end/test_urls.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipelines.errors import BadExport, WouldOverwrite
from pipelines.exports.card import write_simple_card
from pipelines.exports.place import UNFINISHED, UrlFolder, check_place, place_of, writing
from storage.store import Store

OUT = UrlFolder("memory://train/out")


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def export(store: Store, **texts: str) -> None:
    with writing(store, OUT) as staging:
        (staging.content / "data").mkdir()
        (staging.scratch / "block").write_text("gone at the end")
        files = [staging.content / "data" / name for name in texts]
        for file, text in zip(files, texts.values(), strict=True):
            file.write_text(text)
        write_simple_card(staging.content, "x", {"rows": 1}, files, [], None)


def content(memory: Any) -> dict[str, bytes]:
    return {path.removeprefix("/train/out/"): memory.cat_file(path) for path in memory.find("/train/out")}


def test_place_of__a_url_or_an_absolute_path(tmp_path: Path) -> None:
    assert place_of("memory://train/out/") == OUT
    assert place_of(f"file://{tmp_path}/a") == place_of(tmp_path / "a") == tmp_path / "a"
    assert f"{OUT}, {OUT / 'axolotl.yaml'}" == "memory://train/out, memory://train/out/axolotl.yaml"


def test_writing__takes_the_place_of_an_earlier_export(memory: Any, tmp_path: Path) -> None:
    export(Store(tmp_path), a="1", b="2")
    export(Store(tmp_path), b="3")
    files = content(memory)
    assert {name: files[name] for name in files if name.startswith("data/")} == {"data/b": b"3"}
    assert UNFINISHED not in json.loads(files["provenance.json"])
    assert not list((tmp_path / "tmp").iterdir())


def test_writing__the_same_files_again_write_nothing(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(Store(tmp_path), a="1")
    monkeypatch.setattr(type(memory), "pipe_file", None)
    monkeypatch.setattr(type(memory), "put_file", None)
    export(Store(tmp_path), a="1")


def test_writing__one_that_is_cut_off_says_so_and_the_next_takes_its_place(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(Store(tmp_path), a="1")
    put = type(memory).put_file

    def cut_off(self: Any, local: str, path: str, **options: Any) -> None:
        if path.endswith("/c"):
            raise OSError("the network is gone")
        put(self, local, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", cut_off)
        with pytest.raises(BadExport, match="out: memory://train/out: the network is gone"):
            export(Store(tmp_path), a="111", b="2", c="3")
    assert json.loads(content(memory)["provenance.json"])[UNFINISHED] is True
    export(Store(tmp_path), d="4")
    assert [name for name in content(memory) if name.startswith("data/")] == ["data/d"]


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("/train/out/mine.txt", "is an earlier export, but mine.txt in it is no file of the export"),
        ("/train/out/data/a", "is an earlier export, but data/a in it was changed since"),
    ],
)
def test_check_place__the_files_of_a_user_stay(memory: Any, tmp_path: Path, path: str, refused: str) -> None:
    export(Store(tmp_path), a="1")
    memory.pipe_file(path, b"mine")
    with pytest.raises(WouldOverwrite, match=refused):
        export(Store(tmp_path), a="2")
    memory.rm_file("/train/out/provenance.json")
    with pytest.raises(WouldOverwrite, match="memory://train/out was not written by `winnow export`"):
        check_place(OUT)
    assert content(memory)[path.removeprefix("/train/out/")] == b"mine"


def test_check_place__what_is_no_file_system() -> None:
    with pytest.raises(BadExport, match="out: nonsense://x: Protocol not known: nonsense"):
        check_place(place_of("nonsense://x"))


def test_fetch__all_files(memory: Any, tmp_path: Path) -> None:
    export(Store(tmp_path / "store"), a="1")
    OUT.fetch(tmp_path / "copy")
    assert (tmp_path / "copy" / "data" / "a").read_text() == "1"
    assert (tmp_path / "copy" / "provenance.json").read_bytes() == content(memory)["provenance.json"]
