"""A stream equals the offline call bit for bit, and can be steered, canceled and continued."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipeline import tiny_pipeline

from pipelines import Pipeline
from pipelines.inference.stream_state import StreamState
from pipelines.inference.streaming import Stream
from prior import ChordChange, Plan, Prior
from prior.plan_draft import PlanDraft

RATE = 44_100
DURATION_S = 2.1234


@pytest.fixture(scope="module")
def whole(pipeline: Pipeline) -> torch.Tensor:
    """(C, S), what every unchanged stream must give."""
    return pipeline("slow piano", DURATION_S, 3, ending="cut").audio[0]


def start(pipeline: Pipeline, **changes: Any) -> Stream:
    return pipeline.stream("slow piano", **({"duration_s": DURATION_S, "seed": 3} | changes))


def joined(stream: Stream) -> torch.Tensor:
    return torch.cat(list(stream), dim=-1)


# -- equality -------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_s", [None, 1 / RATE * 777, 0.1, 0.5, 60.0])
def test_the_stream_equals_the_call(pipeline, whole, chunk_s):
    chunks = list(start(pipeline, chunk_s=chunk_s))
    assert torch.equal(torch.cat(chunks, dim=-1), whole)
    if chunk_s is not None:
        lengths = [chunk.shape[-1] for chunk in chunks]
        assert set(lengths[:-1]) <= {round(chunk_s * RATE)}
        assert 0 < lengths[-1] <= round(chunk_s * RATE)


@pytest.mark.parametrize(
    "settings",
    [
        {"preview": True},
        {"num_inference_steps": 1, "decoder_seed": 8},
        {"guidance": 1.0, "temperature": 0.7, "top_k": 3, "top_p": 0.9},
        {"negative_prompt": "loud drums", "guidance": 5.0},
        {"plan": Plan(180.0, 3, tonic=7, mode="major", instruments=("oboe",), drums=True)},
        {"duration_s": 0.03},
        {"duration_s": 4.0},
    ],
)
def test_every_setting_is_the_calls(pipeline, settings):
    settings = {"duration_s": 1.0, "seed": 3} | settings
    expected = pipeline("slow piano", ending="cut", **settings)
    stream = start(pipeline, **settings)
    assert torch.equal(joined(stream), expected.audio[0])
    assert torch.equal(stream.codes, expected.codes)
    assert [stream.plan] == expected.plans


def test_no_codes_before_the_first_frame(pipeline):
    assert start(pipeline).codes.shape == (1, pipeline.prior.num_codebooks, 0)


@pytest.mark.parametrize("changes", [{"backbone": "lstm"}, {"sliding_window": 7}])
def test_other_priors(pipeline, changes):
    """An LSTM, and a cache that has come round."""
    other = with_prior(pipeline, **changes)
    expected = other("slow piano", DURATION_S, 3, ending="cut").audio[0]
    stream = start(other)
    heard = [next(stream), next(stream)]
    again = other.stream(state=stream.state())
    assert torch.equal(torch.cat([*heard, *stream], dim=-1), expected)
    assert torch.equal(torch.cat([*heard, *again], dim=-1), expected)


def with_prior(pipeline: Pipeline, **changes: Any) -> Pipeline:
    """The same pipeline with another prior of random weights."""
    torch.manual_seed(0)
    config = {name: value for name, value in pipeline.prior.config.items() if name[0] != "_"}
    prior = Prior(**(config | changes)).eval()
    parts = {
        name: getattr(pipeline, name)
        for name in ("tokenizer", "text_encoder", "codec", "decoder", "scheduler")
    }
    made = Pipeline(prior=prior, top_k=8, max_duration_s=20.0, **parts)
    made.set_progress_bar_config(disable=True)
    return made


def test_the_first_piece_comes_before_the_prior_is_done(pipeline):
    stream = start(pipeline, duration_s=20.0)
    piece = next(stream)
    assert 0.2 < piece.shape[-1] / RATE < 0.4
    assert stream.codes.shape[-1] <= 16 + pipeline.codec.decoder_reach + 1


def test_the_seed_is_drawn_and_told(pipeline):
    stream = start(pipeline, seed=None, duration_s=0.3)
    again = start(pipeline, seed=stream.piece.seed, duration_s=0.3)
    assert torch.equal(joined(stream), joined(again))


# -- steering -------------------------------------------------------------------------------


def test_steering_to_the_same_prompt_changes_nothing(pipeline, whole):
    stream = start(pipeline)
    first = next(stream)
    stream.steer("slow piano")
    assert torch.equal(torch.cat([first, joined(stream)], dim=-1), whole)


def test_steering_before_the_first_frame_is_the_other_prompt(pipeline):
    stream = start(pipeline, duration_s=1.0)
    stream.steer("fast drums")
    expected = pipeline("fast drums", 1.0, 3, ending="cut")
    assert torch.equal(joined(stream), expected.audio[0])


def test_a_new_prompt_counts_from_the_next_frame_on(pipeline):
    settings = {"guidance": 8.0, "duration_s": 3.0}
    plain = start(pipeline, **settings)
    joined(plain)
    stream = start(pipeline, **settings)
    next(stream)
    frame = stream.codes.shape[-1]
    stream.steer("fast drums", negative_prompt="strings")
    joined(stream)
    assert stream.prompts == [(0, "slow piano"), (frame, "fast drums")]
    assert torch.equal(stream.codes[..., :frame], plain.codes[..., :frame])
    assert not torch.equal(stream.codes, plain.codes)


def test_steering_refuses(pipeline):
    stream = start(pipeline, duration_s=1.0)
    with pytest.raises(ValueError, match="prompt must be a text that is not empty"):
        stream.steer(" ")
    with pytest.raises(ValueError, match="at most 64 tokens"):
        stream.steer("word " * 80)
    joined(stream)
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.steer("drums")


def test_nothing_is_left_to_steer_once_the_prior_is_done(pipeline):
    stream = start(pipeline, duration_s=1.0, chunk_s=0.2)
    assert stream._parts is not None
    while not stream._parts.stages[0].input.ended:  # the last window is decoded after that
        next(stream)
    assert stream.codes.shape[-1] == 25
    with pytest.raises(ValueError, match="nothing to steer"):
        stream.steer("drums")


# -- ending early ---------------------------------------------------------------------------


def test_cancelling_ends_the_stream(pipeline):
    stream = start(pipeline)
    next(stream)
    stream.cancel()
    stream.cancel()
    assert list(stream) == []
    assert stream.codes.shape[-1] > 0  # what was written can still be kept
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.state()


@pytest.mark.parametrize("how", ["cancel", "forget", "finish"])
def test_an_ended_stream_frees_what_it_held(pipeline, how):
    stream = start(pipeline, duration_s=1.0)
    next(stream)
    held = [weakref.ref(part) for part in stream._parts.with_state().values()]
    gc.disable()  # no cycles: counting references must do
    try:
        if how == "cancel":
            stream.cancel()
        elif how == "finish":
            joined(stream)
        else:
            del stream
        assert [ref() for ref in held] == [None] * len(held)
    finally:
        gc.enable()


# -- saved and continued --------------------------------------------------------------------


def stopped(stream: Stream, pieces: int) -> Stream:
    for _ in range(pieces):
        next(stream)
    return stream


@pytest.mark.parametrize("pieces", [0, 1, 2, 5, 9])
def test_a_continued_stream_never_stopped(pipeline, whole, pieces, tmp_path):
    stream = start(pipeline, chunk_s=0.2)
    heard = [next(stream) for _ in range(pieces)]
    stream.state().save(tmp_path / "state.safetensors")
    stream.cancel()
    again = pipeline.stream(state=StreamState.load(tmp_path / "state.safetensors"), chunk_s=0.37)
    assert torch.equal(torch.cat([*heard, *again], dim=-1), whole)
    assert again.codes.shape[-1] == 54
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_saving_changes_nothing(pipeline, whole):
    stream, pieces = start(pipeline), []
    for piece in stream:
        pieces.append(piece)
        if len(pieces) < 4:
            stream.state()
    assert torch.equal(torch.cat(pieces, dim=-1), whole)


def test_a_steered_stream_is_continued_with_its_new_prompt(pipeline):
    settings = {"guidance": 8.0, "negative_prompt": "strings"}
    streams = [start(pipeline, **settings) for _ in range(2)]
    for stream in streams:
        next(stream)
        stream.steer("fast drums")
    again = pipeline.stream(state=stopped(streams[1], 1).state())
    expected = torch.cat(list(streams[0])[1:], dim=-1)
    assert torch.equal(joined(again), expected)
    assert again.prompts == streams[0].prompts


def test_a_given_plan_is_steered_to_and_continued_with(pipeline, tmp_path: Path):
    plans = [Plan(tempo, 3, 7, "major", (ChordChange(0.0, 7, "major"),)) for tempo in (180.0, 90.0)]
    streams = [start(pipeline, guidance=8.0, plan=plans[0]) for _ in range(3)]
    for stream in streams:
        next(stream)
    for stream in streams[:2]:
        stream.steer("fast drums", plan=plans[1])
        stream.steer("slow waltz")
        assert stream.plan == plans[1]
    streams[1].state().save(tmp_path / "state.safetensors")
    again = pipeline.stream(state=StreamState.load(tmp_path / "state.safetensors"))
    assert again.plan == plans[1]
    assert again.piece.plan == PlanDraft.of(plans[1])
    expected = joined(streams[0])
    assert torch.equal(joined(again), expected)
    assert not torch.equal(joined(streams[2]), expected)


def test_a_planned_plan_is_planned_anew_for_another_prompt(pipeline):
    stream = start(pipeline)
    first = stream.plan
    stream.steer("fast drums")
    assert stream.plan == pipeline("fast drums", DURATION_S, 3, ending="cut").plans[0] != first
    assert pipeline.stream(state=stream.state()).plan == stream.plan


@pytest.mark.parametrize("preview", [True, False])
def test_the_state_is_bounded(pipeline, preview):
    """What the stages remember does not grow; the prior's part does, up to its window."""
    stream, sizes = start(pipeline, duration_s=20.0, preview=preview), []
    for _ in stream:
        tensors = stream.state().tensors
        sizes.append(sum(tensor.numel() for name, tensor in tensors.items() if name[:5] == "stage"))
    half = len(sizes) // 2
    assert half > 5
    assert max(sizes[half:]) < 1.8 * max(sizes[:half])  # a preview's windows still grow


