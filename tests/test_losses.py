"""The codec's losses against plain loops, and the discriminator's shapes."""

import math

import pytest
import torch

from codec.discriminator import PatchDiscriminator
from codec.losses import (
    SPANS,
    TILES,
    band_weights,
    discriminator_hinge,
    energy_loss,
    generator_hinge,
    movement_loss,
    spectrogram_loss,
    sustained_loss,
)

SHAPE = (2, 2, 5, 8)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return torch.randn(SHAPE, generator=draws), torch.randn(SHAPE, generator=draws)


def test_the_spectrogram_loss_is_the_mean_error_in_nats():
    decoded, target = pair()
    total = sum(abs(a - b) for a, b in zip(decoded.flatten(), target.flatten(), strict=True))
    assert spectrogram_loss(decoded, target) == pytest.approx(float(total) / decoded.numel())
    assert spectrogram_loss(target + 0.25, target) == pytest.approx(0.25, rel=1e-5)
    assert spectrogram_loss(target, target) == 0


def test_band_weights_are_one_on_average_and_weigh_low_bands_more():
    weights = band_weights(torch.tensor([100.0, 799.0, 800.0, 5000.0]), 3.0)
    assert weights[:, 0].tolist() == pytest.approx([1.5, 1.5, 0.5, 0.5])
    decoded, target = pair()
    error = (decoded - target).abs()[:, :, 3].mean()
    only = torch.tensor([0.0, 0.0, 0.0, 5.0, 0.0])[:, None]
    assert spectrogram_loss(decoded, target, only) == pytest.approx(float(error), rel=1e-5)


def test_the_sustained_loss_sees_errors_that_last():
    target = torch.randn(1, 1, 4, 64, generator=torch.Generator().manual_seed(0))
    alternating = target + torch.tensor([0.5, -0.5]).repeat(32)
    assert sustained_loss(alternating, target) == pytest.approx(0, abs=1e-6)
    assert sustained_loss(target - 0.5, target) == pytest.approx(0.5, rel=1e-5)
    late = target.clone()
    late[..., 32:] += 1.0  # half of the frames, each span: 0, a mixed one, and 1 in the second half
    means = []
    for span in SPANS:
        starts = range(0, 64 - span + 1, span // 2)
        means.append(
            sum(
                max(0, start + span - 32) / span
                for start in starts
                if start + span > 32 and start < 32
            )
            + sum(start >= 32 for start in starts)
        )
        means[-1] /= len(starts)
    assert sustained_loss(late, target) == pytest.approx(sum(means) / 2, rel=1e-4)


def test_the_sustained_loss_hears_loud_bands():
    target = torch.zeros(1, 1, 5, 32)
    target[:, :, 0] = 2.0  # nats above the four others, so that it weighs e times as much
    losses = [sustained_loss(target + torch.eye(5)[band][:, None], target) for band in range(5)]
    assert float(losses[0] / losses[1]) == pytest.approx(math.e, rel=1e-5)
    assert float(sum(losses)) == pytest.approx(1.0, rel=1e-5)


def test_the_movement_loss_sees_changes_only():
    decoded, target = pair()
    total = sum(
        float(
            ((decoded[..., f + 1] - decoded[..., f]) - (target[..., f + 1] - target[..., f]))
            .abs()
            .mean()
        )
        for f in range(7)
    )
    assert movement_loss(decoded, target) == pytest.approx(total / 7, rel=1e-5)
    assert movement_loss(target + 3.0, target) == pytest.approx(0, abs=1e-6)


def test_the_energy_loss_is_the_error_of_the_power_of_tiles():
    draws = torch.Generator().manual_seed(0)
    decoded, target = (torch.randn(1, 2, 16, 24, generator=draws) for _ in range(2))

    def power(levels: torch.Tensor, channel: int, band: int, frame: int, size: int) -> float:
        tile = levels[0, channel, band : band + size, frame : frame + size]
        return float((2 * tile).exp().mean().log() / 2)

    means = []
    for size in TILES:
        starts = [range(0, length - size + 1, size // 2) for length in (16, 24)]
        places = [(c, m, f, size) for c in range(2) for m in starts[0] for f in starts[1]]
        errors = [abs(power(decoded, *place) - power(target, *place)) for place in places]
        means.append(sum(errors) / len(errors))
    assert energy_loss(decoded, target) == pytest.approx(sum(means) / len(TILES), rel=1e-4)
    assert energy_loss(target + 0.25, target) == pytest.approx(0.25, rel=1e-4)


def test_the_energy_loss_prefers_a_partial_in_the_wrong_place_to_none():
    valley = torch.full((1, 1, 16, 16), -9.0)
    partial, beside = valley.clone(), valley.clone()
    partial[:, :, 5], beside[:, :, 6] = -3.0, -3.0
    assert spectrogram_loss(valley, partial) < spectrogram_loss(beside, partial)
    assert energy_loss(beside, partial) < energy_loss(valley, partial)


def test_hinges():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert discriminator_hinge(real, fake) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert discriminator_hinge(torch.tensor([1.0]), torch.tensor([-1.0])) == 0
    assert generator_hinge(fake) == pytest.approx(1 / 3)


def test_hinges_pull_in_opposite_directions():
    fake = torch.zeros(3, requires_grad=True)
    generator_hinge(fake).backward()
    wanted_by_codec = fake.grad
    assert wanted_by_codec is not None
    fake = torch.zeros(3, requires_grad=True)
    discriminator_hinge(torch.zeros(3), fake).backward()
    assert fake.grad is not None
    assert (wanted_by_codec * fake.grad < 0).all()


@pytest.mark.parametrize("frames", [1, 4, 9, 32])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_discriminator_scores_patches(frames, channels):
    discriminator = PatchDiscriminator(channels, width=4)
    scores = discriminator(torch.randn(2, channels, 16, frames))
    assert scores.shape == (2, 1, 2, -(-frames // 8))


def test_the_discriminator_learns_to_tell_noise_from_smooth():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(1, width=8, layers=2)
    optimizer = torch.optim.Adam(discriminator.parameters(), 3e-3)
    smooth = torch.randn(4, 1, 4, 8).repeat_interleave(4, -1).repeat_interleave(4, -2)
    rough = torch.randn(4, 1, 16, 32)
    for _ in range(80):
        optimizer.zero_grad()
        loss = discriminator_hinge(discriminator(smooth), discriminator(rough))
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3  # 2 at the start
