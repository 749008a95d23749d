"""What a draw says of its selection beside the rows."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from pipelines.recipes import noise
from pipelines.report.gather import gather
from pipelines.stages.ingest import ingest
from pipelines.stages.select import _by_first, _follow, _holds_any, _letters, select
from storage.ids import from_arrow
from storage.records import read_selection
from storage.store import Store
from tests.pipelines.conftest import change, opened


def ids(project: Path, selection_id: str) -> set[bytes]:
    return set(from_arrow(read_selection(Store(project / "store"), selection_id)[1]["id"]).tolist())


def test_noise_floor__is_the_overlap_with_what_another_seed_draws(light: Path) -> None:
    change(light, "budget: 8", "budget: 8, seed: 4, noise_floor: true")
    ingest(opened(light))
    first = select(opened(light), "any")
    change(light, "seed: 4", "seed: 5")
    second = select(opened(light), "any")
    assert first.subject is not None
    assert second.subject is not None
    ours, theirs = ids(light, first.subject), ids(light, second.subject)
    expected = round(len(ours & theirs) / len(ours | theirs), 4)
    assert 0 < expected < 1
    # 4 and 5 differ in their lowest bit, so each is the other's other seed.
    assert first.metrics["overlap_with_another_seed"] == second.metrics["overlap_with_another_seed"] == expected


def test_noise_floor__nothing_is_kept_of_it_and_an_unchanged_selection_is_drawn_once(light: Path) -> None:
    change(light, "budget: 8", "budget: 8, noise_floor: true")
    ingest(opened(light))
    first = select(opened(light), "any")
    assert Store(light / "store").records("selections") == [first.subject]
    with patch.object(noise, "select_rows", side_effect=AssertionError("drawn again")):
        assert (
            select(opened(light), "any").metrics["overlap_with_another_seed"]
            == (first.metrics["overlap_with_another_seed"])
        )


def test_noise_floor__stands_in_the_report_where_the_recipe_asks_for_it(light: Path) -> None:
    ingest(opened(light, invocation="night"))
    select(opened(light, invocation="night"), "any")
    assert [each["noise_floor"] for each in gather(opened(light))[0]["recipes"]] == [None]
    change(light, "budget: 8", "budget: 9, noise_floor: true")
    outcome = select(opened(light, invocation="next"), "any")
    assert [each["noise_floor"] for each in gather(opened(light))[0]["recipes"]] == [
        outcome.metrics["overlap_with_another_seed"]
    ]


TEXTS = st.lists(
    st.text(alphabet="aB3.,?! \u00e9e\u0301\u200b\u2026\uff28\n", max_size=5)
    | st.sampled_from(["a.", "A", "3.5", "35", "?"]),
    max_size=4,
)


@given(st.lists(TEXTS, min_size=1, max_size=4), TEXTS)
def test_leaked__as_if_each_row_were_compared_with_each_target(targets: list[list[str]], texts: list[str]) -> None:
    row = [("user", text) for text in texts]
    asked = [tuple(filter(None, map(_letters, questions))) for questions in targets]
    held = [_letters(text) for text in texts if text]
    expected = any(questions and _follow(questions, held) for questions in asked)
    by_first = _by_first([[("user", text) for text in questions] for questions in targets])
    assert _holds_any(row, by_first) == expected
