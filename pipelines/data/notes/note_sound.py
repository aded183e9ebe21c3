"""Play notes with FluidSynth and a General MIDI soundfont."""

from pathlib import Path
from typing import Any

import numpy as np
import symusic
from symusic.core import ScoreTick

from pipelines.data.midi_file import NUM_PITCHED_CHANNELS, hold_apart, midi_bytes
from pipelines.data.scores import score_sound

REVERB_SIZE = 0.4


def play(score: ScoreTick, soundfont: Path = score_sound.SOUNDFONT) -> np.ndarray:
    """Play a score as (2, S) float32 at 44,100 Hz, of moderate loudness, peaks below 0.95.

    MIDI has fifteen channels for pitched instruments: where a score has more, groups of them are
    played one after the other and added.

    Raises:
        FileNotFoundError: FluidSynth or the soundfont is missing; names the Debian package.
        ValueError: the score has no notes.
        RenderError: FluidSynth failed.
    """
    if not score.note_num():
        raise ValueError("a score without notes cannot be played")
    score_sound.check_programs(["fluidsynth"], soundfont)
    files = [midi_bytes(group, score_sound.TAIL_S) for group in channel_groups(score)]
    parts = [score_sound.run_fluidsynth(midi, REVERB_SIZE, soundfont) for midi in files]
    audio = np.zeros((2, max(part.shape[1] for part in parts)), dtype=np.float32)
    for part in parts:
        audio[:, : part.shape[1]] += part
    if not audio.any():
        raise ValueError("the score is silent: its notes are outside what the soundfont plays")
    return score_sound.trim_end(score_sound.normalize(audio, score_sound.TARGET_DB["moderate"]))


def channel_groups(score: ScoreTick) -> list[ScoreTick]:
    """Split a score into some of at most fifteen pitched tracks each, the drums in the first."""
    tracks = hold_apart(score).tracks
    drums = [track for track in tracks if track.is_drum]
    pitched = [track for track in tracks if not track.is_drum]
    size = NUM_PITCHED_CHANNELS
    batches = [pitched[i : i + size] for i in range(0, len(pitched), size)] or [[]]
    groups = []
    for index, batch in enumerate(batches):
        group: Any = symusic.Score(score.ticks_per_quarter)
        group.tempos.extend(score.tempos)
        group.tracks.extend([*batch, *(drums if index == 0 else [])])
        groups.append(group)
    return groups
