"""`winnow.yaml`: what it may hold, and one clear message for everything that is wrong with it, before any work.

`load_config` reads the file, checks each section (unknown keys, types, ranges), then what sections say about each other
(names, files, steps and what they need), and fills in defaults. What it returns is *resolved*: paths are absolute,
`recipe.targets` and `recipe.encoder` are names that exist. `Config.resolved_yaml` writes that down, and loading it
again gives the same `digest`, from any folder: the steps of one run load it so.
"""

from __future__ import annotations

import dataclasses
import os
import re
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from pipelines.config import schema
from pipelines.config.cron import cron_mistake
from pipelines.config.reader import NAME_RULE, ConfigReader, S, is_name, keys_of
from pipelines.config.sweep import write_out
from pipelines.config.yaml_lines import KeyPath, parse, read_file
from pipelines.errors import BadExport, ConfigError, Problem
from pipelines.messages import describe, listed, nearest
from selection.constraints import Quota, TokenBudget
from selection.encoders import DEFAULT_KIND, KINDS, EncoderSpec, ModelSpec, RemoteSpec, Representation
from selection.errors import InvalidOption, SelectionError
from selection.learning.classifier import build_classifier
from selection.scorers.class_probability import ClassProbability
from selection.types import Input
from storage.errors import BadInput
from storage.files.user_files import expand
from storage.labels.batches import file_name_of
from storage.labels.files import UNKNOWN, check_label_fields
from storage.labels.log import GOLD
from storage.pool.record_formats import check_fields
from storage.vectors.imported import has_ids_file, ids_file

FILE_NAME = "winnow.yaml"

_RANDOM = schema.StepList.of("random")
# What stands in for a wrong part, so that it does not hide what is wrong with the rest of its section.
_STAND_INS: dict[str, dict[str, Any]] = {
    "Recipe": {"steps": _RANDOM, "budget": 1, "quota": None, "probabilities": None},
    "Labeling": {"steps": _RANDOM, "cold_start": _RANDOM, "budget": None, "quota": None, "stop": schema.Stop()},
}


