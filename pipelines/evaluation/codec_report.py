"""``partita evaluate codec``: a codec against opus, mp3 and vorbis on the same clips."""

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import codec as codec_package
from codec.encodec_codec import VARIANTS, EncodecCodec
from codec.protocols import Codec
from pipelines.evaluation.classical_codecs import CLASSICAL_CODECS
from pipelines.evaluation.clips import ClipChoice, EvaluationClip, choose_clips
from pipelines.evaluation.codebooks import codebook_use, count_codes
from pipelines.evaluation.embeddings import EMBEDDINGS
from pipelines.evaluation.measurement_cache import MeasurementCache
from pipelines.evaluation.measuring import measure
from pipelines.evaluation.pair_metrics import package_versions
from pipelines.evaluation.quality_page import write_report
from pipelines.evaluation.systems import (
    System,
    TokenCodec,
    classical_system,
    codec_systems,
)


@dataclass(frozen=True)
class ReportSettings:
    """What both reports need beside the systems.

    Attributes:
        output: folder of the report and of the cache; made if it does not exist.
        spaces: embedding spaces of the Fréchet distance.
        quiet: no progress bar.
    """

    output: Path
    spaces: tuple[str, ...] = tuple(EMBEDDINGS)
    quiet: bool = False

    def __post_init__(self) -> None:
        unknown = [space for space in self.spaces if space not in EMBEDDINGS]
        if unknown:
            raise ValueError(f"spaces must be among {list(EMBEDDINGS)}, got {unknown[0]!r}")


def report_codec(
    choice: ClipChoice,
    codec: Codec,
    settings: ReportSettings,
    books: Sequence[int] | None = None,
    name: str = "partita",
    classical: bool = True,
    others: Sequence[System] = (),
) -> dict[str, Any]:
    """Measure a codec with several numbers of codebooks and the classical codecs; write a report.

    Args:
        choice: from ``choose_clips``.
        codec: anything with the ``Codec`` protocol.
        settings: where to write, and what to compute.
        books: numbers of codebooks, a row each; powers of two up to all of them by default.
        name: of the codec in the report.
        classical: measure opus, mp3 and vorbis too.
        others: further rows, for example :func:`encodec_systems`.

    Returns:
        What was written to ``codec.json``.
    """
    cache = MeasurementCache(settings.output)
    tokens = TokenCodec(codec)
    vocoder = tokens.vocoder_system()
    systems = [
        *codec_systems(tokens, books or default_books(codec.num_codebooks), name),
        *([vocoder] if vocoder else []),
        *others,
        *([classical_system(setting) for setting in CLASSICAL_CODECS] if classical else []),
    ]
    measured = measure(choice.clips, systems, cache, settings.spaces, quiet=settings.quiet)
    details: dict[str, Any] = {
        "clips": [clip.name for clip in choice.clips],
        "versions": package_versions(),
        "codec_fingerprint": tokens.fingerprint,
    }
    if measured.num_clips:
        counts = count_codes(clip_codes(tokens, choice.clips), codec.codebook_size)
        use = asdict(codebook_use(counts, codec.frame_rate))
        details["codebooks"] = {**use, "size": codec.codebook_size}
    title = f"{name}: codec against classical codecs"
    return write_report(settings.output, "codec", title, measured, details, choice.skipped)


def clip_codes(tokens: TokenCodec, clips: Sequence[EvaluationClip]) -> Iterator[Tensor]:
    """(K, T) codes of every readable clip."""
    for clip in clips:
        try:
            sound = clip.read()
        except ValueError:
            continue  # listed as left out by the measuring itself
        yield tokens.encode(sound.audio, sound.sample_rate)[0].cpu()


