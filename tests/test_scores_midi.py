"""MIDI files read back as what was written, and damaged ones are refused."""

import itertools
import random

import pytest

from pipelines.data.scores.compose import compose
from pipelines.data.scores.score import METERS, Note, Part, Score
from pipelines.data.scores.score_midi import DRUM_CHANNEL, read_midi, write_midi


def piece(meter: str = "4/4", parts: int = 1) -> Score:
    notes = [Note(0, 1, 60, 90), Note(1, 0.5, 64, 80), Note(1.5, 2.5, 67, 70)]
    return Score(97.0, METERS[meter], None, [Part("piano", 5, list(notes)) for _ in range(parts)])


def test_notes_survive_a_round_trip() -> None:
    score = piece()
    midi = read_midi(write_midi(score))
    assert midi.signature == (4, 4)
    assert midi.tempos[0][1] == pytest.approx(97.0, rel=1e-6)
    assert midi.notes[0, 5] == score.parts[0].notes


def test_beats_of_six_eight_are_dotted_quarters() -> None:
    midi = read_midi(write_midi(piece("6/8")))
    assert midi.signature == (6, 8)
    assert midi.tempos[0][1] == pytest.approx(97.0 * 1.5, rel=1e-5)
    assert [note.start for note in midi.notes[0, 5]] == pytest.approx([0, 1.5, 2.25])


def test_drums_keep_their_channel_and_parts_their_own() -> None:
    score = piece(parts=12)
    score.parts.append(Part("drums", 0, [Note(0, 1, 36, 100)]))
    channels = {channel for channel, _ in read_midi(write_midi(score)).notes}
    assert DRUM_CHANNEL in channels
    assert len(channels) == 13


def test_sixteen_pitched_parts_raise() -> None:
    with pytest.raises(ValueError, match="at most 15 pitched parts"):
        write_midi(piece(parts=16))


def test_onsets_in_the_file_give_the_labeled_tempo() -> None:
    for seed in range(10):
        score = compose(random.Random(seed), style_name="techno")
        midi = read_midi(write_midi(score))
        kicks = [n.start for n in midi.notes[DRUM_CHANNEL, 24] if n.pitch == 36]
        gaps = [b - a for a, b in itertools.pairwise(kicks) if 0.9 < b - a < 1.1]
        beat_s = sum(gaps) / len(gaps) * 60 / midi.tempos[0][1]
        assert 60 / beat_s == pytest.approx(score.tempo_bpm, rel=0.01)


def test_running_status_and_missing_note_off() -> None:
    track = bytes.fromhex("00c005 00903c50 833c3c00 00405a 833c4000 00ff2f00".replace(" ", ""))
    head = b"MThd" + (6).to_bytes(4, "big") + bytes.fromhex("000000010078")
    midi = read_midi(head + b"MTrk" + len(track).to_bytes(4, "big") + track)
    starts = [(n.start, n.pitch, n.velocity) for n in midi.notes[0, 5]]
    assert starts == [(0.0, 60, 80), (pytest.approx(444 / 120), 64, 90)]


def test_every_truncation_is_a_value_error_or_loses_only_notes() -> None:
    data = write_midi(piece())
    for length in range(0, len(data) - 1, 7):
        try:
            midi = read_midi(data[:length])
        except ValueError:
            continue
        assert sum(map(len, midi.notes.values())) <= 3


@pytest.mark.parametrize("data", [b"", b"RIFF" + bytes(20), b"MThd" + bytes(10)])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="MIDI"):
        read_midi(data)