def test_a_state_of_another_pipeline_is_refused(pipeline):
    state = stopped(start(pipeline), 1).state()
    other = tiny_pipeline(seed=1)
    with pytest.raises(ValueError, match="saved by another pipeline"):
        other.stream(state=state)


def test_other_arguments_beside_a_state_are_refused(pipeline):
    state = stopped(start(pipeline), 1).state()
    with pytest.raises(ValueError, match="seed cannot be changed when a state is continued"):
        pipeline.stream(state=state, seed=0)
    with pytest.raises(ValueError, match="prompt cannot be changed"):
        pipeline.stream("drums", state=state)


def test_damaged_states_are_refused(pipeline, tmp_path: Path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        StreamState.load(path)
    stopped(start(pipeline), 1).state().save(path)
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        StreamState.load(path)
    path.write_bytes(data.replace(b'"format_version":"3"', b'"format_version":"7"'))
    with pytest.raises(ValueError, match="format_version must be 3, got 7"):
        StreamState.load(path)
    path.write_bytes(data.replace(b'"format_version":"3"', b'"format_version":"1"'))  # of before
    with pytest.raises(ValueError, match="format_version must be 3, got 1"):
        StreamState.load(path)
    path.write_bytes(data.replace(b"temperature", b"temparature"))
    with pytest.raises(ValueError, match="metadata are damaged"):
        StreamState.load(path)
    path.write_bytes(data.replace(b"fingerprint", b"fingerpaint"))
    with pytest.raises(ValueError, match="metadata lack 'fingerprint'"):
        StreamState.load(path)


# -- mistakes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "prompt must be a text that is not empty"),
        ({"prompt": ["a", "b"]}, "prompt must be a text that is not empty"),
        ({"prompt": "word " * 80}, "at most 64 tokens"),
        ({"duration_s": 0.0}, r"duration_s must lie in \(0, 20\], got 0"),
        ({"duration_s": float("nan")}, "duration_s must lie in"),
        ({"num_inference_steps": 17}, r"num_inference_steps must lie in \[1, 16\]"),
        ({"temperature": -1.0}, "temperature"),
        ({"chunk_s": 0.0}, "chunk_s must hold at least one sample, got 0"),
        ({"chunk_s": float("inf")}, "chunk_s must hold at least one sample"),
    ],
)
def test_bad_arguments_are_named_at_the_call(pipeline, changes, message):
    with pytest.raises(ValueError, match=message):
        pipeline.stream(**({"prompt": "a", "duration_s": 1.0} | changes))


def test_a_steered_negative_prompt_stays(pipeline: Pipeline) -> None:
    stream = pipeline.stream("piano", 2.0, 1)
    stream.steer("waltz", "drums")
    stream.steer("organ")
    assert stream.piece.negative_prompt == "drums"
    assert stream.piece.prompt == "piano"
    assert list(pipeline.stream(state=stream.state()).prompts) == stream.prompts
