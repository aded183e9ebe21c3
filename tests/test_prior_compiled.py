"""The compiled step, and what it reads so that its shapes stay."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_prior import BACKBONES, some_codes, some_text, tiny_prior

from pipelines.cli import main
from prior import Prior
from prior.attention import attend
from prior.generate import Writer, compiled_next_frame, generate
from prior.sampling import Sampling
from prior.state import Slots

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
both_backbones = pytest.mark.parametrize("backbone", BACKBONES)


@torch.inference_mode()
def steps(prior: Prior, num_frames: int, prompt_frames: int, slots: Slots) -> torch.Tensor:
    """(B, T, D) hidden states of single steps after a prompt."""
    codes, text = some_codes(prior, 2, prompt_frames + num_frames), some_text(2)
    state = prior.init_state(text, prompt_frames + num_frames + 1)
    state.slots = slots
    prior.prefill(codes[..., :prompt_frames], state)
    hidden = []
    for t in range(prompt_frames, prompt_frames + num_frames):
        place = state.place()
        assert slots != "all" or place.seen == state.capacity
        hidden.append(prior.decode_one_frame(codes[..., t], state).clone())
    return torch.stack(hidden, dim=1)


@both_backbones
@pytest.mark.parametrize("sliding_window", [None, 1, 4])
@pytest.mark.parametrize("prompt_frames", [0, 6])
@pytest.mark.parametrize("slots", ["growing", "all"])
def test_what_a_compiled_step_reads_changes_nothing(backbone, sliding_window, prompt_frames, slots):
    prior = tiny_prior(backbone, sliding_window=sliding_window)
    plain = steps(prior, 7, prompt_frames, "filled")
    torch.testing.assert_close(steps(prior, 7, prompt_frames, slots), plain, **CLOSE)


@pytest.mark.parametrize(
    ("num_queries", "causal", "masked"), [(1, False, False), (1, False, True), (3, True, False)]
)
def test_attention_written_out_is_the_library_s(
    num_queries: int, causal: bool, masked: bool, monkeypatch: pytest.MonkeyPatch
):
    generator = torch.Generator().manual_seed(0)
    shape = 2, 3, num_queries if causal else 7, 8
    query = torch.randn(2, 3, num_queries, 8, generator=generator)
    keys, values = torch.randn(2, *shape, generator=generator)
    mask = (torch.arange(7) < torch.tensor([[7], [2]]))[:, None, None] if masked else None
    expected = attend(query, keys, values, mask, causal=causal)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    written_out = attend(query, keys, values, mask, causal=causal)
    torch.testing.assert_close(written_out, expected)


@pytest.mark.slow
def test_the_compiled_step_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch):
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    prior = tiny_prior("transformer", sliding_window=4)
    sampling = Sampling(top_k=8, guidance=2.0)

    def written(num_frames: int, num_tokens: int, seed: int) -> list[torch.Tensor]:
        text = some_text(1, num_tokens)
        frames = generate(prior, text, None, num_frames, sampling, [seed])
        return [frame.codes.clone() for frame in frames]

    first, other = written(9, 5, seed=3), written(14, 11, seed=4)
    prior.compile_step()
    calls, compiled = [], compiled_next_frame("cpu")
    counted = lambda *arguments: calls.append(1) or compiled(*arguments)  # noqa: E731
    monkeypatch.setitem(Writer.__init__.__globals__, "compiled_next_frame", lambda _: counted)
    assert_same(written(9, 5, seed=3), first)
    assert len(calls) == 8  # all but the first frame, which comes from the prefill
    with torch.compiler.set_stance("fail_on_recompile"):  # another prompt, length and seed
        assert_same(written(14, 11, seed=4), other)
    assert not torch._dynamo.utils.counters["graph_break"]


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


def test_generate_compiles_when_told(
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
