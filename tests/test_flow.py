"""The flow's path, velocity and loss against closed forms and slow loops."""

import math

import pytest
import torch

from decoder.flow import (
    NOISE_ANGLE,
    energy_score,
    flow_loss,
    one_step_samples,
    path,
    uniform_angle,
    velocity,
)

SHAPE = (3, 2, 4, 8)
ANGLES = torch.tensor([0.1, 0.7, 1.5])


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return torch.randn(SHAPE, generator=draws), torch.randn(SHAPE, generator=draws)


def test_the_path_joins_its_ends(ends):
    noise, detail = ends
    assert torch.allclose(path(noise, detail, torch.full((3,), NOISE_ANGLE)), noise, atol=1e-6)
    assert torch.equal(path(noise, detail, torch.zeros(3)), detail)
    middle = path(noise, detail, torch.full((3,), math.pi / 6))
    assert torch.allclose(middle, 0.5 * noise + math.sqrt(0.75) * detail, atol=1e-6)


def test_the_velocity_is_the_derivative_of_the_path(ends):
    noise, detail = (end.double() for end in ends)
    angle, step = ANGLES.double(), 1e-5
    ahead, behind = path(noise, detail, angle + step), path(noise, detail, angle - step)
    assert torch.allclose(velocity(noise, detail, angle), (ahead - behind) / (2 * step), atol=1e-8)


def test_the_path_keeps_the_variance_of_normal_data():
    draws = torch.Generator().manual_seed(0)
    noise, detail = (torch.randn(3, 2, 64, 64, generator=draws) for _ in range(2))
    spread = path(noise, detail, ANGLES).std(dim=(1, 2, 3))
    assert torch.allclose(spread, torch.ones(3), atol=0.02)


def test_a_perfect_prediction_costs_nothing(ends):
    noise, detail = ends
    assert flow_loss(lambda *_: velocity(noise, detail, ANGLES), noise, detail, ANGLES) == 0


def test_the_loss_equals_a_plain_loop(ends):
    noise, detail = ends
    total = 0.0
    for row, angle in enumerate(ANGLES.tolist()):
        pairs = zip(noise[row].flatten().tolist(), detail[row].flatten().tolist(), strict=True)
        for e, d in pairs:
            predicted = math.tanh(math.cos(angle) * d + math.sin(angle) * e)
            total += (predicted - (math.cos(angle) * e - math.sin(angle) * d)) ** 2
    loss = flow_loss(lambda point, angle: point.tanh(), noise, detail, ANGLES)
    assert float(loss) == pytest.approx(total / noise.numel(), rel=1e-4)


def test_the_loss_of_half_precision_is_summed_in_float32(ends):
    loss = flow_loss(lambda point, angle: point.bfloat16(), *ends, ANGLES)
    assert loss.dtype == torch.float32


def test_the_predictor_sees_the_point_on_the_path(ends):
    noise, detail = ends

    def predict(point, angle):
        assert torch.equal(angle, ANGLES)
        assert torch.equal(point, path(noise, detail, ANGLES))
        return detail

    flow_loss(predict, noise, detail, ANGLES)


@pytest.mark.parametrize("scale", [0, 0.7, 1.4])
def test_the_energy_score_is_least_for_the_targets_spread(scale: float):
    draws = torch.Generator().manual_seed(0)
    first, second, target = (torch.randn(8, 1, 32, 64, generator=draws) for _ in range(3))
    best = energy_score(first, second, target)
    assert best < energy_score(scale * first, scale * second, target) - 0.01


def test_the_energy_score_is_least_for_the_targets_movement():
    draws = torch.Generator().manual_seed(0)
    still = torch.randn(3, 64, 1, 32, 1, generator=draws).expand(-1, -1, -1, -1, 64)
    moving = torch.randn(2, 64, 1, 32, 64, generator=draws)
    assert energy_score(*still) < energy_score(*moving, still[2]) - 0.05


def test_the_energy_score_equals_a_plain_loop():
    draws = torch.Generator().manual_seed(0)
    first, second, target = (torch.randn(1, 1, 32, 32, generator=draws) for _ in range(3))
    misses = [(a - b)[0, 0] for a, b in ((first, target), (second, target), (first, second))]
    views = [[miss.tolist() for miss in misses]]
    for bands, frames in ((1, 8), (8, 1), (8, 8)):
        cells = [miss.unflatten(0, (-1, bands)).unflatten(2, (-1, frames)) for miss in misses]
        views.append([(cell.sum((1, 3)) / math.sqrt(bands * frames)).tolist() for cell in cells])
    views.append([(3 * (miss[:, 1:] - miss[:, :-1])).tolist() for miss in misses])
    scores = []
    for view in views:
        found = []
        for row in range(0, len(view[0]) - 3, 4):
            for column in range(0, len(view[0][0]) - 3, 4):
                norms = [
                    math.sqrt(
                        sum(x**2 for r in field[row : row + 4] for x in r[column : column + 4])
                    )
                    for field in view
                ]
                found.append((norms[0] + norms[1] - norms[2]) / 2 / 4)
        scores.append(sum(found) / len(found))
    assert float(energy_score(first, second, target)) == pytest.approx(sum(scores) / 5, rel=1e-4)


def test_the_second_sample_of_a_step_comes_from_the_other_noise():
    draws = torch.Generator().manual_seed(0)
    noise, other = torch.randn(2, 2, 1, 8, 16, generator=draws)
    samples = one_step_samples(lambda point, angle: point.tanh(), noise, other, turns=True)
    for sample, start in zip(samples, (noise, other), strict=True):
        assert torch.allclose(sample, -start.tanh(), atol=1e-6)


def test_samples_on_both_sides_of_the_mean_score_badly_where_the_noises_are_independent():
    """A noise that the other follows from lets a network place both where their score is least."""
    draws = torch.Generator().manual_seed(0)
    noise, other, detail = (torch.randn(64, 1, 16, 16, generator=draws) for _ in range(3))

    def far_out(point, angle):
        early, late = point.chunk(2, dim=-1)
        side = (early.sum((1, 2, 3)) - late.sum((1, 2, 3))).sign()
        return 100 * side[:, None, None, None] * torch.ones_like(point)

    def score(predict, other):
        return energy_score(*one_step_samples(predict, noise, other, turns=True), detail)

    at_the_mean = score(lambda point, angle: 0 * point, other)
    assert score(far_out, other) > 10 * at_the_mean
    assert score(far_out, noise.flip(-2, -1)) < at_the_mean


def test_normal_draws_give_uniform_angles():
    normal = torch.randn(20000, generator=torch.Generator().manual_seed(0))
    angles = uniform_angle(normal)
    assert 0 <= angles.min() < angles.max() <= NOISE_ANGLE
    quarters = torch.histc(angles / NOISE_ANGLE, bins=4, min=0, max=1) / len(angles)
    assert torch.allclose(quarters, torch.full((4,), 0.25), atol=0.01)
    assert float(uniform_angle(torch.zeros(()))) == pytest.approx(math.pi / 4)
