"""Compare decoders on equal tokens: the codec's own decode and the flow decoder."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from codec.protocols import Codec
from decoder.sampler import window_grid
from pipelines.evaluation.classical_codecs import opus
from pipelines.evaluation.clips import ClipChoice
from pipelines.evaluation.codec_report import ReportSettings
from pipelines.evaluation.measurement_cache import MeasurementCache
from pipelines.evaluation.measuring import SystemRow, measure
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
        num_codebooks: that all decoders are given; all by default.
        identity: changes whenever the decoders' weights do; part of the cache's key.
        seams_s: where the decoders join their windows, in seconds; measured in every row, so
            that the original and the coarse decode show what no seam looks like.

    Returns:
        The content of ``decoder.json``; beside the rows, ``against_coarse`` compares each decoder
        with the coarse decode (:func:`against`).
    """
    cache = MeasurementCache(settings.output)
    tokens = TokenCodec(codec)
    count = codec.num_codebooks if num_codebooks is None else num_codebooks
    vocoder = tokens.vocoder_system()
    systems = [
        original_system(),
        *([vocoder] if vocoder else []),
        tokens.system("coarse", "coarse", count),
        *(
            tokens.system(name, "decoder", count, decode, f"{identity} {name}")
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
        "num_codebooks": count,
        "seams_s": list(seams_s),
        "against_coarse": {name: against(rows["coarse"], rows[name]) for name in decoders},
    }
    title = f"Decoders of the same {count} codebook(s)"
    return write_report(settings.output, "decoder", title, measured, details, choice.skipped)


def against(coarse: SystemRow, decoded: SystemRow) -> dict[str, Any]:
    """Compare a decoder's row with the coarse decode's.

    Returns:
        The ratio of Fréchet distances in each space, the difference in ViSQOL, and whether the
        movement of the log-mel is nearer the original's; what was not measured is left out.
    """
    result: dict[str, Any] = {}
    for space, distance in decoded.frechet.items():
        base = coarse.frechet[space]
        if isinstance(distance, float) and isinstance(base, float) and base > 0:
            result[f"frechet_ratio_{space}"] = distance / base
    before, after = coarse.values.get("movement_ratio"), decoded.values.get("movement_ratio")
    if isinstance(before, float) and isinstance(after, float):
        result["movement_nearer"] = abs(after - 1) < abs(before - 1)
    before, after = coarse.values.get("visqol"), decoded.values.get("visqol")
    if isinstance(before, float) and isinstance(after, float):
        result["visqol_change"] = after - before
    return result


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


def flow_decoder(pipeline: Any, steps: int, seed: int) -> Decode:
    """Make a function that decodes tokens with a fixed number of steps."""

    def decode(codes: Tensor) -> Tensor:
        return pipeline.decode(codes, seed, num_inference_steps=steps)

    return decode
