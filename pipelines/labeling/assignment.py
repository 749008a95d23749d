"""Who of the named annotators labels which row of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations

import numpy as np

from selection.noise import hash_uniform
from selection.streams import stable_hash
from selection.types import Rows
from storage.ids import Ids, hash_keys


def assign(
    ids: Ids, wanted: Rows, annotators: Sequence[str], answered: Sequence[Collection[str]], *, seed: Sequence[int]
) -> list[list[str]]:
    """The people that each row goes to, all different, none of whom has answered it before.

    Rows are dealt one by one to those who have the fewest so far, and of these to those who share the fewest rows with
    the person that the row has already. So everybody gets the same number of rows, give or take one (but for rows that
    some have answered before), and everybody shares rows with everybody. Who gets a row depends on the seed and on the
    ids, never on their order.

    Args:
        ids: (b,) of the rows, each once.
        wanted: (b,) how many people each row wants; a row that fewer are left for goes to fewer.
        annotators: their names.
        answered: (b,) who has answered each row before.

    Cost: O(b * people * log(people)).
    """
    noise = hash_uniform(hash_keys(ids), np.random.default_rng([*seed, stable_hash("assignment")]))
    rows: Counter[str] = Counter()
    shared: Counter[frozenset[str]] = Counter()
    assigned: list[list[str]] = [[] for _ in ids]
    for place in np.argsort(noise, kind="stable").tolist():
        first = int(noise[place] * len(annotators)) % len(annotators)
        free = [name for name in (*annotators[first:], *annotators[:first]) if name not in answered[place]]
        people = assigned[place]
        while free and len(people) < wanted[place]:
            person = min(free, key=lambda name: (rows[name], sum(shared[frozenset((name, who))] for who in people)))
            free.remove(person)
            people.append(person)
        rows.update(people)
        shared.update(frozenset(pair) for pair in combinations(people, 2))
    return assigned
