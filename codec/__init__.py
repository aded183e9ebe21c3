"""Floor 1: audio to log-mel spectrogram to tokens, and back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from codec.torchaudio_guard import guard_torchaudio

if TYPE_CHECKING:
    from codec.encodec_codec import EncodecCodec as EncodecCodec
    from codec.spectral_codec import SpectralCodec as SpectralCodec
    from codec.spectrogram import LogMel as LogMel
    from codec.transformers_codec import TransformersCodec as TransformersCodec
    from codec.vocoder import GriffinLim as GriffinLim

_HOMES = {
    "EncodecCodec": "codec.encodec_codec",
    "GriffinLim": "codec.vocoder",
    "LogMel": "codec.spectrogram",
    "SpectralCodec": "codec.spectral_codec",
    "TransformersCodec": "codec.transformers_codec",
}
__all__ = [*_HOMES]

guard_torchaudio()


def __getattr__(name: str) -> Any:
    """Import a public class when it is first asked for, so that ``partita --help`` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'codec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
