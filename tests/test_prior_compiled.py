"""The compiled step: what it reads so that its shapes stay, its sums, and its codes."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_prior import some_codes, some_text, tiny_prior
from torch import nn
from torch.nn import functional as F

from pipelines.cli import main
from pipelines.inference.quantization import Int8Linear
from prior import Prior, compiled
from prior.compiled import (
    FEW_ROWS,
    SumsForProducts,
    fix_shapes,
    lay_out_by_column,
    lay_out_by_row,
    masked_place,
    pad_text,
    sum_products,
)
from prior.frame_generator import FrameGenerator
from prior.sampling import Sampling


@torch.inference_mode()
def steps(prior: Prior, num_frames: int, prompt_frames: int, as_compiled: bool) -> torch.Tensor:
    """(B, T, D) hidden states of single steps after a prompt."""
    codes, text = some_codes(prior, 2, prompt_frames + num_frames), some_text(2)
    state = prior.init_state(
        pad_text(text) if as_compiled else text, prompt_frames + num_frames + 1
    )
    prior.prefill(codes[..., :prompt_frames], state)
    if as_compiled:
        fix_shapes(state, prior.config.sliding_window)
    hidden = []
    for t in range(prompt_frames, prompt_frames + num_frames):
        added, place = prior.advance(state)
        if as_compiled:
            place = masked_place(place, state.capacity)
        hidden.append(prior.step(codes[..., t], added, place, state).clone())
    return torch.stack(hidden, dim=1)


@pytest.mark.parametrize("sliding_window", [None, 1, 4, 40])
@pytest.mark.parametrize("prompt_frames", [0, 6])
def test_what_a_compiled_step_reads_changes_nothing(sliding_window, prompt_frames):
    prior = tiny_prior("transformer", sliding_window=sliding_window)
    plain = steps(prior, 7, prompt_frames, as_compiled=False)
    fixed = steps(prior, 7, prompt_frames, as_compiled=True)
    torch.testing.assert_close(fixed, plain, rtol=1e-4, atol=1e-4)
    with SumsForProducts():
        summed = steps(prior, 7, prompt_frames, as_compiled=True)
    torch.testing.assert_close(summed, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("num_queries", "causal", "masked"), [(1, False, False), (1, False, True), (3, True, False)]
)
def test_attention_as_sums_is_the_librarys(num_queries: int, causal: bool, masked: bool):
    generator = torch.Generator().manual_seed(0)
    shape = 2, 3, num_queries if causal else 7, 8
    query = torch.randn(2, 3, num_queries, 8, generator=generator)
    keys, values = torch.randn(2, *shape, generator=generator)
    mask = (torch.arange(7) < torch.tensor([[7], [2]]))[:, None, None] if masked else None
    expected = F.scaled_dot_product_attention(query, keys, values, mask, is_causal=causal)
    with SumsForProducts():
        summed = F.scaled_dot_product_attention(query, keys, values, mask, is_causal=causal)
    assert not torch.equal(summed, expected)  # rounded otherwise
    torch.testing.assert_close(summed, expected)


@pytest.mark.parametrize("shape", [(1, 32), (2, 32), (2, 3, 32), (FEW_ROWS, 32)])
@torch.no_grad()
def test_few_rows_are_summed_and_many_are_not(shape, monkeypatch):
    torch.manual_seed(0)
    layer, x = nn.Linear(32, 7, bias=False), torch.randn(shape)
    with SumsForProducts():
        summed = layer(x)
        many = torch.randn(FEW_ROWS + 1, 32)
        monkeypatch.setattr(compiled, "sum_products", None)
        assert layer(many).shape == (FEW_ROWS + 1, 7)
    assert not torch.equal(summed, layer(x))  # rounded otherwise
    torch.testing.assert_close(summed, layer(x))
    quantized = Int8Linear(layer)
    weight = quantized.weight.float() * quantized.scale.float()[:, None]
    eight_bits = sum_products(x, quantized.weight) * quantized.scale.float()
    torch.testing.assert_close(eight_bits, F.linear(x, weight))


@torch.no_grad()
def test_how_weights_are_stored_changes_no_value_and_no_file(tmp_path):
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


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_compiled_step_equals_the_plain_one(backend: str, monkeypatch: pytest.MonkeyPatch):
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    prior = tiny_prior("transformer", sliding_window=4)
    compiled.compiled.cache_clear()
    if backend == "eager":  # traces the step, then runs the trace as it is
        compile_ = torch.compile
        monkeypatch.setattr(torch, "compile", lambda step, **_: compile_(step, backend="eager"))
    sampling = Sampling(top_k=8, guidance=2.0)

    def written(num_frames: int, num_tokens: int, seed: int) -> list[torch.Tensor]:
        text = some_text(1, num_tokens)
        frames = FrameGenerator(prior, text, None, num_frames, sampling, [seed])
        return [frame.codes.clone() for frame in frames]

    first, other = written(9, 5, seed=3), written(14, 11, seed=4)
    prior.compile_step()
    counters = torch._dynamo.utils.counters
    counters.clear()
    assert_same(written(9, 5, seed=3), first)
    assert counters["stats"]["unique_graphs"] > 0
    with torch.compiler.set_stance("fail_on_recompile"):  # another prompt, length and seed
        assert_same(written(14, 11, seed=4), other)
    assert not counters["graph_break"]
    compiled.compiled.cache_clear()


def assert_same(codes: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(codes, expected, strict=True))


def test_a_compiler_that_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    prior = tiny_prior("transformer")
    with pytest.raises(FileNotFoundError, match=r"needs a C\+\+ compiler .* apt-get install g\+\+"):
        prior.compile_step()
    assert not prior.is_compiled


def test_an_lstm_is_not_compiled():
    with pytest.raises(ValueError, match="needs backbone='transformer', got 'lstm'"):
        tiny_prior("lstm").compile_step()


def test_generate_compiles_when_asked(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []
    monkeypatch.setattr(Prior, "compile_step", lambda prior: calls.append(prior))
    arguments = ["generate", "calm", "--duration", "0.4", "--pipeline", str(pipeline_folder)]
    arguments += ["--quiet", "--output", str(tmp_path / "song.wav")]
    assert main(arguments) == 0
    assert not calls
    assert main([*arguments, "--compile"]) == 0
    assert len(calls) == 1
