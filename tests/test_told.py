"""What every frame is told: read block by block, it is what the whole says."""

import pytest
import torch

from prior.plan import PLAN_WIDTH
from prior.plan_reader import PlanReader
from prior.told import BLOCK_FRAMES, Told

FRAMES = 2 * BLOCK_FRAMES + 7


def a_plan(frames: int) -> torch.Tensor:
    return torch.rand(2, frames, PLAN_WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def reader() -> PlanReader:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PlanReader(8).requires_grad_(False)


@pytest.mark.parametrize("planned", [FRAMES, BLOCK_FRAMES + 1, 3])
def test_one_frame_after_the_other_is_told_what_the_whole_says(reader: PlanReader, planned: int):
    told = Told(torch.ones(2, 1, 8), a_plan(planned), reader)
    whole = told.frames(0, FRAMES)
    assert whole.shape == (2, FRAMES, 8)
    single = torch.stack([told.frame(frame) for frame in range(FRAMES)], dim=1)
    torch.testing.assert_close(single, whole)
    nothing = Told(torch.ones(2, 1, 8), None, reader)
    torch.testing.assert_close(whole[:, planned:], nothing.summary.expand(2, FRAMES - planned, 8))
    assert not torch.allclose(whole[:, 0], nothing.frame(0))


def test_a_long_plan_is_read_a_block_at_a_time(reader: PlanReader):
    lengths = []
    reader.register_forward_hook(lambda _, given, out: lengths.append(out.shape[1]))
    told = Told(torch.ones(2, 1, 8), a_plan(FRAMES), reader)
    for frame in range(BLOCK_FRAMES + 1):
        told.frame(frame)
    assert lengths == [BLOCK_FRAMES, BLOCK_FRAMES]


def test_without_a_reader_every_frame_is_told_the_text_alone():
    told = Told(torch.full((2, 1, 8), 3.0), None, None)
    assert told.frames(0, 5).shape == (2, 1, 8)
    assert torch.equal(told.frame(BLOCK_FRAMES + 5), torch.full((2, 8), 3.0))
