"""How much a row's label would tell about the labels that matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.kernels.probabilities import Doubles, by_row, checked, taken
from selection.noise import hash_uniform
from selection.selectors.top import highest
from selection.step import Scorer, check_integer
from selection.types import Floats, Input, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Epig(Scorer):
    """Expected predictive information gain: the mean over targets of the mutual information of a row's label and theirs.

    In nats. I(y; y*) = H(mean p) + H(mean p*) - H(mean of the products), over the members of the committee. Unlike `bald` it does not
    ask for what would be learned about the model but about its predictions where they are needed.

    Args:
        targets: how many rows stand for what is to be predicted where the pool's targets bring no probabilities of their
            own (`Targets.committee`): drawn at random from the pool that the scorer sees, labelled rows included, by noise that
            follows the keys. All if there are no more. Targets with probabilities are all used.

    Source: Bickford Smith et al. 2023, equation 5; as in baal `EPIG`.
    Cost: n*m*C*C*(members + 10) operations for m targets, so set a filter in front of a large pool. Memory: the targets'
    probabilities, one block and n floats.
    """

    targets: int = 500
    name: ClassVar[str] = "epig"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.COMMITTEE})

    def __post_init__(self) -> None:
        check_integer(self.name, "targets", self.targets, least=1)

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:
        """See `Scorer.score`.

        Raises:
            InvalidInput: the targets' probabilities are of other members or classes than the pool's.
        """
        from selection.kernels.compiled.probabilities import epig

        committee = pool.get_committee()
        if not len(pool):
            return np.empty(0, np.float32)
        return by_row(committee, Input.COMMITTEE, epig, self._targets(pool, rng))

    def _targets(self, pool: Pool, rng: np.random.Generator) -> Doubles:
        """(m, members, C) float64, in an order that does not depend on that of the pool."""
        committee = pool.get_committee()
        if pool.targets is None or pool.targets.committee is None:
            rows = highest(hash_uniform(pool.get_keys(), rng), self.targets)
            return taken(committee, rows, Input.COMMITTEE)
        given = checked(pool.targets.committee, None, "targets: committee")
        if given.shape[1:] != committee.shape[1:]:
            raise InvalidInput(
                f"targets: committee has {given.shape[1]} members and {given.shape[2]} classes, but the pool's has "
                f"{committee.shape[1]} and {committee.shape[2]}"
            )
        if not len(given):
            raise InvalidInput("targets: committee is empty, epig needs at least one target")
        return given
