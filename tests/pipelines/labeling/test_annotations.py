"""What annotators said, summed up: ties, costs, names, and labels that earlier versions took in."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.labeling.annotations import Annotations, alike, read_annotations
from storage.labels.log import LOG_SCHEMA
from tests.quick import quick_first
from tests.storage.conftest import SmallStore, id_of

CLASSES = ["a", "b", "c"]


@pytest.fixture
def store(tmp_path: Path) -> SmallStore:
    store = SmallStore(tmp_path / "store")
    store.add_snapshot([store.add_file("pool", ["p1", "p2", "p3"])])
    return store


def summed(store: SmallStore, aggregate: str = "majority") -> Annotations:
    return read_annotations(store, "topics", CLASSES, aggregate)


def labels(annotations: Annotations) -> dict[str, str]:
    names = {id_of(prompt): prompt for prompt in ("p1", "p2", "p3")}
    at = annotations.labelled.nonzero()[0].tolist()
    return {names[bytes(annotations.ids[i])]: CLASSES[annotations.consensus.labels[i]] for i in at}


def as_of_an_earlier_version(store: SmallStore) -> None:
    """Change the only import to what an earlier version wrote."""
    header = store.path("records", "labels", store.records("labels")[0], "import.json")
    content = json.loads(header.read_text())
    del content["tied_votes"]
    header.write_text(json.dumps(content))
    unseal(store)


def unseal(store: SmallStore) -> None:
    """Remove the checksums of the only import, which earlier versions did not write."""
    store.path("records", "labels", store.records("labels")[0], "checksums.json").unlink()


def vote(store: SmallStore, votes: str, prompt: str = "p1") -> None:
    store.add_labels(
        "topics", [{"id": prompt, "label": v, "annotator": f"{v}{i}"} for i, v in enumerate(votes)], CLASSES
    )


@pytest.mark.parametrize("aggregate", ["majority", "dawid_skene"])
def test_read__a_tie_has_no_label_until_somebody_decides(store: SmallStore, aggregate: str) -> None:
    vote(store, "ab")
    tied = summed(store, aggregate)
    assert (labels(tied), tied.tied.tolist(), tied.agreement) == ({}, [True], 0.0)
    store.add_labels("topics", [{"id": "p1", "label": "b", "annotator": "judge"}], CLASSES)
    assert labels(summed(store, aggregate)) == {"p1": "b"}


@pytest.mark.parametrize(("votes", "label"), [("aab", "a"), ("bcc", "c"), ("bbcc", None), ("abc", None), ("c", "c")])
def test_read__votes(store: SmallStore, votes: str, label: str | None) -> None:
    vote(store, votes)
    assert labels(summed(store)) == ({} if label is None else {"p1": label})


@pytest.mark.parametrize("aggregate", quick_first(1, ["majority", "dawid_skene"]))
def test_read__the_adjudicator_decides_whatever_others_say(store: SmallStore, aggregate: str) -> None:
    vote(store, "ab")
    vote(store, "ccc", "p2")
    store.add_labels("topics", [{"id": p, "label": "b", "annotator": "eve"} for p in ("p1", "p2")], CLASSES)
    without = summed(store, aggregate)
    assert (labels(without), without.settled.any()) == ({"p1": "b", "p2": "c"}, False)
    decided = read_annotations(store, "topics", CLASSES, aggregate, adjudicator="eve")
    assert labels(decided) == {"p1": "b", "p2": "b"}
    assert decided.consensus.confidence.tolist() == [1.0, 1.0]
    assert (decided.settled.all(), decided.tied.any(), decided.agreement) == (True, False, 0.5)


def test_agreement__of_others_than_the_adjudicator(store: SmallStore) -> None:
    said = [("p1", "ann", "a"), ("p1", "eve", "a"), ("p2", "ann", "a"), ("p2", "bob", "a"), ("p2", "eve", "b")]
    said += [("p3", "ann", "a"), ("p3", "bob", "b"), ("p3", "eve", "b")]
    store.add_labels("topics", [{"id": p, "label": v, "annotator": who} for p, who, v in said], CLASSES)
    assert summed(store).agreement == 1 / 3
    decided = read_annotations(store, "topics", CLASSES, "majority", adjudicator="eve")
    assert decided.agreement == 1 / 2  # of p2 and p3; eve alone shares p1 with ann


def test_read__with_dawid_skene_ties_may_wait(store: SmallStore) -> None:
    everybody = [("p1", "ann", "a"), ("p1", "bob", "a"), ("p2", "ann", "b"), ("p2", "bob", "b"), ("p3", "ann", "a")]
    everybody += [("p1", "cid", "a"), ("p2", "cid", "b"), ("p3", "dot", "b"), ("p1", "dot", "c"), ("p2", "dot", "c")]
    store.add_labels("topics", [{"id": p, "label": v, "annotator": who} for p, who, v in everybody], CLASSES)
    assert labels(summed(store, "dawid_skene"))["p3"] == "a"  # ann is the more reliable
    waits = read_annotations(store, "topics", CLASSES, {"dawid_skene": {"ties": "wait"}})
    assert labels(waits) == {"p1": "a", "p2": "b"}
    assert int(waits.tied.sum()) == 1


def test_read__a_tie_that_an_earlier_version_read_keeps_its_class_until_a_new_vote(store: SmallStore) -> None:
    vote(store, "ba")
    as_of_an_earlier_version(store)
    before = summed(store)
    assert (labels(before), before.tied.tolist()) == ({"p1": "a"}, [True])
    store.add_labels("topics", [{"id": "p1", "label": v, "annotator": f"new {v}"} for v in "ab"], CLASSES)
    assert labels(summed(store)) == {}


def test_read__an_annotator_called_gold_in_a_log_of_an_earlier_version(store: SmallStore) -> None:
    vote(store, "a")
    made = store.records("labels")[0]
    path = store.path("records", "labels", made, "labels.parquet")
    events = [{**row, "annotator": "gold"} for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist([{**row, "id": row["id"].bytes} for row in events], LOG_SCHEMA), path)
    unseal(store)
    annotations = summed(store)
    assert (annotations.annotators, labels(annotations)) == (("gold",), {"p1": "a"})


def test_read__costs_in_a_log_of_an_earlier_version_that_add_up_to_infinity(store: SmallStore) -> None:
    store.add_labels("topics", [{"id": p, "label": "a", "cost": 2} for p in ("p1", "p2", "p3")], CLASSES)
    path = store.path("records", "labels", store.records("labels")[0], "labels.parquet")
    rows = pq.read_table(path).to_pylist()
    for row in rows[:2]:
        row |= {"cost": 1.7e308}
    pq.write_table(pa.Table.from_pylist([{**row, "id": row["id"].bytes} for row in rows], LOG_SCHEMA), path)
    unseal(store)
    assert summed(store).spent == 2.0


def test_import__an_annotator_called_gold_or_a_cost_beyond_all_bounds_costs_that_label(store: SmallStore) -> None:
    made = store.add_labels(
        "topics",
        [
            {"id": "p1", "label": "a", "annotator": "gold"},
            {"id": "p1", "label": "a", "cost": 1e308},
            {"id": "p2", "label": "b", "cost": 1e15},
            {"id": "p3", "label": "b", "annotator": "Gold"},
        ],
        CLASSES,
    )
    assert (made.new, made.quarantined) == (2, 2)
    assert labels(summed(store)) == {"p2": "b", "p3": "b"}


def test_annotations__files_without_annotators_that_differ(store: SmallStore) -> None:
    store.add_labels("topics", [{"id": "p1", "label": "a"}, {"id": "p2", "label": "b"}], CLASSES)
    assert summed(store).unnamed_conflicts == 0
    store.add_labels("topics", [{"id": "p1", "label": "b"}, {"id": "p2", "label": "b"}], CLASSES)
    store.add_labels("topics", [{"id": "p2", "label": "c", "annotator": "ann"}], CLASSES)
    assert summed(store).unnamed_conflicts == 1


def test_annotations__one_person_under_two_names(store: SmallStore) -> None:
    named = ["Ann", "ann", "Bob B.", "bob b", "Cy", "Ｃｙ", "José", "JOSE", "d1", "d2", "?", "!"]
    store.add_labels("topics", [{"id": "p1", "label": "a", "annotator": name} for name in named], CLASSES)
    assert sorted(map(sorted, summed(store).spellings)) == [
        ["Ann", "ann"],
        ["Bob B.", "bob b"],
        ["Cy", "Ｃｙ"],
        ["JOSE", "José"],
    ]
    assert alike([]) == []
