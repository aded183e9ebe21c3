"""The clock replayed: a stream that computes at recorded speeds starts at once and is never late.

Every step of the real stream is run on a tiny pipeline whose window, overlap and reach are those of
the model that ships, and is charged CPU time: what fits a piece, its decoding and its first sound
as one thread of a Zen 1 EPYC, the slowest machine so far, took them; no time is measured here.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_pipeline import tiny_codec, tiny_pipeline

from pipelines import Pipeline
from pipelines.benchmarks.stream_latency import Arrival, costs, replay
from pipelines.inference.streaming import Stream

START_S = 0.113  # texts, plan and the first frame
FRAME_S = 0.0053
WINDOW_S, WINDOW_FRAME_S = 0.022, 0.0010
"""A window of n token frames in one step: 33 ms for 11, 150 for 128."""
BLOCK_S, BLOCK_FRAME_S = 0.005, 0.00006
"""A vocoder's block of n spectrogram frames: 7 ms for 32, 9 for 64."""


class Clock:
    """Seconds that the steps would have taken."""

    def __init__(self, slowness: float) -> None:
        self.now = 0.0
        self.slowness = slowness

    def charge(self, step: Callable[..., Any], cost: Callable[..., float]) -> Callable[..., Any]:
        """The same step, which also moves the clock."""

        def charged(*args: Any, **kwargs: Any) -> Any:
            self.now += self.slowness * cost(*args, **kwargs)
            return step(*args, **kwargs)

        return charged


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    made = tiny_pipeline()
    parts = {
        name: getattr(made, name)
        for name in ("tokenizer", "text_encoder", "prior", "decoder", "scheduler")
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = tiny_codec(decoder_layers=4, kernel_size=7, vocoder_iterations=1)
    assert codec.decoder_reach == 12
    return Pipeline(codec=codec, max_duration_s=30.0, **parts)


def recorded(stream: Stream, slowness: float = 1.0) -> list[Arrival]:
    """When each piece of a stream would have come."""
    clock = Clock(slowness)
    clock.now = slowness * START_S
    assert stream._parts is not None
    generator, (flow, vocoder, _) = stream._parts.generator, stream._parts.stages
    generator.next_frame = clock.charge(generator.next_frame, lambda *_: FRAME_S)
    sampler, griffin_lim = flow.sampler, vocoder.vocoder
    sampler.solve = clock.charge(
        sampler.solve, lambda window, steps: WINDOW_S + WINDOW_FRAME_S * window.latents.shape[1]
    )
    whole_block = griffin_lim.synthesize_block
    griffin_lim.synthesize_block = clock.charge(
        whole_block, lambda spectrogram, frames, *rest: BLOCK_S + BLOCK_FRAME_S * frames
    )
    try:
        return [
            Arrival(clock.now, clock.now, piece.shape[-1] / stream.sample_rate, 0)
            for piece in stream
        ]
    finally:
        griffin_lim.synthesize_block = whole_block


@pytest.mark.parametrize("duration_s", [1.0, 25.0])
def test_the_first_sound_comes_within_300_ms_and_nothing_is_late(pipeline, duration_s):
    heard = replay(recorded(pipeline.stream("a", duration_s, 0)))
    assert heard.first_sound_s < 0.3
    assert heard.underruns == 0
    assert heard.slack_s > 0.1


def test_a_machine_of_half_the_speed_is_not_late_either(pipeline):
    assert replay(recorded(pipeline.stream("a", 25.0, 0), slowness=2.0)).underruns == 0


def test_a_machine_that_is_too_slow_is_late(pipeline):
    heard = replay(recorded(pipeline.stream("a", 10.0, 0), slowness=8.0))
    assert heard.underruns > 3
    assert heard.slack_s < -0.5


def test_replay_counts_what_comes_too_late():
    arrivals = [Arrival(ready, 0.0, 1.0, 0) for ready in (0.5, 1.0, 2.4, 4.0, 4.2)]
    # played from .5, 1.5, 2.5, then 4.0 instead of 3.5, then 5.0
    assert replay(arrivals).underruns == 1
    assert replay(arrivals).slack_s == pytest.approx(-0.5)
    assert replay(arrivals).first_sound_s == 0.5
    assert replay(arrivals[:1]).underruns == 0


def test_costs_are_those_of_the_last_ten_seconds():
    """Audio in pieces of half a second: .1 s of work per second up to second 30, then .3."""
    arrivals, now = [], 0.0
    for index in range(240):
        now += 0.05 if index < 60 else 0.15
        arrivals.append(Arrival(now, now / 2, 0.5, index))
    rows = list(costs(arrivals))
    assert [row[0] for row in rows] == [20.0, 60.0, 120.0]
    assert [row[1] for row in rows] == pytest.approx([0.1, 0.3, 0.3])
    assert [row[2] for row in rows] == pytest.approx([0.05, 0.15, 0.15])
