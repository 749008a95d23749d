"""The card of an export: README.md as the Hugging Face hub reads it, and provenance.json, the same for programs.

Both depend on the selection's record and on what was written, never on the clock: a second export gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipelines.exports.folder import MARK, PROVENANCE
from pipelines.exports.writer import sha256_of
from pipelines.runs import code_version
from pipelines.trials.records import trial_line
from storage.damage import readable
from storage.pool.contamination import read_recall
from storage.store import Store, write_json

VERSION = 1
# Different licences of a source that the card lists; a column of free text would fill it.
MAX_LICENCES = 20
_LICENCE = re.compile(r"licen[cs]e", re.IGNORECASE)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_BIGGER = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))


@dataclass
class SourceCounts:
    """What was written of each source.

    Attributes:
        rows: source -> rows. `characters`: source -> characters of their texts.
        licences: (source, column, value) -> rows.
    """

    rows: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    licences: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, source: str, characters: int, licences: Mapping[str, Any]) -> None:
        """Count a row."""
        self.rows[source] += 1
        self.characters[source] += characters
        for column, value in licences.items():
            self.licences[source, column, "not said" if value is None else str(value)] += 1

    def table(self) -> list[dict[str, Any]]:
        """An entry for each source, the most rows first."""
        ranked = sorted(self.rows.items(), key=lambda item: (-item[1], item[0]))
        return [
            {"source": source, "rows": rows, "characters": self.characters[source], **self._licences_of(source)}
            for source, rows in ranked
        ]

    def _licences_of(self, source: str) -> dict[str, dict[str, int]]:
        by_column: dict[str, dict[str, int]] = {}
        for (of, column, value), rows in sorted(self.licences.items(), key=lambda item: (-item[1], item[0])):
            values = by_column.setdefault(column, {}) if of == source else {}
            if of == source and len(values) < MAX_LICENCES:
                values[value] = rows
        return by_column


def licence_columns(names: Iterable[str]) -> list[str]:
    """The names that speak of a licence.

    >>> licence_columns(["year", "License", "licence_url"])
    ['License', 'licence_url']
    """
    return [name for name in names if _LICENCE.search(name)]


@dataclass(frozen=True, kw_only=True)
class Written:
    """An export as it lies in its folder.

    Attributes:
        name: of the recipe.
        folder: where it is being made.
        data: its data files.
        beside: further files, such as the trainer's.
        rows: how many were written.
        left_out: cause -> how many were not.
        options: what the user asked for, JSON-plain.
        use: how to load it.
        features: the fields, as the front matter of the card lists them.
        sources: what was written of each source.
    """

    name: str
    folder: Path
    data: Sequence[Path]
    beside: Sequence[Path]
    rows: int
    left_out: Mapping[str, int]
    options: Mapping[str, Any]
    use: str
    features: Sequence[Mapping[str, Any]]
    sources: SourceCounts


def write_card(store: Store, header: Mapping[str, Any], written: Written) -> dict[str, Any]:
    """Write README.md and provenance.json; gives the content of the latter."""
    provenance = _provenance(store, header, written)
    readme = written.folder / "README.md"
    readme.write_text(_readme(provenance, written), "utf-8")
    files = [_file(path, written.folder) for path in (*written.data, *written.beside, readme)]
    provenance = provenance | {"files": files}
    write_json(written.folder / PROVENANCE, provenance)
    return provenance


def write_simple_card(
    folder: Path,
    name: str,
    facts: Mapping[str, Any],
    data: Sequence[Path],
    beside: Sequence[Path],
    features: Sequence[Mapping[str, Any]] | None,
) -> None:
    """The card of an export that is no selection: front matter, and a table of facts, which provenance.json has too."""
    readme = folder / "README.md"
    rows = [
        (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for key, value in facts.items()
    ]
    front = _front_matter(name, facts["rows"], [str(path.relative_to(folder)) for path in data], features)
    readme.write_text(f"{front}\n# {_cell(name)}\n\n{_table(('', ''), rows)}", "utf-8")
    files = [_file(path, folder) for path in (*data, *beside, readme)]
    write_json(folder / PROVENANCE, {MARK: VERSION, **facts, "exported_by": code_version(), "files": files})


def _provenance(store: Store, header: Mapping[str, Any], written: Written) -> dict[str, Any]:
    snapshot = readable(store, "snapshots", header["snapshot"]) or {}
    return {
        MARK: VERSION,
        "selection": header["selection_id"],
        "recipe": header["recipe"],
        "date": header["created_at"],
        "steps": header["steps"],
        "budget": header["budget"],
        "seed": header["seed"],
        "round": header["round"],
        "where": header["where"],
        "snapshot": header["snapshot"],
        "pool_rows": snapshot.get("rows"),
        "files_of_pool": sorted((snapshot.get("files") or {}).values()),
        "encoder": _encoder(store, header["encoder"]),
        "index": header["index"],
        "targets": header["targets"],
        "drawn_by": header["code_version"],
        "exported_by": code_version(),
        "export": dict(written.options),
        "rows": written.rows,
        "left_out": dict(written.left_out),
        "sources": written.sources.table(),
        "decontamination": _decontamination(store, header),
        "trial": trial_line(store, header["selection_id"]),
        "reproduce": f"winnow reproduce {header['selection_id']}",
    }


def _encoder(store: Store, fingerprint: str | None) -> dict[str, Any] | None:
    if fingerprint is None:
        return None
    path = store.path("vectors", fingerprint, "encoder.json")
    spec = json.loads(path.read_text("utf-8")).get("spec", {}) if path.is_file() else {}
    return {"fingerprint": fingerprint, **spec}


def _decontamination(store: Store, header: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the search removed and what it was measured to find; None where no search was asked for."""
    search = header.get("contamination")
    if search is None:
        return None
    recall = read_recall(store, search) if readable(store, "contaminations", search) else []
    return {"search": search, "rows_kept_out": (header.get("facts") or {}).get("contaminated"), "recall": recall}


