"""The compiled step and the fixed shapes that it needs."""

import shutil

import pytest
import torch
from tiny_prior import BACKBONES, some_codes, some_text, tiny_prior

from prior import Prior
from prior.generate import generate
from prior.sampling import Sampling

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
both_backbones = pytest.mark.parametrize("backbone", BACKBONES)


@torch.inference_mode()
def steps(prior: Prior, num_frames: int, prompt_frames: int, fixed_shapes: bool) -> torch.Tensor:
    """(B, T, D) hidden states of single steps after a prompt."""
    codes, text = some_codes(prior, 2, prompt_frames + num_frames), some_text(2)
    state = prior.init_state(text.states, text.mask, prompt_frames + num_frames + 1)
    state.fixed_shapes = fixed_shapes
    prior.prefill(codes[..., :prompt_frames], state)
    hidden = []
    for t in range(prompt_frames, prompt_frames + num_frames):
        place = state.place()
        assert not fixed_shapes or place.seen == state.capacity
        hidden.append(prior.decode_one_frame(codes[..., t], state).clone())
    return torch.stack(hidden, dim=1)


@both_backbones
@pytest.mark.parametrize("sliding_window", [None, 1, 4])
@pytest.mark.parametrize("prompt_frames", [0, 6])
def test_fixed_shapes_change_nothing(backbone, sliding_window, prompt_frames):
    prior = tiny_prior(backbone, sliding_window=sliding_window)
    plain = steps(prior, 7, prompt_frames, fixed_shapes=False)
    torch.testing.assert_close(steps(prior, 7, prompt_frames, fixed_shapes=True), plain, **CLOSE)


@pytest.mark.slow
def test_the_compiled_step_equals_the_plain_one():
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    prior = tiny_prior("transformer", sliding_window=4)
    plain, sampling = steps(prior, 7, 2, fixed_shapes=False), Sampling(top_k=8, guidance=2.0)
    codes = [frame.codes for frame in generate(prior, some_text(1), None, 9, sampling, [3])]
    prior.compile_step()
    calls = []
    compiled = prior._compiled_step
    prior._compiled_step = lambda *arguments: calls.append(1) or compiled(*arguments)
    torch.testing.assert_close(steps(prior, 7, 2, fixed_shapes=True), plain, **CLOSE)
    again = [frame.codes for frame in generate(prior, some_text(1), None, 9, sampling, [3])]
    assert all(torch.equal(one, other) for one, other in zip(codes, again, strict=True))
    assert len(calls) == 7 + 8


def test_an_lstm_is_not_compiled():
    with pytest.raises(ValueError, match="needs backbone='transformer', got 'lstm'"):
        tiny_prior("lstm").compile_step()
