"""A prior's weights in the order in which the native step reads them."""

import ctypes
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from codec.native.library import Library, NativeError
from prior.attention import CrossAttention, SelfAttention
from prior.depth import DepthBlock, DepthHead
from prior.feed_forward import SwiGLU
from prior.model import Prior
from prior.native.structures import BlockPointers, Matrix, Model
from prior.normalization import RMSNorm
from prior.transformer import TransformerBackbone, TransformerBlock

KNOWN_MODULES = {
    *(nn.Linear, nn.Embedding, nn.ModuleList, RMSNorm, SwiGLU, SelfAttention, CrossAttention),
    *(TransformerBackbone, TransformerBlock, DepthHead, DepthBlock),
}
"""Modules whose mathematics the native step knows; a subclass may compute something else."""


class PackedPrior:
    """A prior's weights in the tiles of a library, and whether they still are the prior's."""

    def __init__(self, prior: Prior, library: Library) -> None:
        self.library = library
        self.kept: list[Any] = []  # what the structures point into
        self.sources: list[tuple[dict[str, Any], Tensor, int, int]] = []
        self.arena = np.empty(room_for(prior, library.tile), dtype=np.uint8)  # in huge pages
        self.top = -self.arena.ctypes.data % 64
        self.model = self._pack(prior)
        self.checksum = self.compute_checksum()

    def is_current(self) -> bool:
        """Tell whether no weight was replaced, moved or changed by a counting operator."""
        return all(
            parameters["weight"] is weight
            and weight.data_ptr() == pointer
            and version_of(weight) == version
            for parameters, weight, pointer, version in self.sources
        )

    def compute_checksum(self) -> int:
        """Sum up the prior's weights: a change through ``weight.data`` is counted nowhere."""
        total = 0
        for _, weight, pointer, _ in self.sources:
            total = total * 31 + self.library.functions.partita_checksum(pointer, weight.numel())
        return total % (1 << 64)

    def _pack(self, prior: Prior) -> Model:
        network, depth, config = prior.network, prior.depth, prior.config
        blocks = [self._block(block) for block in network.blocks]
        heads = [self._matrix(prior.first_head)]
        model = Model(
            width=config.width,
            heads=config.num_heads,
            layers=config.num_layers,
            books=prior.num_codebooks,
            size=prior.codebook_size,
            embedding=self._numbers(prior.embedding),
            gain=self._numbers(network.norm),
            blocks=self._array(BlockPointers, blocks),
        )
        if depth is not None:
            model.depth_width, model.depth_heads = config.depth_width, config.depth_heads
            model.depth_layers = config.depth_layers
            model.depth_frame = self._matrix(depth.frame)
            model.depth_blocks = self._array(
                BlockPointers, [self._block(block) for block in depth.blocks]
            )
            embeddings = [self._numbers(embedding) for embedding in depth.embeddings]
            model.depth_embeddings = self._array(ctypes.c_void_p, embeddings)
            model.depth_gain = self._numbers(depth.norm)
            heads += [self._matrix(head) for head in depth.heads]
        model.heads_of_books = self._array(Matrix, heads)
        return model

    def _block(self, block: Any) -> BlockPointers:
        packed = BlockPointers(
            attention_gain=self._numbers(block.attention_norm),
            head_gain=self._numbers(block.attention.query_key_norm),
            feed_forward_gain=self._numbers(block.feed_forward_norm),
            qkv=self._matrix(block.attention.qkv),
            out=self._matrix(block.attention.out),
        )
        if isinstance(block, TransformerBlock):
            packed.text_gain = self._numbers(block.text_norm)
            packed.text_query = self._matrix(block.text_attention.query)
            packed.text_out = self._matrix(block.text_attention.out)
        packed.gate_up = self._matrix(block.feed_forward.gate_up)
        packed.down = self._matrix(block.feed_forward.down)
        return packed

    def _source(self, module: Any) -> Tensor:
        weight = module.weight
        entry = (module._parameters, weight, weight.data_ptr(), version_of(weight))
        self.sources.append(entry)
        return weight.detach()

    def _numbers(self, module: Any) -> int:
        """Point to a weight that is read as it is."""
        return self._source(module).data_ptr()

    def _matrix(self, linear: Any) -> Matrix:
        """Copy a linear layer's weight into tiles, in half precision where that is exact."""
        weight, tile = self._source(linear), self.library.tile
        outputs, inputs = weight.shape
        half = weight.half()
        is_half = torch.equal(half.float(), weight)
        values = half if is_half else weight
        tiles = -(-outputs // tile)
        count = tiles * tile * inputs * values.element_size()
        room = torch.from_numpy(self.arena[self.top : self.top + count]).view(values.dtype)
        padded = nn.functional.pad(values, (0, 0, 0, tiles * tile - outputs))
        room.view(tiles, inputs, tile).copy_(padded.view(tiles, tile, inputs).transpose(1, 2))
        self.top += -(-count // 64) * 64
        return Matrix(room.data_ptr(), outputs, inputs, is_half)

    def _array(self, kind: Any, items: list[Any]) -> int:
        array = (kind * len(items))(*items)
        self.kept.append(array)
        return ctypes.addressof(array)


def room_for(prior: Prior, tile: int) -> int:
    """Count the bytes that hold every linear layer of a prior in whole tiles of float32."""
    layers = [module for module in prior.modules() if isinstance(module, nn.Linear)]
    return sum(4 * (layer.weight.numel() + tile * layer.in_features) + 128 for layer in layers)


def version_of(weight: Tensor) -> int:
    """Return how often in-place operators changed a tensor; 0 for one made for inference."""
    return 0 if weight.is_inference() else weight._version


_packed: "weakref.WeakKeyDictionary[Prior, PackedPrior]" = weakref.WeakKeyDictionary()


def pack(prior: Prior, library: Library, compare: bool = False) -> PackedPrior:
    """Return the prior's packed weights, packed anew where they have changed.

    ``compare`` also compares all numbers, which takes milliseconds, with those that were packed.

    Raises:
        NativeError: see :func:`check_prior`.
    """
    check_prior(prior)
    packed = _packed.get(prior)
    fits = packed is not None and packed.library is library and packed.is_current()
    if packed is None or not fits or (compare and packed.compute_checksum() != packed.checksum):
        packed = _packed[prior] = PackedPrior(prior, library)
    return packed


def check_prior(prior: Prior) -> None:
    """Raise a ``NativeError`` unless the native step computes what the prior does."""
    check_modules(prior)
    if prior.training:
        raise NativeError("training mode")
    for name, weight in prior.named_parameters():
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            raise NativeError(f"{name} is {weight.dtype} on {weight.device}")
        if not weight.is_contiguous():
            raise NativeError(f"{name} is not stored by row")


def check_modules(prior: Prior) -> None:
    """Raise a ``NativeError`` unless every module is one that the native step knows."""
    if not isinstance(prior, Prior):
        raise NativeError(type(prior).__name__)
    if not isinstance(prior.network, TransformerBackbone):
        raise NativeError(f"backbone {prior.config.backbone}")
    for name, module in (*prior.network.named_modules(), *depth_modules(prior)):
        changed = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        if changed or type(module) not in KNOWN_MODULES:
            raise NativeError(f"{name or 'a module'} is changed ({type(module).__name__})")
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        raise NativeError("global hooks")


def depth_modules(prior: Prior) -> list[tuple[str, nn.Module]]:
    """Return all modules beside the backbone that a single step uses, named."""
    parts = {"first_head": prior.first_head, "embedding": prior.embedding, "depth": prior.depth}
    return [
        (f"{part}.{name}".rstrip("."), module)
        for part, parent in parts.items()
        if parent is not None
        for name, module in parent.named_modules()
    ]
