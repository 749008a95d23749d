"""What turns rows into vectors: what the kinds of entries of `encoders:` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from selection.encoders.format import Turns
from selection.types import Floats


@dataclass(frozen=True)
class Encoded:
    """Vectors of some rows.

    Attributes:
        vectors: (n, d) float32 of any length; zeros, or values that are not finite, where a row has none.
        failed: row -> why it has no vector, where that is known beforehand.
        not_finite: why the other rows without a vector have none.
        norms: (n, checkpoints) lengths of gradients, which their vectors lost; None for other kinds.
        tokens: how many were read, padding not counted.
        truncated: how many rows were cut at `max_tokens`.
    """

    vectors: Floats
    failed: Mapping[int, str]
    tokens: int
    truncated: int
    not_finite: str = "values not finite"
    norms: Floats | None = None


class Vectorizer(Protocol):
    """A representation in memory, ready to work.

    Attributes:
        device: "cpu", "cuda:0", ...
        dimension: d of its vectors.
        max_tokens: the tokens of a row that are read, the rest is cut; None where all of it is read.
        batch_tokens: the default token budget of a batch on this device.
        parameters: numbers that each token meets, 0 if it only looks them up; sizes the segments.
        notes: messages for the user.
    """

    @property
    def device(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int | None: ...

    @property
    def batch_tokens(self) -> int: ...

    @property
    def parameters(self) -> int: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def vectors_of(
        self,
        rows: Sequence[Turns],
        *,
        batch_tokens: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> Encoded:
        """The vectors of rows: a row depends on itself and the batches alone.

        Args:
            batch_tokens: tokens in a batch, padding included.
            on_batch: called after each batch with its number of rows.
        """
        ...


@runtime_checkable
class Probed(Vectorizer, Protocol):
    """A `Vectorizer` whose model lies elsewhere, where another one may take its name.

    Attributes:
        probe: (d,) float32 of norm 1, its vector of a fixed text; kept beside its vectors.
    """

    @property
    def probe(self) -> Floats: ...

    def require_same(self, probe: Sequence[float]) -> None:
        """Compare with the probe of the run that made the vectors.

        Raises:
            ServerFailed: another model answers now.
        """
        ...


@runtime_checkable
class Representation(Protocol):
    """All that vectors depend on: a frozen dataclass, JSON-plain; `asdict` is its record and rebuilds it.

    Attributes:
        kind: its name in `kind:`.
        max_tokens: the tokens of a row that are read at most; None for the model's own limit.
        store: how vectors are stored.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def kind(self) -> str: ...

    @property
    def max_tokens(self) -> int | None: ...

    @property
    def store(self) -> Literal["float16", "float32"]: ...

    def check(self) -> None:
        """Whether the files that it names are there; nothing is loaded.

        Raises:
            InvalidOption: one is not.
        """
        ...

    def fingerprint(self) -> str:
        """32 hex digits of everything that a candidate's vector depends on; names the folder of its vectors."""
        ...

    def for_targets(self) -> Self:
        """What the targets' vectors depend on: the same, or another one where targets are read otherwise."""
        ...


def record_of(spec: Representation) -> dict[str, Any]:
    """The options as JSON; they rebuild the spec.

    Keys that came later (`added_keys` of the class) stand in it only where they are not as by default, so that records
    and digests of earlier versions stay as they are.
    """
    defaults = {each.name: each.default for each in fields(spec)}
    added = getattr(spec, "added_keys", ())
    return {key: value for key, value in asdict(spec).items() if key not in added or value != defaults[key]}
