"""Estimate the plan of recorded music, so that it can be edited: beats, key, chords, players.

Tempo, key, players and drums are the detectors' (:mod:`pipelines.evaluation.detectors`). The beat's
place is the one at which most begins; a bar begins where most chords change. One tempo is assumed.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from pipelines.data.scores.chords import best_triad, joined
from pipelines.evaluation import detector_features as features
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.detectors import Detected, load_detectors
from prior.plan import ChordChange, Plan
from prior.plan_draft import PlanDraft
from prior.theory import PITCH_CLASSES

CLEAREST = 0.25  # mean of the onset envelope at the beats below which there is no beat
PLAYING = 0.5  # probability above which an instrument counts as playing


def estimate_plan(audio: Tensor, sample_rate: int, draft: PlanDraft | None = None) -> Plan:
    """Estimate the plan of (C, S) audio of at least 3 s.

    What the draft holds is known and goes before what is found; tempo and meter help to find the
    rest.

    Raises:
        UnmeasurableError: silent, too short, or without a beat.
    """
    draft = draft or PlanDraft()
    detected = load_detectors().detect(audio, sample_rate)
    tempo_bpm = draft.fixed.get("tempo_bpm", detected.tempo_bpm)
    meter = draft.fixed.get("beats_per_bar", 4)
    onsets = mean_onsets(audio, sample_rate)
    tempo_bpm, first_s = find_beats(onsets, tempo_bpm, "tempo_bpm" not in draft.fixed)
    triads = enumerate(triads_at_beats(audio, sample_rate, tempo_bpm, first_s))
    changes = joined(ChordChange(float(beat), *triad) for beat, triad in triads if triad)
    upbeat = bar_start(changes, meter)
    first_beat = (meter - upbeat) % meter - first_s * tempo_bpm / 60
    shift = (meter - upbeat) % meter
    if first_beat < 0:
        first_beat, shift = first_beat + meter, shift + meter
    tonic, mode = detected.key.split()
    plan = Plan(
        round(tempo_bpm, 3),
        meter,
        PITCH_CLASSES[tonic],
        mode,
        tuple(replace(chord, beat=chord.beat + shift) for chord in changes),
        round(first_beat, 4),
        players(detected),
        detected.drums,
    )
    return draft.completed(plan, first_beat + audio.shape[-1] / sample_rate * tempo_bpm / 60)


def find_beats(envelope: Tensor, tempo_bpm: float, refine: bool) -> tuple[float, float]:
    """Place a comb of beats on an (F,) onset envelope at 100 frames a second.

    ``refine`` searches for the tempo within 1.5 % of ``tempo_bpm``.

    Returns:
        Beats a minute, and when the first beat falls (s).

    Raises:
        UnmeasurableError: nothing stands out at any place.
    """
    length = len(envelope)
    best = (-math.inf, tempo_bpm, 0.0)
    for percent in torch.linspace(-1.5, 1.5, 61).tolist() if refine else [0.0]:
        tempo = tempo_bpm * (1 + percent / 100)
        period = 60 * features.FRAME_RATE / tempo
        count = max(1, int(length / period) - 1)
        phases = torch.arange(0, period, 1.0)
        places = (phases[:, None] + torch.arange(count) * period).round().long()
        sums = envelope[places.clamp(max=length - 1)].mean(1)
        index = int(sums.argmax())
        best = max(best, (float(sums[index]), tempo, float(phases[index]) / features.FRAME_RATE))
    strength, tempo, first_s = best
    if not strength > CLEAREST * float(envelope.std()):
        raise UnmeasurableError("no beat was found in the source: name its tempo with bpm")
    return tempo, first_s


def mean_onsets(audio: Tensor, sample_rate: int) -> Tensor:
    """Average the onset envelopes of (C, S) audio: (F,) at 100 frames a second."""
    return features.onset_envelopes(features.mono_log_mel(audio, sample_rate)).mean(0)


def triads_at_beats(
    audio: Tensor, sample_rate: int, tempo_bpm: float, first_s: float = 0.0
) -> list[tuple[int, str] | None]:
    """Recognize the triad (root, quality) that covers most of each beat's chroma; None: silence."""
    chroma = chroma_of_beats(audio, sample_rate, tempo_bpm, first_s)
    totals = chroma.sum(1)
    return [
        best_triad((weights / total).tolist()) if total else None
        for weights, total in zip(chroma, totals, strict=True)
    ]


def chroma_of_beats(
    audio: Tensor, sample_rate: int, tempo_bpm: float, first_s: float = 0.0
) -> Tensor:
    """Sum the chroma of every beat of (C, S) audio: (beats, 12)."""
    chroma = features.peak_chroma(features.mono_samples(audio, sample_rate)).sum(0)
    frame_rate, beat_s = features.ANALYSIS_RATE / features.HOP_LENGTH, 60 / tempo_bpm
    count = max(1, int((chroma.shape[1] / frame_rate - first_s) / beat_s))
    edges = [round((first_s + beat * beat_s) * frame_rate) for beat in range(count + 1)]
    beats = [chroma[:, start : max(stop, start + 1)].sum(1) for start, stop in pairwise(edges)]
    return torch.stack(beats)


def bar_start(changes: Iterable[ChordChange], meter: int) -> int:
    """Find the beat, 0 to ``meter - 1``, that most chords change on: bars begin there."""
    counts = Counter(round(chord.beat) % meter for chord in changes if chord.beat > 0)
    return max(range(meter), key=lambda beat: (counts[beat], -beat))


def players(detected: Detected) -> tuple[str, ...]:
    """List the instruments that play, at most five, the likeliest to lead first."""
    lead = max(detected.leads, key=lambda name: detected.leads[name])
    others = [
        name
        for name, share in sorted(detected.probabilities.items(), key=lambda item: -item[1])
        if share > PLAYING and name not in (lead, "drums")
    ]
    return (lead, *others[:4])
