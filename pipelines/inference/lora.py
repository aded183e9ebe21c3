"""LoRA adapters of a pipeline: stacked at any strength, and added to the weights themselves.

An adapter (Hu et al. 2021, arXiv 2106.09685) holds for some linear layers the factors of what is
added to their weight, ``strength * scale * up @ down``. Adding it once per change of strength
costs nothing per frame. A file is as diffusers writes it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from codec.whole_file import whole_file
from pipelines.inference.safetensors_file import read_facts, read_safetensors

FILE_NAME = "pytorch_lora_weights.safetensors"
METADATA_KEY = "lora_adapter_metadata"
PARTS = ("prior", "decoder")


@dataclass(frozen=True)
class LowRank:
    """What is added to the weight of one linear layer: ``scale * up @ down``."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Return the shape of the weight that the factors are added to."""
        return self.up.shape[0], self.down.shape[1]

    def added(self, strength: float) -> Tensor:
        """Compute the (D', D) float32 change of the weight."""
        return strength * self.scale * (self.up.float() @ self.down.float())


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter as a file holds it."""

    path: str  # of the file
    layers: dict[tuple[str, str], LowRank]  # by (part of the pipeline, name of the layer)


@dataclass
class AdapterStack:
    """The adapters of a pipeline, and the weights of the touched layers before any was added."""

    adapters: dict[str, LoraAdapter] = field(default_factory=dict)
    strengths: dict[str, float] = field(default_factory=dict)
    originals: dict[tuple[str, str], Tensor] = field(default_factory=dict)


class LoraLoading:
    """The methods that diffusers' pipelines have for LoRA, for prior and decoder."""

    @cached_property
    def _stack(self) -> AdapterStack:
        return AdapterStack()

    def load_lora_weights(
        self, pretrained_model_name_or_path: str | Path, adapter_name: str | None = None
    ) -> None:
        """Read an adapter and make it the one that is used, at strength 1.

        Args:
            pretrained_model_name_or_path: the file, or the folder that holds it.
            adapter_name: to be used in :meth:`set_adapters`; None for ``default_0``...

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no adapter, or one for layers of other sizes; or the name is taken.
        """
        name = f"default_{len(self._stack.adapters)}" if adapter_name is None else adapter_name
        if name in self._stack.adapters:
            raise ValueError(f"adapter_name {name!r} is taken by {self._stack.adapters[name].path}")
        adapter = read_adapter(pretrained_model_name_or_path)
        for (part, layer), added in adapter.layers.items():
            linear = self._linear(adapter, part, layer)
            if tuple(linear.weight.shape) != added.shape:
                raise ValueError(
                    f"{adapter.path} was made for a {part} whose {layer} is {added.shape}, "
                    f"this pipeline's is {tuple(linear.weight.shape)}"
                )
        for place in adapter.layers:
            weight = self._linear(adapter, *place).weight
            self._stack.originals.setdefault(place, weight.detach().clone())
        self._stack.adapters[name] = adapter
        self.set_adapters(name)

    def _linear(self, adapter: LoraAdapter, part: str, layer: str) -> nn.Linear:
        model = getattr(self, part, None)
        if model is None:
            raise ValueError(f"{adapter.path} is for a {part}, and this pipeline has none")
        try:
            found = model.get_submodule(layer)
        except AttributeError:
            found = None
        if not isinstance(found, nn.Linear):
            raise ValueError(f"{adapter.path} was made for a {part} with {layer!r}, this has none")
        return found

    def set_adapters(
        self,
        adapter_names: str | Sequence[str],
        adapter_weights: float | Sequence[float] | None = None,
    ) -> None:
        """Use these adapters together, each at its strength (1 where none is given), and no other.

        Raises:
            ValueError: a name that is not loaded or occurs twice, or not one strength per name.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        weights = 1.0 if adapter_weights is None else adapter_weights
        strengths = [weights] * len(names) if isinstance(weights, int | float) else list(weights)
        if len(strengths) != len(names):
            raise ValueError(f"got {len(names)} adapter_names and {len(strengths)} adapter_weights")
        for index, name in enumerate(names):
            if name not in self._stack.adapters:
                known = ", ".join(self._stack.adapters) or "none"
                raise ValueError(f"adapter {name!r} is not loaded; loaded: {known}")
            if name in names[:index] or not math.isfinite(strengths[index]):
                raise ValueError(f"adapter {name!r} must be named once, at a finite strength")
        self._stack.strengths = dict(zip(names, map(float, strengths), strict=True))
        self._add_up(self._stack.strengths)

    @torch.no_grad()
    def _add_up(self, strengths: dict[str, float]) -> None:
        for place, original in self._stack.originals.items():
            weight = getattr(self, place[0]).get_submodule(place[1]).weight
            total = original.to(weight.device, torch.float32, copy=True)
            for name, strength in strengths.items():
                added = self._stack.adapters[name].layers.get(place)
                if added is not None:
                    total += added.added(strength).to(total.device)
            if strengths and torch.equal(original.half().to(original), original):
                total = total.half()  # as the original: the native code reads such weights faster
            weight.copy_(total)  # in place, which the native code notices

    def get_active_adapters(self) -> list[str]:
        """Return the names of the adapters in use."""
        return list(self._stack.strengths)

    def get_list_adapters(self) -> dict[str, list[str]]:
        """Return the names of all loaded adapters, by the part that they change."""
        parts: dict[str, list[str]] = {}
        for name, adapter in self._stack.adapters.items():
            for part in sorted({part for part, _ in adapter.layers}):
                parts.setdefault(part, []).append(name)
        return parts

    def list_loras(self) -> tuple[tuple[str, float], ...]:
        """Return file and strength of every adapter in use."""
        stack = self._stack
        return tuple((stack.adapters[name].path, value) for name, value in stack.strengths.items())

    def disable_lora(self) -> None:
        """Take the adapters out of the weights, which are then those from before, bit by bit."""
        self._add_up({})

    def enable_lora(self) -> None:
        """Add the adapters in use again."""
        self._add_up(self._stack.strengths)

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Forget some adapters."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        kept = {name: s for name, s in self._stack.strengths.items() if name not in names}
        for name in names:
            if self._stack.adapters.pop(name, None) is None:
                raise ValueError(f"adapter {name!r} is not loaded")
        self.set_adapters(list(kept), list(kept.values()))

    def unload_lora_weights(self) -> None:
        """Take all adapters out of the weights and forget them."""
        self._add_up({})
        self.__dict__["_stack"] = AdapterStack()

    def fuse_lora(self) -> None:
        """Make the adapters in use part of the weights for good, to save them."""
        self.__dict__["_stack"] = AdapterStack()

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | Path,
        prior_lora_layers: dict[str, Tensor] | None = None,
        decoder_lora_layers: dict[str, Tensor] | None = None,
        **configs: dict[str, Any],
    ) -> None:
        """Write an adapter as :meth:`load_lora_weights` reads it.

        Args:
            save_directory: made if it does not exist.
            prior_lora_layers: as ``peft.get_peft_model_state_dict`` gives them.
            decoder_lora_layers: of the decoder.
            **configs: ``prior_lora_adapter_metadata`` and ``decoder_lora_adapter_metadata``, with
                ``r`` and ``lora_alpha``; alpha is r where there is none.
        """
        tensors: dict[str, Tensor] = {}
        metadata: dict[str, Any] = {}
        for part, layers in (("prior", prior_lora_layers), ("decoder", decoder_lora_layers)):
            for name, tensor in (layers or {}).items():
                tensors[f"{part}.{name}"] = tensor.detach().cpu().contiguous()
            for name, value in configs.pop(f"{part}_lora_adapter_metadata", {}).items():
                metadata[f"{part}.{name}"] = value
        if configs or not tensors:
            raise ValueError(f"nothing to save, or unknown arguments: {', '.join(configs)}")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        notes = {"format": "pt", METADATA_KEY: json.dumps(metadata, sort_keys=True)}
        with whole_file(folder / FILE_NAME) as partial:
            save_file(tensors, partial, metadata=notes)


def read_adapter(path: str | Path) -> LoraAdapter:
    """Read an adapter's file, or that of a folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not whole, or holds something else than pairs of factors.
    """
    file = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: {path} is not an adapter")
    metadata, tensors = read_safetensors(file)
    config = read_facts(file, {METADATA_KEY: "{}"} | metadata, [METADATA_KEY])[METADATA_KEY]
    layers = {}
    for name, down in tensors.items():
        part, _, rest = name.partition(".")
        if name.endswith(".lora_B.weight") and part in PARTS:
            continue
        layer = rest.removesuffix(".lora_A.weight")
        up = tensors.get(f"{part}.{layer}.lora_B.weight")
        if part not in PARTS or layer == rest or up is None or up.shape[1] != down.shape[0]:
            raise ValueError(f"{file} holds {name!r}, which is no LoRA of a prior or a decoder")
        rank = down.shape[0]
        root = math.sqrt(rank) if config.get(f"{part}.use_rslora") else rank
        layers[part, layer] = LowRank(down, up, config.get(f"{part}.lora_alpha", rank) / root)
    if not layers:
        raise ValueError(f"{file} holds no adapter")
    return LoraAdapter(str(file.resolve()), layers)


def add_loras(pipeline: LoraLoading, loras: Sequence[tuple[str, float]]) -> None:
    """Load adapters and use them together at their strengths.

    Raises:
        ValueError: one is named twice or does not fit the pipeline.
    """
    names = []
    for path, _ in loras:
        file = Path(path).resolve()
        names.append(str(file.parent if file.is_file() else file))
        pipeline.load_lora_weights(path, names[-1])
    if names:
        pipeline.set_adapters(names, [strength for _, strength in loras])
