"""Plot a piece: waveform and log-mel spectrogram in one PNG."""

import io
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.spectrogram import LogMel
from codec.whole_file import write_whole
from pipelines.errors import import_package

MAX_COLUMNS = 2000  # more columns than pixels only cost memory

QUIETEST_DB = -90.0


def check_plotting() -> None:
    """Raise MissingPackageError, which names the extra, unless matplotlib is installed."""
    import_package("matplotlib", "a plot", "pip install partita[plot]")


def plot_audio(audio: Tensor, sample_rate: int, path: str | Path, title: str = "") -> Path:
    """Draw the waveform of every channel of (C, S) audio and, under it, the log-mel spectrogram.

    Returns:
        ``path`` of the PNG, which appears under its name only when it is whole.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    check_plotting()
    from matplotlib.figure import Figure

    duration_s = audio.shape[-1] / sample_rate
    figure = Figure(figsize=(12, 6), layout="constrained")
    waveform, spectrogram = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
    draw_waveform(waveform, audio, duration_s)
    image = draw_spectrogram(spectrogram, audio, sample_rate, duration_s)
    figure.colorbar(image, ax=spectrogram, label="dB")
    if title:
        figure.suptitle(title)
    return save_picture(figure, Path(path))


def draw_waveform(axes: Any, audio: Tensor, duration_s: float) -> None:
    """Draw the span between the lowest and the highest sample of every column of pixels."""
    size = max(1, math.ceil(audio.shape[-1] / MAX_COLUMNS))
    columns = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % size)).unflatten(-1, (-1, size))
    times = (torch.arange(columns.shape[1]) + 0.5) / columns.shape[1] * duration_s
    names = ("left", "right") if len(audio) == 2 else [f"channel {i}" for i in range(len(audio))]
    for name, channel in zip(names, columns, strict=True):
        axes.fill_between(times, channel.amin(-1), channel.amax(-1), alpha=0.6, label=name)
    axes.set(ylabel="amplitude", xlim=(0, duration_s))
    if len(audio) > 1:
        axes.legend(loc="upper right")


def draw_spectrogram(axes: Any, audio: Tensor, sample_rate: int, duration_s: float) -> Any:
    """Draw the mean over channels of the log-mel levels, in dB of a full-scale sine."""
    levels = spectrogram_levels(audio, sample_rate)
    levels = levels[:, :: math.ceil(levels.shape[-1] / MAX_COLUMNS)]
    image = axes.imshow(
        levels.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0, duration_s, 0, levels.shape[0]),
        vmin=QUIETEST_DB,
        vmax=0,
        cmap="magma",
    )
    axes.set(xlabel="time (s)", ylabel="mel band")
    return image


def spectrogram_levels(audio: Tensor, sample_rate: int) -> Tensor:
    """Map (C, S) audio -> (M, F) log-mel levels, mean of channels, in dB of a full sine."""
    levels = LogMel(sample_rate, hop_length=sample_rate // 100)(audio[None]).mean(1)[0]
    return levels * (20 / math.log(10))


def draw_thumbnail(audio: Tensor, sample_rate: int, path: str | Path, columns: int = 480) -> Path:
    """Write the bare spectrogram of (C, S) audio, a PNG of so many columns and a pixel per band.

    Every column is the mean of its frames. The file appears only when it is whole.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    check_plotting()
    from matplotlib.image import imsave

    levels = spectrogram_levels(audio, sample_rate)
    levels = torch.nn.functional.adaptive_avg_pool1d(levels, columns)
    picture = io.BytesIO()
    imsave(
        picture,
        levels.numpy(),
        vmin=QUIETEST_DB,
        vmax=0,
        cmap="magma",
        format="png",
        origin="lower",
    )
    write_whole(path, picture.getvalue())
    return Path(path)


def save_picture(figure: Any, path: Path) -> Path:
    """Write a PNG that appears under its name only when it is whole."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    write_whole(path, picture.getvalue())
    return path
