"""The golden project: its input files, and what its annotators answer.

`write_project` makes everything from a seed; the inputs that the tests use are the ones kept in the archive,
because the ids of columns, vectors and probabilities are digests of files, and another pyarrow may write other
bytes. `grow` adds what comes in later: one more file of candidates. `answer` fills in a batch as annotators would,
by the subject that the text names and by hashes, so that the same batch has the same answers on every machine.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUBJECTS = {
    "weather": ("rain", "wind", "snow", "fog"),
    "music": ("violin", "drum", "choir", "organ"),
    "cooking": ("soup", "bread", "salad", "cake"),
    "trains": ("engine", "signal", "wagon", "platform"),
}
CLASSES = tuple(SUBJECTS)
DIMENSION = 16
N_ROWS = 240
N_LATER = 40

CONFIG = """\
store: ./store

pool:
  files:
    - data/*.jsonl
    - files: tickets/*.csv
      fields: {prompt: body, response: reply, id: ticket, source: product}
  max_bad_fraction: 0.05
  columns: {url: brought/scores.parquet, id: doc}
  vectors: {url: brought/pool.npy}

targets:
  storms: {files: targets/storms.jsonl, vectors: {url: brought/storms.parquet, id: key}}
  concerts: {files: targets/concerts.jsonl, vectors: brought/concerts.npy}

recipes:
  random: {steps: [random], budget: 24, seed: 7}
  rds_plus: {steps: [rds_plus], budget: 24}
  rds_plus_advance: {steps: [{rds_plus: {on_duplicate: advance, per: query}}], budget: 12, targets: storms}
  rds_max: {steps: [rds_max], budget: 16}
  rds_mean: {steps: [{rds_mean: {normalized: true}}], budget: 16, exclude_targets: false}
  k_center: {steps: [{k_center: {outlier_quantile: 0.01}}], budget: 16}
  kmeans_pp: {steps: [{kmeans_pp: {local_trials: 3}}], budget: 16, seed: 3}
  facility_location: {steps: [facility_location], budget: 16}
  herding: {steps: [{herding: {weights: quality}}], budget: 12}
  stratified: {steps: [{stratified: {by: source, alloc: sqrt, min_per_stratum: 2}}], budget: 20}
  ccs: {steps: [{aum: {fields: [margin_1, margin_2]}}, {ccs: {beta: 0.2, n_strata: 5, hard: low}}], budget: 20}
  semdedup: {steps: [{semdedup: {eps: 0.05, n_clusters: 4}}, random], budget: 20}
  near_duplicates: {steps: [{near_duplicates: {threshold: 0.4}}, random], budget: 20}
  outliers: {steps: [{outliers: {drop: 0.1}}, kmeans_pp], budget: 12}
  keep_top_combine:
    steps: [{combine: {rds_max: 1, column: {field: quality, weight: 0.5}}}, {keep_top: {times: 3}}, kmeans_pp]
    budget: 12
  drawn_by_score: {steps: [{column: {field: quality}}, {softmax: {beta: 4}}], budget: 12, round: 2}
  shares: {steps: [random], budget: 20, quota: {by: source, shares: {mail: 0.5, forum: 0.3, rest: 0.2}}}
  caps: {steps: [rds_max], budget: 20, quota: {by: source, caps: 0.4}}
  balance: {steps: [random], budget: 20, quota: {by: source, balance: water_fill}}
  bands: {steps: [random], budget: 12, quota: {by: n_tokens, bands: [10, 30], caps: {..10: 2, 10..30: 4}}}
  groups: {steps: [k_center], budget: 20, group_by: talk, max_per_group: 2}
  tokens:
    steps: [{column: {field: n_tokens}}]
    budget: {tokens: 500, column: n_tokens}
    quota: {by: source, caps: 0.5}
  top_up: {steps: [random], budget: 60, mode: top_up, where: n_tokens > 40, allow_short: true}
  filtered:
    steps: [rds_plus]
    budget: 10
    where: source <> 'forum' AND length(prompt) < 200
    allow: lists/allow.txt
    deny: lists/deny.txt
  short: {steps: [random], budget: 50, where: source = 'chat' AND n_tokens < 20, allow_short: true}

labeling:
  topics:
    classes: [weather, music, cooking, trains]
    steps: [margin]
    cold_start: [typiclust]
    batch_size: 20
    random_share: 0.2
    overlap: 0.2
    gold: lists/gold.jsonl
    gold_share: 0.1
    labels: labels/topics/*
    lease_hours: 1000000
    budget: {money: 60, per_row: 0.5}
  committee:
    classes: [weather, music, cooking, trains]
    steps: [bald, power]
    cold_start: [k_center]
    members: 3
    batch_size: 16
    random_share: 0.25
    targets: [storms, concerts]
    labels: labels/committee/*.jsonl
    lease_hours: 1000000
  brought:
    classes: [weather, music, cooking, trains]
    steps: [entropy]
    classifier: {probabilities: {url: "local://brought/probabilities.parquet", id: doc}}
    batch_size: 12
    where: source <> 'chat'
    labels: labels/brought/*.jsonl
    lease_hours: 1000000
    budget: {rows: 20}
  team:
    classes: [weather, music, cooking, trains]
    steps: [least_confidence, {keep_top: {times: 2}}, kmeans_pp]
    batch_size: 14
    overlap: 1.0
    aggregate: dawid_skene
    labels: labels/team/*.jsonl
    fields: {label: verdict, annotator: who, id: row}
    lease_hours: 1000000
    stop: {kappa: 0.9, uncertainty: 0.2}
  even:
    classes: [weather, music, cooking, trains]
    steps: [{anchors: {n_anchors: 3, n_neighbors: 20, rows: 80}}, badge]
    cold_start: [random]
    quota: {by: predicted_class, balance: water_fill}
    batch_size: 16
    random_share: 0
    format: csv
    labels: labels/even/*.csv
    lease_hours: 1000000
  priced:
    classes: [weather, music, cooking, trains]
    steps: [cal]
    classifier: {logistic_regression: {C: 10}}
    batch_size: 14
    seed: 5
    deny: lists/deny.txt
    format: label_studio
    labels: labels/priced/*.json
    lease_hours: 1000000
    budget: {money: 1000, column: price}

schedule: {cron: "30 3 * * *", timezone: Europe/Vienna, recipes: [random, rds_plus]}
"""

PROJECTS = {"topics": 3, "committee": 2, "brought": 2, "team": 2, "even": 1, "priced": 1}
"""Labeling project -> how many of its rounds are answered; what is sent out after the last of them stays open."""

Row = dict[str, Any]


def write_project(folder: Path) -> None:
    """Write the inputs of the first run, and what is brought for the rows that come later."""
    rows = list(_rows(N_ROWS + N_LATER))
    first, later = rows[:N_ROWS], rows[N_ROWS:]
    _write(folder / "winnow.yaml", CONFIG)
    chats = [row for row in first if row["source"] == "chat"]
    plain = [row for row in first if row["source"] != "chat"]
    tickets, plain = plain[-30:], plain[:-30]
    lines = [json.dumps(row) for row in plain]
    lines.insert(17, '{"id": "broken", "prompt": "this line ends too')
    lines.insert(40, json.dumps({**plain[3], "id": "again-1"}))  # a duplicate in the file
    lines.append("")
    _write(folder / "data" / "main.jsonl", "".join(f"{line}\n" for line in lines))
    talks = [
        {
            "id": row["id"],
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["response"]},
                {"role": "user", "content": "And why?"},
                {"role": "assistant", "content": f"Because of {row['talk']}."},
            ],
            **{name: row[name] for name in ("source", "n_tokens", "talk", "price")},
        }
        for row in chats
    ]
    _write(folder / "data" / "talks.jsonl", "".join(json.dumps(talk) + "\n" for talk in talks))
    tickets = [*tickets, {**plain[5], "id": "again-2"}]  # a duplicate of another file's row
    with _opened(folder / "tickets" / "tickets.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ticket", "product", "body", "reply", "n_tokens", "talk", "price"])
        for row in tickets:
            writer.writerow([row[k] for k in ("id", "source", "prompt", "response", "n_tokens", "talk", "price")])
    _write(folder / "later" / "later.jsonl", "".join(json.dumps(row) + "\n" for row in later))
    _write_lists(folder / "lists", plain)
    _write_targets(folder, first)
    _write_brought(folder / "brought", rows)


def grow(folder: Path) -> None:
    """One more file of candidates comes in."""
    _write(folder / "data" / "later.jsonl", (folder / "later" / "later.jsonl").read_text("utf-8"))


def batch_file(folder: Path, project: str, number: int) -> Path:
    """The batch of a round, in the format of its project."""
    kind = {"even": "csv", "priced": "json"}.get(project, "jsonl")
    return folder / "labeling" / project / f"{project}-{number:04d}.{kind}"


def answer(folder: Path, project: str, number: int) -> None:
    """Label a batch as the project's annotators would, into the folder that the project watches."""
    batch = batch_file(folder, project, number)
    answered = folder / "labels" / project / batch.name
    text = batch.read_text("utf-8")
    if project == "even":
        with _opened(answered) as file:
            reader = csv.DictReader(text.splitlines())
            writer = csv.DictWriter(file, list(reader.fieldnames or ()), lineterminator="\n")
            writer.writeheader()
            for row in reader:
                writer.writerow({**row, "label": _truth(row), "annotator": "ann", "comment": _some(row["id"], "note")})
        return
    if project == "priced":
        tasks = [{**task, "id": place, **_annotated(task)} for place, task in enumerate(json.loads(text))]
        _write(answered, json.dumps(tasks, indent=1) + "\n")
        return
    rows = [json.loads(line) for line in text.splitlines()]
    labels = list(_TEAMS[project](rows, number))
    _write(answered, "".join(json.dumps(label) + "\n" for label in labels))


# ---- the inputs


def _rows(n: int) -> Iterator[Row]:
    rng = random.Random(2024)
    for number in range(n):
        subject = CLASSES[int(rng.random() * 4)]
        word = SUBJECTS[subject][int(rng.random() * 4)]
        place = ("Graz", "Linz", "Wels", "Steyr", "Enns")[int(rng.random() * 5)]
        verb = ("measure", "repair", "describe", "prepare", "explain", "find")[int(rng.random() * 6)]
        source = ("mail", "forum", "chat", "phone")[min(int(rng.random() * 5), 3)]
        asked = f"How do I {verb} the {word} in {place}, case {number}?"
        yield {
            "id": f"doc-{number}",
            "prompt": asked,
            "response": "" if number == 11 else f"In {place}, {verb} the {word} with care. Answer {number}.",
            "source": source,
            "n_tokens": 5 + int(rng.random() * 45),
            "talk": f"talk-{number // 3}" if rng.random() < 0.9 else None,
            "price": 1 + int(rng.random() * 3),
        }


def _write_lists(folder: Path, rows: list[Row]) -> None:
    ids = [row["id"] for row in rows]
    _write(folder / "allow.txt", "".join(f"{one}\n" for one in ids[::2]))
    _write(folder / "deny.txt", "".join(f"{one}\n" for one in [*ids[::7], "left-long-ago"]))
    gold = [{"id": row["id"], "label": _truth(row)} for row in rows[1::9]]
    _write(folder / "gold.jsonl", "".join(json.dumps(one) + "\n" for one in gold))


def _write_targets(folder: Path, rows: list[Row]) -> None:
    for name, subject in (("storms", "weather"), ("concerts", "music")):
        word = SUBJECTS[subject][0]
        asked = [f"What would one call a fine {word}, number {n}?" for n in range(5)]
        asked.append(next(row["prompt"] for row in rows if word in row["prompt"] and row["source"] != "chat"))
        lines = [{"id": f"{name}-{n}", "prompt": one, "response": "See above."} for n, one in enumerate(asked)]
        _write(folder / "targets" / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def _write_brought(folder: Path, rows: list[Row]) -> None:
    """Own vectors, columns and probabilities."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(2025)
    ids = [row["id"] for row in rows]
    vectors = np.array([_vector(rng, CLASSES.index(_truth(row)), 0.28) for row in rows], np.float32)
    vectors[30] = vectors[31] + 0.001  # near duplicates
    vectors[60] = 0  # a row without direction
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "pool.npy", vectors)
    _write(folder / "pool.ids.txt", "".join(f"{one}\n" for one in ids))
    concerts = np.array([_vector(rng, CLASSES.index("music"), 0.15) for _ in range(6)], np.float32)
    np.save(folder / "concerts.npy", concerts)
    _write(folder / "concerts.ids.txt", "".join(f"concerts-{n}\n" for n in range(6)))
    storms = [_vector(rng, CLASSES.index("weather"), 0.15) for _ in range(6)]
    named = {"key": [f"storms-{n}" for n in range(6)], "vector": pa.array(storms, pa.list_(pa.float32()))}
    pq.write_table(pa.table(named), folder / "storms.parquet")
    scores = {
        "doc": ids,
        "quality": [round(rng.random(), 4) for _ in ids],
        "margin_1": [round(2 * rng.random() - 1, 4) for _ in ids],
        "margin_2": [round(2 * rng.random() - 1, 4) for _ in ids],
        "judge": [("good", "fair", None)[n % 3] for n in range(len(ids))],
        "checked": [n % 4 == 0 for n in range(len(ids))],
    }
    pq.write_table(pa.table(scores), folder / "scores.parquet")
    weights = [[rng.random() + 2 * (name == _truth(row)) for name in CLASSES] for row in rows[:230]]
    shares = {name: [one[c] / sum(one) for one in weights] for c, name in enumerate(CLASSES)}
    pq.write_table(pa.table({"doc": ids[:230], **shares}), folder / "probabilities.parquet")


def _vector(rng: random.Random, subject: int, spread: float) -> list[float]:
    noise = [sum(rng.random() for _ in range(12)) - 6 for _ in range(DIMENSION)]
    return [float(axis == subject) + spread * one for axis, one in enumerate(noise)]


# ---- the answers


def _truth(row: Row) -> str:
    """The subject that a text names."""
    text = " ".join(str(row.get(key) or "") for key in ("prompt", "text", "response"))
    return next(subject for subject, words in SUBJECTS.items() if any(word in text for word in words))


def _chance(*parts: object) -> float:
    """A number in 0 .. 1 that depends on nothing but the parts."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def _some(*parts: object) -> str:
    return "sure about this one" if _chance(*parts) < 0.2 else ""


def _given(row: Row, who: str, wrong: float) -> str:
    """What an annotator says of a row: the truth, but for so many."""
    truth = CLASSES.index(_truth(row))
    return CLASSES[(truth + (_chance(row["id"], who) < wrong)) % len(CLASSES)]


def _topics(rows: list[Row], number: int) -> Iterator[Row]:
    """Ann labels everything and passes over some, Bob sees the first half; a few lines cannot be used."""
    for place, row in enumerate(rows):
        label = {"id": row["id"], "round": row["round"], "annotator": "ann", "seconds": 2 + place / 4}
        if place == 3:
            yield label | {"skip": True}
        elif place == 4 and number == 1:
            yield label | {"ignore": True}
        else:
            yield label | {
                "label": _given(row, "ann", 0.1),
                "confidence": 0.75,
                "cost": 0.25,
                "comment": _some(row["id"]),
            }
    for row in rows[: len(rows) // 2]:
        when = f"2026-01-0{number + 1}T10:00:00+01:00"
        yield {"id": row["id"], "annotator": "bob", "label": _given(row, "bob", 0.3), "created_at": when}
    # Rows that Ann passed over, and those that want two labels, are closed by Cid.
    for row in rows:
        yield {"id": row["id"], "annotator": "cid", "label": _given(row, "cid", 0.05), "rating": 4}
    yield {"id": rows[0]["id"], "annotator": "ann", "label": "gardening"}
    yield {"id": "nobody", "annotator": "ann", "label": "music"}


def _committee(rows: list[Row], number: int) -> Iterator[Row]:
    for row in rows:
        yield {"id": row["id"], "round": row["round"], "label": _given(row, f"dora {number}", 0.05)}


def _brought(rows: list[Row], _: int) -> Iterator[Row]:
    for row in rows:
        yield {"id": row["id"], "label": _given(row, "ann", 0.1), "annotator": "ann"}


def _team(rows: list[Row], _: int) -> Iterator[Row]:
    for who, wrong in (("ann", 0.05), ("bob", 0.15), ("cid", 0.5)):
        for row in rows:
            if who != "cid" or _chance(row["id"]) < 0.6:
                yield {"row": row["id"], "verdict": _given(row, who, wrong), "who": who}


_TEAMS = {"topics": _topics, "committee": _committee, "brought": _brought, "team": _team}


def _annotated(task: Row) -> Row:
    """A task as Label Studio exports it."""
    data = task["data"]
    choice = {
        "from_name": "label",
        "to_name": "prompt",
        "type": "choices",
        "value": {"choices": [_given({**data, "id": data["winnow_id"]}, "eve", 0.05)]},
    }
    return {"annotations": [{"completed_by": 7, "was_cancelled": False, "lead_time": 4.5, "result": [choice]}]}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", newline="\n")


def _opened(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8", newline="")
