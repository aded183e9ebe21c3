"""Open files to be edited: token files as they are, other audio with an estimated plan."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile

from codec.audio_file import read_audio
from pipelines.evaluation.plan_estimation import estimate_plan
from pipelines.inference.edit_source import EditSource, open_audio_to_edit, open_to_edit
from pipelines.inference.editing import Editor
from pipelines.inference.plan_schema import FLAG_FIELDS, PlanSource, draft_plan
from pipelines.inference.token_file import load_tokens

if TYPE_CHECKING:
    from pipelines.inference.music_generator import MusicGenerator
    from pipelines.music_output import MusicOutput


def open_file_to_edit(
    pipeline: "MusicGenerator", path: str | Path, plan: PlanSource, fields: Mapping[str, Any]
) -> EditSource:
    """Open a token file, or encode an audio file and estimate the plan that it follows.

    Args:
        pipeline: that edits.
        path: ``.safetensors``, or audio of any rate and channels.
        plan: what is known of the source's plan, or is to be followed in the new stretch.
        fields: of the plan's schema, before those of ``plan``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither, silent, too long, or without a beat.
    """
    seconds = source_duration(Path(path))
    pipeline.num_frames(seconds)  # refuses what is too long before it is read
    if Path(path).suffix == ".safetensors":
        source = open_to_edit(pipeline, path)
    else:
        codec = pipeline.codec
        clip = read_audio(path, sample_rate=codec.sample_rate, channels=codec.channels)
        source = open_audio_to_edit(pipeline, clip.audio, None)
    if source.plan is not None:
        return source
    found = estimate_plan(source.audio, pipeline.codec.sample_rate, draft_plan(plan, fields))
    warnings.warn(f"found in {path}: {found}; options go before what is found", stacklevel=2)
    return replace(source, plan=found)


def source_duration(path: Path) -> float:
    """Length of a token file's or an audio file's sound (s)."""
    if path.suffix == ".safetensors":
        return load_tokens(path).duration_s
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return soundfile.info(path).duration
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is not audio: {error.error_string}") from error


def edit_file(
    pipeline: "MusicGenerator",
    path: str | Path,
    stretch: dict[str, Any],
    options: dict[str, Any],
    prompt: str | None = None,
) -> "MusicOutput":
    """Edit a file.

    Args:
        pipeline: that edits.
        path: see :func:`open_file_to_edit`.
        stretch: ``add_s``, ``spans_s`` or ``strength``: which edit, and where.
        options: see ``inference.editing.EditOptions``.
        prompt: for what is new; None takes the source's.
    """
    fields = {name: options[name] for name in FLAG_FIELDS if name in options}
    source = open_file_to_edit(pipeline, path, options.get("plan"), fields)
    editor = Editor(pipeline, source, {**options, "prompt": prompt})  # type: ignore[typeddict-item]
    (name,) = stretch
    edits = {"add_s": editor.extend, "spans_s": editor.inpaint, "strength": editor.vary}
    return edits[name](stretch[name])  # type: ignore[operator]
