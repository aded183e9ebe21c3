"""Attention by products, as training in bfloat16 on a CPU computes it, against PyTorch's own."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codec import dot_product_attention
from codec.dot_product_attention import attend


def heads(T: int, S: int, dtype: torch.dtype) -> list[Tensor]:
    """Draw query, key and value of two rows and three heads, which want gradients."""
    draws = torch.Generator().manual_seed(0)
    shapes = ((2, 3, T, 16), (2, 3, S, 16), (2, 3, S, 16))
    return [torch.randn(s, generator=draws).to(dtype).requires_grad_() for s in shapes]


def result(attention, tensors: list[Tensor], *options: object) -> list[Tensor]:
    """Attend, and return the output and the three gradients in float32."""
    output = attention(*tensors, *options)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output).to(output.dtype)
    gradients = torch.autograd.grad((output * weights).sum(), tensors)
    return [tensor.float() for tensor in (output, *gradients)]


def exact(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)


MASK = torch.tensor([1, 1, 0, 1, 1, 1, 0, 0, 1]).bool().view(1, 1, 1, 9).expand(2, 1, 1, 9)


@pytest.mark.parametrize(
    ("T", "S", "mask", "causal"),
    [(12, 12, None, True), (12, 12, None, False), (5, 9, MASK, False), (1, 9, None, False)],
)
def test_products_are_as_near_as_bfloat16_is(T, S, mask, causal):
    half = heads(T, S, torch.bfloat16)
    wide = [tensor.detach().float().requires_grad_() for tensor in half]
    expected = result(exact, wide, mask, causal)
    for found, fused, want in zip(
        result(attend, half, mask, causal), result(exact, half, mask, causal), expected, strict=True
    ):
        error, usual = (found - want).abs().mean(), (fused - want).abs().mean()
        assert error < max(4 * usual, 0.004 * want.abs().mean())


def test_no_gradient_and_float32_are_pytorchs_own(monkeypatch):
    """Inference must not change by a bit, and float32 gains nothing."""
    for dtype in (torch.bfloat16, torch.float32):
        tensors = heads(12, 12, dtype)
        with torch.no_grad():
            assert torch.equal(attend(*tensors, is_causal=True), exact(*tensors, None, True))
    assert torch.equal(attend(*tensors, is_causal=True), exact(*tensors, None, True))
    half = heads(12, 12, torch.bfloat16)
    by_products = attend(*half, is_causal=True)
    monkeypatch.setattr(dot_product_attention, "MOST_SCORES", 100)
    fused = attend(*half, is_causal=True)
    assert torch.equal(fused, exact(*half, None, True))
    assert not torch.equal(fused, by_products)
