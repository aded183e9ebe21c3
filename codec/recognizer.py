"""A network that hears who plays which notes, and the codec's loss in what that network sees."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.component import Component, register_to_config

RANGE_NATS = 9.0
"""Levels so far below the loudest are let through a twentieth."""
LEAK = 0.05
STRIDES = ((2, 2), (2, 2), (2, 1), (2, 1))
"""Strides of the four convolutions, in bands and frames: 16 bands become one, and 4 frames."""


class Recognizer(Component):
    """A convolutional network that reads facts of the music from a log-mel spectrogram.

    Its layers are what :func:`feature_loss` compares. Four strided convolutions see bands and
    frames, two more see .36 s of all of them, and the last one scores each fact 25 times a second.

    Args:
        num_facts: scores a token frame, N.
        num_mels: mel bands, M, a multiple of 16.
        width: channels of the third and fourth convolution, D; the first two have D / 4 and D / 2.
        hidden: channels after them, H.
    """

    @register_to_config
    def __init__(
        self, num_facts: int, num_mels: int = 128, width: int = 96, hidden: int = 256
    ) -> None:
        super().__init__()
        channels = (1, width // 4, width // 2, width, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    channels[index], channels[index + 1], size, stride, size // 2, bias=False
                ),
                nn.BatchNorm2d(channels[index + 1]),
                nn.GELU(),
            )
            for index, (size, stride) in enumerate(zip((5, 3, 3, 3), STRIDES, strict=True))
        )
        rows = num_mels // 16
        self.mixers = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(inputs, hidden, size, padding=size // 2, bias=False),
                nn.BatchNorm1d(hidden),
                nn.GELU(),
            )
            for inputs, size in ((width * rows, 1), (hidden, 9))
        )
        self.dropout = nn.Dropout(0.2)
        self.facts = nn.Linear(2 * hidden, num_facts)

    def features(self, levels: Tensor) -> list[Tensor]:
        """Map (B, M, F) natural-log mel, F a multiple of 4, to the outputs of every layer."""
        below = (levels - levels.amax((1, 2), keepdim=True)) / RANGE_NATS
        hidden = F.leaky_relu(below + 1, LEAK)[:, None]
        outputs = []
        for block in self.blocks:
            hidden = block(hidden)  # (B, D, M / 16, F / 4) at last
            outputs.append(hidden)
        hidden = hidden.flatten(1, 2)
        for mixer in self.mixers:
            hidden = mixer(hidden)  # (B, H, F / 4)
            outputs.append(hidden)
        return outputs

    def forward(self, levels: Tensor) -> Tensor:
        """Score (B, M, F) natural-log mel: (B, F / 4, N) logits.

        A frame's own features stand beside the clip's mean, which says who plays.
        """
        hidden = self.dropout(self.features(levels)[-1].transpose(1, 2))
        mean = hidden.mean(1, keepdim=True).expand_as(hidden)
        return self.facts(torch.cat([hidden, mean], dim=-1))


def feature_loss(recognizer: Recognizer, reconstruction: Tensor, target: Tensor) -> Tensor:
    """Compute how far apart two spectrograms are in the layers of a recognizer.

    A regression spends its bits on what is loud and often; a feature loss (Johnson et al. 2016,
    arXiv 1603.08155) on what tells instruments, chords and tunes apart.

    Args:
        recognizer: in evaluation mode, its weights frozen.
        reconstruction: (B, C, M, F) log-mel.
        target: (B, C, M, F) log-mel.

    Returns:
        The mean absolute difference over the mean absolute value, on average over the layers.
    """
    with torch.no_grad():
        wanted = recognizer.features(target.flatten(0, 1))
    found = recognizer.features(reconstruction.flatten(0, 1))
    distances = [
        (a - b).float().abs().mean() / b.float().abs().mean()
        for a, b in zip(found, wanted, strict=True)
    ]
    return torch.stack(distances).mean()


def feature_score(recognizer: Recognizer, first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """Compute the energy score of two independent samples in the layers of a recognizer.

    As ``decoder.flow.energy_score`` of the detail itself, it is least in expectation where samples
    are distributed as the target is. A vector of the score is all channels of a layer at one place.

    Args:
        recognizer: in evaluation mode, its weights frozen.
        first: (B, C, M, F) log-mel, one sample.
        second: (B, C, M, F) a sample of the same conditions from other noise.
        target: (B, C, M, F) log-mel.

    Returns:
        The mean of (|first - target| + |second - target| - |first - second|) / 2 over the mean norm
        of the target, on average over the layers.
    """
    scores = []
    for layer in recognizer.features(torch.cat([first, second, target]).flatten(0, 1)):
        a, b, c = layer.float().chunk(3)
        to_first, to_second, apart = (
            difference.square().sum(1).add(1e-8).sqrt().mean()
            for difference in (a - c, b - c, a - b)
        )
        scores.append((to_first + to_second - apart) / 2 / c.norm(dim=1).mean())
    return torch.stack(scores).mean()


def load_recognizer(folder: str | None, weight: float) -> Recognizer | None:
    """Load a recognizer for a loss, its weights frozen; None where that has no weight.

    Raises:
        ValueError: the loss has a weight but no recognizer.
    """
    if weight <= 0:
        return None
    if folder is None:
        raise ValueError("a loss of features needs recognizer, the folder of a recognizer")
    return Recognizer.from_pretrained(folder).requires_grad_(False).eval()
