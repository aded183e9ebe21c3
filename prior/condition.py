"""What conditions a piece: the text encoder's token states, and the plan."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Condition:
    """A batch of encoded prompts and plans: made by whoever has both, read by the prior.

    Attributes:
        text_states: (B, L, Dt) float, the text encoder's token states.
        text_mask: (B, L) bool, true at tokens that count. A row without any is unconditional: the
            prior then reads its learned null token, which is how text is dropped for
            classifier-free guidance.
        plan: (B, T, P) float, ``plan.plan_features`` from the first frame on, or None; frames
            after the last are not planned.

    Raises:
        ValueError: the shapes do not fit, or the mask is not bool.
    """

    text_states: Tensor
    text_mask: Tensor
    plan: Tensor | None = None

    def __post_init__(self) -> None:
        states, mask, plan = self.text_states, self.text_mask, self.plan
        if states.ndim != 3 or mask.shape != states.shape[:2]:
            raise ValueError(
                "text must be states (B, L, Dt) and a mask (B, L), "
                f"got {tuple(states.shape)} and {tuple(mask.shape)}"
            )
        if mask.dtype != torch.bool:
            raise ValueError(f"text mask must be bool, got {mask.dtype}")
        if plan is not None and (plan.ndim != 3 or plan.shape[0] != states.shape[0]):
            raise ValueError(
                f"plan must be (B, T, P) of {states.shape[0]} rows, got {tuple(plan.shape)}"
            )

    @classmethod
    def empty(
        cls, batch_size: int, text_width: int, device: torch.device | str = "cpu"
    ) -> "Condition":
        """Make the condition of no text, (B, 0, Dt) states, and no plan."""
        return cls(
            torch.zeros(batch_size, 0, text_width, device=device),
            torch.zeros(batch_size, 0, dtype=torch.bool, device=device),
        )

    @classmethod
    def joined(cls, conditions: "Sequence[Condition]") -> "Condition":
        """Stack the rows of several conditions.

        Returns:
            A condition with the most tokens and planned frames of any; padded tokens are masked,
            padded frames are not planned.
        """
        longest = max(condition.text_mask.shape[1] for condition in conditions)
        rows = [condition.padded(longest) for condition in conditions]
        return cls(
            torch.cat([row.text_states for row in rows]),
            torch.cat([row.text_mask for row in rows]),
            stack_plans(rows),
        )

    def followed_by(self, other: "Condition") -> "Condition":
        """Append another text's tokens to each row's, without a gap; drop the plan."""
        pairs = [(self.row(index), other.row(index)) for index in range(len(self.text_mask))]
        return Condition.joined(
            [
                Condition(
                    torch.cat([first.text_states, second.text_states], dim=1),
                    torch.cat([first.text_mask, second.text_mask], dim=1),
                )
                for first, second in pairs
            ]
        )

    def row(self, index: int) -> "Condition":
        """Take one row's text, (1, L', Dt), without its padding and its plan."""
        length = int(self.text_mask[index].sum())
        at = slice(index, index + 1)
        return Condition(self.text_states[at, :length], self.text_mask[at, :length])

    def to(self, device: torch.device) -> "Condition":
        """Move the tensors to ``device``."""
        plan = None if self.plan is None else self.plan.to(device)
        return Condition(self.text_states.to(device), self.text_mask.to(device), plan)

    def padded(self, length: int) -> "Condition":
        """Append masked tokens up to ``length``; ValueError where there are more already."""
        missing = length - self.text_mask.shape[1]
        if missing < 0:
            raise ValueError(
                f"length must be at least the text's {self.text_mask.shape[1]} tokens, got {length}"
            )
        return Condition(
            F.pad(self.text_states, (0, 0, 0, missing)),
            F.pad(self.text_mask, (0, missing), value=False),
            self.plan,
        )


def stack_plans(conditions: list[Condition]) -> Tensor | None:
    """Stack all rows' plans, padded to the longest; None where nothing is planned."""
    plans = [condition.plan for condition in conditions if condition.plan is not None]
    if not plans:
        return None
    longest, width = max(plan.shape[1] for plan in plans), plans[0].shape[2]
    rows = [
        condition.text_states.new_zeros(condition.text_states.shape[0], longest, width)
        if condition.plan is None
        else F.pad(condition.plan, (0, 0, 0, longest - condition.plan.shape[1]))
        for condition in conditions
    ]
    return torch.cat(rows)
