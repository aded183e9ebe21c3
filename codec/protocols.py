"""The contracts of a codec and of a vocoder: all that other packages may ask of one."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """Audio to tokens and back.

    ``encode`` turns (B, C, S) float32 audio in [-1, 1] into (B, K, T) int64 codes in
    [0, codebook_size); ``decode`` turns the first 1 to K codebooks of such codes back into audio.
    """

    @property
    def sample_rate(self) -> int:
        """Samples per second and channel (Hz)."""

    @property
    def channels(self) -> int:
        """Audio channels, C."""

    @property
    def frame_rate(self) -> float:
        """Token frames per second (Hz)."""

    @property
    def num_codebooks(self) -> int:
        """Codebooks per frame, K."""

    @property
    def codebook_size(self) -> int:
        """Entries per codebook, V."""

    def encode(self, audio: Tensor) -> Tensor:
        """Encode (B, C, S) audio -> (B, K, T) codes."""

    def decode(self, codes: Tensor) -> Tensor:
        """Decode (B, K, T) codes -> (B, C, S) audio."""


@runtime_checkable
class Vocoder(Protocol):
    """Log-mel spectrogram to waveform."""

    def __call__(self, spectrogram: Tensor, seed: int | list[int] = 0) -> Tensor:
        """Map (B, C, M, F) natural-log mel magnitudes -> (B, C, F * hop_length) audio."""
