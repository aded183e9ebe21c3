"""Embed clips for the Fréchet distance: one space is built in, one needs an optional package.

| space | numbers | window, hop | sensitive to | needs |
|---|---|---|---|---|
| ``logmel_statistics`` | 128 | 1 s, 0.5 s | level, movement and width of 32 bands | nothing |
| ``aisfx`` | 512 | 2.3 s, 1.2 s | noise, texture, the full band | ``INSTALL_AISFX``, 25 MB |

Each is a function ``(audio (C, S), sample_rate) -> (N, D)`` float32, one row a window; it refuses
clips shorter than a window.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.resampling import resample
from pipelines.errors import MissingPackageError, find_package_folder, import_package
from pipelines.evaluation.clip_checks import UnmeasurableError, check_clip, check_duration
from pipelines.evaluation.frechet import Vectors
from pipelines.evaluation.spectral import log_mel_analysis

Embed = Callable[[Tensor, int], np.ndarray]

INSTALL_AISFX = "pip install --no-deps aisfx==0.1.2"
AISFX_RATE = 44_100
AISFX_FRAMES = 100
AISFX_HOP_FRAMES = 50
AISFX_MAXIMUM = 9.457798957824707  # of the training spectrograms, as aisfx.preprocessing has it
STATISTICS_BANDS = 32
STATISTICS_FRAMES = 100  # of 10 ms
STATISTICS_HOP_FRAMES = 50
STATISTICS_FLOOR = math.log(1e-4)


def logmel_statistics(audio: Tensor, sample_rate: int) -> np.ndarray:
    """Compute statistics of 1 s windows of the log-mel spectrogram; this needs no package.

    For 32 bands, floored at -80 dB: mean, standard deviation and mean absolute movement between
    frames of the mid signal, in nats, and the mean share of the side signal in mid plus side,
    between 0 and 1. The space is not learned and knows nothing of instruments.
    """
    check_clip(audio)
    check_duration(audio, sample_rate, 1.0)
    mid_and_side = torch.stack([audio.mean(0), (audio[0] - audio[-1]) / 2])
    analysis = log_mel_analysis(sample_rate, STATISTICS_BANDS)
    mid, side = analysis(mid_and_side.float().unsqueeze(0))[0].clamp(min=STATISTICS_FLOOR)
    share = torch.sigmoid(side - mid)  # exp(side) / (exp(mid) + exp(side))
    mid, share = (
        bands.unfold(1, STATISTICS_FRAMES, STATISTICS_HOP_FRAMES)  # (M, N, frames)
        for bands in (mid, share)
    )
    parts = [mid.mean(-1), mid.std(-1), mid.diff(dim=-1).abs().mean(-1), share.mean(-1)]
    return torch.cat(parts).T.numpy()


def aisfx(audio: Tensor, sample_rate: int) -> np.ndarray:
    """Compute the X-Sequential-CE embedding of Ma and Lerch.

    "Representation Learning for the Automatic Indexing of Sound Effects Libraries" (ISMIR 2022);
    code MIT, weights CC BY 4.0.

    Blocks of 100 frames of log10(1 + 10000 mel power) (96 unit-sum bands up to 22 kHz, hop 1024)
    of the mono sum, scaled to a peak of 1, as ``aisfx.spectrogram.spectrogram_librosa`` computes
    them. The package pins old versions of numpy and librosa that it does not need here: install
    it with ``--no-deps``. Its weights are read by PyTorch's restricted unpickler.
    """
    check_clip(audio)
    check_duration(audio, sample_rate, 2.4)
    network = _aisfx_network()
    spectrogram = _aisfx_spectrogram(audio, sample_rate)  # (frames, mels)
    blocks = spectrogram.unfold(0, AISFX_FRAMES, AISFX_HOP_FRAMES).transpose(1, 2)
    with torch.inference_mode():
        return network(blocks.contiguous()).numpy()


EMBEDDINGS: dict[str, Embed] = {"logmel_statistics": logmel_statistics, "aisfx": aisfx}


def embed_clip(audio: Tensor, sample_rate: int) -> dict[str, Vectors]:
    """Embed a clip in every space, or note why it cannot be."""
    vectors: dict[str, Vectors] = {}
    for space, embed in EMBEDDINGS.items():
        try:
            vectors[space] = embed(audio, sample_rate)
        except (MissingPackageError, UnmeasurableError) as reason:
            vectors[space] = str(reason)
    return vectors


def _aisfx_spectrogram(audio: Tensor, sample_rate: int) -> Tensor:
    mono = resample(audio.mean(0), sample_rate, AISFX_RATE)
    mono = mono / mono.abs().amax().clamp(min=1e-9)
    window = torch.hann_window(2048)
    spectrum = torch.stft(mono, 2048, 1024, window=window, pad_mode="constant", return_complex=True)
    mel = spectrum.abs().square().T @ _unit_sum_filters()
    return torch.log10(1 + 10_000 * mel) / AISFX_MAXIMUM


@lru_cache(maxsize=1)
def _unit_sum_filters() -> Tensor:
    from torchaudio.functional import melscale_fbanks

    filters = melscale_fbanks(1025, 0.0, AISFX_RATE / 2, 96, AISFX_RATE, None, "htk")
    return filters / filters.sum(0).clamp(min=1e-9)


@lru_cache(maxsize=1)
def _aisfx_network() -> Any:
    folder = find_package_folder("aisfx", "aisfx embedding", INSTALL_AISFX)
    models = import_package("aisfx.models.cnn2d", "aisfx embedding", INSTALL_AISFX)
    prefix = "embedding_net."
    weights = {
        name.removeprefix(prefix): value
        for name, value in _read_aisfx_weights(folder / "models" / "checkpoint.pth").items()
        if name.startswith(prefix)
    }
    network = models.EmbeddingNet("max", 3, 1, 64)
    network.load_state_dict(weights)
    return network.eval()


def _read_aisfx_weights(path: Any) -> dict[str, Tensor]:
    """Read the state dict; beside it lie numpy integers, which must be allowed by name."""
    from numpy._core.multiarray import scalar

    allowed: list[Any] = [(scalar, "numpy.core.multiarray.scalar"), np.dtype, np.dtypes.Int64DType]
    with torch.serialization.safe_globals(allowed):
        weights, _ = torch.load(path, map_location="cpu", weights_only=True)
    return weights
