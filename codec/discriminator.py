"""A small discriminator over spectrogram patches, for the GAN-decoder arrangement."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches of a log-mel spectrogram as real or decoded (Isola et al. 2017).

    Args:
        channels: audio channels, C.
        width: of the first layer; doubled at every further one.
        layers: strided convolutions, each halving bands and frames.
    """

    def __init__(self, channels: int, width: int = 32, layers: int = 3) -> None:
        super().__init__()
        sizes = [channels, *(width * 2**index for index in range(layers))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(inside, outside, kernel_size=5, stride=2, padding=2))
            for inside, outside in itertools.pairwise(sizes)
        )
        self.score = weight_norm(nn.Conv2d(sizes[-1], 1, kernel_size=3, padding=1))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Map (B, C, M, F) normalized log-mel -> (B, 1, M', F') patch scores."""
        hidden = spectrogram.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
        return self.score(hidden)
