"""Build the prior's input: encode prompts, complete plans, choose what guidance moves away from."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from codec.seeds import derive_seed
from pipelines.data.scores.keys import estimate_key
from pipelines.inference.text import MAX_TOKENS, encode_text
from prior.cadence import with_cadence
from prior.condition import Condition
from prior.form import frame_features
from prior.model import Prior
from prior.plan import FASTEST_BPM, INSTRUMENTS, PITCH_NAMES, SLOWEST_BPM, Plan
from prior.plan_draft import PlanDraft
from prior.planner import write_plan
from prior.theory import TRIADS

DRUMS = {True: "with drums", False: "no drums"}
PLAN_PROMPT_TOKENS = max(map(len, INSTRUMENTS)) + len(", F# minor, with drums") + 2
"""No tokenizer makes more of a plan's prompt, its marks of beginning and end included."""
STATED_TEMPO = re.compile(r"\b(\d+(?:\.\d+)?)[\s-]*(?:bpm\b|beats?\s+(?:per|a)\s+minute\b)", re.I)


@dataclass(frozen=True)
class PriorInput:
    """What a batch of pieces is generated from."""

    condition: Condition  # texts and plans, B rows
    negative: Condition | None  # texts to move away from; None for the unconditional prior
    plans: list[Plan | None]  # of each piece; None where there is none


@dataclass(frozen=True)
class Conditioner:
    """Turns prompts into what the prior reads, each item by itself, whatever the others are."""

    tokenizer: Any  # of the text encoder (transformers)
    text_encoder: nn.Module  # frozen (transformers)
    # a prior that writes plans; None leaves items without a plan that come without one
    planner: Prior | None
    reads_plan: bool  # whether the prior does
    frame_rate: float  # of the prior (Hz)
    reads_form: bool = False  # whether the prior reads sections and melody too

    def __call__(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str | None],
        plans: Sequence[Plan | PlanDraft | None],
        seeds: Sequence[int],
        duration_s: float,
        num_frames: int,
        rings_s: Sequence[float | None] | None = None,
    ) -> PriorInput:
        """Encode B prompts, complete their plans, and say some of each plan in words too.

        Args:
            prompts: at most ``MAX_TOKENS`` tokens each.
            negative_prompts: one per prompt, None for nothing.
            plans: one per prompt. What one does not fix, the planner writes from prompt and seed;
                a tempo that the prompt states in numbers is then taken as it is.
            seeds: one per prompt.
            duration_s: until when the planner's chords go on (s).
            num_frames: frames of the prior that the plans cover.
            rings_s: before which second each plan closes with a cadence; None for without one.

        Raises:
            ValueError: a prompt is too long, plans are not one per prompt, or the prior reads none.
        """
        if len(plans) != len(prompts):
            raise ValueError(f"plan must be one per item, got {len(plans)} for {len(prompts)}")
        if any(plans) and not self.reads_plan:
            raise ValueError("plan was given, but this pipeline's prior reads none")
        text = self.encode(prompts)
        rows = enumerate(zip(plans, prompts, seeds, strict=True))
        complete = [
            self.plan(text.row(index), prompt, duration_s, seed, PlanDraft.of(plan))
            for index, (plan, prompt, seed) in rows
        ]
        for plan in filter(None, complete):
            self.check_form(plan)
        for index, end_s in enumerate(rings_s or ()):
            if (closing := complete[index]) is not None and end_s is not None:
                complete[index] = with_cadence(closing, end_s)
        away = list(map(plan_negative_prompt, complete, negative_prompts))
        negative = self.encode(away) if any(away) else None
        if any(complete):
            said = list(map(plan_prompt, complete, negative_prompts))
            if any(said):
                text = text.followed_by(self.encode(said, PLAN_PROMPT_TOKENS))
            features = [
                frame_features(plan, num_frames, self.frame_rate, self.reads_form)
                for plan in complete
            ]
            text = replace(text, plan=torch.stack(features).to(text.text_states.device))
        return PriorInput(text, negative, complete)

    def check_form(self, plan: Plan) -> None:
        """Refuse a melody that the prior cannot read, and say where sections do only so much."""
        if self.reads_form:
            return
        if plan.melody:
            raise ValueError(
                "melody was given, but this pipeline's prior was not trained to read one"
            )
        if plan.sections:
            warnings.warn(
                "this pipeline's prior was not trained on sections: those that return have the "
                "same chords, but not the same tune",
                stacklevel=3,
            )

    def encode(self, prompts: Sequence[str], max_tokens: int = MAX_TOKENS) -> Condition:
        """Encode texts, each by itself; an empty one becomes a row without tokens."""
        encoded = {
            prompt: encode_text(self.tokenizer, self.text_encoder, [prompt], max_tokens)
            for prompt in dict.fromkeys(prompts)
        }
        return Condition.joined([encoded[prompt] for prompt in prompts])

    def plan(
        self,
        text: Condition,
        prompt: str,
        duration_s: float,
        seed: int,
        draft: PlanDraft | None = None,
    ) -> Plan | None:
        """Complete a draft from the encoded prompt, one row; None without planner and draft."""
        draft = draft or PlanDraft()
        if self.planner is None and not draft:
            return None
        if self.planner is None or draft.is_complete:
            return draft.completed(None, duration_s * draft.fixed.get("tempo_bpm", 0.0) / 60)
        tempo_bpm = None if "tempo_bpm" in draft.fixed else stated_tempo(prompt)
        if tempo_bpm is not None:
            draft = replace(draft, fixed={**draft.fixed, "tempo_bpm": tempo_bpm})
        if draft.has_chords and "tonic" not in draft.fixed:
            draft = replace(draft, fixed={**draft.fixed, **key_of_chords(draft)})
        seed = derive_seed(seed, "plan", prompt)
        return write_plan(self.planner, text, duration_s, seed, draft)


