"""What the prior is told: the text encoder's token states."""

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
    """

    states: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.states.ndim != 3 or self.mask.shape != self.states.shape[:2]:
            raise ValueError(
                "text must be states (B, L, Dt) and a mask (B, L), "
                f"got {tuple(self.states.shape)} and {tuple(self.mask.shape)}"
            )
        if self.mask.dtype != torch.bool:
            raise ValueError(f"text mask must be bool, got {self.mask.dtype}")

    @classmethod
    def empty(cls, batch_size: int, text_width: int) -> "TextCondition":
        """No text: (B, 0, Dt) states."""
        return cls(
            torch.zeros(batch_size, 0, text_width), torch.zeros(batch_size, 0, dtype=torch.bool)
        )

    def to(self, device: torch.device) -> "TextCondition":
        """The same condition on ``device``."""
        return TextCondition(self.states.to(device), self.mask.to(device))

    def stacked_on(self, other: "TextCondition") -> "TextCondition":
        """These rows, then the rows of ``other``, the shorter of the two padded with masked tokens.

        Returns:
            A condition of B + B' rows and max(L, L') tokens.
        """
        longest = max(self.mask.shape[1], other.mask.shape[1])
        rows = [condition._padded(longest) for condition in (self, other)]
        return TextCondition(
            torch.cat([row.states for row in rows]), torch.cat([row.mask for row in rows])
        )

    def _padded(self, length: int) -> "TextCondition":
        missing = length - self.mask.shape[1]
        return TextCondition(
            F.pad(self.states, (0, 0, 0, missing)), F.pad(self.mask, (0, missing), value=False)
        )
