"""Build the page of ``partita evaluate pipeline``: facts, sound, sets, copies, drift, a plot."""

from collections.abc import Sequence
from typing import Any

from pipelines.data.markdown import bullets, table
from pipelines.evaluation.facts import FACTS
from pipelines.evaluation.frechet import MIN_WINDOWS, few_windows_note
from pipelines.evaluation.report_files import MISSING, format_interval, format_number, format_share

SOUND = {
    "loudness_lufs": ("loudness LUFS", 1),
    "peak": ("peak", 3),
    "clipped_fraction": ("clipped share", 5),
    "dc_offset": ("DC", 4),
    "silent_fraction": ("silent share", 3),
    "clicks_per_minute": ("clicks a minute", 2),
}
FRECHET = {"frechet": "windows", "frechet_of_truth_halves": "windows_of_halves"}
DRIFT = {
    "loudness_drift_lu": ("loudness drift LU", 1),
    "loudness_range_lu": ("loudest to softest window LU", 1),
    "brightness_drift_octaves": ("brightness drift octaves", 2),
    "key_kept": ("windows in the commonest key", 2),
    "key_asked": ("windows in the asked key", 2),
}


def page_blocks(content: dict[str, Any]) -> list[str]:
    """Build the page."""
    settings = content["settings"]
    no_truth = content["no_ground_truth"]
    return [
        f"{content['num_prompts']} prompts, {settings['seeds']} seed(s) each, "
        f"{settings['duration_s']:g} s a take. Shares are means over prompts, with 95 % intervals "
        "(bootstrap over prompts). *Ceiling*: the same detectors on rendered pieces with exactly "
        "these labels. *Floor*: every take judged by the other prompts. The detectors were fitted "
        "on pieces of the same composer and soundfont as the ceiling's, so they flatter both "
        "columns, instruments most; librosa and Krumhansl-Kessler know neither.",
        fact_table(content["facts"]["all"]),
        f"No ceiling: {no_truth}" if no_truth else "",
        group_table(content["facts"]),
        sound_table(content["sound"]),
        *space_blocks(content["spaces"]),
        *(copying_blocks(content["copying"]) if "copying" in content else []),
        *(drift_blocks(content["drift"]) if "drift" in content else []),
    ]


def fact_table(facts: dict[str, Any]) -> str:
    """Build the table of every fact: model, ceiling, share of the ceiling, floor."""
    rows = [
        [
            FACTS[fact][0],
            format_interval(row["model"], ".0%"),
            format_interval(row["ceiling"], ".0%"),
            format_share(row["of_ceiling"]),
            format_share(row["floor"]["mean"]),
            row["model"]["num_prompts"],
        ]
        for fact, row in facts.items()
        if row["model"]["num_prompts"]
    ]
    header = ["asked and detected", "model", "ceiling", "of the ceiling", "floor", "prompts"]
    return table(header, rows)


def group_table(facts: dict[str, Any]) -> str:
    """Build the table of every fact by group of prompts, the ceiling in brackets."""
    groups = [group for group in facts if group != "all"]
    rows = []
    for fact, (heading, _) in FACTS.items():
        shares = [
            [facts[group][fact][side]["mean"] for side in ("model", "ceiling")] for group in groups
        ]
        if any(share is not None for share, _ in shares):
            cells = (
                f"{format_share(share)} ({format_share(ceiling)})" for share, ceiling in shares
            )
            rows.append([heading, *cells])
    return table(["by group (ceiling)", *groups], rows)


def sound_table(sound: dict[str, Any]) -> str:
    """Build the table of loudness and faults of takes and ground truth."""
    rows = [
        [heading, *(format_number(s.get(name, {}).get("mean"), decimals) for s in sound.values())]
        for name, (heading, decimals) in SOUND.items()
    ]
    rows.append(["takes too silent to judge", *(side["silent_takes"] for side in sound.values())])
    return table(["sound", *sound], rows)


