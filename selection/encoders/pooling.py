"""From the hidden states of a batch to one unit vector for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch

Pooling = Literal["weighted_mean", "mean", "last", "cls", "max", "gem"]
GEM_FLOOR = 1e-6


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: Pooling, gem_p: Sequence[float] = (3.0,)) -> torch.Tensor:
    """Unit vectors of a batch.

    Args:
        hidden: (b, t, d), any float type: the last hidden state, after the final norm, or a mean of several.
        mask: (b, t) bool, True for real tokens; padding may be on either side.
        how: "weighted_mean": sum of w_t h_t, w_t = t / sum t, t = 1.. over real tokens (RDS+; the first special token
            counts as t = 1). "mean"; "last" and "cls": the last and the first real token. "max": the largest of each
            channel. "gem": (mean over t of max(h_t, 1e-6)^p)^(1/p) of each channel, so that what is negative vanishes.
        gem_p: a power for each of as many groups of channels, neighbours of equal number.

    Returns:
        (b, d) float32 of norm 1, summed and normalised in float32 and never cast back to half precision, which would
        change ranks. Zeros if there is no real token or the sum is zero; NaN if a real token's state is not finite.

    Source: RDS+ (Ivison et al. 2025); position weights of SGPT (Muennighoff 2022); gem of Radenovic et al. 2018, in
    groups GGeM (Ko et al. 2022).
    """
    import torch

    # Padding is set to 0, not only weighted by 0: attention may leave NaN there, and 0 * NaN is NaN.
    states = hidden.float().masked_fill(~mask[:, :, None], 0)
    if how == "max":
        pooled = states.masked_fill(~mask[:, :, None], -torch.inf).amax(1)
        pooled = pooled.masked_fill(~mask.any(1)[:, None], 0)
    elif how == "gem":
        pooled = _generalized_mean(states, mask, gem_p)
    else:
        pooled = (states * _weights(mask, how)[:, :, None]).sum(1)
    return torch.nn.functional.normalize(pooled, dim=1)


def _weights(mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """(b, t) float32, of sum 1 where there is a real token."""
    count = mask.cumsum(1)
    if how == "weighted_mean":
        weights = (count * mask).float()
    elif how == "mean":
        weights = mask.float()
    elif how == "last":
        weights = ((count == count[:, -1:]) & mask).float()
    elif how == "cls":
        weights = ((count == 1) & mask).float()
    else:
        raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {how!r}")
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


def _generalized_mean(states: torch.Tensor, mask: torch.Tensor, gem_p: Sequence[float]) -> torch.Tensor:
    import torch

    power = torch.tensor(gem_p, device=states.device).repeat_interleave(states.shape[2] // len(gem_p))
    floored = states.clamp(min=GEM_FLOOR).masked_fill(~mask[:, :, None], 0)
    # A large power overflows; divided by the largest, no base is above 1.
    largest = floored.amax(1, keepdim=True).clamp(min=GEM_FLOOR)
    mean = ((floored / largest) ** power).sum(1) / mask.sum(1).clamp(min=1)[:, None]
    return mean ** (1 / power) * largest[:, 0]
