"""The musicnn tagger (MagnaTagATune weights) in PyTorch: 50 tags and a 200-d embedding.

Pons and Serra, "musicnn: Pre-trained convolutional neural networks for music audio tagging"
(2019). Its own code needs TensorFlow 1; the weights are read from the installed wheel with numpy:
``pip install --no-deps musicnn==0.1.0`` (ISC; trained on audio with non-commercial terms). The mel
spectrogram is computed in float32, where the original's half precision loses quiet music.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.resampling import resample
from pipelines.errors import find_package_folder
from pipelines.evaluation.pair import check_clip, check_duration
from pipelines.evaluation.spectral import mel_filters
from pipelines.evaluation.tensorflow_checkpoint import read_checkpoint

INSTALL = "pip install --no-deps musicnn==0.1.0"
SAMPLE_RATE = 16_000
N_FFT = 512
HOP_LENGTH = 256
NUM_MELS = 96
WINDOW_FRAMES = 187  # the 3 s of the original's training
WINDOW_S = 3.0
HOP_FRAMES = 94
BATCH_NORM_EPSILON = 1e-3  # TensorFlow's default
# The wheel's configuration.MTT_LABELS, in the order of the outputs
TAGS = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast"),
    *("piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male"),
    *("singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman"),
    *("male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir", "voice"),
    *("new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice"),
    *("weird", "country", "metal", "female voice", "choral"),
)


def musicnn(audio: Tensor, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and tag probabilities of 3 s windows, each half over the one before.

    Args:
        audio: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz, at least 3 s; summed to mono and
            resampled to 16 kHz inside.
        sample_rate: Hz.

    Returns:
        (N, 200) and (N, 50) float32; tags in the order of ``TAGS``, in [0, 1].

    Raises:
        MissingPackageError: the musicnn wheel is not installed.
        UnmeasurableError: silent or shorter than 3 s.
    """
    check_clip(audio)
    check_duration(audio, sample_rate, WINDOW_S)
    weights = read_weights()
    patches = mel_patches(audio, sample_rate)  # (N, frames, mels)
    with torch.inference_mode():
        embedding, logits = forward(weights, patches)
    return embedding.numpy(), logits.sigmoid().numpy()


def tag_probabilities(audio: Tensor, sample_rate: int) -> dict[str, float]:
    """Mean probability of each of the 50 tags over the clip's windows."""
    _, tags = musicnn(audio, sample_rate)
    return dict(zip(TAGS, tags.mean(0).tolist(), strict=True))


def mel_patches(audio: Tensor, sample_rate: int) -> Tensor:
    """(C, S) audio -> (N, 187, 96) patches of log10(1 + 10000 mel power)."""
    mono = resample(audio.mean(0), sample_rate, SAMPLE_RATE)
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(
        mono, N_FFT, HOP_LENGTH, window=window, pad_mode="constant", return_complex=True
    )
    mel = spectrum.abs().square().T @ mel_filters(N_FFT, NUM_MELS, SAMPLE_RATE)
    log_mel = torch.log10(1 + 10_000 * mel)  # (frames, mels)
    return log_mel.unfold(0, WINDOW_FRAMES, HOP_FRAMES).transpose(1, 2)


@lru_cache(maxsize=1)
def read_weights() -> dict[str, Tensor]:
    """The network's tensors, by their TensorFlow names, without the optimizer's."""
    folder = find_package_folder("musicnn", "musicnn embedding and tags", INSTALL)
    tensors = read_checkpoint(folder / "MTT_musicnn")
    return {
        name.removeprefix("model/"): torch.from_numpy(value.copy())
        for name, value in tensors.items()
        if "Adam" not in name
    }


def forward(weights: dict[str, Tensor], patches: Tensor) -> tuple[Tensor, Tensor]:
    """The network of musicnn's ``models.py`` in evaluation mode.

    Args:
        weights: from :func:`read_weights`.
        patches: (N, 187, 96) from :func:`mel_patches`.

    Returns:
        (N, 200) penultimate activations and (N, 50) logits.
    """
    x = _batch_norm(weights, 0, patches.unsqueeze(1))  # (N, 1, frames, mels)
    timbral = F.pad(x, (0, 0, 3, 3))
    features = [_front(weights, index, timbral) for index in (0, 1)]
    features += [_front(weights, index, _same(weights, index, x)) for index in (2, 3, 4)]
    front = torch.cat(features, dim=1).transpose(1, 2)  # (N, frames, D)
    first = _middle(weights, 5, front)
    second = _middle(weights, 6, first) + first
    third = _middle(weights, 7, second) + second
    stacked = torch.cat([front, first, second, third], dim=2)
    pooled = torch.stack([stacked.amax(1), stacked.mean(1)], dim=2).flatten(1)
    hidden = _dense(weights, "dense", _batch_norm(weights, 9, pooled)).relu()
    embedding = _batch_norm(weights, 10, hidden)
    return embedding, _dense(weights, "dense_1", embedding)


def _front(weights: dict[str, Tensor], index: int, x: Tensor) -> Tensor:
    """Convolution, ReLU, batch norm, maximum over frequency: (N, filters, frames)."""
    return _batch_norm(weights, index + 1, _convolution(weights, index, x).relu()).amax(3)


def _middle(weights: dict[str, Tensor], index: int, x: Tensor) -> Tensor:
    """A convolution over 7 frames and all features: (N, frames, D) -> (N, frames, 64)."""
    padded = F.pad(x.unsqueeze(1), (0, 0, 3, 3))
    out = _batch_norm(weights, index + 1, _convolution(weights, index, padded).relu())
    return out.squeeze(3).transpose(1, 2)


def _same(weights: dict[str, Tensor], index: int, x: Tensor) -> Tensor:
    """TensorFlow's "same" padding in time: the odd frame goes after."""
    total = weights[_name("conv2d", index, "kernel")].shape[0] - 1
    return F.pad(x, (0, 0, total // 2, total - total // 2))


def _convolution(weights: dict[str, Tensor], index: int, x: Tensor) -> Tensor:
    kernel = weights[_name("conv2d", index, "kernel")].permute(3, 2, 0, 1)
    return F.conv2d(x, kernel, weights[_name("conv2d", index, "bias")])


def _batch_norm(weights: dict[str, Tensor], index: int, x: Tensor) -> Tensor:
    names = ("moving_mean", "moving_variance", "gamma", "beta")
    mean, variance, gamma, beta = (
        weights[_name("batch_normalization", index, name)] for name in names
    )
    return F.batch_norm(x, mean, variance, gamma, beta, eps=BATCH_NORM_EPSILON)


def _dense(weights: dict[str, Tensor], layer: str, x: Tensor) -> Tensor:
    return x @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"]


def _name(layer: str, index: int, tensor: str) -> str:
    return f"{layer}_{index}/{tensor}" if index else f"{layer}/{tensor}"
