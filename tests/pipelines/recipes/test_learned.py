"""Recipes whose steps get class probabilities: from the user's own file, a classifier or a labeling project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given as given_values
from hypothesis import settings
from hypothesis import strategies as st

from pipelines.classifiers.entry import configured_classifier
from pipelines.classifiers.examples import _divided
from pipelines.config.load import load_config
from pipelines.config.schema import ClassExamples, Classifier
from pipelines.errors import ConfigError, NothingYet, RecipesFailed
from pipelines.labeling.model import project_model
from pipelines.labeling.project import project_state
from pipelines.plan import plan_lines
from pipelines.recipes.draw import SelectionResult, draw
from pipelines.recipes.learned import recipe_inputs
from pipelines.recipes.spec import resolve_spec
from pipelines.recipes.targets import target_vectors
from pipelines.reproduce import reproduce
from pipelines.run import run_all
from pipelines.stages.embed import embed, embed_targets
from pipelines.stages.fit import fit
from pipelines.stages.fit_classifier import fit_classifier
from pipelines.stages.ingest import ingest
from pipelines.stages.pull import pull
from pipelines.stages.push import push
from selection.errors import InvalidOption
from selection.learning.classifier import LogisticRegression, PredictedProbabilities, fit_committee
from storage.catalog.query import query_catalog
from storage.errors import BadInput
from storage.ids import rows_of
from storage.records import read_selection
from storage.vectors.segments import StoredVectors
from tests.conftest import SUBJECTS
from tests.pipelines.conftest import change, make_light, opened

ANY = "any: {steps: [random], budget: 8}"


def given(project: Path, steps: str, more: str = "probabilities: {url: p.parquet}") -> Path:
    """The recipe `any` with other steps and more keys."""
    change(project, ANY, f"any: {{steps: {steps}, budget: 8, {more}}}")
    return project


def drawn(project: Path, recipe: str = "any") -> tuple[SelectionResult, list[str]]:
    """The draw, and the names of its rows."""
    context = opened(project)
    spec = resolve_spec(context, recipe)
    result = draw(context, recipe_inputs(context.pool, spec), recipe)
    snapshot = context.pool.snapshot
    return result, snapshot.column("given_id")[rows_of(result.ids, snapshot.ids)].tolist()


def write_probabilities(project: Path, names: list[str], good: list[float], file: str = "p.parquet") -> None:
    values = np.array(good)
    pq.write_table(pa.table({"id": names, "good": values, "bad": 1 - values}), project / file)


@pytest.fixture
def with_file(embedded: Path) -> Path:
    """With probabilities of all rows but the last: foxes are the better the higher their number."""
    names = [f"{subject}-{number}" for subject in SUBJECTS for number in range(10)][:-1]
    good = [0.5 + int(name.split("-")[1]) / 25 if name.startswith("fox") else 0.1 for name in names]
    write_probabilities(embedded, names, good)
    return embedded


def test_own_file__gives_the_probability_of_a_class_by_the_name_of_its_column(with_file: Path) -> None:
    result, names = drawn(given(with_file, "[{class_probability: {of: good}}, top]"))
    assert names == [f"fox-{number}" for number in range(9, 1, -1)]
    assert result.metrics["without_probabilities"] == 1
    header, items = read_selection(opened(with_file).store, result.spec.selection_id)
    assert header["probabilities_file"] == str(with_file / "p.parquet")
    assert set(header["probabilities"]) == {"file", "id"}  # where the file lies is not what is drawn from
    assert items["gain"][0].as_py() == pytest.approx(0.5 + 9 / 25)
    assert "the same 8 rows" in reproduce(opened(with_file), result.spec.selection_id)


def test_own_file__uncertainty_steps_go_by_it(with_file: Path) -> None:
    _, names = drawn(given(with_file, "[entropy, top]"))
    assert names == [f"fox-{number}" for number in range(8)]  # the nearer to 1/2, the less certain


def test_own_file__another_content_is_another_selection_and_the_old_one_is_refused(with_file: Path) -> None:
    before = drawn(given(with_file, "[entropy, top]"))[0].spec.selection_id
    write_probabilities(with_file, ["fox-1", "dog-1"] + [f"fox-{n}" for n in range(2, 10)], [0.5] * 10)
    assert drawn(with_file)[0].spec.selection_id != before
    with pytest.raises(BadInput, match=r"p.parquet are not those of the record: the file has changed since"):
        reproduce(opened(with_file), before)


def test_own_file__the_same_content_elsewhere_is_the_same_selection(with_file: Path) -> None:
    before = drawn(given(with_file, "[entropy, top]"))[0].spec.selection_id
    (with_file / "p.parquet").rename(with_file / "q.parquet")
    change(with_file, "p.parquet", "q.parquet")
    assert resolve_spec(opened(with_file), "any").selection_id == before


def test_own_file__lists_have_numbers_for_names(with_file: Path) -> None:
    table = pa.table({"id": ["fox-1", "fox-2"], "p": [[0.2, 0.8], [0.9, 0.1]]})
    pq.write_table(table, with_file / "p.parquet")
    given(with_file, "[{class_probability: {of: '1'}}, top]", "allow_short: true, probabilities: {url: p.parquet}")
    assert drawn(with_file)[1] == ["fox-1", "fox-2"]


def test_recipe__its_id_stays_where_nothing_needs_probabilities(with_file: Path) -> None:
    before = resolve_spec(opened(with_file), "any").selection_id
    assert resolve_spec(opened(given(with_file, "[random]")), "any").selection_id == before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": ["fox-1"], "good": [1.0], "text": ["a"]}, "column 'text' holds string, no numbers; every column but"),
        ({"id": ["fox-1"], "good": [1.0]}, "must have a column for each of two classes or more, or one of lists; it"),
        ({"key": ["fox-1"], "good": [1.0], "bad": [0.0]}, "has no column 'id' to key by; it has key, good, bad"),
        ({"id": ["fox-1"], "good": [0.9], "bad": [0.9]}, r"'fox-1' has \[0.9, 0.9\], which are no probabilities"),
    ],
)
def test_own_file__what_is_wrong_with_it_is_said(with_file: Path, table: dict[str, list[object]], message: str) -> None:
    pq.write_table(pa.table(table), with_file / "p.parquet")
    with pytest.raises(BadInput, match=message):
        drawn(given(with_file, "[entropy, top]"))


KINDS = "{classes: {fox: {where: \"source = 'fox'\"}, rest: {sample: 60}}, held_out: 0.2}"


def with_classifier(project: Path, section: str = KINDS, name: str = "kinds") -> Path:
    """A classifier in the configuration."""
    path = project / "winnow.yaml"
    path.write_text(f"{path.read_text()}classifiers:\n  {name}: {section}\n")
    return project


@pytest.fixture(scope="module")
def embedded_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ingested, with vectors, which its recipe `any` does not need."""
    project = make_light(tmp_path_factory.mktemp("embedded") / "light")
    ingest(opened(project))
    embed(opened(project), "vectors")
    embed_targets(opened(project), "vectors")
    return project


