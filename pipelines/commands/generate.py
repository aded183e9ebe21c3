"""``partita generate``: a prompt in, an audio file out."""

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.inference.edit_arguments import edit_options
from pipelines.inference.loading import (
    add_lora_argument,
    add_pipeline_arguments,
    check_output,
    load_pipeline,
    parse_loras,
)
from pipelines.inference.plan_arguments import add_plan_arguments, describe_plan, plan_fields

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.inference.music_generator import MusicGenerator
    from pipelines.inference.streaming import Stream
    from pipelines.music_output import MusicOutput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help='for example "a slow sad piano piece in D minor, 70 bpm"')
    parser.add_argument("--duration", type=float, default=10.0, help="in s")
    parser.add_argument("--seed", type=int, help="equal seeds, equal music (default: drawn)")
    parser.add_argument(
        "--output",
        help=".wav, .flac, .ogg or .opus file (default: song.wav; none with --play or --stdout)",
    )
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
    parser.add_argument("--steps", type=int, help="of the decoder, 1 to 16")
    parser.add_argument("--guidance", type=float, help="how closely to follow the prompt; 1: off")
    parser.add_argument("--temperature", type=float, help="0 takes the likeliest token")
    parser.add_argument("--negative-prompt", help="what to move away from")
    parser.add_argument(
        "--num-variations", type=int, default=1, metavar="N", help="takes, song-0.wav and so on"
    )
    parser.add_argument(
        "--loudness", type=float, metavar="LUFS", help="BS.1770 (default: as it is)"
    )
    parser.add_argument(
        "--ending",
        choices=["ring", "fade", "cut"],
        help="a cadence that rings out (default), a fade of 3 s, or neither",
    )
    parser.add_argument("--tokens", metavar="FILE", help="write the tokens too (.safetensors)")
    parser.add_argument("--plot", action="store_true", help="draw the audio, a PNG beside it")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on a CPU")
    add_lora_argument(parser)
    add_plan_arguments(parser)
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Generate, write, and print what came of it."""
    from codec.audio_file import FORMATS
    from pipelines.inference.call_arguments import check_before_loading, check_prompt
    from pipelines.inference.shipped import find_shipped

    check_live(args)
    check_prompt(args.prompt)
    sampling = {"guidance": args.guidance, "temperature": args.temperature}
    texts = [args.prompt, args.negative_prompt]
    folder = find_shipped(args.pipeline)
    check_before_loading(folder, texts, args.duration, args.steps, (args.seed,), sampling)
    name = args.output or (None if is_live(args) else "song.wav")
    output = check_output(name, tuple(FORMATS)) if name else None
    if args.tokens:
        check_output(args.tokens, ("safetensors",))
    if args.plot:
        from pipelines.inference.plot import check_plotting

        if output is None:
            raise ValueError("--plot draws beside the file that --output names")
        check_plotting()
    from pipelines.inference.plan_schema import draft_plan

    draft_plan(args.plan, plan_fields(args))  # before anything is loaded
    check_takes(args)
    from codec.process_settings import cpu_threads

    with cpu_threads(args.threads):
        return generate(args, output)


def check_takes(args: argparse.Namespace) -> None:
    """Raise ValueError for a number, a loudness or an ending that cannot be."""
    from pipelines.rendering.mastering import LOUDNESS_RANGE, check_range

    if not 1 <= args.num_variations <= 100:
        raise ValueError(f"num_variations must lie in [1, 100], got {args.num_variations}")
    check_range("loudness", args.loudness, LOUDNESS_RANGE)
    if is_live(args) and (args.num_variations, args.loudness, args.ending or "cut") != (
        1,
        None,
        "cut",
    ):
        raise ValueError("a stream has one take, its own level and no ending: leave --play out")


def generate(args: argparse.Namespace, output: Path | None) -> int:
    """Generate on the threads that are set, once the arguments are checked."""
    loras = parse_loras(args.lora)
    pipeline = load_pipeline(args.pipeline, args.quiet, loras)
    start = time.perf_counter()
    choices = edit_options(args)
    if is_live(args):
        song = stream_song(pipeline, args, choices)
        if song is None:
            return 0
    else:
        prompts = [args.prompt] * args.num_variations
        song = pipeline(prompts, args.duration, ending=args.ending or "ring", **choices)
    seconds = time.perf_counter() - start
    said = sys.stderr if args.stdout else sys.stdout
    count = len(song.audio)
    for index in range(count):
        place = f"-{index}" if count > 1 else ""
        write_take(args, output, pipeline, song.item(index), place, said)
    if not is_live(args):
        duration_s = count * song.audio.shape[-1] / song.sample_rate
        print(f"made in {seconds:.2f} s: {duration_s / seconds:.2f} times as fast as it plays")
    return 0


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
        sinks: list[Player | PipeWriter] = []
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


def write_take(
    args: argparse.Namespace,
    output: Path | None,
    pipeline: "MusicGenerator",
    take: "MusicOutput",
    place: str,
    said: TextIO,
) -> None:
    """Write one take's files, at the loudness that is asked for, and print what it is."""
    duration_s = take.audio.shape[-1] / take.sample_rate
    if args.tokens:
        from pipelines.inference.token_file import save_song_tokens

        path = Path(args.tokens)
        save_song_tokens(path.with_stem(path.stem + place), take, pipeline.codec)
    if output is not None:
        output = output.with_stem(output.stem + place)
        if args.loudness is not None:
            from pipelines.rendering.mastering import MOST_LIMITING_DB, master

            limiting = {"most_limiting_db": MOST_LIMITING_DB}
            mastered = master(take.audio[0], take.sample_rate, args.loudness, **limiting)
            take.audios = mastered.audio[None]
            for note in mastered.notes:
                print(f"partita: note: {output}: {note}", file=sys.stderr)
        take.save(output)
        print(f"{output}: {duration_s:.2f} s, seed {take.seeds[0]}", file=said)
    if output is not None and args.plot:
        from pipelines.inference.plot import plot_audio

        plot_audio(take.audio[0].cpu(), take.sample_rate, output.with_suffix(".png"), args.prompt)
    if not (is_live(args) and args.quiet):
        for plan in filter(None, take.plans):
            print("\n".join(describe_plan(plan, args.prompt, duration_s)), file=said)
