from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.selectors import batch_bald as module

# (members, rows, classes)
MEMBERS = [
    [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]],
    [[0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.5, 0.5]],
    [[0.1, 0.9], [0.55, 0.45], [0.2, 0.8], [0.5, 0.5]],
]
COMMITTEE = np.array(MEMBERS).transpose(1, 0, 2)


def draw(budget, committee=COMMITTEE, *, seed=0, already=(), **options):
    return select(
        [{"batch_bald": options}], Pool(committee=committee, already_selected=list(already)), budget=budget, seed=seed
    )


def entropy(p):
    p = np.asarray(p)[np.asarray(p) > 0]
    return -(p * np.log(p)).sum()


def score(committee, batch):
    """H(y_S) - sum E H(y_i | m), every tuple of labels written out."""
    members, classes = committee.shape[1:]
    joint = [
        np.mean([np.prod([committee[i, m, y] for i, y in zip(batch, labels, strict=True)]) for m in range(members)])
        for labels in product(range(classes), repeat=len(batch))
    ]
    return entropy(joint) - sum(np.mean([entropy(p) for p in committee[i]]) for i in batch)


def greedy(committee, budget, among=None):
    among = range(len(committee)) if among is None else among
    batch, scores = [], []
    for _ in range(budget):
        options = {i: round(score(committee, [*batch, i]), 10) for i in among if i not in batch}
        batch.append(max(options, key=lambda i: (options[i], -i)))
        scores.append(options[batch[-1]])
    return batch, scores


# Equal to scikit-activeml 1.0.1 with 1000 Monte Carlo samples.
def test_select__known_answer() -> None:
    s = draw(3)
    assert s.rows.tolist() == [0, 1, 2]
    np.testing.assert_allclose(s.reason.value, [0.2894888769, 0.3236066055, 0.3236066055], atol=1e-7)
    np.testing.assert_allclose(s.gain, [0.2894888769, 0.0341177286, 0], atol=1e-7)
    assert s.gain[2] == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("members", "classes", "budget"), [(3, 2, 6), (4, 3, 4), (1, 3, 3), (5, 1, 3)])
def test_select__what_the_joint_entropy_written_out_says(seed, members, classes, budget) -> None:
    committee = np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), (9, members))
    committee[4] = committee[7]
    rows, scores = greedy(committee, budget)
    s = draw(budget, committee)
    assert s.rows.tolist() == rows
    np.testing.assert_allclose(s.reason.value, scores, atol=1e-6)


def test_select__probabilities_of_zero() -> None:
    committee = np.eye(3)[np.array([[0, 0, 1], [1, 1, 2], [0, 1, 2], [0, 0, 0]])]
    s = draw(4, committee)
    assert s.rows.tolist() == [2, 0, 1, 3]
    np.testing.assert_allclose(s.gain, [np.log(3), 0, 0, 0], atol=1e-7)


def test_select__of_twins_the_second_waits() -> None:
    committee = np.concatenate([COMMITTEE[:1], COMMITTEE[:1], COMMITTEE[1:]])
    bald = select(["bald", "top"], Pool(committee=committee), budget=2).rows.tolist()
    assert bald == [0, 1]
    assert draw(1, committee).rows.tolist() == [0]
    twice, other = score(committee, [0, 1]), score(committee, [0, 2])
    assert draw(2, committee).rows[1] == (1 if twice > other else 2)
    sure = np.concatenate([np.eye(2)[np.array([[0, 0, 1]] * 2)], COMMITTEE[1:]])
    assert draw(2, sure).rows.tolist() == [0, 2]  # the first says all there is to know, but for members 0 and 1


def test_select__only_the_best_by_bald_are_looked_at() -> None:
    committee = np.random.default_rng(1).dirichlet(np.ones(3), (12, 4))
    bald = [score(committee, [i]) for i in range(12)]
    among = sorted(np.argsort(bald)[::-1][:4].tolist())
    assert draw(3, committee, candidates=4).rows.tolist() == greedy(committee, 3, among)[0]
    assert sorted(draw(5, committee, candidates=1).rows.tolist()) == sorted(np.argsort(bald)[::-1][:5].tolist())


def test_select__already_selected_rows_do_not_count() -> None:
    committee = np.concatenate([COMMITTEE, COMMITTEE])
    assert draw(3, committee, already=range(4, 8)).rows.tolist() == [0, 1, 2]


def information_after(committee, picks, seed):
    """The states after the labels of the picks, and the information that each row's label adds."""
    from selection.kernels.compiled.probabilities import information

    rng, out = np.random.default_rng(seed), np.empty(len(committee))
    states = module.LabelStates.without_labels(committee.shape[1])
    for row in picks:
        states = states.with_label(committee[row], rng)
    information(committee, states.weights, states.chance, out)
    return states, out


def test_label_states__a_sample_has_the_information_of_all_tuples_as_its_mean(monkeypatch) -> None:
    committee = np.random.default_rng(3).dirichlet(np.ones(2), (12, 4))
    states, exact = information_after(committee, range(7), 0)
    assert (states.sampled, len(states.chance)) == (False, 2**7)
    assert states.chance.sum() == pytest.approx(1)
    # Four labels are written out, the fifth starts the sample, two more are drawn.
    monkeypatch.setattr(module, "TUPLES", 20)
    sampled = np.array([information_after(committee, range(7), seed)[1] for seed in range(400)])
    error = sampled.std(axis=0) / np.sqrt(400)
    assert (np.abs(sampled.mean(axis=0) - exact) < 4 * error).all()
    assert (error < 0.1 * exact).all()


def test_select__long_batches_go_by_the_seed_alone() -> None:
    committee = np.random.default_rng(4).dirichlet(np.ones(12), (40, 5))
    s = draw(8, committee)
    assert s.rows.tolist() == draw(8, committee).rows.tolist()
    assert s.rows[:4].tolist() == draw(4, committee).rows.tolist()
    assert (np.diff(s.reason.value) >= 0).all()
    assert s.reason.value[-1] <= np.log(5) + 0.02


@pytest.mark.parametrize("bad", [[0.5, 0.6], [-0.1, 1.1], [np.nan, 0.5]])
def test_select__a_member_that_gives_no_distribution_is_named(bad) -> None:
    committee = COMMITTEE.copy()
    committee[2, 1] = bad
    with pytest.raises(InvalidInput, match="row 2"):
        draw(2, committee)


def test_select__needs_and_options() -> None:
    with pytest.raises(MissingInput, match="batch_bald needs committee"):
        select(["batch_bald"], Pool(vectors=np.ones((3, 2), np.float32)), budget=1)
    with pytest.raises(InvalidOption, match="batch_bald: candidates must be an integer >= 1"):
        draw(1, candidates=0)
