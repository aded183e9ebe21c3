"""Measure the drift of long pieces: loudness, brightness and key, window by window."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipelines.data.scores.keys import Key
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.detectors import Detectors
from pipelines.evaluation.facts import judge_key
from pipelines.evaluation.loudness import integrated_loudness
from pipelines.evaluation.prompts import Prompt
from pipelines.evaluation.takes import TakeMeasurer, pipeline_fingerprint

WINDOW_S = 10.0
LONG_S = (60.0, 240.0)
MINUTE_S = 60.0
# of a minute or less, and longer: one piece in three whose drums stop moves a mean by 2 LU
NUM_PIECES, NUM_LONG_PIECES = 9, 3
MEANS = (
    *("loudness_drift_lu", "loudness_range_lu", "brightness_drift_octaves"),
    *("key_kept", "key_asked"),
)


def measure_windows(audio: Tensor, sample_rate: int, detectors: Detectors) -> list[dict[str, Any]]:
    """Measure loudness (LUFS), spectral centroid (Hz) and key of consecutive windows of 10 s.

    A last window shorter than 5 s is left out.
    """
    width = round(WINDOW_S * sample_rate)
    windows: list[dict[str, Any]] = []
    for start in range(0, audio.shape[1], width):
        window = audio[:, start : start + width]
        if start and window.shape[1] < width // 2:
            break
        try:
            windows.append(
                {
                    "loudness_lufs": integrated_loudness(window, sample_rate),
                    "centroid_hz": spectral_centroid(window, sample_rate),
                    "key": detectors.detect(window, sample_rate).key,
                }
            )
        except UnmeasurableError as reason:
            windows.append({"reason": str(reason)})
    return windows


def spectral_centroid(audio: Tensor, sample_rate: int) -> float:
    """Average the frequency of the mono sum, weighted by magnitude, in Hz."""
    window = torch.hann_window(2048)
    spectrum = torch.stft(audio.mean(0), 2048, 1024, window=window, return_complex=True).abs()
    frequency = torch.linspace(0, sample_rate / 2, spectrum.shape[0])
    weight = spectrum.sum(1)
    return float((frequency * weight).sum() / weight.sum().clamp(min=1e-12))


def summarize_windows(windows: Sequence[dict[str, Any]], asked_key: Key | None) -> dict[str, Any]:
    """Summarize the drift of one piece.

    Returns:
        ``loudness_drift_lu`` and ``brightness_drift_octaves``: last quarter of the windows against
        the first; ``loudness_range_lu``: loudest against softest window; ``key_kept``: share of
        windows in the piece's commonest key; ``key_asked``: in the asked one, None without one;
        ``silent_windows``: those without sound.
    """
    sounding = [window for window in windows if "reason" not in window]
    result: dict[str, Any] = {"silent_windows": len(windows) - len(sounding)}
    if len(sounding) < 2:
        return result
    loudness = np.array([window["loudness_lufs"] for window in sounding])
    brightness = np.log2([window["centroid_hz"] for window in sounding])
    keys = [window["key"] for window in sounding]
    commonest = max(keys, key=keys.count)
    asked = [judge_key(key, asked_key)[0] for key in keys] if asked_key else []
    return result | {
        "loudness_drift_lu": _last_against_first(loudness),
        "loudness_range_lu": float(np.ptp(loudness)),
        "brightness_drift_octaves": _last_against_first(brightness),
        "key": commonest,
        "key_kept": keys.count(commonest) / len(windows),
        "key_asked": sum(asked) / len(windows) if asked_key else None,
    }


def _last_against_first(values: np.ndarray) -> float:
    quarter = max(1, len(values) // 4)
    return float(values[-quarter:].mean() - values[:quarter].mean())


def measure_drift(
    pipeline: Any,
    prompts: Sequence[Prompt],
    durations_s: Sequence[float],
    measurer: TakeMeasurer,
    quiet: bool = False,
) -> dict[str, Any]:
    """Generate long pieces of the first prompts, or take their windows from the cache.

    Returns:
        By duration, as text: ``pieces`` with their windows and drift, and ``mean`` over the pieces
        of the absolute drifts and of the shares; a reason where the pipeline refuses the length.
    """
    result: dict[str, Any] = {}
    identity = pipeline_fingerprint(pipeline)
    longest = pipeline.config.max_duration_s
    for duration_s in durations_s:
        name = f"{duration_s:g} s"
        if duration_s > longest:
            result[name] = {"reason": f"the pipeline's longest piece is {longest:g} s"}
            continue
        pieces = []
        count = NUM_PIECES if duration_s <= MINUTE_S else NUM_LONG_PIECES
        for prompt in tqdm(prompts[:count], desc=name, unit="piece", disable=quiet):
            key = measurer.key("long", identity, prompt.text, duration_s)
            piece = measurer.cache.get(key)
            if piece is None:
                song = pipeline(prompt.text, duration_s, 0, ending="cut")
                audio = song.audio[0].cpu()
                windows = measure_windows(audio, song.sample_rate, measurer.detectors)
                piece = measurer.cache.add(key, {"windows": windows})
            drift = summarize_windows(piece["windows"], prompt.wanted.key)
            pieces.append({"prompt": prompt.text, **piece, **drift})
        result[name] = {"pieces": pieces, "mean": mean_drift(pieces)}
    return result


def mean_drift(pieces: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Average over pieces the absolute drifts, and shares and ranges as they are."""
    means = {}
    for name in MEANS:
        values = [abs(piece[name]) for piece in pieces if piece.get(name) is not None]
        if values:
            means[name] = float(np.mean(values))
    return means
