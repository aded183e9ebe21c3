"""Tempo, key, instruments and drums of a clip, by three small networks on spectral features.

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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from codec.resampling import resample
from codec.spectrogram import LogMel
from pipelines.data.clip_levels import SAMPLE_RATE
from pipelines.data.scores.instruments import BASSES, INSTRUMENTS
from pipelines.data.scores.keys import key_of
from pipelines.evaluation.clip_checks import check_clip, check_duration
from pipelines.evaluation.second_opinion import MIN_MUSIC_S

WEIGHTS_PATH = Path(__file__).with_name("detectors.safetensors")
DRUMS_THRESHOLD = 0.5
CLASSES = (*INSTRUMENTS, "drums")
LEADS = tuple(name for name in INSTRUMENTS if name not in BASSES)
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


@dataclass(frozen=True)
class Detected:
    """Hold what the detectors say of a clip.

    Attributes:
        tempo_bpm: beats a minute.
        key: the likeliest of 24, for example "Bb minor".
        probabilities: of each of ``CLASSES`` to sound at all.
        leads: probabilities of each of ``LEADS`` to play the tune.
    """

    tempo_bpm: float
    key: str
    probabilities: dict[str, float]
    leads: dict[str, float]

    @property
    def drums(self) -> bool:
        """Tell whether there are any."""
        return self.probabilities["drums"] > DRUMS_THRESHOLD

    def lead_among(self, names: tuple[str, ...]) -> str:
        """Choose the one of some instruments that is likeliest to play the tune."""
        return max(names, key=lambda name: self.leads[name])


class Detectors(nn.Module):
    """The networks of tempo, key and instruments."""

    def __init__(self, tagger_width: int = 48) -> None:
        super().__init__()
        self.tempo = TempoPicker()
        self.key = KeyFinder()
        self.tagger = InstrumentTagger(tagger_width)

    @torch.inference_mode()
    def detect(self, audio: Tensor, sample_rate: int) -> Detected:
        """Describe a clip.

        Args:
            audio: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz, at least 3 s.
            sample_rate: Hz.

        Raises:
            UnmeasurableError: silent or shorter than 3 s.
        """
        check_clip(audio)
        check_duration(audio, sample_rate, MIN_MUSIC_S)
        log_mel = mono_log_mel(log_mel_analysis()(resample(audio, sample_rate, SAMPLE_RATE)[None]))
        samples = resample(audio.mean(0), sample_rate, ANALYSIS_RATE)
        tempo_bpm = float(self.tempo.pick(autocorrelations(log_mel)[None])[0])
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
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error
    detectors = Detectors(tagger_width=len(weights.get("tagger.middle.0.bias", range(48))))
    wanted = {name for name in detectors.state_dict() if "num_batches_tracked" not in name}
    if wanted != weights.keys():
        names = sorted(wanted ^ weights.keys())
        raise ValueError(f"{path} does not hold detectors: {names[0]} is missing or unexpected")
    detectors.load_state_dict(weights, strict=False)
    return detectors.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def log_mel_analysis() -> LogMel:
    """Build the analysis of the prepared data once."""
    return LogMel()


def mono_log_mel(log_mel: Tensor) -> Tensor:
    """Mix channels: (1, C, M, F) or (C, M, F) -> (M, F), the log of their mean magnitude."""
    channels = log_mel[0] if log_mel.ndim == 4 else log_mel
    return channels.exp().mean(0).log()


# -- tempo ----------------------------------------------------------------------------------------

FRAME_RATE = 100  # of the log-mel spectrogram
BANDS = ((0, 12), (12, 40), (40, 80), (80, 128))
NUM_ENVELOPES = len(BANDS) + 1
ONSET_RANGE_NATS = 8.0  # below the loudest
NUM_LAGS = 700
SLOWEST, FASTEST, NUM_CANDIDATES = 45.0, 215.0, 390
RATIOS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 4 / 3, 3 / 2, 2, 3, 4, 6, 8)
REACH = 5  # candidates on either side that count as one tempo: 2 %
HARMONY_BANDS = 60
HARMONY_FRAMES = 11


def onset_envelopes(log_mel: Tensor) -> Tensor:
    """Measure how much begins at every frame.

    Args:
        log_mel: (M, F) natural-log mel magnitudes at 100 frames/s, M = 128.

    Returns:
        (E, F - 2) rises of four bands over 20 ms, and changes of the smoothed spectrum; local mean
        0, standard deviation 1.
    """
    log_mel = log_mel.clamp(min=float(log_mel.max()) - ONSET_RANGE_NATS)
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
    """Correlate the onset envelopes of (M, F) log-mel: (E, NUM_LAGS), unbiased, 1 at lag 0."""
    envelopes = onset_envelopes(log_mel)
    length = envelopes.shape[1]
    power = torch.fft.rfft(envelopes, 2 * length).abs().square()
    correlation = torch.fft.irfft(power)[:, :length]
    correlation = correlation / (length - torch.arange(length)).clamp(min=100)
    correlation = correlation / correlation[:, :1].clamp(min=1e-6)
    return F.pad(correlation, (0, max(0, NUM_LAGS - length)))[:, :NUM_LAGS]


class TempoPicker(nn.Module):
    """Scores of candidate tempos from autocorrelations of onsets.

    A candidate is described by the correlation at its beat and at simple ratios of it, from a
    quarter to eight beats; long lags give the resolution.

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


