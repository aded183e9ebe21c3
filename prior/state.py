"""What decoding remembers between two frames, owned by the caller."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from prior.attention import KeyValueCache, Place, Rotation, Text, TextCache
from prior.frame_condition import FrameCondition

Slots = Literal["filled", "growing", "all"]


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
        text: the prepared text, for cross-attention.
        frame_condition: the text in one vector, and the plan.
        rotation: rotary tables for every position below ``max_frames``.
        layers: one per layer of the backbone.
        max_frames: how many frames may be read and written, the prompt included.
        position: how many positions the backbone has seen; 0 before the prefill.
        slots: of the history, which ones a step reads: the "filled" ones; for a compiled step on
            a CPU the "growing" ones, the same marked as a length that varies; for one on a GPU
            "all", the empty ones hidden, so that every step has the same shapes and is replayed.
    """

    text: Text
    frame_condition: FrameCondition
    rotation: Rotation
    layers: list[LayerState]
    max_frames: int
    position: int = 0
    slots: Slots = "filled"

    @property
    def capacity(self) -> int:
        """How many positions self-attention can look at."""
        return self.layers[-1].history.capacity

    def place(self) -> Place:
        """Where the next step reads and writes."""
        device = self.rotation.cos.device
        filled = min(self.position + 1, self.capacity)
        mask = None
        if self.slots == "growing":
            mask = torch.ones(1, filled, dtype=torch.bool, device=device)
            if filled > 1:  # a compiler takes lengths of one for constants
                torch._dynamo.mark_dynamic(mask, 1, min=2, max=self.capacity)
        elif self.slots == "all":
            mask = torch.arange(self.capacity, device=device)[None] < filled
        return Place(
            rotation=self.rotation.at(self.position, self.position + 1),
            slot=torch.full((1,), self.position % self.capacity, device=device),
            filled=filled,
            mask=mask,
        )

    def tensors(self) -> list[Tensor]:
        """What a step reads and writes in place, at addresses that never change."""
        found: list[Tensor] = []
        for layer in self.layers:
            found += [layer.history.keys, layer.history.values]
            found += [layer.text.keys, layer.text.values, layer.text.mask]
        return found