def _file(path: Path, folder: Path) -> dict[str, Any]:
    return {"file": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": sha256_of(path)}


# ---- README.md


def _readme(provenance: Mapping[str, Any], written: Written) -> str:
    paths = [str(path.relative_to(written.folder)) for path in written.data]
    parts = [
        _front_matter(written.name, written.rows, paths, written.features),
        f"# {_cell(written.name)}\n",
        f"{written.rows:,} rows that winnow selected from a pool of {provenance['pool_rows'] or 0:,}.\n",
        _table(("", ""), _facts(provenance)),
        "## Use\n",
        f"```\n{written.use}\n```\n",
        "## Sources\n",
        _sources(provenance["sources"]),
        "## Decontamination\n",
        _decontaminated(provenance["decontamination"]),
    ]
    if written.left_out:
        counts = [(cause, f"{count:,}") for cause, count in written.left_out.items()]
        parts += ["## Rows left out\n", "`left_out.jsonl` lists them.\n", _table(("cause", "rows"), counts)]
    parts += ["## Reproduce\n", f"```\n{provenance['reproduce']}\n```\n"]
    return "\n".join(parts)


def _front_matter(name: str, rows: int, paths: Sequence[str], features: Sequence[Mapping[str, Any]] | None) -> str:
    front: dict[str, Any] = {
        "pretty_name": name,
        "tags": ["winnow"],
        "size_categories": [_size(rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": list(paths)}]}],
    }
    if features is not None:
        # A copy: YAML would write what comes twice as a reference, which `datasets` does not read.
        front["dataset_info"] = {"features": json.loads(json.dumps(features))}
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"


def _facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    encoder = provenance["encoder"]
    model = None if encoder is None else f"{encoder.get('model', 'own vectors')} ({encoder['fingerprint']})"
    steps = ", ".join(step if isinstance(step, str) else json.dumps(step) for step in provenance["steps"])
    facts = {
        "selection": provenance["selection"],
        "recipe": provenance["recipe"],
        "steps": steps,
        "budget, seed": f"{provenance['budget']}, {provenance['seed']}",
        "snapshot": provenance["snapshot"],
        "encoder": model or "none",
        "drawn": f"{provenance['date']} by winnow {provenance['drawn_by']}",
        "exported as": json.dumps(provenance["export"], ensure_ascii=False),
        "trial": provenance["trial"],
    }
    return [(name, str(value)) for name, value in facts.items()]


def _sources(sources: Sequence[Mapping[str, Any]]) -> str:
    licences = sorted({name for entry in sources for name in entry} - {"source", "rows", "characters"})
    rows = [
        (
            entry["source"],
            f"{entry['rows']:,}",
            f"{entry['characters']:,}",
            *(", ".join(f"{value} ({count:,})" for value, count in entry.get(name, {}).items()) for name in licences),
        )
        for entry in sources
    ]
    missing = "" if licences else "\nNo column of the pool has a licence in its name.\n"
    return _table(("source", "rows", "characters", *licences), rows) + missing


def _decontaminated(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "Not asked for: no search for evaluation texts was made (`decontamination:` in winnow.yaml).\n"
    kept_out = facts["rows_kept_out"]
    removed = f"{kept_out:,} rows of the pool hold evaluation texts and were kept out. " if kept_out is not None else ""
    rows = [
        (entry["target_set"], entry["kind"], f"{entry['found']:,} of {entry['planted']:,}", f"{entry['recall']:.3f}")
        for entry in facts["recall"]
        if entry["recall"] is not None
    ]
    return f"{removed}Of planted examples the search found:\n\n" + _table(("set", "disguise", "found", "recall"), rows)


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text that Markdown shows as it is, on one line, and never as a tag."""
    line = " ".join(text.split())
    for sign, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("`", "&#96;"), ("[", "&#91;")):
        line = line.replace(sign, shown)
    return line


def _size(rows: int) -> str:
    """The hub's name for a number of rows.

    >>> _size(999), _size(1000)
    ('n<1K', '1K<n<10K')
    """
    return next((name for limit, name in (*_SIZES, *_BIGGER) if rows < limit), "n>1B")
