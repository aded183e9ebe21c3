"""Self-attention with rotary positions and a cache, and cross-attention to the text."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.dot_product_attention import attend
from prior.normalization import RMSNorm


class Rotation(NamedTuple):
    """Rotary position tables, each (T, D / H) float32: row t turns position t."""

    cos: Tensor
    sin: Tensor

    def at(self, start: int, stop: int) -> "Rotation":
        """Return the rows of positions ``start`` to ``stop - 1``."""
        return Rotation(self.cos[start:stop], self.sin[start:stop])


class Text(NamedTuple):
    """What cross-attention reads."""

    states: Tensor  # (B, L, Dt)
    mask: Tensor  # (B, 1, 1, L) bool, true at states that count


def rotation_table(num_positions: int, head_width: int, device: torch.device) -> Rotation:
    """Tabulate the angles t * 10000^(-2i / head_width) (RoFormer, arXiv 2104.09864, eq. 15).

    The halves of a head are the two coordinates that turn together; ``sin`` carries the sign of
    its half, so that :func:`rotate` is one roll, two products and a sum.
    """
    exponents = torch.arange(0, head_width, 2, device=device, dtype=torch.float32) / head_width
    positions = torch.arange(num_positions, device=device, dtype=torch.float32)
    angles = torch.outer(positions, 10000.0**-exponents)  # (T, D / H / 2)
    cos, sin = angles.cos(), angles.sin()
    return Rotation(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn (..., T, D / H) by its positions; the result is float32."""
    swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return x * rotation.cos + swapped * rotation.sin


def window_mask(num_positions: int, window: int | None, device: torch.device) -> Tensor | None:
    """Make (T, T) bool, true where a query (row) may look: itself and ``window - 1`` before it.

    None where the window holds the whole sequence and plain causal attention says the same.
    """
    if window is None or num_positions <= window:
        return None
    ones = torch.ones(num_positions, num_positions, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)


def place_sequence(
    x: Tensor, head_width: int, window: int | None, positions: Tensor | None
) -> tuple[Rotation, Tensor | None]:
    """Make the rotary tables and the mask of a sequence, see ``TransformerBackbone``."""
    T = x.shape[1]
    if positions is None:
        return rotation_table(T, head_width, x.device), window_mask(T, window, x.device)
    table = rotation_table(int(positions.max()) + 1, head_width, x.device)
    return Rotation(table.cos[positions], table.sin[positions]), None


class KeysValues(NamedTuple):
    """Keys and values of the positions so far, (B, H, T, D / H) each."""

    keys: Tensor
    values: Tensor


class TextMemory(NamedTuple):
    """A layer's keys and values of the text, (B, H, L, D / H) each, and its (B, 1, 1, L) mask."""

    keys: Tensor
    values: Tensor
    mask: Tensor

    def contiguous(self) -> "TextMemory":
        """Copy keys and values into the order in which every frame reads them."""
        return TextMemory(self.keys.contiguous(), self.values.contiguous(), self.mask)


class Place(NamedTuple):
    """Where a step reads and writes: computed once per frame, shared by all layers."""

    rotation: Rotation  # the rows of this position, (1, D / H) each
    slot: Tensor  # (1,) int64, where the ring of keys and values is written
    filled: int  # slots from the first on that hold something, this position's included


