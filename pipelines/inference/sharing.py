"""Saved pipelines that others can load and that say where they come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from codec.whole_file import read_json_object, write_json, write_whole

CODE = '''"""What ``DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)`` imports."""

from pipelines import Pipeline  # noqa: F401  (of `pip install partita`)
'''
CARD = """---
library_name: diffusers
pipeline_tag: text-to-audio
tags: [music, text-to-music]
---

# {name}

A text-to-music pipeline of Partita: `partita generate "a prompt" --pipeline DIR`.
"""


def save_with_card(
    pipeline: Any, save: Callable[..., None], folder: Path, options: dict[str, Any]
) -> None:
    """Save a pipeline with its model card, and upload both where that is asked for.

    ``save`` is diffusers' ``save_pretrained``, which would write an empty card over one with
    licenses and attributions; ``options`` are its own.
    """
    push = options.pop("push_to_hub", False)
    hub = ("repo_id", "private", "token", "commit_message", "create_pr")
    upload = {name: options.pop(name) for name in hub if name in options}
    save(str(folder), **options)
    index = read_json_object(folder / "model_index.json")
    write_json(folder / "model_index.json", index | {"_class_name": ["pipeline", "Pipeline"]})
    write_whole(folder / "pipeline.py", CODE)
    card, origin = folder / "README.md", pipeline.name_or_path
    if not card.is_file():
        loaded = Path(str(origin)) / "README.md"
        text = loaded.read_text("utf-8", "replace") if origin and loaded.is_file() else ""
        write_whole(card, text or CARD.format(name=folder.name.removeprefix(".partial-")))
    if push:
        from huggingface_hub import create_repo

        token, private = upload.get("token"), upload.pop("private", None)
        name = upload.pop("repo_id", folder.name)
        repo = create_repo(name, exist_ok=True, private=private, token=token).repo_id
        pipeline._upload_folder(str(folder), repo, **upload)
