"""`winnow diff`: the difference between two selections."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.diff import diff_tables
from pipelines.run import run_all
from pipelines.stages.publish import publish
from pipelines.stages.select import select
from storage.errors import NotInStore
from tests.pipelines.conftest import change, opened


def test_diff_tables__of_what_is_not_published_yet_is_refused(light: Path) -> None:
    (first,) = run_all(opened(light), ["any"])
    change(light, "budget: 8", "budget: 9")
    second = select(opened(light), "any")
    store = opened(light).store
    with pytest.raises(NotInStore, match=f"no selection '{second.subject}' in the published catalog"):
        diff_tables(store, "any", None)
    publish(opened(light))
    assert diff_tables(store, "any", None)[0][0] == f"from {first.subject} to {second.subject}"
