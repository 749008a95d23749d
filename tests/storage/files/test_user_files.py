from __future__ import annotations

import json
import os
import time
from pathlib import Path

import fsspec
import pytest

from storage.errors import BadInput
from storage.files.user_files import default_source_of, expand, file_digest, opened
from storage.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.jsonl.gz", "sub/c.parquet", "notes.md", ".hidden.jsonl", "odd [x] ü.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def names(files: list[str], folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in files]


def test_expand__folder_glob_path_sorted_and_once(folder: Path):
    assert names(expand([str(folder)], Path("/")), folder) == [
        "a.jsonl.gz",
        "b.jsonl",
        "odd [x] ü.csv",
        "sub/c.parquet",
    ]
    assert names(expand(["*.jsonl", "b.jsonl", "./b.jsonl", str(folder / "b.jsonl")], folder), folder) == ["b.jsonl"]
    assert names(expand(["**/*.parquet"], folder), folder) == ["sub/c.parquet"]
    assert names(expand(["s*"], folder), folder) == ["sub/c.parquet"]
    assert names(expand([f"file://{folder}/b.jsonl"], Path("/")), folder) == ["b.jsonl"]


def test_expand__a_name_with_glob_characters_that_exists_is_that_file(folder: Path):
    assert names(expand(["odd [x] ü.csv"], folder), folder) == ["odd [x] ü.csv"]


@pytest.mark.parametrize(
    "pattern", ["nothing*", "no/such.jsonl", "memory://nothing/*.jsonl", "memory://nothing/a.jsonl"]
)
def test_expand__nothing_matches_names_the_pattern(folder: Path, pattern: str):
    with pytest.raises(BadInput) as error:
        expand(["b.jsonl", pattern], folder)
    assert pattern in str(error.value)


def test_expand__an_unknown_protocol(folder: Path):
    with pytest.raises(BadInput, match="cannot be listed"):
        expand(["nonsense://x/y.jsonl"], folder)


@pytest.mark.parametrize("url", ["reference://x", "jupyter://x/y.jsonl", "zip://a.jsonl::/nowhere.zip", "s3://b/x"])
def test_expand__a_url_that_no_file_system_opens(folder: Path, url: str):
    with pytest.raises(BadInput, match="cannot be listed"):
        expand([url], folder)


def test_expand__a_name_that_is_no_text(folder: Path):
    (folder / os.fsdecode(b"caf\xe9.jsonl")).write_text("")
    for pattern in ("caf*.jsonl", str(folder)):
        with pytest.raises(BadInput, match=r"caf\\xe9.jsonl' is not UTF-8 text; rename it"):
            expand([pattern], folder)


def test_remote__expands_and_opens(tmp_path: Path):
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe({"/pool/a.jsonl": b"1", "/pool/b.csv": b"22", "/pool/readme.md": b"", "/pool/state.json": b"{}"})
        both = expand(["memory://pool"], tmp_path)
        assert both == expand(["memory://pool/*.jsonl", "memory://pool/b.csv"], tmp_path)
        assert [default_source_of(url) for url in both] == ["a", "b"]
        with opened(Store(tmp_path / "store"), both[1]) as file:
            assert file.read() == b"22"
    finally:
        fs.store.clear()


def test_datasets_folders__their_data_files_only(tmp_path: Path):
    for split in ("train", "test"):
        part = tmp_path / "mine" / split
        part.mkdir(parents=True)
        for name in ("data-00000-of-00001.arrow", "cache-123.arrow", "dataset_info.json"):
            (part / name).write_bytes(b"{}")
        (part / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (tmp_path / "mine" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    files = expand(["mine"], tmp_path)
    assert names(files, tmp_path) == [f"mine/{split}/data-00000-of-00001.arrow" for split in ("test", "train")]
    assert [default_source_of(url) for url in files] == ["mine/test", "mine/train"]
    assert default_source_of(expand(["mine/train"], tmp_path)[0]) == "mine/train"


def test_a_state_json_of_something_else__hides_nothing(tmp_path: Path):
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "a.jsonl").write_text("{}")
    assert names(expand(["."], tmp_path), tmp_path) == ["a.jsonl"]


def test_opened__missing_and_folder(tmp_path: Path):
    store = Store(tmp_path / "store")
    for url in (str(tmp_path / "no.jsonl"), str(tmp_path), "memory://no.jsonl", "nonsense://x"):
        with pytest.raises(BadInput, match="cannot be opened") as error, opened(store, url):
            pass
        assert url in str(error.value)


def test_file_digest__of_the_bytes_and_rewinds(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    with (tmp_path / "a").open("rb") as file:
        first = file_digest(file)
        assert file_digest(file) == first
    (tmp_path / "b").write_bytes(b"x" * 2_999_999 + b"y")
    with (tmp_path / "b").open("rb") as file:
        assert file_digest(file) != first


LOOPS = {
    "to itself": {"sub/again": "."},
    "to the folder above": {"sub/up": ".."},
    "by way of another": {"sub/there": "../other", "other/back": "../sub"},
    "two that double each level": {"sub/a": ".", "sub/b": "."},
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("pattern", [".", "sub", "**/*.jsonl", "sub/**", "s*"])
def test_expand__a_folder_that_holds_itself_is_refused_at_once(folder: Path, loop: str, pattern: str):
    (folder / "other").mkdir()
    for link, target in LOOPS[loop].items():
        (folder / link).symlink_to(target)
    started = time.monotonic()
    with pytest.raises(BadInput, match="is a link to a folder that holds it"):
        expand([pattern], folder)
    assert time.monotonic() - started < 2


def test_expand__links_that_lead_elsewhere_are_followed(folder: Path):
    (folder / "other").mkdir()
    (folder / "other" / "d.jsonl").write_text("")
    for name in ("first", "second"):
        (folder / name).symlink_to("other")
    expected = [f"{name}/d.jsonl" for name in ("first", "other", "second")]
    assert names(expand(["**/d.jsonl"], folder), folder) == expected
    assert set(expected) < set(names(expand(["."], folder), folder))


def test_expand__what_is_no_file_is_named(folder: Path):
    os.mkfifo(folder / "sub" / "pipe.jsonl")
    os.mkfifo(folder / "sub" / "pipe")  # no name of data: a folder does not stand for it
    for pattern in (".", "sub", "sub/*", "**/*.jsonl", "sub/pipe.jsonl"):
        with pytest.raises(BadInput, match=r"sub/pipe(\.jsonl)? is a named pipe"):
            expand([pattern], folder)
    (folder / "sub" / "pipe.jsonl").unlink()
    assert names(expand(["sub"], folder), folder) == ["sub/c.parquet"]


def test_opened__what_became_a_pipe_does_not_block(folder: Path, tmp_path: Path):
    os.mkfifo(folder / "pipe.jsonl")
    with (
        pytest.raises(BadInput, match=r"pipe\.jsonl is a named pipe"),
        opened(Store(tmp_path), str(folder / "pipe.jsonl")),
    ):
        pass
