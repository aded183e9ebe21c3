"""Report on codecs, and on decoders of the same tokens, compared on clips."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from codec.protocols import Codec
from decoder.sampler import window_grid
from pipelines.evaluation.classical_codecs import CLASSICAL_CODECS
from pipelines.evaluation.clips import ClipChoice, EvaluationClip
from pipelines.evaluation.codebooks import codebook_use, count_codes
from pipelines.evaluation.instruments_kept import RenderedPiece, instrument_values
from pipelines.evaluation.measuring import ReportSettings, measure
from pipelines.evaluation.quality_page import write_quality_report
from pipelines.evaluation.systems import ORIGINAL, Decode, System, TokenCodec, classical_system
from pipelines.evaluation.tones import tone_values


def report_codec(
    choice: ClipChoice,
    codec: Codec,
    settings: ReportSettings,
    books: Sequence[int] | None = None,
    name: str = "partita",
    classical: Sequence[str] = CLASSICAL_CODECS,
    others: Sequence[System] = (),
    pieces: Sequence[RenderedPiece] = (),
) -> dict[str, Any]:
    """Measure a codec with several numbers of codebooks and the classical codecs; write a report.

    By default there is a row for 1, 2, 4 ... up to all codebooks. In ``pieces`` every system is
    judged by the instruments that it keeps.

    Returns:
        The content of ``codec.json``.

    Raises:
        ValueError: the codec's frames are notes, or it has fewer codebooks than ``books`` asks for.
    """
    if codec.frame_rate is None:
        raise ValueError(f"{name} must be a codec of sound, got {type(codec).__name__} of notes")
    tokens = TokenCodec(codec)
    powers = (2**exponent for exponent in range(codec.num_codebooks.bit_length()))
    counts = books or sorted({*powers, codec.num_codebooks})
    systems = [
        *(tokens.system(f"{name} {count} codebook(s)", name, count) for count in counts),
        *tokens.vocoder_systems(),
        *others,
        *map(classical_system, classical),
    ]
    content = {
        "title": f"{name}: codec against classical codecs",
        **measure(choice, systems, settings),
        "codec_fingerprint": tokens.fingerprint,
    }
    for row, system in zip(content["rows"], systems, strict=True):
        row["values"] |= tone_values(system) | instrument_values(system, pieces)
    if content["num_clips"]:
        used = count_codes(clip_codes(tokens, choice.clips), codec.codebook_size)
        content["codebooks"] = codebook_use(used, codec.frame_rate)
    write_quality_report(settings.output, "codec", content)
    return content


def clip_codes(tokens: TokenCodec, clips: Sequence[EvaluationClip]) -> Iterator[Tensor]:
    """Yield the (K, T) codes of every readable clip."""
    for clip in clips:
        try:
            sound = clip.read()
        except ValueError:
            continue  # ``measure`` has listed it as left out
        yield tokens.encode(sound.audio, sound.sample_rate)[0].cpu()


def report_decoder(
    choice: ClipChoice,
    codec: Codec,
    decoders: Mapping[str, Decode],
    settings: ReportSettings,
    num_codebooks: int,
    identity: str = "",
    seams_s: Sequence[float] = (),
    decoded_rate: int | None = None,
    pieces: Sequence[RenderedPiece] = (),
) -> dict[str, Any]:
    """Decode true tokens of clips in several ways, measure each and write a report.

    Args:
        choice: from ``choose_clips``.
        codec: makes the tokens; its own decode is the row ``"coarse"``.
        decoders: by row name, for example the flow with each number of steps.
        settings: where to write, and what to compute.
        num_codebooks: that all decoders are given.
        identity: changes whenever the decoders' weights do; part of the cache's key.
        seams_s: where the decoders join their windows, in seconds; measured in every row, so
            that the original and the coarse decode show what no seam looks like.
        decoded_rate: sample rate of the decoders' sound (Hz); None for the codec's.
        pieces: in which every system is judged by the instruments that it keeps.

    Returns:
        The content of ``decoder.json``.
    """
    tokens = TokenCodec(codec)
    systems = [
        ORIGINAL,
        *tokens.vocoder_systems(),
        tokens.system("coarse", "coarse", num_codebooks),
        *(
            tokens.system(
                name, "decoder", num_codebooks, decode, f"{identity} {name}", decoded_rate
            )
            for name, decode in decoders.items()
        ),
        *map(classical_system, ("opus 6k", "opus 12k", "opus 16k")),
    ]
    content = {
        "title": f"Decoders of the same {num_codebooks} codebook(s)",
        **measure(choice, systems, settings, seams_s),
        "num_codebooks": num_codebooks,
        "seams_s": list(seams_s),
    }
    for row, system in zip(content["rows"], systems, strict=True):
        row["values"] |= instrument_values(system, pieces)
    write_quality_report(settings.output, "decoder", content)
    return content


def window_seams_s(config: Any, frame_rate: float, duration_s: float) -> list[float]:
    """Find beginning, middle and end of every cross-fade between the decoder's windows, in s.

    The middle third of each overlap fades (``decoder.sampler.CrossFade``).
    """
    places = []
    for span in window_grid(config.window_frames, config.overlap_frames):
        first = span.start + span.frames - span.overlap
        if first >= duration_s * frame_rate:
            break
        places += [first + span.overlap * share for share in (1 / 3, 1 / 2, 2 / 3)]
    return [place / frame_rate for place in places if place / frame_rate < duration_s]
