"""The views of labels, on a log small enough to check by hand."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from storage.catalog.publish import publish_catalog, rebuild_catalog
from storage.catalog.query import open_catalog
from tests.storage.conftest import SmallStore

CLASSES = ["a", "b"]


@pytest.fixture
def labelled(store: SmallStore) -> SmallStore:
    """Two rounds of a project, three annotators, a gold row (p5), an ignored row (p4), a row outside of rounds (p6)."""
    store.add_snapshot([store.add_file("a", ["p1", "p2", "p3", "p4", "p5", "p6"])])
    store.add_round("topics", 0, ["p1", "p2", "p5"], spent=0, metrics={"accuracy": 0.5}, model=None)
    store.add_round(
        "topics", 1, ["p3", "p1", "p4"], spent=3, model="m0", advice={"stop": True, "reasons": ["kappa 0.995 >= 0.99"]}
    )
    store.add_labels("topics", [{"id": "p5", "label": "a"}], CLASSES, gold=True)
    labels: list[dict[str, Any]] = [
        {"id": "p1", "annotator": "ann", "label": "a", "seconds": 2, "cost": 1.0},
        {"id": "p1", "annotator": "bob", "label": "b", "seconds": 4, "cost": 1.0, "round": "topics-0"},
        {"id": "p1", "annotator": "cy", "label": "b", "round": "topics-1", "cost": 0.5},
        {"id": "p2", "annotator": "ann", "label": "b", "seconds": 6, "cost": 1.0, "time": "2026-01-01"},
        {"id": "p2", "annotator": "ann", "label": "a", "seconds": 8, "cost": 2.0, "time": "2026-01-02"},
        {"id": "p2", "annotator": "bob", "label": "a"},
        {"id": "p3", "annotator": "bob", "skip": True},
        {"id": "p4", "annotator": "ann", "label": "a"},
        {"id": "p4", "annotator": "bob", "label": "b"},
        {"id": "p4", "annotator": "bob", "ignore": True},
        {"id": "p5", "annotator": "ann", "label": "a"},
        {"id": "p5", "annotator": "bob", "label": "b"},
        {"id": "p6", "annotator": "ann", "label": "a", "rating": 3, "comment": "fine", "seconds": 2},
        {"id": "p6", "label": "unheard of"},
    ]
    store.add_labels("topics", labels, CLASSES)
    store.add_labels("other", [{"id": "p1", "annotator": "ann", "label": "b"}], CLASSES)
    store.add_model("topics", "m0", {"p1": "b", "p2": "a"})
    publish_catalog(store)
    return store


def rows(store: SmallStore, sql: str) -> list[tuple[Any, ...]]:
    with open_catalog(store) as connection:
        return connection.execute(sql).fetchall()


def test_labels__the_latest_of_each(labelled: SmallStore) -> None:
    result = rows(
        labelled,
        "SELECT prompt, annotator, kind, label, rating, seconds FROM labels JOIN examples USING (id) "
        "WHERE project = 'topics' AND prompt IN ('p2', 'p4', 'p5', 'p6') ORDER BY ALL",
    )
    assert result == [
        ("p2", "ann", "class", "a", None, 8.0),
        ("p2", "bob", "class", "a", None, None),
        ("p4", "ann", "class", "a", None, None),
        ("p4", "bob", "class", "b", None, None),
        ("p4", "bob", "ignore", None, None, None),
        ("p5", "ann", "class", "a", None, None),
        ("p5", "bob", "class", "b", None, None),
        ("p5", "gold", "gold", "a", None, None),
        ("p6", "ann", "class", "a", None, 2.0),
        ("p6", "ann", "rating", None, 3.0, None),
        ("p6", "ann", "text", "fine", None, None),
    ]
    assert rows(labelled, "SELECT count(*) FROM label_events") == [(17,)]


def test_annotators__how_much_how_well_how_fast(labelled: SmallStore) -> None:
    result = rows(
        labelled, "SELECT * EXCLUDE (project, adjudicates) FROM annotators WHERE project = 'topics' ORDER BY annotator"
    )
    # Shared: ann with bob on p1 no, p2 yes, p4 no, p5 no, with cy on p1 no; bob with cy on p1 yes.
    assert result == [
        # n_labels, skipped, ignored, n_shared, agreement, n_gold, gold_accuracy, median_seconds, cost
        ("ann", 5, 0, 0, 4, 1 / 5, 1, 1.0, 2.0, 3.0),
        ("bob", 4, 1, 1, 4, 2 / 5, 1, 0.0, 4.0, 1.0),
        ("cy", 1, 0, 0, 1, 1 / 2, 0, None, None, 0.5),
    ]
    assert rows(
        labelled, "SELECT annotator, n_labels, n_shared, agreement FROM annotators WHERE project = 'other'"
    ) == [("ann", 1, 0, None)]


def test_annotators__the_adjudicator_is_none_of_the_others(labelled: SmallStore) -> None:
    labelled.add_run("pull", "topics", None, facts={"adjudicator": "cy"})
    publish_catalog(labelled)
    result = rows(
        labelled,
        "SELECT annotator, adjudicates, n_shared, agreement FROM annotators WHERE project = 'topics' ORDER BY annotator",
    )
    # cy decided p1: no longer a row on which ann or bob agree with somebody. She herself agrees with bob and not with
    # ann.
    assert result == [("ann", False, 4, 1 / 4), ("bob", False, 4, 1 / 4), ("cy", True, 1, 1 / 2)]


def test_labels__what_each_cost(store: SmallStore) -> None:
    store.add_snapshot([store.add_file("a", ["p1", "p2", "p3"])])
    store.add_round("topics", 0, ["p1", "p2"], prices=[0.2, 0.3], spent=0)
    labels = [
        {"id": "p1", "annotator": "ann", "label": "a"},
        {"id": "p2", "annotator": "ann", "label": "a", "cost": 7.0},
        {"id": "p2", "annotator": "bob", "skip": True},
        {"id": "p3", "annotator": "bob", "label": "b"},
    ]
    store.add_labels("topics", labels, CLASSES)
    publish_catalog(store)
    query = "SELECT prompt, annotator, cost, price FROM labels JOIN examples USING (id) ORDER BY ALL"
    assert rows(store, query) == [
        ("p1", "ann", None, 0.2),
        ("p2", "ann", 7.0, 7.0),
        ("p2", "bob", None, None),
        ("p3", "bob", None, None),  # no round sent it out
    ]
    assert rows(store, "SELECT annotator, cost FROM annotators ORDER BY annotator") == [("ann", 7.2), ("bob", None)]
    assert rows(store, "SELECT cost FROM rounds") == [(7.2,)]
    store.add_run("pull", "topics", None, facts={"price_per_label": 0.5})
    publish_catalog(store)
    assert [price for *_, price in rows(store, query)] == [0.5, 7.0, None, 0.5]


def test_label_conflicts__rows_with_their_votes(labelled: SmallStore) -> None:
    result = rows(
        labelled,
        "SELECT prompt, n_labels, n_classes, votes FROM label_conflicts JOIN examples USING (id) ORDER BY prompt",
    )
    # p4 is ignored, p2 was settled.
    assert result == [
        ("p1", 3, 2, '{"ann":"a","bob":"b","cy":"b"}'),
        ("p5", 2, 2, '{"ann":"a","bob":"b"}'),
    ]


def test_adjudication__the_classes_with_the_most_votes(store: SmallStore) -> None:
    store.add_snapshot([store.add_file("a", ["p1", "p2", "p3", "p4", "p5"])])
    votes = {"p1": "ab", "p2": "aab", "p3": "aabbc", "p4": "ab", "p5": "ab"}
    labels = [
        {"id": prompt, "label": label, "annotator": f"{label}{i}"}
        for prompt, text in votes.items()
        for i, label in enumerate(text)
    ]
    store.add_labels("topics", [*labels, {"id": "p4", "ignore": True, "annotator": "boss"}], ["a", "b", "c"])
    store.add_labels("topics", [{"id": "p5", "label": "a"}], ["a", "b", "c"], gold=True)
    publish_catalog(store)
    query = "SELECT prompt, n_labels, tied FROM adjudication JOIN examples USING (id) ORDER BY prompt"
    assert rows(store, query) == [
        ("p1", 2, '{"a":["a0"],"b":["b1"]}'),
        ("p3", 5, '{"a":["a0","a1"],"b":["b2","b3"]}'),
    ]


def test_rounds__what_was_sent_out_and_what_came_back(labelled: SmallStore) -> None:
    result = rows(
        labelled,
        "SELECT round, n_items, labelled, found, cost, cost_so_far, spent, metrics, stop, reasons, model_id, record->>'phase' "
        "FROM rounds ORDER BY round",
    )
    # A label of p1 that names no round is of the latest that sent p1 out; a tie has no class; p4 is ignored.
    assert result == [
        (0, 3, 3, '{"a":1,"b":1}', 3.0, 3.0, 0.0, '{"accuracy":0.5}', None, None, None, "cold_start"),
        (1, 3, 1, None, 1.5, 4.5, 3.0, None, True, '["kappa 0.995 >= 0.99"]', "m0", "cold_start"),
    ]
    sent = rows(
        labelled,
        "SELECT rank, prompt, arm FROM round_items JOIN examples USING (id) WHERE round_id = 'topics-1' ORDER BY rank",
    )
    assert sent == [(1, "p3", "strategy"), (2, "p1", "strategy"), (3, "p4", "random")]


def test_label_quarantine__of_each_file_as_it_is_now(labelled: SmallStore) -> None:
    result = rows(labelled, "SELECT project, line, cause FROM label_quarantine")
    assert result == [("topics", 14, "unknown class 'unheard of'")]
    imports = rows(labelled, 'SELECT project, gold, "read", new, quarantined FROM label_imports ORDER BY number')
    assert imports == [("topics", True, 1, 1, 0), ("topics", False, 14, 15, 1), ("other", False, 1, 1, 0)]


def test_consensus__of_the_latest_model_of_each_project(labelled: SmallStore) -> None:
    consensus = "SELECT c.project, prompt, label, model_id FROM consensus c JOIN examples USING (id) ORDER BY ALL"
    labelled.add_model("other", "m9", {"p1": "b"})
    labelled.add_model("topics", "m1", {"p2": "b"})
    publish_catalog(labelled)
    assert rows(labelled, consensus) == [("other", "p1", "b", "m9"), ("topics", "p2", "b", "m1")]
    labelled.add_run("fit", "topics", "m0")  # the labels are as they were: the first model again
    labelled.add_run("fit", "topics", "m1", "failed")
    publish_catalog(labelled)
    assert rows(labelled, consensus)[1:] == [("topics", "p1", "b", "m0"), ("topics", "p2", "a", "m0")]
    assert rows(labelled, "SELECT model_id, n_labelled, classifier FROM models ORDER BY model_id")[0] == (
        "m0",
        2,
        '"logistic_regression"',
    )


@pytest.mark.slow
def test_rebuild__gives_the_same_labels_and_rounds(labelled: SmallStore) -> None:
    views = ["labels", "label_events", "annotators", "label_conflicts", "rounds", "round_items", "consensus", "models"]
    before = {view: rows(labelled, f"FROM {view} ORDER BY ALL") for view in views}
    rebuild_catalog(labelled)
    assert {view: rows(labelled, f"FROM {view} ORDER BY ALL") for view in views} == before
    assert all(before.values())


@pytest.mark.slow
def test_publish__a_round_that_was_removed_is_gone(labelled: SmallStore) -> None:
    shutil.rmtree(labelled.path("records", "rounds", "topics-1"))
    publish_catalog(labelled)
    assert rows(labelled, "SELECT round FROM rounds") == [(0,)]
    assert rows(labelled, "SELECT DISTINCT round_id FROM round_items") == [("topics-0",)]
