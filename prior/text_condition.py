"""What the prior is told: the text encoder's token states, and the plan of the piece."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class TextCondition:
    """A batch of encoded prompts.

    Attributes:
        states: (B, L, Dt) float, the text encoder's token states.
        mask: (B, L) bool, true at tokens that count. A row without any is unconditional: the
            prior then reads its learned null token.
        plan: (B, T, P) float, ``plan.plan_features`` from the first frame on, or None; frames
            after the last are not planned.
    """

    states: Tensor
    mask: Tensor
    plan: Tensor | None = None

    def __post_init__(self) -> None:
        if self.states.ndim != 3 or self.mask.shape != self.states.shape[:2]:
            raise ValueError(
                "text must be states (B, L, Dt) and a mask (B, L), "
                f"got {tuple(self.states.shape)} and {tuple(self.mask.shape)}"
            )
        if self.mask.dtype != torch.bool:
            raise ValueError(f"text mask must be bool, got {self.mask.dtype}")
        if self.plan is not None and (
            self.plan.ndim != 3 or self.plan.shape[0] != self.states.shape[0]
        ):
            raise ValueError(
                f"plan must be (B, T, P) of {self.states.shape[0]} rows, "
                f"got {tuple(self.plan.shape)}"
            )

    @classmethod
    def empty(cls, batch_size: int, text_width: int) -> "TextCondition":
        """No text: (B, 0, Dt) states."""
        return cls(
            torch.zeros(batch_size, 0, text_width), torch.zeros(batch_size, 0, dtype=torch.bool)
        )

    @classmethod
    def joined(cls, conditions: "Sequence[TextCondition]") -> "TextCondition":
        """The rows of several conditions; what is shorter is padded.

        Returns:
            A condition with the most tokens of any; padded tokens are masked, padded frames are
            not planned.
        """
        longest = max(condition.mask.shape[1] for condition in conditions)
        rows = [condition.padded(longest) for condition in conditions]
        return cls(
            torch.cat([row.states for row in rows]),
            torch.cat([row.mask for row in rows]),
            stack_plans(rows),
        )

    def followed_by(self, other: "TextCondition") -> "TextCondition":
        """Each row's tokens and, without a gap, those of another text; nothing is planned."""
        pairs = [(self.row(index), other.row(index)) for index in range(len(self.mask))]
        return TextCondition.joined(
            [
                TextCondition(
                    torch.cat([first.states, second.states], dim=1),
                    torch.cat([first.mask, second.mask], dim=1),
                )
                for first, second in pairs
            ]
        )

    def row(self, index: int) -> "TextCondition":
        """One row, (1, L', Dt), without its padding and its plan."""
        length = int(self.mask[index].sum())
        at = slice(index, index + 1)
        return TextCondition(self.states[at, :length], self.mask[at, :length])

    def to(self, device: torch.device) -> "TextCondition":
        """The same condition on ``device``."""
        plan = None if self.plan is None else self.plan.to(device)
        return TextCondition(self.states.to(device), self.mask.to(device), plan)

    def padded(self, length: int) -> "TextCondition":
        """The same condition with masked tokens up to ``length``."""
        missing = length - self.mask.shape[1]
        return TextCondition(
            F.pad(self.states, (0, 0, 0, missing)),
            F.pad(self.mask, (0, missing), value=False),
            self.plan,
        )


def stack_plans(conditions: list[TextCondition]) -> Tensor | None:
    """All rows' plans, padded to the longest; None where nothing is planned."""
    plans = [condition.plan for condition in conditions if condition.plan is not None]
    if not plans:
        return None
    longest, width = max(plan.shape[1] for plan in plans), plans[0].shape[2]
    rows = [
        condition.states.new_zeros(condition.states.shape[0], longest, width)
        if condition.plan is None
        else F.pad(condition.plan, (0, 0, 0, longest - condition.plan.shape[1]))
        for condition in conditions
    ]
    return torch.cat(rows)
