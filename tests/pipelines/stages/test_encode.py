from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.stages import encode as embed_module
from pipelines.stages.encode import embed
from selection.encoders import EncoderSpec, load_encoder
from selection.errors import InvalidInput
from storage.errors import NotInStore
from storage.store import Store, read_json
from storage.vectors.segments import StoredVectors, segment_folders, verify_segments
from tests.tiny_models import tiny_bert, tiny_llama

SHORT = 1e-6  # seconds a segment: as few rows as a segment may have


class Texts:
    """Question and answer rows, given in an order that is not that of the ids, some at a time."""

    name = "pool"

    def __init__(self, rows, *, at_once=50):
        self.rows = {
            hashlib.blake2b(json.dumps(turns).encode(), digest_size=16).digest(): turns
            for turns in map(self.turns_of, rows)
        }
        self.at_once = at_once
        self.ids = np.sort(np.frombuffer(b"".join(self.rows), "S16"))

    @staticmethod
    def turns_of(row):
        return [("user", f"question {row} " + "the fox " * (row * 7 % 23)), ("assistant", f"answer {row}")]

    def turns(self, wanted):
        asked = {bytes(key) for key in np.asarray(wanted).view("V16")}
        found = [key for key in self.rows if key in asked]
        for at in range(0, len(found), self.at_once):
            some = found[at : at + self.at_once]
            yield np.frombuffer(b"".join(some), "S16"), [self.rows[key] for key in some]


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("embed") / "bert")


@pytest.fixture
def spec(bert):
    return EncoderSpec(model=str(bert), max_tokens=40)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def content(store, spec):
    """Every byte of the vectors, keys and failures, by segment."""
    return {
        f"{segment.name}/{file}": (segment / file).read_bytes()
        for segment in segment_folders(store, spec.fingerprint())
        for file in ("vectors.npy", "keys.npy", "failed.npy")
    }


def plans(store, spec):
    return [name for name in store.committed("vectors", spec.fingerprint()) if name.startswith("plan-")]


def test_embed__every_id_gets_the_vector_of_its_own_text(store, spec):
    source = Texts(range(200))
    report = embed(store, spec, source, segment_seconds=SHORT)
    assert (report.n_rows, report.n_encoded, report.n_failed, report.n_segments) == (200, 200, 0, 4)
    model = load_encoder(spec, "cpu")
    texts = [model.text_of(source.rows[bytes(key)]) for key in source.ids.view("V16")]
    vectors = StoredVectors(store, report.encoder, source.ids).take(np.arange(200))
    np.testing.assert_allclose(vectors, model.encode(texts), atol=1e-3)
    assert report.tokens == model.lengths(texts).sum()
    assert report.truncated == model.tokens(texts).truncated.sum() > 0
    assert verify_segments(store, report.encoder) == 200
    assert plans(store, spec) == []
    facts = read_json(store.path("vectors", report.encoder, "encoder.json"))
    assert EncoderSpec(**facts["spec"]) == spec
    assert facts["dimension"] == 64


def test_embed__again_encodes_nothing_and_loads_no_model(store, spec, monkeypatch):
    embed(store, spec, Texts(range(100)))
    monkeypatch.setattr(embed_module, "load_vectorizer", None)
    report = embed(store, spec, Texts(range(100)))
    assert (report.n_rows, report.n_encoded, report.n_segments, report.tokens) == (100, 0, 0, 0)


def test_embed__added_rows_are_encoded_and_no_others(store, spec):
    embed(store, spec, Texts(range(100)), segment_seconds=SHORT)
    before = content(store, spec)
    source = Texts(range(40, 117))
    report = embed(store, spec, source, segment_seconds=SHORT)
    assert (report.n_rows, report.n_encoded, report.n_segments) == (77, 17, 1)
    after = content(store, spec)
    assert {name: after[name] for name in before} == before
    assert verify_segments(store, report.encoder) == 117


def test_embed__the_order_and_size_of_what_the_source_gives_at_once_do_not_matter(tmp_path, spec):
    contents = []
    for name, at_once in (("a", 1), ("b", 1000)):
        store = Store(tmp_path / name)
        embed(store, spec, Texts(range(150), at_once=at_once), segment_seconds=SHORT)
        contents.append(content(store, spec))
    assert contents[0] == contents[1]


def test_progress__counts_up_to_all_after_every_batch(store, spec):
    seen = []
    embed(store, spec, Texts(range(150)), on_progress=lambda *counts: seen.append(counts), segment_seconds=SHORT)
    done = [count for count, _ in seen]
    assert (done[0], done[-1]) == (0, 150)
    assert done == sorted(done)
    assert {total for _, total in seen} == {150}
    assert len(done) > 3


class Stop(BaseException):
    pass


def interrupted(store, spec, source, after):
    """Embed until `after` texts are encoded, then stop as if killed."""

    def on_progress(done, total):
        if done >= after:
            raise Stop

    with pytest.raises(Stop):
        embed(store, spec, source, on_progress=on_progress, segment_seconds=SHORT)


