"""The state of decoding between two frames, owned by the caller."""

from dataclasses import dataclass

import torch
from torch import Tensor

from prior.attention import KeyValueCache, Place, Rotation, Text, TextMemory
from prior.frame_condition import FrameCondition


@dataclass
class LayerState:
    """Hold what one layer remembers; a layer uses the fields that it has a part for."""

    history: KeyValueCache  # self-attention's keys and values of earlier frames
    # cross-attention's keys and values of the text; None before the prefill
    text: TextMemory | None = None
    hidden: tuple[Tensor, Tensor] | None = None  # an LSTM's (output, cell), (B, D) each


@dataclass
class PriorState:
    """The state of ``Prior.prefill`` and ``Prior.decode_one_frame``; nothing in it grows."""

    text: Text  # the prepared text, for cross-attention
    frame_condition: FrameCondition  # the text in one vector, and the plan
    rotation: Rotation  # rotary tables for every position below ``max_frames``
    layers: list[LayerState]  # one per layer of the backbone
    max_frames: int  # how many frames may be read and generated, the prompt included
    # how many positions the backbone has seen; 0 before the prefill. Known frames of the future
    # are not counted.
    position: int = 0
    num_future: int = 0  # known frames of the future, which lie before the others in the history

    @property
    def capacity(self) -> int:
        """Count the positions that self-attention can look at."""
        return self.layers[-1].history.capacity

    def place(self) -> Place:
        """Compute where the next step reads and writes."""
        index = self.position + self.num_future
        slot = index % self.capacity
        return Place(
            rotation=self.rotation.at(self.position, self.position + 1),
            slot=torch.full((1,), slot, device=self.rotation.cos.device),
            filled=min(index + 1, self.capacity),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Name position and history, without what follows from the condition, to be saved."""
        tensors = {"position": torch.tensor(self.position)}
        for index, layer in enumerate(self.layers):
            if layer.history.keys.numel():
                seen = min(self.position + self.num_future, layer.history.capacity)
                tensors[f"{index}.keys"] = layer.history.keys[:, :, :seen].contiguous()
                tensors[f"{index}.values"] = layer.history.values[:, :, :seen].contiguous()
            for part, tensor in enumerate(layer.hidden or ()):
                tensors[f"{index}.hidden.{part}"] = tensor
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Fill a fresh state from what :meth:`tensors` returned."""
        self.position = int(tensors["position"])
        for index, layer in enumerate(self.layers):
            if f"{index}.keys" in tensors:
                layer.history.fill(tensors[f"{index}.keys"], tensors[f"{index}.values"])
            if f"{index}.hidden.0" in tensors:
                layer.hidden = tensors[f"{index}.hidden.0"], tensors[f"{index}.hidden.1"]
