"""What a `winnow.yaml` may hold: one frozen class a section, each key with its default and what it means."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    Tag,
    field_serializer,
    model_serializer,
)

from pipelines.exports.options import ExportOptions
from selection.constraints import Constraints, Quota, TokenBudget
from selection.contamination import ContaminationRules
from selection.encoders import ModelSpec, Representation, record_of
from selection.registry import parse_steps, required
from selection.step import Step, is_number
from selection.types import SCORES, Input
from storage.files.user_files import expand
from storage.pool.ingest import FileSpec
from storage.vectors.imported import VectorFile

OWN_VECTORS = "vectors"
"""The encoder name that stands for the vectors in `pool.vectors`."""
LARGEST = 10**18
"""No number may be larger: the catalog holds 64 bits."""
LEARNED = frozenset({Input.PROBABILITIES, Input.COMMITTEE, Input.LABELS})
"""What steps get from a classifier."""
SCRATCH = "scratch"
"""The model of a trial that is of no folder."""
RANDOM, PER_SOURCE, LONGEST, TOP_SCORE = "random", "random_per_source", "longest", "top_score"
CONTROLS = (RANDOM, PER_SOURCE, LONGEST, TOP_SCORE)
"""What a selection is tried against, beside recipes."""
# libyaml's, four times as fast, where PyYAML was built with it.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def as_tuple(value: Any) -> Any:
    """One text or a list of them, as a tuple; anything else is left for pydantic to refuse."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
