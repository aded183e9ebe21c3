"""Cache of measurements on disk, clip by clip, so that a stopped evaluation goes on."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codec.whole_file import whole_file, write_whole

FILE_NAME = "measurements.jsonl"
EMBEDDINGS_FOLDER = "embeddings"


class MeasurementCache:
    """Measurements by key in a JSON-lines file, embeddings as ``.npy`` files beside it.

    A key names everything that a result depends on; :func:`make_key` builds it. A line that a
    killed process left unfinished is dropped when the cache is opened.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / EMBEDDINGS_FOLDER).mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE_NAME
        self._entries = self._read()

    def get(self, key: str) -> dict[str, Any] | None:
        """Look an entry up; None where there is none."""
        return self._entries.get(key)

    def add(self, key: str, entry: dict[str, Any]) -> None:
        """Append an entry; it is on disk when this returns."""
        with self._path.open("a") as file:
            file.write(json.dumps({"key": key, "entry": entry}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._entries[key] = entry

    def get_vectors(self, key: str) -> np.ndarray | None:
        """Load embeddings; None where there are none."""
        path = self._vectors_path(key)
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def add_vectors(self, key: str, vectors: np.ndarray) -> None:
        """Write embeddings, whole or not at all."""
        with whole_file(self._vectors_path(key)) as partial:
            np.save(partial, vectors)

    def _vectors_path(self, key: str) -> Path:
        return self.folder / EMBEDDINGS_FOLDER / f"{key}.npy"

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self._path.is_file():
            return {}
        entries, whole = {}, []
        for line in self._path.read_text().splitlines(keepends=True):
            try:
                record = json.loads(line)
                entries[record["key"]] = record["entry"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
            whole.append(line if line.endswith("\n") else line + "\n")
        write_whole(self._path, "".join(whole))
        return entries


def make_key(*parts: object) -> str:
    """Hash the text of everything that a result depends on."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def audio_fingerprint(audio: Tensor) -> str:
    """Hash a clip's samples."""
    samples = audio.contiguous().numpy().tobytes()
    return hashlib.blake2b(samples, digest_size=16).hexdigest()


def module_fingerprint(module: nn.Module) -> str:
    """Hash a module's class, settings and weights; the hash changes when it is trained further."""
    digest = hashlib.blake2b(type(module).__qualname__.encode(), digest_size=16)
    config: Any = getattr(module, "config", {})
    items = config.to_dict() if hasattr(config, "to_dict") else dict(config)  # of transformers
    settings = {key: str(value) for key, value in items.items()}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
