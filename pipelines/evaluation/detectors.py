"""What a listener would say of a clip: tempo, key, instruments, drums, by fitted detectors.

The weights beside this file come from ``partita evaluate fit-detectors`` and know rendered General
MIDI music; on other music they err more. Their score on ground truth stands beside every score
that they give (see ``docs/evaluation.md``).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from codec.resampling import resample
from codec.spectrogram import LogMel
from pipelines.data.prepared import SAMPLE_RATE
from pipelines.evaluation.clip_checks import check_clip, check_duration
from pipelines.evaluation.instrument_tagger import (
    CLASSES,
    LEADS,
    InstrumentTagger,
    tagger_levels,
)
from pipelines.evaluation.key_finder import ANALYSIS_RATE, KeyFinder, chroma_vectors
from pipelines.evaluation.tempo_and_key import MIN_MUSIC_S, Key
from pipelines.evaluation.tempo_picker import TempoPicker, autocorrelations

WEIGHTS_PATH = Path(__file__).with_name("detectors.safetensors")
DRUMS_THRESHOLD = 0.5


@dataclass(frozen=True)
class Detected:
    """What the detectors say of a clip.

    Attributes:
        tempo_bpm: beats a minute.
        key: the likeliest of 24.
        probabilities: of every instrument and of drums, names of ``instrument_tagger.CLASSES``,
            to sound at all.
        leads: of every instrument of ``instrument_tagger.LEADS`` to play the tune.
    """

    tempo_bpm: float
    key: Key
    probabilities: dict[str, float]
    leads: dict[str, float]

    @property
    def drums(self) -> bool:
        """Whether there are any."""
        return self.probabilities["drums"] > DRUMS_THRESHOLD

    def first_of(self, names: tuple[str, ...]) -> str:
        """The one of some instruments that is likeliest to play the tune."""
        return max(names, key=lambda name: self.leads[name])


class Detectors(nn.Module):
    """The three networks."""

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
            Key(key % 12, key >= 12),
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
    """The committed detectors, or others that ``partita evaluate fit-detectors`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
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
    """The analysis of the prepared data."""
    return LogMel()


def mono_log_mel(log_mel: Tensor) -> Tensor:
    """(1, C, M, F) or (C, M, F) -> (M, F): log of the mean magnitude of the channels."""
    channels = log_mel[0] if log_mel.ndim == 4 else log_mel
    return channels.exp().mean(0).log()
