"""What an adapter gains on held-out tracks of its album, and what the base model forgets."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.audio_file import read_audio
from pipelines.data.recordings.tracks import Track
from pipelines.evaluation.embeddings import logmel_statistics
from pipelines.evaluation.frechet import equal_windows, frechet_distance
from pipelines.evaluation.held_out import nats_per_code
from pipelines.evaluation.prior_report import BITS, PriorReportSettings, report_prior
from pipelines.evaluation.prompts import choose_prompts, read_prompts
from pipelines.inference.music_generator import MusicGenerator

TAKE_S = 10.0
PROMPTS = 12
TAKES = 12


def compare(
    base: MusicGenerator, adapter: Path, tokens: Path, tracks: list[Track]
) -> dict[str, Any]:
    """Measure a pipeline without and with an adapter; ``base`` has none before and afterwards.

    The reports on the prior go into ``reports`` in the adapter's folder.

    Returns:
        By figure ``[before, after]``: bits a frame of held-out clips, of the base model's own
        music for prompts that have nothing to do with the album, and Fréchet distance of takes for
        the album's captions to the album, each a list of two; and how much each was taken from.
    """
    texts = [prompt.text for prompt in choose_prompts(read_prompts(), limit=PROMPTS)]
    captions = [t.metadata["captions"][0] for t in tracks]
    captions = [captions[index % len(captions)] for index in range(TAKES)]
    sounds = (read_audio(track.open()) for track in tracks)
    album = np.concatenate([logmel_statistics(clip.audio, clip.sample_rate) for clip in sounds])
    own = base(texts, TAKE_S, seed=0, preview=True)
    figures: dict[str, Any] = {"held_out_bits": [], "base_bits": [], "frechet": []}
    try:
        for name in ("before", "after"):
            if name == "after":
                base.load_lora_weights(adapter)
            settings = PriorReportSettings(adapter / "reports" / name, (str(tokens),), quiet=True)
            parts = base.prior, base.tokenizer, base.text_encoder
            report = report_prior(*parts, settings, f"{adapter.name}, {name}")
            figures["held_out_bits"].append(report["frame"]["own caption"]["mean"])
            figures["base_bits"].append(own_bits(base, texts, own.codes, own.plans, own.seeds))
            takes = base(captions, TAKE_S, seed=1)
            windows = [logmel_statistics(audio, takes.sample_rate) for audio in takes.audio.cpu()]
            sets = equal_windows(album, np.concatenate(windows))
            figures["frechet"].append(frechet_distance(*sets))
    finally:
        base.unload_lora_weights()
    sizes = {"held_out_clips": report["num_clips"], "windows": len(sets[0]), "prompts": len(texts)}
    return figures | sizes


@torch.inference_mode()
def own_bits(
    pipeline: MusicGenerator, texts: list[str], codes: Tensor, plans: list[Any], seeds: list[int]
) -> float:
    """Measure the bits a frame of codes that the base model wrote for these texts and plans."""
    frames = codes.shape[-1]
    duration_s = frames / pipeline.codec.frame_rate
    given = pipeline.conditioner(texts, [None] * len(texts), plans, seeds, duration_s, frames)
    nats = nats_per_code(pipeline.prior, codes, given.condition)
    return float(nats.sum(1).mean()) * BITS


def describe_figures(figures: dict[str, Any]) -> list[str]:
    """Write figures as lines."""
    names = {
        "held_out_bits": f"bits a frame, {figures['held_out_clips']} held-out clips of the album",
        "base_bits": f"bits a frame, the base model's music for {figures['prompts']} other prompts",
        "frechet": f"Fréchet distance to the album, {figures['windows']} windows each",
    }
    return [f"{text}: {figures[n][0]:.2f} -> {figures[n][1]:.2f}" for n, text in names.items()]
