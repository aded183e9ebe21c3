"""``partita encode``: an audio file in, its tokens out."""

import argparse
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.inference.loading import add_pipeline_arguments, check_output, load_pipeline

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="WAV, FLAC, Ogg Vorbis, Opus or MP3 file")
    parser.add_argument("--output", required=True, help=".safetensors file")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Encode and print what came of it."""
    from codec.audio_file import read_audio
    from pipelines.inference.token_file import describe_codes, save_tokens

    output = check_output(args.output, ("safetensors",))
    read_audio(args.input, duration_s=0.1)  # a wrong file is found before a model is loaded
    pipeline = load_pipeline(args.pipeline, args.quiet)
    start = time.perf_counter()
    codes, num_samples = encode_file(pipeline.codec, args.input)
    seconds = time.perf_counter() - start
    tokens = describe_codes(codes[0].cpu(), pipeline.codec, num_samples)
    save_tokens(output, tokens)
    books, frames = tokens.codes.shape
    print(f"{output}: {tokens.duration_s:.2f} s in {books} books of {frames} frames")
    print(f"made in {seconds:.2f} s: {tokens.duration_s / seconds:.2f} times as fast as it plays")
    return 0


def encode_file(codec: Any, path: str) -> "tuple[Tensor, int]":
    """Encode a file at the codec's rate and channels, in windows where the codec can.

    Returns:
        (1, K, T) int64 codes and the number of samples that they stand for.
    """
    from codec.audio_file import read_blocks

    num_samples = 0

    def blocks() -> "Iterator[Tensor]":
        nonlocal num_samples
        for clip in read_blocks(
            path, BLOCK_S, sample_rate=codec.sample_rate, channels=codec.channels
        ):
            num_samples += clip.audio.shape[-1]
            yield clip.audio[None]

    codes = encode_blocks(codec, blocks())
    return codes, num_samples


def encode_blocks(codec: Any, blocks: "Iterable[Tensor]") -> "Tensor":
    """Encode consecutive (1, C, s) pieces of audio to (1, K, T) codes."""
    import torch

    on_device = (block.to(codec.device) for block in blocks)
    if hasattr(codec, "encode_stream"):
        return torch.cat(list(codec.encode_stream(on_device)), dim=-1)
    return codec.encode(torch.cat(list(on_device), dim=-1))
