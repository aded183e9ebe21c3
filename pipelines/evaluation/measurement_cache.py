"""Cache measurements on disk, clip by clip, so that a stopped evaluation goes on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from codec.whole_file import whole_file
from pipelines.data.codecs import hash_weights

FOLDER = "measurements"


class MeasurementCache:
    """Keeps measurements by key, a file each; arrays and what JSON can write may be among them.

    A key names everything that a result depends on; :func:`make_key` builds it. The files lie in
    the report's folder, which is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> dict[str, Any] | None:
        """Read an entry; None where there is none."""
        path = self._path(key)
        if not path.is_file():
            return None
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return json.loads(str(arrays.pop("json"))) | arrays

    def add(self, key: str, entry: dict[str, Any]) -> dict[str, Any]:
        """Write an entry, whole or not at all, and return it."""
        arrays: Any = {
            name: value for name, value in entry.items() if isinstance(value, np.ndarray)
        }
        text = json.dumps({name: value for name, value in entry.items() if name not in arrays})
        with whole_file(self._path(key)) as partial:
            np.savez(partial, json=np.array(text), **arrays)
        return entry

    def recall(self, key: str, measure: Callable[..., dict[str, Any]], *args: Any) -> Any:
        """Read an entry, or measure it (with ``args``) and write it down."""
        return self.get(key) or self.add(key, measure(*args))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


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
    hash_weights(digest, module)
    return digest.hexdigest()
