"""Where trials lie: records/trials/<id>/{plan, cell-<arm>-<seed>, detectable, effects}/, each committed by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selection.types import Doubles
from storage.checksums import verified
from storage.damage import KINDS, committed_whole, read_record, readable
from storage.records import write_items
from storage.store import Store, utc_now, write_json

PLAN, DETECTABLE, EFFECTS = "plan", "detectable", "effects"
NOT_TRIED = "not tried"


def known_part(store: Store, kind: str, trial_id: str, part: str) -> dict[str, Any] | None:
    """A part of a trial that is committed; None if there is none. A damaged one is put aside, to be made again."""
    if not committed_whole(store, kind, trial_id, part):
        return None
    return read_record(kind, store.path(*KINDS[kind].root, trial_id, part))


def commit_part(
    store: Store, kind: str, trial_id: str, part: str, document: Mapping[str, Any], tables: Mapping[str, pa.Table]
) -> None:
    """Commit a part of a trial; the same part twice is the first."""
    file = KINDS[kind].file
    assert file is not None
    with store.committing(*KINDS[kind].root, trial_id, part) as folder:
        for name, table in tables.items():
            write_items(folder / f"{name}.parquet", "trial_id", trial_id, table)
        write_json(folder / file, {"created_at": utc_now(), "trial_id": trial_id, **document})


def part_table(store: Store, trial_id: str, part: str, name: str) -> pa.Table:
    """A table of a part."""
    return pq.read_table(verified(store.path("records", "trials", trial_id, part, f"{name}.parquet")))


def cell_name(arm: str, seed: int) -> str:
    """The folder of a model's losses."""
    return f"cell-{arm}-{seed}"


def cell_losses(store: Store, trial_id: str, arm: str, seeds: int) -> Doubles:
    """(seeds, examples) the losses of an arm."""
    tables = (part_table(store, trial_id, cell_name(arm, seed), "losses") for seed in range(seeds))
    return np.array([table["loss"].to_numpy() for table in tables])


def trial_of(store: Store, selection_id: str) -> dict[str, Any] | None:
    """The newest finished trial of a selection: its `effects.json`; None where there is none."""
    finished = []
    for trial_id in store.records("trials"):
        if store.has("records", "trials", trial_id, EFFECTS):
            effects = readable(store, "trial_effects", trial_id, EFFECTS)
            if effects is not None and effects["selection_id"] == selection_id:
                finished.append(effects)
    return max(finished, key=lambda effects: effects["created_at"], default=None)


def finished_trial(store: Store, trial_id: str) -> dict[str, Any]:
    """The `effects.json` of a trial that is finished."""
    return read_record("trial_effects", store.path("records", "trials", trial_id, EFFECTS))


def trial_part(store: Store, selection_id: str) -> dict[str, Any]:
    """What a report says of a selection's newest trial: `line` and `effects`."""
    trial = trial_of(store, selection_id)
    return {"line": NOT_TRIED, "effects": []} if trial is None else {key: trial[key] for key in ("line", "effects")}


def trial_line(store: Store, selection_id: str) -> str:
    """What trials say of a selection, in a sentence: the verdict of the newest one, or that nobody tried."""
    trial = trial_of(store, selection_id)
    return NOT_TRIED if trial is None else str(trial["line"])
