"""`winnow.yaml`: what it may hold, and one clear message for everything that is wrong with it, before any work.

`load_config` reads the file, checks each section (unknown keys, types, ranges), then what sections say about each other
(names, files, steps and what they need), and fills in defaults. What it returns is *resolved*: paths are absolute,
`recipe.targets` and `recipe.encoder` are names that exist. `Config.resolved_yaml` writes that down, and loading it again
gives the same `digest`, from any folder: the steps of one run load it so.
"""

from __future__ import annotations

import dataclasses
import os
import zoneinfo
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import create_model

from pipelines.config.cron import cron_mistake
from pipelines.config.reader import ConfigFile, keys_of, mentioned
from pipelines.config.schema import (
    OWN_VECTORS,
    Config,
    Files,
    Index,
    Keyed,
    LabelBudget,
    Labeling,
    Pool,
    PoolFiles,
    Quota,
    Recipe,
    Schedule,
    Section,
    Stop,
    TargetFiles,
    TokenBudget,
    as_tuple,
)
from pipelines.config.yaml_lines import KeyPath, parse
from pipelines.errors import ConfigError, Problem
from pipelines.messages import found, listed, nearest
from selection.constraints import PREDICTED_CLASS
from selection.encoders import EncoderSpec
from selection.errors import SelectionError
from selection.learning.classifier import build_classifier
from selection.registry import parse_steps
from selection.types import Input
from storage.errors import BadInput
from storage.labels.files import check_label_fields
from storage.pool.record_formats import check_fields
from storage.vectors.imported import ids_file

__all__ = [
    "Config",
    "Files",
    "Index",
    "Keyed",
    "Labeling",
    "Pool",
    "PoolFiles",
    "Recipe",
    "Schedule",
    "TargetFiles",
    "load_config",
]

FILE_NAME = "winnow.yaml"

# Of a section that is wrong, so that this does not hide what is wrong with the rest.
_STANDS_IN: dict[str, Any] = {"budget": 1, "quota": None}

# What only a labeling project can give to steps: it has labels, and a classifier that learns from them.
_LEARNED = (Input.PROBABILITIES, Input.COMMITTEE, Input.LABELS)


