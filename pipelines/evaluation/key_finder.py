"""Key from chroma: a small network that hears every transposition alike.

Spectral peaks become chroma in three registers; a piece is described by a few chroma vectors, and
the score of a tonic is a function of these vectors rotated to it. No feature knows where in the
piece it was heard: a clip that starts in the middle is judged like one that starts on the tonic.
"""

import torch
from torch import Tensor, nn

ANALYSIS_RATE = 22_050
N_FFT = 8192
HOP_LENGTH = 2048
REGISTERS_HZ = ((50.0, 200.0), (200.0, 800.0), (800.0, 3200.0))
PEAK_FLOOR = 1e-3  # of the loudest bin
QUIET_FLOOR = 0.05  # of the loudest frame
TRIAD_SHARPNESS = 8.0
NUM_VECTORS = 9
NUM_KEYS = 24


def peak_chroma(samples: Tensor) -> Tensor:
    """(S,) samples at 22,050 Hz -> (3, 12, T) magnitudes of spectral peaks by register and class.

    Peaks are placed by a parabola through the log magnitudes; what lies between two semitones
    counts less (squared cosine).
    """
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(samples, N_FFT, HOP_LENGTH, window=window, return_complex=True).abs()
    below, middle, above = spectrum[:-2], spectrum[1:-1], spectrum[2:]
    is_peak = (middle > below) & (middle >= above) & (middle > spectrum.max() * PEAK_FLOOR)
    left, center, right = (part.clamp(min=1e-8).log() for part in (below, middle, above))
    curvature = (left - 2 * center + right).clamp(max=-1e-6)
    offset = (0.5 * (left - right) / curvature).clamp(-0.5, 0.5)
    bins = torch.arange(1, spectrum.shape[0] - 1)[:, None] + offset
    frequency = bins * (ANALYSIS_RATE / N_FFT)
    pitch = 12 * torch.log2(frequency / 440) + 69
    weight = middle * torch.cos(torch.pi * (pitch - pitch.round())).square()
    pitch_class = pitch.round().long() % 12
    chroma = torch.zeros(len(REGISTERS_HZ), 12, spectrum.shape[1])
    for index, (low, high) in enumerate(REGISTERS_HZ):
        heard = is_peak & (frequency >= low) & (frequency < high)
        chroma[index].scatter_add_(0, pitch_class, weight * heard)
    return chroma


def chroma_vectors(samples: Tensor) -> Tensor:
    """What a key is found by.

    Args:
        samples: (S,) float32 at 22,050 Hz.

    Returns:
        (9, 12): sums of the chroma by register; the same with every frame made equally loud; the
        compressed chroma of all registers; how much of the time each major and minor triad sounds.
    """
    registers = peak_chroma(samples)
    levels = registers.sum(1, keepdim=True)
    loudest = levels.amax(-1, keepdim=True) * QUIET_FLOOR + 1e-9
    level = (registers / torch.maximum(levels, loudest)).sum(-1)
    total = registers.sum(0)
    sums = torch.cat([registers.sum(-1), level, total.sqrt().sum(-1)[None]])
    sums = sums / sums.sum(1, keepdim=True).clamp(min=1e-9)
    return torch.cat([sums, triad_shares(total)])


def triad_shares(chroma: Tensor) -> Tensor:
    """(12, T) -> (2, 12): mean over time of a soft choice among major and minor triads."""
    chroma = chroma / chroma.norm(dim=0, keepdim=True).clamp(min=1e-6)
    shapes = torch.zeros(2, 12)
    shapes[0, [0, 4, 7]] = shapes[1, [0, 3, 7]] = 3**-0.5
    triads = torch.stack([shape.roll(root) for shape in shapes for root in range(12)])
    return ((triads @ chroma) * TRIAD_SHARPNESS).softmax(0).mean(1).reshape(2, 12)


class KeyFinder(nn.Module):
    """Scores of 24 keys: major ones from C upwards, then minor ones.

    Args:
        width: of the hidden layer.
        dropout: of features and hidden layer, in training.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        features = NUM_VECTORS * 12
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.network = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(features, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, 2),
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, 9, 12) -> (B, 24) logits."""
        features = (rotations(vectors) - self.mean) / self.deviation
        return self.network(features).transpose(1, 2).flatten(1)

    def normalize(self, vectors: Tensor) -> None:
        """Take mean and deviation of the features from (N, 9, 12) training vectors."""
        features = rotations(vectors)
        self.mean.copy_(features.mean((0, 1)))
        self.deviation.copy_(features.std((0, 1)).clamp(min=1e-6))


def rotations(vectors: Tensor) -> Tensor:
    """(B, 9, 12) -> (B, 12, 108): for every tonic, the vectors read from it upwards."""
    return torch.stack([vectors.roll(-tonic, -1).flatten(1) for tonic in range(12)], dim=1)
