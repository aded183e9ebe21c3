"""The text in one vector, for every frame to hear at once."""

import torch
from torch import Tensor, nn

from prior.linear import Linear


class TextSummary(nn.Module):
    """Attention pooling: learned queries gather the tokens that tell tempo, key, instrument.

    Cross-attention alone finds them slowly; with this short cut beside it a wrong caption costs
    twice as much after the same training (docs/experiments.md).

    Args:
        text_width: Dt, of the token states.
        width: D, of the backbone.
        num_queries: how many things may be gathered.
        value_width: numbers gathered for each.
    """

    def __init__(
        self, text_width: int, width: int, num_queries: int = 8, value_width: int = 64
    ) -> None:
        super().__init__()
        self.score = Linear(text_width, num_queries)
        self.value = Linear(text_width, value_width)
        self.project = Linear(num_queries * value_width, width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Summarize normalized token states.

        Args:
            states: (B, L, Dt) float.
            mask: (B, L) bool, at least one true in each row.

        Returns:
            (B, 1, D).
        """
        scores = self.score(states).float().masked_fill(~mask[..., None], float("-inf"))
        weights = scores.softmax(dim=1).to(states.dtype)  # (B, L, Q)
        gathered = torch.einsum("blq,blv->bqv", weights, self.value(states))
        return self.project(gathered.flatten(1))[:, None]
