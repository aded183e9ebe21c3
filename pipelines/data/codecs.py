"""Codecs of any kind: load a saved one, and tell by its hash whether tokens are its own."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from codec.component import find_folder
from codec.protocols import Codec
from codec.whole_file import read_json_object

OLD_NAMES = {"NoteTokenizer": "NoteCodec"}
"""Earlier names of renamed classes, which hashes keep using."""
USER_CLASS = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*):(.+)")
"""``MODULE:CLASS:FOLDER``; a Windows path has one colon."""


def hash_codec(codec: Any) -> str:
    """Hash a codec's class, configuration and weights, except ``SOUND_PARTS`` and ``SOUND_KEYS``.

    Codecs with equal hashes (BLAKE2b) encode audio to equal codes, though they may decode better.
    Weights count as float32, in which they are loaded again whatever they were stored in. What
    earlier versions did not write counts only where it is not what they stood for.
    """
    digest = hashlib.blake2b(digest_size=16)
    config = {key: value for key, value in getattr(codec, "config", {}).items() if key[0] != "_"}
    for key in getattr(codec, "SOUND_KEYS", ()):
        config.pop(key, None)
    for key, value in getattr(codec, "added_keys", {}).items():
        if config.get(key) == value:
            config.pop(key, None)
    rates = [codec.sample_rate, codec.channels, codec.num_codebooks, codec.codebook_size]
    name = type(codec).__name__
    digest.update(json.dumps([OLD_NAMES.get(name, name), rates, config], default=str).encode())
    if isinstance(codec, nn.Module):
        hash_weights(digest, codec, getattr(codec, "SOUND_PARTS", ()))
    return digest.hexdigest()


def hash_weights(digest: Any, module: nn.Module, but: Sequence[str] = ()) -> None:
    """Add names and values of a module's tensors to a digest."""
    for name, tensor in sorted(module.state_dict().items()):
        if name.split(".")[0] in but:
            continue
        values = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())


def hash_module(module: nn.Module) -> str:
    """Hash the weights of a module, as float32."""
    digest = hashlib.blake2b(digest_size=16)
    hash_weights(digest, module)
    return digest.hexdigest()


def refuse_other_codec(found: str, codec: Any, what: str) -> None:
    """Raise ValueError unless ``found``, which ``what`` holds, is the codec's hash."""
    own = hash_codec(codec)
    if found != own:
        raise ValueError(
            f"{what} belongs to another codec: it was made with {found[:8]}, "
            f"this codec is {own[:8]}"
        )


def load_codec(place: str | Path) -> Codec:
    """Load a saved codec of any kind.

    Args:
        place: its folder or hub id, whose ``config.json`` names one of our classes, or
            ``MODULE:CLASS:FOLDER`` for a class of yours; the module is also looked for in the
            working directory.

    Raises:
        FileNotFoundError: there is no such folder or hub id.
        ValueError: the folder holds no such codec.
    """
    user = USER_CLASS.fullmatch(str(place))
    if user:
        return load_user_codec(*user.groups())
    import codec
    from pipelines.data.notes.note_tokenizer import NoteTokenizer

    place = find_folder(place, {})
    path = place / "config.json"
    if not path.is_file():
        raise ValueError(f"{place} is not a saved codec: config.json is missing")
    name = read_json_object(path).get("_class_name")
    if name in ("NoteTokenizer", OLD_NAMES["NoteTokenizer"]):
        return cast(Any, NoteTokenizer.from_pretrained(place))
    known = ("SpectralCodec", "EncodecCodec", "TransformersCodec", "NoteTokenizer")
    if name not in known:
        raise ValueError(
            f"{path}: a codec must be one of {', '.join(known)}, got {name!r} "
            "(a class of yours: MODULE:CLASS:FOLDER)"
        )
    return getattr(codec, name).from_pretrained(place).eval()


def import_user_module(module: str) -> ModuleType:
    """Import a module of the user's, which may lie in the working directory."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # at the end: nothing of ours or of Python is hidden
    return import_module(module)


def place_for_workers(place: str | Path) -> tuple[str, str]:
    """Return what ``load_codec`` takes on another process, wherever that works.

    Returns:
        The place, by absolute paths; and the folder that a class of yours is imported from, "" for
        a class of ours.
    """
    user = USER_CLASS.fullmatch(str(place))
    module, name, folder = user.groups() if user else ("", "", str(place))
    if Path(folder).exists():  # else it is a hub id
        folder = str(Path(folder).resolve())
    if not user:
        return folder, ""
    import_user_module(module)
    package = sys.modules[module.split(".")[0]]
    source = Path(package.__path__[0] if hasattr(package, "__path__") else str(package.__file__))
    return f"{module}:{name}:{folder}", str(source.resolve().parent)


def load_user_codec(module: str, name: str, folder: str) -> Codec:
    """Load a codec whose class the user wrote: a diffusers ``ModelMixin`` and ``ConfigMixin``."""
    try:
        cls = getattr(import_user_module(module), name)
        loaded = cls.from_pretrained(folder)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the codec class {module}:{name} cannot be loaded: {error}") from error
    codec: Any = loaded.eval() if isinstance(loaded, nn.Module) else loaded
    needed = ("sample_rate", "channels", "frame_rate", "num_codebooks", "codebook_size")
    missing = [item for item in (*needed, "encode", "decode") if not hasattr(codec, item)]
    if missing:
        raise ValueError(f"the codec class {module}:{name} lacks {missing[0]}")
    return cast(Codec, codec)
