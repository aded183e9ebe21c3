"""Describes a piece that was made, as ``Pipeline.__call__`` returns it."""

import torch
from torch import Tensor

from pipelines.inference.music_generator import MusicGenerator
from pipelines.music_output import MusicOutput, describe_call
from pipelines.serving.music_request import PieceFields
from prior.plan import Plan


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
