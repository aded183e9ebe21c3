"""Eight-bit weights: the arithmetic of one layer, and a whole pipeline."""

from pathlib import Path

import pytest
import torch
from tiny_pipeline import tiny_pipeline
from torch import nn

from pipelines import Pipeline
from pipelines.cli import main
from pipelines.inference.quantization import Int8Linear, is_quantized, quantize_linear
from prior import Condition


def plain_product(layer: Int8Linear, x: torch.Tensor) -> torch.Tensor:
    """The same product in float64, of the same rounded weights and activations."""
    weight = layer.weight.double() * layer.scale.double()[:, None]
    return x.bfloat16().double() @ weight.T


@pytest.mark.parametrize("shape", [(1, 32), (2, 32), (3, 7, 32), (0, 32)])
def test_the_kernel_equals_a_plain_product(shape: tuple[int, ...]):
    torch.manual_seed(0)
    layer, x = Int8Linear(nn.Linear(32, 17, bias=False)), torch.randn(shape)
    y = layer(x)
    assert y.dtype == torch.float32
    assert y.shape == (*shape[:-1], 17)
    torch.testing.assert_close(y.double(), plain_product(layer, x), rtol=1e-2, atol=1e-2)


def test_weights_are_rounded_by_at_most_half_a_step():
    linear = nn.Linear(64, 9, bias=False)
    with torch.no_grad():
        linear.weight[3] = 0.0
        linear.weight[4] *= 1e4
    layer = Int8Linear(linear)
    restored = layer.weight.float() * layer.scale.float()[:, None]
    assert layer.weight.dtype == torch.int8
    # the largest of a row may be cut by the rounding of its scale, 1/256 of it
    error = (restored - linear.weight).abs() / layer.scale.float()[:, None]
    assert (error[linear.weight.abs() < 126 * layer.scale.float()[:, None]] <= 0.5001).all()
    assert error.max() < 1.01


def test_a_width_that_the_kernel_cannot_take_stays():
    model = nn.Sequential(nn.Linear(24, 32, bias=False), nn.Linear(32, 5, bias=False))
    quantize_linear(model, "int8")
    assert [type(layer) for layer in model] == [nn.Linear, Int8Linear]
    assert model(torch.randn(2, 24)).shape == (2, 5)


def to_quantize(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and module.bias is None


def test_a_quantized_prior_is_near_and_a_quarter_of_the_bytes():
    prior = tiny_pipeline().prior
    codes = torch.randint(0, 16, (2, 2, 9))
    text = Condition(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool))
    with torch.no_grad():
        exact = prior(codes, text).first_logits
        linear = sum(m.weight.nbytes for m in prior.modules() if to_quantize(m))
        quantize_linear(prior, "int8")
        near = prior(codes, text).first_logits
    assert (near - exact).norm() < 0.03 * exact.norm()
    assert not any(to_quantize(module) for module in prior.modules())
    layers = [module for module in prior.modules() if isinstance(module, Int8Linear)]
    assert sum(layer.weight.nbytes for layer in layers) * 4 == linear


def test_a_pipeline_loads_quantized_and_refuses_to_be_saved(pipeline_folder: Path, tmp_path: Path):
    pipeline = Pipeline.from_pretrained(pipeline_folder, quantize="int8")
    pipeline.set_progress_bar_config(disable=True)
    assert is_quantized(pipeline.prior)
    assert not is_quantized(Pipeline.from_pretrained(pipeline_folder).prior)
    song = pipeline("calm", duration_s=0.4, seed=1)
    assert torch.equal(song.codes, pipeline("calm", duration_s=0.4, seed=1).codes)
    with pytest.raises(ValueError, match="a quantized pipeline cannot be saved"):
        pipeline.save_pretrained(tmp_path)


def test_another_precision_is_an_error_before_anything_is_read():
    with pytest.raises(ValueError, match=r"quantize must be one of \['int8'\], got 'int3'"):
        Pipeline.from_pretrained("no-such-folder", quantize="int3")


def test_generate_takes_quantize(
    pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["generate", "calm", "--duration", "0.4", "--pipeline", str(pipeline_folder)]
    output = tmp_path / "song.wav"
    assert main([*arguments, "--quiet", "--quantize", "int8", "--output", str(output)]) == 0
    assert output.is_file()
    assert main([*arguments, "--quantize", "int4"]) == 2
    assert "invalid choice: 'int4'" in capsys.readouterr().err
