"""A codec against opus, mp3 and vorbis on the same clips."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codec.encodec_codec import VARIANTS, EncodecCodec
from codec.protocols import Codec
from pipelines.evaluation.classical_codecs import CLASSICAL_CODECS, ClassicalCodec
from pipelines.evaluation.clips import ClipChoice, EvaluationClip
from pipelines.evaluation.codebooks import codebook_use, count_codes
from pipelines.evaluation.embeddings import EMBEDDINGS, choose_spaces
from pipelines.evaluation.measurement_cache import MeasurementCache
from pipelines.evaluation.measuring import measure
from pipelines.evaluation.pair_metrics import package_versions
from pipelines.evaluation.quality_page import write_report
from pipelines.evaluation.systems import System, TokenCodec, classical_system, codec_systems


@dataclass(frozen=True)
class ReportSettings:
    """Settings that the reports on codecs and decoders share.

    Attributes:
        output: folder of the report and of the cache; made if it does not exist.
        spaces: embedding spaces of the Fréchet distance, names of ``EMBEDDINGS``.
        quiet: no progress bar.
    """

    output: Path
    spaces: tuple[str, ...] = tuple(EMBEDDINGS)
    quiet: bool = False

    def __post_init__(self) -> None:
        choose_spaces(self.spaces)


def report_codec(
    choice: ClipChoice,
    codec: Codec,
    settings: ReportSettings,
    books: Sequence[int] | None = None,
    name: str = "partita",
    classical: Sequence[ClassicalCodec] = CLASSICAL_CODECS,
    others: Sequence[System] = (),
) -> dict[str, Any]:
    """Measure a codec with several numbers of codebooks and the classical codecs; write a report.

    Args:
        choice: from ``choose_clips``.
        codec: anything with the ``Codec`` protocol whose codes stand for sound.
        settings: where to write, and what to compute.
        books: numbers of codebooks, a row each; powers of two up to all of them by default.
        name: of the codec in the report.
        classical: settings of opus, mp3 and vorbis to measure too.
        others: further rows, for example :func:`encodec_systems`.

    Returns:
        The content of ``codec.json``.

    Raises:
        ValueError: the codec's frames are notes, or it has fewer codebooks than ``books`` asks for.
    """
    if codec.frame_rate is None:
        raise ValueError(f"{name} must be a codec of sound, got {type(codec).__name__} of notes")
    cache = MeasurementCache(settings.output)
    tokens = TokenCodec(codec)
    vocoder = tokens.vocoder_system()
    systems = [
        *codec_systems(tokens, books or default_books(codec.num_codebooks), name),
        *([vocoder] if vocoder else []),
        *others,
        *(classical_system(setting) for setting in classical),
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
    """Yield the (K, T) codes of every readable clip."""
    for clip in clips:
        try:
            sound = clip.read()
        except ValueError:
            continue  # ``measure`` has listed it as left out
        yield tokens.encode(sound.audio, sound.sample_rate)[0].cpu()


def encodec_systems(codec: EncodecCodec, model: str) -> list[System]:
    """Make a row of each of EnCodec's bit rates.

    Args:
        codec: built for its largest bandwidth.
        model: ``"24khz"`` or ``"48khz"``.
    """
    bandwidths = VARIANTS[model].bandwidths_kbps
    level_books = codec.num_codebooks % 2  # the 48 kHz model codes the level in one of its own
    tokens = TokenCodec(codec)
    systems = []
    for bandwidth in bandwidths:
        share = bandwidth / bandwidths[-1]
        books = round((codec.num_codebooks - level_books) * share) + level_books
        systems.append(tokens.system(f"EnCodec {model} {bandwidth:g}k", f"EnCodec {model}", books))
    return systems


def load_encodec(model: str, weights: Path) -> EncodecCodec:
    """Load a model of EnCodec from a file of weights, for its largest bandwidth."""
    return EncodecCodec.from_pretrained_weights(model, VARIANTS[model].bandwidths_kbps[-1], weights)


def default_books(num_codebooks: int) -> list[int]:
    """Count 1, 2, 4 ... up to all codebooks."""
    powers = [2**exponent for exponent in range(num_codebooks.bit_length())]
    return sorted({count for count in powers if count < num_codebooks} | {num_codebooks})
