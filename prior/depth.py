"""The depth head: the later codebooks of one frame, each given the earlier ones."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prior.attention import KeysValues, SelfAttention
from prior.feed_forward import SwiGLU
from prior.normalization import RMSNorm


class DepthHead(nn.Module):
    """A small causal Transformer over [frame, c_0, ..., c_{K-2}] (RQ-Transformer, 2203.01941).

    The first codebook is predicted from the frame itself, so K codebooks take K - 1 predictions.
    Positions need no encoding: every codebook has its own embedding.
    """

    def __init__(
        self,
        frame_width: int,
        width: int,
        num_layers: int,
        num_heads: int,
        num_codebooks: int,
        codebook_size: int,
    ) -> None:
        super().__init__()
        self.frame = nn.Linear(frame_width, width, bias=False)
        self.embeddings = nn.ModuleList(
            nn.Embedding(codebook_size, width) for _ in range(num_codebooks - 1)
        )
        self.blocks = nn.ModuleList(DepthBlock(width, num_heads) for _ in range(num_layers))
        self.norm = RMSNorm(width)
        self.heads = nn.ModuleList(
            nn.Linear(width, codebook_size, bias=False) for _ in range(num_codebooks - 1)
        )

    def forward(self, frames: Tensor, codes: Tensor) -> Tensor:
        """Predict (B, K - 1, V) logits of the later codebooks with the true earlier ones given.

        ``frames`` are (B, D) hidden states of the backbone; the last of (B, K) codes is not looked
        at.
        """
        books = [self.embeddings[k](codes[:, k]) for k in range(len(self.embeddings))]
        x = self._attend([self.frame(frames), *books])
        return torch.stack([head(x[:, k + 1]) for k, head in enumerate(self.heads)], dim=1)

    def sample(
        self, frames: Tensor, first: Tensor, choose: Callable[[Tensor, int], Tensor]
    ) -> list[Tensor]:
        """Choose codebooks 1 to K - 1 one after the other, the weights read once for each.

        Args:
            frames: (B, D) hidden states of the backbone.
            first: (B,) int64 codes of codebook 0.
            choose: ``(logits (B, V), codebook) -> (B,)`` codes.

        Returns:
            K codes of shape (B,), the first one included.
        """
        codes = [first]
        earlier: list[KeysValues | None] = [None] * len(self.blocks)
        x = torch.stack((self.frame(frames), self.embeddings[0](first)), dim=1)  # (B, 2, D)
        for k, head in enumerate(self.heads):
            if k > 0:
                x = self.embeddings[k](codes[-1])[:, None]  # (B, 1, D)
            codes.append(choose(head(self._extend(x, earlier)), k + 1))
        return codes

    def _attend(self, prefix: list[Tensor]) -> Tensor:
        x = torch.stack(prefix, dim=1)  # (B, K, D)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _extend(self, x: Tensor, earlier: list[KeysValues | None]) -> Tensor:
        """Map (B, T, D), after what ``earlier`` holds per block, to the last position, (B, D)."""
        for index, block in enumerate(self.blocks):
            last_alone = index == len(self.blocks) - 1
            x, earlier[index] = block.extend(x, earlier[index], last_alone)  # type: ignore[operator]
        return self.norm(x[:, -1])


class DepthBlock(nn.Module):
    """Pre-normalized self-attention and feed-forward."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = SwiGLU(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, K, D) -> (B, K, D), each position from itself and the earlier ones."""
        x = x + self.attention(self.attention_norm(x), None)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def extend(
        self, x: Tensor, earlier: KeysValues | None, last_alone: bool
    ) -> tuple[Tensor, KeysValues]:
        """Run ``forward`` in parts: (B, T, D) -> (B, T, D), or (B, 1, D) of the last position."""
        y, seen = self.attention.extend(self.attention_norm(x), earlier)
        x = x + y
        if last_alone:
            x = x[:, -1:]
        return x + self.feed_forward(self.feed_forward_norm(x)), seen
