"""Write plans from text with a small prior, one item at a time."""

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prior.condition import Condition
from prior.frame_generator import FrameGenerator
from prior.model import Prior
from prior.plan import Plan
from prior.plan_codes import (
    CODEBOOK_SIZE,
    FASTEST,
    HEAD_FRAMES,
    METERS,
    NO_INSTRUMENT,
    NUM_BOOKS,
    SLOWEST,
    chord_beats,
    decode_plan,
    encode_plan,
)
from prior.plan_draft import PlanDraft, form_beats, repeated
from prior.sampling import Sampling

SAMPLING = Sampling(temperature=0.5, top_k=20, top_p=0.9, guidance=1.0)
"""Keep what a prompt names, which is nearly certain, and draw the rest from what is likely."""
MAX_CHORDS = 62  # most chords in a planner's training plans; in a longer piece the list repeats
HEAD_FIELDS = (
    *(("tempo_bpm",), ("beats_per_bar", "tonic", "mode"), ("instruments", "drums")),
    *(("instruments",), ("instruments",)),
)
"""What each frame of a plan's head holds, by the names of ``Plan``'s attributes."""


def write_plan(
    planner: Prior, text: Condition, duration_s: float, seed: int, draft: PlanDraft | None = None
) -> Plan:
    """Plan a piece.

    Args:
        planner: a prior over ``plan_codes``.
        text: one row.
        duration_s: the chords go on at least until then (s).
        seed: equal texts and seeds give equal plans; a longer duration only adds chords.
        draft: what is fixed; the planner chooses the rest as it fits. A tempo or meter that has no
            code is kept, with a warning, and the rest is chosen as for the nearest that has one.

    Raises:
        ValueError: the prior does not write plans.
    """
    check_planner(planner)
    draft = draft or PlanDraft()
    codes = PlanCodes(planner, text, seed)
    coded = coded_fields(draft)
    for fields in HEAD_FIELDS:
        fix_frame(codes, fields, coded)
    plan = decode_plan(codes.written())
    tempo_bpm = draft.fixed.get("tempo_bpm", plan.tempo_bpm)
    form = form_beats(draft.fixed.get("sections", ()), plan.beats_per_bar)
    wanted, beats = max(duration_s * tempo_bpm / 60, form), 0.0
    while not draft.has_chords and beats < wanted and codes.draw():
        beats += chord_beats(int(codes.frames[-1][1]))
    plan = decode_plan(codes.written())
    plan = replace(plan, chords=repeated(plan.chords, beats, wanted))
    return draft.completed(plan, wanted)


class PlanCodes:
    """The frames of a plan, drawn one by one; a frame that is put in is read by the next draw."""

    def __init__(self, planner: Prior, text: Condition, seed: int) -> None:
        self.planner, self.text, self.seed = planner, text, seed
        self.frames: list[Tensor] = []  # (2,) each
        self.generator: FrameGenerator | None = None

    def draw(self) -> bool:
        """Append the next frame; False where the planner has come to its end."""
        if self.generator is None:
            left = HEAD_FRAMES + MAX_CHORDS - len(self.frames)
            if not left:
                return False
            given = (SAMPLING, [self.seed], self.written()[None])
            self.generator = FrameGenerator(self.planner, self.text, None, left, *given)
        frame = next(self.generator, None)
        if frame is not None:
            self.frames.append(frame.codes[0].cpu())
        return frame is not None

    def put(self, index: int, frame: Tensor) -> None:
        """Write frame ``index``, the last one or a new one."""
        self.frames[index:] = [frame]
        self.generator = None

    def written(self) -> Tensor:
        """Return the frames so far, (2, T) int64."""
        empty = torch.zeros(NUM_BOOKS, 0, dtype=torch.long)
        return torch.stack(self.frames, dim=1) if self.frames else empty


def fix_frame(codes: PlanCodes, fields: tuple[str, ...], coded: dict[str, Any]) -> None:
    """Append the next frame of the head: drawn, with the fields that are fixed put in."""
    index = len(codes.frames)
    if not coded.keys() >= {*fields} and not codes.draw():
        raise ValueError("the planner ended before its plan had begun")
    fixed = {name: coded[name] for name in fields if name in coded}
    if fixed:
        missing = torch.full((NUM_BOOKS, HEAD_FRAMES - len(codes.frames)), NO_INSTRUMENT)
        plan = decode_plan(torch.cat([codes.written(), missing], dim=1))
        tempo_bpm = min(max(plan.tempo_bpm, SLOWEST), FASTEST)  # rounding may have left the range
        changed = replace(plan, **{"tempo_bpm": tempo_bpm, **fixed})
        codes.put(index, encode_plan(changed, 0)[:, index])


def coded_fields(draft: PlanDraft) -> dict[str, Any]:
    """Return what a draft fixes of a plan's head, at the nearest value that has a code."""
    head = {name for fields in HEAD_FIELDS for name in fields}
    coded = {name: value for name, value in draft.fixed.items() if name in head}
    for name, value in coded.items():
        if name == "tempo_bpm":
            coded[name] = min(max(value, SLOWEST), FASTEST)
            said = f"tempi in [{SLOWEST:g}, {FASTEST:g}] bpm"
        elif name == "beats_per_bar" and value not in METERS:
            coded[name] = METERS[0]
            said = f"bars of {', '.join(map(str, METERS))} beats"
        if coded[name] != value:
            warnings.warn(
                f"a planner knows {said}, got {value:g}: chords are chosen as for {coded[name]:g}",
                stacklevel=3,
            )
    return coded


def check_planner(planner: Prior) -> None:
    """Raise a ``ValueError`` unless a prior writes the codebooks of ``plan_codes``."""
    found = planner.config["num_codebooks"], planner.config["codebook_size"]
    if found != (NUM_BOOKS, CODEBOOK_SIZE):
        raise ValueError(
            f"a planner writes {NUM_BOOKS} books of {CODEBOOK_SIZE} codes, "
            f"got {found[0]} of {found[1]}"
        )
