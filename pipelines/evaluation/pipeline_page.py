"""The report on a pipeline on paper: JSON, Markdown and a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codec.whole_file import sync_and_rename, write_json
from pipelines.errors import MissingPackageError, import_package
from pipelines.evaluation.facts import FACTS
from pipelines.evaluation.frechet import MIN_WINDOWS

SOUND = {
    "loudness_lufs": ("loudness LUFS", 1),
    "peak": ("peak", 3),
    "clipped_fraction": ("clipped share", 5),
    "dc_offset": ("DC", 4),
    "silent_fraction": ("silent share", 3),
    "longest_silence_s": ("longest silence s", 2),
    "clicks_per_minute": ("clicks a minute", 2),
}
FRECHET = (("frechet", "windows"), ("frechet_of_truth_halves", "windows_of_halves"))
DRIFT = {
    "loudness_drift_lu": ("loudness drift LU", 1),
    "loudness_range_lu": ("loudest to softest window LU", 1),
    "brightness_drift_octaves": ("brightness drift octaves", 2),
    "key_kept": ("windows in the commonest key", 2),
    "key_asked": ("windows in the asked key", 2),
}


def write_pipeline_page(folder: Path, content: dict[str, Any]) -> None:
    """Write ``pipeline.json``, ``pipeline.md`` and, with matplotlib, ``pipeline.png``."""
    try:
        plot_pipeline(content, folder / "pipeline.png")
        content["plot"] = "pipeline.png"
    except MissingPackageError as reason:
        content["plot"] = f"no plot: {reason}"
    write_json(folder / "pipeline.json", content)
    partial = folder / "pipeline.md.partial"
    partial.write_text(markdown(content))
    sync_and_rename(partial, folder / "pipeline.md")


def markdown(content: dict[str, Any]) -> str:
    """The page."""
    settings = content["settings"]
    lines = [
        f"# {content['title']}",
        "",
        f"{content['num_prompts']} prompts, {settings['seeds']} seed(s) each, "
        f"{settings['duration_s']:g} s a take. Shares are means over prompts, with 95 % intervals "
        "(bootstrap over prompts). *Ceiling*: the same detectors on rendered pieces with exactly "
        "these labels. *Floor*: every take judged by the other prompts.",
        "",
        *fact_table(content["facts"]["all"]),
    ]
    if content["no_ground_truth"]:
        lines += ["", f"No ceiling: {content['no_ground_truth']}"]
    lines += ["", *group_table(content["facts"]), "", *sound_table(content["sound"])]
    lines += ["", *space_table(content["spaces"])]
    seconds = content["seconds_per_second"]
    speed = f"{seconds:.3f} s of computing a second of sound, one take alone"
    lines += ["", f"Speed: {speed} ({1 / seconds:.1f} times as fast as it plays)."]
    if "copying" in content:
        lines += ["", *copying_table(content["copying"])]
    if "drift" in content:
        lines += ["", *drift_table(content["drift"])]
    plot = content["plot"]
    lines += ["", f"![asked and heard]({plot})" if plot.endswith(".png") else plot]
    versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
    return "\n".join([*lines, "", f"Measured with {versions}.", ""])


def fact_table(facts: dict[str, Any]) -> list[str]:
    """Every fact: model, ceiling, share of the ceiling, floor."""
    lines = _header(["asked and heard", "model", "ceiling", "of the ceiling", "floor", "prompts"])
    for fact, heading in FACTS.items():
        row = facts[fact]
        if row["model"]["num_prompts"]:
            cells = [_rate(row["model"]), _rate(row["ceiling"]), _percent(row["of_ceiling"])]
            cells += [_percent(row["floor"]["share"]), str(row["model"]["num_prompts"])]
            lines.append(_line([heading, *cells]))
    return lines


def group_table(facts: dict[str, Any]) -> list[str]:
    """Every fact by group of prompts, the ceiling in brackets."""
    groups = [group for group in facts if group != "all"]
    lines = _header(["by group (ceiling)", *groups])
    for fact, heading in FACTS.items():
        rows = [facts[group][fact] for group in groups]
        if any(row["model"]["num_prompts"] for row in rows):
            cells = [
                f"{_percent(row['model']['share'])} ({_percent(row['ceiling']['share'])})"
                for row in rows
            ]
            lines.append(_line([heading, *cells]))
    return lines


def sound_table(sound: dict[str, Any]) -> list[str]:
    """Loudness and faults of takes and ground truth."""
    lines = _header(["sound", *sound])
    for name, (heading, decimals) in SOUND.items():
        cells = []
        for side in sound.values():
            value = side.get(name)
            cells.append("—" if value is None else f"{value['mean']:.{decimals}f}")
        lines.append(_line([heading, *cells]))
    unheard = [str(side["unheard_takes"]) for side in sound.values()]
    return [*lines, _line(["takes too silent to be heard", *unheard])]


def space_table(spaces: dict[str, Any]) -> list[str]:
    """Fréchet distances and diversity; reasons below."""
    if not spaces:
        return []
    heading = "between halves of the ground truth (N)"
    lines = _header(["space", "Fréchet to ground truth ↓ (N)", heading, "between seeds"])
    reasons = []
    smallest = MIN_WINDOWS
    for space, row in spaces.items():
        cells = [space]
        for name, count in FRECHET:
            cells.append(_number(row[name], 2) + (f" ({row[count]})" if row[count] else ""))
            smallest = min(smallest, row[count] or smallest)
        lines.append(_line([*cells, _number(row["seed_diversity"], 2)]))
        for name in ("frechet", "frechet_of_truth_halves", "seed_diversity"):
            if isinstance(row[name], str):
                reasons.append(f"- {name}, {space}: {row[name]}")
    text = (
        "Between seeds: distance of a prompt's takes over that of different prompts' "
        "(0: every seed gives the same; 1: the prompt does not matter)."
    )
    if smallest < MIN_WINDOWS:
        text += f" N is small: sets are ordered sensibly from about {MIN_WINDOWS} windows on."
    return [*lines, "", text, *(["", "No number (—):", "", *reasons] if reasons else [])]


def copying_table(copying: dict[str, Any]) -> list[str]:
    """Shares of runs found in the training set."""
    rows = {
        (books, row): shares
        for books, sides in copying.items()
        if isinstance(sides, dict)
        for row, shares in sides.items()
    }
    lengths = list(dict.fromkeys(length for shares in rows.values() for length in shares))
    lines = _header(["runs of frames found in training", *lengths])
    for (books, row), shares in rows.items():
        cells = [_percent(shares.get(length), 2) for length in lengths]
        lines.append(_line([f"{row}, {books}", *cells]))
    text = f"{copying['training_clips']} training clips. Token histograms overlap with training's "
    text += f"by {copying['histogram_overlap']:.2f}"
    if "histogram_overlap_held_out" in copying:
        text += f" (as many held-out tokens: {copying['histogram_overlap_held_out']:.2f})"
    if not copying["same_codec"]:
        text += "; the tokens' codec has another hash than the pipeline's, as after rounding"
    text += "."
    return [*lines, "", text]


def drift_table(drift: dict[str, Any]) -> list[str]:
    """Drift by duration."""
    lines = _header(["long pieces", *drift])
    for name, (heading, decimals) in DRIFT.items():
        cells = [_number(side.get("mean", {}).get(name), decimals) for side in drift.values()]
        lines.append(_line([heading, *cells]))
    reasons = [f"- {name}: {side['reason']}" for name, side in drift.items() if "reason" in side]
    return [*lines, *(["", *reasons] if reasons else [])]


def plot_pipeline(content: dict[str, Any], path: Path) -> None:
    """Facts as bars with intervals, ceiling and floor; asked against heard tempo.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    import_package("matplotlib", "the plot", "pip install partita[plot]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(content["title"])
    bars, tempos = figure.subplots(1, 2, width_ratios=(2, 1))
    _plot_facts(bars, content["facts"]["all"])
    _plot_tempos(tempos, content["takes"])
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=110)
    sync_and_rename(partial, path)


