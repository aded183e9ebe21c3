"""Parametric stereo: the image of two channels as a few numbers per band, and back.

One spectrogram carries the total power. Beside it stand, for every band and token frame, the level
difference of left and right and their coherence. Synthesis mixes the mono signal with a
decorrelated copy of itself so that both come back (Breebaart, van de Par, Kohlrausch and Schuijers,
"Parametric Coding of Stereo Audio", 2005; MPEG-4 part 3, subpart 8).

The decorrelator works frame by frame on the same short-time spectra as the vocoder, so it needs no
memory of its own and every frame's copy has the envelope of the frame: attacks stay dry.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.native.inner_loops import mix_bands, runs_in_c
from codec.seeds import generator
from codec.spectrogram import LogMel, slaney_filterbank

MAX_DIFFERENCE_DB = 30.0
MIN_POWER = 1e-9
"""Power of a band against a full-scale sine's; a band far below it reads as mono."""
MONO_SHARE = 1e-4
"""A frame whose side signal would hold less of its power than this is mono, exactly."""
DECAY_S = 0.012
DECORRELATOR_SHARE = 0.5
"""Length of the decorrelator's response against the window's: later taps wrap round inside it."""


class Mixing(NamedTuple):
    """Hold how much of the mono signal and of its decorrelated copy goes into middle and side."""

    middle: Tensor  # of mono; the copy has no part in (L + R) / 2, which therefore cannot comb
    side: Tensor  # of mono, in (L - R) / 2
    wet_side: Tensor  # of the copy


def stereo_image(power_left: Tensor, power_right: Tensor, cross: Tensor) -> Tensor:
    """Compute the level difference and the coherence angle of a band.

    Args:
        power_left: (...) of the left channel, a full-scale sine has 1.
        power_right: (...) of the right one.
        cross: (...) real part of the sum of L R*.

    Returns:
        (2, ...): the level difference in dB, left over right, within 30; and the arc cosine of the
        coherence, from 0 (one signal) by pi / 2 (unrelated) to pi (one of them inverted).
    """
    left, right, cross = power_left + MIN_POWER, power_right + MIN_POWER, cross + MIN_POWER
    difference = (10 * (left / right).log10()).clamp(-MAX_DIFFERENCE_DB, MAX_DIFFERENCE_DB)
    coherence = (cross / (left * right).sqrt()).clamp(-1.0, 1.0)
    return torch.stack([difference, coherence.arccos()])


def mixing(difference: Tensor, angle: Tensor) -> Mixing:
    """Compute the 2 x 2 mixing matrix of Breebaart et al. 2005, eqs. 20 to 24, as middle and side.

    Args:
        difference: (...) level difference in dB, left over right.
        angle: (...) arc cosine of the coherence, in [0, pi].
    """
    ratio = 10 ** (difference / 20)
    right = math.sqrt(2) / (1 + ratio.square()).sqrt()
    left = ratio * right  # left ** 2 + right ** 2 == 2
    half = angle / 2
    sine, cosine = half.sin(), half.cos().clamp(min=0.0)
    turn = torch.atan2(sine * (right - left), cosine * (right + left))
    return Mixing(
        (left * (half + turn).cos() + right * (turn - half).cos()) / 2,
        (left * (half + turn).cos() - right * (turn - half).cos()) / 2,
        (left * (half + turn).sin() - right * (turn - half).sin()) / 2,
    )


def decorrelating_response(window: Tensor, sample_rate: int) -> Tensor:
    """Compute the factors of a frame's bins that give its decorrelated copy.

    All-pass noise that decays by 1 / e in 12 ms. Overlapping windows attenuate what a frame's copy
    delays, so the taps are raised by as much and the overlapped sum is all-pass.

    Args:
        window: (n_fft,) of analysis and synthesis.
        sample_rate: Hz.

    Returns:
        (n_fft / 2 + 1,) complex.
    """
    n_fft = len(window)
    taps = torch.arange(n_fft)
    decay = torch.exp(-taps / (DECAY_S * sample_rate))
    noise = torch.randn(n_fft, generator=generator(0, "decorrelator")) * decay
    spectrum = torch.fft.rfft(noise, 2 * n_fft)
    noise = torch.fft.irfft(spectrum / spectrum.abs().clamp(min=1e-6))[:n_fft]
    noise = torch.where(taps < DECORRELATOR_SHARE * n_fft, noise, 0.0)
    noise = noise / noise.norm()
    overlap = torch.fft.irfft(torch.fft.rfft(window, 2 * n_fft).abs().square())[:n_fft]
    return torch.fft.rfft(noise * overlap[0] / overlap.clamp(min=1e-6))


