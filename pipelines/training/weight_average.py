"""Average a model's weights exponentially: the average is what is validated and exported."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel


class WeightAverage(AveragedModel):
    """Follow a model by an exponential moving average of its weights, buffers included.

    A codec's codebooks are buffers that follow the encoder by moving averages of their own.
    Averaged beside the encoder's weights they stay the codebooks of the averaged encoder; copied
    they would be a newer encoder's (AudioCraft averages them too).

    Args:
        model: what is trained, before it is wrapped for distributed training or autocast.
        decay: what a step leaves of the average. After n steps it is at most (1 + n) / (10 + n),
            so that the average soon forgets where it began.
        least_decay: the smallest decay, from the second step on.
    """

    def __init__(self, model: nn.Module, decay: float, least_decay: float = 0.0) -> None:
        def average(averages: Any, values: Any, count: Tensor | int) -> None:
            if not averages[0].is_floating_point():
                torch._foreach_copy_(averages, values)
                return
            n = int(count)
            kept = max(self.least_decay, min(decay, (1 + n) / (10 + n)))
            # unlike lerp, this keeps the sign of a zero, and so the hash of weights that are frozen
            parts = [*map(own_part, averages)]
            steps = torch._foreach_sub(parts, [*map(own_part, values)])
            torch._foreach_mul_(steps, 1 - kept)
            torch._foreach_sub_(parts, steps)

        super().__init__(model, multi_avg_fn=average, use_buffers=True)
        self.module.eval()
        self.least_decay = least_decay
        self.buffers_of_model = model.buffers

    def get_extra_state(self) -> float:
        """Keep the smallest decay in checkpoints, so that a resumed run goes on with it."""
        return self.least_decay

    def set_extra_state(self, least_decay: float) -> None:
        """Take the smallest decay from a checkpoint."""
        self.least_decay = least_decay

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load a checkpoint's average, or that of an earlier version: of parameters alone."""
        if "shadow_params" not in state_dict:
            return super().load_state_dict(state_dict, strict, assign)
        own = [*self.module.parameters(), *self.module.buffers()]
        values = [*state_dict["shadow_params"], *self.buffers_of_model()]
        for average, value in zip(own, values, strict=True):
            average.data.copy_(value)
        self.n_averaged.fill_(state_dict["optimization_step"])
        self.least_decay = state_dict["min_decay"]
        return None


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, which is all of one that is not split."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
