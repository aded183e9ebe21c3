"""How the weights lie in memory when single frames are written."""

import torch
from torch import nn


def lay_out_by_column(model: nn.Module) -> None:
    """Store every linear layer's weight column by column, in place; values and shapes stay.

    With MKL the product with one or two rows reads such a weight about 1.4 times as fast
    (docs/performance.md); on another processor library nothing is done. For inference: an optimizer
    would meet parameters whose strides differ from their gradients'.
    """
    if not torch.backends.mkl.is_available():
        return
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()
