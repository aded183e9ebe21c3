"""Write plans from text with a small prior, one item at a time."""

import math
import warnings
from dataclasses import replace

import torch

from prior.condition import Condition
from prior.frame_generator import FrameGenerator
from prior.model import Prior
from prior.plan import Plan
from prior.plan_codes import (
    CODEBOOK_SIZE,
    FASTEST,
    HEAD_FRAMES,
    NUM_BOOKS,
    SLOWEST,
    chord_beats,
    decode_plan,
    encode_tempo,
)
from prior.sampling import Sampling

SAMPLING = Sampling(temperature=0.5, top_k=20, top_p=0.9, guidance=1.0)
"""Keep what a prompt names, which is nearly certain, and draw the rest from what is likely."""
MAX_CHORDS = 62
"""Most chords in a planner's training plans; in a longer piece the list repeats."""


def write_plan(
    planner: Prior,
    text: Condition,
    duration_s: float,
    seed: int,
    tempo_bpm: float | None = None,
) -> Plan:
    """Plan a piece.

    Args:
        planner: a prior over ``plan_codes``.
        text: one row.
        duration_s: the chords go on at least until then (s).
        seed: equal texts and seeds give equal plans; a longer duration only adds chords.
        tempo_bpm: beats a minute that are fixed; None lets the planner choose. One that has no code
            is kept, with a warning, and the chords are chosen as for the nearest that has one.

    Raises:
        ValueError: the prior does not write plans.
    """
    check_planner(planner)
    head = torch.zeros(1, NUM_BOOKS, 0, dtype=torch.long)
    if tempo_bpm is not None:
        coded_bpm = min(max(tempo_bpm, SLOWEST), FASTEST)
        if coded_bpm != tempo_bpm:
            warnings.warn(
                f"a planner knows tempi in [{SLOWEST:g}, {FASTEST:g}] bpm, got {tempo_bpm:g}: "
                f"chords are chosen as for {coded_bpm:g}",
                stacklevel=2,
            )
        head = torch.tensor(encode_tempo(coded_bpm))[None, :, None]
    num_frames = HEAD_FRAMES + MAX_CHORDS - head.shape[-1]
    generator = FrameGenerator(planner, text, None, num_frames, SAMPLING, [seed], head)
    frames = list(head[0].unbind(-1))
    beats = wanted = 0.0
    while len(frames) < HEAD_FRAMES or beats < wanted:
        frame = next(generator, None)
        if frame is None:
            break
        frames.append(frame.codes[0].cpu())
        if len(frames) == HEAD_FRAMES:
            plan = decode_plan(torch.stack(frames, dim=1))
            wanted = duration_s * (tempo_bpm or plan.tempo_bpm) / 60
        elif len(frames) > HEAD_FRAMES:
            beats += chord_beats(int(frames[-1][1]))
    plan = repeated(decode_plan(torch.stack(frames, dim=1)), beats, wanted)
    return replace(plan, tempo_bpm=tempo_bpm or plan.tempo_bpm)


def repeated(plan: Plan, length: float, num_beats: float) -> Plan:
    """The plan with its chords, ``length`` beats in all, over again until ``num_beats``."""
    rounds = math.ceil(num_beats / length) if length else 1
    chords = [
        replace(chord, beat=chord.beat + number * length)
        for number in range(rounds)
        for chord in plan.chords
    ]
    return replace(plan, chords=tuple(chords))


def check_planner(planner: Prior) -> None:
    """Raise a ``ValueError`` unless a prior writes the codebooks of ``plan_codes``."""
    found = planner.config["num_codebooks"], planner.config["codebook_size"]
    if found != (NUM_BOOKS, CODEBOOK_SIZE):
        raise ValueError(
            f"a planner writes {NUM_BOOKS} books of {CODEBOOK_SIZE} codes, "
            f"got {found[0]} of {found[1]}"
        )
