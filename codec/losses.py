"""Losses of the codec: regression on the spectrogram, and an optional adversary on its patches."""

import torch
from torch import Tensor


def spectrogram_loss(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error in nats.

    Args:
        reconstruction: (B, C, M, F) log-mel.
        target: (B, C, M, F) log-mel.
    """
    return (reconstruction - target).abs().mean()


def movement_loss(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the change from frame to frame, in nats; (B, C, M, F) both."""
    return (reconstruction.diff(dim=-1) - target.diff(dim=-1)).abs().mean()


def generator_hinge(fake: Tensor) -> Tensor:
    """What the codec wants of the discriminator's patch scores (Lim and Ye 2017)."""
    return -fake.mean()


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator wants of its scores (Lim and Ye 2017)."""
    return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()