def load_config(path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Config:
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
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            [Problem(str(file), 0, "", "does not exist; `winnow init` writes one from your data")]
        ) from None
    except OSError as error:
        raise ConfigError([Problem(str(file), 0, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
        raise ConfigError([Problem(str(file), 0, "", message)]) from None
    return _Reader(file, parse(text), overrides or {}).read()


F = TypeVar("F", PoolFiles, TargetFiles, Keyed)


class _Reader(ConfigFile):
    """What the sections say, filled in and checked against each other."""

    def read(self) -> Config:
        """The resolved configuration, or every problem at once."""
        self._unknown_keys(self.raw, keys_of(Config), ())
        if "pool" not in self.raw:
            self.add(("pool",), "is missing; it names the files to choose from: `pool: {files: data/*.jsonl}`")
        store = self.raw.get("store", "./store")
        if not isinstance(store, str) or not store:
            self.add(("store",), f"must be a folder, found {self._found_at(('store',), store)}")
            store = "./store"
        pool = self._pool()
        targets = dict(self._targets())
        encoders = dict(self._encoders())
        names = {"targets": list(self._mapping(("targets",))), "encoders": list(self._mapping(("encoders",)))}
        if pool is not None and pool.vectors:
            names["encoders"].append(OWN_VECTORS)
        recipes = dict(self._recipes(names))
        labeling = dict(self._labeling(names))
        if pool is not None and pool.vectors:
            self._check_own_vectors("recipes", recipes, targets)
            self._check_own_vectors("labeling", labeling, targets)
        index = self._section(Index, ("index",)) if self.raw.get("index") is not None else Index()
        schedule = self._schedule(list(self._mapping(("recipes",)))) if self.raw.get("schedule") is not None else None
        self._stop_if_wrong()
        assert pool is not None  # else there was a problem
        assert index is not None
        return Config(
            store=self._absolute(store),
            pool=pool,
            encoders=encoders,
            targets=targets,
            recipes=recipes,
            labeling=labeling,
            index=index,
            schedule=schedule,
            root=self.root,
        )

    # ---- sections

    def _pool(self) -> Pool | None:
        raw = self.raw.get("pool")
        if not isinstance(raw, dict):
            if "pool" in self.raw:
                self.add(("pool",), f"must be a mapping of {listed(keys_of(Pool))}, found {found(raw)}")
            return None
        # What names files has short forms, so it is checked by itself; the rest of the section follows.
        checked: dict[str, Any] = {}
        if "files" in raw:
            checked["files"] = tuple(self._each(PoolFiles, "files", raw["files"], ("pool", "files")))
            if raw["files"] == []:
                self.add(("pool", "files"), "names no files")
        for key in ("columns", "vectors"):
            checked[key] = self._keyed(raw.get(key), ("pool", key))
        return self._validated(Pool, raw | checked, ("pool",))

    def _targets(self) -> Iterator[tuple[str, TargetFiles]]:
        for name, raw in self._mapping(("targets",)).items():
            path: KeyPath = ("targets", name)
            if isinstance(raw, dict) and "vectors" in raw:
                raw = raw | {"vectors": self._keyed(raw["vectors"], (*path, "vectors"))}  # noqa: PLW2901
            files = self._files(TargetFiles, "files", raw, path)
            if files is not None:
                yield name, files

    def _keyed(self, raw: Any, path: KeyPath) -> tuple[Keyed, ...]:
        """What is brought by id; an .npy of vectors is there with its ids."""
        brought = tuple(self._each(Keyed, "url", raw, path)) if raw is not None else ()
        if path[-1] == "vectors":
            for one in brought:
                if one.url.endswith(".npy") and Path(one.url).is_file() and not Path(ids_file(one.url)).is_file():
                    self.add(path, f"{one.url!r} has no ids: put its keys, one a line, into {ids_file(one.url)}")
        return brought

    def _each(self, kind: type[F], key: str, raw: Any, path: KeyPath) -> Iterator[F]:
        """A list in which each item is a mapping or a path; or one of them alone."""
        for here, item in (
            [((*path, i), item) for i, item in enumerate(raw)] if isinstance(raw, list) else [(path, raw)]
        ):
            files = self._files(kind, key, item, here)
            if files is not None:
                yield files

    def _files(self, kind: type[F], key: str, raw: Any, path: KeyPath) -> F | None:
        """A mapping, or the value of its `key` alone."""
        short = not isinstance(raw, dict)
        section = self._validated(kind, {key: raw} if short else raw, path)
        if section is None:
            return None
        named = path if short else (*path, key)
        if isinstance(section, Keyed):
            return section.model_copy(update={"url": self._existing(section.url, named)})
        self._check_encoding(section.encoding, (*path, "encoding"))
        try:
            check_fields(section.fields, "")
        except BadInput as error:
            self.add((*path, "fields"), str(error).removeprefix(": fields: "))
        return section.model_copy(update={"files": self._matching(section.files, named)})

    def _encoders(self) -> Iterator[tuple[str, EncoderSpec]]:
        hints = get_type_hints(EncoderSpec)
        shape: dict[str, Any] = {f.name: (hints[f.name], _default(f)) for f in dataclasses.fields(EncoderSpec)}
        model = create_model("Encoder", __base__=Section, **shape)
        for name in self._mapping(("encoders",)):
            path: KeyPath = ("encoders", name)
            if name == OWN_VECTORS:
                self.add(path, f"`{OWN_VECTORS}` stands for the vectors in pool.vectors; choose another name")
            if name == "selection":  # its assets' keys begin with its name, those of recipes with this word
                self.add(path, "`selection` is what the assets of recipes are called; choose another name")
            options = self._section(model, path)
            if options is None:
                continue
            values = {key: getattr(options, key) for key in options.model_fields_set}
            values["model"] = self._model(values["model"])
            try:
                spec = EncoderSpec(**values)
                spec.folder()  # a model on this disk must be there; nothing is loaded
            except SelectionError as error:
                message = str(error).removeprefix("encoder: ")
                self.add(mentioned(path, options.model_fields_set, message), message)
            else:
                yield name, spec

    def _recipes(self, names: Mapping[str, list[str]]) -> Iterator[tuple[str, Recipe]]:
        for name, raw in self._mapping(("recipes",)).items():
            path: KeyPath = ("recipes", name)
            recipe = self._recipe(raw, path)
            if not isinstance(raw, dict):
                continue
            # On the raw values, so that a wrong budget does not hide a wrong target.
            self._check_names(raw, names, path)
            needs = self._steps_need(raw, path)
            for learned in _LEARNED:
                if learned in needs:
                    self.add(
                        (*path, "steps"),
                        f"{needs[learned]} needs {learned}, which a recipe does not have: put its steps under `labeling:`, "
                        "whose classifier learns from labels",
                    )
            if recipe is not None and recipe.quota is not None and recipe.quota.by == PREDICTED_CLASS:
                self.add(
                    (*path, "quota", "by"),
                    f"{PREDICTED_CLASS} needs probabilities, which a recipe does not have: put the quota under `labeling:`",
                )
            resolved = self._filled_in(raw, names, needs, path) | self._id_files(raw, path)
            if isinstance(raw.get("where"), str):
                self._check_where(raw["where"], (*path, "where"))
            if recipe is not None:
                yield name, recipe.model_copy(update=resolved)

    def _labeling(self, names: Mapping[str, list[str]]) -> Iterator[tuple[str, Labeling]]:
        for name, raw in self._mapping(("labeling",)).items():
            path: KeyPath = ("labeling", name)
            if name == "selection":
                self.add(path, "`selection` is what the assets of recipes are called; choose another name")
            project = self._project(raw, path)
            if not isinstance(raw, dict):
                continue
            self._check_names(raw, names, path)
            needs = self._steps_need(raw, path)
            cold = self._steps_need(raw, path, "cold_start")
            own = isinstance(raw.get("classifier"), dict) and "probabilities" in raw["classifier"]
            for learned in (Input.PROBABILITIES, Input.COMMITTEE):
                if learned in cold and not own:
                    self.add(
                        (*path, "cold_start"),
                        f"{cold[learned]} needs {learned}, which are not there before the first labels",
                    )
            needs = {**cold, **needs}
            if own and Input.COMMITTEE in needs:
                self.add(
                    (*path, "steps"),
                    f"{needs[Input.COMMITTEE]} needs a committee, which your own probabilities do not have",
                )
            needs.setdefault(Input.VECTORS, "the classifier")
            resolved = self._filled_in(raw, names, needs, path) | self._id_files(raw, path)
            if isinstance(raw.get("where"), str):
                self._check_where(raw["where"], (*path, "where"))
            if project is None:
                continue
            resolved |= {
                "labels": tuple(self._absolute(one) for one in project.labels),
                "out": self._absolute(project.out or f"labeling/{name}"),
                "classifier": self._classifier(project.classifier, (*path, "classifier")),
            }
            yield name, project.model_copy(update=resolved)

    def _project(self, raw: Any, path: KeyPath) -> Labeling | None:
        checked: dict[str, Any] = {}
        if isinstance(raw, dict):
            sections: dict[str, type[Section]] = {"budget": LabelBudget, "quota": Quota, "stop": Stop}
            checked = {
                key: self._validated(section, raw[key], (*path, key))
                for key, section in sections.items()
                if raw.get(key) is not None
            }
            raw = raw | {key: section for key, section in checked.items() if section is not None}
            raw = {key: value for key, value in raw.items() if checked.get(key, value) is not None}
        project = self._validated(Labeling, raw, path)
        if project is None or None in checked.values():
            return None
        try:
            check_label_fields(project.fields, "")
        except BadInput as error:
            self.add((*path, "fields"), str(error).removeprefix(": fields: "))
        if len(set(project.classes)) < 2 or len(set(project.classes)) < len(project.classes) or "" in project.classes:
            self.add(
                (*path, "classes"), f"must be at least two different names, found {listed(project.classes) or 'none'}"
            )
        for key in ("steps", "cold_start"):
            self._check_limits(project.recipe(getattr(project, key), project.batch_size, 0), path, key)
        if project.random_share + (project.gold_share if project.gold else 0) > 1:
            self.add((*path, "random_share"), "together with `gold_share` is more than the whole batch")
        return project.model_copy(update={"budget": self._label_budget(project.budget, (*path, "budget"))})

    def _label_budget(self, budget: LabelBudget | None, path: KeyPath) -> LabelBudget | None:
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
            self.add(
                path,
                "money needs one price: `per_row`, or `column`, or `per_token` with `column` or `tokenizer`; found "
                f"{listed(prices) or 'none'}",
            )
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
        try:
            build_classifier(spec)
        except SelectionError as error:
            self.add(path, str(error).removeprefix("classifier: "))
        return spec

    def _recipe(self, raw: Any, path: KeyPath) -> Recipe | None:
        checked: dict[str, Any] = {}
        if isinstance(raw, dict):
            sections: dict[str, type[Section]] = {"budget": TokenBudget, "quota": Quota}
            for key, section in sections.items():
                if isinstance(raw.get(key), dict) or (key == "quota" and raw.get(key) is not None):
                    checked[key] = self._validated(section, raw[key], (*path, key))
            raw = raw | {key: section or _STANDS_IN[key] for key, section in checked.items()}
        recipe = self._validated(Recipe, raw, path)
        if recipe is None or None in checked.values():
            return None
        self._check_limits(recipe, path)
        if isinstance(recipe.budget, TokenBudget):
            recipe = recipe.model_copy(update={"budget": self._token_budget(recipe.budget, (*path, "budget"))})
        return recipe

    def _token_budget(self, budget: TokenBudget, path: KeyPath) -> TokenBudget:
        """With the tokenizer's folder made absolute; it must be there."""
        if (budget.column is None) == (budget.tokenizer is None):
            have = "neither" if budget.column is None else "both"
            self.add(path, f"needs either `column` or `tokenizer` to count tokens by, found {have}")
        if budget.tokenizer is None:
            return budget
        return budget.model_copy(update={"tokenizer": self._tokenizer(budget.tokenizer, (*path, "tokenizer"))})

    def _tokenizer(self, name: str, path: KeyPath) -> str:
        tokenizer = self._model(name)
        try:
            EncoderSpec(model=tokenizer).folder()
        except SelectionError as error:
            self.add(path, str(error).removeprefix("encoder: model "))
        return tokenizer

    def _check_limits(self, recipe: Recipe, path: KeyPath, steps: str = "steps") -> None:
        """Whether budget, quota and groups make sense and go with the last step."""
        try:
            constraints = recipe.constraints
        except SelectionError as error:
            message = str(error)
            if message.startswith("quota: "):
                message, here = message.removeprefix("quota: "), (*path, "quota")
                given = recipe.quota.model_fields_set if recipe.quota is not None else ()
                self._once(mentioned(here, given, message), message)
            else:
                self._once((*path, "max_per_group"), message)
            return
        with suppress(SelectionError):  # what is wrong with the steps is told elsewhere
            last = parse_steps(recipe.steps)[-1]
            try:
                constraints.check_selector(last)
            except SelectionError as error:
                self.add((*path, steps), str(error))

    def _check_names(self, raw: Mapping[str, Any], names: Mapping[str, list[str]], path: KeyPath) -> None:
        targets = as_tuple(raw.get("targets", ()))
        for i, target in enumerate(targets if isinstance(targets, tuple) else ()):
            if isinstance(target, str):
                self._known(target, names["targets"], "target set", self._item((*path, "targets"), i))
        if isinstance(raw.get("encoder"), str):
            self._known(raw["encoder"], names["encoders"], "encoder", (*path, "encoder"))

    def _filled_in(
        self, raw: Mapping[str, Any], names: Mapping[str, list[str]], needs: Mapping[Input, str], path: KeyPath
    ) -> dict[str, Any]:
        """The targets and the encoder where the recipe leaves them out and its steps need them."""
        values: dict[str, Any] = {}
        if Input.TARGETS in needs:
            if "targets" not in raw:
                values["targets"] = tuple(names["targets"])
            if not raw.get("targets", names["targets"]):
                hint = f"name some of: {listed(names['targets'])}" if names["targets"] else "add one under `targets`"
                self.add((*path, "targets"), f"{needs[Input.TARGETS]} needs targets, and there are none; {hint}")
        wanting = needs.get(Input.VECTORS) or needs.get(Input.TARGETS)
        if wanting and raw.get("encoder") is None:
            if names["encoders"]:
                values["encoder"] = names["encoders"][0]
            else:
                message = f"{wanting} needs vectors, and there are none; add an encoder under `encoders`"
                self.add((*path, "encoder"), message)
        return values

    def _check_own_vectors(
        self, section: str, users: Mapping[str, Recipe | Labeling], targets: Mapping[str, TargetFiles]
    ) -> None:
        """What works on the user's own vectors needs them of its targets too."""
        for name, user in users.items():
            without = [t for t in user.targets if t in targets and not targets[t].vectors]
            if user.encoder == OWN_VECTORS and without:
                self.add(
                    (section, name, "encoder"),
                    f"is `{OWN_VECTORS}`, but these targets have no vectors of their own: {listed(without)}; "
                    f"add `targets.{without[0]}.vectors`",
                )

    def _id_files(self, raw: Mapping[str, Any], path: KeyPath) -> dict[str, str]:
        resolved = {}
        for key in ("allow", "deny", "gold"):
            if isinstance(raw.get(key), str):
                resolved[key] = self._existing(raw[key], (*path, key))
        return resolved

    def _schedule(self, recipes: list[str]) -> Schedule | None:
        path: KeyPath = ("schedule",)
        schedule = self._section(Schedule, path)
        if schedule is None:
            return None
        mistake = cron_mistake(schedule.cron)
        if mistake:
            self.add((*path, "cron"), f"{mistake}; for example `0 2 * * *` is every night at two")
        if schedule.timezone not in zoneinfo.available_timezones():
            close = nearest(schedule.timezone, zoneinfo.available_timezones())
            self.add(
                (*path, "timezone"),
                f"no timezone is called {schedule.timezone!r}{close or '; for example UTC or Europe/Vienna'}",
            )
        if schedule.recipes == ("all",):
            return schedule.model_copy(update={"recipes": tuple(recipes)})
        for i, name in enumerate(schedule.recipes):
            self._known(name, recipes, "recipe", self._item((*path, "recipes"), i))
        return schedule


def _default(field: Any) -> Any:
    return ... if field.default is dataclasses.MISSING else field.default
