"""A folder of MIDI files and a rendered dataset, composed here, small enough for every test."""

import json
import random
from pathlib import Path

import numpy as np

from pipelines.data.prepared import Clip, PreparedWriter, finish_dataset
from pipelines.data.scores.compose import compose
from pipelines.data.scores.score_jobs import ScoreJob, compose_piece
from pipelines.data.scores.score_midi import write_midi
from pipelines.data.scores.score_sound import clip_labels

SETTINGS = {"command": "prepare scores", "seed": 5, "sources": ["generated"]}


def write_midi_folder(folder: Path, count: int = 4) -> Path:
    """Composed pieces, the first two of them captioned."""
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"piece-{index}.mid").write_bytes(write_midi(compose(random.Random(index))))
    rows = [{"file_name": f"piece-{index}.mid", "text": f"tune {index}"} for index in range(2)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_rendered(folder: Path, pieces: dict[str, list[int]]) -> Path:
    """What ``prepare scores`` leaves behind, with silence where the sound would be."""
    silence = np.zeros((1, 128, 4), dtype=np.uint8), np.zeros((2, 32, 1), dtype=np.uint8)
    for split, indices in pieces.items():
        with PreparedWriter(folder, split) as writer:
            for index in indices:
                score = compose_piece(ScoreJob(5, index, ("generated",)))
                for number, start_s in enumerate(np.arange(0.0, score.duration_s - 5, 20.0)):
                    labels = clip_labels(score, start_s, start_s + 20.0)
                    writer.add(
                        Clip(
                            f"scores-5-{index:07d}-{number}",
                            f"scores-5-{index:07d}",
                            float(start_s),
                            20.0,
                            *silence,
                            [f"piece {index}"],
                            json.dumps(labels),
                            source="scores:generated",
                            is_end=start_s + 20.0 >= score.duration_s,
                        )
                    )
    finish_dataset(folder, SETTINGS)
    return folder
