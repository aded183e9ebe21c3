"""Layers in C with gradients (layers.c), and PyTorch's operators where C does not apply."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codec.native.inner_loops import is_plain
from codec.native.library import load_library

MOST_THREADS = 2
"""The loops in C take one thread, PyTorch's operators all there are."""


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """Map (..., n) -> (..., n), as ``F.rms_norm`` does with a gain (n,)."""
    if runs_fused(x, gain):
        return FusedRMSNorm.apply(x, gain)
    return F.rms_norm(x, gain.shape, gain)


def swiglu(gate_up: Tensor) -> Tensor:
    """Map (..., 2 n) -> (..., n), SiLU of the first half times the second (arXiv 2002.05202)."""
    if runs_fused(gate_up):
        return FusedSwiGLU.apply(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def runs_fused(*tensors: Tensor) -> bool:
    """Tell whether C is there, takes the tensors, and is faster."""
    if torch.compiler.is_compiling() or torch.get_num_threads() > MOST_THREADS:
        return False
    return is_plain(*tensors)


class FusedRMSNorm(torch.autograd.Function):
    """Root mean square normalization (arXiv 1910.07467) and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        """See :func:`rms_norm`."""
        x, gain = x.contiguous(), gain.contiguous()
        rows, n = x.numel() // gain.numel(), gain.numel()
        y, scales = torch.empty_like(x), torch.empty(rows)
        pointers = (tensor.data_ptr() for tensor in (x, gain, y, scales))
        epsilon = torch.finfo(x.dtype).eps
        load_library().functions.partita_rms_norm(*pointers, rows, n, epsilon)
        ctx.save_for_backward(x, gain, scales)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by input and gain."""
        x, gain, scales = ctx.saved_tensors
        dy, dx = dy.contiguous(), torch.empty_like(x)
        dgain = torch.zeros(gain.shape, dtype=torch.float64)
        pointers = (tensor.data_ptr() for tensor in (x, gain, scales, dy, dx, dgain))
        functions = load_library().functions
        functions.partita_rms_norm_gradient(*pointers, len(scales), gain.numel())
        return dx, dgain.float()


class FusedSwiGLU(torch.autograd.Function):
    """SiLU of a tensor's first half times its second half, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """See :func:`swiglu`."""
        x = x.contiguous()
        n = x.shape[-1] // 2
        y = torch.empty(*x.shape[:-1], n)
        rows = x.numel() // (2 * n)
        load_library().functions.partita_swiglu(x.data_ptr(), y.data_ptr(), rows, n)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        """Return the gradient by the input."""
        (x,) = ctx.saved_tensors
        dy, dx = dy.contiguous(), torch.empty_like(x)
        n = dy.shape[-1]
        pointers = (tensor.data_ptr() for tensor in (x, dy, dx))
        load_library().functions.partita_swiglu_gradient(*pointers, x.numel() // (2 * n), n)
        return dx