class ParametricStereo(nn.Module):
    """Two channels' short-time spectra to total power and image, and a mono spectrum back to two.

    The image is (B, 2 N, F): N level differences in dB, then N coherence angles, held for the
    ``hold`` frames of a token.

    Args:
        log_mel: the transform whose spectra are analysed and mixed.
        num_bands: N, triangles on the scale of ``log_mel`` that share out every bin.
        hold: spectrogram frames over which the image is measured.

    Raises:
        ValueError: no band, or more bands than mel bands.
    """

    shares: Tensor
    starts: Tensor
    blends: Tensor
    response: Tensor

    def __init__(self, log_mel: LogMel, num_bands: int = 32, hold: int = 4) -> None:
        super().__init__()
        if not 1 <= num_bands <= log_mel.num_mels:
            raise ValueError(
                f"stereo_bands must lie in [1, num_mels={log_mel.num_mels}], got {num_bands}"
            )
        self.log_mel = log_mel
        self.num_bands = num_bands
        self.hold = hold
        rate, n_fft = log_mel.sample_rate, log_mel.n_fft
        with torch.device("cpu"):
            bank = slaney_filterbank(rate, n_fft, num_bands, log_mel.mel_break_hz)
            bank[0, 0] += 1e-9  # the first and the last bin lie on the triangles' feet
            bank[-1, -1] += 1e-9
            shares = bank / bank.sum(1, keepdim=True).clamp(min=1e-12)
            response = decorrelating_response(torch.hann_window(n_fft), rate)
            lower = (shares > 0).int().argmax(1)  # of the two bands, side by side, of a bin
            starts = torch.searchsorted(lower, torch.arange(num_bands + 1), out_int32=True)
            blends = 1 - shares.gather(1, lower[:, None])[:, 0]
        self.register_buffer("shares", shares, persistent=False)  # (bins, N), rows sum to one
        self.register_buffer("starts", starts, persistent=False)  # (N + 1,)
        self.register_buffer("blends", blends, persistent=False)  # (bins,)
        self.register_buffer("response", torch.view_as_real(response), persistent=False)

    def analyze(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Measure total power and image.

        Args:
            spectrum: (B, 2, F, n_fft / 2 + 1) complex, of :meth:`LogMel.stft`.

        Returns:
            (B, 1, M, F) natural-log mel magnitudes of the root mean square of both channels, and
            (B, 2 N, F) the image.
        """
        num_frames = spectrum.shape[2]
        left, right = spectrum.unbind(1)
        parts = (left.abs().square(), right.abs().square(), (left * right.conj()).real)
        total = ((parts[0] + parts[1]) / 2).sqrt()
        scale = (2 / self.log_mel.window.sum()).square()  # a full-scale sine has a power of one
        image = stereo_image(*(self._pool(part) * scale for part in parts))  # (2, B, T, N)
        image = image.permute(1, 0, 3, 2).flatten(1, 2)  # (B, 2 N, T)
        image = image.repeat_interleave(self.hold, dim=-1)[..., :num_frames]
        return self.log_mel.levels(total)[:, None], image

    def mix(self, mono: Tensor, image: Tensor, spectrogram: Tensor) -> Tensor:
        """Turn a mono spectrum into middle and side.

        Args:
            mono: (B, F, n_fft / 2 + 1) complex.
            image: (B, 2 N, F).
            spectrogram: (B, M, F) natural-log mel magnitudes of the same frames.

        Returns:
            (B, 2, F, n_fft / 2 + 1) complex: (L + R) / 2 and (L - R) / 2, the latter exactly zero
            where a frame is mono.
        """
        difference, angle = image.chunk(2, dim=1)
        difference = difference.clamp(-MAX_DIFFERENCE_DB, MAX_DIFFERENCE_DB)
        factors = mixing(difference, angle.clamp(0.0, math.pi))
        mono_frames = self.side_share(factors, spectrogram) < MONO_SHARE  # (B, 1, F)
        middle, side, wet = (
            torch.where(mono_frames, alone, factor).transpose(1, 2)
            for alone, factor in zip((1.0, 0.0, 0.0), factors, strict=True)
        )
        response = torch.view_as_complex(self.response)
        if runs_in_c(mono, middle):
            parts = torch.stack([middle, side, wet])
            return mix_bands(mono, parts, self.blends, self.starts, response)
        middle, side, wet = (factor @ self.shares.T for factor in (middle, side, wet))
        return torch.stack([mono * middle, mono * (side + wet * response)], dim=1)

    def side_share(self, factors: Mixing, spectrogram: Tensor) -> Tensor:
        """Compute the (B, 1, F) part of the power that goes into the side signal, 0 to 1."""
        power = F.adaptive_avg_pool1d((2 * spectrogram.transpose(1, 2)).exp(), self.num_bands)
        power = power.transpose(1, 2)  # (B, N, F)
        side = (factors.side.square() + factors.wet_side.square()) * power
        return side.sum(1, keepdim=True) / power.sum(1, keepdim=True)

    def _pool(self, power: Tensor) -> Tensor:
        """Pool (B, F, bins) -> (B, T, N): sums of a band's bins, means over ``hold`` frames."""
        bands = power @ self.shares
        missing = -bands.shape[1] % self.hold
        if missing:  # the last token's frames that exist
            bands = torch.cat([bands, bands[:, -1:].expand(-1, missing, -1)], dim=1)
        return bands.unflatten(1, (-1, self.hold)).mean(2)
