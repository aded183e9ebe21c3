"""``partita generate``: a prompt in, an audio file out."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.inference.live import add_live_arguments, check_live, is_live, stream_song
from pipelines.inference.loading import (
    add_pipeline_arguments,
    add_speed_arguments,
    check_output,
    load_pipeline,
)

if TYPE_CHECKING:
    from pipelines.music_output import MusicOutput
    from pipelines.pipeline import Pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita generate``."""
    parser.add_argument("prompt", help='for example "a slow sad piano piece in D minor, 70 bpm"')
    parser.add_argument("--duration", type=float, default=10.0, help="in s (default: 10)")
    parser.add_argument("--seed", type=int, help="equal seeds, equal music (default: drawn)")
    parser.add_argument(
        "--output",
        help=".wav, .flac, .ogg or .opus file (default: song.wav; none with --play or --stdout)",
    )
    add_live_arguments(parser)
    parser.add_argument("--steps", type=int, help="of the decoder, 1 to 16")
    parser.add_argument("--guidance", type=float, help="how closely to follow the prompt; 1: off")
    parser.add_argument("--temperature", type=float, help="0 takes the likeliest token")
    parser.add_argument("--negative-prompt", help="what to move away from")
    parser.add_argument("--tokens", metavar="FILE", help="write the tokens too (.safetensors)")
    parser.add_argument("--plot", action="store_true", help="draw the audio, a PNG beside it")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on a CPU (default: 1)")
    add_speed_arguments(parser)
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
    from codec.process_settings import cpu_threads

    with cpu_threads(args.threads):
        return generate(args, output)


def generate(args: argparse.Namespace, output: Path | None) -> int:
    """Generate on the threads that are set, once the arguments are checked."""
    pipeline = load_pipeline(args.pipeline, args.quiet, args.quantize, args.compile)
    start = time.perf_counter()
    choices = {
        "negative_prompt": args.negative_prompt,
        "guidance": args.guidance,
        "temperature": args.temperature,
        "num_inference_steps": args.steps,
    }
    if is_live(args):
        song = stream_song(pipeline, args, choices)
        if song is None:
            return 0
    else:
        song = pipeline(args.prompt, args.duration, args.seed, **choices)
    seconds = time.perf_counter() - start
    if args.tokens:
        write_tokens(args.tokens, pipeline, song)
    duration_s = song.audio.shape[-1] / song.sample_rate
    said = sys.stderr if args.stdout else sys.stdout
    if output is not None:
        song.save(output)
        print(f"{output}: {duration_s:.2f} s, seed {song.seeds[0]}", file=said)
    if output is not None and args.plot:
        from pipelines.inference.plot import plot_audio

        plot_audio(song.audio[0].cpu(), song.sample_rate, output.with_suffix(".png"), args.prompt)
    if not (is_live(args) and args.quiet):
        for plan in filter(None, song.plans):
            print(f"plan: {plan}", file=said)
    if not is_live(args):
        print(f"made in {seconds:.2f} s: {duration_s / seconds:.2f} times as fast as it plays")
    return 0


def write_tokens(path: str, pipeline: "Pipeline", song: "MusicOutput") -> None:
    """Write what ``partita decode`` needs to make the same audio again."""
    from pipelines.inference.token_file import describe_codes, save_tokens

    tokens = describe_codes(
        song.codes[0].cpu(),
        pipeline.codec,
        song.audio.shape[-1],
        prompt=song.settings["prompt"][0],
        seed=song.seeds[0],
        decoder_seed=song.decoder_seeds[0],
        settings={name: value for name, value in song.settings.items() if name != "prompt"},
    )
    save_tokens(path, tokens)
