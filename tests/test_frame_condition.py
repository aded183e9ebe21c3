"""What is added to every frame: read block by block, it equals the whole."""

import pytest
import torch

from prior.frame_condition import BLOCK_FRAMES, FrameCondition, PlanReader
from prior.plan import PLAN_WIDTH

FRAMES = 2 * BLOCK_FRAMES + 7


def a_plan(frames: int) -> torch.Tensor:
    return torch.rand(2, frames, PLAN_WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def reader() -> PlanReader:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PlanReader(8).requires_grad_(False)


@pytest.mark.parametrize("planned", [FRAMES, BLOCK_FRAMES + 1, 3])
def test_frame_by_frame_equals_the_whole(reader: PlanReader, planned: int):
    condition = FrameCondition(torch.ones(2, 1, 8), a_plan(planned), reader)
    whole = condition.frames(0, FRAMES)
    assert whole.shape == (2, FRAMES, 8)
    single = torch.stack([condition.frame(frame) for frame in range(FRAMES)], dim=1)
    torch.testing.assert_close(single, whole)
    nothing = FrameCondition(torch.ones(2, 1, 8), None, reader)
    torch.testing.assert_close(whole[:, planned:], nothing.summary.expand(2, FRAMES - planned, 8))
    assert not torch.allclose(whole[:, 0], nothing.frame(0))


def test_without_a_reader_every_frame_gets_the_text_alone():
    condition = FrameCondition(torch.full((2, 1, 8), 3.0), None, None)
    assert condition.frames(0, 5).shape == (2, 1, 8)
    assert torch.equal(condition.frame(BLOCK_FRAMES + 5), torch.full((2, 8), 3.0))
