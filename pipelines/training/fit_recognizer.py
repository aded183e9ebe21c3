"""Fit the recognizer in whose layers the codec's feature loss compares spectrograms.

It learns from scores rendered with ``partita prepare scores``, whose labels say in every token
frame who plays, which chord sounds and which note of the tune.
"""

import json
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from codec.recognizer import Recognizer
from codec.seeds import generator
from pipelines.data.clip_levels import (
    FRAME_RATE,
    FRAMES_PER_TOKEN,
    NUM_MELS,
    dequantize_spectrogram,
)
from pipelines.data.plans import plan_of_labels
from pipelines.data.prepared import read_levels
from pipelines.training.acceleration import choose_precision
from pipelines.training.codec_data import open_all
from prior.form import MELODY_WIDTH, SECTIONS_WIDTH, form_features
from prior.plan import HARMONY_WIDTH, INSTRUMENTS, Plan, plan_features

CHORD_WIDTH = 24
CROP_TOKENS = 80
BATCH = 32
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.02
TILT_NATS = 0.6
"""Most that the lowest or highest band is raised or lowered, so that mixes need not be alike."""
NOISE_NATS = 0.25
REPORT_EVERY = 100


class LabelledClip(NamedTuple):
    """Hold a clip's quantized levels (M, F) and its facts (F / 4, N), zeros and ones."""

    levels: Tensor
    facts: Tensor


class FittedRecognizer(NamedTuple):
    """Hold a recognizer, how many clips it learned from, and what it hears in others."""

    recognizer: Recognizer
    num_clips: int
    num_held_out: int
    leads: float  # share of the held-out token frames whose leading instrument scores highest


def fit_recognizer(
    prepared: list[str], steps: int, seed: int = 0, quiet: bool = False
) -> FittedRecognizer:
    """Fit a recognizer on the clips of prepared datasets that have a plan.

    Args:
        prepared: folders of rendered scores.
        steps: of 32 crops of 3.2 s.
        seed: of weights, crops and noise.
        quiet: show no progress.

    Raises:
        ValueError: no clip of a split has a plan.
    """
    torch.manual_seed(seed)
    clips, held_out = (read_clips(prepared, split) for split in ("train", "validation"))
    recognizer = Recognizer(num_facts=clips[0].facts.shape[-1])
    batches = draw_batches(clips, seed)
    optimizer = torch.optim.AdamW(recognizer.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    progress = tqdm(range(steps), unit="step", disable=quiet)
    for step in progress:
        loss = facts_loss(recognizer, *next(batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % REPORT_EVERY == 0:
            leads = judge(recognizer, held_out)
            progress.set_postfix(loss=f"{loss.item():.3f}", leads=f"{leads:.0%}")
    return FittedRecognizer(recognizer, len(clips), len(held_out), judge(recognizer, held_out))


def read_clips(prepared: list[str], split: str) -> list[LabelledClip]:
    """Read the clips that have a plan.

    Raises:
        ValueError: there are none.
    """
    rows = open_all(prepared, split)
    labels = (json.loads(text) if text else {} for text in rows["labels"])
    clips = []
    for row, plan in enumerate(map(plan_of_labels, labels)):
        if plan is None:
            continue
        levels = torch.from_numpy(read_levels(rows, row).copy())[0]
        clips.append(LabelledClip(levels, heard_facts(plan, levels.shape[-1] // FRAMES_PER_TOKEN)))
    if not clips:
        raise ValueError(f"no clip of {', '.join(prepared)} ({split}) has a plan")
    return clips


def heard_facts(plan: Plan, num_frames: int) -> Tensor:
    """Return what can be heard of a plan, (T, N): players, chord, tune; NaN where not known."""
    rate = FRAME_RATE / FRAMES_PER_TOKEN
    features = plan_features(plan, num_frames, rate)
    chord, players = (
        features[:, HARMONY_WIDTH - CHORD_WIDTH : HARMONY_WIDTH],
        features[:, HARMONY_WIDTH:],
    )
    tune = form_features(plan, num_frames, rate)[
        :, SECTIONS_WIDTH + 1 : SECTIONS_WIDTH + MELODY_WIDTH - 1
    ]
    unknown = [torch.full_like(part, math.nan) for part in (chord, tune)]
    return torch.cat(
        [players, chord if plan.chords else unknown[0], tune if plan.melody else unknown[1]], dim=1
    )


def draw_batches(clips: list[LabelledClip], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (B, M, F) levels and (B, F / 4, N) facts of random crops, long clips more often."""
    draws = generator(seed, "recognizer")
    lengths = torch.tensor([float(len(clip.facts)) for clip in clips])
    while True:
        chosen = torch.multinomial(lengths, BATCH, replacement=True, generator=draws).tolist()
        levels, facts = stack([crop(clips[index], draws) for index in chosen])
        tilts, noise = torch.rand(2, BATCH, 1, 1, generator=draws)
        slope = torch.linspace(-TILT_NATS, TILT_NATS, NUM_MELS)[:, None]
        grain = torch.randn(levels.shape, generator=draws)
        yield levels + (2 * tilts - 1) * slope + NOISE_NATS * noise * grain, facts


def crop(clip: LabelledClip, draws: torch.Generator) -> LabelledClip:
    """Cut 3.2 s from a clip, padded with silence of which nothing is known."""
    last = max(0, len(clip.facts) - CROP_TOKENS)
    start = int(torch.randint(last + 1, (), generator=draws))
    facts = clip.facts[start : start + CROP_TOKENS]
    begin, end = start * FRAMES_PER_TOKEN, (start + CROP_TOKENS) * FRAMES_PER_TOKEN
    levels = clip.levels[:, begin:end]
    missing = CROP_TOKENS - len(facts)
    return LabelledClip(
        F.pad(levels, (0, CROP_TOKENS * FRAMES_PER_TOKEN - levels.shape[-1])),
        F.pad(facts, (0, 0, 0, missing), value=math.nan),
    )


def stack(crops: list[LabelledClip]) -> tuple[Tensor, Tensor]:
    """Stack crops to (B, M, F) natural-log mel and (B, F / 4, N) facts."""
    levels = dequantize_spectrogram(torch.stack([crop.levels for crop in crops]).numpy())
    return levels, torch.stack([crop.facts for crop in crops])


def facts_loss(recognizer: Recognizer, levels: Tensor, facts: Tensor) -> Tensor:
    """Compute the cross entropy (nats) of the facts that are known."""
    fast = choose_precision("auto", levels.device) == "bf16"
    with torch.autocast(levels.device.type, torch.bfloat16, enabled=fast):
        logits = recognizer(levels).float()
    known = ~facts.isnan()
    return F.binary_cross_entropy_with_logits(logits[known], facts[known])


@torch.no_grad()
def judge(recognizer: Recognizer, clips: list[LabelledClip]) -> float:
    """Compute the share of token frames whose leading instrument scores highest."""
    recognizer.eval()
    draws = generator(0, "held out")
    levels, facts = stack([crop(clip, draws) for clip in clips])
    leads = slice(0, len(INSTRUMENTS))
    best = recognizer(levels)[..., leads].argmax(-1)
    truth = facts[..., leads]
    recognizer.train()
    right = truth.gather(-1, best[..., None])[truth.nansum(-1) > 0]
    return float(right.mean())