# One name, or several in order; the tags keep pydantic from listing what is wrong with the other form.
Names = Annotated[
    Annotated[str, Tag("one")] | Annotated[tuple[str, ...], BeforeValidator(as_tuple), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]


class Section(BaseModel):
    """A mapping in the file: unknown keys are refused, nothing is converted, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    # Keys that came later: a dump names them only where they are not as by default, so that digests stay as they are.
    added_keys: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        for key in self.added_keys:
            if getattr(self, key) == fields[key].default:
                del plain[key]
        return plain


# The tags keep pydantic from listing what is wrong with the other form.
Measure = Annotated[
    Annotated[float, Field(gt=0, lt=1), Tag("share")] | Annotated[Texts, Tag("files")],
    Discriminator(lambda value: "share" if isinstance(value, int | float) else "files"),
]


class Files(Section):
    """Files of one shape, and how to read them.

    Attributes:
        files: a file, a folder, a glob, a URL, or a list of them.
        fields: our name: your field, as `{prompt: question}`, or a list of which the first that a row has filled
            counts; detected if left out.
        roles: your role name: what it means, as `{customer: user}`, beside those that are known.
        encoding: text encoding of files without a byte-order mark.
        keep_damaged: keep the readable part of a file that is cut off or damaged.
    """

    files: Texts
    fields: dict[str, Names] = {}
    roles: dict[str, Literal["user", "assistant", "system", "tool"]] = {}
    encoding: str = "utf-8"
    keep_damaged: bool = False

    def specs(self, root: Path) -> list[FileSpec]:
        """The files there are now, each with how to read it.

        Args:
            root: what paths are relative to (in a resolved configuration they are absolute).
        """
        return [self._spec(url, root) for url in expand(self.files, root)]

    def _spec(self, url: str, root: Path) -> FileSpec:
        path = Path(url)
        return FileSpec(
            url,
            fields=self.fields or None,
            encoding=self.encoding,
            keep_damaged=self.keep_damaged,
            roles=self.roles or None,
            name=path.relative_to(root).as_posix() if path.is_relative_to(root) else url,
        )


class PoolFiles(Files):
    """Files of candidates.

    Attributes:
        source: source of all their rows; each row's own, or the file's name, if left out.
    """

    source: str | None = None

    def _spec(self, url: str, root: Path) -> FileSpec:
        return replace(super()._spec(url, root), source=self.source)


class Keyed(Section):
    """A file that brings something to rows by their id: further columns, or vectors.

    Attributes:
        url: a Parquet file (or, for vectors, .npy or the gradients.bin of EleutherAI/bergson), or its URL.
        id: the field that holds the row's id.
    """

    url: str
    id: str = "id"


class KeyedVectors(Keyed):
    """A file of vectors of rows, by their id.

    Attributes:
        store: how they are stored; `float32` where all vectors are alike (cosines above 0.99).
    """

    added_keys: ClassVar[tuple[str, ...]] = ("store",)
    store: Literal["float16", "float32"] = "float16"


class TargetFiles(Files):
    """Files of examples to match.

    Attributes:
        vectors: their own vectors, in the space of `pool.vectors`: as `pool.vectors[]`.
        measure: a share of the examples, drawn by hash of their ids, or a list of some of `files`: these only measure
            what was selected; no step sees them. They are kept out of selections as the others are.
    """

    added_keys: ClassVar[tuple[str, ...]] = ("measure",)
    vectors: tuple[KeyedVectors, ...] = ()
    measure: Measure | None = None

    def measuring(self, root: Path) -> float | list[str] | None:
        """The share of examples that only measure, or the files whose examples do; None where all select."""
        return expand(self.measure, root) if isinstance(self.measure, tuple) else self.measure


class Pool(Section):
    """The candidates.

    Attributes:
        files: files of candidates: see `pool.files[]`.
        max_bad_fraction: the run stops above this share of unreadable rows.
        bad_files: what a file does that is damaged, half uploaded or above `max_bad_fraction`: `stop` the run, or be
            `set_aside`, with a check that fails as a warning; the next run reads it if it is whole by then.
        prefer: which of equal rows is kept: that of the first of these sources, or `newest`; the first by file name and
            line if left out.
        columns: Parquet files of further columns: see `pool.columns[]`.
        vectors: your own vectors instead of an encoder's: see `pool.vectors[]`.
    """

    added_keys: ClassVar[tuple[str, ...]] = ("bad_files",)
    files: tuple[PoolFiles, ...]
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    bad_files: Literal["stop", "set_aside"] = "stop"
    prefer: Texts = ()
    columns: tuple[Keyed, ...] = ()
    vectors: tuple[KeyedVectors, ...] = ()

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

    @property
    def searches(self) -> bool:
        """Whether one of them may search an index."""
        return any(step.searches for step in self.parsed)

    def __str__(self) -> str:
        return " -> ".join(step.name for step in self.parsed)


# Objects come as they are: the reader builds them from the file, and says where a value of theirs is wrong.
Steps = Annotated[InstanceOf[StepList], PlainSerializer(lambda steps: steps.written)]
# `steps: auto` of a labeling project chooses its steps anew in each round; these need and read what all its choices do.
AUTO = "auto"
AUTO_STEPS = StepList.of("margin", {"keep_top": {"times": 5}}, "facility_location")
GroupQuota = Annotated[InstanceOf[Quota], PlainSerializer(asdict)]
# The tags keep pydantic from listing what is wrong with the other form.
Budget = Annotated[
    Annotated[int, Field(gt=0, le=LARGEST), Tag("rows")]
    | Annotated[InstanceOf[TokenBudget], PlainSerializer(asdict), Tag("tokens")],
    Discriminator(lambda budget: "tokens" if isinstance(budget, TokenBudget) else "rows"),
]


class ClassExamples(Section):
    """Examples of one class: target sets, or rows of the pool.

    Attributes:
        targets: target sets, all rows of which are examples.
        where: a SQL condition on the columns of `examples`: rows of the pool that meet it.
        sample: at most so many rows of the pool at random: of those that meet `where`, or, where it stands alone, of
            those that no other class names.
    """

    targets: Texts = ()
    where: str | None = None
    sample: int | None = Field(default=None, gt=1, le=LARGEST)


class Classifier(Section):
    """A classifier whose probabilities recipes use: fitted to examples, refitted when they change.

    Attributes:
        classes: two or more names, each with its examples: see `classifiers.<name>.classes.<class>`.
        features: what it sees of a row: the vector of an encoder, or its text as counts of hashed words and pairs of
            words.
        encoder: the encoder of embeddings; the first one if left out.
        estimator: `logistic_regression`, or `{logistic_regression: {C: 10}}`; or any estimator, `{estimator:
            package.module:Class, options: {...}}`.
        members: classifiers of the committee, fitted to bootstrap samples, for steps that need one.
        equal_classes: use as many examples of each class as the smallest has.
        held_out: the part of the examples that measures the classifier and does not train it.
        seed: seed of whatever is drawn at random.
    """

    classes: dict[str, ClassExamples]
    features: Literal["embeddings", "ngrams"] = "embeddings"
    encoder: str | None = None
    estimator: Any = "logistic_regression"
    members: int = Field(default=5, gt=1)
    equal_classes: bool = True
    held_out: float = Field(default=0.1, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, le=LARGEST)

    @property
    def targets(self) -> tuple[str, ...]:
        """The target sets that it learns from, each once."""
        return tuple(dict.fromkeys(target for examples in self.classes.values() for target in examples.targets))


# A name, or a file.
Probabilities = Annotated[
    Annotated[str, Tag("name")] | Annotated[Keyed, Tag("file")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "file"),
]


# Of a nightly training set: nine rows of ten are those of the night before, and in a week up to half may be renewed.
DEFAULT_CHURN = 0.1


class Recipe(Section):
    """How to choose one subset.

    Attributes:
        steps: steps in order; a name, or `{name: {option: value}}`.
        budget: how many rows to take; or tokens, see `recipes.<name>.budget`.
        quota: how much of the budget each group gets: see `recipes.<name>.quota`.
        group_by: a column, for example of conversations: at most `max_per_group` rows of each value.
        max_per_group: goes with `group_by`.
        targets: target sets to match; all of them if left out.
        encoder: the encoder to use; the first one if left out.
        probabilities: where steps get class probabilities from: an entry of `classifiers`, a labeling project (its
            newest model; it has labels too), or your own file, `{url: p.parquet, id: id}`, with a column for each
            class.
        seed: seed of whatever is drawn at random.
        round: number of the draw; another round draws other random numbers.
        where: SQL condition on the columns of `examples`, a function of the row; only these rows may be taken.
        allow: file of ids, one a line: only these may be taken.
        deny: file of ids, one a line: these are never taken.
        mode: `fresh` draws anew each time; `top_up` keeps this recipe's last selection and adds to it; `sticky` draws
            anew and keeps as much of the last selection as `max_churn` says.
        max_churn: goes with `mode: sticky`: the part of the budget, 0 to 1, that may be replaced by better rows from
            one selection to the next; 0.1 if left out. 0 replaces only what may not stay, 1 is `fresh`.
        allow_short: give what there is when the pool cannot fill the budget.
        exclude_targets: never take a row that holds what a target asks, whatever the case, white space and punctuation.
        min_overlap: hold back a selection that shares less (Jaccard) with the recipe's last one.
        noise_floor: draw the recipe again with another seed, without keeping it, to say how much of a change is chance.
        sweep: key: its values, as `{budget: [1000, 5000], seed: [0, 1, 2]}`: the block stands for a recipe for each
            combination; see "Sweeps" above.
    """

    added_keys: ClassVar[tuple[str, ...]] = ("probabilities", "max_churn", "noise_floor", "sweep")
    steps: Steps
    budget: Budget
    quota: GroupQuota | None = None
    group_by: str | None = None
    max_per_group: int = Field(default=1, gt=0)
    targets: Texts = ()
    encoder: str | None = None
    probabilities: Probabilities | None = None
    seed: int = Field(default=0, ge=0, le=LARGEST)
    round: int = Field(default=0, ge=0, le=LARGEST)
    where: str | None = None
    allow: str | None = None
    deny: str | None = None
    mode: Literal["fresh", "top_up", "sticky"] = "fresh"
    max_churn: float | None = Field(default=None, ge=0, le=1)
    allow_short: bool = False
    exclude_targets: bool = True
    min_overlap: float = Field(default=0.0, ge=0, le=1)
    noise_floor: bool = False
    sweep: dict[str, Any] = {}

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
    def inputs(self) -> frozenset[Input]:
        """What steps and quota take from outside."""
        return self.steps.inputs | self.constraints.needs

    @property
    def churn(self) -> float | None:
        """The part of the budget that a sticky recipe may replace; None in other modes."""
        if self.mode != "sticky":
            return None
        return DEFAULT_CHURN if self.max_churn is None else self.max_churn

    @property
    def budget_line(self) -> str:
        """The budget in words."""
        return f"{self.constraints.amount:,} {self.constraints.unit}"


def aggregation(value: Any) -> str | dict[str, Any]:
    """How labels become one, as `labeling.<name>.aggregate` has it.

    Raises:
        ValueError: it is none of the ways.
    """
    allowed = "must be majority, dawid_skene or {dawid_skene: {prior_votes: 20, prior_accuracy: 0.9, ties: wait}}"
    if value in ("majority", "dawid_skene"):
        return str(value)
    if not isinstance(value, dict) or list(value) != ["dawid_skene"] or not isinstance(value["dawid_skene"], dict):
        raise ValueError(f"{allowed}, found {value!r}")
    prior = dict(value["dawid_skene"])
    ties = prior.pop("ties", "decide")
    if ties not in ("wait", "decide"):
        raise ValueError(f"ties must be wait or decide, found {value!r}")
    if set(prior) - {"prior_votes", "prior_accuracy"} or not all(map(is_number, prior.values())):
        raise ValueError(f"{allowed}, found {value!r}")
    if not prior.get("prior_votes", 20) > 0 or not 0 < prior.get("prior_accuracy", 0.9) < 1:
        raise ValueError(f"prior_votes must be above 0 and prior_accuracy between 0 and 1, found {value!r}")
    if ties == "wait":
        prior["ties"] = "wait"
    return {"dawid_skene": prior} if prior else "dawid_skene"


class LabelBudget(Section):
    """What a labeling project may cost in all: rows or money.

    Attributes:
        rows: how many rows may be labelled in all.
        money: how much may be spent in all; with `per_row`, `column` or `per_token`. A batch stops before the row that
            overflows what is left.
        per_row: what one label costs.
        column: the numeric column that tells what a label of the row costs; with `per_token`, how many tokens it has.
        per_token: what one token costs, counted by `column` or `tokenizer`.
        tokenizer: counts the tokens: a hub name, a local folder or `package:<name>`.
    """

    rows: int | None = Field(default=None, gt=0)
    money: float | None = Field(default=None, gt=0, le=1e15)
    per_row: float | None = Field(default=None, gt=0, le=1e15)
    column: str | None = None
    per_token: float | None = Field(default=None, gt=0, le=1e15)
    tokenizer: str | None = None

    @property
    def whole(self) -> float:
        """All of it, in rows or in money."""
        return self.rows if self.rows is not None else self.money or 0.0


class Stop(Section):
    """When more labels would not pay. Rules only advise, unless `halt`.

    Attributes:
        kappa: advise to stop once the models of successive rounds agree at least so well on the stop set (Cohen's
            kappa).
        uncertainty: ... once the mean uncertainty on the stop set is at most this (0 to 1).
        change: ... once at most this share of the stop set changes its class from round to round.
        plateau: ... once the accuracy on the random arm, of 50 labels or more, has not risen for so many rounds.
        halt: draw no further batch once a rule advises to stop.
    """

    kappa: float | None = Field(default=0.99, gt=0, le=1)
    uncertainty: float | None = Field(default=0.05, ge=0, le=1)
    change: float | None = Field(default=0.0, ge=0, le=1)
    plateau: int | None = Field(default=5, gt=0)
    halt: bool = False


class Labeling(Section):
    """What to label next, round by round.

    Attributes:
        classes: the names of the classes, at least two.
        steps: `auto`, or as a recipe's, used once there are labels of two classes. Steps get probabilities, committee
            and labels. `auto` draws typical rows by `cold_start` until successive models agree, then uncertain rows
            that are unlike each other, and gives a rare class a part of each batch; each round says why.
        cold_start: steps until there are labels of two classes.
        batch_size: rows of a round, the random arm and hidden gold rows included.
        encoder: the encoder to use; the first one if left out.
        targets: as in a recipe, for steps that need them.
        where: as in a recipe: a SQL condition; only these rows may be sent out.
        allow: as in a recipe: file of ids; only these may be sent out.
        deny: as in a recipe: file of ids; these are never sent out.
        quota: of the rows that the steps choose: see `recipes.<name>.quota`.
        seed: seed of whatever is drawn at random.
        exclude_targets: never send out a row that holds what a target asks.
        labels: files of labels (JSON Lines, CSV or Label Studio JSON): a file, a glob, a folder or a list; they are
            watched.
        fields: of the label files, what: your field, as `{label: verdict}`; detected if left out.
        out: the folder that batches are written to; `labeling/<project>` if left out.
        format: of the batches.
        classifier: on the vectors: `logistic_regression`, or `{logistic_regression: {C: 10}}`; any estimator,
            `{estimator: package.module:Class, options: {...}}`; or your own probabilities, `{probabilities: {url:
            p.parquet, id: id}}`.
        members: classifiers of the committee, for steps that need one.
        random_share: part of each batch drawn at random from all rows; it never trains the model and so measures it
            honestly.
        annotators: the people who label, by the names that come back with their labels; each gets a file of their own.
            One file for everybody if left out.
        adjudicator: who decides where votes are tied, by name: what they say of a row is its class, whatever others
            say.
        overlap: part of each batch that wants labels of two annotators.
        gold: a file of labels that are known, hidden in batches to measure annotators.
        gold_share: part of each batch, where there is `gold`.
        aggregate: how several labels of a row become one: `majority` or `dawid_skene`; or with its prior, and whether
            it decides rows with as many votes for one class as for another or leaves them waiting as majority does,
            `{dawid_skene: {prior_votes: 20, prior_accuracy: 0.9, ties: wait}}`.
        lease_hours: how long a row that was sent out is not sent again while its label is missing.
        budget: what all labels may cost: see `labeling.<name>.budget`; no limit if left out.
        stop: when to advise that more labels do not pay: see `labeling.<name>.stop`.
    """

    added_keys: ClassVar[tuple[str, ...]] = ("annotators", "adjudicator")

    classes: Texts
    steps: Steps | Literal["auto"] = "auto"
    cold_start: Steps = StepList.of({"random_subpool": {"rows": 50_000}}, "facility_location")
    batch_size: int = Field(default=20, gt=0, le=LARGEST)
    encoder: str | None = None
    targets: Texts = ()
    where: str | None = None
    allow: str | None = None
    deny: str | None = None
    quota: GroupQuota | None = None
    seed: int = Field(default=0, ge=0, le=LARGEST)
    exclude_targets: bool = True
    labels: Texts = ()
    fields: dict[str, str] = {}
    out: str = ""
    format: Literal["jsonl", "csv", "label_studio"] = "jsonl"
    classifier: Any = "logistic_regression"
    members: int = Field(default=5, gt=1)
    random_share: float = Field(default=0.05, ge=0, le=1)
    annotators: Texts = ()
    adjudicator: str | None = None
    overlap: float = Field(default=0.0, ge=0, le=1)
    gold: str | None = None
    gold_share: float = Field(default=0.05, ge=0, lt=1)
    aggregate: Annotated[str | dict[str, Any], PlainValidator(aggregation)] = "majority"
    lease_hours: float = Field(default=72.0, gt=0, le=1e6)
    budget: LabelBudget | None = None
    stop: Stop = Stop()

    @property
    def active_steps(self) -> StepList:
        """The steps once there is a model, or what stands for those of `auto`."""
        return AUTO_STEPS if isinstance(self.steps, str) else self.steps

    @property
    def own_probabilities(self) -> Keyed | None:
        """The user's file of probabilities, where these stand for a classifier."""
        given = self.classifier.get("probabilities") if isinstance(self.classifier, dict) else None
        return None if given is None else Keyed.model_validate(given)

    def recipe(
        self, steps: StepList, rows: int, number: int, *, quota: Quota | None, targets: tuple[str, ...]
    ) -> Recipe:
        """What one arm of a round draws."""
        shared = {key: getattr(self, key) for key in ("encoder", "seed", "where", "allow", "deny", "exclude_targets")}
        return Recipe(steps=steps, budget=rows, quota=quota, targets=targets, round=number, allow_short=True, **shared)


class EmbeddingRule(Section):
    """Which vectors count as an evaluation text's.

    Attributes:
        encoder: its vectors are compared.
        threshold: a row of at least this cosine to an example counts as holding it.
    """

    encoder: str
    threshold: float = Field(gt=0, le=1)


class Decontamination(Section):
    """Keep rows that hold evaluation texts out of every recipe and every batch.

    Attributes:
        against: target sets whose examples are looked for; all of them if left out.
        files: name: files of evaluation texts that are no targets, as `targets.<name>`.
        n: words of an n-gram.
        short_n: words of an n-gram of texts of less than 2 * `n` words.
        threshold: a row that holds at least this share of an example's n-grams counts as holding it.
        embedding: a rule on vectors beside those on texts, see `decontamination.embedding`; none if left out.
        paraphrases: file of rewordings or translations of examples, to measure how many are found: JSON Lines with
            `example` (an example's id, as your file or winnow has it) and `text`.
        plants: how many examples of a set are planted to measure recall, in each kind of disguise.
        seed: seed of the plants.
        recall_floor: the run stops below this recall of plants that the rules promise to find.
    """

    against: Texts = ()
    files: dict[str, Files] = {}
    n: int = Field(default=13, ge=1, le=1000)
    short_n: int = Field(default=5, ge=1, le=1000)
    threshold: float = Field(default=0.6, gt=0, le=1)
    embedding: EmbeddingRule | None = None
    paraphrases: str | None = None
    plants: int = Field(default=100, gt=0, le=LARGEST)
    seed: int = Field(default=0, ge=0, le=LARGEST)
    recall_floor: float = Field(default=0.95, ge=0, le=1)

    @property
    def rules(self) -> ContaminationRules:
        """The rules on texts."""
        return ContaminationRules(n=self.n, short_n=self.short_n, threshold=self.threshold)


class Index(Section):
    """The search index of vectors.

    Attributes:
        kind: `auto` builds one only for an encoder whose vectors a step searches (`anchors`, `seals`, `outliers`), and
            only from 200,000 rows on; below that every row is compared. `ivf` and `rabitq` build one for every encoder
            in use, whatever the pool's size; `flat` builds none.
        nprobe: cells searched for a query; chosen to reach the recall if left out.
        min_recall: the run stops below this recall against exact search.
    """

    kind: Literal["auto", "flat", "ivf", "rabitq"] = "auto"
    nprobe: int | None = Field(default=None, gt=0)
    min_recall: float = Field(default=0.9, ge=0, le=1)


class Health(Section):
    """How sound vectors have to be, measured on a sample of the pool once it is embedded. What is not as it should be is a
    warning, and what is drawn stays the same.

    Attributes:
        min_effective_rank: the least effective rank, centred, as a share of the most that the sample could have.
        max_mean_cosine: the highest mean cosine of two rows.
        max_near_copies: the largest share of rows with another text whose vector is nearly the same.
        max_group_in_cell: the largest share of a source, or language, that one of 64 cells may hold; of those that are
            a twentieth of the pool at least.
        min_plant_recall: the least share of copies in another layout whose nearest row is the original.
        plants: how many rows are copied and encoded for it; 0 for none.
        blocking: stop the run where a bound does not hold, before anything is drawn.
    """

    min_effective_rank: float = Field(default=0.1, ge=0, le=1)
    max_mean_cosine: float = Field(default=0.99, ge=-1, le=1)
    max_near_copies: float = Field(default=0.1, ge=0, le=1)
    max_group_in_cell: float = Field(default=0.9, ge=0, le=1)
    min_plant_recall: float = Field(default=0.5, ge=0, le=1)
    plants: int = Field(default=200, ge=0, le=LARGEST)
    blocking: bool = False


class Export(Section):
    """Files for a trainer, written anew whenever the recipe was drawn and its checks passed.

    Attributes:
        recipe: whose last selection is exported.
        to: the shape of the records: `messages`, `prompt-completion`, `preference`, `preference-text`, `alpaca`,
            `sharegpt`, `sharegpt-preference`, `text`, `ids`, or as Parquet `parquet` or `hf`.
        trainer: `trl`, `llama-factory`, `axolotl`, `open-instruct`, `torchtune`, `ms-swift` or `nemo-automodel`: also
            write the file that it wants beside the data.
        out: the folder that is written, and replaced at once; `exports/<name>` if left out.
        columns: further fields of each record: `id`, `given_id`, `source`, `file`, `line`, `rank`, `gain`, `kind`,
            `ref`, `value`, fields of your files, columns brought to the pool.
        shuffle: seed of the order; the order of the ranks if left out.
        shards: how many data files.
        allow_left_out: share of rows, 0 to 1, that may be left out because the shape cannot hold them.
    """

    recipe: str
    to: str
    trainer: str | None = None
    out: str = ""
    columns: Texts = ()
    shuffle: int | None = Field(default=None, ge=0, le=LARGEST)
    shards: int = Field(default=1, gt=0)
    allow_left_out: float = Field(default=0.0, ge=0, le=1)

    @property
    def options(self) -> ExportOptions:
        """How it is exported.

        Raises:
            BadExport: the options make no sense together.
        """
        given = self.model_dump(exclude={"recipe", "out"})
        return ExportOptions(**{**given, "columns": self.columns})


class Schedule(Section):
    """When the recipes are drawn again.

    Attributes:
        cron: minute, hour, day of month, month, day of week, for example `0 2 * * *`.
        timezone: of the cron times, for example `Europe/Vienna`.
        recipes: `all`, or a list of recipes.
    """

    cron: str
    timezone: str = "UTC"
    recipes: Texts = ("all",)


class Engine(Section):
    """Where large work is done.

    Attributes:
        kind: `local`, processes of this machine; or `ray`, processes of a Ray cluster, see docs/cluster.md. The rows
            are the same.
        workers: processes; one for each core that winnow may use if left out. On Ray one for each core of the cluster,
            or card for work that uses one.
        address: of the Ray cluster, `host:port`, or `auto` for the one that this machine belongs to; Ray is started on
            this machine if left out.
        gpus_per_worker: cards of each Ray worker for work that uses one, or a share of a card; 1 if left out and the
            cluster has cards.
    """

    added_keys: ClassVar[tuple[str, ...]] = ("kind", "address", "gpus_per_worker")
    kind: Literal["local", "ray"] = "local"
    workers: int | None = Field(default=None, gt=0, le=1024)
    address: str | None = None
    gpus_per_worker: float | None = Field(default=None, ge=0, le=64)


class Notify(Section):
    """Who is told that a run ended, and how. What fails here is a warning and never fails the run.

    Attributes:
        webhook: a URL that gets a JSON object by POST, with the verdict as `text`; `$NAME` in it is an environment
            variable, so that no secret stands in the file.
        command: a command that gets the same JSON object on its standard input; text, or a list of words.
        when: `always`, or only where a stage failed, was held back or warned: `problems`.
        link: the page's address for others, in which `{run}` is the run; its path if left out.
        timeout_s: how many seconds a server or command has.
    """

    webhook: str | None = None
    command: Texts | None = None
    when: Literal["always", "problems"] = "always"
    link: str | None = None
    timeout_s: float = Field(default=10.0, gt=0, le=600)


def digest_of_resolved(plain: dict[str, Any]) -> str:
    """32 hex digits of a resolved configuration, which name it in the store."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Trials(Section):
    """How to find out whether a selection helped: small models are trained on it and on controls; see docs/trials.md.

    Attributes:
        against: further controls beside `random`: `random_per_source`, `longest`, `top_score`, or recipes.
        targets: the target sets to measure on, by their measuring halves; those of the recipe that have one if left
            out.
        model: `scratch`, a Llama-shaped model with a tokenizer trained on the pool; or the folder or hub name of a
            causal language model.
        size: of a model from scratch: about 0.2 (`tiny`), 5 (`small`) or 50 (`large`) million parameters.
        lora: of a folder's model, train low-rank additions instead of all weights; needs peft.
        seeds: models of each arm.
        tokens: how many tokens each model is trained on; four times those of the selection if left out. A smaller
            selection is repeated.
        held_out: rows of the pool that no model is trained on, to measure on as well.
        limit_minutes: a trial that would take longer is refused.
    """

    against: Texts = ()
    targets: Texts = ()
    model: str = SCRATCH
    size: Literal["tiny", "small", "large"] = "small"
    lora: bool = False
    seeds: int = Field(default=5, ge=3, le=100)
    tokens: int | None = Field(default=None, gt=0, le=LARGEST)
    held_out: int = Field(default=200, ge=0, le=100_000)
    limit_minutes: float = Field(default=60.0, gt=0, le=1e6)


class Config(Section):
    """A whole `winnow.yaml`, resolved.

    Attributes:
        store: the folder for everything winnow keeps.
        pool: the candidates: see `pool`.
        encoders: name: what turns text into vectors; see `encoders.<name>`.
        models: name: a causal language model whose token scores are columns; see `models.<name>`.
        targets: name: file of examples to match, or see `targets.<name>`.
        classifiers: name: a classifier for the `probabilities` of recipes; see `classifiers.<name>`.
        recipes: name: how to choose a subset; see `recipes.<name>`.
        labeling: name: a project of what to label next; see `labeling.<name>`.
        index: the search index of vectors: see `index`.
        health: how sound vectors have to be: see `health`.
        decontamination: keep evaluation texts out of all that is chosen: see `decontamination`; `{}` for the defaults.
        exports: name: files for a trainer from a recipe's selection; see `exports.<name>`.
        schedule: when to draw again: see `schedule`.
        notify: who is told that a run ended: see `notify`.
        engine: where large work is done: see `engine`.
        trials: did a selection help: see `trials`; `{}` for the defaults, which `winnow trial` has without this
            section.
        root: the folder of the file.
        sweeps: recipe with a `sweep` -> the recipes that it stands for.
    """

    added_keys: ClassVar[tuple[str, ...]] = (
        "models",
        "classifiers",
        "health",
        "decontamination",
        "exports",
        "notify",
        "trials",
        "engine",
    )
    store: str = "./store"
    pool: Pool
    encoders: dict[str, InstanceOf[Representation]] = {}
    models: dict[str, ModelSpec] = {}
    targets: dict[str, TargetFiles] = {}
    classifiers: dict[str, Classifier] = {}
    recipes: dict[str, Recipe] = {}
    labeling: dict[str, Labeling] = {}
    index: Index = Index()
    health: Health = Health()
    decontamination: Decontamination | None = None
    exports: dict[str, Export] = {}
    schedule: Schedule | None = None
    notify: Notify | None = None
    trials: Trials | None = None
    engine: Engine = Engine()
    root: Path = Field(exclude=True)
    sweeps: dict[str, tuple[str, ...]] = Field(default={}, exclude=True)

    @field_serializer("encoders")
    def _encoders(self, encoders: dict[str, Representation]) -> dict[str, Any]:
        return {name: record_of(spec) for name, spec in encoders.items()}

    def members(self, recipe: str) -> tuple[str, ...]:
        """The recipes that a name stands for: those of its sweep, or itself."""
        return self.sweeps.get(recipe, (recipe,))

    def evaluation_files(self, name: str) -> Files:
        """The files of a target set, or of an evaluation set that is none."""
        if name in self.targets:
            return self.targets[name]
        assert self.decontamination is not None
        return self.decontamination.files[name]

    def vector_files(self, target: str | None = None) -> list[VectorFile]:
        """The user's own vectors of the pool, or of a target set."""
        files = self.pool.vectors if target is None else self.targets[target].vectors
        return [VectorFile(file.url, file.id, file.store) for file in files]

    @property
    def vector_names(self) -> list[str]:
        """What rows can have vectors of: the encoders, and `vectors` for the user's own."""
        return [*self.encoders, *([OWN_VECTORS] if self.pool.vectors else [])]

    def targets_in(self, encoder: str) -> list[str]:
        """The sets that have vectors of this encoder: all targets have a model's, some the user's own."""
        names = [name for name, target in self.targets.items() if encoder != OWN_VECTORS or target.vectors]
        if self.decontamination is not None and encoder == self.searched_encoder:
            names += self.decontamination.files
        return names

    @property
    def score_columns(self) -> dict[str, str]:
        """Column of token scores -> its model: `<model>_nll_sum` and so on, and `nll_sum` of the first model."""
        shown = {f"{model}_{column}": model for model in self.models for column in SCORES}
        for first in list(self.models)[:1]:
            shown |= dict.fromkeys(SCORES, first)
        return shown

    @property
    def searched_encoder(self) -> str | None:
        """The encoder by whose vectors evaluation texts are looked for; None where only texts are compared."""
        rule = None if self.decontamination is None else self.decontamination.embedding
        return None if rule is None else rule.encoder

    def is_indexed(self, encoder: str) -> bool:
        """Whether a run builds an index of an encoder's vectors, if the pool is large enough for one."""
        if self.index.kind != "auto":
            return self.index.kind != "flat"
        searching = [recipe.encoder for recipe in self.recipes.values() if recipe.steps.searches]
        searching += [
            project.encoder
            for project in self.labeling.values()
            if project.active_steps.searches or project.cold_start.searches
        ]
        return encoder in searching

    @property
    def digest(self) -> str:
        """32 hex digits of the resolved configuration, wherever its file stands."""
        return digest_of_resolved(self.model_dump(mode="json"))

    def resolved_yaml(self) -> str:
        """The resolved configuration; `load_config` of it gives the same digest."""
        plain = self.model_dump(mode="json")
        return str(yaml.dump(plain, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=120))
