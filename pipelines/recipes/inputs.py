"""What a draw gets beside the pool. A plain recipe adds nothing; a labeling project adds what its labels say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from selection import Targets
from selection.types import Floats, RowBlocks, Rows

Mask = npt.NDArray[np.bool_]


class DrawInputs:
    """The inputs of a recipe that has none beside the pool. Subclasses compute theirs only when a draw asks for them."""

    @property
    def labels(self) -> Rows | None:
        """(n,) class numbers of the rows that train, -1 elsewhere."""
        return None

    @property
    def labelled(self) -> Rows | None:
        """The rows with a label, ascending: steps keep their distance from them and do not choose them again."""
        return None

    @property
    def probabilities(self) -> RowBlocks | Floats | None:
        """(n, C) of the classes."""
        return None

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes; none where they are not known."""
        return ()

    @property
    def committee(self) -> RowBlocks | None:
        """(n, members, C) of the classes."""
        return None

    @property
    def exclusions(self) -> Mapping[str, Mask]:
        """Rule -> (n,) the rows that it keeps out of the draw, in the order in which the rules are applied."""
        return {}

    def on_targets(self, targets: Targets) -> Targets:
        """The targets with what a committee says of them."""
        return targets

    def affordable(self, rows: Rows) -> int:
        """How many of the picked rows, in their order, can be paid."""
        return len(rows)

    def header(self) -> dict[str, Any]:
        """What the record of the selection says of these inputs."""
        return {"label_imports": None}


NO_INPUTS = DrawInputs()