def test_a_stopped_run__is_taken_up_with_the_same_segments(tmp_path, spec):
    whole = Store(tmp_path / "whole")
    embed(whole, spec, Texts(range(300)), segment_seconds=SHORT)
    store = Store(tmp_path / "stopped")
    interrupted(store, spec, Texts(range(300)), after=150)
    assert len(plans(store, spec)) == 1
    done = sum(len(np.load(segment / "keys.npy")) for segment in segment_folders(store, spec.fingerprint()))
    assert 0 < done < 300
    # Other settings and an order of their own: the plan that was committed holds.
    report = embed(store, spec, Texts(reversed(range(300))), segment_seconds=1000)
    assert report.n_encoded == 300 - done
    assert content(store, spec) == content(whole, spec)
    assert plans(store, spec) == []


def test_a_stopped_run__is_taken_up_by_a_pool_that_grew(tmp_path, spec):
    whole = Store(tmp_path / "whole")
    embed(whole, spec, Texts(range(200)), segment_seconds=SHORT)
    store = Store(tmp_path / "stopped")
    interrupted(store, spec, Texts(range(200)), after=100)
    report = embed(store, spec, Texts(range(250)), segment_seconds=SHORT)
    after = content(store, spec)
    assert content(whole, spec).items() <= after.items()
    assert verify_segments(store, report.encoder) == 250
    assert plans(store, spec) == []


def test_a_stopped_run__whose_rows_are_no_longer_wanted_does_not_encode_them(store, spec):
    interrupted(store, spec, Texts(range(200)), after=1)
    source = Texts(range(50, 90))
    report = embed(store, spec, source, segment_seconds=SHORT)
    assert len(plans(store, spec)) == 1
    assert report.n_encoded == 40
    assert verify_segments(store, report.encoder) == 40
    # the pool's own run still finds what it misses, and leaves no plan behind
    report = embed(store, spec, Texts(range(200)), segment_seconds=SHORT)
    assert report.n_encoded == 160
    assert verify_segments(store, report.encoder) == 200
    assert plans(store, spec) == []


SCRIPT = """
import sys
from pathlib import Path
sys.path.append({root!r})
from tests.pipelines.stages.test_encode import SHORT, Texts
from pipelines.stages.encode import embed
from selection.encoders import EncoderSpec
from storage.store import Store

spec = EncoderSpec(model={model!r}, max_tokens=40)
print("ready", flush=True)
report = embed(Store({store!r}), spec, Texts(range(700)), segment_seconds=SHORT,
               on_progress=lambda done, total: print(done, flush=True))
print("done", report.n_encoded, flush=True)
"""


def run(store, spec):
    root = Path(__file__).resolve().parents[3]
    script = SCRIPT.format(root=str(root), model=spec.model, store=str(store.root))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


@pytest.mark.slow
def test_kill_9_at_random_moments__resumes_to_the_same_bytes(tmp_path, spec):
    whole = Store(tmp_path / "whole")
    child = run(whole, spec)
    assert "done 700" in child.communicate(timeout=600)[0]
    expected = content(whole, spec)
    store = Store(tmp_path / "killed")
    chance = random.Random(0)
    for _ in range(3):
        child = run(store, spec)
        target = chance.randint(0, 200)
        for line in child.stdout:
            if line.strip().isdigit() and int(line) >= target:
                break
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert content(store, spec).items() <= expected.items()  # what is there is whole and right
    child = run(store, spec)
    output = child.communicate(timeout=600)[0]
    done = int(output.rsplit("done ", 1)[1])
    assert content(store, spec) == expected
    assert 0 < done < 700  # the killed runs' segments were not encoded again
    assert plans(store, spec) == []


def test_two_at_once__the_second_waits_is_told_for_whom_and_encodes_nothing(store, spec):
    waited, reports, first_batch = [], [], threading.Event()

    def second():
        first_batch.wait(30)
        reports.append(embed(store, spec, Texts(range(150)), on_wait=waited.append, segment_seconds=SHORT))

    other = threading.Thread(target=second)
    other.start()

    def on_progress(done, total):
        if done:
            first_batch.set()
            deadline = time.monotonic() + 10
            while not waited and time.monotonic() < deadline:
                time.sleep(0.01)

    assert embed(store, spec, Texts(range(150)), on_progress=on_progress, segment_seconds=SHORT).n_encoded == 150
    other.join()
    assert "embed pool, process" in waited[0]
    assert reports[0].n_encoded == 0


class WithEmpty(Texts):
    """Some rows whose text has no tokens under a chat template that adds nothing."""

    def __init__(self, rows, empty):
        self.empty = empty
        super().__init__(rows)

    def turns_of(self, row):
        return [("skip", str(row))] if row in self.empty else super().turns_of(row)


@pytest.fixture(scope="session")
def silent_llama(tmp_path_factory):
    folder = tiny_llama(tmp_path_factory.mktemp("silent") / "llama", chat_template=True)
    template = "{% for m in messages %}{% if m['role'] != 'skip' %}{{ m['content'] }}{% endif %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    return EncoderSpec(model=str(folder), template="chat_template")


