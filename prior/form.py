"""Sections, melody and the distance to the end, frame by frame, for a prior that reads them."""

import torch
from torch import Tensor

from prior.plan import SECTIONS, Plan, beats_a_frame, plan_features

SECTIONS_WIDTH = len(SECTIONS) + 2
MELODY_WIDTH = 3 + 12 + 1
FORM_WIDTH = SECTIONS_WIDTH + MELODY_WIDTH + 2
"""F, numbers a frame: section, place within it, times it came before; melody known, sounding,
begun, pitch class, height; end known, distance to it."""
LONGEST_RETURN = 4
END_S = 64.0


def frame_features(
    plan: Plan | None, num_frames: int, frame_rate: float, reads_form: bool
) -> Tensor:
    """Return what a prior reads of a plan: (T, P), or (T, P + F) if it reads the form too."""
    features = plan_features(plan, num_frames, frame_rate)
    if not reads_form:
        return features
    return torch.cat([features, form_features(plan, num_frames, frame_rate)], dim=1)


def form_features(plan: Plan | None, num_frames: int, frame_rate: float) -> Tensor:
    """Write a plan's form as numbers, (T, F) float32 in [-1, 1]; zeros: nothing is known."""
    features = torch.zeros(num_frames, FORM_WIDTH)
    if plan is None:
        return features
    times = torch.arange(num_frames, dtype=torch.float64) / frame_rate
    beats = plan.first_beat + times * plan.tempo_bpm / 60  # (T,)
    sections, melody, end = features.split((SECTIONS_WIDTH, MELODY_WIDTH, 2), dim=1)  # views
    start, earlier = 0.0, dict.fromkeys(SECTIONS, 0)
    for section in plan.sections:
        stop = start + section.bars * plan.beats_per_bar
        inside = (beats >= start - 1e-9) & (beats < stop - 1e-9)
        sections[inside, SECTIONS.index(section.name)] = 1.0
        sections[inside, -2] = ((beats[inside] - start) / (stop - start)).float()
        sections[inside, -1] = min(earlier[section.name], LONGEST_RETURN) / LONGEST_RETURN
        earlier[section.name] += 1
        start = stop
    if plan.melody:
        fill_melody(melody, plan, beats, beats_a_frame(plan, frame_rate))
    if plan.end_beat is not None:
        left_s = (plan.end_beat - beats).clamp(min=0) * 60 / plan.tempo_bpm
        end[:, 0] = 1.0
        end[:, 1] = (1 - (1 + left_s.clamp(max=END_S - 1)).log2() / 6).float()  # 1 at the end
    return features


def fill_melody(features: Tensor, plan: Plan, beats: Tensor, ahead: float) -> None:
    """Write the melody into (T, ``MELODY_WIDTH``) features of frames at ``beats`` (T,).

    A note is written into the frame in which it begins; a frame lasts ``ahead`` beats.
    """
    starts = torch.tensor([note.beat for note in plan.melody], dtype=torch.float64)
    ends = torch.tensor([note.beat + note.beats for note in plan.melody], dtype=torch.float64)
    pitches = torch.tensor([note.pitch for note in plan.melody])
    before, begun = (torch.searchsorted(starts, beats + at - 1e-9) for at in (0.0, ahead))  # (T,)
    last = (begun - 1).clamp(min=0)
    sounding = (begun > 0) & (beats < ends[last] - 1e-9)
    frames, pitch = sounding.nonzero()[:, 0], pitches[last[sounding]]
    features[:, 0] = 1.0
    features[frames, 1] = 1.0
    features[:, 2] = (begun > before).float()
    features[frames, 3 + pitch % 12] = 1.0
    features[frames, -1] = (pitch.float() - 64) / 64