@pytest.fixture
def embedded(embedded_once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(embedded_once, tmp_path / "light")


def test_classifier__is_fitted_measured_and_used(embedded: Path) -> None:
    with_classifier(given(embedded, "[{class_probability: {of: fox}}, top]", "probabilities: kinds"))
    outcome = fit_classifier(opened(embedded), "kinds")
    assert outcome.summary == "fitted to 20 examples (10 fox, 10 rest); on 4 held out 1.000 right, AUC 1.000"
    result, names = drawn(embedded)
    assert all(name.startswith("fox") for name in names)
    assert "the same 8 rows" in reproduce(opened(embedded), result.spec.selection_id)
    assert result.spec.probabilities == {"name": "kinds", "classifier": outcome.subject}
    again = fit_classifier(opened(embedded), "kinds")
    assert again.subject == outcome.subject
    assert again.summary.startswith("fitted before to the same 20 examples")


def test_classifier__its_probabilities_are_those_of_a_literal_fit(embedded: Path) -> None:
    """Targets against the pool, example by example, and scikit-learn's own logistic regression."""
    from sklearn.linear_model import LogisticRegression

    section = (
        "{classes: {good: {targets: foxes}, other: {where: \"source = 'dog'\"}}, held_out: 0, equal_classes: false, "
    )
    with_classifier(
        given(embedded, "[{class_probability: {of: good}}, top]", "probabilities: q"),
        section + "estimator: {logistic_regression: {calibrated: false}}}",
        "q",
    )
    outcome = fit_classifier(opened(embedded), "q")
    assert outcome.metrics == {"examples": 12, "held_out": 0, "examples_good": 2, "examples_other": 10}
    context = opened(embedded)
    spec = resolve_spec(context, "any")
    snapshot, inputs = context.pool.snapshot, recipe_inputs(context.pool, spec)
    encoder = context.pool.fingerprint("vectors")
    pool = StoredVectors(context.store, encoder, snapshot.ids).take(np.arange(len(snapshot)))
    of_targets = context.pool.target_set("foxes")
    targets = StoredVectors(context.store, context.pool.fingerprint("vectors", "foxes"), of_targets.ids)
    dogs = np.flatnonzero(snapshot.column("source") == "dog")
    X = np.concatenate([targets.take(np.arange(2)), pool[dogs]]).astype(np.float64)
    y = np.repeat([0, 1], [2, 10])
    expected = LogisticRegression(C=10.0, class_weight="balanced", max_iter=2000).fit(X, y).predict_proba(pool)
    assert inputs.probabilities is not None
    assert inputs.probabilities.take(np.arange(len(snapshot))) == pytest.approx(expected, abs=1e-3)


def test_classifier__predicts_only_the_rows_that_the_filters_left(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_classifier(
        given(
            embedded, "[{random_subpool: {rows: 12}}, entropy, top]", "probabilities: kinds, where: \"source <> 'cat'\""
        )
    )
    fit_classifier(opened(embedded), "kinds")
    asked: list[int] = []

    def counted(self: PredictedProbabilities, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return self.model.probabilities(vectors)

    monkeypatch.setattr(PredictedProbabilities, "_of", counted)
    drawn(embedded)
    assert len(asked) == len(set(asked)) == 12


def test_classifier__a_committee_and_classes_for_every_step_that_wants_them(embedded: Path) -> None:
    with_classifier(given(embedded, "[bald]", "quota: {by: predicted_class, caps: 4}, probabilities: kinds"))
    fit_classifier(opened(embedded), "kinds")
    result, names = drawn(embedded)
    assert len(names) == 8
    assert result.spec.probabilities is not None
    assert result.spec.probabilities["members"] == 5
    assert "the same 8 rows" in reproduce(opened(embedded), result.spec.selection_id)


def test_classifier__another_file_of_targets_or_option_is_another_classifier(embedded: Path) -> None:
    with_classifier(given(embedded, "[entropy, top]", "probabilities: quality"), "X", "quality")
    before, ids = (embedded / "winnow.yaml").read_text(), []
    for section in (
        "{classes: {good: {targets: foxes}, other: {sample: 40}}}",
        "{classes: {good: {targets: foxes}, other: {sample: 40}}, seed: 1}",
        "{classes: {good: {targets: foxes}, other: {sample: 40}}, estimator: {logistic_regression: {C: 1}}}",
        "{classes: {good: {targets: foxes}, other: {sample: 30}}, equal_classes: false}",
    ):
        (embedded / "winnow.yaml").write_text(before.replace("X", section))
        ids.append(resolve_spec(opened(embedded), "any").selection_id)
    assert len(set(ids)) == len(ids)


def test_examples__a_row_is_of_one_class_and_those_at_random_of_none_that_is_named(embedded: Path) -> None:
    with_classifier(embedded, "{classes: {rest: {sample: 79}, fox: {where: \"source = 'fox'\"}}, equal_classes: false}")
    context = opened(embedded)
    examples = configured_classifier(context.pool, "kinds").examples
    snapshot = context.pool.snapshot
    is_fox = snapshot.column("source")[rows_of(examples.ids, snapshot.ids)] == "fox"
    assert (np.bincount(examples.labels) == [70, 10]).all()
    assert ((examples.labels == 1) == is_fox).all()
    assert [int(examples.held_out[examples.labels == label].sum()) for label in (0, 1)] == [7, 1]
    assert (np.sort(examples.ids) == examples.ids).all()


def test_classifier__without_a_fit_or_examples_says_what_to_do(embedded: Path) -> None:
    section = "{classes: {good: {where: \"source = 'unicorn'\"}, other: {sample: 10}}}"
    with_classifier(given(embedded, "[entropy, top]", "probabilities: kinds"))
    with pytest.raises(NothingYet, match="the classifier 'kinds' was not fitted yet to the examples that"):
        drawn(embedded)
    change(embedded, KINDS, section)
    with pytest.raises(BadInput, match=r"classifiers.kinds.classes.good: 0 examples, but two at least are needed"):
        fit_classifier(opened(embedded), "kinds")


@pytest.mark.slow
@pytest.mark.parametrize("features", ["embeddings", "ngrams"])
def test_classifier__any_estimator_twice_the_same(embedded: Path, features: str) -> None:
    path = (
        "sklearn.ensemble:RandomForestClassifier" if features == "embeddings" else "sklearn.naive_bayes:MultinomialNB"
    )
    options = "{n_estimators: 5}" if features == "embeddings" else "{alpha: 0.5}"
    section = KINDS.replace(
        "held_out", f"features: {features}, estimator: {{estimator: {path}, options: {options}}}, held_out"
    )
    with_classifier(given(embedded, "[{class_probability: {of: fox}}, top]", "probabilities: kinds"), section)
    # Naive Bayes orders so few rows well, but not around one half.
    assert fit_classifier(opened(embedded), "kinds").metrics["auc"] > 0.6
    result, _ = drawn(embedded)
    assert "the same 8 rows" in reproduce(opened(embedded), result.spec.selection_id)


def test_classifier__does_not_depend_on_the_order_of_the_files(embedded: Path) -> None:
    with_classifier(embedded)
    before = configured_classifier(opened(embedded).pool, "kinds").classifier_id
    rows = [line for name in "ba" for line in (embedded / "data" / f"{name}.jsonl").read_text().splitlines()]
    (embedded / "data" / "a.jsonl").write_text("\n".join(reversed(rows)) + "\n")
    (embedded / "data" / "b.jsonl").unlink()
    ingest(opened(embedded))
    assert configured_classifier(opened(embedded).pool, "kinds").classifier_id == before


@settings(max_examples=50, deadline=None)
@given_values(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=4),
    share=st.floats(0, 0.99),
    equal=st.booleans(),
    seed=st.integers(0, 5),
)
def test_divided__each_class_has_its_share_and_its_row_goes_by_the_id(
    counts: list[int], share: float, equal: bool, seed: int
) -> None:
    rule = ClassExamples(sample=2)
    options = Classifier(classes={"a": rule}, equal_classes=equal, held_out=share, seed=seed)
    m = sum(counts)
    ids = np.array([f"{number:016d}".encode() for number in range(m)], "S16")
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    used, held_out = _divided(ids, labels, options)
    assert not (held_out & ~used).any()
    for label, count in enumerate(counts):
        size = min(counts) if equal else count
        assert used[labels == label].sum() == size
        expected = 0 if not share else min(max(round(share * size), 1), size - 1)
        assert held_out[labels == label].sum() == expected
    if not equal:  # another class changes nothing for this one
        alone = _divided(ids[labels == 0], labels[labels == 0], options)[1]
        assert (alone == held_out[labels == 0]).all()


NGRAMS = "{features: ngrams, classes: {good: {targets: foxes}, other: {sample: 40}}, equal_classes: false}"


@pytest.mark.slow
def test_classifier__of_ngrams_needs_no_vectors(light: Path) -> None:
    ingest(opened(light))
    more = "where: \"source <> 'fox'\", deny: deny.txt, probabilities: words"
    (light / "deny.txt").write_text("")
    with_classifier(given(light, "[{class_probability: {of: good}}, top]", more), NGRAMS, "words")
    outcome = fit_classifier(opened(light), "words")
    assert outcome.metrics["examples"] == 42
    result, names = drawn(light)
    assert len(names) == 8
    assert result.spec.encoder is None
    assert "the same 8 rows" in reproduce(opened(light), result.spec.selection_id)


def test_classifier__of_ngrams_finds_what_reads_like_the_targets(light: Path) -> None:
    ingest(opened(light))
    with_classifier(given(light, "[{class_probability: {of: good}}, top]", "probabilities: words"), NGRAMS, "words")
    fit_classifier(opened(light), "words")
    assert all(name.startswith("fox") for name in drawn(light)[1])


@pytest.mark.slow
def test_classifier__the_committee_judges_targets_too(embedded: Path) -> None:
    """A scorer by the targets beside a committee: by vectors, and by texts."""
    with_classifier(given(embedded, "[rds_plus]", "targets: [foxes], probabilities: kinds"))
    change(embedded, "any: {steps: [rds_plus]", "any: {steps: [epig, {keep_top: {times: 2}}, rds_plus]")
    fit_classifier(opened(embedded), "kinds")
    context = opened(embedded)
    spec = resolve_spec(context, "any")
    inputs = recipe_inputs(context.pool, spec)
    targets = inputs.on_targets(target_vectors(inputs))
    assert targets.committee is not None
    assert targets.committee.shape == (2, 5, 2)
    assert (targets.committee.mean(axis=1).argmax(axis=1) == 0).all()  # foxes
    change(embedded, KINDS, NGRAMS)
    fit_classifier(opened(embedded), "kinds")
    assert len(drawn(embedded)[1]) == 8


PROJECT = "labeling:\n  teach: {classes: [fox, dog, other], steps: [entropy], batch_size: 8, random_share: 0.5, labels: 'labels/*'}\n"


def label(project: Path, name: str, numbers: range) -> None:
    """A file of labels of these rows of each subject, taken in."""
    lines = [
        json.dumps({"id": f"{s}-{n}", "label": s if s in ("fox", "dog") else "other", "annotator": "ann"}) + "\n"
        for n in numbers
        for s in SUBJECTS
    ]
    (project / "labels").mkdir(exist_ok=True)
    (project / "labels" / f"{name}.jsonl").write_text("".join(lines))
    pull(opened(project), "teach")
    fit(opened(project), "teach")


@pytest.fixture
def taught(embedded: Path) -> Path:
    """A labeling project with a first batch out, whose random arm does not train, and a model."""
    path = embedded / "winnow.yaml"
    path.write_text(path.read_text() + PROJECT)
    push(opened(embedded), "teach")
    label(embedded, "first", range(8))
    return embedded


def test_project__its_newest_model_and_the_old_selection_is_reproduced_after_it_has_gone_on(taught: Path) -> None:
    given(taught, "[{class_probability: {of: fox}}, top]", "probabilities: teach")
    first, names = drawn(taught)
    assert all(name.startswith("fox") for name in names)
    assert resolve_spec(opened(taught), "any").selection_id == first.spec.selection_id

    push(opened(taught), "teach", "more")
    label(taught, "second", range(10))
    second, _ = drawn(taught)
    assert second.spec.probabilities != first.spec.probabilities
    assert second.spec.selection_id != first.spec.selection_id
    for result in (first, second):
        assert "the same 8 rows" in reproduce(opened(taught), result.spec.selection_id)


def test_project__a_recipe_gets_what_a_round_gets(taught: Path) -> None:
    """Probabilities, committee and labels, to the bit those of the project's own draws."""
    given(taught, "[bald]", "quota: {by: predicted_class, caps: 4}, probabilities: teach")
    context = opened(taught)
    ours = recipe_inputs(context.pool, resolve_spec(context, "any"))
    state = project_state(context, "teach")
    model = project_model(state)
    rows = np.arange(len(state.snapshot))
    assert ours.probabilities is not None
    assert ours.committee is not None
    _, expected = model.probabilities(state.snapshot.ids)
    assert (ours.probabilities.take(rows) == expected).all()
    training = model.training
    members = fit_committee(LogisticRegression(), training.vectors, training.labels, 3, members=5, seed=0)
    vectors = StoredVectors(context.store, model.encoder, state.snapshot.ids).take(rows)
    assert (ours.committee.take(rows)[:, 4] == members[4].probabilities(vectors)).all()
    assert len(training.ids) < state.labelled  # the random arm measures and does not train


def test_project__labels_for_the_steps_that_compare_with_them(taught: Path) -> None:
    result, names = drawn(given(taught, "[cal]", "probabilities: teach"))
    assert len(names) == 8
    context = opened(taught)
    labels = recipe_inputs(context.pool, result.spec).labels
    assert labels is not None
    training = project_model(project_state(context, "teach")).training
    snapshot = context.pool.snapshot
    assert (snapshot.ids[labels >= 0] == training.ids).all()
    assert (labels[labels >= 0] == training.labels).all()
    assert "the same 8 rows" in reproduce(opened(taught), result.spec.selection_id)


def test_project__without_a_model_says_what_to_do_first(embedded: Path) -> None:
    path = given(embedded, "[entropy]", "probabilities: teach") / "winnow.yaml"
    path.write_text(path.read_text() + PROJECT)
    message = "'teach' has no model yet: run `winnow labels push teach`, label the batch until two classes have labels"
    with pytest.raises(NothingYet, match=message):
        drawn(embedded)
    with pytest.raises(RecipesFailed, match=message):
        run_all(opened(embedded), ["any"])
    (line,) = [line for line in plan_lines(opened(embedded)) if line.startswith("selection/any")]
    assert "has no model yet" in line


def test_project__own_probabilities_of_it(with_file: Path) -> None:
    given(with_file, "[{class_probability: {of: good}}, top]", "probabilities: teach")
    own = PROJECT.replace("[fox, dog, other]", "[good, bad]").replace(
        "batch", "classifier: {probabilities: p.parquet}, batch"
    )
    path = with_file / "winnow.yaml"
    path.write_text(path.read_text() + own)
    fit(opened(with_file), "teach")
    result, names = drawn(with_file)
    assert names == [f"fox-{number}" for number in range(9, 1, -1)]
    assert "the same 8 rows" in reproduce(opened(with_file), result.spec.selection_id)


def test_run__fits_what_its_recipes_need_first_and_the_plan_and_sql_show_it(light: Path) -> None:
    section = (
        "{features: ngrams, classes: {fox: {targets: foxes}, rest: {sample: 60}}, equal_classes: false, held_out: 0.5}"
    )
    with_classifier(given(light, "[{class_probability: {of: fox}}, top]", "probabilities: kinds"), section)
    ingest(opened(light))
    assert "kinds/classifier: to be fitted to 62 examples" in plan_lines(opened(light))
    said: list[str] = []
    run_all(opened(light, said), ["any"])
    assert [line.partition(":")[0] for line in said if "catalog" not in line][-2:] == [
        "kinds/classifier",
        "selection/any",
    ]
    assert "kinds/classifier: fitted to the same 62 examples already" in plan_lines(opened(light))
    store = opened(light).store
    shown = query_catalog(store, "SELECT name, examples, held_out, auc, classes FROM classifiers").to_pylist()
    assert shown == [{"name": "kinds", "examples": 62, "held_out": 31, "auc": 0.966667, "classes": '["fox","rest"]'}]
    sql = "SELECT class, count(*) AS n FROM classifier_examples WHERE held_out GROUP BY class ORDER BY class"
    assert query_catalog(store, sql).to_pylist() == [{"class": "fox", "n": 1}, {"class": "rest", "n": 30}]


def test_run__a_classifier_that_cannot_be_fitted_fails_its_recipes_only(light: Path) -> None:
    section = "{classes: {good: {where: \"source = 'unicorn'\"}, other: {sample: 10}}}"
    with_classifier(given(light, "[entropy]", "probabilities: kinds"), section)
    with pytest.raises(RecipesFailed, match=r"recipe any: classifiers\.kinds\.classes\.good: 0 examples"):
        run_all(opened(light))
    sql = "SELECT recipe FROM latest_selections"
    assert query_catalog(opened(light).store, sql).to_pylist() == [{"recipe": "near"}]


MISTAKES = [
    ("[bald]", "{url: p.parquet}", "bald needs committee, which your own file does not have: name `probabilities:` an"),
    ("[cal]", "{url: p.parquet}", "cal needs labels, which your own file does not have: name `probabilities:` a proj"),
    ("[{class_probability: {of: goood}}]", "kinds", "of is 'goood', but the classes are 0..1, fox, rest"),
    ("[cal]", "kinds", "cal needs labels, which the classifier 'kinds' does not have: name `probabilities:` a project"),
    ("[entropy]", "kind", "is called 'kind' (did you mean `kinds`?); there are: kinds"),
    ("[entropy]", "nowhere", "no entry of `classifiers` or labeling project is called 'nowhere'; there are: kinds"),
    ("[entropy]", "{url: none.parquet}", "none.parquet"),
    ("[entropy]", "{file: p.parquet}", "unknown key; allowed: url, id"),
    ("[entropy]", "3", "probabilities: must be a mapping, found the number 3"),
]


@pytest.mark.parametrize(("steps", "source", "message"), MISTAKES)
def test_config__what_a_source_lacks_is_said(with_file: Path, steps: str, source: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(with_classifier(given(with_file, steps, f"probabilities: {source}")))
    assert message in str(caught.value)


GOOD, OTHER = "good: {targets: foxes}", "other: {sample: 9}"
SECTIONS = [
    (f"{{classes: {{{GOOD}}}}}", "classes: must be at least two names, found good"),
    (
        f"{{classes: {{{GOOD}, other: {{}}}}}}",
        "classes.other: names no examples; `{targets: ...}`, `{where: a condition",
    ),
    (
        f"{{classes: {{{GOOD}, other: {{targets: fox}}}}}}",
        "no target set is called 'fox' (did you mean `foxes`?); there",
    ),
    (
        f"{{classes: {{{GOOD}, other: {{targets: foxes, sample: 3}}}}}}",
        "other.sample: is of rows of the pool and does not",
    ),
    (f"{{classes: {{{GOOD}, other: {{where: 'a >'}}}}}}", "classes.other.where: is not a SQL condition: syntax error"),
    (f"{{classes: {{{GOOD}, other: {{sample: 1}}}}}}", "classes.other.sample: must be above 1, found 1"),
    (
        f"{{classes: {{{GOOD}, {OTHER}}}, estimator: {{logistic: 1}}}}",
        "estimator: must be logistic_regression, {logistic",
    ),
    (
        f"{{classes: {{{GOOD}, {OTHER}}}, encoder: minilm}}",
        "encoder: no encoder is called 'minilm'; there are: vectors",
    ),
    (
        f"{{classes: {{{GOOD}, {OTHER}}}, encoder: vectors, features: ngrams}}",
        "encoder: goes with `features: embeddings`",
    ),
    (
        f"{{classes: {{{GOOD}, {OTHER}}}, features: words}}",
        "features: must be one of embeddings, ngrams, found 'words'",
    ),
    (f"{{classes: {{{GOOD}, {OTHER}}}, held_out: 1}}", "held_out: must be below 1, found 1"),
    (
        "[good, other]",
        "kinds: must be a mapping of classes, features, encoder, estimator, members, equal_classes, held",
    ),
]


@pytest.mark.parametrize(("section", "message"), SECTIONS)
def test_config__what_is_wrong_with_a_classifier_is_said(embedded: Path, section: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(with_classifier(embedded, section))
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)


def test_config__a_classifier_and_a_labeling_project_have_different_names(light: Path) -> None:
    path = with_classifier(light, name="teach") / "winnow.yaml"
    path.write_text(path.read_text() + PROJECT)
    with pytest.raises(
        ConfigError, match=r"classifiers\.teach: a labeling project has this name, and recipes name both"
    ):
        opened(light)


def test_config__the_resolved_file_is_the_same_configuration(light: Path, tmp_path: Path) -> None:
    config = opened(with_classifier(given(light, "[entropy]", "probabilities: kinds"))).config
    (tmp_path / "again.yaml").write_text(config.resolved_yaml())
    again = load_config(tmp_path / "again.yaml")
    assert (again.digest, again.classifiers) == (config.digest, config.classifiers)


def test_own_file__a_class_that_is_not_there_lists_those_that_are(with_file: Path) -> None:
    with pytest.raises(InvalidOption, match=r"of is 'best', but the classes are 0..1, good, bad"):
        drawn(given(with_file, "[{class_probability: {of: best}}]"))
