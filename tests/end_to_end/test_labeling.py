"""A team labels three rounds through files while the Dagster sensor drives the loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines.context import open_context
from pipelines.orchestration.asset import EngineResource, Project
from pipelines.orchestration.definitions import build_definitions
from pipelines.orchestration.labeling_assets import job_name
from pipelines.progress import Log
from pipelines.reproduce import reproduce
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.pipelines.conftest import make_light

# Three rounds as Dagster runs them take ten seconds.
pytestmark = pytest.mark.slow

LABELING = """\
labeling:
  kinds:
    classes: [fox, dog, other]
    steps: [entropy]
    batch_size: 16
    random_share: 0.25
    overlap: 0.25
    labels: labels/*.jsonl
    budget: {money: 100, per_row: 0.5}
"""
ROUNDS = 3


def truth(prompt: str) -> str:
    subject = prompt.split()[1]
    return subject if subject in ("fox", "dog") else "other"


class Team:
    """Two annotators who label the batches that lie there, and what the daemon does with the sensor."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.cursor: str | None = None
        (project / "labels").mkdir()

    def tick(self) -> list[str]:
        """Look twice as the daemon looks, since two looks have to agree, and run what the sensor asks for."""
        definitions = build_definitions(self.project / "winnow.yaml")
        (sensor,) = [sensor for sensor in definitions.sensors or () if sensor.name == "new_labels"]
        assert isinstance(sensor, dg.SensorDefinition)
        asked: list[str] = []
        for _ in range(2):
            seen: Any = sensor(dg.build_sensor_context(cursor=self.cursor))
            if not isinstance(seen, dg.SkipReason):
                self.cursor = seen.cursor
                asked += [request.job_name for request in seen.run_requests or ()]
        for job in asked:
            keys = definitions.resolve_job_def(job).asset_layer.selected_asset_keys
            self.run([key.to_user_string() for key in keys])
        return asked

    def run(self, keys: list[str]) -> dg.ExecuteInProcessResult:
        definitions = build_definitions(self.project / "winnow.yaml")
        result = dg.materialize(
            list(definitions.assets or ()),
            resources={"project": Project(self.project / "winnow.yaml"), "engine": EngineResource()},
            selection=keys,
        )
        assert result.success
        return result

    def batches(self) -> list[Path]:
        """One a round; the file of the rows that want a second person lies beside it."""
        return sorted((self.project / "labeling" / "kinds").glob("*[0-9].jsonl"))

    def labels(self, batch: Path, *, faults: bool) -> list[dict[str, Any]]:
        """What Ann and Bob say of every row; with a conflict, a skip, an unknown class and an unknown row if `faults`."""
        rows = [json.loads(line) for line in batch.read_text().splitlines()]
        given = [
            {"id": row["id"], "round": row["round"], "label": truth(row["prompt"]), "annotator": who, "seconds": 3}
            for who in ("ann", "bob")
            for row in rows
        ]
        if faults:
            given[0]["label"] = "fox" if given[0]["label"] != "fox" else "dog"  # Bob says otherwise: a conflict
            given[1] = {"id": rows[1]["id"], "annotator": "ann", "skip": True}
            given.append({"id": rows[2]["id"], "label": "wolf", "annotator": "ann"})
            given.append({"id": "nobody", "label": "fox", "annotator": "ann"})
        return given

    def bring(self, name: str, labels: list[dict[str, Any]]) -> None:
        (self.project / "labels" / name).write_text("".join(json.dumps(record) + "\n" for record in labels))


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    """Three rounds, labelled."""
    project = make_light(tmp_path_factory.mktemp("team") / "project")
    with (project / "winnow.yaml").open("a") as file:
        file.write(LABELING)
    team = Team(project)
    team.run(["pool", "vectors/embeddings"])
    assert team.tick() == [job_name("kinds")]  # the first look sends out the first batch
    for number in range(ROUNDS):
        assert len(team.batches()) == number + 1
        assert team.tick() == []
        team.bring(f"{number}.jsonl", team.labels(team.batches()[-1], faults=number == 1))
        assert team.tick() == [job_name("kinds")]
    return team


def ask(team: Team, query: str) -> list[dict[str, Any]]:
    return query_catalog(Store(team.project / "store"), query).to_pylist()


def test_labeling__every_round_is_a_row_with_what_came_of_it(team: Team) -> None:
    rounds = ask(team, "SELECT round, phase, n_items, labelled, spent, metrics FROM rounds ORDER BY round")
    assert [row["phase"] for row in rounds] == ["cold_start", "active", "active", "active"]
    assert [row["n_items"] for row in rounds] == [16] * 4
    assert [row["labelled"] for row in rounds] == [16, 16, 16, 0]
    # Two labels a row, half each; one was a skip.
    assert [row["spent"] for row in rounds] == [0, 16, 31.5, 47.5]
    held_out = [json.loads(row["metrics"]).get("held_out") for row in rounds]
    assert held_out == [None, 4, 8, 12]
    last = json.loads(rounds[-1]["metrics"])
    assert last["trained_on"] == 48 - 12 - 1
    assert last["accuracy"] >= 0.9
    assert sum(last[f"labels_{name}"] for name in ("fox", "dog", "other")) == 48 - 1  # the votes of one row are tied


def test_labeling__no_row_is_sent_twice_and_the_random_arm_says_its_chance(team: Team) -> None:
    items = ask(team, "SELECT id, arm, annotators, inclusion_probability AS chance, round_id FROM round_items")
    assert len({item["id"] for item in items}) == len(items) == 64
    chances = sorted(item["chance"] for item in items if item["arm"] == "random")
    assert len(chances) == 16
    assert chances[0] == pytest.approx(4 / 80)  # the first batch is drawn from the whole pool
    assert chances[-1] == pytest.approx(4 / 32)  # the fourth from what 48 labels leave
    assert {item["chance"] for item in items if item["arm"] == "strategy"} == {None}
    assert sum(item["annotators"] == 2 for item in items) == 4 * (3 + 1)


def test_labeling__conflicts_annotators_and_bad_labels_are_in_sql(team: Team) -> None:
    (conflict,) = ask(team, "SELECT n_labels, votes FROM label_conflicts")
    assert conflict["n_labels"] == 2
    people = ask(team, "SELECT annotator, n_labels, skipped, agreement FROM annotators ORDER BY annotator")
    assert [(person["annotator"], person["n_labels"], person["skipped"]) for person in people] == [
        ("ann", 47, 1),
        ("bob", 48, 0),
    ]
    assert people[0]["agreement"] == pytest.approx(46 / 47)
    causes = [row["cause"] for row in ask(team, "SELECT cause FROM label_quarantine ORDER BY line")]
    assert causes == ["unknown class 'wolf'", "'nobody' names no row of the pool"]
    assert ask(team, "SELECT count(*) AS n FROM labels WHERE kind = 'class'") == [{"n": 95}]
    consensus = ask(team, "SELECT max(relabel_score) AS doubt, count(*) AS n FROM consensus")
    assert consensus[0]["n"] == 47
    assert ask(team, "SELECT n_labels FROM adjudication") == [{"n_labels": 2}]
    assert 0 < consensus[0]["doubt"] <= 1


def test_labeling__the_same_files_again_change_nothing(team: Team) -> None:
    before = ask(team, "SELECT count(*) AS n FROM label_events"), [path.read_bytes() for path in team.batches()]
    copy = (team.project / "labels" / "0.jsonl").read_text()
    (team.project / "labels" / "copy.jsonl").write_text(copy)
    assert team.tick() == [job_name("kinds")]  # a file has come, so it is read; it holds nothing new
    assert (
        ask(team, "SELECT count(*) AS n FROM label_events"),
        [path.read_bytes() for path in team.batches()],
    ) == before


def test_labeling__every_arm_is_drawn_again_from_its_record(team: Team) -> None:
    context = open_context(team.project, Log(lambda _: None))
    arms = ask(team, "SELECT selection_id, random_selection_id FROM rounds ORDER BY round")
    for selection in [selection for arm in arms for selection in arm.values()]:
        assert "in the same order, with the same gains" in reproduce(context, selection)


def test_labeling__a_push_after_a_kill_gives_the_same_batch(team: Team) -> None:
    newest = team.batches()[-1]
    before = newest.read_bytes()
    newest.unlink()  # as if the process had died between the round and its file
    made = team.run(["kinds/batch"]).get_asset_materialization_events()[-1].materialization
    assert newest.read_bytes() == before
    assert len(team.batches()) == ROUNDS + 1
    assert made.metadata["round"].value == ROUNDS
    assert made.metadata["waiting"].value == 16
    assert len(made.metadata["first_rows"].records) == 10
    assert made.metadata["round_id"].value in made.metadata["sql"].value
