"""Makes takes from other takes: continued, filled in, varied, looped."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from codec.audio_file import read_audio
from codec.spectral_codec import SpectralCodec
from pipelines.inference.edit_source import EditSource, open_audio_to_edit
from pipelines.inference.editing import Editor
from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.plan_schema import read_plan
from pipelines.inference.token_file import check_tokens, load_tokens
from pipelines.music_output import MusicOutput
from pipelines.serving.music_request import EditRequest, draw_seed
from pipelines.serving.shelf import Shelf

WINDOW_FRAMES = 256  # token frames encoded at once, while streams wait


def edit_take(
    pipeline: MusicGenerator, shelf: Shelf, request: EditRequest, between: Callable[..., None]
) -> MusicOutput:
    """Make the piece; ``between`` is called after every frame and every piece of a decode."""
    pipeline = with_breaks(pipeline, between)
    names = {"seed", "negative_prompt", "guidance", "temperature", "num_inference_steps", "plan"}
    options: dict[str, Any] = request.model_dump(include=names, exclude_none=True)
    options |= request.plan_fields() | {"callback_on_step_end": between}
    if request.edit == "loop":
        return pipeline.loop(request.prompt or "", request.bars, **options)
    options["prompt"] = request.prompt
    source = open_take(pipeline, shelf, request.take)
    editor = Editor(pipeline, source, options)  # type: ignore[arg-type]
    if request.edit == "extend":
        return editor.extend(request.add_s)
    if request.edit == "inpaint":
        return editor.inpaint(request.spans_s)
    return editor.vary(request.strength)


def open_take(pipeline: MusicGenerator, shelf: Shelf, id: str) -> EditSource:
    """Open a take with the samples on the shelf, so that nothing is decoded or estimated."""
    tokens = load_tokens(shelf.file(id, "safetensors"))
    check_tokens(tokens, pipeline.codec, id)
    audio, settings = read_audio(shelf.file(id, "wav")).audio, tokens.settings
    plan = read_plan(settings["plan"]).completed(None, 0.0) if settings.get("plan") else None
    if "first_sample" in settings.get("edit", {}):  # a loop, whose codes begin a bar before it
        assert plan is not None
        plan = replace(plan, first_beat=plan.first_beat + plan.beats_per_bar)
        return open_audio_to_edit(pipeline, audio, plan)
    if tokens.seed is None:  # an uploaded file
        return EditSource(tokens.codes, audio, plan)
    steps = pipeline.check_steps(
        settings.get("num_inference_steps"), bool(settings.get("preview", False))
    )
    ending = settings.get("ending", "cut")
    sound = "edit" not in settings, tokens.decoder_seed, steps, ending
    return EditSource(tokens.codes, audio, plan, tokens.prompt, *sound)


def with_breaks(pipeline: MusicGenerator, between: Callable[[], None]) -> MusicGenerator:
    """Return a pipeline of the same parts that calls a function between the pieces of its work."""

    def decode_stream(*given: Any) -> Iterator[Tensor]:
        for piece in pipeline.decode_stream(*given):
            between()
            yield piece

    def encode(audio: Tensor) -> Tensor:
        codes = []
        for part in encode_windows(pipeline, audio):
            between()
            codes.append(part)
        return torch.cat(codes, dim=-1)

    patient = copy.copy(pipeline)
    patient.__dict__.update(decode_stream=decode_stream, encode=encode)
    return patient


def encode_windows(pipeline: MusicGenerator, audio: Tensor) -> Iterator[Tensor]:
    """Encode (B, C, S) audio a window at a time, with a codec that can."""
    if isinstance(pipeline.codec, SpectralCodec):
        return pipeline.codec.encode_stream([audio.to(pipeline.codec.device)], WINDOW_FRAMES)
    return iter([pipeline.encode(audio)])


def edit_fields(request: EditRequest, take: dict[str, Any]) -> dict[str, Any]:
    """Return what a job is written down with: the request with a seed, prompt, about how long."""
    prompt = request.prompt or take["prompt"]
    drawn: dict[str, Any] = {"prompt": prompt if request.edit == "loop" else request.prompt}
    drawn["seed"] = draw_seed() if request.seed is None else request.seed
    duration_s = take["duration_s"] + (request.add_s if request.edit == "extend" else 0.0)
    if request.edit == "loop":
        duration_s = request.bars * 4 * 60 / (request.bpm or 100.0)
    made_from = request.model_copy(update=drawn).model_dump(exclude={"id"})
    return {"prompt": prompt, "duration_s": duration_s, "request": made_from}
