"""Read token caches: the codes of every clip of a prepared dataset, made with one codec.

A cache holds ``{split}/shard-00000.arrow``..., one row per clip in the order of the dataset, and
``tokens.json``, written last, which identifies the codec.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from codec.component import find_folder
from codec.protocols import Codec
from codec.whole_file import read_json_object
from pipelines.data.prepared import check_split, read_info
from pipelines.data.shards import (
    as_arrow,
    evenly_spaced,
    is_remote,
    open_split,
    read_description,
    read_remote,
)

if TYPE_CHECKING:
    from datasets import Dataset

TOKENS_VERSION = 1
INFO_NAME = "tokens.json"
MAX_CODEBOOK_SIZE = 2**15
OLD_NAMES = {"NoteTokenizer": "NoteCodec"}
"""Earlier names of renamed classes, which hashes keep using."""
USER_CLASS = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*):(.+)")
"""``MODULE:CLASS:FOLDER``; a Windows path has one colon."""
KEPT_COLUMNS = ("id", "captions", "labels", "source", "is_end")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("labels", pa.string()),
        ("source", pa.string()),
        ("is_end", pa.bool_()),
        ("num_frames", pa.int32()),
        ("codes", pa.large_binary()),
    ]
)


@dataclass(frozen=True)
class TokenInfo:
    """Hold the content of ``tokens.json``.

    Attributes:
        format_version: ``TOKENS_VERSION``.
        codec_hash: from ``hash_codec``.
        frame_rate: token frames per second (Hz); None where frames are notes.
        prepared: hash of the prepared dataset's description.
        clips: number of clips in each split.
    """

    format_version: int
    codec_class: str
    codec_hash: str
    num_codebooks: int
    codebook_size: int
    frame_rate: float | None
    prepared: str
    clips: dict[str, int]

    @classmethod
    def of(cls, codec: Codec, prepared: str, clips: dict[str, int]) -> "TokenInfo":
        """Describe a cache that a codec makes."""
        return cls(
            TOKENS_VERSION,
            type(codec).__name__,
            hash_codec(codec),
            codec.num_codebooks,
            codec.codebook_size,
            codec.frame_rate,
            prepared,
            clips,
        )


def hash_codec(codec: Codec) -> str:
    """Hash a codec's class, configuration and weights, except ``SOUND_PARTS`` and ``SOUND_KEYS``.

    Codecs with equal hashes (BLAKE2b) encode audio to equal codes, though they may decode better.
    Weights count as float32, in which they are loaded again whatever they were stored in.
    """
    digest = hashlib.blake2b(digest_size=16)
    config = {key: value for key, value in getattr(codec, "config", {}).items() if key[0] != "_"}
    for key in getattr(codec, "SOUND_KEYS", ()):
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


def refuse_other_codec(found: str, codec: Codec, what: str) -> None:
    """Raise ValueError unless ``found``, which ``what`` holds, is the codec's hash."""
    own = hash_codec(codec)
    if found != own:
        raise ValueError(
            f"{what} belongs to another codec: it was made with {found[:8]}, "
            f"this codec is {own[:8]}"
        )


def hash_text(text: str) -> str:
    """Hash a text (BLAKE2b)."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def hash_prepared(folder: str | Path) -> str:
    """Hash the description of a prepared dataset."""
    return hash_text(json.dumps(read_info(folder), sort_keys=True))


def open_tokens(folder: str | Path, split: str = "train") -> "Dataset":
    """Open one split of a finished token cache, memory-mapped, with the columns of ``SCHEMA``.

    Raises:
        ValueError: the cache is unfinished, of another format, or has no clip in this split.
    """
    check_split(split)
    read_token_info(folder)
    return open_split(folder, split, "token cache")


def open_all_tokens(folders: list[str], split: str) -> "Dataset":
    """Open one split of several token caches as one; caches without the split are left out.

    Raises:
        ValueError: none of them has it, or they were made with different codecs.
    """
    from datasets import concatenate_datasets

    infos = read_token_infos(folders)
    having = [f for f, info in zip(folders, infos, strict=True) if split in info.clips]
    if not having:
        raise ValueError(f"none of the token caches {folders} has a split {split!r}")
    return concatenate_datasets([open_tokens(folder, split) for folder in having])


class TokenRows:
    """Find the rows of local caches as those of one."""

    def __init__(self, dataset: "Dataset") -> None:
        self.dataset = as_arrow(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def find(self, place: int) -> "tuple[Dataset, int]":
        """Return a dataset of Arrow tables, and the number of the row in it."""
        return self.dataset, place

    def spread(self, most: int) -> list[int]:
        """List up to ``most`` rows, evenly spaced."""
        return evenly_spaced(self.dataset, most)


def read_codes(dataset: "Dataset", index: int) -> Tensor:
    """Read the (K, T) int64 codes of one clip; ``codes[:k]`` are those of the first codebooks."""
    row = as_arrow(dataset)[index]
    codes = np.frombuffer(row["codes"][0].as_buffer(), dtype="<i2")
    return torch.from_numpy(codes.reshape(-1, row["num_frames"][0].as_py()).astype(np.int64))


def read_token_infos(folders: Sequence[str]) -> list[TokenInfo]:
    """Read ``tokens.json`` of caches that are to be used as one.

    Raises:
        ValueError: there is none, or they were made with different codecs.
    """
    if not folders:
        raise ValueError("tokens must name at least one folder")
    infos = [read_token_info(folder) for folder in folders]
    for folder, info in zip(folders, infos, strict=True):
        if info.codec_hash != infos[0].codec_hash:
            raise ValueError(
                f"the token caches {folders[0]} and {folder} were made with different codecs "
                f"({infos[0].codec_hash[:8]} and {info.codec_hash[:8]})"
            )
    return infos


def read_token_info(folder: str | Path) -> TokenInfo:
    """Read and check ``tokens.json`` in a folder or at a URL.

    Raises:
        ValueError: it is missing, unreadable or of another format version.
    """
    try:
        if is_remote(str(folder)):
            return TokenInfo(**json.loads(read_remote(f"{str(folder).rstrip('/')}/{INFO_NAME}")))
        command = "partita prepare tokens"
        return TokenInfo(
            **read_description(folder, INFO_NAME, "token cache", command, TOKENS_VERSION)
        )
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}, {INFO_NAME}: {error}") from error


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
        return NoteTokenizer.from_pretrained(place).eval()
    known = ("SpectralCodec", "EncodecCodec", "TransformersCodec", "NoteTokenizer")
    if name not in known:
        raise ValueError(
            f"{path}: a codec must be one of {', '.join(known)}, got {name!r} "
            "(a class of yours: MODULE:CLASS:FOLDER)"
        )
    return getattr(codec, name).from_pretrained(place).eval()


def import_user_module(module: str) -> ModuleType:
    """Import a module of the user's, which may lie in the working directory.

    diffusers finds out how to load a class by the bases that its module names; they are added.
    """
    from diffusers.models.modeling_utils import ModelMixin

    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # at the end: nothing of ours or of Python is hidden
    imported = import_module(module)
    vars(imported).setdefault("ModelMixin", ModelMixin)
    return imported


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