def _plot_facts(axes: Any, facts: dict[str, Any]) -> None:
    rows = [(FACTS[name], row) for name, row in facts.items() if row["model"]["num_prompts"]]
    for place, (_, row) in enumerate(rows):
        model = row["model"]
        errors = [[model["share"] - model["low"]], [model["high"] - model["share"]]]
        axes.barh(place, model["share"], color="tab:blue", xerr=[errors[0], errors[1]])
        for side, color in (("ceiling", "tab:green"), ("floor", "tab:red")):
            if row[side]["share"] is not None:
                share = row[side]["share"]
                axes.plot([share, share], [place - 0.4, place + 0.4], color=color, lw=3)
    axes.set_yticks(range(len(rows)), [heading for heading, _ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.02), xlabel="share of prompts (green: ceiling, red: floor)")
    axes.grid(alpha=0.3, axis="x")


def _plot_tempos(axes: Any, takes: Sequence[dict[str, Any]]) -> None:
    points = [
        (take["asked"]["tempo_bpm"], take["heard"]["tempo_bpm"])
        for take in takes
        if take["heard"] and "tempo_bpm" in take["asked"]
    ]
    if points:
        axes.plot(*zip(*points, strict=True), "o", ms=3, alpha=0.6)
    for factor, style in ((1, "-"), (2, ":"), (0.5, ":")):
        axes.plot([45, 215], [45 * factor, 215 * factor], style, color="gray", lw=1)
    axes.set(xlim=(45, 215), ylim=(45, 215), xlabel="asked tempo, bpm", ylabel="heard tempo, bpm")
    axes.grid(alpha=0.3)


def _rate(rate: dict[str, Any]) -> str:
    if rate["share"] is None:
        return "—"
    return f"{rate['share']:.0%} [{rate['low']:.0%}, {rate['high']:.0%}]"


def _percent(share: float | None, decimals: int = 0) -> str:
    return "—" if share is None else f"{share:.{decimals}%}"


def _number(value: Any, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, float | int) else "—"


def _header(cells: list[str]) -> list[str]:
    return [_line(cells), _line(["---"] * len(cells))]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
