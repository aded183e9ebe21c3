"""The solver of the flow: closed forms, diffusers' scheduler, and schedulers that are refused."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from tiny_sampler import (
    CODEC,
    SIZES,
    Decay,
    random_decoder,
    random_window,
    sampler,
)

from decoder.diffusion_decoder import DiffusionDecoder
from decoder.sampler import FlowSampler


@pytest.mark.parametrize("num_steps", range(1, 17))
def test_standing_still_leaves_noise_of_the_details_size_whatever_the_steps(num_steps):
    window = random_window()
    decoder = DiffusionDecoder(**SIZES, detail_std=0.2, noise_temperature=0.5)
    solved = sampler(decoder).solve(window, num_steps)
    assert torch.allclose(solved, window.coarse + 0.1 * window.noise, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 11, 16])
def test_euler_on_a_linear_field(num_steps):
    window = random_window()
    solved = sampler(Decay(**SIZES, detail_std=0.5)).solve(window, num_steps)
    left = (1 - math.pi / 2 / num_steps) ** num_steps
    assert torch.allclose(solved, window.coarse + 0.5 * left * window.noise, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_turns_reach_a_detail_that_is_known_exactly(num_steps):
    window = random_window()
    detail = torch.randn(window.noise.shape, generator=torch.Generator().manual_seed(1))

    class KnowsDetail(DiffusionDecoder):
        def forward(self, point, angle, coarse, latents, num_books, positions=None):
            return (angle.cos() * point - detail) / angle.sin()

    expected = window.coarse + 0.5 * detail
    decoders = {turns: KnowsDetail(**SIZES, detail_std=0.5, turns=turns) for turns in (True, False)}
    solved = {
        turns: sampler(decoder).solve(window, num_steps) for turns, decoder in decoders.items()
    }
    assert torch.allclose(solved[True], expected, atol=1e-5)
    assert not torch.allclose(solved[False], expected, atol=0.1)


def test_the_error_falls_with_the_steps():
    """First order: about half the error at twice the steps."""
    window = random_window()
    exact = window.coarse + 0.5 * window.noise * math.exp(-math.pi / 2)
    errors = [
        float((sampler(Decay(**SIZES, detail_std=0.5)).solve(window, steps) - exact).abs().mean())
        for steps in (8, 16)
    ]
    assert 1.8 < errors[0] / errors[1] < 2.3, errors


@torch.no_grad()
def test_normal_data_keep_their_variance():
    """The ideal field of normal data of unit variance is zero: noise stays as large as the detail.

    Euler on the straight path would leave half the deviation after two steps.
    """
    window = random_window(frames=40)
    solved = sampler(DiffusionDecoder(**SIZES, detail_std=0.5)).solve(window, 2)
    assert float((solved - window.coarse).std()) == pytest.approx(0.5, rel=0.02)


def test_the_angle_given_to_the_network_runs_from_noise_to_the_detail():
    seen = []

    class Watch(DiffusionDecoder):
        def forward(self, point, angle, coarse, latents, num_books, positions=None):
            seen.append((angle.tolist(), num_books.tolist()))
            return coarse

    sampler(Watch(**SIZES)).solve(random_window(), 4)
    angles = [angle for angle, _ in seen]
    assert angles == [[pytest.approx(math.pi / 2 * (4 - step) / 4)] for step in range(4)]
    assert all(books == [3] for _, books in seen)


@pytest.mark.parametrize("num_steps", [1, 4, 7, 16])
@torch.no_grad()
def test_it_solves_as_diffusers_scheduler_does_to_the_bit(num_steps):
    window, decoder = random_window(), random_decoder()
    scheduler = FlowMatchEulerDiscreteScheduler()
    angles = [math.pi / 2 * (1 - step / num_steps) for step in range(num_steps)]
    scheduler.set_timesteps(sigmas=angles)
    x, books = decoder.config.noise_temperature * window.noise, torch.full((1,), 3)
    for timestep, angle in zip(scheduler.timesteps, angles, strict=True):
        at = torch.full((1,), angle)
        velocity = decoder(x, at, window.coarse, window.latents, books)
        x = scheduler.step(velocity, timestep, x, return_dict=False)[0]
    expected = window.coarse + decoder.config.detail_std * x
    assert torch.equal(sampler(decoder).solve(window, num_steps), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"shift": 3.0},
        {"use_dynamic_shifting": True},
        {"shift_terminal": 0.1},
        {"invert_sigmas": True},
        {"stochastic_sampling": True},
        {"use_karras_sigmas": True},
    ],
)
def test_a_scheduler_that_would_take_other_steps_is_refused(options):
    """The network would be asked at other angles than those at which the solver stands."""
    (name,) = options
    with pytest.raises(ValueError, match=f"the scheduler's {name} must be .*, got {options[name]}"):
        FlowSampler(CODEC, random_decoder(), FlowMatchEulerDiscreteScheduler(**options))


def test_a_shift_set_later_and_a_scheduler_of_another_kind_are_refused():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_shift(3.0)
    with pytest.raises(ValueError, match=r"the scheduler's shift must be 1\.0, got 3\.0"):
        FlowSampler(CODEC, random_decoder(), scheduler)
    with pytest.raises(ValueError, match="must be a FlowMatchEulerDiscreteScheduler, got DDIM"):
        FlowSampler(CODEC, random_decoder(), DDIMScheduler())
