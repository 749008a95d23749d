"""From the hidden states of a batch to one unit vector for each text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Pooling = Literal["weighted_mean", "mean", "last", "cls"]


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """Unit vectors of a batch.

    Args:
        hidden: (b, t, d), any float type: the last hidden state, after the final norm.
        mask: (b, t) bool, True for real tokens; padding may be on either side.
        how: "weighted_mean": sum of w_t h_t, w_t = t / sum t, t = 1.. over real tokens (RDS+; the first special token
            counts as t = 1). "mean"; "last" and "cls": the last and the first real token.

    Returns:
        (b, d) float32 of norm 1, summed and normalised in float32 and never cast back to half precision, which would
        change ranks. Zeros if there is no real token or the sum is zero; NaN if a real token's state is not finite.

    Source: RDS+ (Ivison et al. 2025); position weights of SGPT (Muennighoff 2022).
    """
    import torch

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
        raise ValueError(f"pooling must be weighted_mean, mean, last or cls, got {how!r}")
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
    # Padding is set to 0, not only weighted by 0: attention may leave NaN there, and 0 * NaN is NaN.
    states = hidden.float().masked_fill(~mask[:, :, None], 0)
    return torch.nn.functional.normalize((states * weights[:, :, None]).sum(1), dim=1)
