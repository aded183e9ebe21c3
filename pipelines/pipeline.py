"""Pipeline: a prompt in, music out; a citizen of diffusers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.pipelines import pipeline_loading_utils
from diffusers.pipelines.pipeline_utils import AudioPipelineOutput, DiffusionPipeline

from codec.whole_file import read_json_object, write_json, write_whole
from pipelines.inference.components import DEFAULTS, OPTIONAL, read_index, renew_origins
from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.saved_pipeline import load_saved, load_scheduler
from pipelines.inference.text import load_text_encoder
from pipelines.music_output import MusicOutput

METHODS = ["save_pretrained", "from_pretrained"]
# diffusers looks up here how components of a class are saved and loaded
pipeline_loading_utils.LOADABLE_CLASSES["codec.component"] = {"Component": METHODS}
pipeline_loading_utils.ALL_IMPORTABLE_CLASSES["Component"] = METHODS

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


@dataclass
class PipelineOutput(MusicOutput, AudioPipelineOutput):
    """What a call of a ``Pipeline`` returns: diffusers' output, by key and by place too."""


class Pipeline(DiffusionPipeline, MusicGenerator):
    """Text to music: text encoder, prior, diffusion decoder, vocoder.

    Generation, streaming and editing are ``MusicGenerator``'s, loading and saving diffusers';
    the arguments are those of ``PipelineParts``.
    """

    output_class = PipelineOutput
    _exclude_from_cpu_offload = ["prior", "planner", "codec"]  # noqa: RUF012  (from layer by layer)
    model_cpu_offload_seq = "text_encoder->planner->prior->decoder->codec"
    _optional_components = list(OPTIONAL)  # noqa: RUF012  (diffusers' name and type)

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> "Pipeline":
        """Load a saved pipeline from a folder, or from the hub.

        Args:
            path: a folder, a hub id, or "partita-tiny", the model that ships.
            **kwargs: components and stored defaults in place of those saved, ``torch_dtype``
                (float32 for codec and decoder), ``variant`` and ``HUB_OPTIONS`` of
                codec/component.py.

        Raises:
            FileNotFoundError: the folder is not a saved pipeline or lacks a file, or there is
                neither such a folder nor such a hub id.
            ValueError: a component is null, a stored default has the wrong type, a config or
                weights do not fit, or an option is not known.
        """
        return load_saved(cls, path, kwargs, load_text_encoder, load_scheduler)

    def save_pretrained(self, path: str | Path, **kwargs: Any) -> None:
        """Save every component as safetensors, with a model card, and upload all where asked to.

        A card with licenses and attributions is kept: diffusers would write an empty one over it.
        No component may be written as null.

        Raises:
            ValueError: LoRA adapters are in use, or an option is given by which the folder could
                not be loaded again.
        """
        if kwargs.get("max_shard_size") is not None:
            raise ValueError("save_pretrained of a pipeline takes no max_shard_size")
        if not kwargs.get("safe_serialization", True):
            raise ValueError("safe_serialization must be true: pickles are never loaded")
        if self.list_loras():
            raise ValueError("LoRA adapters are in use: fuse_lora() or unload_lora_weights() first")
        folder, push = Path(path), kwargs.pop("push_to_hub", False)
        hub = ("repo_id", "private", "token", "commit_message", "create_pr")
        upload = {name: kwargs.pop(name) for name in hub if name in kwargs}
        renew_origins(self)
        super().save_pretrained(str(folder), **kwargs)
        index = read_json_object(folder / "model_index.json")
        write_json(folder / "model_index.json", index | {"_class_name": ["pipeline", "Pipeline"]})
        write_whole(folder / "pipeline.py", CODE)
        card, origin = folder / "README.md", self.name_or_path
        if not card.is_file():
            loaded = Path(str(origin)) / "README.md"
            text = loaded.read_text("utf-8", "replace") if origin and loaded.is_file() else ""
            write_whole(card, text or CARD.format(name=folder.name.removeprefix(".partial-")))
        if push:
            self._push(folder, upload)
        read_index(folder)

    def _push(self, folder: Path, options: dict[str, Any]) -> None:
        from huggingface_hub import create_repo

        token, private = options.get("token"), options.pop("private", None)
        name = options.pop("repo_id", folder.name)
        repo = create_repo(name, exist_ok=True, private=private, token=token).repo_id
        self._upload_folder(str(folder), repo, **options)

    @classmethod
    def _dict_from_json_file(cls, json_file: str) -> dict[str, Any]:
        """Read a config; this class needs no code from the folder to find itself."""
        found = super()._dict_from_json_file(json_file)
        name = found.get("_class_name")
        return found | {"_class_name": name[-1] if isinstance(name, list) else name}

    @property
    def components(self) -> dict[str, Any]:
        """Parts and defaults by name: ``Pipeline(**pipeline.components)`` is the same pipeline."""
        return {**super().components, **{name: self.config[name] for name in DEFAULTS}}
