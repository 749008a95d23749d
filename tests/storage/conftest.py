"""Small stores to look at from all sides."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.ids import Ids, from_bytes, to_arrow
from storage.labels.log import LabelImport, import_labels
from storage.labels.models import commit_model
from storage.labels.rounds import ITEM_COLUMNS, commit_round
from storage.pool.contamination import RECALL_COLUMNS, commit_contamination
from storage.pool.content import identity
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import open_snapshot, take_snapshot
from storage.records import commit_run, commit_selection, new_run_id
from storage.store import Store, utc_now


def id_of(prompt: str) -> bytes:
    """The id of a row that `SmallStore.add_file` wrote."""
    return identity([("user", prompt), ("assistant", f"answer to {prompt}")])


class SmallStore(Store):
    """A store with short ways to put things in."""

    id_of = staticmethod(id_of)

    def add_file(
        self,
        name: str,
        prompts: Sequence[str],
        *,
        extra: Sequence[Mapping[str, Any]] = (),
        bad_lines: Sequence[int] = (),
    ) -> str:
        """Ingest `<name>.jsonl`: rows of source `<name>`, and lines that cannot be read; returns the ingest."""
        rows = [
            json.dumps({"prompt": prompt, "response": f"answer to {prompt}"} | dict(more))
            for prompt, more in itertools.zip_longest(prompts, extra, fillvalue={})
        ]
        for line in bad_lines:
            rows.insert(line - 1, "{")
        file = self.root.parent / f"{name}.jsonl"
        file.write_text("".join(f"{row}\n" for row in rows))
        return ingest_file(self, FileSpec(str(file))).id

    def add_snapshot(self, ingests: Sequence[str], parent: str | None = None, columns: Sequence[str] = ()) -> str:
        """A snapshot of ingests and the run that took it."""
        snapshot = take_snapshot(self, ingests, parent, columns).id
        self.add_run("ingest", None, snapshot)
        return snapshot

    def add_selection(
        self, selection_id: str, prompts: Sequence[str], *, recipe: str = "mine", status: str | None = "ok"
    ) -> str:
        """A selection in the order of `prompts`, and its run unless `status` is None."""
        items = items_of(from_bytes(id_of(prompt) for prompt in prompts))
        header = {
            "selection_id": selection_id,
            "recipe": recipe,
            "steps": ["random"],
            "budget": len(prompts),
            "seed": 0,
        }
        commit_selection(self, header, items)
        if status is not None:
            self.add_run("select", recipe, selection_id, status)
        return selection_id

    def add_labels(
        self, project: str, labels: Sequence[Mapping[str, Any]], classes: Sequence[str], **options: Any
    ) -> LabelImport:
        """Import a file of labels, where `id` is a prompt of `add_file`, looked up in the newest snapshot."""
        number = len(self.records("labels"))
        file = self.root.parent / f"labels-{number}.jsonl"
        named = [dict(label) | {"id": str(uuid.UUID(bytes=id_of(str(label["id"]))))} for label in labels]
        file.write_text("".join(f"{json.dumps(label)}\n" for label in named))
        snapshots = [open_snapshot(self, name) for name in self.records("snapshots")]
        newest = max(snapshots, key=lambda snapshot: int(snapshot.header["created_ns"]))
        return import_labels(self, project, str(file), classes=classes, snapshot=newest, **options)

    def add_round(
        self,
        project: str,
        number: int,
        prompts: Sequence[str],
        assigned: Sequence[list[str]] = (),
        prices: Sequence[float] = (),
        **header: Any,
    ) -> str:
        """A round of one row a prompt, all but the last by the strategy, the last at random."""
        n = len(prompts)
        items = pa.table(
            {
                "rank": pa.array(np.arange(1, n + 1, dtype=np.uint32)),
                "id": to_arrow(from_bytes(map(id_of, prompts))),
                "arm": ["strategy"] * (n - 1) + ["random"],
                "annotators": pa.array([1] * n, pa.uint8()),
                **{name: pa.nulls(n, kind) for name, kind in list(ITEM_COLUMNS.items())[4:]},
            }
        )
        if assigned:
            items = items.append_column("assigned", pa.array(assigned))
        if prices:
            items = items.append_column("price", pa.array(prices))
        about = {"round_id": f"{project}-{number}", "project": project, "round": number, "phase": "cold_start"}
        return commit_round(self, about | header, items)

    def add_model(self, project: str, model_id: str, consensus: Mapping[str, str]) -> str:
        """A model of a consensus, prompt -> class, and the run that fitted it."""
        n = len(consensus)
        table = pa.table(
            {
                "id": to_arrow(from_bytes(map(id_of, consensus))),
                "label": list(consensus.values()),
                "confidence": [1.0] * n,
                "n_labels": [1] * n,
                "relabel_score": pa.nulls(n, pa.float32()),
                "probability": [0.5] * n,
            }
        )
        commit_model(
            self, {"model_id": model_id, "project": project, "classifier": "logistic_regression"}, table, table
        )
        self.add_run("fit", project, model_id)
        return model_id

    def add_contamination(self, contamination_id: str, prompts: Sequence[str]) -> str:
        """A search that finds a target in each of some rows and all of its plants, and its run."""
        n = len(prompts)
        rows = {
            "id": to_arrow(from_bytes(map(id_of, prompts))),
            "target_set": ["dev"] * n,
            "example": to_arrow(from_bytes(map(id_of, prompts))),
            "example_name": list(map(str, range(n))),
            "rule": ["exact"] * n,
            "score": [1.0] * n,
            "start": [0] * n,
            "stop": [2] * n,
            "excerpt": list(prompts),
        }
        values = ["dev", "verbatim", True, 2, 2, 1.0, 3, 0, 1.0]
        recall = pa.table({name: [value] for name, value in zip(RECALL_COLUMNS, values, strict=True)})
        header = {"contamination_id": contamination_id, "snapshot": "s", "facts": {}}
        commit_contamination(self, header, pa.table(rows), recall)
        self.add_run("decontaminate", None, contamination_id)
        return contamination_id

    def add_run(self, stage: str, target: str | None, subject: str | None, status: str = "ok", **about: Any) -> str:
        now = utc_now()
        run = {"run_id": new_run_id(), "invocation": "i", "stage": stage, "target": target, "status": status}
        more = {
            "subject": subject,
            "started_at": now,
            "finished_at": now,
            "seconds": 0.5,
            "facts": {"x": 1},
            "checks": [],
        }
        return commit_run(self, run | more | about)


def items_of(ids: Ids) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "rank": pa.array(np.arange(1, n + 1, dtype=np.uint32)),
            "id": to_arrow(ids),
            "gain": pa.array(np.linspace(1, 0, n, dtype=np.float32)),
            "kind": pa.array(["target"] * n, pa.string()),
            "ref": pa.array(["gsm8k"] * n, pa.string()),
            "ref_rank": pa.array(np.ones(n, np.int32)),
            "value": pa.nulls(n, pa.float32()),
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> SmallStore:
    """An empty small store."""
    return SmallStore(tmp_path / "store")


@pytest.fixture
def full_store(store: SmallStore) -> SmallStore:
    """Two files, seven rows read: five candidates, one repeat, one unreadable row; two selections of one recipe."""
    a = store.add_file("a", ["p1", "p2", "p3"], bad_lines=[2])
    b = store.add_file("b", ["p3", "p4", "p5"], extra=[{"year": y} for y in (2001, 2002, 2003)])
    store.add_snapshot([a, b])
    store.add_selection("s1", ["p1", "p2", "p4"])
    store.add_selection("s2", ["p4", "p3", "p1"])
    return store
