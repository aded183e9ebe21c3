"""Holds work that nobody listens to while it is made, and describes what came of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.inference.music_generator import MusicGenerator
from pipelines.music_output import MusicOutput, describe_call
from pipelines.serving.music_request import PieceFields, WholePiece
from prior.plan import Plan


@dataclass(eq=False)
class Work:
    """Holds a piece that nobody listens to while it is made."""

    fields: WholePiece  # what it is made from, with a seed
    take: Callable[[Tensor], None]  # takes each (C, s) piece of audio, in the computing thread
    # called at the end, or at an error, which is then in ``error``
    on_end: Callable[["Work"], None]
    on_start: Callable[["Work"], None] = lambda work: None  # called before the first frame
    progress: float = 0.0
    started: float | None = None
    canceled: bool = False
    alone: bool = False
    # makes the whole at once instead, from a function to be called between its steps
    edit: Callable[[Callable[..., None]], MusicOutput] | None = None
    song: MusicOutput | None = None  # what was made
    error: Exception | None = None

    def batch_key(self) -> tuple[object, ...]:
        """Return what the members of a batch have in common."""
        fields = self.fields
        sampling = (fields.guidance, fields.temperature, fields.top_k, fields.top_p)
        return (fields.duration_s, *sampling)


class CanceledError(Exception):
    """Ends an edit that nobody wants any more."""


def finish(work: Work) -> None:
    """Hand a job over, done, canceled or failed."""
    if work.song is not None and work.error is None and not work.canceled:
        work.progress = 1.0
    try:
        work.on_end(work)
    except Exception as error:  # a full disk, a deleted folder
        work.error = error
        work.on_end(work)


def describe_song(
    pipeline: MusicGenerator,
    fields: PieceFields,
    codes: Tensor,
    plan: Plan | None,
    num_samples: int,
) -> MusicOutput:
    """Describe a piece, made from fields with a seed, whose samples went elsewhere."""
    sampling = pipeline.sampling(fields.temperature, fields.top_k, fields.top_p, fields.guidance)
    steps = pipeline.check_steps(fields.num_inference_steps, fields.preview)
    call = [fields.prompt], fields.negative_prompt, fields.duration_s, sampling, steps
    seed = fields.seed or 0
    return MusicOutput(
        torch.empty(1, pipeline.channels, num_samples, device="meta"),
        pipeline.sample_rate,
        codes.cpu().long(),
        [seed],
        [seed if fields.decoder_seed is None else fields.decoder_seed],
        describe_call(*call, fields.preview),
        [plan],
    )
