"""The depth head: the later codebooks of one frame, each given the earlier ones."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prior.attention import SelfAttention
from prior.feed_forward import SwiGLU
from prior.normalisation import RMSNorm


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
        """Logits of books 1 to K - 1 with the true earlier books given.

        Args:
            frames: (B, D) hidden states of the backbone.
            codes: (B, K) int64; the last book is not looked at.

        Returns:
            (B, K - 1, V).
        """
        books = [self.embeddings[k](codes[:, k]) for k in range(len(self.embeddings))]
        x = self._attend([self.frame(frames), *books])
        return torch.stack([head(x[:, k + 1]) for k, head in enumerate(self.heads)], dim=1)

    def sample(
        self, frames: Tensor, first: Tensor, choose: Callable[[Tensor, int], Tensor]
    ) -> list[Tensor]:
        """Choose books 1 to K - 1 one after the other.

        The prefix is computed again for every book: with a handful of books, reading the weights
        is what costs, and this reads them K - 1 times where a cache would read them K times.

        Args:
            frames: (B, D) hidden states of the backbone.
            first: (B,) int64 codes of book 0.
            choose: ``(logits (B, V), book) -> (B,)`` codes.

        Returns:
            K codes of shape (B,), the first one included.
        """
        prefix, codes = [self.frame(frames)], [first]
        for k, (embedding, head) in enumerate(zip(self.embeddings, self.heads, strict=True)):
            prefix.append(embedding(codes[-1]))
            codes.append(choose(head(self._attend_last(prefix)), k + 1))
        return codes

    def _attend(self, prefix: list[Tensor]) -> Tensor:
        x = torch.stack(prefix, dim=1)  # (B, K, D)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _attend_last(self, prefix: list[Tensor]) -> Tensor:
        """The last position alone, (B, D): the last block need not finish the others."""
        x = torch.stack(prefix, dim=1)  # (B, K, D)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        return self.norm(last.last(x))  # type: ignore[operator]


class DepthBlock(nn.Module):
    """Pre-normalised self-attention and feed-forward."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = SwiGLU(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, D) -> (B, K, D), each position from itself and the earlier ones."""
        x = x + self.attention(self.attention_norm(x), None)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def last(self, x: Tensor) -> Tensor:
        """(B, K, D) -> (B, D), the last position of ``forward``."""
        y = x[:, -1] + self.attention(self.attention_norm(x), None)[:, -1]
        return y + self.feed_forward(self.feed_forward_norm(y))