def load_config(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> schema.Config:
    """Read and check a configuration.

    Args:
        path: the file, or the folder with a `winnow.yaml` in it.
        overrides: dotted path -> value, laid over the file: `{"recipes.math.budget": 500}`.

    Raises:
        ConfigError: anything is wrong; it lists every problem, each with file, line, path, what was found and what is
            allowed.
    """
    file = Path(path).expanduser().absolute()
    if file.is_dir():
        file /= FILE_NAME
    try:
        text = read_file(file).decode("utf-8-sig")
    except BadInput as error:
        message = str(error).removeprefix(f"{file} ")
    except FileNotFoundError:
        message = "does not exist; `winnow init` writes one from your data"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
    else:
        return _ConfigLoader(file, parse(text), overrides or {}).read()
    raise ConfigError([Problem(str(file), 0, "", message)])


F = TypeVar("F", schema.PoolFiles, schema.TargetFiles, schema.Files, schema.Keyed)


class _ConfigLoader(ConfigReader):
    """What the sections say, filled in and checked against each other."""

    def read(self) -> schema.Config:
        """The resolved configuration, or every problem at once."""
        self._write_out_sweeps()
        self._unknown_keys(self.raw, keys_of(schema.Config), ())
        if "pool" not in self.raw:
            self.add(("pool",), "is missing; it names the files to choose from: `pool: {files: data/*.jsonl}`")
        store = self.raw.get("store", "./store")
        if not isinstance(store, str) or not store:
            self.add(("store",), f"must be a folder, found {self._found_at(('store',), store)}")
            store = "./store"
        self._on_disk(store, ("store",), "mount what it lies on")
        pool = self._pool()
        targets = dict(self._targets())
        encoders: dict[str, Representation] = dict(self._models_of("encoders", self._kind_of))
        models: dict[str, ModelSpec] = dict(self._models_of("models", lambda *_: ModelSpec))
        names = {key: list(self._mapping(key)) for key in ("targets", "encoders", "classifiers", "labeling")}
        if pool is not None and pool.vectors:
            names["encoders"].append(schema.OWN_VECTORS)
        classifiers = dict(self._classifiers(names))
        recipes = dict(self._recipes(names))
        labeling = dict(self._labeling(names))
        if pool is not None and pool.vectors:
            self._check_own_vectors("recipes", recipes, targets)
            self._check_own_vectors("classifiers", classifiers, targets)
            self._check_own_vectors("labeling", labeling, targets)
        index = self._validated(schema.Index, self._given("index"), ("index",))
        health = self._validated(schema.Health, self._given("health"), ("health",))
        engine = self._engine()
        decontamination = self._decontamination(targets, names)
        exports = dict(self._exports())
        schedule = self._schedule(list(self._mapping("recipes"))) if self.raw.get("schedule") is not None else None
        notify = self._notify() if self.raw.get("notify") is not None else None
        trials = self._trials(names["targets"]) if self.raw.get("trials") is not None else None
        self._stop_if_wrong()
        assert pool is not None  # else there was a problem
        assert index is not None
        assert health is not None
        assert engine is not None
        return schema.Config(
            store=self._absolute(store),
            pool=pool,
            encoders=encoders,
            models=models,
            targets=targets,
            classifiers=classifiers,
            recipes=recipes,
            labeling=labeling,
            index=index,
            health=health,
            decontamination=decontamination,
            exports=exports,
            schedule=schedule,
            notify=notify,
            trials=trials,
            engine=engine,
            root=self.root,
            sweeps=self.sweeps.members,
        )

    def _engine(self) -> schema.Engine | None:
        """Where large work is done. A run of Dagster may say `kind: local`, and then what is of Ray counts for nothing."""
        engine = self._validated(schema.Engine, self._given("engine"), ("engine",))
        if engine is None:
            return None
        if not re.fullmatch(r"auto|[^/\s]+:\d{1,5}", engine.address or "auto"):
            self.add(
                ("engine", "address"),
                f"must be `host:port` of the cluster, or `auto`, found {engine.address!r}; winnow runs on a machine of it",
            )
        of_ray = [key for key in ("address", "gpus_per_worker") if getattr(engine, key) is not None]
        if "kind" not in engine.model_fields_set:
            for key in of_ray:
                self.add(("engine", key), "is for `kind: ray`, which is not set")
        return engine.model_copy(update=dict.fromkeys(of_ray)) if engine.kind == "local" else engine

    def _given(self, key: str) -> Any:
        """What stands under a key; an empty mapping where nothing does."""
        return {} if self.raw.get(key) is None else self.raw[key]

    def _write_out_sweeps(self) -> None:
        """From here on each recipe of a sweep is a recipe like others."""
        sweeps = write_out(self.raw, keys_of(schema.Recipe))
        for path, message in sweeps.mistakes:
            self.add(path, message)
        self._stop_if_wrong()  # without its recipes, what names them would seem wrong
        self.sweeps = sweeps

    # ---- sections

    def _pool(self) -> schema.Pool | None:
        raw = self.raw.get("pool")
        if not isinstance(raw, dict):
            if "pool" in self.raw:
                self.add(("pool",), f"must be a mapping of {listed(keys_of(schema.Pool))}, found {describe(raw)}")
            return None
        # What names files has short forms, so it is checked by itself; the rest of the section follows.
        checked: dict[str, Any] = {}
        if "files" in raw:
            checked["files"] = tuple(self._each(schema.PoolFiles, "files", raw["files"], ("pool", "files")))
            if raw["files"] == []:
                self.add(("pool", "files"), "names no files")
        for key in ("columns", "vectors"):
            checked[key] = self._keyed(raw.get(key), ("pool", key))
        return self._validated(schema.Pool, raw | checked, ("pool",))

    def _targets(self) -> Iterator[tuple[str, schema.TargetFiles]]:
        for name, raw in self._mapping("targets").items():
            path: KeyPath = ("targets", name)
            if isinstance(raw, dict) and "vectors" in raw:
                raw = raw | {"vectors": self._keyed(raw["vectors"], (*path, "vectors"))}  # noqa: PLW2901
            files = self._files(schema.TargetFiles, "files", raw, path)
            if files is not None:
                yield name, self._with_measuring_files(files, path)

    def _with_measuring_files(self, files: schema.TargetFiles, path: KeyPath) -> schema.TargetFiles:
        """The same, with the absolute paths of the files that measure, which must be some of its files but not all."""
        if files.measure is None or isinstance(files.measure, float):
            return files
        where = (*path, "measure")
        measure = self._matching(files.measure, where)
        try:
            own, measuring = expand(files.files, self.root), expand(measure, self.root)
        except BadInput:  # noted already
            return files
        others = [url for url in measuring if url not in own]
        if others:
            self.add(where, f"{others[0]} is not among the files of this target set: name it under `files` too")
        elif set(own) == set(measuring):
            self.add(where, "names all files of this target set, which leaves none to select by")
        return files.model_copy(update={"measure": measure})

    def _keyed(self, raw: Any, path: KeyPath) -> tuple[schema.Keyed, ...]:
        """Files whose rows are keyed by id; those of vectors that hold no ids lie beside them."""
        kind = schema.KeyedVectors if path[-1] == "vectors" else schema.Keyed
        files = tuple(self._each(kind, "url", raw, path)) if raw is not None else ()
        for url in (file.url for file in files if path[-1] == "vectors" and has_ids_file(file.url)):
            if Path(url).is_file() and not Path(ids_file(url)).is_file():
                self.add(path, f"{url!r} has no ids: put its keys, one a line, into {ids_file(url)}")
        return files

    def _each(self, kind: type[F], key: str, raw: Any, path: KeyPath) -> Iterator[F]:
        """A list in which each item is a mapping or a path; or one of them alone."""
        items = [((*path, i), item) for i, item in enumerate(raw)] if isinstance(raw, list) else [(path, raw)]
        for item_path, item in items:
            files = self._files(kind, key, item, item_path)
            if files is not None:
                yield files

    def _files(self, kind: type[F], key: str, raw: Any, path: KeyPath) -> F | None:
        """A mapping, or the value of its `key` alone."""
        short = not isinstance(raw, dict)
        section = self._validated(kind, {key: raw} if short else raw, path)
        if section is None:
            return None
        named = path if short else (*path, key)
        if isinstance(section, schema.Keyed):
            return section.model_copy(update={"url": self._existing(section.url, named)})
        self._check_encoding(section.encoding, (*path, "encoding"))
        self._check_fields(check_fields, section.fields, path)
        return section.model_copy(update={"files": self._matching(section.files, named)})

    def _check_fields(self, check: Callable[[Any, str], object], fields: Mapping[str, Any], path: KeyPath) -> None:
        try:
            check(fields, "")
        except BadInput as error:
            self.add((*path, "fields"), str(error).removeprefix(": fields: "))

    def _models_of(
        self, section: str, kind_of: Callable[[Any, KeyPath], type[Any] | None]
    ) -> Iterator[tuple[str, Any]]:
        """The entries of `encoders` or `models`."""
        for name, raw in self._mapping(section).items():
            path: KeyPath = (section, name)
            if name == schema.OWN_VECTORS:
                self.add(path, f"`{schema.OWN_VECTORS}` stands for the vectors in pool.vectors; choose another name")
            if name == "selection":  # its assets' keys begin with its name, those of recipes with this word
                self.add(path, "`selection` is what the assets of recipes are called; choose another name")
            kind = kind_of(raw, path)
            located = raw if kind is RemoteSpec else self._models_located(raw)  # a server's name for a model is no path
            spec = None if kind is None else self._options(kind, located, path)
            if spec is None:
                continue
            try:
                spec.check()  # a model on this disk must be there; nothing is loaded
            except InvalidOption as error:
                self.add(self._option_path(path, error), error.reason)
            else:
                yield name, spec

    def _models_located(self, raw: Any) -> Any:
        """An entry with the folders of its models, and their optimizers' files, made absolute."""
        if not isinstance(raw, dict):
            return raw
        files: dict[str, Callable[[str], str]] = {"model": self._model, "optimizer": self._absolute}
        located: dict[str, Any] = {
            key: files[key](value) for key, value in raw.items() if key in files and isinstance(value, str)
        }
        if isinstance(raw.get("checkpoints"), list):
            located["checkpoints"] = [self._models_located(each) for each in raw["checkpoints"]]
        return raw | located

    def _kind_of(self, raw: Any, path: KeyPath) -> type[Any] | None:
        """The class of an encoder's kind."""
        options = raw if isinstance(raw, dict) else {}
        by_pooling = "sentence_transformers" if options.get("pooling") == "model" else DEFAULT_KIND
        kind = options.get("kind", by_pooling)
        if isinstance(kind, str) and kind in KINDS:
            return KINDS[kind].spec
        near = nearest(kind, list(KINDS)) if isinstance(kind, str) else ""
        self.add((*path, "kind"), f"must be one of {listed(KINDS)}, found {describe(kind)}{near}")
        return None

    def _classifiers(self, names: Mapping[str, list[str]]) -> Iterator[tuple[str, schema.Classifier]]:
        for name, raw in self._mapping("classifiers").items():
            path: KeyPath = ("classifiers", name)
            if name == "selection":
                self.add(path, "`selection` is what the assets of recipes are called; choose another name")
            if name in names["labeling"]:
                self.add(path, "a labeling project has this name, and recipes name both alike; choose another name")
            classifier = self._validated(schema.Classifier, raw, path)
            if classifier is None:
                continue
            if len(classifier.classes) < 2 or "" in classifier.classes:
                classes = listed(classifier.classes) or "none"
                self.add((*path, "classes"), f"must be at least two names, found {classes}")
            for class_name, examples in classifier.classes.items():
                self._check_examples(examples, names, (*path, "classes", class_name))
            resolved = {
                "estimator": self._estimator(classifier.estimator, (*path, "estimator")),
                "encoder": self._classifier_encoder(classifier, names, (*path, "encoder")),
            }
            yield name, classifier.model_copy(update=resolved)

    def _classifier_encoder(
        self, classifier: schema.Classifier, names: Mapping[str, list[str]], path: KeyPath
    ) -> str | None:
        """The encoder whose vectors a classifier sees, filled in where it is left out; None where it sees the texts."""
        if classifier.features == "ngrams":
            if classifier.encoder is not None:
                self.add(path, "goes with `features: embeddings`; n-grams are of the texts")
            return None
        if classifier.encoder is not None:
            self._known(classifier.encoder, names["encoders"], "encoder", path)
            return classifier.encoder
        if not names["encoders"]:
            message = "embeddings need vectors, and there are none; add an encoder under `encoders`, or say `features: ngrams`"
            self.add(path, message)
            return None
        return names["encoders"][0]

    def _check_examples(self, examples: schema.ClassExamples, names: Mapping[str, list[str]], path: KeyPath) -> None:
        if not examples.targets and examples.where is None and examples.sample is None:
            allowed = "`{targets: ...}`, `{where: a condition on the pool}` or `{sample: so many rows of the pool}`"
            self.add(path, f"names no examples; {allowed}")
        for key in ("where", "sample"):
            if examples.targets and getattr(examples, key) is not None:
                self.add((*path, key), "is of rows of the pool and does not go with `targets`")
        for i, target in enumerate(examples.targets):
            self._known(target, names["targets"], "target set", self._item((*path, "targets"), i))
        if examples.where is not None:
            self._check_where(examples.where, (*path, "where"))

    def _recipes(self, names: Mapping[str, list[str]]) -> Iterator[tuple[str, schema.Recipe]]:
        for name, raw in self._mapping("recipes").items():
            path: KeyPath = ("recipes", name)
            if not isinstance(raw, dict):
                self._validated(schema.Recipe, raw, path)
                continue
            steps = self._steps(raw, path, "steps")
            recipe = self._recipe(raw, steps, path)
            # On the raw values, so that a wrong budget does not hide a wrong target.
            self._check_names(raw, names, path)
            needs = _needs(steps)
            self._check_probabilities(raw, recipe, steps, names, path)
            resolved = self._filled_in(raw, names, needs, path)
            if recipe is not None:
                yield name, recipe.model_copy(update=resolved)

    def _check_probabilities(
        self,
        raw: Mapping[str, Any],
        recipe: schema.Recipe | None,
        steps: schema.StepList | None,
        names: Mapping[str, list[str]],
        path: KeyPath,
    ) -> None:
        """Whether the recipe says where its probabilities come from, and whether they have all that its steps need."""
        needs = [((*path, "steps"), name, need) for need, name in _needs(steps).items() if need in schema.LEARNED]
        if recipe is not None and recipe.quota is not None and recipe.quota.predicts:
            needs.append(((*path, "quota", "by"), recipe.quota.by, Input.PROBABILITIES))
        given = raw.get("probabilities")
        if given is None:
            for place, name, need in needs:
                self.add(place, f"{name} needs {need}: name where they come from, {_sources(names, need)}")
            return
        if isinstance(given, str) and given not in [*names["classifiers"], *names["labeling"]]:
            known = [*names["classifiers"], *names["labeling"]]
            self._known(given, known, "entry of `classifiers` or labeling project", (*path, "probabilities"))
            return
        source = self._source(given, names)
        for place, name, need in needs:
            if need not in source.gives:
                self.add(
                    place, f"{name} needs {need}, which {source.title} does not have: name {_sources(names, need)}"
                )
        for i, step in enumerate(steps.parsed if steps is not None else ()):
            if isinstance(step, ClassProbability) and source.classes:
                try:
                    step.number(source.classes, len(source.classes))
                except InvalidOption as error:
                    self.add(self._option_path((*path, "steps", i, step.name), error), error.reason)

    def _source(self, given: Any, names: Mapping[str, list[str]]) -> _SourceSection:
        """What a recipe's `probabilities` give, as far as the file says."""
        if not isinstance(given, str):
            return _SourceSection("your own file", frozenset({Input.PROBABILITIES}), ())
        kind = "classifiers" if given in names["classifiers"] else "labeling"
        section = self._mapping(kind)[given]
        section = section if isinstance(section, dict) else {}
        gives = schema.LEARNED if kind == "labeling" else schema.LEARNED - {Input.LABELS}
        if isinstance(section.get("classifier"), dict) and "probabilities" in section["classifier"]:
            gives -= {Input.COMMITTEE}
        classes = section.get("classes")
        named = [name for name in classes if isinstance(name, str)] if isinstance(classes, list | dict) else []
        title = f"the classifier {given!r}" if kind == "classifiers" else f"the labeling project {given!r}"
        return _SourceSection(title, gives, tuple(named))

    def _labeling(self, names: Mapping[str, list[str]]) -> Iterator[tuple[str, schema.Labeling]]:
        for name, raw in self._mapping("labeling").items():
            path: KeyPath = ("labeling", name)
            if name == "selection":
                self.add(path, "`selection` is what the assets of recipes are called; choose another name")
            if not isinstance(raw, dict):
                self._validated(schema.Labeling, raw, path)
                continue
            steps, cold_start = self._project_steps(raw, path), self._steps(raw, path, "cold_start")
            project = self._project(raw, steps, cold_start, path)
            self._check_names(raw, names, path)
            imported = isinstance(raw.get("classifier"), dict) and "probabilities" in raw["classifier"]
            needs = self._project_needs(steps, cold_start, path, imported=imported)
            resolved = self._filled_in(raw, names, needs, path)
            if project is None:
                continue
            if project.out is not None:
                self._on_disk(project.out, (*path, "out"), "winnow locks it and reads it again")
            resolved |= {
                "labels": tuple(self._absolute(pattern) for pattern in project.labels),
                "out": self._absolute(project.out or f"labeling/{name}"),
                "classifier": self._classifier(project.classifier, (*path, "classifier")),
            }
            yield name, project.model_copy(update=resolved)

    def _project_steps(self, raw: Mapping[str, Any], path: KeyPath) -> schema.StepList | None:
        """The steps of a project, or what stands for those of `auto`; None with the problem noted."""
        written = raw.get("steps", schema.AUTO)
        if written == schema.AUTO:
            return schema.AUTO_STEPS
        if isinstance(written, str):
            self.add((*path, "steps"), f"must be `{schema.AUTO}` or a list of steps, found {written!r}")
            return None
        return self._steps(raw, path, "steps")

    def _project_needs(
        self, steps: schema.StepList | None, cold_start: schema.StepList | None, path: KeyPath, *, imported: bool
    ) -> dict[Input, str]:
        """What a project needs, each with the first step that needs it."""
        cold = _needs(cold_start)
        for learned in (Input.PROBABILITIES, Input.COMMITTEE):
            if learned in cold and not imported:
                mistake = f"{cold[learned]} needs {learned}, which are not there before the first labels"
                self.add((*path, "cold_start"), mistake)
        needs = {**cold, **_needs(steps)}
        if imported and Input.COMMITTEE in needs:
            mistake = f"{needs[Input.COMMITTEE]} needs a committee, which your own probabilities do not have"
            self.add((*path, "steps"), mistake)
        needs.setdefault(Input.VECTORS, "the classifier")
        return needs

    def _project(
        self, raw: Mapping[str, Any], steps: schema.StepList | None, cold_start: schema.StepList | None, path: KeyPath
    ) -> schema.Labeling | None:
        steps_of = {"steps": steps, "cold_start": cold_start}
        given = [key for key in steps_of if key in raw and steps_of[key] is not schema.AUTO_STEPS]
        checked: dict[str, Any] = {key: steps_of[key] for key in given}
        if raw.get("quota") is not None:
            checked["quota"] = self._options(Quota, raw["quota"], (*path, "quota"))
        if raw.get("budget") is not None:
            checked["budget"] = self._validated(schema.LabelBudget, raw["budget"], (*path, "budget"))
        if raw.get("stop") is not None:
            checked["stop"] = self._validated(schema.Stop, raw["stop"], (*path, "stop"))
        project = self._with_checked(schema.Labeling, raw, checked, path)
        if project is None:
            return None
        self._check_fields(check_label_fields, project.fields, path)
        if len(set(project.classes)) < 2 or len(set(project.classes)) < len(project.classes) or "" in project.classes:
            classes = listed(project.classes) or "none"
            self.add((*path, "classes"), f"must be at least two different names, found {classes}")
        self._check_annotators(project, path)
        for key, step_list in (("steps", project.active_steps), ("cold_start", project.cold_start)):
            recipe = project.recipe(step_list, project.batch_size, 0, quota=project.quota, targets=())
            self._check_constraints(recipe, path, key)
        if project.random_share + (project.gold_share if project.gold else 0) > 1:
            self.add((*path, "random_share"), "together with `gold_share` is more than the whole batch")
        return project.model_copy(update={"budget": self._label_budget(project.budget, (*path, "budget"))})

    def _check_annotators(self, project: schema.Labeling, path: KeyPath) -> None:
        """Names that can be told apart, also as names of files, and enough of them."""
        by_file: dict[str, str] = {}
        for name in project.annotators:
            self._check_person(name, (*path, "annotators"))
            file = file_name_of(name).casefold()
            if file in by_file:
                both = f"{by_file[file]!r} and {name!r}"
                self.add((*path, "annotators"), f"{both} would have one file; choose names further apart")
            by_file[file] = name
        if project.adjudicator is not None:
            self._check_person(project.adjudicator, (*path, "adjudicator"))
        if project.overlap and len(project.annotators) == 1:
            self.add((*path, "overlap"), "wants two people for a row, and `annotators` names one")

    def _check_person(self, name: str, path: KeyPath) -> None:
        if name.strip() != name or not name or not name.isprintable() or name in (GOLD, UNKNOWN):
            self.add(path, f"must be the name of a person, found {name!r}")

    def _label_budget(self, budget: schema.LabelBudget | None, path: KeyPath) -> schema.LabelBudget | None:
        if budget is None:
            return None
        if (budget.rows is None) == (budget.money is None):
            self.add(path, f"needs either `rows` or `money`, found {'neither' if budget.rows is None else 'both'}")
            return budget
        prices = [key for key in ("per_row", "column", "per_token", "tokenizer") if getattr(budget, key) is not None]
        if budget.rows is not None:
            if prices:
                self.add((*path, prices[0]), "is a price and goes with `money`, not with `rows`")
            return budget
        if set(prices) not in ({"per_row"}, {"column"}, {"per_token", "column"}, {"per_token", "tokenizer"}):
            allowed = "`per_row`, or `column`, or `per_token` with `column` or `tokenizer`"
            self.add(path, f"money needs one price: {allowed}; found {listed(prices) or 'none'}")
        if budget.tokenizer is None:
            return budget
        return budget.model_copy(update={"tokenizer": self._tokenizer(budget.tokenizer, (*path, "tokenizer"))})

    def _classifier(self, spec: Any, path: KeyPath) -> Any:
        """As given, with the path of the user's own probabilities made absolute."""
        if isinstance(spec, dict) and "probabilities" in spec:
            if len(spec) > 1:
                self.add(path, f"must be one of {listed(spec)}, found all of them")
            keyed = self._keyed(spec["probabilities"], (*path, "probabilities"))
            return {"probabilities": keyed[0].model_dump()} if keyed else spec
        return self._estimator(spec, path)

    def _estimator(self, spec: Any, path: KeyPath) -> Any:
        """What is fitted, as given."""
        try:
            build_classifier(spec)
        except InvalidOption as error:
            self.add(path, error.reason if error.step == "classifier" else str(error))
        return spec

    def _recipe(self, raw: Mapping[str, Any], steps: schema.StepList | None, path: KeyPath) -> schema.Recipe | None:
        checked: dict[str, Any] = {"steps": steps} if "steps" in raw else {}
        if isinstance(raw.get("budget"), dict):
            checked["budget"] = self._token_budget(raw["budget"], (*path, "budget"))
        if raw.get("quota") is not None:
            checked["quota"] = self._options(Quota, raw["quota"], (*path, "quota"))
        if isinstance(raw.get("probabilities"), dict):
            checked["probabilities"] = self._files(schema.Keyed, "url", raw["probabilities"], (*path, "probabilities"))
        recipe = self._with_checked(schema.Recipe, raw, checked, path)
        if recipe is not None:
            self._check_constraints(recipe, path, "steps")
        return recipe

    def _with_checked(
        self, section: type[S], raw: Mapping[str, Any], checked: Mapping[str, Any], path: KeyPath
    ) -> S | None:
        """A section whose parts were checked before; None where it or one of them is wrong."""
        stand_ins = {key: _STAND_INS[section.__name__][key] for key, part in checked.items() if part is None}
        whole = self._validated(section, {**raw, **checked, **stand_ins}, path)
        return None if None in checked.values() else whole

    def _token_budget(self, raw: Mapping[str, Any], path: KeyPath) -> TokenBudget | None:
        """With the tokenizer's folder made absolute; it must be there."""
        budget = self._options(TokenBudget, raw, path, tokens=Annotated[int, Field(gt=0)])
        if budget is None or budget.tokenizer is None:
            return budget
        return dataclasses.replace(budget, tokenizer=self._tokenizer(budget.tokenizer, (*path, "tokenizer")))

    def _tokenizer(self, name: str, path: KeyPath) -> str:
        tokenizer = self._model(name)
        try:
            EncoderSpec(model=tokenizer).folder()
        except InvalidOption as error:
            self.add(path, error.reason.removeprefix("model "))
        return tokenizer

    def _check_constraints(self, recipe: schema.Recipe, path: KeyPath, steps: str) -> None:
        """Whether budget, quota and groups make sense and go with the last step."""
        try:
            constraints = recipe.constraints
        except InvalidOption as error:
            self.add((*path, "max_per_group"), error.reason)
            return
        if recipe.max_churn is not None and recipe.mode != "sticky":
            self.add(
                (*path, "max_churn"), f"goes with `mode: sticky`, found {recipe.max_churn:g} with `mode: {recipe.mode}`"
            )
        try:
            constraints.check_selector(recipe.steps.parsed[-1])
        except SelectionError as error:
            self.add((*path, steps), str(error))

    def _check_names(self, raw: Mapping[str, Any], names: Mapping[str, list[str]], path: KeyPath) -> None:
        targets = schema.as_tuple(raw.get("targets", ()))
        for i, target in enumerate(targets if isinstance(targets, tuple) else ()):
            if isinstance(target, str):
                self._known(target, names["targets"], "target set", self._item((*path, "targets"), i))
        if isinstance(raw.get("encoder"), str):
            self._known(raw["encoder"], names["encoders"], "encoder", (*path, "encoder"))

    def _filled_in(
        self, raw: Mapping[str, Any], names: Mapping[str, list[str]], needs: Mapping[Input, str], path: KeyPath
    ) -> dict[str, Any]:
        """The targets and the encoder where they are left out and the steps need them; files of ids by absolute paths."""
        values: dict[str, Any] = {}
        kinds = (Input.TARGETS, Input.TARGET_TEXTS, Input.TARGET_QUESTIONS)
        by_targets = next((needs[kind] for kind in kinds if kind in needs), None)
        if by_targets:
            if "targets" not in raw:
                values["targets"] = tuple(names["targets"])
            if not raw.get("targets", names["targets"]):
                hint = f"name some of: {listed(names['targets'])}" if names["targets"] else "add one under `targets`"
                self.add((*path, "targets"), f"{by_targets} needs targets, and there are none; {hint}")
        wanting = needs.get(Input.VECTORS) or needs.get(Input.TARGETS)
        if wanting and raw.get("encoder") is None:
            if names["encoders"]:
                values["encoder"] = names["encoders"][0]
            else:
                message = f"{wanting} needs vectors, and there are none; add an encoder under `encoders`"
                self.add((*path, "encoder"), message)
        for key in ("allow", "deny", "gold"):
            if isinstance(raw.get(key), str):
                values[key] = self._existing(raw[key], (*path, key))
        if isinstance(raw.get("where"), str):
            self._check_where(raw["where"], (*path, "where"))
        return values

    def _check_own_vectors(
        self,
        section: str,
        users: Mapping[str, schema.Recipe | schema.Labeling | schema.Classifier],
        targets: Mapping[str, schema.TargetFiles],
    ) -> None:
        """What works on the user's own vectors needs them of its targets too."""
        for name, user in users.items():
            without = [t for t in user.targets if t in targets and not targets[t].vectors]
            if user.encoder == schema.OWN_VECTORS and without:
                mistake = (
                    f"is `{schema.OWN_VECTORS}`, but these targets have no vectors of their own: {listed(without)}"
                )
                self.add((section, name, "encoder"), f"{mistake}; add `targets.{without[0]}.vectors`")

    def _decontamination(
        self, targets: Mapping[str, schema.TargetFiles], names: Mapping[str, list[str]]
    ) -> schema.Decontamination | None:
        path: KeyPath = ("decontamination",)
        raw = self.raw.get("decontamination")
        if raw is None:
            return None
        if not isinstance(raw, dict):
            return self._validated(schema.Decontamination, raw, path)
        checked: dict[str, Any] = {}
        if isinstance(raw.get("files"), dict):
            checked["files"] = dict(self._evaluation_files(raw["files"], names["targets"]))
        if isinstance(raw.get("paraphrases"), str):
            checked["paraphrases"] = self._existing(raw["paraphrases"], (*path, "paraphrases"))
        section = self._validated(schema.Decontamination, raw | checked, path)
        if section is None:
            return None
        if section.short_n > section.n:
            self.add((*path, "short_n"), f"must be at most `n`, which is {section.n}, found {section.short_n}")
        for i, name in enumerate(section.against):
            self._known(name, names["targets"], "target set", self._item((*path, "against"), i))
        section = section.model_copy(
            update={"against": section.against if "against" in raw else tuple(names["targets"])}
        )
        if not section.against and not section.files:
            self.add(path, "names no evaluation texts: add a target set under `targets`, or `decontamination.files`")
        if section.embedding is not None:
            self._check_embedding_rule(section, section.embedding.encoder, targets, names["encoders"])
        return section

    def _evaluation_files(self, raw: Mapping[str, Any], targets: list[str]) -> Iterator[tuple[str, schema.Files]]:
        for name, value in raw.items():
            path: KeyPath = ("decontamination", "files", name)
            if not is_name(name):
                self.add(path, f"{name!r} cannot be a name: {NAME_RULE}")
            if name in targets:
                self.add(path, "is the name of a target set too; choose another name")
            files = self._files(schema.Files, "files", value, path)
            if files is not None:
                yield name, files

    def _check_embedding_rule(
        self,
        section: schema.Decontamination,
        encoder: str,
        targets: Mapping[str, schema.TargetFiles],
        encoders: list[str],
    ) -> None:
        """Its encoder is there, and the user's own vectors are there for all that is looked for."""
        path: KeyPath = ("decontamination", "embedding", "encoder")
        self._known(encoder, encoders, "encoder", path)
        without = [name for name in section.against if name in targets and not targets[name].vectors]
        without += section.files
        if encoder == schema.OWN_VECTORS and without:
            mistake = f"is `{schema.OWN_VECTORS}`, but these have no vectors of their own: {listed(without)}"
            self.add(path, mistake)

    def _exports(self) -> Iterator[tuple[str, schema.Export]]:
        recipes, folders = list(self._mapping("recipes")), dict[str, str]()
        for name, raw in self._mapping("exports").items():
            path: KeyPath = ("exports", name)
            export = self._validated(schema.Export, raw, path)
            if export is None:
                continue
            self._known(export.recipe, recipes, "recipe", (*path, "recipe"))
            try:
                _ = export.options
            except BadExport as error:
                self.add((*path, error.option), error.reason)
            out = self._absolute(export.out or f"exports/{name}")
            other = folders.setdefault(out, name)
            if other != name:
                self.add((*path, "out"), f"is the folder of the export {other!r} too; each has its own")
            yield name, export.model_copy(update={"out": out})
        for key in ("encoders", "models", "classifiers", "labeling"):
            if folders and "export" in self._mapping(
                key
            ):  # its assets' keys begin with its name, those of exports with this
                self.add((key, "export"), "`export` is what the assets of exports are called; choose another name")

    def _notify(self) -> schema.Notify | None:
        path: KeyPath = ("notify",)
        notify = self._validated(schema.Notify, self.raw["notify"], path)
        if notify is None:
            return None
        if notify.webhook is None and not notify.command:
            self.add(path, "tells nobody: needs `webhook` (a URL) or `command`")
        if notify.webhook is not None and not notify.webhook.startswith(("http://", "https://", "$")):
            allowed = "must begin with http:// or https://, or be an environment variable, $NAME"
            self.add((*path, "webhook"), f"{allowed}; found {notify.webhook!r}")
        return notify

    def _trials(self, targets: list[str]) -> schema.Trials | None:
        path: KeyPath = ("trials",)
        raw = self.raw["trials"]
        if isinstance(raw, dict) and isinstance(raw.get("model"), str) and raw["model"] != schema.SCRATCH:
            raw = raw | {"model": self._model(raw["model"])}
        trials = self._validated(schema.Trials, raw, path)
        if trials is None:
            return None
        controls = [*schema.CONTROLS, *self._mapping("recipes")]
        for i, name in enumerate(trials.against):
            self._known(name, controls, "control or recipe", self._item((*path, "against"), i))
        for i, name in enumerate(trials.targets):
            self._known(name, targets, "target set", self._item((*path, "targets"), i))
        try:
            _ = trials.model == schema.SCRATCH or ModelSpec(model=trials.model).folder()
        except InvalidOption as error:
            self.add((*path, "model"), error.reason)
        if trials.lora and trials.model == schema.SCRATCH:
            self.add((*path, "lora"), "is for a model of a folder; a model from scratch trains all of its weights")
        return trials

    def _schedule(self, recipes: list[str]) -> schema.Schedule | None:
        path: KeyPath = ("schedule",)
        schedule = self._validated(schema.Schedule, self.raw["schedule"], path)
        if schedule is None:
            return None
        mistake = cron_mistake(schedule.cron)
        if mistake:
            self.add((*path, "cron"), f"{mistake}; for example `0 2 * * *` is every night at two")
        if schedule.timezone not in _timezones():
            hint = nearest(schedule.timezone, _timezones()) or "; for example UTC or Europe/Vienna"
            self.add((*path, "timezone"), f"no timezone is called {schedule.timezone!r}{hint}")
        if schedule.recipes == ("all",):
            return schedule.model_copy(update={"recipes": tuple(recipes)})
        for i, name in enumerate(schedule.recipes):
            self._known(name, [*recipes, *self.sweeps.members], "recipe", self._item((*path, "recipes"), i))
        members = [member for name in schedule.recipes for member in self.sweeps.members.get(name, (name,))]
        return schedule.model_copy(update={"recipes": tuple(dict.fromkeys(members))})


@cache
def _timezones() -> set[str]:
    """The names there are; to list them takes 25 ms."""
    return zoneinfo.available_timezones()


@dataclasses.dataclass(frozen=True)
class _SourceSection:
    """Where a recipe's probabilities come from, as far as the file says.

    Attributes:
        title: for messages.
        gives: the inputs that steps can get from it.
        classes: their names; none where they are not known yet.
    """

    title: str
    gives: frozenset[Input]
    classes: tuple[str, ...]


def _sources(names: Mapping[str, list[str]], need: Input) -> str:
    """The keys that would give an input, for a message."""
    sources = [] if need is Input.LABELS else [("an entry of `classifiers`", names["classifiers"])]
    sources.append(("a project of `labeling`", names["labeling"]))
    ways = [f"{what} ({listed(known) or 'there is none yet'})" for what, known in sources]
    ways += ["your own file, {url: p.parquet, id: id}"] if need is Input.PROBABILITIES else []
    return f"`probabilities:` {' or '.join(ways)}"


def _needs(steps: schema.StepList | None) -> dict[Input, str]:
    """What steps need, each with the first step that needs it."""
    needs: dict[Input, str] = {}
    for step in steps.parsed if steps is not None else ():
        for need in step.needs:
            needs.setdefault(need, step.name)
    return needs
