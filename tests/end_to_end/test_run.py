"""`winnow run` as a user meets it: again, elsewhere, twice at once, killed, on a pool that grows."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.context import open_context
from pipelines.progress import Log
from pipelines.run import run_all
from storage.catalog.query import query_catalog
from storage.ids import from_arrow
from storage.records import read_selection
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import Winnow


def start(project: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", "run", "-c", str(project)],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def run_in_process(project: Path) -> tuple[list[str], list[str]]:
    """Run in this process; the selections' ids and what was said."""
    said: list[str] = []
    outcomes = run_all(open_context(project, Log(said.append)))
    return [outcome.subject for outcome in outcomes], said


def chosen(project: Path, selection: str) -> list[Any]:
    return read_selection(Store(project / "store"), selection)[1].to_pylist()


def ask(project: Path, query: str) -> list[dict[str, Any]]:
    return query_catalog(Store(project / "store"), query).to_pylist()


def test_run__second_time_encodes_nothing_and_gives_the_same_selections(project: Path) -> None:
    first, _ = run_in_process(project)
    second, said = run_in_process(project)

    assert second == first
    assert "tiny/embeddings: nothing new to encode, 120 vectors in all" in said
    assert ask(project, "SELECT count(*) AS n FROM selections") == [{"n": 3}]


