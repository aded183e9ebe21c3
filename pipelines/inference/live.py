"""``--play`` and ``--stdout``: play or send a piece while it is generated."""

import argparse
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.inference.music_generator import MusicGenerator
    from pipelines.inference.playback import Sink
    from pipelines.inference.streaming import Stream
    from pipelines.music_output import MusicOutput


def add_live_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--play`` and ``--stdout``."""
    parser.add_argument(
        "--play",
        action="store_true",
        help="play it while it is made (with paplay, aplay, play or ffplay)",
    )
    parser.add_argument(
        "--stdout",
        choices=["wav", "s16", "f32"],
        help="write it to a pipe while it is made: WAV, or bare samples of 16 bits or floats",
    )


def is_live(args: argparse.Namespace) -> bool:
    """Return whether the piece is played or sent while it is generated."""
    return bool(args.play or args.stdout)


def check_live(args: argparse.Namespace) -> None:
    """Raise, before anything is loaded, if there is no player or no pipe."""
    from pipelines.inference.playback import find_player, open_stdout

    if args.play:
        find_player()
    if args.stdout:
        open_stdout()


def stream_song(
    pipeline: "MusicGenerator", args: argparse.Namespace, choices: dict[str, Any]
) -> "MusicOutput | None":
    """Generate a piece and hand it out as it comes; None where whoever listened has left.

    ``choices`` are arguments of ``Pipeline.stream`` besides prompt and duration.
    """
    from pipelines.inference.playback import abandon_stdout
    from pipelines.music_output import MusicOutput, describe_call

    start = time.perf_counter()
    stream = pipeline.stream(args.prompt, args.duration, **choices)
    if not args.quiet:
        channels = pipeline.channels
        print(f"{stream.sample_rate} Hz, {channels} channels", file=sys.stderr)
    try:
        audio = hand_out(stream, pipeline.channels, args, start)
    except BrokenPipeError:
        abandon_stdout()
        return None
    piece, steps = stream.piece, stream.piece.num_inference_steps
    return MusicOutput(
        audio[None],
        stream.sample_rate,
        stream.codes,
        [piece.seed],
        [piece.decoder_seed],
        describe_call(
            [piece.prompt],
            piece.negative_prompt,
            piece.duration_s,
            piece.sampling,
            steps,
            preview=steps is None,
        ),
        [stream.plan],
    )


def hand_out(stream: "Stream", channels: int, args: argparse.Namespace, start: float) -> "Tensor":
    """Give every piece to the player and to standard output; the whole, (C, S)."""
    import torch

    from pipelines.inference.playback import PipeWriter, Player, open_stdout

    received: list[Tensor] = []
    clipped = 0
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if args.play:
            sinks.append(
                stack.enter_context(Player(stream.sample_rate, channels, stream.num_samples))
            )
        if args.stdout:
            form = (args.stdout, stream.sample_rate, channels, stream.num_samples)
            sinks.append(PipeWriter(open_stdout(), *form))
        for piece in stream:
            for sink in sinks:
                sink.write(piece)
            if not received and not args.quiet:
                print(f"first sound after {time.perf_counter() - start:.2f} s", file=sys.stderr)
            received.append(piece)
            clipped += int(((piece < -1) | (piece >= 1)).sum())
    if clipped and args.stdout != "f32":
        said = "a stream cannot be scaled afterwards, a file is"
        print(f"partita: note: {clipped} samples were clipped: {said}", file=sys.stderr)
    return torch.cat(received, dim=-1)
