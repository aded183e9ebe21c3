"""Edit token files, or audio with an estimated plan, and check the ``edit`` field of a row."""

import hashlib
import warnings
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile

from codec.audio_file import read_audio
from pipelines.evaluation.plan_estimation import estimate_plan
from pipelines.inference.edit_arguments import run_edit
from pipelines.inference.edit_source import EditSource, open_audio_to_edit, open_to_edit
from pipelines.inference.editing import Editor
from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.plan_schema import FLAG_FIELDS, PlanSource, draft_plan
from pipelines.inference.token_file import load_tokens
from pipelines.music_output import MusicOutput
from pipelines.rendering.item import RenderItem

EDITS = {"spans_s": ("from_s", "to_s"), "add_s": ("add_s",), "strength": ("strength",)}
"""For every argument of an edit, the names of its numbers in a row."""


def open_file_to_edit(
    pipeline: MusicGenerator, path: str | Path, plan: PlanSource, fields: Mapping[str, Any]
) -> EditSource:
    """Open a token file, or encode an audio file and estimate the plan that it follows.

    ``plan`` and, before it, ``fields`` say what is known of the source's plan, or is to be followed
    in the new stretch.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither, silent, too long, or without a beat.
    """
    seconds = source_duration(Path(path))
    pipeline.num_frames(seconds)  # refuses what is too long before it is read
    if Path(path).suffix == ".safetensors":
        source = open_to_edit(pipeline, path)
    else:
        sound = pipeline.sample_rate, pipeline.channels
        clip = read_audio(path, sample_rate=sound[0], channels=sound[1])
        source = open_audio_to_edit(pipeline, clip.audio, None)
    if source.plan is not None:
        return source
    found = estimate_plan(source.audio, pipeline.sample_rate, draft_plan(plan, fields))
    warnings.warn(f"found in {path}: {found}; options go before what is found", stacklevel=2)
    return replace(source, plan=found)


def source_duration(path: Path) -> float:
    """Measure the length of a token file's or an audio file's sound (s)."""
    if path.suffix == ".safetensors":
        return load_tokens(path).duration_s
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return soundfile.info(path).duration
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is not audio: {error.error_string}") from error


def edit_file(
    pipeline: MusicGenerator,
    path: str | Path,
    stretch: dict[str, Any],
    options: dict[str, Any],
    prompt: str | None = None,
) -> MusicOutput:
    """Edit a file (:func:`open_file_to_edit`); a ``prompt`` of None takes the source's.

    ``stretch`` is ``add_s``, ``spans_s`` or ``strength``: which edit, and where. ``options`` are
    ``inference.editing.EditOptions``.
    """
    fields = {name: options[name] for name in FLAG_FIELDS if name in options}
    source = open_file_to_edit(pipeline, path, options.get("plan"), fields)
    editor = Editor(pipeline, source, {**options, "prompt": prompt})  # type: ignore[typeddict-item]
    (name,) = stretch
    edits = {"add_s": editor.extend, "spans_s": editor.inpaint, "strength": editor.vary}
    return edits[name](stretch[name])  # type: ignore[operator]


def run_file_edit(args: Namespace, **stretch: Any) -> int:
    """Edit ``args.input`` as its command says, and write what comes of it."""
    return run_edit(
        args,
        lambda pipeline, options: edit_file(pipeline, args.input, stretch, options, args.prompt),
    )


def open_edit(item: RenderItem, row: dict[str, Any], folder: Path) -> RenderItem:
    """Check a row's edit and let the item be as long as what comes of it."""
    edit = row["edit"]
    if "codes" in row or "duration_s" in row:
        raise ValueError("an edit has its source's length, and no codes and duration_s beside it")
    if "ending" in row:
        raise ValueError("an edit has its source's ending, and no other beside it")
    if not isinstance(edit, dict) or not isinstance(edit.get("source"), str):
        raise ValueError(f"edit must be an object with a source, got {edit!r:.60}")
    if {*edit} - {"source"} not in [{*names} for names in EDITS.values()]:
        wanted = "; ".join(" and ".join(names) for names in EDITS.values())
        raise ValueError(f"edit must hold source and one of {wanted}, got {[*edit]}")
    for name, value in edit.items():
        if name != "source" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"edit: {name} must be a number, got {value!r:.40}")
    path = (folder / edit["source"]).resolve()
    seconds = source_duration(path)
    if "to_s" in edit and not 0 <= edit["from_s"] < edit["to_s"] <= seconds + 1e-9:
        raise ValueError(
            f"edit: from_s and to_s must lie in the {seconds:.2f} s of the source, in this order"
        )
    if not 0 < edit.get("strength", 1) <= 1 or not edit.get("add_s", 1) > 0:
        raise ValueError("edit: strength must lie in (0, 1], and add_s be positive")
    seconds += edit.get("add_s", 0)
    made, ending = {**edit, "sha256": hash_file(path)}, "cut"
    if path.suffix == ".safetensors" and "add_s" not in edit:
        ending = load_tokens(path).settings.get("ending", "cut")
    settings = replace(item.settings, duration_s=seconds, ending=ending, edit=made)
    return replace(item, settings=settings, source=str(path))


def hash_file(path: Path) -> str:
    """Hash a file (SHA-256), hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
