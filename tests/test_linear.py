"""The prior's linear layers: how their weights lie, and what a compiled frame makes of them."""

import pytest
import torch
from tiny_prior import some_codes, some_text, tiny_prior
from torch.nn import functional as F

from pipelines.inference.quantization import Int8Linear
from prior import Prior
from prior.linear import FEW_ROWS, Linear, lay_out_by_column, lay_out_by_row, sum_products


@torch.no_grad()
def test_values_shapes_and_files_stay(tmp_path):
    prior, text = tiny_prior("transformer"), some_text(2)
    codes = some_codes(prior, 2, 9)
    before = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    logits = prior(codes, text).first_logits
    lay_out_by_column(prior)
    if torch.backends.mkl.is_available():
        assert prior.first_head.weight.stride() == (1, prior.first_head.weight.shape[0])
    for name, tensor in prior.state_dict().items():
        assert torch.equal(tensor, before[name])
    torch.testing.assert_close(prior(codes, text).first_logits, logits)
    prior.save_pretrained(tmp_path)
    for name, tensor in Prior.from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.is_contiguous()
    lay_out_by_row(prior)
    assert all(tensor.is_contiguous() for tensor in prior.parameters())
    assert torch.equal(prior.first_head.weight, before["first_head.weight"])


@pytest.mark.parametrize("shape", [(1, 32), (2, 32), (2, 3, 32), (FEW_ROWS, 32)])
@pytest.mark.parametrize("kind", ["float32", "int8"])
@torch.no_grad()
def test_few_rows_are_summed_when_compiled_for_a_cpu(shape, kind, monkeypatch):
    torch.manual_seed(0)
    layer = Linear(32, 7)
    weight = layer.weight.detach()
    if kind == "int8":
        layer = Int8Linear(layer)
        weight = layer.weight.float() * layer.scale.float()[:, None]
    x = torch.randn(shape)
    plain = layer(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    summed = layer(x)
    assert not torch.equal(summed, plain)  # rounded otherwise
    assert summed.dtype == torch.float32
    torch.testing.assert_close(summed, F.linear(x, weight))
    many = torch.randn(FEW_ROWS + 1, 32)
    monkeypatch.setattr("prior.linear.sum_products", None)
    monkeypatch.setattr("pipelines.inference.quantization.sum_products", None)
    assert layer(many).shape == (FEW_ROWS + 1, 7)


def test_a_plain_call_is_a_plain_product():
    layer, x = Linear(32, 7), torch.randn(2, 32)
    assert torch.equal(layer(x), F.linear(x, layer.weight))
    by_column = x.t().contiguous().t()
    torch.testing.assert_close(sum_products(by_column, layer.weight), layer(x))