def space_blocks(spaces: dict[str, Any]) -> list[str]:
    """Build the table of Fréchet distances and diversity, with reasons below."""
    if not spaces:
        return []
    rows, reasons, counts = [], [], []
    for space, row in spaces.items():
        cells = [space]
        for name, count in FRECHET.items():
            cells.append(format_number(row[name], 2) + (f" ({row[count]})" if row[count] else ""))
            counts += [row[count]] if row[count] else []
        rows.append([*cells, format_number(row["seed_diversity"], 2)])
        reasons += [f"{name}, {space}: {text}" for name, text in row.items() if type(text) is str]
    halves = "between halves of the ground truth (N)"
    return [
        table(["space", "Fréchet to ground truth ↓ (N)", halves, "between seeds"], rows),
        "Between seeds: distance of a prompt's takes over that of different prompts' "
        "(0: every seed gives the same; 1: the prompt does not matter). "
        + few_windows_note(min(counts, default=MIN_WINDOWS)),
        *([f"No number ({MISSING}):", bullets(reasons)] if reasons else []),
    ]


def copying_blocks(copying: dict[str, Any]) -> list[str]:
    """Build the table of the shares of runs that occur in the training set."""
    found = {
        f"{row}, {books}": shares
        for books, sides in copying.items()
        if isinstance(sides, dict)
        for row, shares in sides.items()
    }
    lengths = list(dict.fromkeys(length for shares in found.values() for length in shares))
    rows = [
        [name, *(format_share(shares.get(length), 2) for length in lengths)]
        for name, shares in found.items()
    ]
    text = f"{copying['training_clips']} training clips. Token histograms overlap with training's "
    text += f"by {copying['histogram_overlap']:.2f}"
    if "histogram_overlap_held_out" in copying:
        text += f" (as many held-out tokens: {copying['histogram_overlap_held_out']:.2f})"
    if not copying["same_codec"]:
        text += "; the tokens' codec has another hash than the pipeline's, as after rounding"
    return [table(["runs of frames found in training", *lengths], rows), f"{text}."]


def drift_blocks(drift: dict[str, Any]) -> list[str]:
    """Build the table of drift by duration."""
    rows = [
        [heading, *(format_number(s.get("mean", {}).get(name), decimals) for s in drift.values())]
        for name, (heading, decimals) in DRIFT.items()
    ]
    reasons = [f"{name}: {side['reason']}" for name, side in drift.items() if "reason" in side]
    return [table(["long pieces", *drift], rows), bullets(reasons)]


def plot_pipeline(figure: Any, content: dict[str, Any]) -> None:
    """Draw facts as bars with intervals, ceiling and floor, and asked against detected tempo."""
    bars, tempos = figure.subplots(1, 2, width_ratios=(2, 1))
    _plot_facts(bars, content["facts"]["all"])
    _plot_tempos(tempos, content["takes"])


def _plot_facts(axes: Any, facts: dict[str, Any]) -> None:
    rows = [(FACTS[name][0], row) for name, row in facts.items() if row["model"]["num_prompts"]]
    for place, (_, row) in enumerate(rows):
        share, low, high = (row["model"][name] for name in ("mean", "low", "high"))
        axes.barh(place, share, color="tab:blue", xerr=[[share - low], [high - share]])
        for side, color in (("ceiling", "tab:green"), ("floor", "tab:red")):
            if row[side]["mean"] is not None:
                axes.plot([row[side]["mean"]] * 2, [place - 0.4, place + 0.4], color=color, lw=3)
    axes.set_yticks(range(len(rows)), [heading for heading, _ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.02), xlabel="share of prompts (green: ceiling, red: floor)")
    axes.grid(alpha=0.3, axis="x")


def _plot_tempos(axes: Any, takes: Sequence[dict[str, Any]]) -> None:
    points = [
        (take["asked"]["tempo_bpm"], take["detected"]["tempo_bpm"])
        for take in takes
        if take["detected"] and "tempo_bpm" in take["asked"]
    ]
    if points:
        axes.plot(*zip(*points, strict=True), "o", ms=3, alpha=0.6)
    for factor, style in ((1, "-"), (2, ":"), (0.5, ":")):
        axes.plot([45, 215], [45 * factor, 215 * factor], style, color="gray", lw=1)
    axes.set(xlim=(45, 215), ylim=(45, 215), xlabel="asked tempo, bpm", ylabel="detected, bpm")
    axes.grid(alpha=0.3)
