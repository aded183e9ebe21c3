"""What every frame is told beside its codes: the text in one vector, and its part of the plan."""

from torch import Tensor
from torch.nn import functional as F

from prior.plan import PLAN_WIDTH
from prior.plan_reader import PlanReader

BLOCK_FRAMES = 256
"""Of a plan are read at once while frames are written, 10 s of music."""


class Told:
    """The text's summary and the plan, added up.

    Who writes frame by frame has a block of the plan read at a time, so that a piece of ten minutes
    begins as soon as a short one.

    Args:
        summary: (B, 1, D) of the text.
        plan: (B, T, P) from ``plan.plan_features``, or None; frames after the last are not planned.
        reader: of the plan; None for a prior that reads none.
    """

    def __init__(self, summary: Tensor, plan: Tensor | None, reader: PlanReader | None) -> None:
        assert plan is None or reader is not None
        if plan is None and reader is not None:
            summary = summary + reader(summary.new_zeros(1, 1, PLAN_WIDTH))
        self.summary = summary
        self.plan = plan
        self.reader = reader
        self.index = -1  # of the block that was read last
        self.block = summary

    def frames(self, start: int, stop: int) -> Tensor:
        """(B, T, D) for frames ``start`` to ``stop - 1``; (B, 1, D) where all are told the same."""
        if self.plan is None or self.reader is None:
            return self.summary
        plan = self.plan[:, start:stop]
        plan = F.pad(plan, (0, 0, 0, stop - start - plan.shape[1]))
        return self.summary + self.reader(plan.to(self.summary.dtype))

    def frame(self, frame: int) -> Tensor:
        """(B, D) for one frame."""
        index, offset = divmod(frame, BLOCK_FRAMES)
        if index != self.index:
            self.block = self.frames(index * BLOCK_FRAMES, (index + 1) * BLOCK_FRAMES)
            self.index = index
        return self.block[:, min(offset, self.block.shape[1] - 1)]
