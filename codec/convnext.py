"""ConvNeXt blocks over time, of which the codec's encoder and decoder are made."""

import torch
from einops import rearrange
from torch import Tensor, nn


class ConvNextBlock(nn.Module):
    """Depthwise convolution over time, then a pointwise MLP, on (B, T, D); Liu et al. 2022."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            width, width, kernel_size, padding=kernel_size // 2, groups=width
        )
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor, left: int = 0, right: int = 0) -> Tensor:
        """Map (B, T, D) -> (B, T - left - right, D), the convolution alone on what is cut off."""
        kept = slice(left, x.shape[1] - right)
        hidden = nn.functional.gelu(self.expand(self.norm(self.mix(x)[:, kept])))
        return torch.addcmul(x[:, kept], self.scale, self.contract(hidden))

    def mix(self, x: Tensor) -> Tensor:
        """Apply the depthwise convolution, tap by tap where nobody wants its gradient."""
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return rearrange(self.depthwise(rearrange(x, "b t d -> b d t")), "b d t -> b t d")
        assert self.depthwise.bias is not None
        reach = self.depthwise.kernel_size[0] // 2
        padded = nn.functional.pad(x, (0, 0, reach, reach))
        taps = self.depthwise.weight[:, 0].T  # (kernel, D)
        mixed = self.depthwise.bias + padded[:, : x.shape[1]] * taps[0]
        for place, tap in enumerate(taps[1:], start=1):
            mixed.addcmul_(padded[:, place : place + x.shape[1]], tap)
        return mixed


class ConvNextStack(nn.Sequential):
    """A stack of blocks, with a last normalization."""

    def __init__(self, width: int, layers: int, kernel_size: int) -> None:
        blocks = [ConvNextBlock(width, kernel_size) for _ in range(layers)]
        super().__init__(*blocks, nn.LayerNorm(width))
        self.block_reach = kernel_size // 2

    def forward(self, x: Tensor, left: int = 0, right: int = 0) -> Tensor:
        """Map (B, T, D) -> (B, T - left - right, D).

        Args:
            x: with ``left`` and ``right`` frames that the output sees and that are not wanted of it
                themselves; each block cuts off those that no later one sees.
            left: before the output.
            right: after it.
        """
        *blocks, norm = self
        for later, block in zip(range(len(blocks) - 1, -1, -1), blocks, strict=True):
            seen = later * self.block_reach
            ahead, behind = max(0, left - seen), max(0, right - seen)
            x = block(x, ahead, behind)
            left, right = left - ahead, right - behind
        return norm(x)
