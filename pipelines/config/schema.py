"""What a `winnow.yaml` may hold: one frozen class a section, each key with its default and what it means."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

from selection.constraints import Constraints, Quota, TokenBudget
from selection.encoders import EncoderSpec
from selection.registry import parse_steps, required
from selection.step import Step, is_number
from selection.types import Input
from storage.files.user_files import expand
from storage.pool.ingest import FileSpec
from storage.vectors.imported import VectorFile

OWN_VECTORS = "vectors"
"""The encoder name that stands for the vectors in `pool.vectors`."""


def as_tuple(value: Any) -> Any:
    """One text or a list of them, as a tuple; anything else is left for pydantic to refuse."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]


class Section(BaseModel):
    """A mapping in the file: unknown keys are refused, nothing is converted, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Files(Section):
    """Files of one shape, and how to read them."""

    files: Texts = Field(description="a file, a folder, a glob, a URL, or a list of them")
    fields: dict[str, str] = Field(
        default={}, description="our name: your field, as `{prompt: question}`; detected if left out"
    )
    encoding: str = Field(default="utf-8", description="text encoding of files without a byte-order mark")
    keep_damaged: bool = Field(default=False, description="keep the readable part of a file that is cut off or damaged")

    def specs(self, root: Path) -> list[FileSpec]:
        """The files there are now, each with how to read it.

        Args:
            root: what paths are relative to (in a resolved configuration they are absolute).
        """
        return [self._spec(url) for url in expand(self.files, root)]

    def _spec(self, url: str) -> FileSpec:
        return FileSpec(url, fields=self.fields or None, encoding=self.encoding, keep_damaged=self.keep_damaged)


class PoolFiles(Files):
    """Files of candidates."""

    source: str | None = Field(
        default=None, description="source of all their rows; each row's own, or the file's name, if left out"
    )

    def _spec(self, url: str) -> FileSpec:
        return replace(super()._spec(url), source=self.source)


class Keyed(Section):
    """A file that brings something to rows by their id: further columns, or vectors."""

    url: str = Field(description="a Parquet file (or .npy, for vectors), or its URL")
    id: str = Field(default="id", description="the field that holds the row's id")


class KeyedVectors(Keyed):
    """A file of vectors of rows, by their id."""

    store: Literal["float16", "float32"] = Field(
        default="float16", description="how they are stored; `float32` where all vectors are alike (cosines above 0.99)"
    )

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the default, so that the digest of a configuration without `store` stays as it is."""
        plain: dict[str, Any] = handler(self)
        return plain if self.store != "float16" else {key: value for key, value in plain.items() if key != "store"}


class TargetFiles(Files):
    """Files of examples to match."""

    vectors: tuple[KeyedVectors, ...] = Field(
        default=(), description="their own vectors, in the space of `pool.vectors`: as `pool.vectors[]`"
    )


class Pool(Section):
    """The candidates."""

    files: tuple[PoolFiles, ...] = Field(description="files of candidates: see `pool.files[]`")
    max_bad_fraction: float = Field(
        default=0.01, ge=0, le=1, description="the run stops above this share of unreadable rows"
    )
    columns: tuple[Keyed, ...] = Field(default=(), description="Parquet files of further columns: see `pool.columns[]`")
    vectors: tuple[KeyedVectors, ...] = Field(
        default=(), description="your own vectors instead of an encoder's: see `pool.vectors[]`"
    )

    def specs(self, root: Path) -> list[FileSpec]:
        """The files there are now, each once, with how to read it; the first mention of a file counts."""
        specs: dict[str, FileSpec] = {}
        for files in self.files:
            for spec in files.specs(root):
                specs.setdefault(spec.url, spec)
        return list(specs.values())


@dataclass(frozen=True)
class StepList:
    """The steps of a recipe.

    Attributes:
        written: as the file has them.
        parsed: the same, checked to fit together; `top` is added after a last scorer.
    """

    written: list[Any]
    parsed: tuple[Step, ...]

    @classmethod
    def of(cls, *written: Any) -> StepList:
        """Steps as a recipe writes them.

        Raises:
            SelectionError: they are no steps, or do not fit together.
        """
        return cls(list(written), parse_steps(written))

    @cached_property
    def inputs(self) -> frozenset[Input]:
        """What they take from outside."""
        return required(self.parsed)[0]

    def __str__(self) -> str:
        return " -> ".join(step.name for step in self.parsed)


