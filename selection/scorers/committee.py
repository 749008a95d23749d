"""How much the members of a committee disagree on a row.

Cost of each: one pass over n*members*C probabilities, one block and n floats; the committee is never copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from selection.pool import Pool
from selection.scorers.probability_scorer import ProbabilityScorer
from selection.step import check_choice
from selection.types import Input


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitteeKL(ProbabilityScorer):
    """The KL divergence of a member's probabilities from the mean of all members, in nats.

    Args:
        over: "mean" over the members, which is `bald`; or "max", where a single member that disagrees is enough.

    Not for: committees whose members are the same model: they never disagree.

    Source: McCallum & Nigam 1998; the maximum as in modAL `max_disagreement_sampling`.
    """

    over: str = "mean"
    name: ClassVar[str] = "committee_kl"
    source: ClassVar[Input] = Input.COMMITTEE
    loop: ClassVar[str] = "divergence"

    def __post_init__(self) -> None:
        check_choice(self.name, "over", self.over, ("mean", "max"))

    def arguments(self, pool: Pool, *, rng: np.random.Generator) -> tuple[Any, ...]:  # noqa: ARG002
        """Whether to take the maximum."""
        return (self.over == "max",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bald(ProbabilityScorer):
    """The mutual information between a row's label and the choice of member, in nats: H(mean p) - mean H(p).

    It equals the mean KL divergence of a member from the mean of all members. It is computed that way, because no large
    numbers cancel then.

    Not for: a linear classifier of many classes with few labels each: its members differ most next to classes that
    have several, so the rows are ones that they predict right, and alike. Nor for a task narrower than the pool: it
    also likes rows that teach nothing about what matters, see `epig`.

    Source: Houlsby et al. 2011.
    """

    name: ClassVar[str] = "bald"
    source: ClassVar[Input] = Input.COMMITTEE
    loop: ClassVar[str] = "divergence"

    def arguments(self, pool: Pool, *, rng: np.random.Generator) -> tuple[Any, ...]:  # noqa: ARG002
        """The mean, not the maximum."""
        return (False,)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteEntropy(ProbabilityScorer):
    """The entropy of the members' votes in nats. Each member votes for its likeliest class, ties to the lowest.

    Not for: committees of a few members: there are few distinct scores, and ties go to the lowest row.

    Source: Dagan & Engelson 1995.
    """

    name: ClassVar[str] = "vote_entropy"
    source: ClassVar[Input] = Input.COMMITTEE
    loop: ClassVar[str] = "vote_entropy"

    def arguments(self, pool: Pool, *, rng: np.random.Generator) -> tuple[Any, ...]:  # noqa: ARG002
        """(members + 1,) the term - s log s for each share s of the votes that a class can have."""
        members = pool.get_committee().shape[1]
        share = np.arange(members + 1) / max(members, 1)
        return (-share * np.log(np.where(share > 0, share, 1.0)),)
