"""Plans as codes, so that a prior can write them: tempo, key, instruments, then chord by chord.

A planner is a ``Prior`` of ``NUM_BOOKS`` codebooks of ``CODEBOOK_SIZE`` codes under text: "score
first, then sound", with the same network, loss and sampling as for sound.
"""

import itertools
import math

import torch
from torch import Tensor

from prior.plan import INSTRUMENTS, QUALITIES, ChordChange, Plan
from prior.theory import MODES

NUM_BOOKS = 2
CODEBOOK_SIZE = 128
HEAD_FRAMES = 5
SLOWEST, FASTEST = 40.0, 240.0
"""Beats a minute; the tempi between them that have a code lie 1.4 % apart."""
TEMPI = 128
TEMPI_PER_RANGE = 8
METERS = (4, 3, 2)  # beats in a bar
KEYS = 12 * len(MODES) + 1  # the last one stands for a key that is not known
STEPS_PER_BEAT = 2
NO_INSTRUMENT = len(INSTRUMENTS)
ACCOMPANYING = 4  # instruments beside the lead that have a place; further ones are left out
DRUMS = (None, False, True)


def encode_plan(plan: Plan, num_beats: float) -> Tensor:
    """Turn a plan into codes.

    ===== ================= ==========================
    frame codebook 0            codebook 1
    ===== ================= ==========================
    0     range of tempi    tempo within the range
    1     meter and key     0
    2     lead              drums
    3     second instrument third
    4     fourth            fifth
    5...  root and quality  length in half beats, less 1
    ===== ================= ==========================

    Args:
        plan: from its first beat on; ``first_beat`` must be 0.
        num_beats: until when the last chord sounds.

    Returns:
        (2, T) int64 in [0, 128), T = 5 + chords.

    Raises:
        ValueError: a tempo or meter that has no code.
    """
    if plan.beats_per_bar not in METERS:
        raise ValueError(f"beats_per_bar must be one of {METERS}, got {plan.beats_per_bar}")
    assert plan.first_beat == 0
    key = KEYS - 1
    if plan.tonic is not None and plan.mode is not None:
        key = MODES.index(plan.mode) * 12 + plan.tonic
    playing = [INSTRUMENTS.index(name) for name in plan.instruments]
    playing = (playing + [NO_INSTRUMENT] * (1 + ACCOMPANYING))[: 1 + ACCOMPANYING]
    frames = [
        encode_tempo(plan.tempo_bpm),
        (METERS.index(plan.beats_per_bar) * KEYS + key, 0),
        (playing[0], DRUMS.index(plan.drums)),
        (playing[1], playing[2]),
        (playing[3], playing[4]),
    ]
    ends = [*(chord.beat for chord in plan.chords), num_beats][1:]
    for chord, end in zip(plan.chords, ends, strict=True):
        steps = min(max(1, round((end - chord.beat) * STEPS_PER_BEAT)), CODEBOOK_SIZE)
        frames.append((chord.root * len(QUALITIES) + QUALITIES.index(chord.quality), steps - 1))
    return torch.tensor(frames).T.contiguous()


def decode_plan(codes: Tensor) -> Plan:
    """Turn codes back into a plan; those that no plan has stand for their neighbors.

    Args:
        codes: (2, T) int64 in [0, 128), T at least 5.
    """
    tempo, head, (lead, drums), *others = codes[:, :HEAD_FRAMES].T.tolist()
    meter, key = divmod(min(head[0], len(METERS) * KEYS - 1), KEYS)
    known = key < KEYS - 1
    chords, beat = [], 0.0
    for code, steps in codes[:, HEAD_FRAMES:].T.tolist():
        root, quality = divmod(code, len(QUALITIES))
        chords.append(ChordChange(beat, root % 12, QUALITIES[quality]))
        beat += chord_beats(steps)
    return Plan(
        tempo_bpm=decode_tempo(tempo[0], tempo[1]),
        beats_per_bar=METERS[meter],
        tonic=key % 12 if known else None,
        mode=MODES[key // 12] if known else None,
        chords=tuple(chords),
        instruments=named_instruments([lead, *itertools.chain(*others)]),
        drums=DRUMS[min(drums, len(DRUMS) - 1)],
    )


def named_instruments(codes: list[int]) -> tuple[str, ...]:
    """Return each instrument once, in the order of its first code."""
    known = (INSTRUMENTS[code] for code in codes if code < NO_INSTRUMENT)
    return tuple(dict.fromkeys(known))


def encode_tempo(tempo_bpm: float) -> tuple[int, int]:
    """Return the two codes of the nearest of the tempi, evenly spaced in their logarithm.

    Raises:
        ValueError: slower than ``SLOWEST`` or faster than ``FASTEST``.
    """
    if not SLOWEST <= tempo_bpm <= FASTEST:
        raise ValueError(f"tempo_bpm must lie in [{SLOWEST}, {FASTEST}], got {tempo_bpm}")
    share = math.log(tempo_bpm / SLOWEST) / math.log(FASTEST / SLOWEST)
    return divmod(round(share * (TEMPI - 1)), TEMPI_PER_RANGE)


def decode_tempo(tempo_range: int, place: int) -> float:
    """Return the beats a minute of a tempo's two codes."""
    index = min(tempo_range * TEMPI_PER_RANGE + min(place, TEMPI_PER_RANGE - 1), TEMPI - 1)
    return SLOWEST * (FASTEST / SLOWEST) ** (index / (TEMPI - 1))


def chord_beats(code: int) -> float:
    """Return the number of beats that a chord's code in codebook 1 stands for."""
    return (code + 1) / STEPS_PER_BEAT
