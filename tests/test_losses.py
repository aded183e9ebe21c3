"""The codec's losses against plain loops, and the discriminator's shapes."""

import pytest
import torch

from codec.discriminator import PatchDiscriminator
from codec.losses import discriminator_hinge, generator_hinge, movement_loss, spectrogram_loss

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
