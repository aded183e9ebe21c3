"""The page of numbers that ``make demo`` writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.data.prepared import read_info
from pipelines.evaluation.pair_metrics import compare
from pipelines.pipeline import Pipeline

METRICS = {
    "mel_distance": "mel distance (lower is better)",
    "stft_distance": "STFT distance (lower is better)",
    "movement_ratio": "movement (1 is the original's)",
    "visqol": "ViSQOL (higher is better)",
    "zimtohrli": "zimtohrli (lower is better)",
}


@dataclass(frozen=True)
class RunFigures:
    """What a training run measured on held-out music at its end, by name."""

    steps: int
    figures: dict[str, float]

    @classmethod
    def read(cls, folder: Path, steps: int) -> "RunFigures":
        """From a run's ``metrics.jsonl``."""
        figures: dict[str, float] = {}
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            values = json.loads(line)
            found = {
                name.removeprefix("validation/"): value
                for name, value in values.items()
                if name.startswith("validation/")
            }
            figures = found or figures
        return cls(steps, figures)


@dataclass(frozen=True)
class SongFigures:
    """A rendered song."""

    prompt: str
    seed: int
    duration_s: float
    seconds: float


def measure_clip(original: Tensor, decoded: Tensor, sample_rate: int) -> dict[str, Any]:
    """The numbers of ``METRICS`` that can be measured with what is installed."""
    measured = compare(original, decoded, sample_rate)
    return {name: measured[name] for name in METRICS if isinstance(measured[name], float)}


def write_report(
    path: Path,
    prepared: Path,
    pipeline: Pipeline,
    runs: dict[str, RunFigures],
    song: SongFigures,
    clips: dict[str, dict[str, Any]],
) -> Path:
    """Write the page and return its path."""
    sections = [
        "# Demo",
        describe_data(prepared),
        describe_parts(pipeline, runs),
        describe_song(song),
        "## Held-out music through the tokens and back\n\n" + table(clips),
    ]
    path.write_text("\n\n".join(sections) + "\n")
    return path


def describe_data(prepared: Path) -> str:
    """Minutes and licenses of the recordings."""
    info = read_info(prepared)
    minutes = {name: split["hours"] * 60 for name, split in info["splits"].items()}
    licenses = sorted({row["license"] for row in info["sources"]})
    lengths = ", ".join(f"{name} {value:.0f} minutes" for name, value in minutes.items())
    return f"Data: {lengths} ({', '.join(licenses)})."


def describe_parts(pipeline: Pipeline, runs: dict[str, RunFigures]) -> str:
    """One line per trained part: parameters, steps, held-out figures."""
    lines = ["## Parts, and what they measure on held-out music\n"]
    for name, run in runs.items():
        millions = sum(weight.numel() for weight in getattr(pipeline, name).parameters()) / 1e6
        figures = ", ".join(f"{key} {value:.3f}" for key, value in run.figures.items())
        lines.append(f"- {name}: {millions:.1f}M parameters, {run.steps} steps; {figures}")
    return "\n".join(lines)


def describe_song(song: SongFigures) -> str:
    """What was asked for and how long it took."""
    return (
        f'## Song\n\n"{song.prompt}", seed {song.seed}: {song.duration_s:.1f} s of music in '
        f"{song.seconds:.1f} s ({song.duration_s / song.seconds:.2f} times real time)."
    )


def table(clips: dict[str, dict[str, Any]]) -> str:
    """A row per way to decode; metrics that no row has are left out."""
    names = [name for name in METRICS if any(name in row for row in clips.values())]
    lines = [
        f"| decode | {' | '.join(METRICS[name] for name in names)} |",
        f"|---|{'---:|' * len(names)}",
    ]
    for label, row in clips.items():
        cells = (f"{row[name]:.3f}" if name in row else "-" for name in names)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)
