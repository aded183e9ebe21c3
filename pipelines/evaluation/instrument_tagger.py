"""Which General MIDI instruments sound, who plays the tune, and whether there are drums.

A small convolutional network on the log-mel spectrogram with two answers: what is heard at all,
and which instrument leads.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipelines.data.scores.instruments import BASSES, INSTRUMENTS

CLASSES = (*INSTRUMENTS, "drums")
LEADS = tuple(name for name in INSTRUMENTS if name not in BASSES)
NUM_MELS = 128
POOLING = 2  # frames of 10 ms made one
RANGE_NATS = 9.0  # below the loudest
CROP_FRAMES = 300  # of 20 ms, in training

# Instruments that are told apart from one another; an asked one must be the first of its family.
FAMILIES = {
    "keyboards": ("piano", "electric piano", "harpsichord", "organ", "accordion"),
    "mallets": ("music box", "glockenspiel", "vibraphone", "marimba"),
    "plucked": (
        *("acoustic guitar", "electric guitar", "distorted guitar", "banjo"),
        *("harp", "pizzicato strings"),
    ),
    "bowed and sung": ("violin", "cello", "strings", "choir"),
    "brass": ("trumpet", "brass", "french horn"),
    "reeds and flutes": ("harmonica", "saxophone", "oboe", "clarinet", "flute", "pan flute"),
    "synths": ("synth lead", "chiptune lead", "synth pad"),
    "basses": ("bass", "double bass", "synth bass"),
}
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}


class InstrumentTagger(nn.Module):
    """Logits of ``CLASSES``, any of them at once, and of ``LEADS``, one of them.

    Args:
        width: channels of the widest layers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = ((1, width // 4), (width // 4, width // 2), (width // 2, width), (width, width))
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(sizes):
            stride = (2, 2) if index < 3 else (2, 1)
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.front = nn.Sequential(*layers)
        rows = NUM_MELS // 2 ** len(sizes)
        self.middle = nn.Sequential(nn.Conv1d(width * rows, width, 1), nn.ReLU())
        self.out = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * width, len(CLASSES) + len(LEADS)))

    def forward(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, F) from :func:`tagger_levels` -> (B, classes) and (B, leads) logits."""
        maps = self.front(levels[:, None]).flatten(1, 2)  # (B, width * rows, F / 8)
        hidden = self.middle(maps)
        logits = self.out(torch.cat([hidden.mean(-1), hidden.amax(-1)], dim=1))
        return logits[:, : len(CLASSES)], logits[:, len(CLASSES) :]


def tagger_levels(log_mel: Tensor) -> Tensor:
    """(M, F) natural-log mel at 100 frames/s -> (M, F / 2) levels from 0 to 1 at 50."""
    pairs = log_mel[:, : log_mel.shape[1] // POOLING * POOLING].unflatten(1, (-1, POOLING))
    pooled = pairs.mean(-1)
    return ((pooled - pooled.amax()) / RANGE_NATS + 1).clamp(min=0)


def targets_of(labels: dict[str, Any]) -> Tensor:
    """(classes,) float: 1 for what the labels of a clip name."""
    named = {*labels["instruments"], *(["drums"] if labels["drums"] else [])}
    return torch.tensor([float(name in named) for name in CLASSES])


def lead_of(labels: dict[str, Any]) -> int:
    """Index of the leading instrument in ``LEADS``; -1 for another one."""
    return LEADS.index(labels["lead"]) if labels["lead"] in LEADS else -1
