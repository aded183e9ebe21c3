"""Build the page of ``partita evaluate codec`` and ``decoder``: metrics, a rate-quality plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.data.markdown import bullets, table
from pipelines.evaluation.frechet import MIN_WINDOWS, few_windows_note
from pipelines.evaluation.report_files import MISSING, format_number, write_plot, write_report_files
from pipelines.evaluation.stereo_image import NUM_BANDS, PARTS

# name, heading, decimals
COLUMNS = (
    ("visqol", "ViSQOL ↑", 2),
    ("zimtohrli", "zimtohrli ↓", 4),
    ("zimtohrli_stereo", "… each channel ↓", 4),
    ("mel_distance", "mel ↓", 3),
    ("stft_distance", "STFT ↓", 3),
    ("si_sdr_db", "SI-SDR dB ↑", 1),
    ("movement_ratio", "movement → 1", 3),
    ("filled_hz", "filled to Hz ↑", 0),
    ("occupied_hz", "of Hz", 0),
    ("level_difference_error_db", "ILD error dB ↓", 2),
    ("coherence_error", "coherence error ↓", 3),
    ("mono_level_db", "mono sum dB → 0", 2),
    ("mono_worst_band_db", "worst band dB → 0", 1),
    ("side_over_mid_db", "side/mid of the original dB", 1),
    ("side_over_mid_error_db", "its error dB ↓", 2),
    ("loudness_change_lu", "loudness LU → 0", 2),
    ("loudness_error_lu", "|loudness| LU ↓", 2),
    ("third_octave_error_db", "third octaves dB ↓", 2),
    ("instruments_kept", "instruments kept ↑", 3),
    ("tone_cents", "tones off, cents ↓", 0),
    ("tone_cents_9_of_10", "... nine of ten within ↓", 0),
    ("rest_noise_dbfs", "in rests dBFS ↓", 1),
    ("rest_original_dbfs", "original's", 1),
    ("clicks_per_minute", "clicks/min ↓", 2),
    ("clipped_fraction", "clipped ↓", 5),
    ("dc_offset", "DC ↓", 4),
    ("silent_fraction", "silent", 3),
    ("seam_difference_db", "seam dB → 0", 2),
    ("seam_movement_ratio", "seam movement → 1", 2),
)
PART_COLUMNS = tuple(
    (f"{metric}_{part}", f"{heading} {part}", decimals)
    for metric, heading, decimals in (("visqol", "ViSQOL", 2), ("zimtohrli", "zimtohrli", 4))
    for part in PARTS
)
PLOTTED = (("visqol", "ViSQOL (higher is better)"), ("zimtohrli", "zimtohrli (lower is better)"))


def write_quality_report(folder: Path, name: str, content: dict[str, Any]) -> None:
    """Write the report, and a picture of the stereo image where a row has one.

    ``content`` holds ``title``, what ``measure`` returns, and what else the JSON holds.
    """
    if any(band_values(row, "side_db") for row in content["rows"]):
        picture = write_plot(folder / f"{name}-stereo.png", content, plot_stereo)
        content["stereo_plot"] = picture if picture.endswith(".png") else None
    write_report_files(folder, name, content, page_blocks(content), plot_rate_quality)


def page_blocks(content: dict[str, Any]) -> list[str]:
    """Build the page: metrics, Fréchet distances, codebooks, and what is missing and why."""
    rows = content["rows"]
    skipped = bullets(f"{clip}: {reason}" for clip, reason in content["skipped"])
    reasons = bullets(reason_lines(rows))
    picture = content.get("stereo_plot")
    return [
        f"{content['num_clips']} clips, {content['seconds']:.0f} s in all. Every number is a mean "
        "over the clips that have it; docs/evaluation.md explains the columns. Bit rates of "
        "classical codecs are counted in their packets: Opus and Vorbis spend more than was asked "
        "for on some sounds and less on others.",
        metric_table(rows),
        metric_table(rows, PART_COLUMNS),
        *([f"![stereo image by band]({picture})"] if picture else []),
        *frechet_blocks(rows),
        *(codebook_blocks(content["codebooks"]) if "codebooks" in content else []),
        *(["Left out:", skipped] if skipped else []),
        *([f"No number ({MISSING}):", reasons] if reasons else []),
    ]


def metric_table(
    rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str, int]] = COLUMNS
) -> str:
    """Build a table of metrics; columns that no row has are dropped."""
    present = [column for column in columns if any(column[0] in row["values"] for row in rows)]
    lines = []
    for row in rows:
        values, rate = row["values"], row["bitrate_kbps"]
        cells = [
            format_number(values[name], decimals) if name in values else ""
            for name, _, decimals in present
        ]
        lines.append([row["name"], "" if rate is None else f"{rate:.2f}", row["num_clips"], *cells])
    return table(["", "kbps", "clips", *(heading for _, heading, _ in present)], lines)


def frechet_blocks(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Build the table of distances to the originals, with N of each space."""
    spaces = list(rows[0]["frechet"]) if rows else []
    if not spaces:
        return []
    lines: list[list[str]] = []
    found: list[int] = []
    for row in rows:
        counts = {space: count for space, count in row["windows"].items() if count}
        found += counts.values()
        cells = [
            format_number(row["frechet"][space], 3)
            + (f" ({counts[space]})" if space in counts else "")
            for space in spaces
        ]
        lines.append([row["name"], *cells])
    header = ["Fréchet distance to the originals ↓", *(f"{space} (N)" for space in spaces)]
    return [table(header, lines), few_windows_note(min(found, default=MIN_WINDOWS))]


