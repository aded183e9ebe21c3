"""Paste a stretch of sound into another, with cross-fades inside the stretch."""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from prior.plan import Plan

CROSSFADE_S = 0.05


class SampleSpan(NamedTuple):
    """Samples ``first`` to ``last - 1``."""

    first: int
    last: int


def bar_spans(plan: Plan, num_samples: int, rate: int) -> list[SampleSpan]:
    """Return the bars of a plan within a piece, in samples; the last one may be cut off."""
    beat_s = 60 / plan.tempo_bpm
    first = math.ceil(plan.first_beat / plan.beats_per_bar - 1e-9)
    last = plan.first_beat + num_samples / rate / beat_s
    beats = range(first * plan.beats_per_bar, math.ceil(last), plan.beats_per_bar)
    edges = [round((beat - plan.first_beat) * beat_s * rate) for beat in beats]
    edges = [edge for edge in dict.fromkeys([0, *edges, num_samples]) if edge <= num_samples]
    return [SampleSpan(*pair) for pair in itertools.pairwise(edges)]


def paste(
    audio: Tensor, old: Tensor, new: Tensor, span: SampleSpan, old_end: int, rate: int
) -> None:
    """Put (C, S) ``new`` into ``audio`` within a span, with cross-fades from and to ``old``."""
    audio[:, span.first : span.last] = new[:, span.first : span.last]
    fade = min(round(CROSSFADE_S * rate), (span.last - span.first) // 2)
    if span.first > 0 and fade:
        at = slice(span.first, span.first + fade)
        audio[:, at] = crossfaded(old[:, at], new[:, at])
    if span.last < old_end and fade:
        at = slice(span.last - fade, span.last)
        audio[:, at] = crossfaded(new[:, at], old[:, at])


def crossfaded(before: Tensor, after: Tensor) -> Tensor:
    """Go over from one (C, S) to another at a power that stays, however much they are alike."""
    rising = (torch.arange(before.shape[-1]) + 0.5) / before.shape[-1]
    power = before.square().sum() * after.square().sum()
    alike = float((before * after).sum() / power.sqrt()) if float(power) else 1.0
    scale = (rising**2 + (1 - rising) ** 2 + 2 * max(0.0, alike) * rising * (1 - rising)).rsqrt()
    return (before * (1 - rising) + after * rising) * scale
