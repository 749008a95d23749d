"""Centres in eight bits, which rule most of themselves out before a whole product is worked out.

Let x = s q + e and c = t r + f, with whole numbers q and r of eight bits (see `compiled.quantized`). Then

    x.c = (s q).(t r) + e.c + (s q).f <= s t (q.r) + |e| |c| + (|x| + |e|) |f|

where q.r is exact, and a hundredth of |x| |c| or so is added to it. The few operations in float32 that this takes, and
the rounding of |x|^2 and |c|^2, err by less than 16 u of |x|^2 + |c|^2, which `distance_margin` of any number of
features covers.
"""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import quantized as loops
from selection.kernels.compiled.products import LANES
from selection.types import Floats

# With fewer features, whole products cost as little; with more, a sum of bytes might leave the range of 32 bits.
LEAST_FEATURES = 16
MOST_FEATURES = 2**16


class Quantized:
    """The bytes of a growing set of centres.

    Args:
        d: features of a centre.
        capacity: how many centres there may be in the end; none are kept where they are of no use.

    Attributes:
        arrays: the centres, packed, and the numbers that go with them, as the compiled loops take them.

    Memory: d + 12 bytes a centre.
    """

    def __init__(self, d: int, capacity: int) -> None:
        useful = loops.has_instruction() and LEAST_FEATURES <= d <= MOST_FEATURES
        groups = -(-capacity // LANES) if useful else 0
        self.arrays = (
            np.zeros((groups, -(-d // loops.FEATURES), LANES, loops.FEATURES), np.uint8),
            np.zeros((groups, loops.TERMS, LANES), np.float32),
        )
        self.count = 0

    @property
    def in_use(self) -> bool:
        """Whether centres are kept."""
        return len(self.arrays[0]) > 0

    def add(self, centres: Floats) -> None:
        """Quantize the centres that there are now: (count, d), those quantized before and new ones."""
        if self.in_use:
            loops.add(centres, self.count, len(centres), *self.arrays)
            self.count = len(centres)
