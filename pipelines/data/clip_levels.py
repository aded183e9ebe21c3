"""Analyze the sound of a clip, and quantize its spectrogram and stereo image to bytes and back."""

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.spectrogram import FINE_BREAK_HZ, FINE_WINDOW, LogMel
from codec.stereo import ParametricStereo

SAMPLE_RATE = 44_100
NUM_MELS = 128
FRAME_RATE = 100
FRAMES_PER_TOKEN = 4
SPECTROGRAM_PARAMETERS: dict[str, Any] = {
    "sample_rate": SAMPLE_RATE,
    "n_fft": FINE_WINDOW,
    "hop_length": 441,
    "num_mels": NUM_MELS,
    "floor": 1e-5,
    "mel_break_hz": FINE_BREAK_HZ,
}
STEREO_BANDS = 32
QUANTIZED_FLOOR = -11.5129
"""Natural logarithm of the spectrogram's floor: the value of code 0."""
QUANTIZED_STEP = 0.0632
"""Nats between neighboring codes: 255 of them reach 4.603."""
DIFFERENCE_STEP = 0.25
"""Decibels between neighboring codes of a level difference; code 128 is 0 dB, exactly."""
ANGLE_STEP = math.pi / 255
"""Radians between neighboring codes of a coherence angle; code 0 is 0, exactly."""


@functools.cache
def analysis() -> ParametricStereo:
    """Build this process's analysis, which takes a matrix inversion, once."""
    return ParametricStereo(LogMel(**SPECTROGRAM_PARAMETERS), STEREO_BANDS, FRAMES_PER_TOKEN)


def analyze(padded: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return what is stored of a clip's sound.

    Args:
        padded: (2, (F - 1) * hop_length + n_fft) float32, the samples around the clip included, as
            :meth:`LogMel.of_padded` takes them.

    Returns:
        (1, M, F) uint8 levels of the total power and the (2, N, T) uint8 stereo image,
        T = ceil(F / 4).
    """
    stereo = analysis()
    levels, image = stereo.analyze(stereo.log_mel.stft(padded[None]))
    return quantize_spectrogram(levels[0]), quantize_image(image[0, :, ::FRAMES_PER_TOKEN])


def check_analysis(config: Any) -> None:
    """Raise ValueError unless a ``SpectralCodec``'s config analyzes audio as prepared data were."""
    wanted = SPECTROGRAM_PARAMETERS | {"patch_frames": FRAMES_PER_TOKEN}
    for name, value in wanted.items():
        if name != "floor" and config[name] != value:
            raise ValueError(f"{name} must be the {value} of prepared data, got {config[name]}")


def pad_frames(levels: np.ndarray) -> np.ndarray:
    """Pad (C, M, F) levels with the floor until F is a multiple of four."""
    missing = -levels.shape[-1] % FRAMES_PER_TOKEN
    return np.pad(levels, ((0, 0), (0, 0), (0, missing))) if missing else levels


def quantize_spectrogram(spectrogram: Tensor) -> np.ndarray:
    """Round natural-log mel magnitudes to 256 levels, uint8; the error is at most 0.0316 nats."""
    levels = ((spectrogram - QUANTIZED_FLOOR) / QUANTIZED_STEP).round().clamp(0, 255)
    return levels.to(torch.uint8).contiguous().cpu().numpy()


def dequantize_spectrogram(levels: np.ndarray) -> Tensor:
    """Turn uint8 levels of any shape back into float32 natural-log mel magnitudes."""
    values = torch.from_numpy(levels if levels.flags.writeable else levels.copy())
    return values.to(torch.float32).mul_(QUANTIZED_STEP).add_(QUANTIZED_FLOOR)


def quantize_image(image: Tensor) -> np.ndarray:
    """Round a stereo image to 256 levels; 0 dB and 0 rad, as in mono, are kept exactly.

    Args:
        image: (2 N, T) level differences in dB, then coherence angles (rad).

    Returns:
        (2, N, T) uint8.
    """
    difference, angle = image.chunk(2)
    levels = torch.stack([difference / DIFFERENCE_STEP + 128, angle / ANGLE_STEP])
    return levels.round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def dequantize_image(levels: np.ndarray) -> Tensor:
    """Invert :func:`quantize_image`, (2, N, T) uint8 -> (2 N, T) float32."""
    values = torch.from_numpy(np.array(levels, dtype=np.float32))
    return torch.cat([(values[0] - 128) * DIFFERENCE_STEP, values[1] * ANGLE_STEP])


def left_right(levels: Tensor, image: Tensor) -> Tensor:
    """Turn (1, M, F) levels of the total power and a (2 N, F) image into left and right."""
    ratio = (image[:STEREO_BANDS] * (math.log(10) / 10)).exp()  # (N, F), left over right
    ratio = ratio.repeat_interleave(NUM_MELS // STEREO_BANDS, dim=0)
    shares = torch.stack([2 * ratio / (1 + ratio), 2 / (1 + ratio)])
    return (levels + shares.log() / 2).clamp(min=QUANTIZED_FLOOR)  # (2, M, F)
