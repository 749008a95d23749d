"""Pool, targets, vectors, labels and exports at S3 URLs, against a server of this machine."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipelines.errors import BadExport
from pipelines.exports.export import export_selection
from pipelines.exports.options import ExportOptions
from pipelines.exports.place import check_place, place_of
from pipelines.run import run_all
from pipelines.stages.pull import pull
from storage.errors import BadInput
from storage.files.user_files import expand
from tests.pipelines.conftest import Winnow, change, make_light, opened

pytestmark = [
    pytest.mark.slow,  # the server and its client take three seconds to import
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of sockets that the client leaves open
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
LABELING = """\
labeling:
  topics: {classes: [fox, other], labels: "s3://pool/labels/*.jsonl"}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for each request
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system, with a bucket `pool` that is empty."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = fsspec.filesystem("s3")
    files.mkdir("pool")
    yield files
    files.invalidate_cache()
    files.rm("pool", recursive=True)
    files.clear_instance_cache()


@pytest.fixture
def remote(s3: Any, tmp_path: Path) -> Path:
    """The light project, whose files are all in the bucket."""
    project = make_light(tmp_path / "light")
    for path in (*project.glob("*/*.jsonl"), *project.glob("vectors/*")):
        s3.put_file(str(path), f"pool/{path.relative_to(project)}")
        path.unlink()
    text = (project / "winnow.yaml").read_text()
    for folder in ("data", "vectors", "targets"):
        text = text.replace(f" {folder}/", f" s3://pool/{folder}/")
    (project / "winnow.yaml").write_text(text + LABELING)
    return project


def texts(s3: Any, folder: str) -> dict[str, bytes]:
    s3.invalidate_cache()
    return {path.removeprefix(f"{folder}/"): s3.cat_file(path) for path in s3.find(folder)}


def test_urls__a_project_whose_files_are_all_in_a_bucket_gives_the_rows_of_a_local_one(
    s3: Any, remote: Path, tmp_path: Path
) -> None:
    local = make_light(tmp_path / "local")
    s3.pipe_file("pool/labels/ann.jsonl", b'{"id": "fox-1", "label": "fox", "annotator": "ann"}\n')
    export = "exports:\n  foxes: {recipe: near, to: messages, shards: 2, out: s3://pool/train/foxes/}\n"
    change(remote, "labeling:", f"{export}labeling:")
    run_all(opened(remote))
    run_all(opened(local), ["near"])
    export_selection(opened(local), "near", ExportOptions(to="messages", shards=2), tmp_path / "foxes")
    exported, names = texts(s3, "pool/train/foxes"), [f"data/train-0000{n}-of-00002.jsonl" for n in range(2)]
    assert {*exported} == {"README.md", "provenance.json", *names}
    assert [exported[name] for name in names] == [(tmp_path / "foxes" / name).read_bytes() for name in names]
    assert json.loads(exported["provenance.json"])["files"]
    assert pull(opened(remote), "topics").metrics["new_labels"] == 1

    options = ExportOptions(to="messages", trainer="axolotl")
    report = export_selection(opened(remote), "any", options, "s3://pool/train/foxes")
    assert report.summary == "8 rows written to s3://pool/train/foxes"
    exported = texts(s3, "pool/train/foxes")
    assert {*exported} == {"README.md", "provenance.json", "data/train.jsonl", "axolotl.yaml"}
    assert b"s3://pool/train/foxes/data/train.jsonl" in exported["axolotl.yaml"]
    assert exported["data/train.jsonl"].count(b"\n") == 8


def test_urls__a_file_that_somebody_else_puts_there_is_seen_in_the_same_process(s3: Any, server: str) -> None:
    boto3 = pytest.importorskip("boto3")
    s3.pipe_file("pool/a.jsonl", b"1")
    pattern = ["s3://pool/*.jsonl"]
    assert expand(pattern, Path("/")) == ["s3://pool/a.jsonl"]
    boto3.client("s3", endpoint_url=server).put_object(Bucket="pool", Key="b.jsonl", Body=b"2")
    assert expand(pattern, Path("/")) == ["s3://pool/a.jsonl", "s3://pool/b.jsonl"]


def test_urls__what_cannot_be_read_or_written_is_said(
    s3: Any, remote: Path, monkeypatch: pytest.MonkeyPatch, winnow: Winnow
) -> None:
    with pytest.raises(BadInput, match=r"'s3://absent/\*.jsonl' cannot be listed: there is no bucket 'absent'"):
        expand(["s3://absent/*.jsonl"], remote)
    with pytest.raises(BadExport, match="out: s3://absent/x: The specified bucket does not exist"):
        check_place(place_of("s3://absent/x"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    s3.clear_instance_cache()
    ended = winnow("run", "--config", remote)
    assert ended.code == 2
    assert "'s3://pool/data/*.jsonl' cannot be listed: Unable to locate credentials; set AWS_ACCESS_KEY_ID" in ended.err
    assert "Traceback" not in ended.err
    with pytest.raises(BadExport, match="out: s3://pool/x: Unable to locate credentials; set AWS_ACCESS_KEY_ID"):
        check_place(place_of("s3://pool/x"))