def reason_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """List what has no number and why, with the rows concerned."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        shown = {name: row["values"].get(name) for name, *_ in (*COLUMNS, *PART_COLUMNS)}
        distances = {f"Fréchet {space}": value for space, value in row["frechet"].items()}
        for name, value in (shown | distances).items():
            if isinstance(value, str):
                reasons.setdefault((name, value), []).append(row["name"])
    return [
        f"{name}: {reason} ({'all rows' if len(names) == len(rows) else ', '.join(names)})"
        for (name, reason), names in reasons.items()
    ]


def codebook_blocks(codebooks: dict[str, Any]) -> list[str]:
    """Build the table of use and entropy of each codebook, and what the tokens cost."""
    columns = zip(
        codebooks["used"], codebooks["entropy_bits"], codebooks["perplexity"], strict=True
    )
    rows = [
        [index, f"{used:.1%}", f"{entropy:.2f}", f"{perplexity:.0f}"]
        for index, (used, entropy, perplexity) in enumerate(columns)
    ]
    frames, rate = codebooks["num_frames"], codebooks["bitrate_kbps"]
    coded = codebooks["entropy_bitrate_kbps"]
    text = f"{frames} frames; {rate:.3f} kbps as they are, {coded:.3f} kbps by their entropies."
    if frames < 10 * codebooks["size"]:
        text += " Few frames for the size of the codebooks: use and entropy are underestimated."
    return [table(["codebook", "entries used", "entropy, bits", "perplexity"], rows), text]


def plot_rate_quality(figure: Any, content: dict[str, Any]) -> None:
    """Draw ViSQOL and zimtohrli against bit rate, a line for each group of rows."""
    rows = content["rows"]
    for axes, (metric, label) in zip(figure.subplots(1, 2), PLOTTED, strict=True):
        measured = [row for row in rows if isinstance(row["values"].get(metric), float)]
        groups: dict[str, list[tuple[float, float]]] = {}
        for row in measured:
            if row["bitrate_kbps"]:
                point = (row["bitrate_kbps"], row["values"][metric])
                groups.setdefault(row["group"], []).append(point)
            elif row["bitrate_kbps"] is None:
                axes.axhline(row["values"][metric], ls=":", color="gray", lw=1)
        for group, points in groups.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=group)
        axes.set(xscale="log", xlabel="kbps, counted in the packets", ylabel=label)
        axes.grid(alpha=0.3)
        if groups:
            axes.legend()


def plot_stereo(figure: Any, content: dict[str, Any]) -> None:
    """Draw side over middle and the coherence's error in every band, a line for each row."""
    drawn = [row for row in content["rows"] if band_values(row, "side_db")]
    width, coherence = figure.subplots(1, 2)
    width.plot(band_values(drawn[0], "original_side_db"), color="black", lw=3, label="original")
    for row in drawn:
        width.plot(band_values(row, "side_db"), label=row["name"])
        coherence.plot(band_values(row, "coherence_error"), label=row["name"])
    width.set(xlabel="mel band", ylabel="side over middle, dB")
    coherence.set(xlabel="mel band", ylabel="error of the coherence")
    for axes in (width, coherence):
        axes.grid(alpha=0.3)
    width.legend(fontsize="small")


def band_values(row: dict[str, Any], name: str) -> list[float]:
    """Read a row's numbers of every band that has one."""
    found = [row["values"].get(f"{name}/{band:02}") for band in range(NUM_BANDS)]
    return [value for value in found if isinstance(value, float)]