def key_of_chords(draft: PlanDraft) -> dict[str, Any]:
    """Estimate tonic and mode from the chords of a draft, in which nobody named the key."""
    weights = [0.0] * 12
    for chord in draft.completed(Plan(100.0), 0.0).chords:
        for step in TRIADS[chord.quality]:
            weights[(chord.root + step) % 12] += 1.0
    if not any(weights):
        return {}
    key, _ = estimate_key(weights)
    return {"tonic": key.root, "mode": key.mode}


def plan_prompt(plan: Plan | None, negative_prompt: str | None = None) -> str:
    """Say a plan's lead, key and drums in words, as "violin, D minor, no drums".

    A prior follows a short text more closely than numbers or a long text (docs/experiments.md).
    Empty beside a negative prompt, which the plan does not know of.
    """
    if plan is None or negative_prompt:
        return ""
    words = [*plan.instruments[:1]]
    if plan.tonic is not None and plan.mode is not None:
        words.append(f"{PITCH_NAMES[plan.tonic]} {plan.mode}")
    if plan.drums is not None:
        words.append(DRUMS[plan.drums])
    return ", ".join(words)


def plan_negative_prompt(plan: Plan | None, negative_prompt: str | None = None) -> str:
    """Return the negative prompt; without one, "no drums" where the plan has drums.

    Guidance then brings nearly all planned drums into the sound. The opposite ("with drums" where
    none are planned) moves away from the beat as well and loses the tempo (docs/experiments.md).

    Returns:
        A text; empty for the unconditional prior.
    """
    if negative_prompt or plan is None or not plan.drums:
        return negative_prompt or ""
    return DRUMS[False]


def stated_tempo(prompt: str) -> float | None:
    """Read beats a minute where a prompt states them ("92 bpm", "120 beats per minute").

    A number that no plan can have is left to the planner, with a warning.
    """
    found = STATED_TEMPO.search(prompt)
    if found is None:
        return None
    tempo_bpm = float(found[1])
    if SLOWEST_BPM <= tempo_bpm <= FASTEST_BPM:
        return tempo_bpm
    warnings.warn(
        f"a tempo must lie in [{SLOWEST_BPM}, {FASTEST_BPM}] bpm, got {found[1]}: ignored",
        stacklevel=2,
    )
    return None
