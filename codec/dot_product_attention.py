"""Attention as prior and decoder compute it."""

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_SCORES = 1024 * 1024
"""Scores per head beyond which memory, not time, decides."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Apply scaled dot-product attention (Vaswani et al. 2017), as matrix products where it pays.

    The gradient of PyTorch's fused attention takes three times as long on a CPU in bfloat16 as
    the products that it fuses (docs/performance.md), so training there multiplies one by one.

    Args:
        query: (B, H, T, D).
        key: (B, H, S, D).
        value: (B, H, S, D).
        mask: bool, broadcast to (B, H, T, S), true where a query may look; all if None.
        is_causal: let query t see keys up to t alone; not with a mask.

    Returns:
        (B, H, T, D).
    """
    T, S = query.shape[-2], key.shape[-2]
    learns = torch.is_grad_enabled() and query.requires_grad
    here = type(query) is Tensor and query.is_cpu  # no fake tensor: costs are counted as fused
    if not (learns and here and query.dtype == torch.bfloat16 and T * S <= MOST_SCORES):
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, H, T, S)
    if is_causal:
        mask = torch.ones(T, S, dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ value
