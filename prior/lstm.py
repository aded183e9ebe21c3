"""The LSTM backbone."""

from itertools import repeat

import torch
from torch import Tensor, nn

from prior.attention import CrossAttention, Place, SelfAttention, Text, place_sequence
from prior.feed_forward import SwiGLU
from prior.normalization import RMSNorm
from prior.state import LayerState, PriorState


class LSTMBackbone(nn.Module):
    """Stacked residual LSTM layers that read the text, then attention over all earlier outputs.

    The memory of the LSTM is the cell, of fixed size; the one attention above it (as in
    "Frustratingly Short Attention Spans", arXiv 1702.04521, and the SHA-RNN, arXiv 1911.11423)
    can quote what the cell forgot.
    """

    has_attention = True

    def __init__(
        self, width: int, num_layers: int, num_heads: int, text_width: int, window: int | None
    ) -> None:
        super().__init__()
        self.head_width = width // num_heads
        self.window = window
        self.num_states = num_layers + self.has_attention  # which keeps the last one
        self.blocks = nn.ModuleList(
            LSTMBlock(width, num_heads, text_width) for _ in range(num_layers)
        )
        if self.has_attention:
            self.attention_norm = RMSNorm(width)
            self.attention = SelfAttention(width, num_heads)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = SwiGLU(width)
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
            x = block(x, text, layer)
        if self.has_attention:
            history = state.layers[-1].history if state else None
            x = x + self.attention(self.attention_norm(x), rotation, mask, history)
        return self.norm(x + self.feed_forward(self.feed_forward_norm(x)))

    def step(self, x: Tensor, place: Place, state: PriorState) -> Tensor:
        """Map one frame, (B, D) -> (B, D) normalized, after those that ``state`` holds."""
        for block, layer in zip(self.blocks, state.layers, strict=False):
            x = block.step(x, layer)  # type: ignore[operator]
        if self.has_attention:
            x = x + self.attention.step(self.attention_norm(x), place, state.layers[-1].history)
        return self.norm(x + self.feed_forward(self.feed_forward_norm(x)))


class PlainLSTMBackbone(LSTMBackbone):
    """An LSTM backbone without attention: all that it knows of the past is in its cells."""

    has_attention = False


class LSTMBlock(nn.Module):
    """A pre-normalized LSTM layer and cross-attention to the text."""

    def __init__(self, width: int, num_heads: int, text_width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.text_norm = RMSNorm(width)
        self.text_attention = CrossAttention(width, num_heads, text_width)

    def forward(self, x: Tensor, text: Text, state: LayerState | None) -> Tensor:
        """Map a whole sequence, (B, T, D) -> (B, T, D); ``state`` is filled if given."""
        memory = self.text_attention.read(text)
        y, (output, cell) = self.lstm(self.norm(x))
        if state is not None:
            state.hidden = output[0], cell[0]
            state.text = memory.contiguous()
        x = x + y
        return x + self.text_attention(self.text_norm(x), memory)

    def step(self, x: Tensor, state: LayerState) -> Tensor:
        """Map one frame, (B, D) -> (B, D), by the bare cell: the layer costs five times it."""
        weights = self.lstm.all_weights[0]
        assert state.hidden is not None
        assert state.text is not None
        output, cell = torch.lstm_cell(self.norm(x), state.hidden, *weights)
        state.hidden = output, cell
        x = x + output
        return x + self.text_attention.step(self.text_norm(x), state.text)
