"""A piece as tokens: codes and how they came about, in one safetensors file."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from codec.protocols import Codec
from codec.validation import check_codes
from codec.whole_file import write_whole
from pipelines.data.codecs import hash_codec
from pipelines.inference.plan_schema import plan_json
from pipelines.inference.safetensors_file import check_version, read_facts, read_safetensors
from pipelines.music_output import MusicOutput

FORMAT_VERSION = 1
LARGEST_INT16 = 2**15


@dataclass(frozen=True)
class TokenFile:
    """One piece."""

    codes: Tensor  # (K, T) int64 in [0, V), of the codec's first K codebooks
    codec_hash: str  # of the codec that wrote them or that they were written for
    frame_rate: float  # token frames per second (Hz)
    sample_rate: int  # of the audio (Hz)
    num_samples: int  # length of the audio, which may end within the last frame
    prompt: str = ""  # what was asked for; "" for encoded audio
    seed: int | None = None  # of the prior; None for encoded audio
    decoder_seed: int = 0  # of decoder and vocoder
    settings: dict[str, Any] = field(default_factory=dict)  # every other setting that made them

    @property
    def duration_s(self) -> float:
        """Length of the audio (s)."""
        return self.num_samples / self.sample_rate


FACTS = tuple(item.name for item in fields(TokenFile) if item.name != "codes")


def describe_codes(codes: Tensor, codec: Codec, num_samples: int, **facts: Any) -> TokenFile:
    """Make a ``TokenFile`` of (K, T) int64 codes that a codec wrote or that were written for it.

    ``facts`` are prompt, seed, decoder_seed and settings, where there are any, and the sample rate
    where a decoder's is not the codec's.
    """
    facts = {"sample_rate": codec.sample_rate, "num_samples": num_samples} | facts
    return TokenFile(codes, hash_codec(codec), codec.frame_rate, **facts)


def save_tokens(path: str | Path, tokens: TokenFile) -> None:
    """Write a file that appears under its name only when it is whole."""
    write_whole(path, token_bytes(tokens))


def save_song_tokens(path: str | Path, song: MusicOutput, codec: Codec) -> None:
    """Write what ``partita decode`` needs to make a song again, and edits to go on from it."""
    settings = {name: value for name, value in song.settings.items() if name != "prompt"}
    plan = song.plans[0]
    tokens = describe_codes(
        song.codes[0].cpu(),
        codec,
        song.audio.shape[-1],
        sample_rate=song.sample_rate,
        prompt=song.settings["prompt"][0],
        seed=song.seeds[0],
        decoder_seed=song.decoder_seeds[0],
        settings={**settings, "plan": None if plan is None else plan_json(plan)},
    )
    save_tokens(path, tokens)


def token_bytes(tokens: TokenFile) -> bytes:
    """Return the content of a token file; equal tokens give equal bytes.

    Codes are stored as int16, or as int32 where they do not fit.
    """
    dtype = torch.int16 if int(tokens.codes.max()) < LARGEST_INT16 else torch.int32
    facts = asdict(tokens)
    codes = facts.pop("codes").to(dtype).contiguous()
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    return _sort_header(save({"codes": codes}, {"format_version": str(FORMAT_VERSION), **metadata}))


def _sort_header(data: bytes) -> bytes:
    """Put the metadata in order: safetensors writes them in another one at every call."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(
        json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of eight
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def load_tokens(path: str | Path) -> TokenFile:
    """Read a file written by :func:`save_tokens`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is truncated, a pickle (never loaded), holds other tensors, or is of
            another version.
    """
    metadata, tensors = read_safetensors(path)
    if [*tensors] != ["codes"]:
        raise ValueError(f"{path}: a token file holds the tensor 'codes', got {[*tensors]}")
    codes = tensors["codes"]
    if codes.ndim != 2 or codes.dtype not in (torch.int16, torch.int32):
        raise ValueError(
            f"{path}: codes must be (K, T) int16 or int32, got {tuple(codes.shape)} {codes.dtype}"
        )
    check_version(path, metadata, FORMAT_VERSION)
    return TokenFile(codes.long(), **_read_facts(path, metadata))


def _read_facts(path: str | Path, metadata: dict[str, str]) -> dict[str, Any]:
    facts = read_facts(path, metadata, FACTS)
    for name in ("sample_rate", "num_samples"):
        if not isinstance(facts[name], int) or facts[name] < 1:
            raise ValueError(f"{path}: {name} must be a positive integer, got {facts[name]!r}")
    for name, kind in (("decoder_seed", int), ("prompt", str), ("settings", dict)):
        if not isinstance(facts[name], kind):
            raise ValueError(f"{path}: {name} must be {kind.__name__}, got {facts[name]!r}")
    steps = facts["settings"].get("num_inference_steps")
    if not isinstance(steps, int | None):
        raise ValueError(f"{path}: num_inference_steps must be int or null, got {steps!r}")
    return facts


def check_tokens(tokens: TokenFile, codec: Codec, name: str | Path) -> None:
    """Raise ValueError unless the tokens are ``codec``'s."""
    found = hash_codec(codec)
    if tokens.codec_hash != found:
        raise ValueError(
            f"{name} holds the tokens of another codec ({tokens.codec_hash[:8]}, this pipeline's "
            f"is {found[:8]}): name the pipeline that made them with --pipeline"
        )
    check_codes(tokens.codes[None], codec.num_codebooks, codec.codebook_size)
