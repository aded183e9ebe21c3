"""Weights in eight bits, for a prior that is read once per frame: a quarter of the bytes."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prior.compiled import has_few_rows, sum_products

Precision = Literal["int8"]
KERNEL_WIDTH = 16


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, one scale per output, and bfloat16 activations.

    The product is ATen's weight-only kernel, to which torch.compile too turns such layers on a CPU
    (it sums in float32). A quarter of float32's bytes, and no activation is quantized.

    Args:
        linear: the layer to replace, without bias.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        assert linear.bias is None
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        scale = scale.bfloat16()  # rounded first, so that the weights make up for it
        rounded = (weight / scale.float()[:, None]).round().clamp(-127, 127)
        self.register_buffer("weight", rounded.to(torch.int8).contiguous())
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D'), in the dtype of ``x``."""
        # compiled, the product is a sum over float32 activations, as other layers' (prior.compiled)
        if torch.compiler.is_compiling() and x.is_cpu and has_few_rows(x):
            return sum_products(x, self.weight) * self.scale.to(x.dtype)
        rows = x.to(self.scale.dtype)
        if x.dim() != 2:
            rows = rows.reshape(-1, x.shape[-1])
        y = torch._weight_int8pack_mm(rows, self.weight, self.scale).to(x.dtype)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], len(self.scale))


def check_precision(precision: str) -> None:
    """Raise a ``ValueError`` unless ``precision`` is one that this torch can run."""
    if precision not in get_args(Precision):
        raise ValueError(f"quantize must be one of {[*get_args(Precision)]}, got {precision!r}")
    if not hasattr(torch, "_weight_int8pack_mm"):
        raise ValueError(f"quantize='int8' needs a newer torch than {torch.__version__}")


def quantize_linear(model: nn.Module, precision: Precision) -> None:
    """Replace every ``nn.Linear`` without a bias inside ``model``, in place and for good.

    Embeddings, norms, an LSTM's own weights and the plan reader's first layer, which is read every
    ten seconds, stay as they are; so does a layer of a width that is no multiple of sixteen.

    Args:
        model: on the CPU.
        precision: "int8".

    Raises:
        ValueError: another precision, or a torch without the kernel.
    """
    check_precision(precision)
    for name, child in model.named_children():
        if isinstance(child, nn.Linear) and fits_kernel(child):
            setattr(model, name, Int8Linear(child))
        else:
            quantize_linear(child, precision)


def fits_kernel(linear: nn.Linear) -> bool:
    """Tell whether the kernel can take the layer; with another width it reads beyond the weight."""
    return linear.bias is None and linear.in_features % KERNEL_WIDTH == 0


def is_quantized(model: nn.Module) -> bool:
    """Whether :func:`quantize_linear` has been here."""
    return any(isinstance(module, Int8Linear) for module in model.modules())
