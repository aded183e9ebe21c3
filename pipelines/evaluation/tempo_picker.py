"""Tempo by choosing among candidates: a small network that reads onset autocorrelations.

Onsets in four bands and changes of harmony are autocorrelated; every candidate tempo is described
by the correlation at its beat and at simple ratios of it, from a quarter to eight beats, and a
network fitted on labeled music says which candidate it is. Long lags give the resolution.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAME_RATE = 100  # of the log-mel spectrogram
BANDS = ((0, 12), (12, 40), (40, 80), (80, 128))
NUM_ENVELOPES = len(BANDS) + 1
RANGE_NATS = 8.0  # below the loudest
NUM_LAGS = 700
SLOWEST, FASTEST, NUM_CANDIDATES = 45.0, 215.0, 390
RATIOS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 4 / 3, 3 / 2, 2, 3, 4, 6, 8)
REACH = 5  # candidates on either side that count as one tempo: 2 %
HARMONY_BANDS = 60
HARMONY_FRAMES = 11


def onset_envelopes(log_mel: Tensor) -> Tensor:
    """How much begins when.

    Args:
        log_mel: (M, F) natural-log mel magnitudes at 100 frames/s, M = 128.

    Returns:
        (E, F - 2) rises of four bands over 20 ms, and changes of the smoothed spectrum; local mean
        0, standard deviation 1.
    """
    log_mel = log_mel.clamp(min=float(log_mel.max()) - RANGE_NATS)
    rises = (log_mel[:, 2:] - log_mel[:, :-2]).clamp(min=0)
    envelopes = [rises[low:high].mean(0) for low, high in BANDS]
    width = HARMONY_FRAMES
    smooth = F.avg_pool1d(log_mel[None, :HARMONY_BANDS], width, 1, width // 2)[0]
    change = (smooth[:, width + 1 :] - smooth[:, : -width - 1]).abs().mean(0)
    envelopes.append(F.pad(change, (width // 2, width // 2)))
    stacked = torch.stack(envelopes)
    padded = F.pad(stacked[None], (75, 75), mode="replicate")
    centered = stacked - F.avg_pool1d(padded, 151, 1)[0]
    kernel = torch.tensor([[[0.25, 0.5, 0.25]]])
    smoothed = F.conv1d(centered[:, None], kernel, padding=1)[:, 0]
    return smoothed / smoothed.std(1, keepdim=True).clamp(min=1e-6)


def autocorrelations(log_mel: Tensor) -> Tensor:
    """(M, F) log-mel -> (E, NUM_LAGS) unbiased autocorrelations of the envelopes, 1 at lag 0."""
    envelopes = onset_envelopes(log_mel)
    length = envelopes.shape[1]
    power = torch.fft.rfft(envelopes, 2 * length).abs().square()
    correlation = torch.fft.irfft(power)[:, :length]
    correlation = correlation / (length - torch.arange(length)).clamp(min=100)
    correlation = correlation / correlation[:, :1].clamp(min=1e-6)
    return F.pad(correlation, (0, max(0, NUM_LAGS - length)))[:, :NUM_LAGS]


class TempoPicker(nn.Module):
    """Scores of candidate tempos from autocorrelations.

    Args:
        width: of the hidden layer.
    """

    tempos: Tensor
    lags: Tensor
    inside: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        tempos = torch.linspace(math.log(SLOWEST), math.log(FASTEST), NUM_CANDIDATES).exp()
        lags = 60 * FRAME_RATE / tempos[:, None] * torch.tensor(RATIOS)
        self.register_buffer("tempos", tempos, persistent=False)
        self.register_buffer("lags", lags.clamp(max=NUM_LAGS - 1.1), persistent=False)
        self.register_buffer("inside", (lags < 0.93 * NUM_LAGS).float(), persistent=False)
        features = (NUM_ENVELOPES + 1) * len(RATIOS) + 2
        self.network = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, correlations: Tensor) -> Tensor:
        """(B, E, NUM_LAGS) -> (B, NUM_CANDIDATES) log-probabilities."""
        low = self.lags.floor().long()
        share = self.lags - low
        at = correlations[:, :, low] * (1 - share) + correlations[:, :, low + 1] * share
        batch = len(at)
        at = (at * self.inside).permute(0, 2, 1, 3).flatten(2)  # (B, candidates, E * ratios)
        octave = torch.log2(self.tempos / 100)[:, None]
        fixed = torch.cat([octave, octave.square(), self.inside], dim=1)
        features = torch.cat([at, fixed.expand(batch, -1, -1)], dim=2)
        return self.network(features)[..., 0].log_softmax(1)

    def loss(self, correlations: Tensor, tempo_bpm: Tensor, tolerance: float = 0.015) -> Tensor:
        """Negative log-probability of all candidates within a tolerance of the truth."""
        log_probabilities = self(correlations)
        near = (self.tempos / tempo_bpm[:, None] - 1).abs() < tolerance
        return -log_probabilities.masked_fill(~near, -1e9).logsumexp(1).mean()

    @torch.inference_mode()
    def pick(self, correlations: Tensor) -> Tensor:
        """(B, E, NUM_LAGS) -> (B,) tempos: the likeliest 2 % neighborhood, its mean."""
        probabilities = self(correlations).exp()
        width = 2 * REACH + 1
        best = F.avg_pool1d(probabilities[:, None], width, 1, REACH)[:, 0].argmax(1)
        nearby = best[:, None] + torch.arange(-REACH, REACH + 1)
        nearby = nearby.clamp(0, NUM_CANDIDATES - 1)
        weights = probabilities.gather(1, nearby)
        return ((weights * self.tempos[nearby].log()).sum(1) / weights.sum(1)).exp()
