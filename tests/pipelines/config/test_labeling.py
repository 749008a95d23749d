"""The section `labeling:` of a winnow.yaml: resolved, and every mistake in it one clear message."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config.load import load_config
from pipelines.errors import ConfigError

GOOD = """\
pool: {files: data/*.jsonl}
encoders:
  small: {model: org/small-model}
labeling:
  intents:
    classes: [billing, card]
    steps: [random]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("data/a.jsonl", "ids.txt", "gold.jsonl", "p.parquet"):
        (tmp_path / name).write_text('{"prompt": "a"}\n')
    (tmp_path / "winnow.yaml").write_text(GOOD)
    return tmp_path


def written(project: Path, *lines: str) -> Path:
    """GOOD with lines in its project; the first is line 8 of the file."""
    (project / "winnow.yaml").write_text(GOOD + "".join(f"    {line}\n" for line in lines))
    return project


def problems(project: Path, text: str) -> list[str]:
    (project / "winnow.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(project)
    return [str(problem).replace(f"{project}/winnow.yaml:", "") for problem in caught.value.problems]


def test_load_config__paths_are_absolute_and_defaults_filled_in(project: Path) -> None:
    lines = ("labels: labels/*.jsonl", "deny: ids.txt", "gold: gold.jsonl", "budget: {money: 20, per_row: 0.5}")
    found = load_config(written(project, *lines)).labeling["intents"]
    assert found.encoder == "small"
    assert found.labels == (str(project / "labels/*.jsonl"),)  # there need not be any yet
    assert found.out == str(project / "labeling/intents")
    assert (found.deny, found.gold) == (str(project / "ids.txt"), str(project / "gold.jsonl"))
    assert found.cold_start.written == [{"random_subpool": {"rows": 50_000}}, "facility_location"]
    assert found.budget is not None
    assert (found.budget.money, found.budget.per_row) == (20, 0.5)


def test_load_config__the_resolved_file_has_the_same_digest_elsewhere(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = (
        "labels: [a.jsonl, b]",
        "stop: {kappa: null, halt: true}",
        "quota: {by: source, caps: 3}",
        "classifier: {probabilities: p.parquet}",
        "budget: {rows: 5}",
    )
    config = load_config(written(project, *lines))
    elsewhere = tmp_path_factory.mktemp("configs") / "other.yaml"
    elsewhere.write_text(config.resolved_yaml())
    again = load_config(elsewhere)
    assert again.digest == config.digest
    assert again.labeling == config.labeling
    assert again.labeling["intents"].own_probabilities is not None


def test_load_config__steps_are_auto_where_none_are_written(project: Path) -> None:
    text = GOOD.replace("    steps: [random]\n", "")
    for written_out in ("", "    steps: auto\n"):
        (project / "winnow.yaml").write_text(text + written_out)
        intents = load_config(project).labeling["intents"]
        assert (intents.steps, intents.encoder) == ("auto", "small")
    assert "steps: auto" in load_config(project).resolved_yaml()


WRONG = [
    ("steps: [random]", "steps: [randum]", "7: labeling.intents.steps[0]: "),
    ("steps: [random]", "steps: [rds_plus]", "5: labeling.intents.targets: rds_plus needs targets, and there are none; add one under `targets`"),
    ("steps: [random]", "steps: automatic", "7: labeling.intents.steps: must be `auto` or a list of steps, found 'automatic'"),
    ("[billing, card]", "[billing]", "6: labeling.intents.classes: must be at least two different names, found billing"),
    ("[billing, card]", "[a, b, a]", "6: labeling.intents.classes: must be at least two different names, found a, b, a"),
    ("[billing, card]", "[yes, no]", "6: labeling.intents.classes[0]: must be text, found yes, which YAML reads as true; put it in quotes"),
    ("intents:", "selection:", "5: labeling.selection: `selection` is what the assets of recipes are called; choose another name"),
    ("intents:", "in tents:", "5: labeling.in tents: 'in tents' cannot be a name: a name is 1 to 64 of a-z, 0-9, _ and -, and starts with a letter or digit"),
    ("encoders:\n  small: {model: org/small-model}\n", "", "3: labeling.intents.encoder: the classifier needs vectors, and there are none; add an encoder under `encoders`"),
]  # fmt: skip

WRONG_LINES = [
    ("btch_size: 3", "btch_size: unknown key (did you mean `batch_size`?); allowed: "),
    ("batch_size: 0", "batch_size: must be above 0, found 0"),
    ("cold_start: [rds_mean]", "targets: rds_mean needs targets, and there are none; add one under `targets`"),
    ("cold_start: [nothing]", "cold_start[0]: "),
    ("encoder: big", "encoder: no encoder is called 'big'; there are: small"),
    ("where: 'source ='", "where: is not a SQL condition: "),
    ("allow: no.txt", "allow: 'no.txt' does not exist in "),
    ("gold: gold.json", "gold: 'gold.json' does not exist in "),
    ("quota: {by: source}", "quota: needs one of shares, caps and balance, got none"),
    ("random_share: 1.5", "random_share: must be at most 1, found 1.5"),
    ("fields: {labl: verdict}", "fields: unknown name 'labl'; known are id, label, "),
    ("format: xlsx", "format: must be one of jsonl, csv, label_studio, found 'xlsx'"),
    ("classifier: forest", "classifier: must be logistic_regression, "),
    ("classifier: {estimator: 'no.such:Thing'}", "classifier: estimator: cannot import no.such: "),
    ("classifier: {probabilities: q.parquet}", "classifier.probabilities: 'q.parquet' does not exist in "),
    ("budget: 500", "budget: must be a mapping of rows, money, "),
    ("budget: {per_row: 1}", "budget: needs either `rows` or `money`, found neither"),
    ("budget: {rows: 5, money: 1, per_row: 1}", "budget: needs either `rows` or `money`, found both"),
    ("budget: {rows: 5, per_row: 1}", "budget.per_row: is a price and goes with `money`, not with `rows`"),
    ("budget: {money: 5}", "budget: money needs one price: `per_row`, or `column`, or `per_token` with `column` or `tokenizer`; found none"),
    ("budget: {money: 5, per_row: 1, column: c}", "budget: money needs one price: "),
    ("stop: {kapa: 1}", "stop.kapa: unknown key (did you mean `kappa`?); allowed: kappa, uncertainty, change, plateau, halt"),
    ("stop: {plateau: 0}", "stop.plateau: must be above 0, found 0"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), WRONG, ids=[new or old for old, new, _ in WRONG])
def test_load_config__what_is_wrong_is_said(project: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    assert problems(project, GOOD.replace(old, new, 1))[0].startswith(message)


@pytest.mark.parametrize(("line", "message"), WRONG_LINES, ids=[line for line, _ in WRONG_LINES])
def test_load_config__a_wrong_line_is_one_message(project: Path, line: str, message: str) -> None:
    (said, *more) = problems(project, GOOD + f"    {line}\n")
    assert not more
    number, _, rest = said.partition(": ")
    assert int(number) in (5, 8)
    assert rest.startswith(f"labeling.intents.{message}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["classes", "steps", "cold_start", "classifier", "labels", "budget", "stop", "quota", "where"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-2, 3) | st.floats(-1, 2) | st.text("a:{[", max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "rows", "by"]), inner, max_size=2)
        ),
        max_leaves=4,
    ),
)
def test_load_config__any_value_is_accepted_or_explained(project: Path, key: str, value: object) -> None:
    raw = yaml.safe_load(GOOD)
    raw["labeling"]["intents"][key] = value
    (project / "winnow.yaml").write_text(yaml.safe_dump(raw))
    with contextlib.suppress(ConfigError):
        load_config(project)


@pytest.mark.parametrize(
    ("aggregate", "kept"),
    [
        ("majority", "majority"),
        ("dawid_skene", "dawid_skene"),
        ("{dawid_skene: {}}", "dawid_skene"),
        ("{dawid_skene: {prior_votes: 5}}", {"dawid_skene": {"prior_votes": 5}}),
        ("{dawid_skene: {ties: wait}}", {"dawid_skene": {"ties": "wait"}}),
        ("{dawid_skene: {ties: decide}}", "dawid_skene"),
        ("{dawid_skene: {prior_accuracy: 0.7}}", {"dawid_skene": {"prior_accuracy": 0.7}}),
    ],
)
def test_load_config__the_prior_of_dawid_skene(project: Path, aggregate: str, kept: object) -> None:
    config = load_config(written(project, f"aggregate: {aggregate}") / "winnow.yaml")
    assert config.labeling["intents"].aggregate == kept


@pytest.mark.parametrize(
    "aggregate",
    ["mode", "[majority]", "{majority: {}}", "{dawid_skene: 5}", "{dawid_skene: {votes: 5}}",
     "{dawid_skene: {prior_votes: 0}}", "{dawid_skene: {prior_accuracy: 1}}", "{dawid_skene: {prior_votes: many}}", "{dawid_skene: {ties: first}}"],
)  # fmt: skip
def test_load_config__an_aggregate_that_is_none(project: Path, aggregate: str) -> None:
    with pytest.raises(ConfigError, match=r"winnow\.yaml:8: labeling\.intents\.aggregate.*(must be|found)"):
        load_config(written(project, f"aggregate: {aggregate}") / "winnow.yaml")
