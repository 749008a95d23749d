"""A winnow.yaml is read, checked and resolved; every mistake is one clear message."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.load import load_config
from pipelines.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*/winnow.yaml"))

GOOD = """\
pool:
  files: data/*.jsonl
encoders:
  small: {model: org/small-model, max_tokens: 128}
  large: {model: org/large-model}
targets:
  maths: maths.jsonl
  code: {files: [code.jsonl], fields: {prompt: task}}
recipes:
  best:
    steps: [rds_plus]
    budget: 10
"""


OWN = """\
pool:
  files: data/*.jsonl
  vectors: {vectors}
targets:
  maths: {{files: maths.jsonl, vectors: {{url: scores.parquet, id: key}}}}
  code: code.jsonl
recipes:
  best: {{steps: [rds_plus], budget: 10, targets: maths}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in ("data/a.jsonl", "data/b.jsonl", "maths.jsonl", "code.jsonl", "ids.txt", "scores.parquet", "own.npy"):
        (tmp_path / name).write_text('{"prompt": "a", "response": "b"}\n')
    (tmp_path / "winnow.yaml").write_text(GOOD)
    return tmp_path


def problems(project: Path, text: str, **more: Any) -> list[str]:
    """The messages for a file, without its folder, so that tests can state them whole."""
    (project / "winnow.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(project / "winnow.yaml", **more)
    return [str(problem).replace(f"{project}/", "") for problem in caught.value.problems]


def expected(message: str, project: Path) -> str:
    return message.format(root=project).replace(f"{project}/", "")


def in_recipe(lines: str) -> str:
    """GOOD with lines in its recipe; the first is line 13 of the file."""
    return GOOD + "".join(f"    {line}\n" for line in lines.splitlines())


class TestResolved:
    def test_load_config__paths_are_absolute_whatever_the_working_directory(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir("/")
        config = load_config(project)
        assert config.root == project
        assert config.store == str(project / "store")
        assert config.pool.files[0].files == (str(project / "data/*.jsonl"),)
        assert [spec.url for spec in config.pool.specs(config.root)] == [
            str(project / "data/a.jsonl"),
            str(project / "data/b.jsonl"),
        ]

    def test_load_config__a_file_that_appears_later_is_found_by_the_glob(self, project: Path) -> None:
        config = load_config(project)
        (project / "data/c.jsonl").write_text("{}\n")
        assert len(config.pool.specs(config.root)) == 3

    def test_load_config__targets_and_encoder_are_filled_in_where_the_steps_need_them(self, project: Path) -> None:
        recipe = load_config(project).recipes["best"]
        assert recipe.targets == ("maths", "code")
        assert recipe.encoder == "small"

    def test_load_config__budget_in_tokens_quota_and_groups(self, project: Path) -> None:
        text = in_recipe("quota: {by: n, bands: [200, 1000], shares: {..200: 0.5, 1000..: 0.5}}\ngroup_by: talk")
        (project / "winnow.yaml").write_text(
            text.replace("budget: 10", "budget: {tokens: 2_000_000, column: n_tokens}")
        )
        config = load_config(project)
        recipe = config.recipes["best"]
        assert recipe.budget_line == "2,000,000 tokens"
        assert recipe.constraints.columns == {"n", "talk", "n_tokens"}
        assert recipe.constraints.quota is not None
        assert recipe.constraints.quota.named == ("..200", "1000..")
        (project / "winnow.yaml").write_text(config.resolved_yaml())
        assert load_config(project).digest == config.digest

    def test_load_config__own_vectors_are_the_encoder_where_there_is_no_other(self, project: Path) -> None:
        (project / "own.ids.txt").write_text("a\n")
        text = OWN.format(vectors="own.npy")
        (project / "winnow.yaml").write_text(text)
        config = load_config(project)
        assert config.recipes["best"].encoder == "vectors"
        assert [file.url for file in config.vector_files()] == [str(project / "own.npy")]
        assert [(file.url, file.id_field) for file in config.vector_files("maths")] == [
            (str(project / "scores.parquet"), "key")
        ]
        assert config.targets_in("vectors") == ["maths"]
        (project / "other").mkdir()
        (project / "other" / "winnow.yaml").write_text(config.resolved_yaml())
        assert load_config(project / "other").digest == config.digest

    def test_load_config__own_vectors_need_those_of_the_targets_too(self, project: Path) -> None:
        (project / "own.ids.txt").write_text("a\n")
        text = OWN.format(vectors="own.npy").replace("targets: maths", "targets: [maths, code]")
        (message,) = problems(project, text)
        assert message == (
            "winnow.yaml:8: recipes.best.encoder: is `vectors`, but these targets have no vectors of their own: code; "
            "add `targets.code.vectors`"
        )

    def test_load_config__a_recipe_that_needs_no_vectors_gets_no_encoder(self, project: Path) -> None:
        (project / "winnow.yaml").write_text(GOOD.replace("rds_plus", "random"))
        recipe = load_config(project).recipes["best"]
        assert recipe.targets == ()
        assert recipe.encoder is None

    def test_load_config__the_resolved_file_has_the_same_digest_in_another_folder(
        self, project: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        text = in_recipe("allow: ids.txt\nwhere: source = 'x'") + "schedule: {cron: '0 2 * * *'}\n"
        (project / "winnow.yaml").write_text(
            text.replace("files: data/*.jsonl", "files: data/*.jsonl\n  columns: scores.parquet")
        )
        config = load_config(project)
        elsewhere = tmp_path_factory.mktemp("configs") / f"{config.digest}.yaml"
        elsewhere.write_text(config.resolved_yaml())
        again = load_config(elsewhere)
        assert again.digest == config.digest
        assert again.model_dump() == config.model_dump()

    def test_load_config__the_digest_follows_what_is_said_not_how(self, project: Path) -> None:
        before = load_config(project).digest
        (project / "winnow.yaml").write_text(f"# a comment\nstore: store\n{GOOD}")
        assert load_config(project).digest == before
        (project / "winnow.yaml").write_text(GOOD.replace("budget: 10", "budget: 11"))
        assert load_config(project).digest != before

    def test_load_config__each_file_has_its_own_mapping_and_the_first_mention_counts(self, project: Path) -> None:
        files = "[{files: data/b.jsonl, fields: {prompt: q}, source: s}, data/*.jsonl]"
        (project / "winnow.yaml").write_text(GOOD.replace("data/*.jsonl", files))
        config = load_config(project)
        first, second = config.pool.specs(config.root)
        assert (Path(first.url).name, first.fields, first.source) == ("b.jsonl", {"prompt": "q"}, "s")
        assert (Path(second.url).name, second.fields, second.source) == ("a.jsonl", None, None)

    def test_load_config__a_url_is_left_alone(self, project: Path) -> None:
        (project / "winnow.yaml").write_text(GOOD.replace("data/*.jsonl", "s3://bucket/*.jsonl"))
        assert load_config(project).pool.files[0].files == ("s3://bucket/*.jsonl",)

    def test_load_config__a_name_with_brackets_is_a_file_not_a_glob(self, project: Path) -> None:
        (project / "data/x[1].jsonl").write_text("{}\n")
        (project / "winnow.yaml").write_text(GOOD.replace("data/*.jsonl", "data/x[1].jsonl"))
        config = load_config(project)
        assert [Path(spec.url).name for spec in config.pool.specs(config.root)] == ["x[1].jsonl"]

    def test_load_config__overrides_lie_over_the_file(self, project: Path) -> None:
        config = load_config(project, {"recipes.best.budget": 3, "index.kind": "flat"})
        assert config.recipes["best"].budget == 3
        assert config.index.kind == "flat"

    def test_load_config__nothing_can_be_changed_afterwards(self, project: Path) -> None:
        with pytest.raises(ValueError, match="frozen"):
            load_config(project).recipes["best"].budget = 3  # type: ignore[misc]

    def test_load_config__a_schedule_of_all_names_every_recipe(self, project: Path) -> None:
        (project / "winnow.yaml").write_text(GOOD + "schedule: {cron: 0 2 * * *, recipes: all}\n")
        schedule = load_config(project).schedule
        assert schedule is not None
        assert schedule.recipes == ("best",)

    def test_load_config__yaml_anchors_and_merges_work(self, project: Path) -> None:
        text = GOOD.replace("  best:\n", "  best: &base\n") + "  more:\n    <<: *base\n    budget: 20\n"
        (project / "winnow.yaml").write_text(text)
        assert load_config(project).recipes["more"].budget == 20
        assert load_config(project).recipes["more"].steps.written == ["rds_plus"]

    @pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
    def test_load_config__the_examples_are_valid(self, example: Path) -> None:
        config = load_config(example)
        assert config.pool.specs(config.root)
        assert all(target.specs(config.root) for target in config.targets.values())


WRONG_RECIPES = [
    ("quota: source", "winnow.yaml:13: recipes.best.quota: must be a mapping of by, bands, shares, caps, balance, found 'source'"),
    ("quota: {caps: 1}", "winnow.yaml:13: recipes.best.quota.by: is missing"),
    ("quota: {by: source, caps: 1, cap: 2}", "winnow.yaml:13: recipes.best.quota.cap: unknown key (did you mean `caps`?); allowed: by, bands, shares, caps, balance"),
    ("quota: {by: source, balance: even}", "winnow.yaml:13: recipes.best.quota.balance: must be one of water_fill, inverse_frequency, found 'even'"),
    (
        "quota: {by: predicted_class, balance: water_fill}",
        "winnow.yaml:13: recipes.best.quota.by: predicted_class needs probabilities: name where they come from, `probabilities:` an entry of `classifiers` (there is none yet) or a project of `labeling` (there is none yet) or your own file, {{url: p.parquet, id: id}}",
    ),
    ("quota: {by: source}", "winnow.yaml:13: recipes.best.quota: needs one of shares, caps and balance, got none"),
    ("quota: {by: source, shares: {a: 0.5, b: 0.4}}", "winnow.yaml:13: recipes.best.quota.shares: shares must add up to 1, got 0.9; `rest` gives a share to all that is not named"),
    ("quota: {by: source, shares: 0.5}", "winnow.yaml:13: recipes.best.quota.shares: must be a mapping, found the number 0.5"),
    ("quota: {by: source, caps: {a: 1.5}}", "winnow.yaml:13: recipes.best.quota: the cap of a must be a whole number (of rows or tokens) or a part of the budget between 0 and 1, got 1.5"),
    ("quota: {by: length, bands: [9, 3], caps: 5}", "winnow.yaml:13: recipes.best.quota.bands: bands must be a list of ascending numbers, got [9, 3]"),
    ("max_per_group: 0", "winnow.yaml:13: recipes.best.max_per_group: must be above 0, found 0"),
    ("max_per_group: 2", "winnow.yaml:13: recipes.best.max_per_group: max_per_group 2 needs group_by: the column that tells the groups"),
    ("group_by: [a]", "winnow.yaml:13: recipes.best.group_by: must be text, found a list"),
    (
        "bugdet: 3",
        "winnow.yaml:13: recipes.best.bugdet: unknown key (did you mean `budget`?); allowed: steps, budget, quota, group_by, max_per_group, targets, encoder, probabilities, seed, round, where, allow, deny, mode, max_churn, allow_short, exclude_targets, min_overlap, noise_floor, sweep",
    ),
    ("targets: [math]", "winnow.yaml:13: recipes.best.targets[0]: no target set is called 'math' (did you mean `maths`?); there are: maths, code"),
    ("targets: math", "winnow.yaml:13: recipes.best.targets: no target set is called 'math' (did you mean `maths`?); there are: maths, code"),
    ("targets: []", "winnow.yaml:13: recipes.best.targets: rds_plus needs targets, and there are none; name some of: maths, code"),
    ("targets: 3", "winnow.yaml:13: recipes.best.targets: must be text or a list of texts, found the number 3"),
    ("encoder: smal", "winnow.yaml:13: recipes.best.encoder: no encoder is called 'smal' (did you mean `small`?); there are: small, large"),
    ("encoder: vectors", "winnow.yaml:13: recipes.best.encoder: no encoder is called 'vectors'; there are: small, large"),
    ("seed: yes", "winnow.yaml:13: recipes.best.seed: must be a whole number, found yes, which YAML reads as true"),
    ("seed: 1.5", "winnow.yaml:13: recipes.best.seed: must be a whole number, found the number 1.5"),
    ('seed: "7"', "winnow.yaml:13: recipes.best.seed: must be a whole number, found '7'"),
    ("seed: -1", "winnow.yaml:13: recipes.best.seed: must be at least 0, found -1"),
    ("seed:", "winnow.yaml:13: recipes.best.seed: must be a whole number, found nothing"),
    ("where: no", "winnow.yaml:13: recipes.best.where: must be text, found no, which YAML reads as false; put it in quotes"),
    ("where: source, prompt", "winnow.yaml:13: recipes.best.where: is not a SQL condition: Please provide only a single expression to SQLExpression, found 2 expressions in the parsed string; for example `source = 'wiki' and length(prompt) < 4000`"),
    ("where: 2024-01-01", "winnow.yaml:13: recipes.best.where: must be text, found 2024-01-01, which YAML reads as a date; put it in quotes"),
    (
        'where: "source = \'x"',
        "winnow.yaml:13: recipes.best.where: is not a SQL condition: unterminated string literal; for example `source = 'wiki' and length(prompt) < 4000`",
    ),
    (
        'where: "true; drop table examples"',
        "winnow.yaml:13: recipes.best.where: is not a SQL condition: \"true; drop table examples\" is not an expression list: it holds more than one statement; for example `source = 'wiki' and length(prompt) < 4000`",
    ),
    (
        "where: crawled < current_date",
        "winnow.yaml:13: recipes.best.where: holds current_date, which is not a function of the row: the same recipe would draw other rows on another day or machine. Write the value itself, such as DATE '2026-11-28' (a column of that name goes in double quotes); the step `random` draws rows at random",
    ),
    ("mode: topup", "winnow.yaml:13: recipes.best.mode: must be one of fresh, top_up, sticky, found 'topup' (did you mean `top_up`?)"),
    ("max_churn: 0.2", "winnow.yaml:13: recipes.best.max_churn: goes with `mode: sticky`, found 0.2 with `mode: fresh`"),
    ("max_churn: 1.5", "winnow.yaml:13: recipes.best.max_churn: must be at most 1, found 1.5"),
    ("max_churn: -1", "winnow.yaml:13: recipes.best.max_churn: must be at least 0, found -1"),
    ("max_churn: some", "winnow.yaml:13: recipes.best.max_churn: must be a number, found 'some'"),
    ("allow_short: 1", "winnow.yaml:13: recipes.best.allow_short: must be true or false, found the number 1"),
    ("allow: id.txt", "winnow.yaml:13: recipes.best.allow: 'id.txt' does not exist in {root} (did you mean `ids.txt`?)"),
    ("deny: lists/ids.txt", "winnow.yaml:13: recipes.best.deny: 'lists/ids.txt' does not exist: there is no folder {root}/lists"),
    ("min_overlap: 2", "winnow.yaml:13: recipes.best.min_overlap: must be at most 1, found 2"),
    ("budget: 11", "winnow.yaml:13: recipes.best.budget: is given twice (first in line 12); keep one"),
]  # fmt: skip


WRONG_FILES = [
    ("pool:\n", "trials: {against: [longst]}\npool:\n", "winnow.yaml:1: trials.against[0]: no control or recipe is called 'longst' (did you mean `longest`?); there are: random, random_per_source, longest, top_score, best"),
    ("pool:\n", "trials: {lora: true}\npool:\n", "winnow.yaml:1: trials.lora: is for a model of a folder; a model from scratch trains all of its weights"),
    ("pool:\n", "trials: {targets: [math]}\npool:\n", "winnow.yaml:1: trials.targets[0]: no target set is called 'math' (did you mean `maths`?); there are: maths, code"),
    ("pool:\n", "engine: {address: auto}\npool:\n", "winnow.yaml:1: engine.address: is for `kind: ray`, which is not set"),
    ("pool:\n", "engine: {gpus_per_worker: 1}\npool:\n", "winnow.yaml:1: engine.gpus_per_worker: is for `kind: ray`, which is not set"),
    ("pool:\n", "engine: {kind: ray, address: 'ray://a:1'}\npool:\n", "winnow.yaml:1: engine.address: must be `host:port` of the cluster, or `auto`, found 'ray://a:1'; winnow runs on a machine of it"),
    ("budget: 10", "budget: 0", "winnow.yaml:12: recipes.best.budget: must be above 0, found 0"),
    ("budget: 10", "budget: -5", "winnow.yaml:12: recipes.best.budget: must be above 0, found -5"),
    ("budget: 10", "budget: 1e3", "winnow.yaml:12: recipes.best.budget: must be a whole number, found '1e3'"),
    ("    budget: 10\n", "", "winnow.yaml:10: recipes.best.budget: is missing"),
    ("[rds_plus]", "rds_plus", "winnow.yaml:11: recipes.best.steps: must be a list, found 'rds_plus'"),
    ("[rds_plus]", "[]", "winnow.yaml:11: recipes.best.steps: must not be empty"),
    ("[rds_plus]", "[{rds_plus: {per: all}}]", "winnow.yaml:11: recipes.best.steps[0].rds_plus.per: "),
    ("[rds_plus]", "[random, top]", "winnow.yaml:11: recipes.best.steps: "),
    ("  best:\n", "  Best one:\n", "winnow.yaml:10: recipes.Best one: 'Best one' cannot be a name: a name is 1 to 64 of a-z, 0-9, _ and -, and starts with a letter or digit"),
    ("  best:\n", "  12:\n", "winnow.yaml:10: recipes: `12` is not text to YAML; put the key in quotes"),
    ("  best:\n", "  no:\n", "winnow.yaml:10: recipes: `no` is not text to YAML; put the key in quotes"),
    ("  small:", "  ../evil:", "winnow.yaml:4: encoders.../evil: '../evil' cannot be a name: a name is 1 to 64 of a-z, 0-9, _ and -, and starts with a letter or digit"),
    ("  small:", "  vectors:", "winnow.yaml:4: encoders.vectors: `vectors` stands for the vectors in pool.vectors; choose another name"),
    ("  small:", "  selection:", "winnow.yaml:4: encoders.selection: `selection` is what the assets of recipes are called; choose another name"),
    ("  large:", "  a-b: {model: org/x}\n  a_b:", "winnow.yaml:6: encoders.a_b: 'a_b' and 'a-b' differ only in `-` and `_`; choose another name"),
    ("recipes:\n", "recipes:\n  be_st-x: {steps: [random], budget: 1}\n  be-st-x: {steps: [random], budget: 1}\n", "winnow.yaml:11: recipes.be-st-x: 'be-st-x' and 'be_st-x' differ only in `-` and `_`; choose another name"),
    ("data/*.jsonl", "data/*.jsonl\n  vectors: own.npy", "winnow.yaml:3: pool.vectors: '{root}/own.npy' has no ids: put its keys, one a line, into {root}/own.ids.txt"),
    ("maths: maths.jsonl", "maths: {files: maths.jsonl, vectors: [owm.npy]}", "winnow.yaml:7: targets.maths.vectors[0]: 'owm.npy' does not exist in {root} (did you mean `own.npy`?)"),
    ("max_tokens: 128", "max_token: 128", "winnow.yaml:4: encoders.small.max_token: unknown key (did you mean `max_tokens`?); allowed: model, revision, pooling, template, turns, query_format, max_tokens, dtype, prompt, store, kind, layers, gem_p, chunk, postprocess"),
    ("max_tokens: 128", "kind: hidden_state", "winnow.yaml:4: encoders.small.kind: must be one of hidden_states, sentence_transformers, gradients, ngrams, remote, found 'hidden_state' (did you mean `hidden_states`?)"),
    ("max_tokens: 128", "pooling: model, layers: [1]", "winnow.yaml:4: encoders.small.layers: unknown key; allowed: model, revision, pooling, template, turns, max_tokens, dtype, prompt, prompt_name, target_prompt, target_prompt_name, task, target_task, truncate_dim, trust_remote_code, store, kind, postprocess"),
    ("max_tokens: 128", "kind: gradients, postprocess: center", "winnow.yaml:4: encoders.small.postprocess: unknown key; allowed: model, optimizer, checkpoints, parameters, direction, projection, dims, seed, template, max_tokens, store, kind; only encoders of this machine that embed a text have `postprocess`, not gradients, imported vectors or a server's"),
    ("data/*.jsonl", "data/*.jsonl\n  vectors: {url: own.npy, postprocess: center}", "winnow.yaml:3: pool.vectors.postprocess: unknown key; allowed: url, id, store; only encoders of this machine that embed a text have `postprocess`, not gradients, imported vectors or a server's"),
    ("max_tokens: 128", "kind: [1]", "winnow.yaml:4: encoders.small.kind: must be one of hidden_states, sentence_transformers, gradients, ngrams, remote, found a list"),
    ("max_tokens: 128", "max_tokens: 0", "winnow.yaml:4: encoders.small.max_tokens: max_tokens must be a whole number >= 1, got 0"),
    ("max_tokens: 128", "pooling: men", "winnow.yaml:4: encoders.small.pooling: must be one of weighted_mean, mean, last, cls, max, gem, found 'men' (did you mean `mean`?)"),
    ("max_tokens: 128", "chunk: {tokens: 64, overlap: 64}", "winnow.yaml:4: encoders.small.chunk: chunk: overlap must be below tokens, which is 64, got 64"),
    ("model: org/small-model, ", "", "winnow.yaml:4: encoders.small.model: is missing"),
    ("org/small-model", "./no/model", "winnow.yaml:4: encoders.small.model: model '{root}/no/model': there is no folder {root}/no/model, nor is it a hub name"),
    ("data/*.jsonl", "data/*.json", "winnow.yaml:2: pool.files: no file matches 'data/*.json' (looked for {root}/data/*.json)"),
    ("data/*.jsonl", "[data/a.jsonl, data/c.jsonl]", "winnow.yaml:2: pool.files[1]: 'data/c.jsonl' does not exist in {root}/data (did you mean `b.jsonl`?)"),
    ("data/*.jsonl", "[]", "winnow.yaml:2: pool.files: names no files"),
    ("data/*.jsonl", "{files: data/a.jsonl, fields: {promt: q}}", "winnow.yaml:2: pool.files.fields: unknown name 'promt'; known are prompt, response, instruction, input, output, messages, chosen, rejected, text, system, history, id, source"),
    ("data/*.jsonl", "{files: data/a.jsonl, encoding: utf9}", "winnow.yaml:2: pool.files.encoding: no text encoding is called 'utf9'; for example utf-8, latin-1 or utf-16"),
    ("data/*.jsonl", "data/*.jsonl\n  max_bad_fraction: 5", "winnow.yaml:3: pool.max_bad_fraction: must be at most 1, found 5"),
    ("data/*.jsonl", "data/*.jsonl\n  columns: [score.parquet]", "winnow.yaml:3: pool.columns[0]: 'score.parquet' does not exist in {root} (did you mean `scores.parquet`?)"),
    ("  files: data/*.jsonl\n", "  max_bad_fraction: 0.1\n", "winnow.yaml:1: pool.files: is missing"),
    ("pool:\n  files: data/*.jsonl\n", "pool: data/*.jsonl\n", "winnow.yaml:1: pool: must be a mapping of files, max_bad_fraction, bad_files, prefer, columns, vectors, found 'data/*.jsonl'"),
    ("pool:\n", "pol:\n", "winnow.yaml:1: pol: unknown key (did you mean `pool`?); allowed: store, pool, encoders, models, targets, classifiers, recipes, labeling, index, health, decontamination, exports, schedule, notify, trials, engine"),
    ("maths: maths.jsonl", "maths: math.jsonl", "winnow.yaml:7: targets.maths: 'math.jsonl' does not exist in {root} (did you mean `maths.jsonl`?)"),
    ("maths: maths.jsonl", "maths: 7", "winnow.yaml:7: targets.maths: must be text or a list of texts, found the number 7"),
    ("pool:\n", "store: 7\npool:\n", "winnow.yaml:1: store: must be a folder, found the number 7"),
    (
        "pool:\n",
        "store: s3://b/x\npool:\n",
        "winnow.yaml:1: store: must be a folder of this machine, which a URL is not: mount what it lies on; found 's3://b/x'",
    ),
    ("pool:\n", "index: {kind: hnsw}\npool:\n", "winnow.yaml:1: index.kind: must be one of auto, flat, ivf, rabitq, found 'hnsw'"),
    ("pool:\n", "recipes: [a]\npool:\n", "winnow.yaml:10: recipes: is given twice (first in line 1); keep one"),
]  # fmt: skip

WRONG_SCHEDULES = [
    ("cron: '0 25 * * *'", "schedule.cron: hour must be in 0..23, found '25'; for example `0 2 * * *` is every night at two"),
    ("cron: daily", "schedule.cron: must have five fields (minute, hour, day of month, month, day of week), found 1 in 'daily'; for example `0 2 * * *` is every night at two"),
    ("cron: '0 2 * * *', timezone: Europe/Wien", "schedule.timezone: no timezone is called 'Europe/Wien'"),
    ("cron: '0 2 * * *', recipes: [beste]", "schedule.recipes[0]: no recipe is called 'beste' (did you mean `best`?); there are: best"),
    ("timezone: UTC", "schedule.cron: is missing"),
]  # fmt: skip


KEYS = [
    "store",
    "pool",
    "pool.files",
    "pool.columns",
    "pool.vectors",
    "encoders",
    "encoders.small",
    "encoders.small.model",
    "targets",
    "targets.maths",
    "recipes",
    "recipes.best",
    "recipes.best.steps",
    "recipes.best.targets",
    "recipes.best.where",
    "recipes.best.budget",
    "index",
    "schedule",
    "schedule.cron",
    "schedule.recipes",
]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=5)
ANY_VALUE = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("abc:.", max_size=3), inner, max_size=2),
    max_leaves=4,
)


class TestMistakes:
    @pytest.mark.parametrize(("line", "message"), WRONG_RECIPES, ids=[line for line, _ in WRONG_RECIPES])
    def test_load_config__a_wrong_recipe_gives_one_message(self, project: Path, line: str, message: str) -> None:
        assert problems(project, in_recipe(line)) == [expected(message, project)]

    @pytest.mark.parametrize(("old", "new", "message"), WRONG_FILES, ids=[new or old for old, new, _ in WRONG_FILES])
    def test_load_config__a_wrong_file_says_where_and_what_is_allowed(
        self, project: Path, old: str, new: str, message: str
    ) -> None:
        assert old in GOOD
        said = problems(project, GOOD.replace(old, new, 1))
        # What the message of another package ends in is not for this test.
        assert (
            said[0].startswith(expected(message, project))
            if message.endswith(": ")
            else expected(message, project) in said
        )

    @pytest.mark.parametrize(("entry", "message"), WRONG_SCHEDULES, ids=[entry for entry, _ in WRONG_SCHEDULES])
    def test_load_config__a_wrong_schedule_gives_one_message(self, project: Path, entry: str, message: str) -> None:
        (said,) = problems(project, GOOD + f"schedule: {{{entry}}}\n")
        assert said.startswith(f"winnow.yaml:13: {message}")

    @pytest.mark.parametrize(
        ("budget", "message"),
        [
            ("-5", "must be above 0, found -5"),
            ("many", "must be a whole number, found 'many'"),
            ("{tokens: 0, column: n}", "tokens: must be above 0, found 0"),
            (
                "{tokens: 5, column: n, tokenizer: org/model}",
                "needs either `column` or `tokenizer` to count tokens by, found both",
            ),
            ("{tokens: 5}", "needs either `column` or `tokenizer` to count tokens by, found neither"),
            ("{rows: 5}", "rows: unknown key; allowed: tokens, column, tokenizer"),
        ],
    )
    def test_load_config__a_wrong_budget(self, project: Path, budget: str, message: str) -> None:
        said = problems(project, GOOD.replace("budget: 10", f"budget: {budget}"))
        assert said[0].replace("best.budget: ", "best.budget.") == f"winnow.yaml:12: recipes.best.budget.{message}"

    @pytest.mark.parametrize("limit", ["quota: {by: source, caps: 3}", "group_by: talk"])
    def test_load_config__limits_that_walk_need_a_nested_selector(self, project: Path, limit: str) -> None:
        (said,) = problems(project, in_recipe(limit).replace("[rds_plus]", "[rs2]"))
        assert said.startswith("winnow.yaml:11: recipes.best.steps: ")
        assert "walks the selector's picks in order" in said
        assert "'rs2', with these options, is not" in said

    def test_load_config__a_misspelt_step_names_its_place_and_the_nearest_one(self, project: Path) -> None:
        (said,) = problems(project, GOOD.replace("[rds_plus]", "[rds_pls]"))
        assert said.startswith("winnow.yaml:11: recipes.best.steps[0]: ")
        assert "'rds_plus'" in said

    def test_load_config__a_recipe_that_needs_what_is_not_there_says_what_to_add(self, project: Path) -> None:
        text = "pool: {files: data/*.jsonl}\nrecipes:\n  best: {steps: [rds_plus], budget: 3}\n"
        assert problems(project, text) == [
            "winnow.yaml:3: recipes.best.targets: rds_plus needs targets, and there are none; add one under `targets`",
            "winnow.yaml:3: recipes.best.encoder: rds_plus needs vectors, and there are none; add an encoder under `encoders`",
        ]

    def test_load_config__every_mistake_is_reported_at_once_in_the_order_of_the_file(self, project: Path) -> None:
        text = GOOD.replace("data/*", "date/*").replace("budget: 10", "budget: 0\n    encoder: x\n    where: (")
        lines = [int(said.split(":")[1]) for said in problems(project, text)]
        assert lines == [2, 12, 13, 14]
        with pytest.raises(ConfigError, match=r"^4 problems in the configuration; nothing was run:\n"):
            load_config(project)

    def test_load_config__one_mistake_is_one_line(self, project: Path) -> None:
        (project / "winnow.yaml").write_text(in_recipe("seed: x"))
        with pytest.raises(ConfigError) as caught:
            load_config(project)
        assert str(caught.value) == f"{project}/winnow.yaml:13: recipes.best.seed: must be a whole number, found 'x'"

    def test_load_config__a_wrong_override_is_not_blamed_on_the_file(self, project: Path) -> None:
        assert problems(project, GOOD, overrides={"recipes.best.budget": 0}) == [
            "override: recipes.best.budget: must be above 0, found 0"
        ]
        assert problems(project, GOOD, overrides={"recipes.best.budget.x": 0}) == [
            "override: recipes.best.budget: is the number 10, so `recipes.best.budget.x` cannot be set"
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "winnow.yaml: is empty"),
            ("# nothing\n", "winnow.yaml: is empty"),
            ("- a\n", "winnow.yaml:1: must be a mapping of store, pool, encoders, models, targets, classifiers, recipes, labeling, index, health, decontamination, exports, schedule, notify, trials, engine, found a list"),
            ("pool:\n\tfiles: a\n", "winnow.yaml:2: has a tab where YAML needs spaces; indent with spaces"),
            ("pool: [a\n", "winnow.yaml:2: is not valid YAML, column 1: expected ',' or ']', but got '<stream end>'"),
            ("a: 1\n---\nb: 2\n", "winnow.yaml:2: has a second document (`---`); keep one"),
            ("a: &x [*x]\n", "winnow.yaml:1: a[0]: refers to itself through an alias"),
            ("store: 2024-13-45\n", "winnow.yaml: holds a value that YAML cannot read (month must be in 1..12); put it in quotes"),
            ("store: !!python/object/apply:os.getcwd []\n", "winnow.yaml:1: is not valid YAML, column 8: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd'"),
            ("store: \x07\n", 'winnow.yaml: is not YAML text: unacceptable character #x0007: special characters are not allowed in "<unicode string>", position 7'),
        ],
    )  # fmt: skip
    def test_load_config__what_is_not_a_yaml_mapping_is_refused(self, project: Path, text: str, message: str) -> None:
        assert problems(project, text) == [message]

    def test_load_config__a_missing_file_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path)
        assert str(caught.value) == f"{tmp_path}/winnow.yaml: does not exist; `winnow init` writes one from your data"

    def test_load_config__bytes_that_are_no_text_are_refused(self, project: Path) -> None:
        (project / "winnow.yaml").write_bytes(b"store: caf\xe9\n")
        with pytest.raises(ConfigError, match=r"winnow.yaml: is not UTF-8 text: byte 10 is 0xe9$"):
            load_config(project)

    def test_load_config__a_byte_order_mark_does_no_harm(self, project: Path) -> None:
        (project / "winnow.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
        assert load_config(project).recipes

    @given(value=ANY_VALUE, key=st.sampled_from(KEYS))
    def test_load_config__any_value_anywhere_is_accepted_or_explained(
        self, tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
    ) -> None:
        root = tmp_path_factory.mktemp("any", numbered=True)
        (root / "data").mkdir()
        for name in ("data/a.jsonl", "maths.jsonl", "code.jsonl"):
            (root / name).write_text("{}\n")
        raw = yaml.safe_load(GOOD) | {"schedule": {"cron": "0 2 * * *"}}
        *parents, last = key.split(".")
        at = raw
        for part in parents:
            at = at[part]
        at[last] = value
        (root / "winnow.yaml").write_text(yaml.safe_dump(raw))
        with contextlib.suppress(ConfigError):
            load_config(root)


@pytest.mark.parametrize("name", ["v[2]", "p*", "q?"])
@pytest.mark.parametrize("files", ["data/*.jsonl", "data", "data/a.jsonl", "./d*"])
def test_load_config__the_projects_folder_is_a_name_not_a_pattern(tmp_path: Path, name: str, files: str) -> None:
    for folder, file in ((name, "a"), ("v2", "b"), ("pq", "b"), ("qq", "b")):
        (tmp_path / folder / "data").mkdir(parents=True)
        (tmp_path / folder / "data" / f"{file}.jsonl").write_text('{"text": "x"}\n')
    project = tmp_path / name
    (project / "winnow.yaml").write_text(f"pool: {{files: {files}}}\nrecipes: {{r: {{steps: [random], budget: 1}}}}\n")
    config = load_config(project)
    specs = config.pool.specs(config.root)
    assert [(spec.url, spec.name) for spec in specs] == [(str(project / "data" / "a.jsonl"), "data/a.jsonl")]


@pytest.mark.parametrize("key", ["seed: {}", "round: {}", "budget: {}"])
def test_load_config__numbers_that_the_catalog_cannot_hold_are_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    recipe = {"steps": "[random]", "budget": "1", "allow_short": "true"} | dict([key.format(2**63).split(": ")])
    written = ", ".join(f"{name}: {value}" for name, value in recipe.items())
    (tmp_path / "winnow.yaml").write_text(f"pool: {{files: a.jsonl}}\nrecipes: {{r: {{{written}}}}}\n")
    with pytest.raises(ConfigError, match=r"must be at most 1000000000000000000"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("budget: {money: .inf, per_row: 1}", "money: must be a finite number, found"),
        ("budget: {money: 5, per_row: 1.0e+400}", "per_row: must be a finite number, found"),
        ("budget: {money: 5, per_row: 1.0e+300}", "per_row: must be at most 1000000000000000, found"),
        ("overlap: .nan", "overlap: must be"),
        ("lease_hours: 1.0e+9", "lease_hours: must be at most 1000000, found"),
        ("annotators: [ann], overlap: 0.5", "overlap: wants two people for a row, and `annotators` names one"),
        ("annotators: [a.b, A b]", "annotators: 'a.b' and 'A b' would have one file; choose names further apart"),
        ("annotators: [ann, ann]", "annotators: 'ann' and 'ann' would have one file"),
        ("annotators: [gold]", "annotators: must be the name of a person, found 'gold'"),
        ("adjudicator: ' '", "adjudicator: must be the name of a person, found ' '"),
    ],
)
def test_load_config__a_project_that_cannot_be_meant_is_refused(tmp_path: Path, line: str, cause: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    text = "pool: {files: a.jsonl}\nrecipes: {r: {steps: [random], budget: 1}}\n"
    project = f"labeling: {{t: {{classes: [a, b], steps: [random], batch_size: 1, {line}}}}}\n"
    (tmp_path / "winnow.yaml").write_text(text + project)
    with pytest.raises(ConfigError, match=re.escape(cause)):
        load_config(tmp_path)


def test_load_config__the_home_of_nobody_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    text = "store: ~no-such-user/x\npool: {files: a.jsonl}\nrecipes: {r: {steps: [random], budget: 1}}\n"
    (tmp_path / "winnow.yaml").write_text(text)
    assert load_config(tmp_path).store == str(tmp_path / "~no-such-user" / "x")


def test_load__decontamination_is_resolved_and_changes_the_digest_alone_where_it_is(project: Path) -> None:
    before = load_config(project)
    assert before.decontamination is None
    assert "\ndecontamination:" not in before.resolved_yaml()
    (project / "winnow.yaml").write_text(GOOD + "decontamination: {files: {more: ids.txt}, paraphrases: code.jsonl}\n")
    config = load_config(project)
    assert config.decontamination is not None
    assert config.decontamination.against == ("maths", "code")
    assert config.decontamination.files["more"].files == (str(project / "ids.txt"),)
    assert config.decontamination.paraphrases == str(project / "code.jsonl")
    assert config.digest != before.digest
    (project / "again.yaml").write_text(config.resolved_yaml())
    assert load_config(project / "again.yaml").digest == config.digest


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("[maths]", "decontamination: must be a mapping of against, files, n, "),
        ("{against: [math]}", "decontamination.against[0]: no target set is called 'math' (did you mean `maths`?)"),
        ("{against: []}", "decontamination: names no evaluation texts: add a target set under `targets`"),
        ("{n: 4}", "decontamination.short_n: must be at most `n`, which is 4, found 5"),
        ("{threshold: 0}", "decontamination.threshold: must be above 0.0, found 0"),
        ("{files: {maths: ids.txt}}", "decontamination.files.maths: is the name of a target set too"),
        ("{files: {A b: ids.txt}}", "decontamination.files.A b: 'A b' cannot be a name"),
        ("{files: {more: nothing.jsonl}}", "decontamination.files.more: 'nothing.jsonl' does not exist in"),
        ("{paraphrases: nothing.jsonl}", "decontamination.paraphrases: 'nothing.jsonl' does not exist in"),
        (
            "{embedding: {encoder: big, threshold: 0.9}}",
            "decontamination.embedding.encoder: no encoder is called 'big'",
        ),
        ("{embedding: {encoder: small}}", "decontamination.embedding.threshold: is missing"),
        ("{flor: 1}", "decontamination.flor: unknown key"),
    ],
    ids=lambda value: value if value.startswith(("{", "[")) else "",
)
def test_load__wrong_decontamination(project: Path, setting: str, message: str) -> None:
    (problem,) = problems(project, GOOD + f"decontamination: {setting}\n")
    assert message in problem


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("1.5", "targets.code.measure: must be below 1, found 1.5"),
        ("0", "targets.code.measure: must be above 0.0, found 0"),
        ("maths.jsonl", "maths.jsonl is not among the files of this target set: name it under `files` too"),
        ("code.jsonl", "targets.code.measure: names all files of this target set, which leaves none to select by"),
        ("nothing.jsonl", "targets.code.measure: 'nothing.jsonl' does not exist in"),
    ],
)
def test_load__wrong_measure(project: Path, measure: str, message: str) -> None:
    (problem,) = problems(project, GOOD.replace("fields: {prompt: task}", f"measure: {measure}"))
    assert message in problem


def test_load__measure_is_a_share_or_files(project: Path) -> None:
    text = GOOD.replace("maths: maths.jsonl", "maths: {files: [maths.jsonl, ids.txt], measure: ids.txt}")
    (project / "winnow.yaml").write_text(text.replace("fields: {prompt: task}", "measure: 0.5"))
    targets = load_config(project).targets
    assert targets["code"].measuring(project) == 0.5
    assert targets["maths"].measuring(project) == [str(project / "ids.txt")]
