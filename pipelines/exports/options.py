"""What may be asked of an export: shapes, trainers and which of them go together. Configuration and command check by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.errors import BadExport
from pipelines.messages import listed, nearest

SHAPES = (
    "messages",
    "prompt-completion",
    "preference",
    "preference-text",
    "alpaca",
    "sharegpt",
    "sharegpt-preference",
    "text",
)
FORMATS = (*SHAPES, "ids", "parquet", "hf")
MAX_SHARDS = 10_000
# Trainer -> the shapes that it reads from JSON Lines.
TRAINER_SHAPES: Mapping[str, tuple[str, ...]] = {
    "trl": ("messages", "prompt-completion", "preference", "preference-text", "text"),
    "llama-factory": ("messages", "alpaca", "sharegpt", "sharegpt-preference", "text"),
    "axolotl": ("messages", "text"),
    "open-instruct": ("messages",),
    "torchtune": ("messages", "text"),
    "ms-swift": ("messages",),
    "nemo-automodel": ("messages",),
}
# Those that read a folder of Parquet as well.
READ_PARQUET = ("trl",)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a selection is exported.

    Attributes:
        to: one of `FORMATS`.
        trainer: whose file is written beside the data, and whose rules leave out rows; None for neither.
        columns: further fields of each record.
        shuffle: the seed of the order; None for rank order.
        shards: how many data files.
        allow_left_out: the share of rows that may be left out since the shape cannot hold them, 0 to 1.

    Raises:
        BadExport: they make no sense together; says what is allowed.
    """

    to: str
    trainer: str | None = None
    columns: tuple[str, ...] = ()
    shuffle: int | None = None
    shards: int = 1
    allow_left_out: float = 0.0

    def __post_init__(self) -> None:
        if self.to not in FORMATS:
            raise BadExport("to", f"must be one of {listed(FORMATS)}, found {self.to!r}{nearest(self.to, FORMATS)}")
        if not 1 <= self.shards <= MAX_SHARDS:
            raise BadExport("shards", f"must be in 1..{MAX_SHARDS}, found {self.shards}")
        if not 0 <= self.allow_left_out <= 1:
            raise BadExport("allow_left_out", f"must be a share in 0..1, found {self.allow_left_out:g}")
        if self.shuffle is not None and self.shuffle < 0:
            raise BadExport("shuffle", f"a seed must be at least 0, found {self.shuffle}")
        repeated = [name for name, count in Counter(self.columns).items() if count > 1]
        if repeated:
            raise BadExport("columns", f"{repeated[0]!r} comes twice")
        if self.trainer is not None:
            self._check_trainer(self.trainer)

    @property
    def container(self) -> str:
        """What the data files are: "jsonl" or "parquet"."""
        return "parquet" if self.to in ("parquet", "hf") else "jsonl"

    def _check_trainer(self, trainer: str) -> None:
        if trainer not in TRAINER_SHAPES:
            raise BadExport(
                "trainer",
                f"must be one of {listed(TRAINER_SHAPES)}, found {trainer!r}{nearest(trainer, TRAINER_SHAPES)}",
            )
        # What shape the rows of `hf` have, they say themselves; whoever reads Parquet reads all of them.
        reads = (*TRAINER_SHAPES[trainer], *(("hf",) if trainer in READ_PARQUET else ()))
        if self.to not in reads:
            raise BadExport("trainer", f"{trainer} reads {listed(reads)}, not {self.to!r}")
