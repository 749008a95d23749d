"""How much a row's label would tell about the labels of the targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.kernels.probabilities import checked, taken
from selection.kernels.ranking import highest
from selection.noise import hash_uniform
from selection.pool import Pool
from selection.scorers.probability_scorer import ProbabilityScorer
from selection.step import check_integer
from selection.types import Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Epig(ProbabilityScorer):
    """Expected predictive information gain: the mean mutual information between a row's label and those of the targets.

    In nats. I(y; y*) = H(mean p) + H(mean p*) - H(mean of the products), over the members of the committee. `bald` asks
    what a label would tell about the model; `epig` asks what it would tell about the predictions that matter.

    Args:
        targets: how many rows stand for what is to be predicted, if the pool's targets have no probabilities of their
            own (`Targets.committee`). They are drawn at random from the pool that the scorer sees, labelled rows
            included, by noise hashed from the keys; all rows if there are no more. Targets that have probabilities are
            all used.

    Not for: targets that nobody knows: it then takes rows of the pool for them, and `bald` is cheaper.

    Source: Bickford Smith et al. 2023, equation 5; as in baal `EPIG`.
    Cost: n*m*C*C*(members + 10) operations for m targets, so put a filter in front of a large pool. Memory: the
    targets' probabilities, one block and n floats.
    """

    targets: int = 500
    name: ClassVar[str] = "epig"
    source: ClassVar[Input] = Input.COMMITTEE
    loop: ClassVar[str] = "epig"

    def __post_init__(self) -> None:
        check_integer(self.name, "targets", self.targets, least=1)

    def arguments(self, pool: Pool, *, rng: np.random.Generator) -> tuple[Any, ...]:
        """(m, members, C) float64, the targets' probabilities, in an order that does not depend on that of the pool.

        Raises:
            InvalidInput: the targets' probabilities are of other members or classes than the pool's.
        """
        committee = pool.get_committee()
        of_targets = None if pool.targets is None else pool.get_targets().committee
        if of_targets is None:
            rows = highest(hash_uniform(pool.get_keys(), rng), self.targets)
            return (taken(committee, rows, Input.COMMITTEE),)
        targets = checked(of_targets, None, "targets: committee")
        if targets.shape[1:] != committee.shape[1:]:
            raise InvalidInput(
                f"targets: committee has {targets.shape[1]} members and {targets.shape[2]} classes, but the pool's has "
                f"{committee.shape[1]} and {committee.shape[2]}"
            )
        if not len(targets):
            raise InvalidInput("targets: committee is empty, epig needs at least one target")
        return (targets,)
