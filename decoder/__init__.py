"""Floor 2: tokens to a fine spectrogram, by flow matching on spectrogram patches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from codec.torchaudio_guard import guard_torchaudio

if TYPE_CHECKING:
    from decoder.diffusion_decoder import DiffusionDecoder as DiffusionDecoder
    from decoder.sampler import FlowSampler as FlowSampler

_HOMES = {
    "DiffusionDecoder": "decoder.diffusion_decoder",
    "FlowSampler": "decoder.sampler",
}
__all__ = [*_HOMES]

guard_torchaudio()


def __getattr__(name: str) -> Any:
    """Import a public class when it is first asked for, so that ``partita --help`` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'decoder' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
