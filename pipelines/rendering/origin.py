"""Who renders: the pipeline's name, content hash and license, and the versions of the libraries."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline

PACKAGES = ("partita", "torch", "torchaudio", "diffusers", "transformers", "numpy", "soundfile")
WITHOUT_WEIGHTS = ("tokenizer", "scheduler")


@dataclass(frozen=True)
class Origin:
    """What the items of a job have in common.

    Attributes:
        path: from which a worker loads the pipeline: a folder or a hub id; "" for one that was
            built in memory.
        name: of the pipeline: the folder's, or the hub id.
        hash: of its configs, weights and vocabulary.
        license: of its weights, from the model card; "" where it says none.
        versions: names and versions of the libraries.
    """

    path: str
    name: str
    hash: str
    license: str
    versions: tuple[tuple[str, str], ...]


def describe_origin(pipeline: "Pipeline") -> Origin:
    """Hash a pipeline and read its card."""
    path = str(pipeline.name_or_path or "")
    folder = Path(path)
    is_folder = bool(path) and folder.is_dir()
    return Origin(
        path=str(folder.resolve()) if is_folder else path,
        name=folder.resolve().name if is_folder else path or "in memory",
        hash=hash_pipeline(pipeline),
        license=read_license(folder / "README.md") if is_folder else "",
        versions=tuple(library_versions()),
    )


def hash_pipeline(pipeline: "Pipeline") -> str:
    """BLAKE2b of every component's class, configuration and weights, and of the vocabulary.

    It does not depend on the device, nor on whether the pipeline was loaded or built.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, part in sorted(pipeline.components.items()):
        digest.update(json.dumps([name, type(part).__name__]).encode())
        if name == "tokenizer":
            digest.update(json.dumps(sorted(part.get_vocab().items())).encode())
        if name not in WITHOUT_WEIGHTS and part is not None:
            _update_with_weights(digest, part)
        if name != "tokenizer" and part is not None:
            digest.update(json.dumps(_config_of(part), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _config_of(part: Any) -> dict[str, Any]:
    """What was configured; a transformers config also holds where it came from."""
    if hasattr(part.config, "to_diff_dict"):
        left_out = {"transformers_version", "dtype", "torch_dtype", "architectures"}
        config = part.config.to_diff_dict()
        return {k: v for k, v in config.items() if k[0] != "_" and k not in left_out}
    return {key: value for key, value in part.config.items() if key[0] != "_"}


def _update_with_weights(digest: Any, part: nn.Module) -> None:
    for key, tensor in sorted(part.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes_of(tensor))


def _bytes_of(tensor: Tensor) -> Any:
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else b""


def read_license(card: Path) -> str:
    """The ``license`` of a model card's header, "" where there is none."""
    if not card.is_file():
        return ""
    header = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL)
    line = re.search(r"^license:\s*(.+)$", header[1], re.MULTILINE) if header else None
    return line[1].strip().strip("\"'") if line else ""


def library_versions() -> Iterator[tuple[str, str]]:
    """Names and versions of what the result depends on."""
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:  # partita itself, run from a checkout
            continue
