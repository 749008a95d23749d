"""What a row would teach a model: the gradient of the loss on its answer, projected to a short vector.

A row's gradient is that of the mean negative log-likelihood of its answer's tokens with respect to chosen parameters.
Two rows with a high cosine would move the model alike (Xia et al. 2024, LESS).

Of several checkpoints of a training run, each gives a unit part, scaled by the square root of its share of the learning
rates; the parts stand one behind the other. The inner product of two such vectors is the weighted mean of the
checkpoints' cosines, which is LESS's influence, and every vector has length 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from selection.encoders.answers import ALONE, CUT, AnswerReader, Reading
from selection.encoders.encoder import side_by_side
from selection.encoders.format import Turns
from selection.encoders.moments import Moments, load_moments, no_moments
from selection.encoders.projection import Projection, Projector
from selection.encoders.representation import Encoded
from selection.encoders.spec import EncoderSpec, file_digest, folder_digest, invalid_encoder
from selection.encoders.token_scores import load_causal_model
from selection.errors import InvalidOption
from selection.step import check_choice
from selection.types import Floats, Rows

# Part of the fingerprint. Increase it whenever the same spec would give other vectors.
GRADIENTS_VERSION = 1
# Bytes of gradients that wait for their projection: in each thread of a CPU, or on a card.
GRADIENT_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}
ADAPTER = "adapter_config.json"
NO_DIRECTION = "gradient zero or not finite"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model at a moment of its training.

    Attributes:
        model: a hub name ("org/model"), a local folder, or "package:<name>"; or a folder with LoRA adapters, for which
            `peft` must be installed.
        learning_rate: the mean learning rate of the steps that led to it; only the proportions between the checkpoints
            count.
        optimizer: for `direction: adam`, the file of the optimizer's moments: optimizer.pt of transformers' Trainer, or
            safetensors. By default the optimizer.safetensors or optimizer.pt in the model's folder.
    """

    model: str
    learning_rate: float = 1.0
    optimizer: str | None = None

    def __post_init__(self) -> None:
        EncoderSpec(model=self.model)
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
            raise invalid_encoder(f"learning_rate must be a number above 0, got {rate!r}", "learning_rate")
        if self.optimizer is not None and (not isinstance(self.optimizer, str) or not self.optimizer):
            raise invalid_encoder(f"optimizer must be a file, got {self.optimizer!r}", "optimizer")

    def check(self, *, moments: bool) -> None:
        """Whether its files are there, with those of the optimizer if `moments`; nothing is loaded.

        Raises:
            InvalidOption: one is not, or `peft` is missing.
        """
        self.base().folder()
        if self.adapter() is not None:
            _require_peft(self.model)
        if moments and not self.moments_file().is_file():
            raise no_moments(self.moments_file())

    def adapter(self) -> Path | None:
        """The folder, if it holds LoRA adapters."""
        folder = Path(self.model).expanduser().absolute()
        return folder if (folder / ADAPTER).is_file() else None

    def base(self) -> EncoderSpec:
        """What finds the model's files; those of the base model of adapters."""
        folder = self.adapter()
        if folder is None:
            return EncoderSpec(model=self.model)
        try:
            name = json.loads((folder / ADAPTER).read_text("utf-8"))["base_model_name_or_path"]
            return EncoderSpec(model=name)
        except (ValueError, LookupError, TypeError, OSError) as error:
            raise invalid_encoder(f"{folder / ADAPTER} names no base model: {error}") from error

    def digest(self) -> str:
        """What its weights depend on: the files of its folders, or a hub commit."""
        base, adapter = self.base(), self.adapter()
        folder = base.folder()
        name = folder_digest(folder) if folder else f"{base.model}@{base.commit()}"
        return f"{name}+{folder_digest(adapter)}" if adapter else name

    def moments_file(self) -> Path:
        """The file of the optimizer's moments.

        Raises:
            InvalidOption: there is none.
        """
        if self.optimizer is not None:
            return Path(self.optimizer).expanduser().absolute()
        folder = self.adapter() or self.base().folder()
        files = [folder / name for name in ("optimizer.safetensors", "optimizer.pt")] if folder else []
        for file in files:
            if file.is_file():
                return file
        where = "its folder holds neither" if folder else "it is no folder on this disk with"
        raise invalid_encoder(
            f"model {self.model!r}: direction: adam needs the optimizer's moments, and {where} optimizer.pt {'nor' if folder else 'or'} "
            "optimizer.safetensors; name the file under `optimizer`, or say `direction: plain`",
            "optimizer",
        )


