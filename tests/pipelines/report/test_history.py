"""What a report reads of the runs before it: nothing older than the last one that drew something."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import runs as reading
from pipelines.report.history import history_of
from pipelines.run import run_all
from storage.damage import readable
from storage.store import Store
from tests.pipelines.conftest import opened


@pytest.mark.parametrize("invocations", [(None, None, None), ("night-1", "night-2", "night-3")], ids=["id", "noted"])
def test_stages_of_previous__are_all_of_that_run_and_nothing_older_is_read(
    light: Path, invocations: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = []
    for invocation in invocations:  # each opened when the one before has ended
        contexts.append(opened(light, invocation=invocation))
        run_all(contexts[-1])
    first, previous, last = contexts
    read: list[str] = []

    def noting(store: Store, kind: str, run_id: str) -> object:
        read.append(run_id)
        return readable(store, kind, run_id)

    monkeypatch.setattr(reading, "readable", noting)
    stages = history_of(last, last.invocation).stages_of_previous(last.store)
    assert {run["invocation"] for run in stages} == {previous.invocation}
    assert [run["stage"] for run in stages][-1] == "ingest"
    monkeypatch.undo()
    older = [run["run_id"] for run in reading.runs(first.store) if run["invocation"] == first.invocation]
    assert len(set(older) & set(read)) == 1  # by which the end is seen
