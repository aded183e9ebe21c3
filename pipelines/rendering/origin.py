"""Describe what renders: the pipeline's name, content hash and license, and libraries' versions."""

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from decoder.sampler import EULER, SavedScheduler
from pipelines.inference.bert import CONFIG_KEYS, FORMER_KEYS
from pipelines.inference.components import OPTIONAL, REQUIRED
from pipelines.inference.music_generator import MusicGenerator
from prior.model import Prior

PACKAGES = ("partita", "torch", "torchaudio", "diffusers", "transformers", "numpy", "soundfile")


@dataclass(frozen=True)
class Origin:
    """Hold what the items of a job have in common."""

    # from which a worker loads the pipeline: a folder or a hub id; "" for one that was built in
    # memory
    path: str
    name: str  # of the pipeline: the folder's, or the hub id
    hash: str  # of its configs, weights and vocabulary
    license: str  # of its weights, from the model card; "" where it says none
    versions: tuple[tuple[str, str], ...]  # names and versions of the libraries
    loras: tuple[tuple[str, float], ...] = ()  # file and strength of every LoRA adapter in use


def describe_origin(pipeline: MusicGenerator) -> Origin:
    """Hash a pipeline and read its card."""
    path = str(pipeline.name_or_path or "")
    folder = Path(path)
    is_folder = bool(path) and folder.is_dir()
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):  # partita itself, run from a checkout
            versions[package] = version(package)
    name, loras = folder.resolve().name if is_folder else path or "in memory", pipeline.list_loras()
    return Origin(
        path=str(folder.resolve()) if is_folder else path,
        name=" + ".join([name, *(f"{Path(lora).parent.name}:{s:g}" for lora, s in loras)]),
        hash=hash_pipeline(pipeline),
        license=read_license(folder / "README.md") if is_folder else "",
        versions=tuple(versions.items()),
        loras=loras,
    )


def hash_pipeline(pipeline: MusicGenerator) -> str:
    """Hash every component's class, configuration and weights, and the vocabulary (BLAKE2b).

    The hash does not depend on the device, nor on whether the pipeline was loaded or built.
    """
    digest = hashlib.blake2b(digest_size=16)
    parts = {name: getattr(pipeline, name) for name in (*REQUIRED, *OPTIONAL)}
    for name, part in sorted(parts.items()):
        digest.update(json.dumps([name, _class_of(part)]).encode())
        if name == "tokenizer":
            digest.update(json.dumps(sorted(part.get_vocab().items())).encode())
        elif part is not None:
            weights = part.state_dict() if name != "scheduler" else {}
            for key, tensor in sorted(weights.items()):
                digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
                flat = tensor.detach().cpu().contiguous().view(-1)
                digest.update(flat.view(torch.uint8).numpy() if flat.numel() else b"")
            config = _config_of(part)
            # part of both configs until the pipeline took it over; jobs of then can go on
            if name == "prior":
                config["fine_temperature"] = pipeline.config.fine_temperature
            elif name == "planner":
                config["fine_temperature"] = part.config.get("_fine_temperature", 1.0)
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _class_of(part: Any) -> str:
    """Return the class that a part is saved as."""
    if isinstance(part, SavedScheduler):
        return EULER
    return getattr(part, "saved_class", type(part).__name__)


def _config_of(part: Any) -> dict[str, Any]:
    """Return what was configured; a transformers config also holds where it came from."""
    config, left_out = part.config, set()
    if _class_of(part) == "BertModel":
        keys = filter(partial(hasattr, config), (*CONFIG_KEYS, *FORMER_KEYS))
        config = {key: getattr(config, key) for key in keys}
    elif hasattr(config, "to_diff_dict"):
        config = config.to_diff_dict()
        left_out = {"transformers_version", "dtype", "torch_dtype", "architectures"}
    # what earlier versions did not write changes nothing at the value that they stood for
    added = getattr(part, "added_keys", {}) if isinstance(part, Prior) else {}
    left_out |= {key for key, value in added.items() if config.get(key) == value}
    return {key: v for key, v in config.items() if key[0] != "_" and key not in left_out}


def read_license(card: Path) -> str:
    """Read the ``license`` of a model card's header, "" where there is none."""
    if not card.is_file():
        return ""
    header = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL)
    line = re.search(r"^license:\s*(.+)$", header[1], re.MULTILINE) if header else None
    return line[1].strip().strip("\"'") if line else ""
