"""How much the members of a committee disagree on a row.

Cost of each: one pass over n*members*C probabilities, one block and n floats; the committee is never copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.probabilities import by_row
from selection.step import Scorer, check_choice
from selection.types import Floats, Input, Pool

NEEDS = frozenset({Input.COMMITTEE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bald(Scorer):
    """The mutual information of a row's label and the member, in nats: H(mean p) - mean H(p).

    It is the mean KL divergence of a member from the mean of all, and computed so, since no large numbers cancel.

    Source: Houlsby et al. 2011.
    """

    name: ClassVar[str] = "bald"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.compiled.probabilities import divergence

        return by_row(pool.get_committee(), Input.COMMITTEE, divergence, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitteeKL(Scorer):
    """The KL divergence of a member from the mean of all, in nats.

    Args:
        over: "mean" over the members, which is `bald`, or "max": one dissenter is enough.

    Source: McCallum & Nigam 1998; the maximum as in modAL `max_disagreement_sampling`.
    """

    over: str = "mean"
    name: ClassVar[str] = "committee_kl"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def __post_init__(self) -> None:
        check_choice(self.name, "over", self.over, ("mean", "max"))

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.compiled.probabilities import divergence

        return by_row(pool.get_committee(), Input.COMMITTEE, divergence, self.over == "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteEntropy(Scorer):
    """The entropy of the members' votes in nats: each votes for its likeliest class, ties to the lowest.

    Source: Dagan & Engelson 1995.
    """

    name: ClassVar[str] = "vote_entropy"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.compiled.probabilities import vote_entropy

        committee = pool.get_committee()
        share = np.arange(committee.shape[1] + 1) / max(committee.shape[1], 1)
        terms = -share * np.log(np.where(share > 0, share, 1.0))
        return by_row(committee, Input.COMMITTEE, vote_entropy, terms)