class KeyValueCache:
    """Keys and values of the last ``capacity`` positions, in a ring allocated once, by ``fill``.

    Keys are stored turned by their absolute position, so a single query may read the slots in any
    order.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.keys = self.values = torch.empty(0)

    def fill(self, keys: Tensor, values: Tensor) -> None:
        """Store positions 0 to T - 1, (B, H, T, D / H) each; only the last ``capacity`` stay."""
        B, H, T, head_width = keys.shape
        self.keys = keys.new_zeros(B, H, self.capacity, head_width)
        self.values = torch.zeros_like(self.keys)
        first = max(0, T - self.capacity)
        slots = torch.arange(first, T, device=keys.device) % self.capacity
        self.keys[:, :, slots] = keys[:, :, first:]
        self.values[:, :, slots] = values[:, :, first:]

    def append(self, key: Tensor, value: Tensor, place: Place) -> KeysValues:
        """Store one position, (B, H, D / H) each, and return views of what is seen."""
        self.keys.index_copy_(2, place.slot, key[:, :, None])
        self.values.index_copy_(2, place.slot, value[:, :, None])
        keys, values = (cache.narrow(2, 0, place.filled) for cache in (self.keys, self.values))
        return KeysValues(keys, values)


class SelfAttention(nn.Module):
    """Causal multi-head attention with one projection for query, key and value.

    Queries and keys are RMS-normalized before the dot product (arXiv 2010.04245), which keeps
    bfloat16 training stable; they share one gain because only its product matters.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_key_norm = RMSNorm(width // num_heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None,
        mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Attend over (B, T, D) -> (B, T, D) from position 0; fill ``cache`` if given."""
        query, key, value = self._project(x, rotation)
        if cache is not None:
            cache.fill(key, value)
        y = attend(query, key, value, mask, is_causal=mask is None)
        return self.out(y.transpose(1, 2).flatten(2))

    def extend(self, x: Tensor, earlier: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """Attend over a short (B, T, D) sequence in parts, without rotary positions.

        ``earlier`` is what the call before returned; with it, x is a single position.

        Returns:
            (B, T, D), and keys and values so far.
        """
        query, key, value = self._project(x, None)
        if earlier is not None:
            key = torch.cat((earlier.keys, key), dim=2)
            value = torch.cat((earlier.values, value), dim=2)
        y = attend(query, key, value, is_causal=earlier is None)
        return self.out(y.transpose(1, 2).flatten(2)), KeysValues(key, value)

    def step(self, x: Tensor, place: Place, cache: KeyValueCache) -> Tensor:
        """Attend from one position, (B, D) -> (B, D), to the earlier ones in ``cache``."""
        B, D = x.shape
        qkv = self.qkv(x).view(B, 3, self.num_heads, -1)  # (B, 3, H, D / H)
        query_key = self.query_key_norm(qkv[:, :2])
        query, key = rotate(query_key, place.rotation).to(qkv.dtype).unbind(1)
        keys, values = cache.append(key, qkv[:, 2], place)
        y = F.scaled_dot_product_attention(query[:, :, None], keys, values)
        return self.out(y.reshape(B, D))

    def _project(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        B, T, _ = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.num_heads, -1)  # (B, T, 3, H, D / H)
        query_key, value = qkv.split([2, 1], dim=2)
        query_key = query_key.to(self.query_key_norm.weight.dtype)  # float32 under autocast
        query_key = self.query_key_norm(query_key).permute(2, 0, 3, 1, 4)  # (2, B, H, T, D / H)
        if rotation is not None:
            query_key = rotate(query_key, rotation)
        query, key = query_key.to(qkv.dtype)
        return query, key, value[:, :, 0].transpose(1, 2)


class CrossAttention(nn.Module):
    """Multi-head attention from frames to text tokens."""

    def __init__(self, width: int, num_heads: int, text_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(text_width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def read(self, text: Text) -> TextMemory:
        """Project the text, once for all frames."""
        key_value = self.key_value(text.states).unflatten(-1, (2, self.num_heads, -1))
        keys, values = key_value.permute(2, 0, 3, 1, 4)  # (B, H, L, D / H) each
        return TextMemory(keys, values, text.mask)

    def forward(self, x: Tensor, text: TextMemory) -> Tensor:
        """Map (B, T, D) frames -> (B, T, D)."""
        query = self.query(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        y = attend(query, *text)  # (B, H, T, D / H)
        return self.out(y.transpose(1, 2).flatten(2))

    def step(self, x: Tensor, text: TextMemory) -> Tensor:
        """Map one frame, (B, D) -> (B, D)."""
        B, D = x.shape
        query = self.query(x).view(B, self.num_heads, 1, -1)
        y = F.scaled_dot_product_attention(query, *text)
        return self.out(y.reshape(B, D))
