"""Audio to log-mel spectrogram, and the short-time Fourier transform pair under it."""

import functools
import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from codec.native.inner_loops import fold, runs_in_c

MIN_SINGULAR = 0.02
"""Smallest singular value that is inverted, as a share of the filterbank's largest. Bands narrower
than a bin have smaller ones; inverting those would amplify errors."""
SLANEY_BREAK_HZ = 1000.0
"""Bands of Slaney's mel scale are equally wide below, and ever wider above."""
FINE_BREAK_HZ = 450.0
"""128 bands are 16 Hz apart below, where Slaney's are 31: chords survive (docs/experiments.md)."""
FINE_WINDOW = 3072
"""Samples at 44.1 kHz that tell tones 29 Hz apart from each other."""


def slaney_filterbank(
    sample_rate: int, n_fft: int, num_bands: int, break_hz: float = SLANEY_BREAK_HZ
) -> Tensor:
    """Compute triangles of height one on Slaney's mel scale with its break moved.

    A lower break gives bands narrower below it and wider above.

    Args:
        sample_rate: Hz.
        n_fft: samples in the window.
        num_bands: N.
        break_hz: frequency (Hz) up to which bands are equally wide; 1000 is Slaney's.

    Returns:
        (n_fft / 2 + 1, N), always on the CPU: torchaudio's function mixes devices under a meta
        device.
    """
    scale = SLANEY_BREAK_HZ / break_hz  # the scale of frequencies that many times as high
    with torch.device("cpu"):
        return melscale_fbanks(
            *(n_fft // 2 + 1, 0.0, sample_rate / 2 * scale, num_bands, round(sample_rate * scale)),
            norm=None,
            mel_scale="slaney",
        )


@functools.cache
def mel_filterbanks(
    sample_rate: int, n_fft: int, num_mels: int, break_hz: float = SLANEY_BREAK_HZ
) -> tuple[Tensor, Tensor]:
    """Compute a filterbank, (n_fft / 2 + 1, M), and its pseudo-inverse, (M, n_fft / 2 + 1)."""
    filterbank = slaney_filterbank(sample_rate, n_fft, num_mels, break_hz)
    return filterbank, torch.linalg.pinv(filterbank.double(), rtol=MIN_SINGULAR).float()


class LogMel(nn.Module):
    """Natural-log mel magnitudes; a full-scale sine reads about 0 in its band.

    Frame ``f`` is centered on sample ``(f + 1/2) * hop_length``, so that S samples give exactly
    ``ceil(S / hop_length)`` frames and frames can be cut and joined without edge cases. Bands are
    triangles of height one.

    Args:
        sample_rate: Hz.
        n_fft: samples in the (Hann) window.
        hop_length: samples between frames.
        num_mels: mel bands, M.
        floor: smallest magnitude; everything below reads ``log(floor)``.
        mel_break_hz: up to it bands are equally wide (:func:`slaney_filterbank`).

    Raises:
        ValueError: a size is not positive, or the hop is longer than half a window.
    """

    window: Tensor
    filterbank: Tensor
    inverse_filterbank: Tensor

    def __init__(
        self,
        sample_rate: int = 44100,
        n_fft: int = 2048,
        hop_length: int = 441,
        num_mels: int = 128,
        floor: float = 1e-5,
        mel_break_hz: float = SLANEY_BREAK_HZ,
    ) -> None:
        super().__init__()
        for name, value in (
            ("sample_rate", sample_rate),
            ("num_mels", num_mels),
            ("floor", floor),
            ("mel_break_hz", mel_break_hz),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 < hop_length <= n_fft // 2:
            raise ValueError(
                f"hop_length must lie in [1, n_fft / 2], got {hop_length} with n_fft={n_fft}"
            )
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.num_mels = num_mels
        self.floor = floor
        self.mel_break_hz = mel_break_hz
        filterbank, inverse = mel_filterbanks(sample_rate, n_fft, num_mels, mel_break_hz)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filterbank", filterbank, persistent=False)  # (n_fft / 2 + 1, M)
        self.register_buffer("inverse_filterbank", inverse, persistent=False)

    @property
    def padding(self) -> int:
        """Samples by which the first window reaches back before the first sample."""
        return (self.n_fft - self.hop_length) // 2

    @property
    def frequencies(self) -> Tensor:
        """Centers of the bands (Hz), (M,)."""
        bins = torch.linspace(0.0, self.sample_rate / 2, len(self.filterbank))
        bank = self.filterbank.cpu()
        return (bank * bins[:, None]).sum(0) / bank.sum(0).clamp(min=1e-9)

    @property
    def log_floor(self) -> float:
        """Return the level of silence (nats)."""
        return math.log(self.floor)

    def forward(self, audio: Tensor) -> Tensor:
        """Map (B, C, S) float32 audio -> (B, C, M, F) natural-log mel, F = ceil(S / hop)."""
        return self.of_padded(self.pad(audio))

    def pad(self, audio: Tensor) -> Tensor:
        """Put the silence that the first and last window reach around (..., S) samples."""
        num_frames = -(-audio.shape[-1] // self.hop_length)
        right = (num_frames - 1) * self.hop_length + self.n_fft - self.padding - audio.shape[-1]
        return F.pad(audio, (self.padding, right))

    def of_padded(self, audio: Tensor) -> Tensor:
        """Analyze audio that already holds the samples around the first and last frame.

        Args:
            audio: (B, C, (F - 1) * hop_length + n_fft) samples from ``-padding`` on.

        Returns:
            (B, C, M, F) natural-log mel magnitudes.
        """
        return self.levels(self.stft(audio.float()).abs())

    def levels(self, magnitude: Tensor) -> Tensor:
        """Compute the log-mel of magnitudes.

        Args:
            magnitude: (..., F, n_fft / 2 + 1) in the scale of :meth:`stft`.

        Returns:
            (..., M, F) natural-log mel magnitudes.
        """
        mel = (magnitude @ self.filterbank) * (2 / self.window.sum())
        return rearrange(mel.clamp(min=self.floor).log(), "... f m -> ... m f")

    def magnitude(self, spectrogram: Tensor) -> Tensor:
        """Compute the least-squares linear magnitudes of a log-mel spectrogram.

        Args:
            spectrogram: (B, C, M, F) natural-log mel magnitudes.

        Returns:
            (B, C, F, n_fft / 2 + 1) non-negative magnitudes, in the scale of :meth:`stft`.
        """
        mel = rearrange(spectrogram, "b c m f -> b c f m").contiguous().exp()
        mel = mel * (self.window.sum() / 2)
        return (mel @ self.inverse_filterbank).clamp(min=0.0)

    def stft(self, audio: Tensor) -> Tensor:
        """Map (..., S) samples -> (..., F, n_fft / 2 + 1) complex, without padding."""
        frames = audio.unfold(-1, self.n_fft, self.hop_length)
        return torch.fft.rfft(frames * self.window)

    def overlap_add(self, spectrum: Tensor) -> Tensor:
        """Sum the windowed inverse transforms of frames; divide by :meth:`weight` to invert.

        Args:
            spectrum: (N, F, n_fft / 2 + 1) complex.

        Returns:
            (N, (F - 1) * hop_length + n_fft) samples.
        """
        return overlapped(torch.fft.irfft(spectrum, n=self.n_fft), self.window, self.hop_length)

    def weight(self, num_frames: int) -> Tensor:
        """Sum the squared windows at each of the (F - 1) * hop_length + n_fft samples."""
        return _weight(self.n_fft, self.hop_length, num_frames).to(self.window.device)


def overlapped(frames: Tensor, window: Tensor, hop_length: int) -> Tensor:
    """Add (R, F, n_fft) frames times the window, those that do not overlap at once, or in C."""
    if runs_in_c(frames, window):
        return fold(frames, window, hop_length)
    frames = frames * window
    R, num_frames, width = frames.shape
    length = (num_frames - 1) * hop_length + width
    stride = -(-width // hop_length)  # frames from one to the next that does not overlap
    samples = frames.new_zeros(R, length)
    for first in range(min(stride, num_frames)):
        apart = frames[:, first::stride]
        samples.as_strided(apart.shape, (length, stride * hop_length, 1), first * hop_length).add_(
            apart
        )
    return samples


@functools.lru_cache(maxsize=64)
def _weight(n_fft: int, hop_length: int, num_frames: int) -> Tensor:
    """Sum the squared Hann windows of overlapping frames."""
    window = torch.hann_window(n_fft, device="cpu")
    return overlapped(window.expand(1, num_frames, -1), window, hop_length)[0]