def encodec_systems(codec: EncodecCodec, model: str) -> list[System]:
    """EnCodec at each of its bit rates.

    Args:
        codec: built for its largest bandwidth.
        model: ``"24khz"`` or ``"48khz"``.
    """
    bandwidths = VARIANTS[model].bandwidths_kbps
    level_books = codec.num_codebooks % 2  # the 48 kHz model's level travels in a book of its own
    tokens = TokenCodec(codec)
    systems = []
    for bandwidth in bandwidths:
        share = bandwidth / bandwidths[-1]
        books = round((codec.num_codebooks - level_books) * share) + level_books
        systems.append(tokens.system(f"EnCodec {model} {bandwidth:g}k", f"EnCodec {model}", books))
    return systems


def default_books(num_codebooks: int) -> list[int]:
    """1, 2, 4 ... up to all."""
    powers = [2**exponent for exponent in range(num_codebooks.bit_length())]
    return sorted({count for count in powers if count < num_codebooks} | {num_codebooks})


def load_codec(path: str) -> Codec:
    """The codec of a saved pipeline (its ``codec`` folder), or a saved codec itself.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: the folder holds something else.
    """
    folder = Path(path)
    folder = folder / "codec" if (folder / "codec").is_dir() else folder
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"{config} does not exist: not a saved pipeline or codec")
    class_name = json.loads(config.read_text()).get("_class_name", "")
    if class_name not in ("SpectralCodec", "EncodecCodec"):
        raise ValueError(f"{config}: _class_name must be a codec of ours, got {class_name!r}")
    loaded = getattr(codec_package, class_name).from_pretrained(folder)
    return loaded.eval()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita evaluate codec``."""
    add_shared_arguments(parser)
    parser.add_argument(
        "--books", type=int, nargs="+", help="numbers of codebooks (default: 1, 2, 4 ... all)"
    )
    parser.add_argument(
        "--no-classical", action="store_true", help="leave out opus, mp3 and vorbis"
    )
    for model in VARIANTS:
        parser.add_argument(
            f"--encodec-{model}", type=Path, help=f"weights of EnCodec's {model} model"
        )


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of both reports."""
    parser.add_argument("--pipeline", required=True, help="folder of a saved pipeline or codec")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        type=Path,
        help="audio files, folders of them, or a prepared dataset that keeps its audio",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the report")
    parser.add_argument("--clips", type=int, default=12, help="how many (default: 12)")
    parser.add_argument("--duration", type=float, default=10.0, help="of a clip, in s (default 10)")
    parser.add_argument(
        "--min-track", type=float, default=0.0, help="leave out shorter files, in s (default: 0)"
    )
    parser.add_argument("--split", default="validation", help="of a prepared dataset")
    parser.add_argument(
        "--spaces",
        nargs="*",
        choices=list(EMBEDDINGS),
        default=list(EMBEDDINGS),
        help="embedding spaces of the Fréchet distance (default: all)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def encodec_from_arguments(args: argparse.Namespace) -> list[System]:
    """EnCodec's rows, where its weights are given."""
    systems = []
    for model, weights in (("24khz", args.encodec_24khz), ("48khz", args.encodec_48khz)):
        if weights is not None:
            largest = VARIANTS[model].bandwidths_kbps[-1]
            encodec = EncodecCodec.from_pretrained_weights(model, largest, weights)
            systems += encodec_systems(encodec, model)
    return systems


def run(args: argparse.Namespace) -> int:
    """Run ``partita evaluate codec`` and print the table."""
    choice, settings = choose_from_arguments(args)
    codec = load_codec(args.pipeline)
    name = Path(args.pipeline).resolve().name
    others = encodec_from_arguments(args)
    report_codec(choice, codec, settings, args.books, name, not args.no_classical, others)
    print((args.output / "codec.md").read_text())
    return 0


def choose_from_arguments(args: argparse.Namespace) -> tuple[ClipChoice, ReportSettings]:
    """Clips and settings from the shared arguments."""
    warnings.simplefilter("once")
    choice = choose_clips(args.data, args.clips, args.duration, args.min_track, args.split)
    return choice, ReportSettings(args.output, tuple(args.spaces), args.quiet)
