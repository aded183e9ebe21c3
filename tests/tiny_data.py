"""A prepared dataset of chords, a codec and its token cache, small enough for every test."""

import math
from pathlib import Path

import torch
from tiny_pipeline import tiny_codec, tiny_pipeline

from codec.seeds import generator
from pipelines.data.clip_levels import analysis, analyze, pad_frames
from pipelines.data.prepared import Clip, PreparedWriter, finish_dataset
from pipelines.data.token_cache import build_token_cache

CLIPS = {"train": 5, "validation": 2}
CLIP_S = 2.0


def chord(seed: int, duration_s: float = CLIP_S, sample_rate: int = 44100) -> torch.Tensor:
    """(2, S) float32: three decaying tones and a little noise, panned."""
    draws = generator(seed, "chord")
    time = torch.arange(round(duration_s * sample_rate)) / sample_rate
    tones = 110 * 2 ** (torch.randint(36, (3,), generator=draws) / 12)
    wave = sum(torch.sin(2 * math.pi * float(tone) * time) for tone in tones) * torch.exp(-time)
    wave = 0.2 * wave + 0.01 * torch.randn(len(time), generator=draws)
    left = float(torch.rand((), generator=draws))
    return torch.stack([wave * left, wave * (1 - left)]).float()


def write_prepared(folder: Path, labels: str = "{}") -> Path:
    """Five training clips and two held-out ones of two seconds, captioned and labeled."""
    for split, count in CLIPS.items():
        with PreparedWriter(folder, split) as writer:
            for index in range(count):
                padded = analysis().log_mel.pad(chord(hash_of(split, index)))
                levels, stereo = analyze(padded)
                writer.add(
                    Clip(
                        id=f"{split}-{index}",
                        track=f"{split}-{index}",
                        start_s=0.0,
                        duration_s=CLIP_S,
                        spectrogram=pad_frames(levels),
                        stereo=stereo,
                        captions=[f"chord {index}", "three tones"],
                        labels=labels,
                        source="generated",
                        license="CC0-1.0",
                        is_end=True,
                    )
                )
    finish_dataset(folder, {})
    return folder


def hash_of(split: str, index: int) -> int:
    """A chord's seed."""
    return index if split == "train" else 100 + index


def write_parts(folder: Path, labels: str = "{}") -> dict[str, str]:
    """Prepared data, a codec, its tokens and a text encoder; their folders by name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = tiny_codec()
    codec.save_pretrained(folder / "codec")
    write_prepared(folder / "prepared", labels)
    build_token_cache(folder / "prepared", codec, folder / "tokens", quiet=True)
    tiny_pipeline().save_pretrained(folder / "pipeline")
    return {name: str(folder / name) for name in ("prepared", "codec", "tokens", "pipeline")}
