"""Takes that are made from other takes: continued, filled in, varied, looped."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.music_output import MusicOutput
from pipelines.rendering.edit_files import edit_file
from pipelines.serving.music_request import EditRequest, draw_seed
from pipelines.serving.shelf import Shelf

if TYPE_CHECKING:
    from pipelines.inference.music_generator import MusicGenerator


def edit_take(
    pipeline: "MusicGenerator", shelf: Shelf, request: EditRequest, between: Callable[..., None]
) -> MusicOutput:
    """Make the piece; ``between`` is called after every frame."""
    names = {"seed", "negative_prompt", "guidance", "temperature", "num_inference_steps", "plan"}
    options: dict[str, Any] = request.model_dump(include=names, exclude_none=True)
    options |= request.plan_fields() | {"callback_on_step_end": between}
    if request.edit == "loop":
        return pipeline.loop(request.prompt or "", request.bars, **options)
    stretches: dict[str, dict[str, Any]] = {
        "extend": {"add_s": request.add_s},
        "inpaint": {"spans_s": request.spans_s},
        "vary": {"strength": request.strength},
    }
    made_here = shelf.facts(request.take)["seed"] is not None
    path = shelf.file(request.take, "safetensors" if made_here else "wav")
    return edit_file(pipeline, path, stretches[request.edit], options, request.prompt)


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
