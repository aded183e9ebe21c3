"""Continue, fill in and vary: new tokens for a stretch of a piece, pasted into its own samples.

Outside the stretch every sample stays as it is, to the last bit. Inside it, the first and last
``CROSSFADE_S`` go over from the old samples to the new ones and back. A continuation has no old
samples behind the seam, so its cross-fade takes the last ``CROSSFADE_S`` of the source, or of what
comes before the fade of its ending, which is taken back.
"""

import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from codec.seeds import derive_seed
from pipelines.inference.call_arguments import spread_seeds
from pipelines.inference.crossfade import CROSSFADE_S, SampleSpan, bar_spans, paste
from pipelines.inference.edit_source import EditSource
from pipelines.inference.endings import FADE_S, with_ending
from pipelines.inference.piece_generator import PieceGenerator
from pipelines.inference.plan_schema import FLAG_FIELDS, PlanFields, PlanSource, draft_plan
from pipelines.music_output import MusicOutput, describe_call
from prior.condition import Condition
from prior.frame_generator import FrameGenerator
from prior.plan import Plan
from prior.plan_draft import PlanDraft, chords_between, lay_progression, repeated

CONTEXT_FRAMES = 1500
"""Frames before a stretch that the prior reads: a minute, more than it was trained on."""
FUTURE_FRAMES = 250  # frames behind a stretch that a prior with ``fills`` reads: 10 s
LEVEL_S = 2.0
"""Before and behind a stretch, where the level of the new samples is matched to the old."""
MAX_GAIN_DB = 12.0


class SoundOptions(PlanFields, total=False):
    """What every generation takes besides prompt and length; each as in ``Pipeline.__call__``."""

    seed: int | None
    decoder_seed: int | None
    negative_prompt: str | None
    guidance: float | None
    temperature: float | None
    num_inference_steps: int | None
    preview: bool
    callback_on_step_end: Callable[..., Any] | None
    plan: PlanSource