def _built(kind: type[Any]) -> PlainValidator:
    """Objects come as they are: the reader builds them from the file, and says where a value of theirs is wrong."""

    def check(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"must be a {kind.__name__}, got {value!r}")
        return value

    return PlainValidator(check)


Steps = Annotated[StepList, _built(StepList), PlainSerializer(lambda steps: steps.written)]
GroupQuota = Annotated[Quota, _built(Quota), PlainSerializer(asdict)]
# The tags keep pydantic from listing what is wrong with the other form.
Budget = Annotated[
    Annotated[int, Field(gt=0), Tag("rows")]
    | Annotated[TokenBudget, _built(TokenBudget), PlainSerializer(asdict), Tag("tokens")],
    Discriminator(lambda budget: "tokens" if isinstance(budget, TokenBudget) else "rows"),
]


class Recipe(Section):
    """How to choose one subset."""

    steps: Steps = Field(description="steps in order; a name, or `{name: {option: value}}`")
    budget: Budget = Field(description="how many rows to take; or tokens, see `recipes.<name>.budget`")
    quota: GroupQuota | None = Field(
        default=None, description="how much of the budget each group gets: see `recipes.<name>.quota`"
    )
    group_by: str | None = Field(
        default=None, description="a column, for example of conversations: at most `max_per_group` rows of each value"
    )
    max_per_group: int = Field(default=1, gt=0, description="goes with `group_by`")
    targets: Texts = Field(default=(), description="target sets to match; all of them if left out")
    encoder: str | None = Field(default=None, description="the encoder to use; the first one if left out")
    seed: int = Field(default=0, ge=0, description="seed of whatever is drawn at random")
    round: int = Field(default=0, ge=0, description="number of the draw; another round draws other random numbers")
    where: str | None = Field(
        default=None, description="SQL condition on the columns of `examples`; only these rows may be taken"
    )
    allow: str | None = Field(default=None, description="file of ids, one a line: only these may be taken")
    deny: str | None = Field(default=None, description="file of ids, one a line: these are never taken")
    mode: Literal["fresh", "top_up"] = Field(
        default="fresh", description="`top_up` keeps this recipe's last selection and adds to it"
    )
    allow_short: bool = Field(default=False, description="give what there is when the pool cannot fill the budget")
    exclude_targets: bool = Field(default=True, description="never take a row whose prompt is word for word a target's")
    min_overlap: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="hold back a selection that shares less (Jaccard) with the recipe's last one",
    )

    @cached_property
    def constraints(self) -> Constraints:
        """The budget, and how it is divided among groups.

        Raises:
            InvalidOption: they make no sense together.
        """
        return Constraints(
            budget=self.budget, quota=self.quota, group_by=self.group_by, max_per_group=self.max_per_group
        )

    @property
    def budget_line(self) -> str:
        """The budget in words."""
        return f"{self.constraints.amount:,} {self.constraints.unit}"


def aggregation(value: Any) -> str | dict[str, Any]:
    """How labels become one, as `labeling.<name>.aggregate` has it.

    Raises:
        ValueError: it is none of the ways.
    """
    allowed = "must be majority, dawid_skene or {dawid_skene: {prior_votes: 20, prior_accuracy: 0.9}}"
    if value in ("majority", "dawid_skene"):
        return str(value)
    if not isinstance(value, dict) or list(value) != ["dawid_skene"] or not isinstance(value["dawid_skene"], dict):
        raise ValueError(f"{allowed}, found {value!r}")
    prior = value["dawid_skene"]
    if set(prior) - {"prior_votes", "prior_accuracy"} or not all(map(is_number, prior.values())):
        raise ValueError(f"{allowed}, found {value!r}")
    if not prior.get("prior_votes", 20) > 0 or not 0 < prior.get("prior_accuracy", 0.9) < 1:
        raise ValueError(f"prior_votes must be above 0 and prior_accuracy between 0 and 1, found {value!r}")
    return {"dawid_skene": dict(prior)} if prior else "dawid_skene"


