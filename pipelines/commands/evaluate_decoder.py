"""``partita evaluate decoder``: the same tokens through the codec's own decode and the flow."""

import argparse
from functools import partial

from pipelines.commands.evaluate_codec import (
    add_clip_arguments,
    choose_clips_and_settings,
    render_pieces,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clip_arguments(parser)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 2, 4, 6], help="flow steps, a row for each"
    )
    parser.add_argument(
        "--books", type=int, help="codebooks given to the decoder (default: the prior's number)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the decoder's noise")


def run(args: argparse.Namespace) -> int:
    """Measure, write the report and print its page."""
    from pipelines.evaluation.measurement_cache import module_fingerprint
    from pipelines.evaluation.quality_report import report_decoder, window_seams_s
    from pipelines.pipeline import Pipeline

    choice, settings = choose_clips_and_settings(args)
    pipeline = Pipeline.from_pretrained(args.pipeline)
    if pipeline.decoder is None:
        raise ValueError(f"{args.pipeline} has no decoder: there is nothing to compare")
    decoders = {
        f"flow, {steps} step(s)": partial(
            pipeline.decode, seed=args.seed, num_inference_steps=steps
        )
        for steps in args.steps
    }
    num_codebooks = args.books or (pipeline.prior or pipeline.codec).num_codebooks
    identity = f"{module_fingerprint(pipeline.decoder)} seed {args.seed}"
    patch_rate = pipeline.codec.frame_rate / pipeline.decoder.tokens_per_patch
    seams_s = window_seams_s(pipeline.decoder.config, patch_rate, args.duration)
    made = identity, seams_s, pipeline.sample_rate, render_pieces(args)
    report_decoder(choice, pipeline.codec, decoders, settings, num_codebooks, *made)
    print((args.output / "decoder.md").read_text())
    return 0
