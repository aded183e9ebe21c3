"""Small recordings on disk, and the settings that cut them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pipelines.data.recordings.prepare_config import PrepareConfig

RATE = 44_100


class StoppedError(Exception):
    """Stand in for a kill."""


def stop_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that it raises ``StoppedError`` after some calls."""
    done = 0

    def stopping(*args: Any, **values: Any) -> Any:
        nonlocal done
        done += 1
        if done > calls:
            raise StoppedError
        return function(*args, **values)

    return stopping


def melody(seed: int, duration_s: float, rate: int = RATE) -> np.ndarray:
    """A stereo melody of decaying notes over a little noise, different for every seed."""
    rng = np.random.default_rng(seed)
    audio = 0.01 * rng.standard_normal((round(duration_s * rate), 2))
    time = np.arange(rate // 2) / rate
    harmonics = np.arange(1, 9)[:, None]
    start = 0
    while start < len(audio):
        frequency = 110 * 2 ** (rng.integers(0, 36) / 12)
        tone = (np.sin(2 * np.pi * frequency * harmonics * time) / harmonics).sum(0)
        note = (0.15 * np.exp(-6 * time) * tone)[: len(audio) - start]
        audio[start : start + len(note)] += note[:, None] * rng.uniform(0.4, 1.0, 2)
        start += int(rng.integers(rate // 10, rate // 3))
    return (0.7 * audio / np.abs(audio).max()).astype(np.float32)


def save(path: Path, audio: np.ndarray, rate: int = RATE, **tags: str) -> Path:
    """Write (S, C) samples with tags, folders made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", rate, audio.shape[1]) as file:
        for tag, text in tags.items():
            setattr(file, tag, text)
        file.write(audio)
    return path


def config(folder: Path, output: Path, **values) -> PrepareConfig:
    """Clips of 2 s, quietly."""
    defaults = {"clip_s": 2.0, "min_clip_s": 1.0, "min_track_s": 1.0, "quiet": True}
    return PrepareConfig(str(folder), str(output), **(defaults | values))
