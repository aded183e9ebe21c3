"""A prior of a few thousand parameters whose predictions are far from uniform."""

from typing import Any

import torch
from torch import Tensor

from prior import Condition, Prior

BACKBONES = ("transformer", "lstm")
ALL_BACKBONES = (*BACKBONES, "lstm-plain")
TEXT_WIDTH = 12


def tiny_prior(backbone: str, **changes: Any) -> Prior:
    """Three books of eleven codes; large random weights, so that a leak would show."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "num_codebooks": 3,
        "codebook_size": 11,
        "width": 32,
        "num_layers": 2,
        "num_heads": 4,
        "text_width": TEXT_WIDTH,
        "depth_width": 16,
        "depth_layers": 1,
        "depth_heads": 2,
    }
    prior = Prior(backbone=backbone, **(sizes | changes)).eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return prior


def some_text(num_rows: int, num_tokens: int = 5, seed: int = 1) -> Condition:
    """Rows of random states, all tokens true."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(num_rows, num_tokens, TEXT_WIDTH, generator=generator)
    return Condition(states, torch.ones(num_rows, num_tokens, dtype=torch.bool))


def some_codes(prior: Prior, num_rows: int, num_frames: int, seed: int = 2) -> Tensor:
    """(B, K, T) random codes."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_rows, prior.num_codebooks, num_frames)
    return torch.randint(0, prior.codebook_size, shape, generator=generator)


def step_through(
    prior: Prior, codes: Tensor, text: Condition, start: int = 0, future: Tensor | None = None
) -> Tensor:
    """Hidden states of every frame from ``start`` on, by prefill and single steps."""
    T = codes.shape[-1]
    state = prior.init_state(text, T, num_future=0 if future is None else future.shape[-1])
    hidden = [prior.prefill(codes[..., :start], state, future)]
    hidden += [prior.decode_one_frame(codes[..., t], state) for t in range(start, T - 1)]
    return torch.stack(hidden, dim=1)
