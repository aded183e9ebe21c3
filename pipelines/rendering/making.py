"""The work itself, on one pipeline: tokens of a batch, and the files of one item."""

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from codec.audio_file import WriteReport, write_audio
from codec.process_settings import cpu_threads
from pipelines.data.tokens import hash_codec
from pipelines.inference.brief import BRIEF_TOKENS
from pipelines.inference.text import MAX_TOKENS
from pipelines.inference.token_file import TokenFile, token_bytes
from pipelines.rendering.agenda import Failed, Finished, Task, Written, pack
from pipelines.rendering.item import RenderItem
from pipelines.rendering.mastering import Mastered, master
from pipelines.rendering.origin import Origin
from pipelines.rendering.tags import Provenance, provenance_tags
from prior.condition import Condition
from prior.generate import generate
from prior.sampling import Sampling

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline

TEXT_LENGTH = MAX_TOKENS + BRIEF_TOKENS
"""Tokens that every text is padded to: sums over another length may be taken in another order."""


class Maker:
    """Performs tasks on one pipeline, as many at once as threads ask it to.

    Every task computes on one thread of the CPU, so that no bit of what comes out depends on how
    many there are.

    Args:
        pipeline: on the device it is to run on.
        origin: of the pipeline.

    Attributes:
        stopped: once it is set, tasks under way fail at their next frame or window.
    """

    def __init__(self, pipeline: "Pipeline", origin: Origin) -> None:
        self.pipeline = pipeline
        self.origin = origin
        self.codec_hash = hash_codec(pipeline.codec)
        self.stopped = threading.Event()

    def perform(self, task: Task) -> Written | Finished | Failed:
        """Do a task; whatever goes wrong in it is its result."""
        try:
            with cpu_threads(1):
                return self.write(task) if task.codes is None else self.finish(task)
        except Exception as error:
            text = " ".join(str(error).split())
            return Failed(f"{type(error).__name__}: {text}" if text else type(error).__name__)

    def write(self, task: Task) -> Written:
        """The tokens of a batch."""
        start = time.perf_counter()
        written = write_frames(self.pipeline, task.items, max(task.frames), task.num_rows)
        rows = torch.stack(list(self.until_stopped(written)), dim=-1)  # (B, K, T)
        codes = tuple(pack(row[:, :frames]) for row, frames in zip(rows, task.frames, strict=False))
        return Written(codes, time.perf_counter() - start)

    @torch.no_grad()
    def finish(self, task: Task) -> Finished:
        """Tokens to sound, its level, and the two files."""
        assert task.codes is not None
        item, codec = task.items[0], self.pipeline.codec
        start = time.perf_counter()
        codes = torch.from_numpy(task.codes.astype(np.int64))
        num_samples = round(item.settings.duration_s * codec.sample_rate)
        pieces = decode(self.pipeline, item, codes)
        audio = torch.cat(list(self.until_stopped(pieces)), dim=-1)[0, :, :num_samples].cpu()
        decoded = time.perf_counter()
        mastered = master(audio, codec.sample_rate, item.settings.loudness_lufs)
        stream = io.BytesIO()
        report = self.encode(stream, item, mastered)
        tokens = token_bytes(self.describe_tokens(item, codes, num_samples))
        timings = {
            "prior_s": round(task.prior_s, 4),
            "decoder_s": round(decoded - start, 4),
            "write_s": round(time.perf_counter() - decoded, 4),
        }
        facts = self.facts(mastered, report) | {"timings": timings}
        hashes = {
            "audio_sha256": hashlib.sha256(stream.getbuffer()).hexdigest(),
            "tokens_sha256": hashlib.sha256(tokens).hexdigest(),
        }
        return Finished(stream.getvalue(), tokens, facts | hashes)

    def until_stopped(self, pieces: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same pieces.

        Raises:
            InterruptedError: the job is stopped.
        """
        for piece in pieces:
            if self.stopped.is_set():
                raise InterruptedError("stopped")
            yield piece

    def encode(self, stream: io.BytesIO, item: RenderItem, mastered: Mastered) -> WriteReport:
        """Write the audio file with its provenance."""
        provenance = Provenance(
            generator=f"partita {dict(self.origin.versions).get('partita', '')}".strip(),
            pipeline=self.origin.name,
            pipeline_hash=self.origin.hash,
            license=self.origin.license,
            **item.identity(),
        )
        format = item.settings.format
        tags = provenance_tags(provenance, format)
        rate = self.pipeline.codec.sample_rate
        return write_audio(stream, mastered.audio, rate, format=format, tags=tags)

    def facts(self, mastered: Mastered, report: WriteReport) -> dict[str, Any]:
        """What the manifest says about the sound and where it was made."""
        device = self.pipeline.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        return {
            "duration_s": mastered.audio.shape[-1] / self.pipeline.codec.sample_rate,
            "sample_rate": report.sample_rate,
            "channels": mastered.audio.shape[0],
            "loudness_lufs": mastered.loudness_lufs,
            "true_peak_db": mastered.true_peak_db,
            "gain_db": mastered.gain_db,
            "notes": [*mastered.notes, *report.notes],
            "machine": {"device": name},
        }

    def describe_tokens(self, item: RenderItem, codes: Tensor, num_samples: int) -> TokenFile:
        """The token file of an item, as ``partita generate --tokens`` writes it."""
        codec = self.pipeline.codec
        settings = asdict(item.settings) | {"negative_prompt": item.negative_prompt}
        for name in ("format", "loudness_lufs", "codes"):  # of the audio file, not of the tokens
            del settings[name]
        return TokenFile(
            codes,
            self.codec_hash,
            codec.frame_rate,
            codec.sample_rate,
            num_samples,
            item.prompt,
            item.seed,
            item.decoder_seed,
            settings,
        )


def decode(pipeline: "Pipeline", item: RenderItem, codes: Tensor) -> Iterator[Tensor]:
    """(K, T) codes -> (1, C, s) pieces of audio, alone, so that no other item changes a bit."""
    settings = item.settings
    steps = pipeline.check_steps(settings.num_inference_steps, settings.preview)
    blocks = [codes[None].to(pipeline.codec.device)]
    return pipeline.decode_stream(blocks, [item.decoder_seed], steps)


def write_frames(
    pipeline: "Pipeline", items: tuple[RenderItem, ...], num_frames: int, num_rows: int
) -> Iterator[Tensor]:
    """The tokens of items that share their sampling settings, frame by frame.

    Every shape that the prior sees follows from ``num_rows`` alone: rows are filled up with copies
    of the first item, texts with masked tokens.

    Yields:
        (``num_rows``, K) codes; those of the items come first.
    """
    filled = items + items[:1] * (num_rows - len(items))
    settings = items[0].settings
    sampling = Sampling(
        settings.temperature, settings.top_k, settings.top_p, guidance=settings.guidance
    )
    seeds = [item.seed or 0 for item in filled]
    prompts = [item.prompt for item in filled]
    text = encode_texts(pipeline, prompts)
    plans = pipeline.plan_items(prompts, text, num_frames / pipeline.codec.frame_rate, seeds)
    negatives = [item.negative_prompt for item in filled]
    text, negative = pipeline.told(text, plans, num_frames, negatives)
    text = text.padded(TEXT_LENGTH)
    for frame in generate(pipeline.prior, text, negative, num_frames, sampling, seeds):
        yield frame.codes


def encode_texts(pipeline: "Pipeline", texts: list[str]) -> Condition:
    """Texts padded to the longest that there may be."""
    return pipeline.encode_prompts(texts).padded(TEXT_LENGTH)
