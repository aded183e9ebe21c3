"""Losses of the codec: regression on the spectrogram, and an optional adversary on its patches."""

import torch
import torch.nn.functional as F
from torch import Tensor

SPANS = (8, 32)  # frames of the averages of sustained_loss
LOUDNESS = 0.5  # power of a band's magnitude by which sustained_loss weighs it
LOW_HZ = 800.0
TILES = (4, 8, 16)  # bands and frames of the tiles of energy_loss
MIN_POWER = 1e-10


def spectrogram_loss(
    reconstruction: Tensor, target: Tensor, weights: Tensor | float = 1.0
) -> Tensor:
    """Compute the weighted mean absolute error in nats.

    Args:
        reconstruction: (B, C, M, F) log-mel.
        target: (B, C, M, F) log-mel.
        weights: (M, 1) of the bands, 1 on average.
    """
    return (weights * (reconstruction - target).abs()).mean()


def sustained_loss(reconstruction: Tensor, target: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """Compute the mean absolute error of averages over 8 and 32 frames, weighted, in nats.

    Errors that change from frame to frame hardly harm harmony or timbre, nor do errors of bands
    20 dB below the loudest; those of loud bands that last do (docs/experiments.md). A band weighs
    as the root of its magnitude, 1 on average over the bands. Spans of frames overlap by half.

    Args:
        reconstruction: (B, C, M, F) log-mel, F at least 32.
        target: (B, C, M, F) log-mel.
        weights: (M, 1) of the bands, 1 on average, beside those of loudness.
    """
    error = (weights * (reconstruction - target)).flatten(0, 1)  # (B * C, M, F)
    levels = target.flatten(0, 1)
    errors = []
    for span in SPANS:
        average = F.avg_pool1d(levels, span, span // 2)
        loudness = (LOUDNESS * (average - average.amax(1, keepdim=True))).exp()
        loudness = loudness / loudness.mean(1, keepdim=True)
        errors.append((loudness * F.avg_pool1d(error, span, span // 2).abs()).mean())
    return torch.stack(errors).mean()


def band_weights(frequencies: Tensor, low: float) -> Tensor:
    """Weigh the bands of a log-mel spectrogram, 1 on average.

    Args:
        frequencies: (M,) of the bands (Hz).
        low: weight of bands below 800 Hz, which decide chords; other bands weigh 1.

    Returns:
        (M, 1).
    """
    weights = torch.where(frequencies < LOW_HZ, low, 1.0)
    return (weights / weights.mean())[:, None]


def movement_loss(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Compute the mean absolute error of the change from frame to frame, in nats."""
    return (reconstruction.diff(dim=-1) - target.diff(dim=-1)).abs().mean()


def energy_loss(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Compute the mean absolute error of the mean power of tiles, in nats of magnitude.

    Where the codec cannot tell which band a partial is in, an L1 loss predicts the low level
    between the candidates and the partial's power is lost. The mean power of a tile does not depend
    on the band. Tiles are 4, 8 and 16 bands and as many frames, half overlapping.

    Args:
        reconstruction: (B, C, M, F) log-mel, M and F at least 16.
        target: (B, C, M, F) log-mel.
    """
    powers = [(2 * levels.flatten(0, 1).float()).exp() for levels in (reconstruction, target)]
    errors = []
    for size in TILES:
        tiles = [F.avg_pool2d(power, size, stride=size // 2) for power in powers]
        decoded, true = (tile.clamp(min=MIN_POWER).log() / 2 for tile in tiles)
        errors.append((decoded - true).abs().mean())
    return torch.stack(errors).mean()


def generator_hinge(fake: Tensor) -> Tensor:
    """Compute the generator's hinge loss of the discriminator's patch scores (Lim and Ye 2017)."""
    return -fake.mean()


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the discriminator's hinge loss of its scores (Lim and Ye 2017)."""
    return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()
