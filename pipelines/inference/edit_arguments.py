"""What the editing commands share: their options, and what is written and printed."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.inference.loading import add_pipeline_arguments, check_output, load_pipeline
from pipelines.inference.plan_arguments import add_plan_arguments, describe_plan, plan_fields

if TYPE_CHECKING:
    from pipelines.inference.music_generator import MusicGenerator
    from pipelines.music_output import MusicOutput


def add_edit_arguments(parser: argparse.ArgumentParser, needs_prompt: bool = False) -> None:
    """Declare the options of every edit."""
    if not needs_prompt:
        parser.add_argument("--prompt", help="for what is new (default: the source's)")
        parser.add_argument("--tokens", metavar="FILE", help="write the tokens too (.safetensors)")
    parser.add_argument("--seed", type=int, help="equal seeds, equal edits (default: drawn)")
    parser.add_argument("--output", required=True, help=".wav, .flac, .ogg or .opus file")
    parser.add_argument("--steps", type=int, help="of the decoder, 1 to 16 (default: the source's)")
    parser.add_argument("--guidance", type=float, help="how closely to follow the prompt; 1: off")
    parser.add_argument("--temperature", type=float, help="0 takes the likeliest token")
    parser.add_argument("--negative-prompt", help="what to move away from")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on a CPU")
    add_plan_arguments(parser)
    add_pipeline_arguments(parser)


def run_edit(
    args: argparse.Namespace, edit: Callable[["MusicGenerator", dict[str, Any]], "MusicOutput"]
) -> int:
    """Check the output, load, edit, write, and print what came of it."""
    from codec.audio_file import FORMATS
    from codec.process_settings import cpu_threads
    from pipelines.inference.plan_schema import draft_plan
    from pipelines.inference.token_file import save_song_tokens

    output = check_output(args.output, tuple(FORMATS))
    tokens = getattr(args, "tokens", None)
    if tokens:
        check_output(tokens, ("safetensors",))
    if getattr(args, "input", None) and not Path(args.input).is_file():
        raise FileNotFoundError(f"{args.input} does not exist")
    draft_plan(args.plan, plan_fields(args))  # before anything is loaded
    with cpu_threads(args.threads):
        pipeline = load_pipeline(args.pipeline, args.quiet)
        start = time.perf_counter()
        song = edit(pipeline, edit_options(args))
        seconds = time.perf_counter() - start
    song.save(output)
    if tokens:
        save_song_tokens(tokens, song, pipeline.codec)
    duration_s = song.audio.shape[-1] / song.sample_rate
    print(f"{output}: {duration_s:.2f} s, {song.audio.shape[-1]} samples, seed {song.seeds[0]}")
    for plan in filter(None, song.plans):
        print("\n".join(describe_plan(plan, song.settings["prompt"][0], duration_s)))
    print(f"made in {seconds:.2f} s")
    return 0


def edit_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the command line's values as keyword arguments of the pipeline's edits."""
    options = {
        "seed": args.seed,
        "negative_prompt": args.negative_prompt,
        "guidance": args.guidance,
        "temperature": args.temperature,
        "num_inference_steps": args.steps,
        "plan": args.plan,
        **plan_fields(args),
    }
    return {name: value for name, value in options.items() if value is not None}
