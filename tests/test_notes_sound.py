"""Notes to sound: what is played on which channel, and what is missing."""

from pathlib import Path

import numpy as np
import pytest
import symusic

from pipelines.data.midi_file import midi_bytes, read_midi
from pipelines.data.notes.note_sound import channel_groups, play
from pipelines.data.scores import score_sound
from pipelines.data.scores.score_sound import SAMPLE_RATE


def score_of_programs(programs: list[int], with_drums: bool = False):
    """A second of one chord, a note per program."""
    score = symusic.Score(24)
    for program in programs:
        track = symusic.Track(program=program)
        track.notes.append(symusic.Note(0, 48, 60, 90))
        score.tracks.append(track)
    if with_drums:
        drums = symusic.Track(is_drum=True)
        drums.notes.append(symusic.Note(0, 12, 36, 100))
        score.tracks.append(drums)
    return score


def test_sixteen_pitched_programs_are_played_in_two_goes():
    groups = channel_groups(score_of_programs(list(range(16)), with_drums=True))
    assert [len(group.tracks) for group in groups] == [16, 1]
    assert [track.program for track in groups[1].tracks] == [15]
    with pytest.warns(UserWarning, match="16 pitched tracks share the 15 channels"):
        midi_bytes(score_of_programs(list(range(16))))
    (drums_alone,) = channel_groups(score_of_programs([], with_drums=True))
    assert drums_alone.tracks[0].is_drum


def test_a_note_inside_another_has_a_channel_of_its_own():
    score = symusic.Score(24)
    track = symusic.Track()
    track.notes.extend([symusic.Note(0, 40, 60, 90), symusic.Note(10, 10, 60, 50)])
    score.tracks.append(track)
    (group,) = channel_groups(score)
    assert [len(voice.notes) for voice in group.tracks] == [1, 1]
    back = read_midi(midi_bytes(score))
    assert {(n.start, n.duration) for t in back.tracks for n in t.notes} == {(0, 40), (10, 10)}


def test_the_file_lasts_until_the_reverberation_has_died_away():
    assert symusic.Score.from_midi(midi_bytes(score_of_programs([0]), 2.0)).end() == 48 + 2 * 48


def test_what_is_missing_is_named_with_its_package(tmp_path, monkeypatch):
    score = score_of_programs([0])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install fluidsynth"):
        play(score)
    (tmp_path / "fluidsynth").write_text("#!/bin/sh\n")
    (tmp_path / "fluidsynth").chmod(0o755)
    with pytest.raises(FileNotFoundError, match="apt-get install fluid-soundfont-gm"):
        play(score, tmp_path / "none.sf2")
    with pytest.raises(ValueError, match="without notes"):
        play(symusic.Score(24))


def test_goes_are_added(monkeypatch):
    played = []

    def flat(midi: bytes, room: float, soundfont: Path) -> np.ndarray:
        played.append(read_midi(midi))
        return np.full((2, SAMPLE_RATE * (3 - len(played))), 0.1, dtype=np.float32)

    monkeypatch.setattr(score_sound, "run_fluidsynth", flat)
    monkeypatch.setattr(score_sound, "check_programs", lambda *_: None)
    audio = play(score_of_programs(list(range(16))))
    assert [len(midi.tracks) for midi in played] == [15, 1]
    assert audio.shape[0] == 2
    half = SAMPLE_RATE // 2
    assert audio[0, half] == pytest.approx(2 * audio[0, half + SAMPLE_RATE], rel=1e-5)


@pytest.mark.slow
def test_the_real_thing_sounds():
    audio = play(score_of_programs([0, 40], with_drums=True))
    assert 1.0 < audio.shape[1] / SAMPLE_RATE < 4.0
    assert 0.01 < np.abs(audio).max() <= 0.95
