"""Render on one pipeline: the tokens of a batch, and the files of one item."""

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.audio_file import WriteReport, write_audio
from codec.process_settings import cpu_threads
from pipelines.data.codecs import hash_codec
from pipelines.inference.conditioning import PLAN_PROMPT_TOKENS
from pipelines.inference.endings import with_ending
from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.plan_schema import draft_plan, plan_json
from pipelines.inference.text import MAX_TOKENS
from pipelines.inference.token_file import TokenFile, token_bytes
from pipelines.rendering.edit_files import edit_file
from pipelines.rendering.item import RenderItem
from pipelines.rendering.mastering import MOST_LIMITING_DB, Mastered, master
from pipelines.rendering.origin import Origin
from pipelines.rendering.render_queue import (
    BatchTokens,
    RenderedFiles,
    RenderFailure,
    RenderTask,
    TaskResult,
)
from pipelines.rendering.tags import Provenance, provenance_tags
from prior.frame_generator import FrameGenerator
from prior.plan import Plan

TEXT_LENGTH = MAX_TOKENS + PLAN_PROMPT_TOKENS
"""Tokens that every text is padded to: sums over another length may be taken in another order."""


class Renderer:
    """Perform tasks on one pipeline, as many at once as threads ask it to.

    Every task computes on one thread of the CPU, so that no bit of the result depends on how many
    there are. Once ``stopped`` is set, tasks under way fail at their next frame or window.
    """

    def __init__(self, pipeline: MusicGenerator, origin: Origin) -> None:
        self.pipeline = pipeline
        self.origin = origin
        self.codec_hash = hash_codec(pipeline.codec)
        self.stopped = threading.Event()

    def perform(self, task: RenderTask) -> TaskResult:
        """Do a task; whatever goes wrong in it is its result."""
        try:
            with cpu_threads(1):
                if task.items[0].source:
                    return self.edit(task.items[0])
                return self.generate(task) if task.codes is None else self.decode(task)
        except Exception as error:
            return failure(error)

    def generate(self, task: RenderTask) -> BatchTokens:
        """Generate the tokens of a batch."""
        start = time.perf_counter()
        frames, plans = start_frames(self.pipeline, task.items, max(task.frames), task.num_rows)
        rows = torch.stack(list(self.until_stopped(frames)), dim=-1).cpu().numpy()  # (B, K, T)
        codes = tuple(
            row[:, :length].astype("<i4") for row, length in zip(rows, task.frames, strict=False)
        )
        written = tuple(
            None if plan is None else plan_json(plan.until(item.settings.duration_s))
            for item, plan in zip(task.items, plans, strict=True)
        )
        return BatchTokens(codes, written, time.perf_counter() - start)

    @torch.no_grad()
    def decode(self, task: RenderTask) -> RenderedFiles:
        """Turn an item's tokens into sound at its level, and into its two files."""
        assert task.codes is not None
        (item,), pipeline, rate = task.items, self.pipeline, self.pipeline.sample_rate
        start = time.perf_counter()
        codes = torch.from_numpy(task.codes.astype(np.int64))
        num_samples = round(item.settings.duration_s * rate)
        steps = pipeline.check_steps(item.settings.num_inference_steps, item.settings.preview)
        blocks = [codes[None].to(pipeline.codec.device)]  # alone, so that no other item matters
        pieces = pipeline.decode_stream(blocks, [item.decoder_seed], steps)
        audio = torch.cat(list(self.until_stopped(pieces)), dim=-1)[0, :, :num_samples].cpu()
        audio = with_ending(audio, rate, item.settings.ending)
        return self.finish(item, audio, codes, task.plan, task.prior_s, start)

    @torch.no_grad()
    def edit(self, item: RenderItem) -> RenderedFiles:
        """Edit an item's source."""
        start, made = time.perf_counter(), item.settings
        assert made.edit is not None
        numbers = {name: value for name, value in made.edit.items() if name.endswith("_s")}
        stretch: dict[str, Any] = {"strength": made.edit.get("strength")}
        if "to_s" in numbers:
            stretch = {"spans_s": [(numbers["from_s"], numbers["to_s"])]}
        elif numbers:
            stretch = numbers
        options = {
            "seed": item.seed,
            "negative_prompt": item.negative_prompt,
            "guidance": made.guidance,
            "temperature": made.temperature,
            "num_inference_steps": made.num_inference_steps,
            "preview": made.preview,
            "plan": made.plan,
        }
        song = edit_file(self.pipeline, item.source, stretch, options, item.prompt or None)
        plan = song.plans[0]
        written = None if plan is None else plan_json(plan)
        return self.finish(item, song.audio[0], song.codes[0], written, 0.0, start)

    def finish(
        self,
        item: RenderItem,
        audio: Tensor,
        codes: Tensor,
        plan: dict[str, Any] | None,
        prior_s: float,
        start: float,
    ) -> RenderedFiles:
        """Bring a piece to its level and write its two files."""
        rate, num_samples = self.pipeline.sample_rate, audio.shape[-1]
        decoded = time.perf_counter()
        loudness_lufs = item.settings.loudness_lufs
        mastered = master(audio, rate, loudness_lufs, most_limiting_db=MOST_LIMITING_DB)
        stream = io.BytesIO()
        tags = provenance_tags(self.provenance(item), item.settings.format)
        report = write_audio(stream, mastered.audio, rate, format=item.settings.format, tags=tags)
        tokens = token_bytes(self.token_file(item, codes, num_samples, plan))
        facts = self.facts(mastered, report) | {
            "plan": plan,
            "timings": {
                "prior_s": round(prior_s, 4),
                "decoder_s": round(decoded - start, 4),
                "write_s": round(time.perf_counter() - decoded, 4),
            },
            "audio_sha256": hashlib.sha256(stream.getbuffer()).hexdigest(),
            "tokens_sha256": hashlib.sha256(tokens).hexdigest(),
        }
        return RenderedFiles(stream.getvalue(), tokens, facts)

    def until_stopped(self, pieces: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield the pieces, or raise InterruptedError once the job is stopped."""
        for piece in pieces:
            if self.stopped.is_set():
                raise InterruptedError("stopped")
            yield piece

    def provenance(self, item: RenderItem) -> Provenance:
        """Return what an item's audio file says about how it came about."""
        return Provenance(
            generator=f"partita {dict(self.origin.versions).get('partita', '')}".strip(),
            pipeline=self.origin.name,
            pipeline_hash=self.origin.hash,
            license=self.origin.license,
            **item.identity(),
        )

    def facts(self, mastered: Mastered, report: WriteReport) -> dict[str, Any]:
        """Return what the manifest says about the sound and where it was made."""
        device = self.pipeline.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        return {
            "duration_s": mastered.audio.shape[-1] / self.pipeline.sample_rate,
            "sample_rate": report.sample_rate,
            "channels": mastered.audio.shape[0],
            "loudness_lufs": mastered.loudness_lufs,
            "true_peak_db": mastered.true_peak_db,
            "gain_db": mastered.gain_db,
            "notes": [*mastered.notes, *report.notes],
            "machine": {"device": name},
        }

    def token_file(
        self, item: RenderItem, codes: Tensor, num_samples: int, plan: dict[str, Any] | None
    ) -> TokenFile:
        """Make the token file of an item, as ``partita generate --tokens`` writes it."""
        codec = self.pipeline.codec
        settings = asdict(item.settings)
        settings |= {"negative_prompt": item.negative_prompt, "plan": plan}
        for name in ("format", "loudness_lufs", "codes"):  # of the audio file, not of the tokens
            del settings[name]
        return TokenFile(
            codes,
            self.codec_hash,
            codec.frame_rate,
            self.pipeline.sample_rate,
            num_samples,
            item.prompt,
            item.seed,
            item.decoder_seed,
            settings,
        )


def failure(error: Exception) -> RenderFailure:
    """Report an exception in one line."""
    return RenderFailure(" ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":"))


def start_frames(
    pipeline: MusicGenerator, items: tuple[RenderItem, ...], num_frames: int, num_rows: int
) -> tuple[Iterator[Tensor], list[Plan | None]]:
    """Plan items that share their sampling settings, and generate their tokens frame by frame.

    Every shape that the prior sees follows from ``num_rows`` alone: rows are filled up with copies
    of the first item, texts with masked tokens.

    Returns:
        An iterator over (``num_rows``, K) codes, those of the items first; and the items' plans.
    """
    filled = items + items[:1] * (num_rows - len(items))
    settings = items[0].settings
    sampling = pipeline.sampling(
        settings.temperature, settings.top_k, settings.top_p, settings.guidance
    )
    seeds = [item.seed or 0 for item in filled]
    prompts = [item.prompt for item in filled]
    negatives = [item.negative_prompt for item in filled]
    duration_s = num_frames / pipeline.codec.frame_rate
    plans = [draft_plan(item.settings.plan) for item in filled]
    made = [item.settings for item in filled]
    rings_s = [one.duration_s if one.ending == "ring" else None for one in made]
    given = pipeline.conditioner(prompts, negatives, plans, seeds, duration_s, num_frames, rings_s)
    condition = given.condition.padded(TEXT_LENGTH)
    frames = FrameGenerator(pipeline.prior, condition, given.negative, num_frames, sampling, seeds)
    return (frame.codes for frame in frames), given.plans[: len(items)]