@pytest.mark.slow
def test_run__from_another_folder__same_selections(
    project: Path, tmp_path: Path, winnow: Winnow, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert winnow("run", "-c", project).code == 0

    again, _ = run_in_process(project)
    assert again == [run["subject"] for run in ask(project, SELECTED)]
    assert list(elsewhere.iterdir()) == []


SELECTED = (
    "SELECT DISTINCT target, subject, min(run_id) AS first FROM runs WHERE stage = 'select' GROUP BY ALL ORDER BY first"
)


@pytest.mark.slow
def test_run__twice_at_once__both_succeed_with_one_result(project: Path) -> None:
    both = [start(project), start(project)]
    outputs = [process.communicate(timeout=300)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0], outputs
    assert ask(project, "SELECT count(*) AS n FROM selections") == [{"n": 3}]
    assert ask(project, "SELECT sum(n_rows) AS n FROM embeddings") == [{"n": 123 - 1}]


@pytest.mark.slow
def test_run__killed_at_random_moments__the_next_run_finishes_with_the_same_rows(project: Path, tmp_path: Path) -> None:
    delays = random.Random(7)
    for _ in range(5):
        process = start(project)
        time.sleep(delays.uniform(2, 14))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    after_kills, _ = run_in_process(project)

    untouched = tmp_path / "untouched"
    untouched.mkdir()
    for name in ("winnow.yaml", "data", "targets", "model"):
        (untouched / name).symlink_to(project / name)
    never_killed, _ = run_in_process(untouched)
    assert [chosen(project, selection) for selection in after_kills] == [
        chosen(untouched, selection) for selection in never_killed
    ]


def test_run__one_more_file__only_its_rows_are_encoded(project: Path) -> None:
    run_in_process(project)
    write_rows(project / "data" / "c.jsonl", [row(n, "fox") for n in range(12, 20)])
    _, said = run_in_process(project)

    # Rows 12, 13 and 14 are in a.jsonl already.
    assert "pool: 125 rows kept of 128 read (3 exact duplicates, 0 quarantined), 1 of 3 files new" in said
    assert any(line.startswith("tiny/embeddings: 5 texts encoded") for line in said)


def test_run__a_changed_file__new_rows_in_vanished_rows_out(project: Path) -> None:
    run_in_process(project)
    write_rows(project / "data" / "b.jsonl", [row(n, "answer") for n in range(5, 25)])
    run_in_process(project)

    assert ask(project, "SELECT kept FROM pools") == [{"kept": 80}]
    assert ask(project, "SELECT count(*) AS n FROM tombstones") == [{"n": 50}]
    assert ask(project, "SELECT count(*) AS n FROM examples WHERE source = 'question'") == [{"n": 0}]


@pytest.mark.slow
def test_run__order_and_number_of_files_do_not_matter_to_the_rows(project: Path, tmp_path: Path) -> None:
    one_file, _ = run_in_process(project)
    store = Store(project / "store")

    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    for name in ("winnow.yaml", "targets", "model"):
        (other / name).symlink_to(project / name)
    lines = [line for name in ("b", "a") for line in (project / "data" / f"{name}.jsonl").read_text().splitlines()]
    random.Random(1).shuffle(lines)
    for part in range(7):
        (other / "data" / f"{part}.jsonl").write_text("\n".join(lines[part::7]) + "\n")
    # The same committed vectors, so that batching does not move a bit.
    (other / "store").mkdir()
    (other / "store" / "vectors").symlink_to(store.path("vectors"))
    seven_files, _ = run_in_process(other)

    for a, b in zip(one_file, seven_files, strict=True):
        assert (
            from_arrow(read_selection(store, a)[1]["id"]).tolist()
            == from_arrow(read_selection(Store(other / "store"), b)[1]["id"]).tolist()
        )


def test_run__a_row_equal_to_a_target_is_kept_out_and_counted(project: Path) -> None:
    _, said = run_in_process(project)

    assert "selection/near: drew 10 rows of 119 eligible (kept out: 1 equal to a target)" in said
    assert ask(
        project,
        "SELECT count(*) AS n FROM selected_examples WHERE prompt IN (SELECT prompt FROM targets)",
    ) == [{"n": 0}]


def test_run__best_of_takes_one_response_of_each_prompt_and_says_which_was_better(project: Path) -> None:
    answers = [
        {"id": f"{teacher}-{n}", "prompt": f"question {n}", "response": f"{teacher} answers {n}", "reward": reward + n}
        for teacher, reward in (("small", 0.25), ("large", 0.5))
        for n in range(6)
    ]
    write_rows(project / "data" / "answers.jsonl", answers)
    config = yaml.safe_load((project / "winnow.yaml").read_text())
    steps = [{"best_of": {"by": "prompt", "score": "reward"}}, "rds_plus"]
    config["recipes"] = {"best": {"steps": steps, "budget": 6, "where": "reward IS NOT NULL"}}
    (project / "winnow.yaml").write_text(yaml.safe_dump(config))
    _, said = run_in_process(project)

    assert any("selection/best: drew 6 rows of 12 eligible" in line and "; best_of dropped 6" in line for line in said)
    best = ask(project, "SELECT given_id FROM selected_examples ORDER BY given_id")
    assert [row["given_id"] for row in best] == [f"large-{n}" for n in range(6)]
    drops = ask(
        project,
        "SELECT d.kind, a.given_id AS dropped, d.value, b.given_id AS kept FROM selection_drops d "
        "JOIN examples a ON a.id = d.id JOIN examples b ON b.id = d.ref::UUID ORDER BY a.given_id",
    )
    assert drops == [
        {"kind": "better", "dropped": f"small-{n}", "value": 0.25 + n, "kept": f"large-{n}"} for n in range(6)
    ]


def test_run__selections_by_targets_and_by_score_say_in_sql_why_each_row_was_taken(project: Path) -> None:
    config = yaml.safe_load((project / "winnow.yaml").read_text())
    config["recipes"] = {
        "spread": {"steps": [{"tsds": {"alpha": 0.01}}], "budget": 9},
        "mixed": {"steps": [{"interests": {"n_clusters": 4}}], "budget": 9},
        "diverse": {"steps": ["rds_max", {"diversity_filter": {"tau": 0.999}}], "budget": 9},
        "rare": {"steps": [{"prototypicality": {"n_clusters": 4}}], "budget": 9},
    }
    (project / "winnow.yaml").write_text(yaml.safe_dump(config))
    ids, said = run_in_process(project)

    assert sum("drew 9 rows of 119 eligible" in line for line in said) == 4
    reasons = [{row["kind"] for row in chosen(project, selection)} for selection in ids]
    assert sorted(reasons, key=sorted) == [{"cluster"}, {"neighbour"}, {"score"}, {"target"}]
    refs = ask(
        project,
        "SELECT i.value FROM selection_items i JOIN examples e ON e.id = try_cast(i.ref AS UUID) WHERE i.kind = 'neighbour'",
    )
    assert len(refs) == 8  # the first has no row before it
    assert all(row["value"] <= 0.999 for row in refs)


@pytest.mark.parametrize("step", ["semdedup", "near_duplicates"])
def test_run__what_a_filter_dropped_is_in_sql_with_what_it_duplicates(project: Path, step: str) -> None:
    long = " ".join(f"{number} lazy dog" for number in range(60))
    twins = [{"id": "one", "prompt": long, "response": "a"}, {"id": "two", "prompt": long, "response": "b"}]
    write_rows(project / "data" / "twins.jsonl", twins)
    config = yaml.safe_load((project / "winnow.yaml").read_text())
    config["recipes"] = {"clean": {"steps": [step, "random"], "budget": 5}}
    (project / "winnow.yaml").write_text(yaml.safe_dump(config))
    _, said = run_in_process(project)

    assert any("selection/clean: drew 5 rows" in line and f"; {step} dropped " in line for line in said)
    drops = ask(
        project,
        "SELECT d.step, d.kind, a.given_id AS dropped, b.given_id AS kept FROM selection_drops d "
        "JOIN examples a ON a.id = d.id JOIN examples b ON b.id = d.ref::UUID WHERE b.given_id IN ('one', 'two')",
    )
    assert [(drop["step"], drop["kind"], {drop["dropped"], drop["kept"]}) for drop in drops] == [
        (step, "neighbour", {"one", "two"})
    ]


@pytest.mark.slow
def test_run__targets_that_are_written_otherwise_have_vectors_of_their_own(project: Path) -> None:
    (before, *_), _ = run_in_process(project)
    config = project / "winnow.yaml"
    config.write_text(config.read_text().replace("max_tokens: 32", "max_tokens: 32, query_format: rds_paper"))
    (after, *others), said = run_in_process(project)
    assert "tiny/embeddings: nothing new to encode, 120 vectors in all" in said
    assert "tiny/target_embeddings: 3 texts encoded in 0 s, 3 vectors in all" in said
    assert after != before
    header, _ = read_selection(Store(project / "store"), after)
    assert header["target_encoders"].keys() == {"foxes"}
    assert header["target_encoders"]["foxes"] != header["encoder"]
    assert all(read_selection(Store(project / "store"), other)[0]["target_encoders"] == {} for other in others)
