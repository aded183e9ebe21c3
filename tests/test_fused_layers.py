"""Layers in C and their gradients against PyTorch's, with every build that runs here."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from codec.native import fused_layers, inner_loops
from codec.native.fused_layers import rms_norm, runs_fused, swiglu


@pytest.fixture(autouse=True)
def with_library(library, monkeypatch):
    monkeypatch.setattr(fused_layers, "load_library", lambda: library)
    monkeypatch.setattr(inner_loops, "load_library", lambda: library)


def gradients(function, *inputs):
    """What a function returns, and its gradients by its inputs for some gradient of the output."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    output = function(*inputs)
    slope = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return [output.detach(), *torch.autograd.grad(output, inputs, slope)]


@pytest.mark.parametrize("size", [1, 15, 16, 64, 321])
def test_normalization(size):
    x, gain = torch.randn(3, 7, size), torch.randn(size)
    x[0, 0] = 0
    assert runs_fused(x, gain)
    expected = gradients(lambda x, gain: F.rms_norm(x, (size,), gain), x, gain)
    for found, wanted in zip(gradients(rms_norm, x, gain), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 15, 16, 704])
def test_gates(size):
    x = 20 * torch.randn(3, 5, 2 * size)
    assert runs_fused(x)
    expected = gradients(lambda x: F.silu(x[..., :size]) * x[..., size:], x)
    for found, wanted in zip(gradients(swiglu, x), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_inputs_that_are_not_in_one_piece():
    x, gain = torch.randn(4, 6, 10).transpose(0, 1)[..., ::2], nn.Parameter(torch.randn(5))
    assert torch.allclose(rms_norm(x, gain), F.rms_norm(x, (5,), gain), atol=1e-6)
    expected = F.silu(x[..., :2]) * x[..., 2:4]
    assert torch.allclose(swiglu(x[..., :4]), expected, atol=1e-6)


def test_where_pytorch_runs(monkeypatch):
    assert not runs_fused(torch.zeros(2, dtype=torch.bfloat16))
    assert not runs_fused(torch.zeros(2, device="meta"))
    monkeypatch.setattr(fused_layers, "MOST_THREADS", 0)
    assert not runs_fused(torch.zeros(2))
    assert torch.equal(swiglu(torch.ones(4)), F.silu(torch.ones(2)))
