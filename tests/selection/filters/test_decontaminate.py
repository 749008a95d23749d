from __future__ import annotations

import numpy as np
import pytest

from selection import Pool, Targets, select
from selection.errors import InvalidInput, InvalidOption, MissingInput
from selection.filters.decontaminate import Decontaminate

QUESTION = "Janet has 3 ducks. Each of them lays 16 eggs per day, and she eats three. How many are left?"
SHORT = "Name a prime number."
TEXTS = [
    "Something else entirely, of some other words.",
    f"Here is a riddle:\n{QUESTION.upper().replace('.', ' --').replace(',', '')}\nThe answer is 45.",
    "Janet has 3 ducks. Each of them lays 16 eggs per day, and she eats three. How much does she earn?",
    "janet has no ducks",
    f"user:\n{SHORT}\nSeven",
    "Can you name a prime number of four digits?",
]


def dropped(step: Decontaminate, pool: Pool, budget: int = 1) -> dict[int, tuple[str, str | None, float]]:
    selection = select([step, "random"], pool, budget=budget)
    (report,) = selection.dropped
    assert report.step == "decontaminate"
    reason = report.reason
    values = zip(reason.kind.tolist(), reason.text(), reason.value.tolist(), strict=True)
    return dict(zip(report.rows.tolist(), values, strict=True))


def test_decontaminate__says_which_question_by_which_rule_and_how_much_of_it() -> None:
    pool = Pool(texts=TEXTS, target_questions=[QUESTION, SHORT], target_names=["ducks/1", "primes/1"])
    rows = dropped(Decontaminate(), pool)
    assert {row: reason[:2] for row, reason in rows.items()} == {
        1: ("exact", "ducks/1"),
        2: ("ngrams", "ducks/1"),
        4: ("exact", "primes/1"),
    }
    # Of the 16 runs of 5 of its 20 words, the row holds those of the first 17 words.
    assert rows[2][2] == pytest.approx(13 / 16)


def test_decontaminate__more_of_a_question_is_wanted_than_the_row_holds() -> None:
    pool = Pool(texts=TEXTS, target_questions=[QUESTION])
    assert set(dropped(Decontaminate(threshold=0.9), pool)) == {1}


def test_decontaminate__names_the_target_of_which_a_row_holds_most() -> None:
    half = " ".join(QUESTION.split()[:12]) + " ".join(f" word{i}" for i in range(7))
    pool = Pool(texts=TEXTS, target_questions=[half, QUESTION])
    rows = dropped(Decontaminate(threshold=0.2), pool)
    assert rows[1][:2] == ("exact", "1")


def test_decontaminate__rows_that_are_no_candidates_are_not_looked_at() -> None:
    pool = Pool(texts=TEXTS, target_questions=[QUESTION], already_selected=[1], eligible=np.arange(6) != 2)
    assert dropped(Decontaminate(), pool) == {}


def test_decontaminate__rows_near_a_target_go_by_cosine_where_no_rule_on_texts_has_them() -> None:
    vectors = np.array([[3, 4], [1, 0], [0, 0], [0, 5], [4, 3], [-1, 0]], np.float16)
    questions = {"texts": TEXTS, "target_questions": [QUESTION, SHORT], "target_names": ["ducks/1", "primes/1"]}
    pool = Pool(**questions, vectors=vectors, targets=Targets(np.eye(2, dtype=np.float32), ids=("east", "north")))
    assert set(dropped(Decontaminate(), pool)) == {1, 2, 4}
    rows = dropped(Decontaminate(similarity=0.8), pool)
    assert {row: reason[:2] for row, reason in rows.items()} == {
        0: ("embedding", "target/north"),
        1: ("exact", "ducks/1"),
        2: ("ngrams", "ducks/1"),
        3: ("embedding", "target/north"),
        4: ("exact", "primes/1"),
    }
    assert rows[0][2] == pytest.approx(0.8)


@pytest.mark.parametrize("seed", range(20))
def test_decontaminate__cosines_are_those_of_a_literal_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, Q = rng.integers(-2, 3, (30, 3)), rng.integers(-2, 3, (4, 3))
    lengths = np.sqrt((X**2).sum(axis=1))[:, None] * np.sqrt((Q**2).sum(axis=1))
    cosines = np.divide(X @ Q.T, lengths, out=np.full((30, 4), -2.0), where=lengths > 0)
    eligible = rng.random(30) < 0.8
    pool = Pool(
        texts=["nothing"] * 30,
        target_questions=["what is asked here"],
        vectors=X.astype(np.float32),
        targets=Targets(Q.astype(np.float32)),
        eligible=eligible,
    )
    bound = float(
        rng.choice([-1, 0, 0.49, 0.7, 0.99])
    )  # between the cosines that there are, so that rounding decides nothing
    kept, report = Decontaminate(similarity=bound).apply(pool, 1, rng=rng)
    near = [row for row in range(30) if eligible[row] and cosines[row].max() >= bound]
    assert report.rows.tolist() == near
    assert kept.tolist() == np.setdiff1d(np.flatnonzero(eligible), near).tolist()
    first = [int(np.argmax(cosines[row] >= cosines[row].max() - 1e-12)) for row in near]
    assert report.reason.text() == [f"target/{target}" for target in first]


def test_decontaminate__wrong_options_and_inputs() -> None:
    with pytest.raises(InvalidOption, match=r"similarity must be in -1 <= similarity <= 1, got 2"):
        Decontaminate(similarity=2)
    with pytest.raises(MissingInput, match="decontaminate needs vectors"):
        select(
            [Decontaminate(similarity=0.9), "random"],
            Pool(texts=TEXTS, target_questions=["a"], targets=np.eye(2)),
            budget=1,
        )
    with pytest.raises(InvalidOption, match=r"short_n must be at most n = 3, got 5"):
        Decontaminate(n=3)
    with pytest.raises(InvalidOption, match=r"threshold must be in 0 < threshold <= 1, got 1\.5"):
        Decontaminate(threshold=1.5)
    with pytest.raises(MissingInput, match="decontaminate needs target_questions"):
        select(["decontaminate", "random"], Pool(texts=TEXTS), budget=1)
    with pytest.raises(InvalidInput, match="target_names: must be one for each of 1 questions, got 2"):
        Pool(texts=TEXTS, target_questions=["a"], target_names=["a", "b"])
