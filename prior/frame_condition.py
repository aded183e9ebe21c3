"""What is added to every frame of codes: the text in one vector, and its part of the plan."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prior.form import FORM_WIDTH
from prior.plan import PLAN_WIDTH

BLOCK_FRAMES = 256
"""Frames of the plan that are read at a time while frames are generated, 10 s of music."""


class FrameCondition:
    """The sum of the text's summary and each frame's plan, (B, D) a frame.

    Frame by frame, the plan is read in blocks, so that a piece of ten minutes begins as soon as a
    short one.

    Args:
        summary: (B, 1, D) of the text.
        plan: (B, T, P) from ``plan.plan_features``, or None; frames after the last are not planned.
        reader: of the plan; None for a prior that reads none.
    """

    def __init__(self, summary: Tensor, plan: Tensor | None, reader: "PlanReader | None") -> None:
        assert plan is None or reader is not None
        if plan is None and reader is not None:
            summary = summary + reader(summary.new_zeros(1, 1, reader.num_features))
        self.summary = summary
        self.plan = plan
        self.reader = reader
        self.block_index = -1  # of the block that was read last
        self.block = summary

    def frames(self, start: int, stop: int) -> Tensor:
        """Return (B, T, D) for frames ``start`` to ``stop - 1``; (B, 1, D) without a plan."""
        if self.plan is None or self.reader is None:
            return self.summary
        plan = self.plan[:, start:stop]
        plan = F.pad(plan, (0, 0, 0, stop - start - plan.shape[1]))
        return self.summary + self.reader(plan.to(self.summary.dtype))

    def frame(self, frame: int) -> Tensor:
        """Return (B, D) for one frame."""
        index, offset = divmod(frame, BLOCK_FRAMES)
        if index != self.block_index:
            self.block = self.frames(index * BLOCK_FRAMES, (index + 1) * BLOCK_FRAMES)
            self.block_index = index
        return self.block[:, min(offset, self.block.shape[1] - 1)]


class TextSummary(nn.Module):
    """Attention pooling: learned queries gather the tokens that tell tempo, key, instrument.

    Cross-attention alone learns to find them slowly. With this pooling beside it, swapping captions
    raises the loss twice as much after the same training: the text is used more.

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
        self.score = nn.Linear(text_width, num_queries, bias=False)
        self.value = nn.Linear(text_width, value_width, bias=False)
        self.project = nn.Linear(num_queries * value_width, width, bias=False)

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


class PlanReader(nn.Module):
    """Two layers from a frame's plan to the backbone's width; added to the frame before it.

    Its last layer starts at zero, so that a prior that was trained without a plan is unchanged; so
    do the two layers for the form, beside a plan that was trained without one.

    Args:
        width: D, of the backbone.
        reads_form: whether the features of ``form.form_features`` follow those of the plan.
    """

    def __init__(self, width: int, reads_form: bool = False) -> None:
        super().__init__()
        self.num_features = PLAN_WIDTH + FORM_WIDTH * reads_form
        self.hidden = nn.Linear(PLAN_WIDTH, width)
        self.project = nn.Linear(width, width, bias=False)
        self.form_hidden = nn.Linear(FORM_WIDTH, width) if reads_form else None
        self.form_project = nn.Linear(width, width, bias=False) if reads_form else None

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, T, P) ``plan.plan_features``, or (B, T, P + F) with the form, to (B, T, D)."""
        plan, form = features[..., :PLAN_WIDTH], features[..., PLAN_WIDTH:]
        read = self.project(F.silu(self.hidden(plan)))
        if self.form_hidden is not None and self.form_project is not None:
            read = read + self.form_project(F.silu(self.form_hidden(form)))
        return read
