"""Make systems that reconstruct a clip: classical codecs, token codecs, decoders."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.encodec_codec import VARIANTS, EncodecCodec
from codec.protocols import Codec
from codec.resampling import resample
from pipelines.evaluation.classical_codecs import transcode
from pipelines.evaluation.codebooks import bitrate_kbps
from pipelines.evaluation.measurement_cache import module_fingerprint

Decode = Callable[[Tensor], Tensor]  # (1, k, T) codes -> (1, C, S) audio at the codec's rate


@dataclass(frozen=True)
class System:
    """Makes one row of a report.

    ``reconstruct`` takes (C, S) audio and its sample rate; it returns the reconstruction, aligned
    and at the same rate, and its bit rate in kbps (None where that makes no sense).
    """

    name: str  # unique in a report
    group: str  # rows of one group are joined by a line in the plot
    identity: str  # changes whenever the result could change; part of the cache's key
    reconstruct: Callable[[Tensor, int], tuple[Tensor, float | None]]


ORIGINAL = System("original", "original", "1", lambda audio, _: (audio, None))
"""The clip itself: what every metric reads when nothing was lost."""


def classical_system(name: str) -> System:
    """Make the row of one of ``CLASSICAL_CODECS``."""
    return System(name, name.split()[0], name, lambda audio, rate: transcode(audio, rate, name))


class TokenCodec:
    """Takes clips of any rate to a codec, and remembers the codes of the last one.

    The clip is resampled and mixed to what the codec takes and the result converted back, so that
    every system is compared with the same original.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec: Any = codec
        self.fingerprint = type(codec).__qualname__
        if isinstance(codec, torch.nn.Module):
            self.fingerprint = module_fingerprint(codec)
        self._last: tuple[Tensor, Tensor] | None = None

    def encode(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Encode (C, S) audio to (1, K, T) codes."""
        if self._last is None or self._last[0] is not audio:
            with torch.inference_mode():
                self._last = (audio, self.codec.encode(self._fit(audio, sample_rate)))
        return self._last[1]

    def system(
        self,
        name: str,
        group: str,
        num_codebooks: int,
        decode: Decode | None = None,
        identity: str = "",
        decoded_rate: int | None = None,
    ) -> System:
        """Make the row of this codec's first codebooks, decoded by the codec or by ``decode``.

        ``decoded_rate`` is that of ``decode``'s sound (Hz); None for the codec's.
        """
        codec = self.codec
        if not 1 <= num_codebooks <= codec.num_codebooks:
            raise ValueError(
                f"num_codebooks must lie in [1, {codec.num_codebooks}], got {num_codebooks}"
            )
        kbps = bitrate_kbps(num_codebooks, codec.codebook_size, codec.frame_rate)

        def reconstruct(audio: Tensor, sample_rate: int) -> tuple[Tensor, float]:
            codes = self.encode(audio, sample_rate)[:, :num_codebooks]
            with torch.inference_mode():
                decoded = (decode or codec.decode)(codes)[0]
            return self._restore(decoded, audio, sample_rate, decoded_rate), kbps

        return System(name, group, f"{self.fingerprint} {num_codebooks} {identity}", reconstruct)

    def vocoder_systems(self) -> list[System]:
        """Make the row of the codec's vocoder, if any, on the true spectrogram: its ceiling."""
        codec = self.codec
        if not hasattr(codec, "vocoder") or not hasattr(codec, "analyze"):
            return []

        def reconstruct(audio: Tensor, sample_rate: int) -> tuple[Tensor, None]:
            with torch.inference_mode():
                decoded = codec.vocoder(codec.analyze(self._fit(audio, sample_rate)))[0]
            return self._restore(decoded, audio, sample_rate), None

        name = "vocoder, true spectrogram"
        return [System(name, "vocoder", f"vocoder {self.fingerprint}", reconstruct)]

    def _fit(self, audio: Tensor, sample_rate: int) -> Tensor:
        fitted = fit_channels(audio, self.codec.channels)
        return resample(fitted, sample_rate, self.codec.sample_rate).unsqueeze(0)

    def _restore(
        self, decoded: Tensor, audio: Tensor, sample_rate: int, decoded_rate: int | None = None
    ) -> Tensor:
        """Bring decoded audio to the rate, channels and length of the original."""
        found_rate = decoded_rate or self.codec.sample_rate
        decoded = resample(decoded.float().cpu(), found_rate, sample_rate)
        decoded = fit_channels(decoded, audio.shape[0])[:, : audio.shape[1]]
        return F.pad(decoded, (0, audio.shape[1] - decoded.shape[1])).contiguous()


def encodec_systems(codec: EncodecCodec, model: str) -> list[System]:
    """Make a row of each bit rate of an EnCodec that is built for its largest bandwidth."""
    bandwidths = VARIANTS[model].bandwidths_kbps
    level_books = codec.num_codebooks % 2  # the 48 kHz model codes the level in one of its own
    tokens = TokenCodec(codec)
    systems = []
    for bandwidth in bandwidths:
        share = bandwidth / bandwidths[-1]
        books = round((codec.num_codebooks - level_books) * share) + level_books
        systems.append(tokens.system(f"EnCodec {model} {bandwidth:g}k", f"EnCodec {model}", books))
    return systems


def fit_channels(audio: Tensor, channels: int) -> Tensor:
    """Average (C, S) audio to mono, or repeat mono: (channels, S)."""
    if audio.shape[0] == channels:
        return audio
    if channels == 1:
        return audio.mean(0, keepdim=True)
    if audio.shape[0] == 1:
        return audio.expand(channels, -1)
    raise ValueError(f"cannot turn {audio.shape[0]} channels into {channels}")
