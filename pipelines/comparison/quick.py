"""The study in minutes on made-up data: every measurement runs, no figure means anything."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from codec.seeds import derive_seed
from pipelines.comparison.pieces import Piece, cache_info, write_cache
from pipelines.comparison.settings import (
    Budget,
    Complexity,
    Context,
    Generation,
    Recall,
    Rung,
    Scaling,
    Settings,
    Throughput,
)
from pipelines.comparison.streams import repeating_stream

ENSEMBLES = ("solo", "duo", "band")
TRACKS, CLIPS, CLIP_FRAMES, BOOKS, ALPHABET = 6, 4, 250, 2, 32


def quick_settings(settings: Settings) -> Settings:
    """The same study with two seeds, priors of thousands of parameters and a few updates.

    The document and everything computed go to ``OUTPUT_DIR-quick``.
    """
    folder = Path(f"{settings.output_dir}-quick")
    tokens = made_up_cache(folder / "data" / "made-up")
    small = {"num_layers": 2, "num_heads": 2, "depth_width": 16, "depth_layers": 1}
    return replace(
        settings,
        output_dir=str(folder),
        document=str(folder / "report.md"),
        seeds=settings.seeds[:2],
        parameters=150_000,
        tolerance=0.2,
        codec=None,
        pipeline=None,
        model=settings.model | small | {"depth_heads": 2, "num_codebooks": BOOKS},
        ladder=quick_ladder(settings, tokens),
        ladder_budget=Budget(6, 4, 100),
        throughput=Throughput([64, 128, 256], 512, 2),
        recall=Recall(60_000, 16, 8, [Budget(3, 4, 64), Budget(2, 2, 128)], [1.0, 4.0], 2),
        scaling=Scaling([100_000, 150_000], [0.5, 1.0], 2e9, 4, 64, 50),
        context=Context([tokens], Budget(3, 4, 100), Budget(2, 2, 500), 1000, 50, 100, [6.0, 30.0]),
        complexity=Complexity(2, 20, 0),
        generation=Generation([16, 64], 8, 2),
        carriage=replace(settings.carriage, scores=None, recordings=None),
        optimization=replace(settings.optimization, validations=2, validation_clips=4),
    )


def quick_ladder(settings: Settings, tokens: str) -> list[Rung]:
    """The two backbones on the made-up codes."""
    (first, one), (second, other) = [*settings.backbones.items()][:2]
    named = Rung(f"made-up codes, {first}", [tokens], model=one)
    return [named, Rung(f"made-up codes, {second}", [tokens], model=other, against=named.name)]


def made_up_cache(folder: Path) -> str:
    """Tracks of clips that repeat themselves, labeled and captioned like rendered scores."""
    splits = {
        split: [clip for track in range(TRACKS) for clip in made_up_track(split, track)]
        for split in ("train", "validation")
    }
    return write_cache(folder, splits, cache_info("made up", BOOKS, ALPHABET))


def made_up_track(split: str, track: int) -> list[Piece]:
    """One track's clips; its second book follows from the first, so that there is something to
    learn."""
    seed = derive_seed(0, "made up", split)
    first = repeating_stream(seed, track, CLIPS * CLIP_FRAMES, ALPHABET)
    codes = np.concatenate([first, (first * 5 + 1) % ALPHABET])
    ensemble = ENSEMBLES[track % len(ENSEMBLES)]
    labels = json.dumps({"ensemble": ensemble})
    return [
        Piece(
            f"{split}-{track}-{number}",
            codes[:, number * CLIP_FRAMES : (number + 1) * CLIP_FRAMES],
            [f"made-up codes, {ensemble}"],
            labels,
            "made up",
            number == CLIPS - 1,
        )
        for number in range(CLIPS)
    ]
