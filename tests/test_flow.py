"""The flow's path, velocity and loss against closed forms and slow loops."""

import math

import pytest
import torch

from decoder.flow import SMALLEST_REMAINDER, flow_loss, logit_normal, path, velocity

SHAPE = (3, 2, 4, 8)


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return torch.randn(SHAPE, generator=draws), torch.randn(SHAPE, generator=draws)


def test_the_path_joins_its_ends(ends):
    start, clean = ends
    assert torch.equal(path(start, clean, torch.zeros(3)), start)
    assert torch.equal(path(start, clean, torch.ones(3)), clean)
    mixed = path(start, clean, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.allclose(mixed[1], 0.75 * start[1] + 0.25 * clean[1])


@pytest.mark.parametrize("t", [0.0, 0.3, 0.89, 0.9375, 0.99])
def test_the_velocity_leads_to_the_clean_end(ends, t):
    """Also behind 0.9, where a solver of more than ten steps takes its last."""
    start, clean = ends
    t = torch.full((3,), t)
    point = path(start, clean, t)
    arrived = point + velocity(clean, point, t) * (1 - t).view(-1, 1, 1, 1)
    assert torch.allclose(arrived, clean, atol=1e-5)


def test_the_velocity_is_the_derivative_of_the_path(ends):
    start, clean = ends
    t = torch.tensor([0.1, 0.5, 0.8])
    assert torch.allclose(velocity(clean, path(start, clean, t), t), clean - start, atol=1e-4)


def test_a_perfect_prediction_costs_nothing(ends):
    start, clean = ends
    assert flow_loss(lambda point, t: clean, start, clean, torch.tensor([0.0, 0.5, 1.0])) == 0


def test_the_loss_equals_a_plain_loop(ends):
    start, clean = ends
    times = torch.tensor([0.05, 0.6, 0.97])
    total = 0.0
    for row, t in enumerate(times.tolist()):
        for x0, x1 in zip(
            start[row].flatten().tolist(), clean[row].flatten().tolist(), strict=True
        ):
            predicted = math.tanh((1 - t) * x0 + t * x1)
            total += ((predicted - x1) / max(1 - t, SMALLEST_REMAINDER)) ** 2
    loss = flow_loss(lambda point, t: point.tanh(), start, clean, times)
    assert float(loss) == pytest.approx(total / start.numel(), rel=1e-4)


def test_the_loss_stays_finite_at_the_end(ends):
    start, clean = ends
    loss = flow_loss(lambda point, t: point + 0.1, start, clean, torch.ones(3))
    assert float(loss) == pytest.approx((0.1 / SMALLEST_REMAINDER) ** 2, rel=1e-4)


def test_the_loss_of_half_precision_is_summed_in_float32(ends):
    start, clean = ends
    t = torch.full((3,), 0.5)
    loss = flow_loss(lambda point, t: point.bfloat16(), start, clean, t)
    assert loss.dtype == torch.float32


def test_the_predictor_sees_the_point_on_the_path(ends):
    start, clean = ends
    times = torch.tensor([0.2, 0.5, 0.7])

    def predict(point, t):
        assert torch.equal(t, times)
        assert torch.equal(point, path(start, clean, times))
        return clean

    flow_loss(predict, start, clean, times)


def test_logit_normal_times():
    normal = torch.randn(20000, generator=torch.Generator().manual_seed(0))
    times = logit_normal(normal)
    assert 0 < times.min() < times.max() < 1
    assert float(times.median()) == pytest.approx(0.5, abs=0.01)
    assert float(((times > 0.25) & (times < 0.75)).float().mean()) == pytest.approx(0.728, abs=0.01)
    assert torch.equal(logit_normal(torch.zeros(2), mean=1.0), torch.full((2,), 1.0).sigmoid())
