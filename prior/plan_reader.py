"""The plan's part of what every frame is told."""

from torch import Tensor, nn

from prior.linear import Linear
from prior.plan import PLAN_WIDTH


class PlanReader(nn.Module):
    """Two layers from a frame's plan to the backbone's width; added to the frame before it.

    Its last layer starts at zero, so that a prior that was trained without a plan is unchanged.

    Args:
        width: D, of the backbone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(PLAN_WIDTH, width)
        self.project = Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, P) from ``plan.plan_features`` -> (B, T, D)."""
        return self.project(nn.functional.silu(self.hidden(features)))