class LabelBudget(Section):
    """What a labeling project may cost in all: rows or money."""

    rows: int | None = Field(default=None, gt=0, description="how many rows may be labelled in all")
    money: float | None = Field(
        default=None,
        gt=0,
        description="how much may be spent in all; with `per_row`, `column` or `per_token`. A batch stops before the row that "
        "overflows what is left",
    )
    per_row: float | None = Field(default=None, gt=0, description="what one label costs")
    column: str | None = Field(
        default=None,
        description="the numeric column that tells what a label of the row costs; with `per_token`, how many tokens it has",
    )
    per_token: float | None = Field(
        default=None, gt=0, description="what one token costs, counted by `column` or `tokenizer`"
    )
    tokenizer: str | None = Field(
        default=None, description="counts the tokens: a hub name, a local folder or `package:<name>`"
    )


class Stop(Section):
    """When more labels would not pay. Rules only advise, unless `halt`."""

    kappa: float | None = Field(
        default=0.99,
        gt=0,
        le=1,
        description="advise to stop once the models of successive rounds agree at least so well on the stop set (Cohen's kappa)",
    )
    uncertainty: float | None = Field(
        default=0.05, ge=0, le=1, description="... once the mean uncertainty on the stop set is at most this (0 to 1)"
    )
    change: float | None = Field(
        default=0.0,
        ge=0,
        le=1,
        description="... once at most this share of the stop set changes its class from round to round",
    )
    plateau: int | None = Field(
        default=5,
        gt=0,
        description="... once the accuracy on the random arm, of 50 labels or more, has not risen for so many rounds",
    )
    halt: bool = Field(default=False, description="draw no further batch once a rule advises to stop")


class Labeling(Section):
    """What to label next, round by round."""

    classes: Texts = Field(description="the names of the classes, at least two")
    steps: Steps = Field(
        description="as a recipe's; used once there are labels of two classes. Steps get probabilities, committee and labels",
    )
    cold_start: Steps = Field(
        default=StepList.of({"random_subpool": {"rows": 50_000}}, "facility_location"),
        description="steps until there are labels of two classes",
    )
    batch_size: int = Field(
        default=20, gt=0, description="rows of a round, the random arm and hidden gold rows included"
    )
    encoder: str | None = Field(default=None, description="the encoder to use; the first one if left out")
    targets: Texts = Field(default=(), description="as in a recipe, for steps that need them")
    where: str | None = Field(
        default=None, description="as in a recipe: a SQL condition; only these rows may be sent out"
    )
    allow: str | None = Field(default=None, description="as in a recipe: file of ids; only these may be sent out")
    deny: str | None = Field(default=None, description="as in a recipe: file of ids; these are never sent out")
    quota: GroupQuota | None = Field(
        default=None, description="of the rows that the steps choose: see `recipes.<name>.quota`"
    )
    seed: int = Field(default=0, ge=0, description="seed of whatever is drawn at random")
    exclude_targets: bool = Field(
        default=True, description="never send out a row whose prompt is word for word a target's"
    )
    labels: Texts = Field(
        default=(),
        description="files of labels (JSON Lines, CSV or Label Studio JSON): a file, a glob, a folder or a list; they are watched",
    )
    fields: dict[str, str] = Field(
        default={}, description="of the label files, what: your field, as `{label: verdict}`; detected if left out"
    )
    out: str = Field(default="", description="the folder that batches are written to; `labeling/<project>` if left out")
    format: Literal["jsonl", "csv", "label_studio"] = Field(default="jsonl", description="of the batches")
    classifier: Any = Field(
        default="logistic_regression",
        description="on the vectors: `logistic_regression`, or `{logistic_regression: {C: 10}}`; any estimator, `{estimator: "
        "package.module:Class, options: {...}}`; or your own probabilities, `{probabilities: {url: p.parquet, id: id}}`",
    )
    members: int = Field(default=5, gt=1, description="classifiers of the committee, for steps that need one")
    random_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="part of each batch drawn at random from all rows; it never trains the model and so measures it honestly",
    )
    overlap: float = Field(
        default=0.0, ge=0, le=1, description="part of each batch that wants labels of two annotators"
    )
    gold: str | None = Field(
        default=None, description="a file of labels that are known, hidden in batches to measure annotators"
    )
    gold_share: float = Field(default=0.05, ge=0, lt=1, description="part of each batch, where there is `gold`")
    aggregate: Annotated[str | dict[str, Any], PlainValidator(aggregation)] = Field(
        default="majority",
        description="how several labels of a row become one: `majority` or `dawid_skene`; or with its prior, "
        "`{dawid_skene: {prior_votes: 20, prior_accuracy: 0.9}}`",
    )
    lease_hours: float = Field(
        default=72.0, gt=0, description="how long a row that was sent out is not sent again while its label is missing"
    )
    budget: LabelBudget | None = Field(
        default=None, description="what all labels may cost: see `labeling.<name>.budget`; no limit if left out"
    )
    stop: Stop = Field(
        default=Stop(), description="when to advise that more labels do not pay: see `labeling.<name>.stop`"
    )

    @property
    def own_probabilities(self) -> Keyed | None:
        """The user's file of probabilities, where these stand for a classifier."""
        given = self.classifier.get("probabilities") if isinstance(self.classifier, dict) else None
        return None if given is None else Keyed.model_validate(given)

    def recipe(
        self, steps: StepList, rows: int, number: int, *, quota: Quota | None, targets: tuple[str, ...]
    ) -> Recipe:
        """What one arm of a round draws."""
        return Recipe(
            steps=steps,
            budget=rows,
            quota=quota,
            targets=targets,
            encoder=self.encoder,
            seed=self.seed,
            round=number,
            where=self.where,
            allow=self.allow,
            deny=self.deny,
            allow_short=True,
            exclude_targets=self.exclude_targets,
        )


