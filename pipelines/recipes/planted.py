"""How much a search for evaluation texts finds: plants among rows of the pool, run through the same rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.recipes.contamination import Examples
from selection.contamination import ContaminationRules
from selection.noise import mix
from selection.streams import stable_hash
from selection.types import Rows
from storage.errors import BadInput
from storage.files.readers import excerpt, read
from storage.files.user_files import opened_as
from storage.ids import Ids, hash_keys, to_text
from storage.pool.contamination import RECALL_COLUMNS
from storage.pool.content import text_of
from storage.pool.snapshot import Snapshot
from storage.store import Store

PARAPHRASE = "paraphrase"
# Rows of the pool that carry plants and, alone, must not be found. A pool holds many more rows than evaluation texts,
# and a rule that finds one row in a hundred wrongly should look as bad as it is.
CARRIERS = 5_000


@dataclass(frozen=True)
class Plant:
    """A text in which an example stands in some disguise."""

    kind: str
    example: int
    text: str


def measured_recall(
    snapshot: Snapshot,
    examples: Examples,
    rules: ContaminationRules,
    *,
    plants: int,
    seed: int,
    paraphrases: Sequence[tuple[int, str]] = (),
) -> pa.Table:
    """What the rules find of plants, and what they take for a plant that is none, as `RECALL_COLUMNS`.

    A plant stands between two words of a row of the pool. What must not be found for an evaluation set are such rows
    alone, and those in which an example of another set was planted in the same way. A text that holds an example of the
    set word for word does not count among these.

    Args:
        plants: examples of a set that are planted, in each kind of disguise that goes with them.
        seed: the same pool, examples and seed give the same plants.
        paraphrases: place of an example, and other words for it.
    """
    from selection.kernels.contamination import Contamination

    search = Contamination(examples.questions, rules)
    carriers = carrier_texts(snapshot, CARRIERS, seed)
    planted = make_plants(examples, carriers, plants=plants, seed=seed, paraphrases=paraphrases)
    texts = [plant.text for plant in planted] + carriers
    held: dict[int, set[int]] = defaultdict(set)
    for row, target in search.pairs(texts):
        held[row].add(target)
    place = examples.place.tolist()
    sets_held = [{place[target] for target in held[row]} for row in range(len(texts))]
    # What truly holds an example of another set is no false positive for it.
    true_sets: dict[int, set[int]] = defaultdict(set)
    sources = [*examples.questions, *carriers]
    for match in search.matches(sources):
        if match.rule == "exact":
            true_sets[match.row].add(place[match.target])
    rows: list[dict[str, Any]] = []
    kinds = list(dict.fromkeys(plant.kind for plant in planted))
    for number, name in enumerate(examples.sets):
        bare = [(len(planted) + i, len(examples.questions) + i) for i in range(len(carriers))]
        for kind in kinds:
            own = [i for i, plant in enumerate(planted) if plant.kind == kind and place[plant.example] == number]
            others = [
                (i, plant.example)
                for i, plant in enumerate(planted)
                if plant.kind == kind and place[plant.example] != number
            ]
            if own:
                negatives = [text for text, source in [*others, *bare] if number not in true_sets[source]]
                hits = sum(planted[i].example in held[i] for i in own)
                wrong = sum(number in sets_held[i] for i in negatives)
                rows.append(_measured(name, kind, len(own), hits, len(negatives), wrong))
    return pa.Table.from_pylist(rows, pa.schema(RECALL_COLUMNS))


def _measured(name: str, kind: str, planted: int, hits: int, negatives: int, wrong: int) -> dict[str, Any]:
    from selection.plants import PROMISED

    return {
        "target_set": name,
        "kind": kind,
        "promised": kind in PROMISED,
        "planted": planted,
        "found": hits,
        "recall": hits / planted,
        "negatives": negatives,
        "false_positives": wrong,
        "precision": hits / (hits + wrong) if hits + wrong else None,
    }


def carrier_texts(snapshot: Snapshot, count: int, seed: int) -> list[str]:
    """Texts of rows drawn by hash of their ids, so that most stay the same while the pool grows; in the order of ids."""
    return [text_of(turns) for turns in snapshot.turns_of(sampled(snapshot.ids, count, seed))]


def make_plants(
    examples: Examples, carriers: Sequence[str], *, plants: int, seed: int, paraphrases: Sequence[tuple[int, str]]
) -> list[Plant]:
    """Plants of examples drawn by hash of their ids; those without a word cannot be planted."""
    from selection.kernels.words import words
    from selection.plants import KINDS, inside

    chosen = [
        int(place)
        for number in range(len(examples.sets))
        for place in _of_set(examples, number, plants, seed)
        if words(examples.questions[place])
    ]
    keys = hash_keys(examples.ids).tolist()
    made = []
    for kind, disguise in KINDS.items():
        for example in chosen:
            rng = np.random.default_rng([seed, keys[example], stable_hash(kind)])
            text = disguise(examples.questions[example], rng)
            if text is not None:
                made.append((kind, example, text, rng))
    for i, (example, text) in enumerate(paraphrases):
        made.append((PARAPHRASE, example, text, np.random.default_rng([seed, keys[example], i])))
    return [
        Plant(kind, example, inside(carriers[int(rng.integers(len(carriers)))] if carriers else "", text, rng))
        for kind, example, text, rng in made
    ]


def read_paraphrases(store: Store, url: str, digest: str, examples: Examples) -> list[tuple[int, str]]:
    """The rewordings of a file: the place of the example, by its own id or winnow's, and the text.

    Raises:
        BadInput: a record cannot be read, lacks `example` or `text`, or names no example or several.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, names in enumerate(zip(examples.names, to_text(examples.ids), strict=True)):
        for name in dict.fromkeys(names):
            places[name].append(place)
    rewordings = []
    with opened_as(store, url, digest) as (file, _):
        for chunk in read(file, url):
            for bad in chunk.bad:
                raise BadInput(f"decontamination.paraphrases: {url} line {bad.line}: {bad.cause}")
            for line, record in zip(chunk.lines, chunk.records, strict=True):
                rewording = _rewording(record, places)
                if isinstance(rewording, str):
                    raise BadInput(f"decontamination.paraphrases: {url} line {line}: {rewording}")
                rewordings.append(rewording)
    return rewordings


def _rewording(record: Any, places: Mapping[str, Sequence[int]]) -> tuple[int, str] | str:
    """The place of the example that a record rewords, and the text; or what is wrong with it."""
    if not isinstance(record, dict):
        return f"must be an object with `example` and `text`, got {excerpt(record)}"
    example, text = record.get("example"), record.get("text")
    if not isinstance(example, str | int) or not isinstance(text, str):
        return f"needs `example`, an id, and `text`; got the fields {', '.join(record)}"
    named = places.get(str(example), ())
    if len(named) != 1:
        return f"{example!r} names {f'{len(named)} examples' if named else 'no example'}; it must name one"
    return named[0], text


def _of_set(examples: Examples, number: int, count: int, seed: int) -> Rows:
    places = np.flatnonzero(examples.place == number)
    return places[sampled(examples.ids[places], count, seed)]


def sampled(ids: Ids, count: int, seed: int) -> Rows:
    """The places of `count` ids, ascending."""
    noise = mix(mix(hash_keys(ids)) + np.uint64(seed))
    return np.sort(np.argsort(noise, kind="stable")[:count])
