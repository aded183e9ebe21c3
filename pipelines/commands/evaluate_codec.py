"""``partita evaluate codec``: a codec against opus, mp3 and vorbis on the same clips."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.evaluation.clips import ClipChoice
    from pipelines.evaluation.instruments_kept import RenderedPiece
    from pipelines.evaluation.measuring import ReportSettings

ENCODEC_MODELS = ("24khz", "48khz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clip_arguments(parser)
    parser.add_argument(
        "--books", type=int, nargs="+", help="numbers of codebooks (default: 1, 2, 4 ... all)"
    )
    parser.add_argument(
        "--classical",
        nargs="*",
        metavar="SETTING",
        help='classical codecs to compare with, such as "opus 12k" '
        "(default: all; the option without a setting: no row)",
    )
    for model in ENCODEC_MODELS:
        parser.add_argument(
            f"--encodec-{model}", type=Path, help=f"weights of EnCodec's {model} model"
        )


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``evaluate codec`` and ``evaluate decoder`` share."""
    parser.add_argument("--pipeline", required=True, help="folder of a saved pipeline or codec")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        type=Path,
        help="audio files, folders of them, or a prepared dataset that keeps its audio",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the report")
    parser.add_argument("--clips", type=int, default=12, help="how many")
    parser.add_argument("--duration", type=float, default=10.0, help="of a clip, in s")
    parser.add_argument(
        "--min-track", type=float, default=0.0, help="leave out shorter files, in s"
    )
    parser.add_argument("--split", default="validation", help="of a prepared dataset")
    parser.add_argument(
        "--instruments",
        type=int,
        default=0,
        metavar="N",
        help="judge by N rendered pieces, too, how many leading instruments are kept",
    )
    add_space_argument(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_space_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--spaces``; None stands for all."""
    parser.add_argument(
        "--spaces",
        nargs="*",
        help="embedding spaces of the Fréchet distance: logmel_statistics, aisfx (default: all)",
    )


def choose_clips_and_settings(args: argparse.Namespace) -> "tuple[ClipChoice, ReportSettings]":
    """Read the arguments of :func:`add_clip_arguments`."""
    from pipelines.evaluation.clips import choose_clips
    from pipelines.evaluation.embeddings import EMBEDDINGS
    from pipelines.evaluation.measuring import ReportSettings

    spaces = tuple(EMBEDDINGS if args.spaces is None else args.spaces)
    settings = ReportSettings(args.output, spaces, args.quiet)
    return choose_clips(args.data, args.clips, args.duration, args.min_track, args.split), settings


def render_pieces(args: argparse.Namespace) -> "list[RenderedPiece]":
    """Render the pieces that ``--instruments`` asks for."""
    if args.instruments < 0:
        raise ValueError(f"--instruments must be at least 0, got {args.instruments}")
    if args.instruments == 0:
        return []
    from pipelines.evaluation.instruments_kept import rendered_pieces

    return rendered_pieces(args.instruments, args.quiet)


def run(args: argparse.Namespace) -> int:
    """Measure, write the report and print its page."""
    from codec.encodec_codec import VARIANTS, EncodecCodec
    from pipelines.data.codecs import load_codec
    from pipelines.errors import check_names
    from pipelines.evaluation.classical_codecs import CLASSICAL_CODECS
    from pipelines.evaluation.quality_report import report_codec
    from pipelines.evaluation.systems import encodec_systems
    from pipelines.inference.shipped import find_shipped

    choice, settings = choose_clips_and_settings(args)
    folder = Path(find_shipped(args.pipeline))
    codec = load_codec(folder / "codec" if (folder / "codec").is_dir() else folder)
    others = []
    for model in ENCODEC_MODELS:
        if weights := getattr(args, f"encodec_{model}"):
            bandwidth = VARIANTS[model].bandwidths_kbps[-1]
            encodec = EncodecCodec.from_pretrained_weights(model, bandwidth, weights)
            others += encodec_systems(encodec, model)
    classical = CLASSICAL_CODECS if args.classical is None else args.classical
    check_names("classical", classical, CLASSICAL_CODECS)
    name, pieces = folder.resolve().name, render_pieces(args)
    report_codec(choice, codec, settings, args.books, name, classical, others, pieces)
    print((args.output / "codec.md").read_text())
    return 0