# -- key ------------------------------------------------------------------------------------------

ANALYSIS_RATE = 22_050
N_FFT = 8192
HOP_LENGTH = 2048
REGISTERS_HZ = ((50.0, 200.0), (200.0, 800.0), (800.0, 3200.0))
PEAK_FLOOR = 1e-3  # of the loudest bin
QUIET_FLOOR = 0.05  # of the loudest frame
TRIAD_SHARPNESS = 8.0
NUM_VECTORS = 9


def peak_chroma(samples: Tensor) -> Tensor:
    """Sum spectral peaks of (S,) samples at 22,050 Hz: (3, 12, T) by register and pitch class.

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
        counted = is_peak & (frequency >= low) & (frequency < high)
        chroma[index].scatter_add_(0, pitch_class, weight * counted)
    return chroma


def chroma_vectors(samples: Tensor) -> Tensor:
    """Describe a piece for :class:`KeyFinder`, wherever in the piece its frames lie.

    Args:
        samples: (S,) float32 at 22,050 Hz.

    Returns:
        (9, 12): sums of the chroma by register; these sums with every frame made equally loud; the
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
    """Average a soft choice among major and minor triads over time: (12, T) -> (2, 12)."""
    chroma = chroma / chroma.norm(dim=0, keepdim=True).clamp(min=1e-6)
    shapes = torch.zeros(2, 12)
    shapes[0, [0, 4, 7]] = shapes[1, [0, 3, 7]] = 3**-0.5
    triads = torch.stack([shape.roll(root) for shape in shapes for root in range(12)])
    return ((triads @ chroma) * TRIAD_SHARPNESS).softmax(0).mean(1).reshape(2, 12)


class KeyFinder(nn.Module):
    """Scores of 24 keys: major ones from C upwards, then minor ones.

    The score of a tonic is one function of the chroma vectors rotated to it, so a transposed piece
    is in the transposed key.

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


# -- instruments and drums ------------------------------------------------------------------------

NUM_MELS = 128
POOLING = 2  # frames of 10 ms made one
LEVEL_RANGE_NATS = 9.0  # below the loudest


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
        """Score (B, M, F) levels: (B, classes) and (B, leads) logits."""
        maps = self.front(levels[:, None]).flatten(1, 2)  # (B, width * rows, F / 8)
        hidden = self.middle(maps)
        logits = self.out(torch.cat([hidden.mean(-1), hidden.amax(-1)], dim=1))
        return logits[:, : len(CLASSES)], logits[:, len(CLASSES) :]


def tagger_levels(log_mel: Tensor) -> Tensor:
    """Scale (M, F) natural-log mel at 100 frames/s to levels from 0 to 1 at 50: (M, F / 2)."""
    pairs = log_mel[:, : log_mel.shape[1] // POOLING * POOLING].unflatten(1, (-1, POOLING))
    pooled = pairs.mean(-1)
    return ((pooled - pooled.amax()) / LEVEL_RANGE_NATS + 1).clamp(min=0)
