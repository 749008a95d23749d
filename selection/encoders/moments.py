"""The moments that an Adam optimizer kept of a model's parameters, read from its file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selection.encoders.spec import invalid_encoder
from selection.errors import InvalidOption

if TYPE_CHECKING:
    import torch

MEAN, SQUARE = "exp_avg", "exp_avg_sq"
# Of torch.optim.AdamW, for a file that does not say.
BETAS, EPS = (0.9, 0.999), 1e-8

# What transformers' Trainer lets no weight decay touch, in every version since 4.
_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)", re.IGNORECASE)


@dataclass(frozen=True)
class Moments:
    """The first and second moment of some parameters, one behind the other, (size,) float32; and the optimizer's options."""

    mean: torch.Tensor
    square: torch.Tensor
    betas: tuple[float, float] = BETAS
    eps: float = EPS

    def to(self, device: str) -> Moments:
        """The same on a device."""
        return replace(self, mean=self.mean.to(device), square=self.square.to(device))

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """Where Adam's next step would go after a batch with this gradient: m' / sqrt(v' + eps), without bias correction.

        With m' = b1 m + (1 - b1) g and v' = b2 v + (1 - b2) g^2.

        Source: Xia et al. 2024 (LESS), `obtain_gradients_with_adam`.
        """
        first, second = self.betas
        mean = first * self.mean + (1 - first) * gradient
        return mean / (second * self.square + (1 - second) * gradient**2 + self.eps).sqrt_()


def load_moments(path: Path, trained: Mapping[str, torch.Tensor], chosen: Mapping[str, torch.Tensor]) -> Moments:
    """The moments of the chosen parameters, in their order.

    Args:
        path: a file of safetensors with `<parameter>.exp_avg` and `<parameter>.exp_avg_sq`, and in its metadata, if it
            says so, `betas` and `eps` as JSON; or optimizer.pt as the Trainer of transformers saves it.
        trained: all parameters that the optimizer had, by name, in the order of the model.
        chosen: some of them.

    An optimizer.pt numbers the parameters and does not name them: those with weight decay first, then biases and norms,
    each in the order of the model. Number and shape of all parameters must fit.

    Raises:
        InvalidOption: the file cannot be read, or does not fit the model.
    """
    import torch

    if not path.is_file():
        raise no_moments(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_optimizer
    kept, betas, eps = read(path, trained)
    parts: dict[str, list[torch.Tensor]] = {MEAN: [], SQUARE: []}
    for name, parameter in chosen.items():
        for kind, moments in parts.items():
            moment = kept(name, kind)
            if moment is None:
                raise _invalid(path, f"no {kind} of {name}")
            if moment.shape != parameter.shape:
                raise _invalid(path, f"{kind} of {name} has shape {_shape(moment)}, the parameter {_shape(parameter)}")
            moments.append(moment.detach().float().reshape(-1))
    mean, square = (torch.cat(moments) for moments in parts.values())
    if not (torch.isfinite(mean).all() and torch.isfinite(square).all() and (square >= 0).all()):
        raise _invalid(path, "a moment is not finite, or a second one is below 0")
    return Moments(mean, square, betas, eps)


# The moment of a parameter by name and kind, None where there is none; betas; eps.
_Kept = tuple[Callable[[str, str], "torch.Tensor | None"], tuple[float, float], float]


def _read_safetensors(path: Path, trained: Mapping[str, torch.Tensor]) -> _Kept:  # noqa: ARG001
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            moments = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        betas = json.loads(said.get("betas", "null")) or BETAS
        eps = float(json.loads(said.get("eps", "null")) or EPS)
        pair = (float(betas[0]), float(betas[1]))
    except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
        raise _invalid(path, f"it cannot be read as safetensors: {error}") from error
    return (lambda name, kind: moments.get(f"{name}.{kind}")), pair, eps


def _read_optimizer(path: Path, trained: Mapping[str, torch.Tensor]) -> _Kept:
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        groups, by_number = state["param_groups"], state["state"]
        numbers = [number for group in groups for number in group["params"]]
        betas, eps = groups[0].get("betas", BETAS), float(groups[0].get("eps", EPS))
        pair = (float(betas[0]), float(betas[1]))
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, AttributeError, pickle.UnpicklingError) as error:
        raise _invalid(path, f"it cannot be read as the state of an optimizer: {error}") from error
    names = _names(path, groups, trained)
    entries = dict(zip(names, (by_number.get(number, {}) for number in numbers), strict=True))
    for name, entry in entries.items():
        shape = _shape(entry[MEAN]) if MEAN in entry else _shape(trained[name])
        if shape != _shape(trained[name]):
            raise _invalid(path, f"the moment that should be that of {name} has shape {shape}; {_NAMED}")
    return (lambda name, kind: entries.get(name, {}).get(kind)), pair, eps


_NAMED = "save them by name instead, as safetensors: see docs/representations.md"


def _names(path: Path, groups: list[dict[str, Any]], trained: Mapping[str, torch.Tensor]) -> list[str]:
    """The name of each parameter of an optimizer's state, in its order."""
    counts = [len(group["params"]) for group in groups]
    if all("param_names" in group for group in groups):
        names = [str(name) for group in groups for name in group["param_names"]]
        if len(names) == sum(counts) and set(names) <= set(trained):
            return names
    decayed = [name for name in trained if not _NO_DECAY.search(name)]
    others = [name for name in trained if _NO_DECAY.search(name)]
    orders = {(len(trained),): list(trained), (len(decayed), len(others)): decayed + others}
    if tuple(counts) not in orders:
        raise _invalid(
            path,
            f"it has {' + '.join(map(str, counts))} parameters, the model {len(decayed)} with weight decay and {len(others)} "
            f"without; {_NAMED}",
        )
    return orders[tuple(counts)]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.shape)


def no_moments(path: Path) -> InvalidOption:
    """The error for a file that is not there."""
    return _invalid(path, "there is no such file; direction: adam needs the optimizer's moments")


def _invalid(path: Path, reason: str) -> InvalidOption:
    return invalid_encoder(f"optimizer {path}: {reason}", "optimizer")
