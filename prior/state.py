"""What decoding remembers between two frames, owned by the caller."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from prior.attention import KeyValueCache, Place, Rotation, Text, TextCache


@dataclass
class LayerState:
    """What one layer remembers; a layer uses the fields that it has a part for.

    Attributes:
        history: self-attention's keys and values of earlier frames.
        text: cross-attention's keys and values of the text.
        hidden: an LSTM's (output, cell), (B, D) each.
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
        fixed_shapes: whether every step reads all slots, the empty ones hidden, so that all have
            the same shapes: what a compiled step needs.
    """

    text: Text
    rotation: Rotation
    layers: list[LayerState]
    max_frames: int
    position: int = 0
    fixed_shapes: bool = False

    @property
    def capacity(self) -> int:
        """How many positions self-attention can look at."""
        return self.layers[-1].history.capacity

    def place(self) -> Place:
        """Where the next step reads and writes."""
        device = self.rotation.cos.device
        filled = min(self.position + 1, self.capacity)
        mask = None
        if self.fixed_shapes:
            mask = torch.arange(self.capacity, device=device)[None] < filled
        return Place(
            rotation=self.rotation.at(self.position, self.position + 1),
            slot=torch.full((1,), self.position % self.capacity, device=device),
            seen=self.capacity if self.fixed_shapes else filled,
            mask=mask,
        )

    def tensors(self) -> list[Tensor]:
        """What a step reads and writes in place, at addresses that never change."""
        found = [self.text.summary]
        for layer in self.layers:
            found += [layer.history.keys, layer.history.values]
            found += [layer.text.keys, layer.text.values, layer.text.mask]
        return found
