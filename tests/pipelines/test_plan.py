"""`winnow plan`: what a run would do."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.cli.labels import push_batch
from pipelines.plan import LATER, plan_lines, plan_with_costs
from pipelines.run import run_all
from pipelines.runs import last_run
from pipelines.stages.ingest import ingest
from storage.records import commit_run
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import change, opened


def test_plan_lines__changed_columns_are_a_changed_pool(light: Path) -> None:
    def write(score: float) -> None:
        pq.write_table(pa.table({"id": ["fox-1"], "score": [score]}), light / "scores.parquet")

    write(1.0)
    change(light, "pool:\n", "pool:\n  columns: scores.parquet\n")
    run_all(opened(light))
    assert plan_lines(opened(light))[-1] == "selection/any: drawn already, nothing to do"
    write(2.0)
    assert plan_lines(opened(light))[-1] == "the rest is known once the pool has been read"


def test_plan_lines__files_of_the_same_bytes_are_one(light: Path) -> None:
    (light / "data" / "copy.jsonl").write_bytes((light / "data" / "a.jsonl").read_bytes())
    run_all(opened(light))
    lines = plan_lines(opened(light))
    assert lines[:2] == ["pool: 3 files, 0 of them new or changed", "snapshot: 80 rows"]


def test_plan_lines__a_labeling_project_has_work_of_its_own_which_is_not_that_of_a_run(light: Path) -> None:
    config = (light / "winnow.yaml").read_text().partition("recipes:")[0]
    project = (
        "labeling:\n  kinds: {classes: [fox, other], batch_size: 20, lease_hours: 1.0e-7, labels: 'labels/*.jsonl'}\n"
    )
    (light / "winnow.yaml").write_text(config + project)
    first = "kinds/batch: `winnow labels push` has {} to take in with vectors first"
    assert plan_lines(opened(light))[1:] == [first.format("about 80 rows"), LATER]
    run_all(opened(light))  # which takes in no vectors: no recipe needs any
    sends = "kinds/batch: `winnow labels push` reads labels, then sends out round {} by steps chosen by the labels"
    assert plan_lines(opened(light))[2:] == [first.format("80 rows"), sends.format(0)]

    push_batch(opened(light), "kinds", more=False)
    why = "; the last round had typical rows: fewer than two classes have a label"
    assert plan_lines(opened(light))[2:] == [sends.format(1) + why]
    change(light, "lease_hours: 1.0e-7", "lease_hours: 1.0")
    (light / "labels").mkdir()
    (light / "labels" / "ann.jsonl").write_text('{"id": "fox-1", "label": "fox", "annotator": "ann"}\n')
    push_batch(opened(light), "kinds", more=False)
    out = "kinds/batch: round 1 is out, waiting for labels of 20 rows; `winnow labels push` reads labels first"
    assert plan_lines(opened(light))[2:] == [out]


def test_plan_lines__a_project_whose_budget_is_spent_sends_out_nothing(light: Path) -> None:
    project = "labeling:\n  kinds: {classes: [fox, other], lease_hours: 1.0e-7, labels: 'a.jsonl', budget: {rows: 1}}\n"
    with (light / "winnow.yaml").open("a") as config:
        config.write(project)
    run_all(opened(light))
    (light / "a.jsonl").write_text('{"id": "fox-1", "label": "fox", "annotator": "ann"}\n')
    push_batch(opened(light), "kinds", more=False)
    assert plan_lines(opened(light))[-1] == "kinds/batch: the budget is spent"


def costs(project: Path) -> dict[str, str]:
    """The lines of the estimate, by what stands before the first colon."""
    lines = list(plan_with_costs(opened(project), probe=True))
    first = next(place for place, line in enumerate(lines) if line.startswith("time: "))
    return {line.partition(": ")[0].strip(): line.partition(": ")[2] for line in lines[first:]}


def test_plan_with_costs__before_the_first_run_by_the_first_rows_and_stated_defaults(light: Path) -> None:
    lines = list(plan_with_costs(opened(light)))
    assert lines[:3] == [
        "pool: 2 files, 2 of them new or changed",
        "vectors/embeddings: about 80 rows to take in",
        LATER,
    ]
    estimate = costs(light)
    assert estimate["time"] == "about 0 s"
    assert estimate["ingest"] == "0 s (10.0 MB/s, by default)"
    assert estimate["embed vectors"] == "0 s (150,000 rows/s, by default)"
    assert estimate["disk"].startswith("about ")
    assert not (light / "store").exists()


def test_plan_with_costs__rates_of_earlier_runs(light: Path) -> None:
    context = opened(light)
    run_all(context)
    embedded = last_run(context.store, "embed")
    assert embedded is not None
    assert embedded["facts"]["new_vectors"] == 80
    commit_run(context.store, embedded | {"run_id": None, "seconds": 40.0})  # two rows a second
    write_rows(light / "data" / "new.jsonl", [row(n, "fox") for n in range(10, 15)])
    lines = list(plan_with_costs(opened(light)))
    assert "  embed vectors: 2 s (2.0 rows/s, as measured)" in lines  # 5 rows
    assert any(line.startswith("memory: 85 x 16 vectors of vectors are 2.7 kB on disk") for line in lines)
    assert any(line.startswith("memory: the last run took ") for line in lines)
    (light / "data" / "new.jsonl").unlink()
    change(light, "budget: 8", "budget: 9")
    assert costs(light)["select any"].endswith("(as its last draw, by the rows of the pool)")


def test_plan_with_costs__an_encoder_is_tried_once_and_then_measured(project: Path) -> None:
    estimate = costs(project)
    assert estimate["embed tiny"].endswith("rows/s, tried on 32 rows just now)")
    assert "the loaded model, measured just now" in estimate["memory"]
    unprobed = list(plan_with_costs(opened(project), probe=False))
    assert "time: about 0 s, without embed tiny, load tiny: not measured yet" in unprobed
    run_all(opened(project), ["near"])
    write_rows(project / "data" / "new.jsonl", [row(n, "cat") for n in range(40)])
    estimate = costs(project)
    assert estimate["embed tiny"].endswith("rows/s, as measured)")
    assert estimate["load tiny"].endswith("s each time, as measured)")
    assert estimate["not counted"].startswith("reading target sets and label files")


def test_plan_lines__what_postprocess_copies_needs_no_model(project: Path) -> None:
    change(project, "targets:\n", "  moved: {model: ./model, max_tokens: 32, postprocess: center}\ntargets:\n")
    change(project, "recipes:\n", "recipes:\n  far: {encoder: moved, steps: [k_center], budget: 4}\n")
    assert plan_lines(opened(project))[1:3] == [
        "moved/embeddings: about 120 rows to encode",
        "moved/embeddings: about 120 rows to copy by `postprocess`, without the model",
    ]
    write_rows(project / "data" / "c.jsonl", [row(n, s) for s in SUBJECTS for n in range(15, 30)])
    context = opened(project)
    ingest(context)
    context.reopen_pool()
    lines = plan_lines(context)
    assert lines[1:] == [
        "snapshot: 240 rows",
        "moved/embeddings: 240 rows to encode, 0 in the store",
        "moved/embeddings: 240 rows to copy by `postprocess`, without the model, 0 in the store",
        "moved/health: to be measured on 240 rows",
        "moved/target_embeddings: 3 rows to encode",
        "tiny/embeddings: the vectors before `postprocess` are those of another encoder",
        "tiny/health: to be measured on 240 rows",
        "selection/far: to be drawn",
        "selection/near: to be drawn",
        "selection/any: to be drawn",
        "selection/even: to be drawn",
    ]


def test_plan_lines__an_index_only_where_the_run_builds_one(light: Path) -> None:
    def indexes() -> list[str]:
        return [line for line in plan_with_costs(opened(light)) if "index" in line and not line.startswith("disk")]

    change(light, "[random], budget: 8", "[{outliers: {drop: 0.1}}, random], budget: 8, encoder: vectors")
    assert indexes() == []  # searched, but so small that every row is compared
    change(light, "recipes:\n", "index: {kind: ivf}\nrecipes:\n")
    about, cost = indexes()
    assert about == "vectors/vector_index: about 80 vectors"
    assert cost.startswith("  index vectors: ")
    run_all(opened(light))
    assert len(indexes()) == 1
    assert "; their index is " in indexes()[0]
