"""Decoders of a few weights, a sampler with them, and what they are given."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_codec import tiny_codec

from codec.seeds import generator
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.sampler import FlowSampler, Window

CODEC = tiny_codec()
SIZES = {
    "channels": 2,
    "num_mels": 16,
    "patch_bands": 16,
    "latent_dim": 8,
    "num_codebooks": 3,
    "width": 32,
    "num_layers": 2,
    "num_heads": 2,
    "window_frames": 12,
    "overlap_frames": 6,
}


class Decay(DiffusionDecoder):
    """The field dx/d(angle) = x: from pi / 2 down to 0 it divides by e^(pi / 2)."""

    def forward(self, point, angle, coarse, latents, num_books, positions=None):
        return point


def still_decoder(**sizes: int) -> DiffusionDecoder:
    """Untrained, it moves nothing; its detail is too small to see, so the decode is the coarse."""
    return DiffusionDecoder(**(SIZES | sizes), detail_std=1e-6)


def random_decoder(**sizes: int) -> DiffusionDecoder:
    """Weights far from zero, so that a wrong condition shows."""
    decoder = DiffusionDecoder(**(SIZES | sizes)).eval()
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.1)
    return decoder


def sampler(decoder: DiffusionDecoder | None = None) -> FlowSampler:
    return FlowSampler(CODEC, decoder or random_decoder(), FlowMatchEulerDiscreteScheduler())


def random_codes(batch: int, frames: int, books: int = 3) -> torch.Tensor:
    return torch.randint(16, (batch, books, frames), generator=generator(frames, "codes"))


def random_window(frames: int = 5) -> Window:
    draws = torch.Generator().manual_seed(0)
    shape = (2, 2, 16, 4 * frames)
    coarse, noise = (torch.randn(shape, generator=draws) for _ in range(2))
    latents = torch.randn(2, frames, 8, generator=draws)
    return Window(coarse, latents, noise, 3, torch.zeros(2, 2, 0, 4 * frames))