def test_a_text_without_a_vector__is_recorded_and_loses_itself_alone(store, silent_llama):
    source = WithEmpty(range(150), empty={7})
    report = embed(store, silent_llama, source)
    assert (report.n_encoded, report.n_failed) == (150, 1)
    vectors = StoredVectors(store, report.encoder, source.ids)
    (row,) = vectors.failed_rows
    key = bytes(source.ids[row : row + 1].view("V16")[0])
    assert source.rows[key] == [("skip", "7")]
    facts = read_json(segment_folders(store, report.encoder)[0] / "segment.json")
    assert list(facts["failed"].values()) == ["no tokens"]
    again = embed(store, silent_llama, source)
    assert (again.n_encoded, again.n_failed) == (0, 1)


def test_rows_that_the_chat_template_refuses__are_listed_with_its_words_and_are_no_error(store, tmp_path):
    folder = tiny_llama(tmp_path / "llama", chat_template=True)
    refusing = "{% if messages[0].role == 'skip' %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    path = folder / "chat_template.jinja"
    path.write_text(refusing + path.read_text())
    spec = EncoderSpec(model=str(folder), template="chat_template", max_tokens=40)
    source = WithEmpty(range(150), empty=set(range(20, 60)))
    for encoded in (150, 0):
        report = embed(store, spec, source)
        assert (report.n_encoded, report.n_failed) == (encoded, 40)
    facts = read_json(segment_folders(store, report.encoder)[0] / "segment.json")
    assert set(facts["failed"].values()) == {"the chat template refuses it: Roles must alternate"}
    vectors = StoredVectors(store, report.encoder, source.ids)
    refused = [source.rows[bytes(key)] for key in source.ids[vectors.failed_rows].view("V16")]
    assert sorted(int(turns[0][1]) for turns in refused) == list(range(20, 60))


def test_too_many_texts_without_a_vector__are_an_error_each_time(store, silent_llama):
    source = WithEmpty(range(150), empty={7, 50, 90})
    for _ in range(2):
        with pytest.raises(InvalidInput, match="3 of 150 texts got no vector, at most 1% may"):
            embed(store, silent_llama, source)


def test_a_model_that_overflows__is_an_error(store, spec, monkeypatch):
    from selection.encoders import Encoder

    monkeypatch.setattr(
        Encoder, "encode_tokens", lambda self, tokens, **kwargs: np.full((len(tokens.ids), 64), np.nan, np.float32)
    )
    with pytest.raises(InvalidInput, match="values that are not finite"):
        embed(store, spec, Texts(range(100)))


def test_a_source_that_keeps_a_text_back__is_an_error(store, spec):
    source = Texts(range(100))
    source.rows.pop(next(iter(source.rows)))
    with pytest.raises(NotInStore, match="pool: asked for the texts of 100 ids, got 99"):
        embed(store, spec, source)


def test_a_source_that_keeps_a_planned_text_back__is_an_error(store, spec):
    interrupted(store, spec, Texts(range(100)), after=1)
    source = Texts(range(100))
    source.rows.pop(next(iter(source.rows)))
    with pytest.raises(NotInStore, match="the texts of 1 of 100 ids were not given"):
        embed(store, spec, source)


def test_an_empty_source__needs_no_model(store, spec, monkeypatch):
    monkeypatch.setattr(embed_module, "load_vectorizer", None)
    report = embed(store, spec, Texts([]))
    assert (report.n_rows, report.n_encoded) == (0, 0)


@pytest.mark.parametrize("file", ["vectors.npy", "failed.npy", "keys.npy", "segment.json"])
@pytest.mark.parametrize("sealed", [True, False])
def test_embed__a_damaged_segment_is_encoded_again(store, spec, file, sealed):
    source = Texts(range(200))
    embed(store, spec, source, segment_seconds=SHORT)
    before = content(store, spec)
    vectors = StoredVectors(store, spec.fingerprint(), source.ids).take(np.arange(200))
    damaged = segment_folders(store, spec.fingerprint())[1]
    n_damaged = len(np.load(damaged / "keys.npy"))
    data = bytearray((damaged / file).read_bytes())
    data[-1 if file != "segment.json" else 0] ^= 1
    (damaged / file).write_bytes(data)
    if not sealed:  # as an earlier version committed it
        for path in store.root.rglob("checksums.json"):
            path.unlink()
    said = []
    seen = Store(store.root, on_notice=said.append)
    report = embed(seen, spec, source, segment_seconds=SHORT)
    assert report.n_encoded == n_damaged or file == "keys.npy"
    assert f"{damaged / file} " in said[0]
    assert "put aside in" in said[0]
    assert store.path("set-aside", *damaged.relative_to(store.root).parts).is_dir()
    if file in ("vectors.npy", "failed.npy"):  # the same batches, so the same bytes
        assert content(store, spec) == before
    again = StoredVectors(store, spec.fingerprint(), source.ids).take(np.arange(200))
    np.testing.assert_allclose(again, vectors, atol=1e-3)
    assert plans(store, spec) == []
