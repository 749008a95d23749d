"""The stages of a labeling project: what is sent out, what it may cost, what trains and what measures."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.context import Context, open_context
from pipelines.errors import ConfigError
from pipelines.labeling import rounds
from pipelines.labeling.project import project_state
from pipelines.progress import Log
from pipelines.reproduce import reproduce
from pipelines.stages.embed import embed
from pipelines.stages.fit import fit
from pipelines.stages.ingest import ingest
from pipelines.stages.publish import publish
from pipelines.stages.pull import pull
from pipelines.stages.push import push
from pipelines.stages.stage import Outcome
from pipelines.why import why
from storage.errors import BadInput
from storage.ids import from_arrow, rows_of, to_text
from storage.labels.log import read_log
from storage.labels.rounds import read_round_items, read_rounds
from storage.records import read_selection
from tests.conftest import SUBJECTS
from tests.pipelines.conftest import Winnow, change
from tests.quick import quick_first

BASE = "labeling:\n  kinds: {classes: [fox, dog, other], steps: [entropy], batch_size: 10, labels: 'labels/*.jsonl'}\n"


def opened(project: Path, said: list[str] | None = None) -> Context:
    return open_context(project, Log((said if said is not None else []).append))


def configured(project: Path, more: str = "", steps: str = "[entropy]") -> Path:
    text = (project / "winnow.yaml").read_text().partition("labeling:")[0]
    section = BASE.replace("[entropy]", steps).replace("}\n", f", {more}}}\n" if more else "}\n")
    (project / "winnow.yaml").write_text(text + section)
    return project


@pytest.fixture
def project(light: Path) -> Path:
    """Ingested and with vectors; 80 rows, 10 each of foxes and dogs."""
    configured(light)
    (light / "labels").mkdir()
    ingest(opened(light))
    embed(opened(light), "vectors")
    return light


def loop(project: Path, *more: str) -> Outcome:
    """Labels in, model, batch out."""
    pull(opened(project), "kinds")
    fit(opened(project), "kinds")
    return push(opened(project), "kinds", *more)


def items(project: Path, number: int = -1) -> list[dict[str, Any]]:
    store = opened(project).store
    return read_round_items(store, read_rounds(store, "kinds")[number]["round_id"]).to_pylist()  # type: ignore[no-any-return]


def label(project: Path, number: int = -1, *, who: str = "ann", **more: Any) -> int:
    """Answer the newest batch, truly; gives how many rows it has."""
    context = opened(project)
    state = project_state(context, "kinds")
    one = state.rounds[number]
    rows = rows_of(from_arrow(state.items(one)["id"]), state.snapshot.ids)
    subjects = state.snapshot.column("source")[rows].tolist()
    names = state.snapshot.column("given_id")[rows].tolist()
    lines = [
        json.dumps({"id": name, "label": s if s in ("fox", "dog") else "other", "annotator": who, **more}) + "\n"
        for name, s in zip(names, subjects, strict=True)
    ]
    (project / "labels" / f"{one['round']}-{who}.jsonl").write_text("".join(lines))
    return len(rows)


def test_push__an_open_round_gives_its_batch_again_and_a_changed_file_is_left_alone(project: Path) -> None:
    first = loop(project)
    (batch,) = (project / "labeling" / "kinds").iterdir()
    again = loop(project)
    assert again.subject == first.subject
    assert again.summary.startswith("round 0 is open: 10 rows wait for labels until ")

    batch.write_text("labelled in place\n")
    said: list[str] = []
    push(opened(project, said), "kinds")
    assert batch.read_text() == "labelled in place\n"
    assert any("has changed since it was written, and is left as it is" in line for line in said)


def test_push__killed_before_the_round_is_committed_draws_the_same_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> str:
        raise KeyboardInterrupt

    pull(opened(project), "kinds")
    with monkeypatch.context() as patched:
        patched.setattr(rounds, "commit_round", killed)
        with pytest.raises(KeyboardInterrupt):
            push(opened(project), "kinds")
    store = opened(project).store
    before = store.records("selections")
    assert (len(before), store.records("rounds")) == (1, [])
    assert push(opened(project), "kinds").metrics["rows"] == 10
    assert store.records("selections") == before


def test_push__more_draws_other_rows_while_a_round_is_open(project: Path) -> None:
    loop(project)
    second = loop(project, "more")
    assert second.metrics["round"] == 1
    ids = [{one["id"] for one in items(project, number)} for number in (0, 1)]
    assert not ids[0] & ids[1]
    assert all(check.passed for check in second.checks)


def test_push__a_lease_that_ended_lets_the_rows_out_again(project: Path) -> None:
    configured(project, "lease_hours: 0.0000001, random_share: 0")
    loop(project)
    assert loop(project).metrics["round"] == 1  # nothing came back in time
    context = opened(project)
    assert project_state(context, "kinds").open_rounds == []
    headers = [read_selection(context.store, one["selection_id"])[0] for one in read_rounds(context.store, "kinds")]
    assert [header["facts"]["eligible"] for header in headers] == [80, 80]


def test_push__skips_leave_a_row_to_others_and_ignore_takes_it_out(project: Path) -> None:
    loop(project)
    sent = [str(one["id"]) for one in items(project)]
    (project / "labels" / "bob.jsonl").write_text(
        json.dumps({"id": sent[2], "label": "fox", "annotator": "bob"}) + "\n"
    )
    lines = [{"id": sent[0], "annotator": "ann", "skip": True}, {"id": sent[1], "annotator": "ann", "ignore": True}]
    (project / "labels" / "ann.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    pull(opened(project), "kinds")
    state = project_state(opened(project), "kinds")
    assert int((state.missing_labels(state.rounds[0]) > 0).sum()) == 7  # all three are answered
    dismissed = to_text(state.annotations.ids[state.annotations.dismissed])
    assert dismissed == [sent[1]]  # bob may still have the row that ann skipped

    (project / "labels" / "cat.jsonl").write_text(
        json.dumps({"id": sent[1], "label": "fox", "annotator": "cat"}) + "\n"
    )
    pull(opened(project), "kinds")
    assert project_state(opened(project), "kinds").labelled == 1  # what is ignored stays out, whatever others say


def test_push__a_row_that_was_skipped_and_is_sent_again_waits(project: Path) -> None:
    (skipped, *others) = [f"fox-{n}" for n in range(10)]
    configured(project, "random_share: 0, where: \"given_id LIKE 'fox-%'\"")
    loop(project)
    answers = [{"id": skipped, "annotator": "ann", "skip": True}]
    answers += [{"id": name, "annotator": "bob", "label": "fox"} for name in others]
    (project / "labels" / "all.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    again = loop(project)
    assert (again.metrics["round"], again.metrics["rows"], again.metrics["waiting"]) == (1, 1, 1)
    state = project_state(opened(project), "kinds")
    assert [state.missing_labels(header).sum() for header in state.rounds] == [0, 1]
    assert push(opened(project), "kinds").summary.startswith("round 1 is open: 1 row waits for ")
    (project / "labels" / "bob.jsonl").write_text(
        json.dumps({"id": skipped, "annotator": "bob", "label": "fox"}) + "\n"
    )
    pull(opened(project), "kinds")
    assert project_state(opened(project), "kinds").open_rounds == []


def test_push__cold_start_until_two_classes_have_labels(project: Path) -> None:
    configured(project, "random_share: 0, where: source = 'fox'")
    assert "cold start" in loop(project).summary
    label(project)
    configured(project, "random_share: 0")
    fitted = pull(opened(project), "kinds"), fit(opened(project), "kinds")
    assert fitted[1].summary == "no model yet: 10 rows labelled, but labels of two classes are needed to learn from"
    assert "cold start" in push(opened(project), "kinds").summary
    label(project)
    assert "(active)" in loop(project).summary


def test_fit__the_random_arm_never_trains(project: Path) -> None:
    configured(project, "random_share: 0.5")
    for _ in range(2):
        loop(project)
        label(project)
    pull(opened(project), "kinds")
    facts = fit(opened(project), "kinds").metrics
    assert (facts["labelled"], facts["trained_on"], facts["held_out"]) == (20, 10, 10)


def test_push__the_budget_in_rows_ends_the_last_batch_early(project: Path) -> None:
    configured(project, "budget: {rows: 13}")
    assert loop(project).metrics["rows"] == 10
    assert loop(project, "more").metrics["rows"] == 3  # what is out counts
    label(project, 0)
    label(project, 1)
    ended = loop(project)
    assert ended.summary == "no further batch: the budget is spent"
    assert [check.name for check in ended.checks if not check.passed] == ["budget_left"]


@pytest.mark.parametrize(
    ("price", "rows"),
    [("per_row: 1.0", 7), ("column: price", 3), ("column: price, per_token: 0.5", 7)],
)
def test_push__money_stops_before_the_row_that_overflows(light: Path, price: str, rows: int) -> None:
    for file in ("a", "b"):
        path = light / "data" / f"{file}.jsonl"
        lines = [json.loads(line) | {"price": 2} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (light / "labels").mkdir()
    configured(light, f"random_share: 0.1, budget: {{money: 7.5, {price}}}")
    ingest(opened(light))
    embed(opened(light), "vectors")
    drawn = loop(light)
    assert drawn.metrics["rows"] == rows
    assert drawn.metrics["random_rows"] == 1
    assert [check.name for check in drawn.checks if not check.passed] == ["batch_full"]
    left = project_state(opened(light), "kinds").left
    assert left == pytest.approx(7.5 - rows * (2 if price == "column: price" else 1))
    assert loop(light, "more").summary == "no further batch: nothing can be paid from what is left"
    context = opened(light)
    for selection in context.store.records("selections"):
        assert "the same" in reproduce(context, selection)
    assert {item["price"] for item in items(light)} == {2.0 if price == "column: price" else 1.0}


def test_push__costs_that_come_back_count_instead_of_the_price(project: Path) -> None:
    configured(project, "budget: {money: 30, per_row: 1.0}")
    loop(project)
    label(project, cost=2.5)
    pull(opened(project), "kinds")
    state = project_state(opened(project), "kinds")
    assert (state.spent, state.left) == (25.0, 5.0)
    assert loop(project).metrics["rows"] == 5


def test_push__overlap_wants_two_labels_and_waits_for_the_second(project: Path) -> None:
    configured(project, "overlap: 0.2, random_share: 0")
    loop(project)
    assert sorted(one["annotators"] for one in items(project)) == [1] * 8 + [2] * 2
    label(project)
    pull(opened(project), "kinds")
    assert push(opened(project), "kinds").metrics["waiting"] == 2
    label(project, who="bob")
    assert loop(project).metrics["round"] == 1


def test_push__the_second_person_has_a_file_where_nobody_is_named(project: Path) -> None:
    configured(project, "overlap: 0.2, random_share: 0, format: csv")
    loop(project)
    folder = project / "labeling" / "kinds"
    assert sorted(file.name for file in folder.iterdir()) == ["kinds-0000-second.csv", "kinds-0000.csv"]
    wanted = {str(item["id"]): item["annotators"] for item in items(project)}
    second = list(csv.DictReader((folder / "kinds-0000-second.csv").read_text().splitlines()))
    assert {row["winnow_id"] for row in second} == {name for name, count in wanted.items() if count == 2}
    assert {row["classes"] for row in second} == {"fox | dog | other"}
    label(project)
    pull(opened(project), "kinds")
    assert "2 rows wait for labels (2 for a second person) until" in push(opened(project), "kinds").summary


def test_push__a_file_for_each_annotator_and_whom_the_round_waits_for(project: Path, winnow: Winnow) -> None:
    configured(project, "annotators: [ann, Bob Lee], overlap: 0.2, random_share: 0")
    drawn = loop(project)
    folder = project / "labeling" / "kinds"
    assert sorted(file.name for file in folder.iterdir()) == ["kinds-0000-Bob-Lee.jsonl", "kinds-0000-ann.jsonl"]
    assert f"10 rows to label (Bob Lee 6, ann 6) in {folder / 'kinds-0000-Bob-Lee.jsonl'}, " in drawn.summary
    assert drawn.metrics["waiting_for"] == "Bob Lee 6, ann 6"
    rows = [json.loads(line) for file in sorted(folder.iterdir()) for line in file.read_text().splitlines()]
    assigned = {str(item["id"]): sorted(item["assigned"]) for item in items(project)}
    given_to: dict[str, list[str]] = {}
    for row in rows:
        given_to.setdefault(row["id"], []).append(row["annotator"])
    assert given_to == assigned

    answers = [json.dumps(row | {"label": "fox"}) + "\n" for row in rows[:4]]  # of Bob's
    (project / "labels" / "bob.jsonl").write_text("".join(answers))
    mistaken = next(row for row in rows[6:] if len(assigned[row["id"]]) == 1)
    (project / "labels" / "eve.jsonl").write_text(json.dumps(mistaken | {"label": "dog", "annotator": "eve"}) + "\n")
    pulled = pull(opened(project), "kinds")
    assert pulled.metrics["new_labels"] == 5
    assert pulled.summary.endswith("; eve answered 1 row of ann")
    assert "(Bob Lee 2, ann 5)" in push(opened(project), "kinds").summary
    status = winnow("labels", "status", "-c", project).out
    assert "round 0 waits: Bob Lee 2, ann 5" in status
    assert "eve answered 1 row of ann" in status
    publish(opened(project))
    ann = "SELECT count(*) AS n FROM round_items WHERE list_contains(assigned, 'ann')"
    assert json.loads(winnow("sql", "--json", ann, "-c", project).out) == {"n": 6}


@pytest.mark.parametrize(
    ("settings", "warns"),
    quick_first(
        1,
        [
            ("aggregate: dawid_skene, annotators: [ann, bob]", True),
            ("aggregate: dawid_skene, annotators: [ann, bob, cid]", False),
            ("aggregate: dawid_skene, annotators: [ann, bob], adjudicator: eve", False),
            ("aggregate: {dawid_skene: {ties: wait}}, annotators: [ann, bob]", False),
            ("annotators: [ann, bob]", False),
        ],
    ),
)
def test_pull__dawid_skene_of_two_people_is_a_warning(project: Path, settings: str, warns: bool) -> None:
    configured(project, settings)
    pulled = pull(opened(project), "kinds")
    assert ("; warning: Dawid-Skene cannot tell which of two annotators is right" in pulled.summary) == warns
    assert [check.name for check in pulled.checks if not check.passed] == ["annotators_comparable"] * warns


@pytest.mark.slow
def test_pull__dawid_skene_warns_of_two_people_who_answered_the_same_rows(project: Path) -> None:
    configured(project, "aggregate: dawid_skene, overlap: 1.0, random_share: 0")
    loop(project)
    label(project)
    assert "warning" not in pull(opened(project), "kinds").summary
    label(project, who="bob")
    assert "; warning: Dawid-Skene cannot tell" in pull(opened(project), "kinds").summary
    label(project, who="cid")
    assert "warning" not in pull(opened(project), "kinds").summary


def test_adjudicate__ties_go_to_the_adjudicator_whose_answer_settles(project: Path, winnow: Winnow) -> None:
    configured(project, "overlap: 1.0, random_share: 0, format: csv")
    loop(project)
    ids = [str(item["id"]) for item in items(project)][:3]
    for who, kind in (("ann", "fox"), ("bob", "dog")):
        lines = [json.dumps({"id": name, "label": kind, "annotator": who}) + "\n" for name in ids]
        (project / "labels" / f"{who}.jsonl").write_text("".join(lines))
    refused = winnow("labels", "adjudicate", "-c", project)
    assert refused.code == 2
    assert "labeling.kinds names no adjudicator; add `adjudicator:` with the name" in refused.err

    configured(project, "overlap: 1.0, random_share: 0, format: csv, adjudicator: eve")
    said = winnow("labels", "adjudicate", "-c", project)
    assert (
        "3 rows with tied votes wait for eve: `winnow labels adjudicate` writes them to a file" in said.out + said.err
    )
    assert winnow("labels", "adjudicate", "-c", project).out == said.out  # the same ties, the same file
    (file,) = (project / "labeling" / "kinds").glob("kinds-adjudication-*.csv")
    assert f"3 rows for eve to decide in {file}" in said.out
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert sorted(row["winnow_id"] for row in rows) == sorted(ids)
    assert {(row["annotator"], row["votes"]) for row in rows} == {("eve", "ann: fox; bob: dog")}

    rows[0]["label"] = "other"
    back = io.StringIO()
    writer = csv.DictWriter(back, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (project / "labels" / "eve.csv").write_text(back.getvalue())
    change(project, "'labels/*.jsonl'", "'labels/*'")
    pulled = winnow("labels", "pull", "-c", project)
    assert "kinds/labels: 1 new label from 3 files" in pulled.out + pulled.err
    state = project_state(opened(project), "kinds")
    assert (int(state.annotations.settled.sum()), int(state.annotations.tied.sum()), state.labelled) == (1, 2, 1)
    assert state.of_others == []
    assert winnow("sql", "--json", "SELECT count(*) AS n FROM adjudication", "-c", project).out == '{"n": 2}\n'
    loop(project, "more")
    context = opened(project)
    for selection in context.store.records("selections"):
        assert "the same" in reproduce(context, selection)


def test_push__gold_rows_are_hidden_and_neither_train_nor_count(project: Path) -> None:
    known = [{"id": f"fox-{n}", "label": "fox"} for n in range(6)]
    (project / "gold.jsonl").write_text("".join(json.dumps(one) + "\n" for one in known))
    configured(project, "gold: gold.jsonl, gold_share: 0.2")
    drawn = loop(project)
    assert drawn.metrics["gold_rows"] == 2
    (batch,) = (project / "labeling" / "kinds").iterdir()
    assert "gold" not in batch.read_text()
    label(project)
    pull(opened(project), "kinds")
    facts = fit(opened(project), "kinds").metrics
    assert facts["labelled"] == 8


@pytest.mark.slow
def test_fit__a_plateau_needs_rows_to_be_measured_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(project, "stop: {plateau: 1, kappa: null, uncertainty: null, change: null}, random_share: 0.3")
    for _ in range(4):
        loop(project)
        label(project)
    pull(opened(project), "kinds")
    assert "may be time" not in fit(opened(project), "kinds").summary
    monkeypatch.setattr("pipelines.labeling.model.MEASURED_ROWS", 1)
    assert "It may be time to stop: the quality measured has not risen" in fit(opened(project), "kinds").summary


def test_push__halt_stops_and_advice_alone_does_not(project: Path) -> None:
    configured(project, "stop: {uncertainty: 1.0}, random_share: 0")
    loop(project)
    label(project)
    drawn = loop(project)
    assert "It may be time to stop: mean uncertainty" in drawn.summary
    assert read_rounds(opened(project).store, "kinds")[-1]["advice"]["stop"] is True
    label(project)
    configured(project, "stop: {uncertainty: 1.0, halt: true}, random_share: 0")
    assert loop(project).summary.startswith("no further batch: stopped, as `stop.halt` asks: mean uncertainty")


@pytest.mark.parametrize(
    "steps",
    quick_first(
        4,
        [
            "[bald]",
            "[{power: {beta: 2}}]",
            "[badge]",
            "[anchors, entropy]",
            "[entropy, {keep_top: {times: 2}}, k_center]",
            "[epig]",
            "[{class_probability: {of: fox}}]",
            "[{class_probability: {of: 0}}]",
        ],
    ),
)
def test_push__steps_get_what_they_need_and_each_arm_is_reproduced(project: Path, steps: str) -> None:
    more = "targets: foxes, members: 3" if "epig" in steps else "members: 3"
    configured(project, more, "[entropy, power]" if "power" in steps else steps)
    loop(project)
    label(project)
    assert "(active)" in loop(project).summary
    context = opened(project)
    for selection in context.store.records("selections"):
        assert "in the same order, with the same gains" in reproduce(context, selection)


def write_probabilities(project: Path, *, wrong: bool = False) -> None:
    """Surer of foxes and dogs than of others."""
    names = [f"{s}-{n}" for s in ("fox", "dog", "add", "return", "answer", "question", "text") for n in range(10)]
    sure = {"fox": [0.9, 0.05, 0.05], "dog": [0.1, 0.8, 0.1]}
    values = np.array([sure.get(name.split("-")[0], [0.3, 0.3, 0.4]) for name in names])
    if wrong:
        values[3] = [0.5, 0.5, 0.5]
    columns = {"id": names} | {name: values[:, i] for i, name in enumerate(("fox", "dog", "other"))}
    pq.write_table(pa.table(columns), project / "p.parquet")


def test_push__own_probabilities_need_no_cold_start(project: Path) -> None:
    write_probabilities(project)
    configured(project, "classifier: {probabilities: p.parquet}, random_share: 0")
    drawn = loop(project)
    assert "(active)" in drawn.summary
    state = project_state(opened(project), "kinds")
    rows = rows_of(from_arrow(state.items(state.rounds[0])["id"]), state.snapshot.ids)
    # The least sure; never a row that the file does not name.
    assert not set(state.snapshot.column("source")[rows].tolist()) & {"fox", "dog", "system"}
    context = opened(project)
    (selection,) = context.store.records("selections")
    assert "the same 10 rows" in reproduce(context, selection)

    write_probabilities(project, wrong=True)
    with pytest.raises(BadInput, match="are not those of the record: the file has changed since"):
        reproduce(context, selection)
    with pytest.raises(BadInput, match=r"'fox-3' has \[0\.5, 0\.5, 0\.5\], which are no probabilities of sum 1"):
        fit(opened(project), "kinds")


def test_fit__the_same_own_probabilities_again_are_no_reason_to_stop(project: Path) -> None:
    write_probabilities(project)
    configured(
        project, "classifier: {probabilities: p.parquet}, random_share: 0, stop: {uncertainty: null, kappa: null}"
    )
    for _ in range(3):
        loop(project)
        label(project)
    pull(opened(project), "kinds")
    fitted = fit(opened(project), "kinds")
    assert fitted.summary == "your own probabilities; on 0 rows of the random arm not measured yet"


def test_loop__labels_of_a_class_that_left_the_project_are_told(project: Path) -> None:
    loop(project)
    label(project)
    loop(project)
    (project / "winnow.yaml").write_text((project / "winnow.yaml").read_text().replace("other]", "others]"))
    pulled = pull(opened(project), "kinds")
    lost = read_log(opened(project).store, "kinds")["label"].to_pylist().count("other")
    assert f"{lost} are of classes that the project no longer has" in pulled.summary
    assert push(opened(project), "kinds").summary.startswith("rounds 0, 1 are open: ")


def test_config__a_recipe_has_to_name_its_probabilities(project: Path) -> None:
    change(project, "steps: [random]", "quota: {by: predicted_class, caps: 0.5}, steps: [entropy]")
    with pytest.raises(ConfigError) as caught:
        opened(project)
    first, second = (problem.message for problem in caught.value.problems)
    keys = (
        "`probabilities:` an entry of `classifiers` (there is none yet) or a project of `labeling` (kinds) or your own "
        "file, {url: p.parquet, id: id}"
    )
    assert first == f"entropy needs probabilities: name where they come from, {keys}"
    assert second == f"predicted_class needs probabilities: name where they come from, {keys}"


def test_config__cold_start_has_no_model_and_own_probabilities_no_committee(project: Path) -> None:
    configured(project, "cold_start: [entropy]")
    with pytest.raises(ConfigError, match="cold_start: entropy needs probabilities, which are not there before"):
        opened(project)
    write_probabilities(project)
    configured(project, "classifier: {probabilities: p.parquet}", "[bald]")
    with pytest.raises(ConfigError, match="steps: bald needs a committee, which your own probabilities do not have"):
        opened(project)


class TestCommand:
    def test_labels__push_pull_status(self, light: Path, winnow: Winnow) -> None:
        configured(light, "random_share: 0.2, budget: {money: 50, per_row: 0.5}")
        (light / "labels").mkdir()
        assert "cost: 0 of 50 spent, 50 left" in winnow("labels", "status", "-c", light).out  # before there is a pool
        configured(light, "random_share: 0.2, budget: {money: 50, column: price}")
        assert "cost: 0 of 50 spent, 50 left" in winnow("labels", "status", "-c", light).out
        configured(light, "random_share: 0.2, budget: {money: 50, per_row: 0.5}")
        pushed = winnow("labels", "push", "-c", light)
        assert pushed.code == 0, pushed.err
        assert "kinds/batch: round 0 (cold start): 10 rows to label in " in pushed.out + pushed.err
        label(light)
        (file,) = (light / "labels").iterdir()
        aside = light / "answers.jsonl"
        file.rename(aside)
        pulled = winnow("labels", "pull", "kinds", aside, "-c", light)
        assert "kinds/labels: 10 new labels from 1 file " in pulled.out + pulled.err
        status = winnow("labels", "status", "-c", light).out
        assert "cost: 5 of 50 spent, 45 left" in status
        assert "stop: " in status
        costs = winnow(
            "sql", "--json", "SELECT cost FROM annotators UNION ALL SELECT cost_so_far FROM rounds", "-c", light
        )
        assert [json.loads(line) for line in costs.out.splitlines()] == [{"cost": 5.0}] * 2
        spent = winnow("sql", "--json", "SELECT spent_before, spent FROM rounds", "-c", light).out
        assert json.loads(spent) == {"spent_before": 0.0, "spent": 0.0}
        assert [line.split()[:4] for line in status.splitlines() if "cold start" in line] == [
            ["0", "cold", "start", "10"]
        ]
        assert winnow("run", "any", "-c", light).code == 0  # leaves labeling alone
        assert len(read_rounds(opened(light).store, "kinds")) == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["push", "kind"], "no labeling project is called 'kind' (did you mean `kinds`?); there are: kinds"),
            (["pull", "kind"], "no labeling project is called 'kind' (did you mean `kinds`?); there are: kinds"),
            (["pull", "no.jsonl"], "nothing to read matches 'no.jsonl'"),
        ],
    )
    def test_labels__a_mistake_is_one_message(
        self, project: Path, winnow: Winnow, arguments: list[str], message: str
    ) -> None:
        ended = winnow("labels", *arguments, "-c", project)
        assert ended.code == 2
        assert message in ended.err

    def test_labels__several_projects_want_a_name_and_none_says_what_to_add(self, light: Path, winnow: Winnow) -> None:
        assert "has no labeling project; add one under `labeling`" in winnow("labels", "status", "-c", light).err
        text = "labeling:\n  a: {classes: [x, y], steps: [random]}\n  b: {classes: [x, y], steps: [random]}\n"
        (light / "winnow.yaml").write_text((light / "winnow.yaml").read_text() + text)
        assert "there are several labeling projects, name one of: a, b" in winnow("labels", "push", "-c", light).err


def test_push__a_filter_that_searches_and_a_quota_over_predicted_classes(project: Path) -> None:
    quota = {"by": "predicted_class", "balance": "water_fill"}
    steps = "[{anchors: {n_neighbors: 10, rows: 50}}, entropy]"
    configured(project, "random_share: 0, quota: {by: predicted_class, balance: water_fill}", steps=steps)
    loop(project)
    label(project)
    loop(project)
    context = opened(project)
    cold, active = [one["selection_id"] for one in read_rounds(context.store, "kinds")]
    assert read_selection(context.store, cold)[0]["quota"] is None  # nothing predicted a class yet
    header, drawn = read_selection(context.store, active)
    assert (header["quota"], header["index"]) == (quota, None)
    found = pq.read_table(context.store.path("records", "selections", active, "found.parquet"))
    assert found["id"].to_pylist() == drawn["id"].to_pylist()
    assert set(found["step"].to_pylist()) == {"anchors"}
    assert set(found["ref"].to_pylist()) <= {str(one["id"]) for one in items(project, 0)}
    assert "the same 10 rows in the same order" in reproduce(context, active)


def _arms(project: Path) -> dict[str, str]:
    """Own id -> arm, of the rows of the newest batch."""
    context = opened(project)
    snapshot = context.pool.snapshot
    table = read_round_items(context.store, read_rounds(context.store, "kinds")[-1]["round_id"])
    return dict(zip(map(str, snapshot.given_ids(from_arrow(table["id"]))), table["arm"].to_pylist(), strict=True))


@pytest.mark.slow
def test_why__of_a_batch_is_what_labels_and_rounds_say(project: Path) -> None:
    configured(project, "random_share: 0.3, gold: gold.jsonl, gold_share: 0.2")
    gold = [f"answer-{number}" for number in range(4)]
    (project / "gold.jsonl").write_text("".join(json.dumps({"id": name, "label": "other"}) + "\n" for name in gold))
    loop(project)
    label(project)
    sent = list(_arms(project))
    ignored, skipped = [name for name in sent if name not in gold][:2]
    lines = [{"id": ignored, "ignore": True, "annotator": "ann"}, {"id": skipped, "skip": True, "annotator": "ann"}]
    (project / "labels" / "1-ann.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loop(project)
    leased = list(_arms(project))
    loop(project, "more")
    arm = _arms(project)

    context = opened(project)
    selection = read_rounds(context.store, "kinds")[-1]["selection_id"]
    rules = Counter[str]()
    for name in (f"{subject}-{number}" for subject in SUBJECTS for number in range(10)):
        if arm.get(name) == "strategy":
            expected = "chosen"
        elif name in sent and name not in (ignored, skipped) and name not in gold:
            expected = "labelled"
        elif name in leased:
            expected = "leased"
        elif name in (ignored, skipped):
            expected = "skipped_or_ignored"
        elif name in gold:
            expected = "gold"
        elif arm.get(name) == "random":
            expected = "random_arm"
        else:
            expected = "beyond_budget"
        (answer,) = why(context, name, selection)
        assert answer.rule == expected, name
        rules[expected] += 1
    assert len(rules) == 7, rules
