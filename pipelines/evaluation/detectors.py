"""Detect tempo, key, instruments and drums of a clip, by three small networks.

The weights beside this file come from ``partita evaluate fit-detectors`` and know General MIDI
music rendered with one soundfont; on other music they err more. Their score on such renders stands
beside every score that they give (docs/evaluation.md).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.data.scores.instruments import BASSES, FAMILIES, INSTRUMENTS
from pipelines.data.scores.keys import key_of
from pipelines.evaluation.clip_checks import check_clip, check_duration
from pipelines.evaluation.detector_features import (
    FRAME_RATE,
    NUM_ENVELOPES,
    NUM_LAGS,
    NUM_VECTORS,
    autocorrelations,
    chroma_vectors,
    mono_log_mel,
    mono_samples,
    tagger_levels,
)
from pipelines.evaluation.second_opinion import MIN_MUSIC_S
from pipelines.inference.safetensors_file import read_safetensors

WEIGHTS_PATH = Path(__file__).with_name("detectors.safetensors")
DRUMS_THRESHOLD = 0.5
CLASSES = (*INSTRUMENTS, "drums")
LEADS = tuple(name for name in INSTRUMENTS if name not in BASSES)
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}
SLOWEST, FASTEST, NUM_CANDIDATES = 45.0, 215.0, 390  # tempos, beats a minute
RATIOS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 4 / 3, 3 / 2, 2, 3, 4, 6, 8)
REACH = 5  # candidates on either side that count as one tempo: 2 %
NUM_MELS = 128


@dataclass(frozen=True)
class Detected:
    """Holds what the detectors say of a clip."""

    tempo_bpm: float  # beats a minute
    key: str  # the likeliest of 24, for example "Bb minor"
    probabilities: dict[str, float]  # of each of ``CLASSES`` to sound at all
    leads: dict[str, float]  # probabilities of each of ``LEADS`` to play the tune

    @property
    def drums(self) -> bool:
        """Tell whether there are any drums."""
        return self.probabilities["drums"] > DRUMS_THRESHOLD

    def lead_among(self, names: tuple[str, ...]) -> str:
        """Choose the one of some instruments that is likeliest to play the tune."""
        return max(names, key=lambda name: self.leads[name])


class Detectors(nn.Module):
    """Finds tempo, key and instruments, by a network each."""

    def __init__(self, tagger_width: int = 48) -> None:
        super().__init__()
        self.tempo = TempoPicker()
        self.key = KeyFinder()
        self.tagger = InstrumentTagger(tagger_width)

    @torch.inference_mode()
    def detect(self, audio: Tensor, sample_rate: int) -> Detected:
        """Describe a clip of at least 3 s.

        Raises:
            UnmeasurableError: silent or shorter than 3 s.
        """
        check_clip(audio)
        check_duration(audio, sample_rate, MIN_MUSIC_S)
        log_mel = mono_log_mel(audio, sample_rate)
        tempo_bpm = float(self.tempo.pick(autocorrelations(log_mel)[None])[0])
        samples = mono_samples(audio, sample_rate)
        key = int(self.key(chroma_vectors(samples)[None])[0].argmax())
        tags, leads = self.tagger(tagger_levels(log_mel)[None])
        return Detected(
            tempo_bpm,
            str(key_of(key % 12, "minor" if key >= 12 else "major")),
            dict(zip(CLASSES, tags[0].sigmoid().tolist(), strict=True)),
            dict(zip(LEADS, leads[0].softmax(0).tolist(), strict=True)),
        )

    def save(self, path: Path, notes: dict[str, str]) -> None:
        """Write the weights in half precision, with notes on how they were made."""
        halves = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in self.state_dict().items()
            if "num_batches_tracked" not in name
        }
        save_file(halves, path, metadata=notes)


@lru_cache(maxsize=1)
def load_detectors(path: Path = WEIGHTS_PATH) -> Detectors:
    """Load the committed detectors, or others that ``partita evaluate fit-detectors`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: partita evaluate fit-detectors writes it")
    weights = {name: tensor.float() for name, tensor in read_safetensors(path)[1].items()}
    detectors = Detectors(tagger_width=len(weights.get("tagger.middle.0.bias", range(48))))
    wanted = {name for name in detectors.state_dict() if "num_batches_tracked" not in name}
    if wanted != weights.keys():
        names = sorted(wanted ^ weights.keys())
        raise ValueError(f"{path} does not hold detectors: {names[0]} is missing or unexpected")
    detectors.load_state_dict(weights, strict=False)
    return detectors.eval().requires_grad_(False)


class TempoPicker(nn.Module):
    """Scores candidate tempos by the autocorrelations of onsets.

    A candidate is described by the correlation at its beat and at simple ratios of it, from a
    quarter to eight beats; long lags give the resolution.
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
        """Score (B, E, NUM_LAGS) correlations: (B, NUM_CANDIDATES) log-probabilities."""
        low = self.lags.floor().long()
        share = self.lags - low
        at = correlations[:, :, low] * (1 - share) + correlations[:, :, low + 1] * share
        at = (at * self.inside).permute(0, 2, 1, 3).flatten(2)  # (B, candidates, E * ratios)
        octave = torch.log2(self.tempos / 100)[:, None]
        fixed = torch.cat([octave, octave.square(), self.inside], dim=1)
        features = torch.cat([at, fixed.expand(len(at), -1, -1)], dim=2)
        return self.network(features)[..., 0].log_softmax(1)

    def loss(self, correlations: Tensor, tempo_bpm: Tensor, tolerance: float = 0.015) -> Tensor:
        """Compute the negative log-probability of all candidates near the truth."""
        log_probabilities = self(correlations)
        near = (self.tempos / tempo_bpm[:, None] - 1).abs() < tolerance
        return -log_probabilities.masked_fill(~near, -1e9).logsumexp(1).mean()

    @torch.inference_mode()
    def pick(self, correlations: Tensor) -> Tensor:
        """Average the likeliest 2 % neighborhood of (B, E, NUM_LAGS): (B,) tempos."""
        probabilities = self(correlations).exp()
        best = F.avg_pool1d(probabilities[:, None], 2 * REACH + 1, 1, REACH)[:, 0].argmax(1)
        nearby = best[:, None] + torch.arange(-REACH, REACH + 1)
        nearby = nearby.clamp(0, NUM_CANDIDATES - 1)
        weights = probabilities.gather(1, nearby)
        return ((weights * self.tempos[nearby].log()).sum(1) / weights.sum(1)).exp()


class KeyFinder(nn.Module):
    """Scores 24 keys: major ones from C upwards, then minor ones.

    The score of a tonic is one function of the chroma vectors rotated to it, so a transposed piece
    is in the transposed key.
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
        """Score (B, 9, 12) chroma vectors: (B, 24) logits."""
        features = (rotations(vectors) - self.mean) / self.deviation
        return self.network(features).transpose(1, 2).flatten(1)

    def normalize(self, vectors: Tensor) -> None:
        """Take mean and deviation of the features from (N, 9, 12) training vectors."""
        features = rotations(vectors)
        self.mean.copy_(features.mean((0, 1)))
        self.deviation.copy_(features.std((0, 1)).clamp(min=1e-6))


def rotations(vectors: Tensor) -> Tensor:
    """Read (B, 9, 12) vectors from every tonic upwards: (B, 12, 108)."""
    return torch.stack([vectors.roll(-tonic, -1).flatten(1) for tonic in range(12)], dim=1)


class InstrumentTagger(nn.Module):
    """Scores ``CLASSES``, any of them at once, and ``LEADS``, one of them."""

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
        """Score (B, M, F) levels: (B, classes) and (B, leads) logits."""
        maps = self.front(levels[:, None]).flatten(1, 2)  # (B, width * rows, F / 8)
        hidden = self.middle(maps)
        logits = self.out(torch.cat([hidden.mean(-1), hidden.amax(-1)], dim=1))
        return logits[:, : len(CLASSES)], logits[:, len(CLASSES) :]
