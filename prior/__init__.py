"""Floor 2: text and tokens to the next tokens."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from codec.torchaudio_guard import guard_torchaudio

if TYPE_CHECKING:
    from prior.condition import Condition as Condition
    from prior.frame_generator import FrameGenerator as FrameGenerator
    from prior.loss import PriorBatch as PriorBatch
    from prior.loss import prior_loss as prior_loss
    from prior.model import Prior as Prior
    from prior.musicgen import MusicgenPrior as MusicgenPrior
    from prior.next_frame import Frame as Frame
    from prior.plan import ChordChange as ChordChange
    from prior.plan import MelodyNote as MelodyNote
    from prior.plan import Plan as Plan
    from prior.plan import Section as Section
    from prior.sampling import Sampling as Sampling

_HOMES = {
    "ChordChange": "prior.plan",
    "Frame": "prior.next_frame",
    "FrameGenerator": "prior.frame_generator",
    "MelodyNote": "prior.plan",
    "MusicgenPrior": "prior.musicgen",
    "Plan": "prior.plan",
    "Prior": "prior.model",
    "PriorBatch": "prior.loss",
    "Sampling": "prior.sampling",
    "Section": "prior.plan",
    "Condition": "prior.condition",
    "prior_loss": "prior.loss",
}
__all__ = [*_HOMES]

guard_torchaudio()


def __getattr__(name: str) -> Any:
    """Import a public class when it is first asked for, so that ``partita --help`` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'prior' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