class Index(Section):
    """The vector index."""

    kind: Literal["auto", "flat", "ivf", "rabitq"] = Field(default="auto", description="`auto` goes by the pool's size")
    nprobe: int | None = Field(
        default=None, gt=0, description="lists searched by an IVF index; chosen to reach the recall if left out"
    )
    min_recall: float = Field(
        default=0.9, ge=0, le=1, description="the run stops below this recall against exact search"
    )


class Schedule(Section):
    """When the recipes are drawn again."""

    cron: str = Field(description="minute, hour, day of month, month, day of week, for example `0 2 * * *`")
    timezone: str = Field(default="UTC", description="of the cron times, for example `Europe/Vienna`")
    recipes: Texts = Field(default=("all",), description="`all`, or a list of recipes")


class Config(Section):
    """A whole `winnow.yaml`, resolved."""

    store: str = Field(default="./store", description="the folder for everything winnow keeps")
    pool: Pool = Field(description="the candidates: see `pool`")
    encoders: dict[str, EncoderSpec] = Field(
        default={}, description="name: what turns text into vectors; see `encoders.<name>`"
    )
    targets: dict[str, TargetFiles] = Field(
        default={}, description="name: file of examples to match, or see `targets.<name>`"
    )
    recipes: dict[str, Recipe] = Field(default={}, description="name: how to choose a subset; see `recipes.<name>`")
    labeling: dict[str, Labeling] = Field(
        default={}, description="name: a project of what to label next; see `labeling.<name>`"
    )
    index: Index = Field(default=Index(), description="the vector index: see `index`")
    schedule: Schedule | None = Field(default=None, description="when to draw again: see `schedule`")
    root: Path = Field(exclude=True, description="the folder of the file")

    def vector_files(self, target: str | None = None) -> list[VectorFile]:
        """The user's own vectors of the pool, or of a target set."""
        files = self.pool.vectors if target is None else self.targets[target].vectors
        return [VectorFile(file.url, file.id, file.store) for file in files]

    def targets_in(self, encoder: str) -> list[str]:
        """The target sets that have vectors of this encoder: all have a model's, some the user's own."""
        return [name for name, target in self.targets.items() if encoder != OWN_VECTORS or target.vectors]

    @property
    def digest(self) -> str:
        """32 hex digits of the resolved configuration, wherever its file stands."""
        plain = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()

    def resolved_yaml(self) -> str:
        """The resolved configuration; `load_config` of it gives the same digest."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def is_url(path: str) -> bool:
    """Whether a path is for fsspec rather than the local disk."""
    return "://" in path
