"""``partita evaluate decoder``: the same tokens through the codec's own decode and the flow."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from codec.protocols import Codec
from decoder.sampler import window_grid
from pipelines.evaluation.classical_codecs import opus
from pipelines.evaluation.clips import ClipChoice
from pipelines.evaluation.codec_report import (
    ReportSettings,
    add_shared_arguments,
    choose_from_arguments,
)
from pipelines.evaluation.measurement_cache import MeasurementCache, module_fingerprint
from pipelines.evaluation.measuring import measure
from pipelines.evaluation.pair_metrics import package_versions
from pipelines.evaluation.quality_page import write_report
from pipelines.evaluation.systems import Decode, TokenCodec, classical_system, original_system


def report_decoder(
    choice: ClipChoice,
    codec: Codec,
    decoders: Mapping[str, Decode],
    settings: ReportSettings,
    num_codebooks: int | None = None,
    identity: str = "",
    seams_s: Sequence[float] = (),
) -> dict[str, Any]:
    """Decode true tokens of clips in several ways, measure each and write a report.

    Args:
        choice: from ``choose_clips``.
        codec: makes the tokens; its own decode is the row ``"coarse"``.
        decoders: row name -> (1, k, T) codes to (1, C, S) audio at the codec's rate; for example
            the flow with each number of steps.
        settings: where to write, and what to compute.
        num_codebooks: books that all decoders are given; all by default.
        identity: changes whenever the decoders' weights do; part of the cache's key.
        seams_s: where the decoders join their windows, in seconds; measured in every row, so
            that the original and the coarse decode show what no seam looks like.

    Returns:
        What was written to ``decoder.json``; beside the rows, ``against_coarse`` holds for each
        decoder the ratio of Fréchet distances, the difference in ViSQOL, and whether the movement
        of its log-mel is nearer the original's.
    """
    cache = MeasurementCache(settings.output)
    tokens = TokenCodec(codec)
    books = codec.num_codebooks if num_codebooks is None else num_codebooks
    vocoder = tokens.vocoder_system()
    systems = [
        original_system(),
        *([vocoder] if vocoder else []),
        tokens.system("coarse", "coarse", books),
        *(
            tokens.system(name, "decoder", books, decode, f"{identity} {name}")
            for name, decode in decoders.items()
        ),
        *(classical_system(opus(kbps)) for kbps in (6, 12, 16)),
    ]
    measured = measure(
        choice.clips, systems, cache, settings.spaces, tuple(seams_s), settings.quiet
    )
    rows = {row.name: row for row in measured.rows}
    details = {
        "clips": [clip.name for clip in choice.clips],
        "versions": package_versions(),
        "num_codebooks": books,
        "seams_s": list(seams_s),
        "against_coarse": {name: against(rows["coarse"], rows[name]) for name in decoders},
    }
    title = f"Decoders of the same {books} book(s)"
    return write_report(settings.output, "decoder", title, measured, details, choice.skipped)


def against(coarse: Any, decoded: Any) -> dict[str, Any]:
    """What the acceptance of a decoder asks for, from its row and the coarse decode's."""
    result: dict[str, Any] = {}
    for space, distance in decoded.frechet.items():
        base = coarse.frechet[space]
        if isinstance(distance, float) and isinstance(base, float) and base > 0:
            result[f"frechet_ratio_{space}"] = distance / base
    movements = [row.values.get("movement_ratio") for row in (coarse, decoded)]
    if all(isinstance(movement, float) for movement in movements):
        result["movement_nearer"] = abs(movements[1] - 1) < abs(movements[0] - 1)
    scores = [row.values.get("visqol") for row in (coarse, decoded)]
    if all(isinstance(score, float) for score in scores):
        result["visqol_change"] = scores[1] - scores[0]
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita evaluate decoder``."""
    add_shared_arguments(parser)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 2, 4, 6], help="flow steps, a row for each"
    )
    parser.add_argument(
        "--books", type=int, help="codebooks given to the decoder (default: the prior's number)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the decoder's noise (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Run ``partita evaluate decoder`` and print the table."""
    from pipelines.pipeline import Pipeline

    choice, settings = choose_from_arguments(args)
    pipeline: Any = Pipeline.from_pretrained(args.pipeline)
    if pipeline.decoder is None:
        raise ValueError(f"{args.pipeline} has no decoder: there is nothing to compare")
    decoders = {
        f"flow, {steps} step(s)": flow_decoder(pipeline, steps, args.seed) for steps in args.steps
    }
    writer = pipeline.codec if pipeline.prior is None else pipeline.prior
    books = args.books or writer.num_codebooks
    identity = f"{module_fingerprint(pipeline.decoder)} seed {args.seed}"
    seams = window_seams_s(pipeline.decoder.config, pipeline.codec.frame_rate, args.duration)
    report_decoder(choice, pipeline.codec, decoders, settings, books, identity, seams)
    print((args.output / "decoder.md").read_text())
    return 0


def window_seams_s(config: Any, frame_rate: float, duration_s: float) -> list[float]:
    """Beginning, middle and end of every cross-fade between the decoder's windows, in seconds.

    The middle third of each overlap fades (``decoder.sampler.CrossFade``).
    """
    places = []
    for span in window_grid(config.window_frames, config.overlap_frames):
        first = span.start + span.frames - span.overlap
        if first >= duration_s * frame_rate:
            break
        places += [first + span.overlap * share for share in (1 / 3, 1 / 2, 2 / 3)]
    return [place / frame_rate for place in places if place / frame_rate < duration_s]


def flow_decoder(pipeline: Any, steps: int, seed: int) -> Decode:
    """The pipeline's decode of tokens with a fixed number of steps, as a plain function."""

    def decode(codes: Tensor) -> Tensor:
        return pipeline.decode(codes, seed, num_inference_steps=steps)

    return decode