class EditOptions(SoundOptions, total=False):
    """What an edit takes besides its stretch; the prompt is the source's where none is given."""

    prompt: str | None


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a ``TypeError`` for an argument that no edit takes."""
    known = {*EditOptions.__optional_keys__}
    if wrong := options.keys() - known:
        raise TypeError(f"unexpected argument {min(wrong)!r}")


class Editor:
    """Edits a piece with one pipeline and one set of options (``EditOptions``).

    Raises:
        ValueError: an option is out of its range, or the source does not fit the prior.
    """

    def __init__(self, pipeline: PieceGenerator, source: EditSource, options: EditOptions) -> None:
        check_options(options)
        self.pipeline, self.source, self.options = pipeline, source, options
        self.codec, self.rate = pipeline.codec, pipeline.sample_rate
        self.books = pipeline.prior.num_codebooks
        if source.codes.shape[0] < self.books:
            raise ValueError(
                f"the source has {source.codes.shape[0]} codebooks, the prior writes {self.books}"
            )
        (self.seed,) = spread_seeds(options.get("seed"), 1, "seed")
        self.sampling = pipeline.sampling(
            options.get("temperature"), None, None, options.get("guidance")
        )
        steps = options.get("num_inference_steps") or source.num_inference_steps
        preview = options.get("preview") or (source.is_decoded and steps is None)
        self.steps = pipeline.check_steps(steps, bool(preview))
        decoder_seed = options.get("decoder_seed")
        self.decoder_seed = source.decoder_seed if decoder_seed is None else decoder_seed
        prompt = options.get("prompt")
        self.prompt = source.prompt if prompt is None else prompt
        self.draft = draft_plan(
            options.get("plan"), {name: options.get(name) for name in FLAG_FIELDS}
        )

    def extend(self, add_s: float) -> MusicOutput:
        """Append ``add_s`` seconds."""
        if not 0 < add_s < math.inf:
            raise ValueError(f"add_s must be positive, got {add_s}")
        start = self.source.audio.shape[-1]
        stop = start + max(1, round(add_s * self.rate))
        plan = self.extended_plan(start / self.rate, stop / self.rate)
        fade = min(round((CROSSFADE_S + FADE_S[self.source.ending]) * self.rate), start)
        span = SampleSpan(start - fade, stop)
        return self.regenerate([span], plan, {"add_s": add_s}, "cut", kept=fade)

    def inpaint(self, spans_s: Sequence[tuple[float, float]]) -> MusicOutput:
        """Replace stretches from one second to another."""
        end_s = self.source.audio.shape[-1] / self.rate
        spans: list[SampleSpan] = []
        if not spans_s:
            raise ValueError("inpaint needs a span: from_s and to_s")
        for from_s, to_s in sorted(spans_s):
            if not 0 <= from_s < to_s <= end_s + 1e-9:
                raise ValueError(
                    f"from_s and to_s must lie in the {end_s:.2f} s of the source, in this order, "
                    f"got {from_s} and {to_s}"
                )
            if spans and round(from_s * self.rate) < spans[-1].last:
                raise ValueError(f"spans must not overlap, got {from_s} before the end of another")
            spans.append(SampleSpan(round(from_s * self.rate), round(to_s * self.rate)))
        facts = {"spans_s": sorted(spans_s)}
        return self.regenerate(spans, self.whole_plan(end_s), facts, self.source.ending)

    def vary(self, strength: float) -> MusicOutput:
        """Write other notes in a share of the bars, drawn by the seed, under the same plan."""
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], got {strength}")
        length = self.source.audio.shape[-1]
        plan = self.whole_plan(length / self.rate)
        if plan is None:
            raise ValueError("a variation needs the source's plan: give bpm and chords")
        bars = bar_spans(plan, length, self.rate)
        count = max(1, round(strength * len(bars)))
        chosen = sorted(random.Random(derive_seed(self.seed, "vary")).sample(bars, count))
        joined: list[SampleSpan] = []
        for span in chosen:  # neighbors become one stretch, without a seam between them
            if joined and joined[-1].last == span.first:
                span = SampleSpan(joined.pop().first, span.last)
            joined.append(span)
        return self.regenerate(joined, plan, {"strength": strength}, self.source.ending)

    def whole_plan(self, seconds: float) -> Plan | None:
        """The source's plan with what the options fix; None where neither says anything."""
        plan = self.source.plan
        if plan is None and not self.draft:
            return None
        if plan is None:
            return self.draft.completed(None, seconds * self.draft.fixed.get("tempo_bpm", 0) / 60)
        num_beats = plan.first_beat + seconds * plan.tempo_bpm / 60
        return self.draft.completed(plan, num_beats)

    def extended_plan(self, seam_s: float, end_s: float) -> Plan | None:
        """The source's plan, whose chords begin again at the seam, or go over to the given ones."""
        plan = self.source.plan
        if plan is None:
            return self.whole_plan(end_s)
        for name in ("tempo_bpm", "beats_per_bar"):
            if self.draft.fixed.get(name, getattr(plan, name)) != getattr(plan, name):
                warnings.warn(f"{name} is the source's, {getattr(plan, name):g}", stacklevel=4)
        kept = {"tempo_bpm": plan.tempo_bpm, "beats_per_bar": plan.beats_per_bar}
        bar = plan.beats_per_bar
        seam = plan.first_beat + seam_s * plan.tempo_bpm / 60
        seam = math.floor(seam / bar + 1e-6) * bar  # the chords of a bar that was begun are new
        left = plan.first_beat + end_s * plan.tempo_bpm / 60 - seam
        if self.draft.progression:
            later = lay_progression(self.draft.progression, bar, left)
        elif "chords" in self.draft.fixed:
            later = repeated(self.draft.fixed["chords"], max(bar, seam), left)
        else:
            first = math.floor(plan.first_beat / bar) * bar
            earlier = chords_between(plan.chords, first, seam)
            earlier = tuple(replace(chord, beat=chord.beat - first) for chord in earlier)
            later = repeated(earlier, seam - first, left)
        later = tuple(replace(chord, beat=chord.beat + seam) for chord in later)
        chords = (*(chord for chord in plan.chords if chord.beat < seam), *later)
        fixed = {**self.draft.fixed, **kept, "chords": chords}
        return PlanDraft(fixed).completed(replace(plan, end_beat=None), 0.0)

    def regenerate(
        self,
        spans: list[SampleSpan],
        plan: Plan | None,
        facts: dict[str, Any],
        ending: str,
        kept: int = 0,
    ) -> MusicOutput:
        """Generate the frames of each span after what is before it, and paste their sound.

        The codes of the first ``kept`` samples of a span stay.
        """
        total = max(self.source.audio.shape[-1], spans[-1].last)
        num_frames = self.pipeline.num_frames(total / self.rate)
        reads_plan = self.pipeline.prior.config.reads_plan
        given = self.pipeline.conditioner(
            [self.prompt],
            [self.options.get("negative_prompt")],
            [plan if reads_plan else None],
            [self.seed],
            total / self.rate,
            num_frames,
        )
        codes = torch.zeros(1, self.books, num_frames, dtype=torch.long)
        known = self.source.codes[: self.books, :num_frames]
        codes[0, :, : known.shape[-1]] = known
        frame = self.rate / self.codec.frame_rate  # samples of a token frame
        for span in spans:
            first = math.floor((span.first + kept) / frame + 1e-6)
            last = min(num_frames, math.ceil(span.last / frame - 1e-6))
            codes[..., first:last] = self.fill(codes, first, last, given.condition, given.negative)
        sound = self.pipeline.decode(
            codes, self.decoder_seed, num_inference_steps=self.steps, preview=self.steps is None
        )
        audio = torch.zeros(self.source.audio.shape[0], total)
        audio[:, : self.source.audio.shape[-1]] = self.source.audio
        old, new = audio.clone(), with_ending(sound[0, :, :total].cpu(), self.rate, ending)
        for span in spans:
            gain = 1.0 if self.source.is_decoded else self.level_gain(new, span)
            paste(audio, old, new * gain, span, self.source.audio.shape[-1], self.rate)
        settings = describe_call(
            [self.prompt],
            self.options.get("negative_prompt"),
            total / self.rate,
            self.sampling,
            self.steps,
            self.steps is None,
        )
        settings |= {"edit": facts, "ending": ending}
        seeds = [self.seed], [self.decoder_seed]
        return self.pipeline.output_class(
            audio[None], self.rate, codes, *seeds, settings, given.plans
        )

    def fill(
        self, codes: Tensor, first: int, last: int, condition: Condition, negative: Condition | None
    ) -> Tensor:
        """(1, K, last - first) new codes after those before ``first``."""
        start, future = max(0, first - CONTEXT_FRAMES), None
        if self.pipeline.prior.config.get("fills") and last < codes.shape[-1]:
            future = codes[..., last : last + FUTURE_FRAMES]
        if condition.plan is not None:
            condition = replace(condition, plan=condition.plan[:, start : last + FUTURE_FRAMES])
        frames = FrameGenerator(
            self.pipeline.prior,
            condition,
            negative,
            last - first,
            self.sampling,
            [self.seed],
            codes[..., start:first],
            future_codes=future,
        )
        callback = self.options.get("callback_on_step_end")
        return self.pipeline.collect(frames, callback).cpu()

    def level_gain(self, new: Tensor, span: SampleSpan) -> float:
        """The factor that brings a decode to its source's level beside a span."""
        reach, old = round(LEVEL_S * self.rate), self.source.audio
        parts = [slice(max(0, span.first - reach), span.first)]
        parts += [slice(span.last, min(span.last + reach, old.shape[-1]))]
        wanted = sum(float(old[:, part].square().sum()) for part in parts)
        found = sum(float(new[:, part].square().sum()) for part in parts)
        limit = 10 ** (MAX_GAIN_DB / 20)
        return min(limit, max(1 / limit, math.sqrt(wanted / found))) if wanted and found else 1.0
