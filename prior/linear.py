"""Linear layers without a bias, which a single frame reads as fast as memory gives them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_ROWS = 8


class Linear(nn.Linear):
    """``nn.Linear`` without a bias; compiled for a CPU, a product with few rows is a sum.

    Args:
        width: D, of what it reads.
        out_width: D', of what it gives.
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__(width, out_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D')."""
        return sum_products(x, self.weight) if sums_are_faster(x) else F.linear(x, self.weight)


def sums_are_faster(x: Tensor) -> bool:
    """Whether :func:`sum_products` is being compiled for a CPU and (..., D) holds few rows."""
    if not torch.compiler.is_compiling():
        return False
    return x.is_cpu and x.numel() <= FEW_ROWS * x.shape[-1]


def sum_products(x: Tensor, weight: Tensor) -> Tensor:
    """(..., D) and a weight (D', D) of any dtype, stored by row -> (..., D').

    A compiler makes one loop of it that reads the weight once for all rows, faster than a library's
    product with one to eight rows (docs/performance.md).
    """
    rows = stored(x.reshape(-1, x.shape[-1]))
    weight = weight.to(x.dtype)
    y = torch.stack([(weight * row).sum(dim=-1) for row in rows.unbind()])
    return y.view(*x.shape[:-1], weight.shape[0])


def stored(x: Tensor) -> Tensor:
    """The same; a compiler does not compute again what made it for everything that reads it."""
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


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


def lay_out_by_row(model: nn.Module) -> None:
    """Store every linear layer's weight by row, as PyTorch does and :func:`sum_products` wants."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.contiguous()
