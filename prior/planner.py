"""Write plans from text with a small prior, one item at a time."""

import math
from dataclasses import replace

import torch

from prior.generate import Writer
from prior.model import Prior
from prior.plan import Plan
from prior.plan_codes import CODEBOOK_SIZE, NUM_BOOKS, chord_beats, decode_plan
from prior.sampling import Sampling
from prior.text_condition import TextCondition

SAMPLING = Sampling(temperature=0.7, top_k=20, top_p=0.9, guidance=1.0)
"""What a prompt names is nearly certain and stays so; the rest is drawn from what is likely."""
MAX_CHORDS = 63
"""As many as a planner learns from; in a longer piece they return."""


def write_plan(planner: Prior, text: TextCondition, duration_s: float, seed: int) -> Plan:
    """Plan a piece.

    Args:
        planner: a prior over ``plan_codes``.
        text: one row.
        duration_s: the chords go on at least until then (s).
        seed: equal texts and seeds give equal plans; a longer duration only adds chords.

    Raises:
        ValueError: the prior does not write plans.
    """
    check_planner(planner)
    writer = Writer(planner, text, None, MAX_CHORDS + 1, SAMPLING, [seed])
    frames: list[torch.Tensor] = []
    beats = wanted = 0.0
    while not frames or beats < wanted:
        frame = writer.write()
        if frame is None:
            break
        codes = frame.codes[0].cpu()
        frames.append(codes)
        if len(frames) == 1:
            wanted = duration_s * decode_plan(codes[:, None]).tempo_bpm / 60
        else:
            beats += chord_beats(int(codes[1]))
    return repeated(decode_plan(torch.stack(frames, dim=1)), beats, wanted)


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
    """Raise a ``ValueError`` unless a prior writes the books of ``plan_codes``."""
    found = planner.config["num_codebooks"], planner.config["codebook_size"]
    if found != (NUM_BOOKS, CODEBOOK_SIZE):
        raise ValueError(
            f"a planner writes {NUM_BOOKS} books of {CODEBOOK_SIZE} codes, "
            f"got {found[0]} of {found[1]}"
        )
