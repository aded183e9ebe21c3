"""The gated feed-forward layer."""

from torch import Tensor, nn

from codec.native.fused_layers import swiglu


class SwiGLU(nn.Module):
    """``down(silu(gate) * up)`` (arXiv 2002.05202), the inner width 8/3 of the outer one.

    The inner width is rounded up to a multiple of 32, so that the layer holds about as many
    parameters as a plain one of four times the width.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = -(-width * 8 // 3 // 32) * 32
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) -> (B, T, D)."""
        return self.down(swiglu(self.gate_up(x)))
