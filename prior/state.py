"""What decoding remembers between two frames, owned by the caller."""

from dataclasses import dataclass, field

from torch import Tensor

from prior.attention import KeyValueCache, Rotation, Text, TextCache


@dataclass
class LayerState:
    """What one layer remembers; a layer uses the fields that it has a part for.

    Attributes:
        history: self-attention's keys and values of earlier frames.
        text: cross-attention's keys and values of the text.
        hidden: an LSTM's (output, cell), (1, B, D) each.
    """

    history: KeyValueCache
    text: TextCache = field(default_factory=TextCache)
    hidden: tuple[Tensor, Tensor] | None = None


@dataclass
class PriorState:
    """The state of ``Prior.prefill`` and ``Prior.decode_one_frame``; nothing in it grows.

    Attributes:
        text: the prepared text.
        rotation: rotary tables for every position below ``max_frames``.
        layers: one per layer of the backbone.
        max_frames: how many frames may be read and written, the prompt included.
        position: how many positions the backbone has seen; 0 before the prefill.
    """

    text: Text
    rotation: Rotation
    layers: list[LayerState]
    max_frames: int
    position: int = 0
