"""Systems that reconstruct a clip: classical codecs, token codecs, decoders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.protocols import Codec
from codec.resampling import resample
from pipelines.evaluation.classical_codecs import ClassicalCodec, transcode
from pipelines.evaluation.codebooks import bitrate_kbps
from pipelines.evaluation.measurement_cache import module_fingerprint

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reconstruction:
    """A reconstructed clip, aligned with the original, and its bit rate."""

    audio: Tensor
    bitrate_kbps: float | None


@dataclass(frozen=True)
class System:
    """One row of a report.

    Attributes:
        name: what the report calls it; unique in a report.
        group: rows of one group are joined by a line in the plot.
        identity: changes whenever the result could change; part of the cache's key.
        reconstruct: (C, S) audio and its sample rate -> the reconstruction at the same rate.
    """

    name: str
    group: str
    identity: str
    reconstruct: Callable[[Tensor, int], Reconstruction]


def original_system() -> System:
    """Make the row of the clip itself: what every metric reads when nothing was lost."""
    return System("original", "original", "1", lambda audio, _: Reconstruction(audio, None))


def classical_system(setting: ClassicalCodec) -> System:
    """Make the row of a classical codec, through ffmpeg."""

    def reconstruct(audio: Tensor, sample_rate: int) -> Reconstruction:
        return Reconstruction(*transcode(audio, sample_rate, setting))

    group = setting.name.split()[0]
    return System(setting.name, group, repr(setting), reconstruct)


class TokenCodec:
    """A codec that takes clips of any rate and remembers the codes of the last one.

    The clip is resampled and mixed to what the codec takes and the result converted back, so that
    every system is compared with the same original.

    Args:
        codec: anything with the ``Codec`` protocol.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.fingerprint = codec_fingerprint(codec)
        self._last: tuple[Tensor, Tensor] | None = None

    def encode(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Encode (C, S) audio to (1, K, T) codes."""
        if self._last is None or self._last[0] is not audio:
            fitted = fit_channels(audio, self.codec.channels)
            fitted = resample(fitted, sample_rate, self.codec.sample_rate)
            with torch.inference_mode():
                self._last = (audio, self.codec.encode(fitted.unsqueeze(0)))
        return self._last[1]

    def system(
        self,
        name: str,
        group: str,
        num_codebooks: int,
        decode: Decode | None = None,
        identity: str = "",
    ) -> System:
        """Make the row of this codec's first codebooks, through some decoder.

        Args:
            name: of the row.
            group: of the row.
            num_codebooks: that the decoder is given, at most K.
            decode: (1, k, T) codes -> (1, C, S) audio; the codec's own decode by default.
            identity: of ``decode``.
        """
        codec = self.codec
        if not 1 <= num_codebooks <= codec.num_codebooks:
            raise ValueError(
                f"num_codebooks must lie in [1, {codec.num_codebooks}], got {num_codebooks}"
            )
        kbps = bitrate_kbps(num_codebooks, codec.codebook_size, codec.frame_rate)

        def reconstruct(audio: Tensor, sample_rate: int) -> Reconstruction:
            codes = self.encode(audio, sample_rate)[:, :num_codebooks]
            with torch.inference_mode():
                decoded = (decode or codec.decode)(codes)[0]
            return Reconstruction(self.restore(decoded, audio, sample_rate), kbps)

        return System(name, group, f"{self.fingerprint} {num_codebooks} {identity}", reconstruct)

    def restore(self, decoded: Tensor, audio: Tensor, sample_rate: int) -> Tensor:
        """Bring decoded audio to the rate, channels and length of the original."""
        decoded = resample(decoded.float().cpu(), self.codec.sample_rate, sample_rate)
        decoded = fit_channels(decoded, audio.shape[0])[:, : audio.shape[1]]
        return F.pad(decoded, (0, audio.shape[1] - decoded.shape[1])).contiguous()

    def vocoder_system(self) -> System | None:
        """Make the row of the codec's vocoder on the true spectrogram: the codec's ceiling."""
        codec: Any = self.codec
        if not hasattr(codec, "vocoder") or not hasattr(codec, "analyze"):
            return None

        def reconstruct(audio: Tensor, sample_rate: int) -> Reconstruction:
            fitted = resample(fit_channels(audio, codec.channels), sample_rate, codec.sample_rate)
            with torch.inference_mode():
                decoded = codec.vocoder(codec.analyze(fitted.unsqueeze(0)))[0]
            return Reconstruction(self.restore(decoded, audio, sample_rate), None)

        name = "vocoder, true spectrogram"
        return System(name, "vocoder", f"vocoder {self.fingerprint}", reconstruct)


def codec_systems(tokens: TokenCodec, counts: Sequence[int], name: str) -> list[System]:
    """Make a row of each number of codebooks, decoded by the codec itself."""
    return [tokens.system(f"{name} {count} codebook(s)", name, count) for count in counts]


def fit_channels(audio: Tensor, channels: int) -> Tensor:
    """Average (C, S) audio to mono, or repeat mono: (channels, S)."""
    if audio.shape[0] == channels:
        return audio
    if channels == 1:
        return audio.mean(0, keepdim=True)
    if audio.shape[0] == 1:
        return audio.expand(channels, -1)
    raise ValueError(f"cannot turn {audio.shape[0]} channels into {channels}")


def codec_fingerprint(codec: Codec) -> str:
    """Hash a codec's weights, or name its class where it has none."""
    if isinstance(codec, torch.nn.Module):
        return module_fingerprint(codec)
    return type(codec).__qualname__