def _checkpoint(value: Any) -> Checkpoint:
    """A checkpoint, also from its record.

    Raises:
        InvalidOption: it has keys that no checkpoint has, or lacks the model.
    """
    if isinstance(value, Checkpoint):
        return value
    keys = [each.name for each in fields(Checkpoint)]
    if not isinstance(value, Mapping) or "model" not in value or not set(value) <= set(keys):
        raise invalid_encoder(f"a checkpoint takes {', '.join(keys)} and needs the first, got {value!r}", "checkpoints")
    return Checkpoint(**value)


@dataclass(frozen=True, kw_only=True)
class GradientSpec:
    """Per-example gradients as vectors. JSON-plain: `asdict` is the record and rebuilds it.

    Attributes:
        kind: "gradients".
        model: a causal language model: a hub name ("org/model"), a local folder, "package:<name>", or a folder with
            LoRA adapters, for which `peft` must be installed.
        optimizer: its optimizer's moments, see `checkpoints[]`.
        checkpoints: instead of `model`, several checkpoints of a training run, each with its learning rate.
        parameters: patterns of the names of parameters ("model.layers.31.*", "*.mlp.down_proj.weight"). By default all,
            of a folder with adapters the adapters'.
        direction: "plain": the gradient itself. "adam": the step that Adam would take with it, m'/sqrt(v' + eps) from
            the optimizer's stored moments. Targets are always "plain".
        projection: "count_sketch", or "rademacher" as LESS, which costs `dims` times as much and errs no less.
        dims: dimensions of the projected gradient of each checkpoint; a cosine errs by about 1 / sqrt(dims).
        seed: of the random projection.
        template: how turns become text: "tulu" (as RDS+), "plain", "chat_template" (the tokenizer's own).
        max_tokens: rows are cut on the right at this length, or at the model's own limit if it is lower. A row whose
            answer is cut has no vector.
        store: how vectors are stored: "float16", or "float32" in twice the space.

    Weights and gradients are float32 whatever the model's files hold: bfloat16 loses the small ones.
    """

    model: str | None = None
    optimizer: str | None = None
    checkpoints: Sequence[Checkpoint] = ()
    parameters: Sequence[str] = ()
    direction: Literal["plain", "adam"] = "plain"
    projection: Projection = "count_sketch"
    dims: int = 1024
    seed: int = 0
    template: Literal["tulu", "plain", "chat_template"] = "tulu"
    max_tokens: int = 2048
    store: Literal["float16", "float32"] = "float16"
    kind: Literal["gradients"] = "gradients"

    def __post_init__(self) -> None:
        if (self.model is None) == (not self.checkpoints):
            raise invalid_encoder(
                f"gradients need either a model or checkpoints, got model {self.model!r} and "
                f"{len(self.checkpoints)} checkpoints"
            )
        object.__setattr__(self, "checkpoints", tuple(map(_checkpoint, self.checkpoints)))
        object.__setattr__(
            self, "parameters", (self.parameters,) if isinstance(self.parameters, str) else tuple(self.parameters)
        )
        if self.checkpoints and self.optimizer is not None:
            raise invalid_encoder("optimizer stands beside each of the checkpoints", "optimizer")
        choices = {
            "direction": ("plain", "adam"),
            "projection": get_args(Projection),
            "template": ("tulu", "plain", "chat_template"),
            "store": ("float16", "float32"),
            "kind": ("gradients",),
        }
        for name, allowed in choices.items():
            check_choice("encoder", name, getattr(self, name), allowed)
        for name, least in (("dims", 1), ("max_tokens", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise invalid_encoder(f"{name} must be a whole number >= {least}, got {value!r}", name)
        for pattern in self.parameters:
            if not isinstance(pattern, str) or not pattern:
                raise invalid_encoder(f"parameters must be patterns of names, got {pattern!r}", "parameters")
        _ = self.all_checkpoints

    @property
    def all_checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints, or the model as the only one."""
        return tuple(self.checkpoints) or (Checkpoint(model=self.model or "", optimizer=self.optimizer),)

    @property
    def weights(self) -> tuple[float, ...]:
        """Each checkpoint's share of the sum of the learning rates."""
        total = sum(each.learning_rate for each in self.all_checkpoints)
        return tuple(each.learning_rate / total for each in self.all_checkpoints)

    @property
    def dimension(self) -> int:
        """The length of the vectors."""
        return self.dims * len(self.all_checkpoints)

    def check(self) -> None:
        """Whether the files that it names are there; see `Representation.check`."""
        try:
            for checkpoint in self.all_checkpoints:
                checkpoint.check(moments=self.direction == "adam")
        except InvalidOption as error:
            raise invalid_encoder(
                error.reason, "checkpoints" if self.checkpoints else error.option or "model"
            ) from None

    def for_targets(self) -> GradientSpec:
        """The spec of the targets' vectors: plain gradients, as LESS has it."""
        plain = tuple(replace(each, optimizer=None) for each in self.checkpoints)
        return replace(self, direction="plain", optimizer=None, checkpoints=plain)

    def fingerprint(self) -> str:
        """32 hex digits of everything that a vector depends on: options, the models' files, the optimizers' files.

        Paths of local files do not count, nor do versions of libraries.
        """
        inputs = asdict(self) | {
            "version": GRADIENTS_VERSION,
            "parameters": sorted(set(self.parameters)),
            "checkpoints": [
                [each.digest(), weight, file_digest(each.moments_file()) if self.direction == "adam" else None]
                for each, weight in zip(self.all_checkpoints, self.weights, strict=True)
            ],
        }
        del inputs["model"], inputs["optimizer"]
        return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class _Loaded:
    """A checkpoint in memory: its network, the parameters whose gradients are taken, and Adam's moments of them."""

    network: Any
    chosen: dict[str, Any]
    moments: Moments | None

    @property
    def size(self) -> int:
        return sum(parameter.numel() for parameter in self.chosen.values())


class GradientEncoder:
    """Checkpoints in memory; made by `load_gradient_encoder`.

    Attributes:
        spec: the options that it was loaded from.
        reader: what turns rows into tokens.
        parts: the checkpoints: `network`, `chosen` parameters by name and `moments` of each.
        device: "cpu", "cuda:0", ...
        dimension: d of its vectors.
        max_tokens: the effective limit.
        batch_tokens: of no effect: a row is read alone.
        parameters: the number of weights that a token meets, forwards and backwards, in all checkpoints.
        size: the number of parameters whose gradients are taken, of each checkpoint.
        notes: messages for the user.
    """

    batch_tokens = 1

    def __init__(self, spec: GradientSpec, reader: AnswerReader, parts: Sequence[_Loaded], device: str) -> None:
        self.spec, self.device, self.dimension = spec, device, spec.dimension
        self.reader, self.parts = reader, parts
        self.size = parts[0].size
        self._projector = Projector(kind=spec.projection, size=self.size, dims=spec.dims, seed=spec.seed)
        self.max_tokens = reader.max_tokens
        self.parameters = 3 * sum(p.numel() for part in parts for p in part.network.parameters())
        self.rows_at_once = max(1, GRADIENT_BYTES["cuda" if device.startswith("cuda") else "cpu"] // (4 * self.size))
        self.notes = reader.notes

    def vectors_of(
        self,
        rows: Sequence[Turns],
        *,
        batch_tokens: int | None = None,  # noqa: ARG002
        on_batch: Callable[[int], None] | None = None,
    ) -> Encoded:
        """The vectors of some conversations; see `Vectorizer.vectors_of`.

        A row is read alone, without padding, so that its vector does not depend on the others. On a CPU several rows
        are read at a time, in one thread each.

        Cost for each checkpoint: a forward and a backward pass, about 6 operations a weight and token, and the
        projection, see `Projector`. Memory beside the models: in each thread at most GRADIENT_BYTES, or a row's
        gradient (4 bytes a parameter), and one gradient more.
        """
        readings = [self.reader.read(list(turns)) for turns in rows]
        failed = {row: cause for row, reading in enumerate(readings) if (cause := _cause(reading))}
        vectors = np.zeros((len(rows), self.dimension), np.float32)
        norms = np.zeros((len(rows), len(self.parts)), np.float32)
        groups = list(_groups(readings, failed, self.rows_at_once))
        _count(on_batch, len(failed))
        with side_by_side(self.device) as run:
            given = run(lambda group: self._group([readings[row] for row in group.tolist()]), groups)
            for group, (projected, lengths) in zip(groups, given, strict=True):
                vectors[group], norms[group] = projected, lengths
                _count(on_batch, len(group))
        tokens, cut = sum(len(reading.ids) for reading in readings), sum(reading.cause == CUT for reading in readings)
        return Encoded(vectors, failed, tokens, cut, not_finite=NO_DIRECTION, norms=norms)

    def _group(self, readings: Sequence[Reading]) -> tuple[Floats, Floats]:
        """(r, d) the vectors of some rows, not finite where there is no direction; (r, checkpoints) gradients' norms."""
        import torch

        parts = []
        norms = torch.empty((len(readings), len(self.parts)), dtype=torch.float32, device=self.device)
        for number, (part, weight) in enumerate(zip(self.parts, self.spec.weights, strict=True)):
            raw = torch.empty((len(readings), part.size), dtype=torch.float32, device=self.device)
            for place, reading in enumerate(readings):
                raw[place], norms[place, number] = self._direction(part, reading)
            short = self._projector.project(raw)
            parts.append(short / torch.linalg.vector_norm(short, dim=1, keepdim=True) * weight**0.5)
        vectors: Floats = torch.cat(parts, dim=1).cpu().numpy()
        return vectors, norms.cpu().numpy()

    def _direction(self, part: _Loaded, reading: Reading) -> tuple[Any, Any]:
        """(size,) float32: the gradient of a row, or the step of Adam with it; and the norm of the gradient."""
        import torch

        start, stop = _span(reading)
        ids = torch.from_numpy(reading.ids.astype(np.int64)).to(self.device)
        logits = part.network(input_ids=ids[None], use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[start - 1 : stop - 1], ids[start:stop])
        gradients = torch.autograd.grad(loss, list(part.chosen.values()), materialize_grads=True)
        gradient = torch.cat([each.reshape(-1) for each in gradients])
        direction = gradient if part.moments is None else part.moments.direction(gradient)
        return direction, torch.linalg.vector_norm(gradient)


def _span(reading: Reading) -> tuple[int, int]:
    """The first of the answer's tokens that has one in front of it, and the token after the last."""
    start, stop = reading.answer or (0, 0)
    return max(1, start), stop


def _cause(reading: Reading) -> str:
    """Why a row has no gradient; empty where it has one."""
    if reading.cause:
        return reading.cause
    start, stop = _span(reading)
    return "" if start < stop else ALONE


def _groups(readings: Sequence[Reading], failed: Mapping[int, str], size: int) -> Iterator[Rows]:
    """The rows that are projected together: the longest first, so that the threads end together."""
    lengths = np.array([0 if row in failed else len(reading.ids) for row, reading in enumerate(readings)], np.int64)
    order = np.argsort(-lengths, kind="stable")[: len(readings) - len(failed)]
    yield from (order[start : start + size] for start in range(0, len(order), size))


def _count(on_batch: Callable[[int], None] | None, rows: int) -> None:
    if on_batch is not None and rows:
        on_batch(rows)


def load_gradient_encoder(spec: GradientSpec, device: str | None = None) -> GradientEncoder:
    """Load a spec's checkpoints.

    Args:
        device: as for `load_encoder`.

    Raises:
        InvalidOption: a model or an optimizer's file cannot be loaded, they do not fit each other, or no parameter has
            a name like those asked for.

    Memory: 4 bytes a weight of every checkpoint, and for "adam" 8 a parameter whose gradient is taken.
    """
    import torch

    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    parts, readers = [], []
    for checkpoint in spec.all_checkpoints:
        tokenizer, network = _load(checkpoint)
        trained = _trained(network, checkpoint)
        chosen = _chosen(trained, spec.parameters, checkpoint.model)
        moments = load_moments(checkpoint.moments_file(), trained, chosen) if spec.direction == "adam" else None
        network.requires_grad_(False).to(device)
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        parts.append(_Loaded(network, chosen, moments.to(device) if moments else None))
        readers.append((tokenizer, network.config))
        _require_same(parts, spec)
    reader = AnswerReader(
        *readers[0], model=spec.all_checkpoints[0].model, template=spec.template, max_tokens=spec.max_tokens
    )
    return GradientEncoder(spec, reader, parts, str(device))


def _load(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Tokenizer and network, in float32; with adapters those too."""
    import torch

    base, adapter = checkpoint.base(), checkpoint.adapter()
    if adapter is not None:
        _require_peft(checkpoint.model)
    folder = base.folder()
    hub = {} if folder else {"revision": base.commit()}
    tokenizer, network = load_causal_model(str(folder or base.model), torch.float32, hub, called=base.model)
    if adapter is None:
        return tokenizer, network
    from peft import PeftModel

    try:
        return tokenizer, PeftModel.from_pretrained(network, str(adapter), is_trainable=True).float().eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise invalid_encoder(f"the adapters in {adapter} cannot be loaded: {error}") from error


def _require_peft(model: str) -> None:
    """Adapters cannot be read without peft."""
    import importlib.util

    if importlib.util.find_spec("peft") is None:
        raise invalid_encoder(
            f"model {model!r} holds LoRA adapters ({ADAPTER}), which need the package peft, and it is not installed: "
            "pip install peft, or merge the adapters into the model"
        )


def _trained(network: Any, checkpoint: Checkpoint) -> dict[str, Any]:
    """The parameters that training changed, in the model's order: all, or those of the adapters."""
    adapters = checkpoint.adapter() is not None
    return {name: p for name, p in network.named_parameters() if p.requires_grad or not adapters}


def _chosen(trained: Mapping[str, Any], patterns: Sequence[str], model: str) -> dict[str, Any]:
    """The parameters of the patterns; every pattern has some."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in trained):
            some = ", ".join(list(trained)[:3])
            raise invalid_encoder(
                f"parameters: no parameter of {model!r} has a name like {pattern!r}; its {len(trained)} names begin with {some}",
                "parameters",
            )
    return {name: p for name, p in trained.items() if not patterns or any(fnmatchcase(name, each) for each in patterns)}


def _require_same(parts: Sequence[_Loaded], spec: GradientSpec) -> None:
    """Checkpoints of one training have the same parameters."""
    first, last = ({name: tuple(p.shape) for name, p in part.chosen.items()} for part in (parts[0], parts[-1]))
    if first != last:
        different = min(first.items() ^ last.items())[0]
        names = spec.all_checkpoints[0].model, spec.all_checkpoints[len(parts) - 1].model
        raise invalid_encoder(
            f"checkpoints: {names[0]!r} and {names[1]!r} have different parameters (first: {different}); all checkpoints are of "
            "one training",
            "checkpoints",
        )
