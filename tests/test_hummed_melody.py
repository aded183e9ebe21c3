"""Humming into the notes of a plan."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.data.scores.melody_file import held_notes, on_grid
from pipelines.inference.plan_schema import draft_plan
from prior.plan import MelodyNote

RATE = 22_050


def hum(path: Path, pitches: list[int | None], cents: float = 30.0) -> None:
    """Write half a second of every pitch, out of tune and with vibrato; None is a rest."""
    time_s = np.arange(RATE // 2) / RATE
    parts = []
    for pitch in pitches:
        vibrato = 0.2 * np.sin(2 * np.pi * 5.5 * time_s)
        hertz = 440 * 2 ** (((pitch or 0) + cents / 100 + vibrato - 69) / 12)
        phase = 2 * np.pi * np.cumsum(hertz) / RATE
        tone = sum(np.sin(k * phase) / k for k in range(1, 6)) * np.hanning(len(time_s)) ** 0.2
        parts.append((0.2 * tone if pitch else 0 * tone) + 0.001 * np.sin(9.0 * phase))
    soundfile.write(path, np.concatenate(parts), RATE)


def test_a_hummed_tune_becomes_notes_in_beats(tmp_path):
    pytest.importorskip("librosa")
    hum(tmp_path / "tune.wav", [60, 62, 64, None, 60])
    melody = draft_plan(None, {"melody": str(tmp_path / "tune.wav"), "bpm": 120}).fixed["melody"]
    assert [note.pitch for note in melody] == [60, 62, 64, 60]
    assert [note.beat for note in melody] == pytest.approx([0, 1, 2, 4], abs=0.25)


def test_humming_without_a_tempo_or_a_voice_is_refused(tmp_path):
    hum(tmp_path / "tune.wav", [60])
    with pytest.raises(ValueError, match="a hummed tune does not say its tempo"):
        draft_plan(None, {"melody": str(tmp_path / "tune.wav")})
    pytest.importorskip("librosa")
    soundfile.write(tmp_path / "still.wav", np.zeros(RATE), RATE)
    with pytest.raises(ValueError, match="holds no notes"):
        draft_plan(None, {"melody": str(tmp_path / "still.wav"), "bpm": 90})


def test_a_pitch_that_is_held_is_a_note():
    pitch = np.concatenate([np.full(40, 60.3), np.full(3, 66.0), np.full(30, 61.6), [np.nan] * 20])
    assert [(n, p) for _, n, p in held_notes(pitch)] == [(40, 60), (33, 62)]
    assert on_grid([(0.02, 0.9, 60), (1.1, 0.01, 62)]) == (
        MelodyNote(0.0, 1.0, 60),
        MelodyNote(1.0, 0.25, 62),
    )
