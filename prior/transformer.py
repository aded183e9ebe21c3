"""The Transformer backbone."""

from itertools import repeat

from torch import Tensor, nn

from prior.attention import CrossAttention, Place, Rotation, SelfAttention, Text, place_sequence
from prior.feed_forward import SwiGLU
from prior.normalization import RMSNorm
from prior.state import LayerState, PriorState


class TransformerBackbone(nn.Module):
    """Frames that look at earlier frames and at the text, layer by layer."""

    def __init__(
        self, width: int, num_layers: int, num_heads: int, text_width: int, window: int | None
    ) -> None:
        super().__init__()
        self.head_width = width // num_heads
        self.window = window
        self.num_states = num_layers
        self.blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, text_width) for _ in range(num_layers)
        )
        self.norm = RMSNorm(width)

    def forward(
        self,
        x: Tensor,
        text: Text,
        state: PriorState | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Map a whole sequence, (B, T, D) -> (B, T, D) normalized; ``state`` is filled if given.

        ``positions`` (T,) are those of a sequence that is not in order, and has no window then.
        """
        rotation, mask = place_sequence(x, self.head_width, self.window, positions)
        layers = state.layers if state else repeat(None)
        for block, layer in zip(self.blocks, layers, strict=False):
            x = block(x, text, rotation, mask, layer)
        return self.norm(x)

    def step(self, x: Tensor, place: Place, state: PriorState) -> Tensor:
        """Map one frame, (B, D) -> (B, D) normalized, after those that ``state`` holds."""
        for block, layer in zip(self.blocks, state.layers, strict=True):
            x = block.step(x, place, layer)  # type: ignore[operator]
        return self.norm(x)


class TransformerBlock(nn.Module):
    """Pre-normalized self-attention, cross-attention to the text, and feed-forward."""

    def __init__(self, width: int, num_heads: int, text_width: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.text_norm = RMSNorm(width)
        self.text_attention = CrossAttention(width, num_heads, text_width)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = SwiGLU(width)

    def forward(
        self,
        x: Tensor,
        text: Text,
        rotation: Rotation,
        mask: Tensor | None,
        state: LayerState | None,
    ) -> Tensor:
        """Map a whole sequence, (B, T, D) -> (B, T, D); ``state`` is filled if given."""
        history, memory = state.history if state else None, self.text_attention.read(text)
        if state:
            state.text = memory.contiguous()
        x = x + self.attention(self.attention_norm(x), rotation, mask, history)
        x = x + self.text_attention(self.text_norm(x), memory)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def step(self, x: Tensor, place: Place, state: LayerState) -> Tensor:
        """Map one frame, (B, D) -> (B, D)."""
        assert state.text is not None
        x = x + self.attention.step(self.attention_norm(x), place, state.history)
        x = x + self.text_attention.step(self.text_norm(x), state.text)
        return x + self.feed_forward(self.feed_forward_norm(x))
