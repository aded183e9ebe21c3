"""NoteTokenizer: notes survive the way to codes and back, and bad MIDI is one line."""

import itertools
import random
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import symusic
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.protocols import Codec
from pipelines.data.midi_file import midi_bytes, read_midi
from pipelines.data.notes import note_frames
from pipelines.data.notes.note_tokenizer import NoteTokenizer
from pipelines.data.scores.compose import compose
from pipelines.data.scores.score_midi import write_midi
from pipelines.errors import MissingPackageError

pytest.importorskip("miditok")

END = b"\x00\xff\x2f\x00"
OPENTTD = Path("/usr/share/games/openttd/baseset/openmsx")
STEPS = 24


@pytest.fixture(scope="module")
def codec() -> NoteTokenizer:
    return NoteTokenizer()


def on(delta: int, pitch: int, velocity: int, channel: int = 0) -> bytes:
    return bytes((delta, 0x90 | channel, pitch, velocity))


def off(delta: int, pitch: int, channel: int = 0) -> bytes:
    return bytes((delta, 0x80 | channel, pitch, 0))


def midi(kind: int, *tracks: bytes, division: int = STEPS) -> bytes:
    """A MIDI file's bytes."""
    chunks = (b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)
    head = b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), division)
    return head + b"".join(chunks)


NOTE = on(0, 60, 90) + off(STEPS, 60) + END


def bag(score) -> Counter:
    """Every note as (start, duration, pitch, velocity, program or -1), in steps."""
    assert score.ticks_per_quarter == STEPS
    return Counter(
        (n.start, n.duration, n.pitch, n.velocity, -1 if track.is_drum else track.program)
        for track in score.tracks
        for n in track.notes
    )


def score_of(notes: list[tuple[int, int, int, int, int]], tempos=()):
    """A score in steps from (start, duration, pitch, velocity, program or -1)."""
    score = symusic.Score(STEPS)
    for program in {note[4] for note in notes}:
        track = symusic.Track(program=max(program, 0), is_drum=program < 0)
        track.notes.extend([symusic.Note(*note[:4]) for note in notes if note[4] == program])
        score.tracks.append(track)
    score.tempos.extend([symusic.Tempo(time, float(qpm)) for time, qpm in tempos])
    return score


notes_of_all_kinds = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 60), st.integers(0, 30_000)),
        st.one_of(st.integers(1, 40), st.integers(1, 3_000)),
        st.integers(0, 127),
        st.integers(1, 127),
        st.integers(-1, 127),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(notes_of_all_kinds)
def test_notes_on_the_grid_come_back_exactly(codec, notes):
    score = score_of(notes)
    codes = codec.encode(score)
    assert codes.shape[:2] == (1, 6)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < 256
    (back,) = codec.decode(codes)
    assert bag(back) == bag(score)
    assert torch.equal(codec.encode(back), codes)
    again = read_midi(midi_bytes(back))  # what MIDI itself cannot hold apart gets its own channel
    assert bag(again) == bag(score)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_frames_are_events(data):
    """Times of any length, without miditok."""
    size = data.draw(st.integers(1, 20))
    numbers = st.integers(0, 5_000)
    starts = np.cumsum([data.draw(numbers) for _ in range(size)])
    columns = [starts, *(np.array([data.draw(numbers) for _ in range(size)]) for _ in range(5))]
    limits = (1 << 30, 128, 5_000, 129, 256, 127)
    events = np.stack([c % m for c, m in zip(columns, limits, strict=True)], axis=1)
    events += (0, 0, 1, 0, 16, 1)
    frames = note_frames.pack(events)
    back, meaningless = note_frames.unpack(frames)
    assert np.array_equal(back, events)
    assert meaningless == 0
    assert frames.min() >= 0
    assert frames.max() < 256
    assert int((frames[note_frames.PITCH] != note_frames.REST).sum()) == size


def check_file(codec: NoteTokenizer, source) -> None:
    """A file comes back exactly as it lies on the grid."""
    score = read_midi(source)
    (back,) = codec.decode(codec.encode(score))
    expected = codec.tokenizer.preprocess_score(score)
    assert bag(back) == bag(expected)
    for attribute in ("start", "end"):
        there, here = (sorted_times(s, attribute) for s in (score, back))
        assert np.abs(there - here).max() <= (0.5 if attribute == "start" else 1.5)
    velocities = Counter(n.velocity for t in score.tracks for n in t.notes)
    assert Counter(n.velocity for t in back.tracks for n in t.notes) == velocities
    chords = [Counter(n.start for t in s.tracks for n in t.notes) for s in (back, expected)]
    assert chords[0] == chords[1]
    assert bag(read_midi(midi_bytes(back))) == bag(back)


def sorted_times(score, attribute: str) -> np.ndarray:
    """Starts or ends of all notes, in steps."""
    times = sorted(getattr(note, attribute) for track in score.tracks for note in track.notes)
    return np.array(times) * STEPS / score.ticks_per_quarter


@pytest.mark.parametrize("ensemble", ["solo", "duo", "band"])
def test_composed_pieces_come_back(codec, ensemble):
    piece = compose(random.Random(4), ensemble=ensemble)
    source = write_midi(piece)
    check_file(codec, source)
    codes = codec.encode(source)
    drums = any(part.is_drums for part in piece.parts)
    assert bool((codes[0, note_frames.PROGRAM] == note_frames.DRUMS).any()) == drums
    beats = codes[0, note_frames.START].sum() / STEPS
    last = max(note.start for part in piece.parts for note in part.notes)
    quarters = 1.5 if piece.meter.division == 3 else 1.0
    assert float(beats) == pytest.approx(last * quarters, abs=0.5 / STEPS + 1e-3)


def test_bach_comes_back(codec, tmp_path):
    corpus = pytest.importorskip("music21").corpus
    path = corpus.parse("bach/bwv66.6").write("midi", fp=tmp_path / "chorale.mid")
    check_file(codec, path)


@pytest.mark.slow
def test_a_whole_folder_of_midi_comes_back(codec):
    files = sorted(OPENTTD.glob("*.mid"))
    assert files, "apt-get install openttd-openmsx"
    for path in files:
        check_file(codec, path)


def test_tempo_changes_with_the_next_note(codec):
    notes = [(0, 24, 60, 90, 0), (96, 24, 62, 90, 0), (192, 24, 64, 90, 0)]
    score = score_of(notes, [(0, 100), (48, 140), (150, 63.4)])
    (back,) = codec.decode(codec.encode(score))
    assert [(t.time, round(t.qpm, 2)) for t in back.tempos] == [(0, 100), (96, 140), (192, 63)]
    assert codec.encode(score)[0, 4].tolist() == [84, 124, 47]


def test_the_first_books_are_enough(codec):
    codes = codec.encode(score_of([(0, 12, 72, 33, 40), (30, 50, 61, 77, -1)]))
    for books in range(1, 7):
        (back,) = codec.decode(codes[:, :books])
        assert back.note_num() == 2
        assert sorted(n.start for t in back.tracks for n in t.notes) == [0, 30]
    assert bag(codec.decode(codes[:, :5])[0]) == Counter(
        {(0, 12, 72, 90, 40): 1, (30, 50, 61, 90, -1): 1}
    )


def test_a_monophonic_codec_encodes_the_voice():
    score = score_of([(0, 30, 60, 90, 0), (0, 30, 64, 80, 0), (24, 9, 50, 70, 0)])
    codec = NoteTokenizer(monophonic=True)
    (back,) = codec.decode(codec.encode(score))
    assert bag(back) == Counter({(0, 24, 64, 80, 0): 1, (24, 9, 50, 70, 0): 1})


def test_it_has_what_a_codec_has(codec, tmp_path):
    assert isinstance(codec, Codec)
    assert (codec.num_codebooks, codec.codebook_size, codec.frame_rate) == (6, 256, None)
    NoteTokenizer(12, monophonic=True).save_pretrained(tmp_path)
    loaded = NoteTokenizer.from_pretrained(tmp_path)
    assert (loaded.config.steps_per_beat, loaded.config.monophonic) == (12, True)
    (tmp_path / "config.json").write_text('{"steps_per_beat": 12, "swing": 1}')
    with pytest.raises(ValueError, match="unknown key 'swing'"):
        NoteTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"steps_per_beat must lie in \[1, 256\], got 0"):
        NoteTokenizer(0)


def test_one_voice_is_the_highest():
    drum = (0, 90, 9, note_frames.DRUMS, 100, 60)
    events = np.array(
        [
            (0, 60, 10, 0, 100, 80), (0, 72, 40, 0, 100, 70), drum,
            (12, 64, 40, 5, 100, 50), (12, 64, 30, 0, 100, 50), (60, 50, 8, 0, 100, 40),
        ]
    )  # fmt: skip
    voice = note_frames.skyline(events)
    assert voice[:, :3].tolist() == [[0, 72, 12], [12, 64, 40], [60, 50, 8]]
    only_drums = events[2:3]
    assert note_frames.skyline(only_drums).tolist() == only_drums.tolist()


@settings(max_examples=30, deadline=None)
@given(notes_of_all_kinds)
def test_one_voice_never_overlaps(codec, notes):
    voice = note_frames.skyline(codec.events(score_of(notes)))
    (back,) = codec.decode(torch.from_numpy(note_frames.pack(voice))[None])
    times = sorted((n.start, n.end) for t in back.tracks for n in t.notes)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(times))


def test_seconds_follow_shift_and_tempo(codec):
    score = score_of([(0, 4, 60, 90, 0), (48, 4, 60, 90, 0), (96, 4, 60, 90, 0)], [(0, 60)])
    seconds = sum(float(codec.shift_s(codec.encode(score)[..., t])) for t in range(3))
    assert seconds == pytest.approx(4.0)


# -- files that are not as they should be -----------------------------------------------------


def test_types_0_and_1_are_read_and_2_is_not(codec):
    assert torch.equal(codec.encode(midi(0, NOTE)), codec.encode(midi(1, END, NOTE)))
    with pytest.raises(ValueError, match="type 2 holds several songs"):
        codec.encode(midi(2, NOTE, NOTE))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must start with MThd"),
        (b"RIFF and something else", "must start with MThd"),
        (midi(0, NOTE)[:-6], "not a whole MIDI file"),
        (midi(1, END, NOTE)[:30], "not a whole MIDI file"),
        (midi(7, NOTE), "not a whole MIDI file"),
        (midi(0, NOTE, division=0xE728), "ticks per quarter"),
        (midi(0, NOTE, division=0), "ticks per quarter note must be positive"),
        (midi(0, b"\x00\xff\x51\x03\x00\x00\x00" + NOTE), "tempo must be positive and finite"),
        (midi(1), "holds no notes"),
        (midi(0, END), "holds no notes"),
        (midi(0, off(0, 60) + off(9, 60) + END), "holds no notes"),
        (midi(0, on(0, 60, 90) + END), "holds no notes"),
    ],
)
def test_a_bad_file_is_one_line(codec, data, message, tmp_path):
    path = tmp_path / "piece.mid"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(ValueError, match=message) as caught:
            codec.encode(source)
        assert "\n" not in str(caught.value)


def test_no_file_and_no_midi_at_all(codec, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        codec.encode(tmp_path / "none.mid")
    with pytest.raises(ValueError, match="MIDI must be a path, bytes or a symusic Score"):
        codec.encode(3)  # type: ignore[arg-type]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "miditok", None)
    message = r"needs miditok: pip install 'partita\[notes\]'"
    for use in (
        lambda: NoteTokenizer().encode(midi(0, NOTE)),
        lambda: NoteTokenizer().decode(torch.zeros(1, 6, 1, dtype=torch.int64)),
    ):
        with pytest.raises(MissingPackageError, match=message):
            use()


def test_stray_note_offs_and_overlaps_are_defined(codec):
    stray = midi(0, off(0, 50) + NOTE)
    assert torch.equal(codec.encode(stray), codec.encode(midi(0, NOTE)))
    overlap = midi(0, on(0, 60, 90) + on(10, 60, 50) + off(20, 60) + off(30, 60) + END)
    (back,) = codec.decode(codec.encode(overlap))
    assert bag(back) == Counter({(0, 30, 60, 90, 0): 1, (10, 50, 60, 50, 0): 1})
    no_length = midi(0, on(0, 60, 90) + off(0, 60) + END)
    assert bag(codec.decode(codec.encode(no_length))[0]) == Counter({(0, 1, 60, 90, 0): 1})
    running = midi(0, on(0, 60, 90) + bytes((STEPS, 60, 0)) + END)  # a note-on of velocity 0 ends
    assert torch.equal(codec.encode(running), codec.encode(midi(0, NOTE)))


def test_drums_alone_and_programs_that_change(codec):
    drums = midi(0, on(0, 36, 90, 9) + off(STEPS, 36, 9) + END)
    assert codec.encode(drums)[0, note_frames.PROGRAM].tolist() == [note_frames.DRUMS]
    changing = b"\x00\xc0\x05" + NOTE[:-4] + b"\x00\xc0\x07" + NOTE
    assert codec.encode(midi(0, changing))[0, note_frames.PROGRAM].tolist() == [5, 7]


def test_a_very_long_piece(codec):
    notes = [(beat * STEPS, STEPS, beat % 128, 1 + beat % 127, 0) for beat in range(0, 70_000, 20)]
    score = score_of(notes)
    assert bag(codec.decode(codec.encode(score))[0]) == bag(score)
    with pytest.raises(ValueError, match="must be shorter than 20000 bars"):
        codec.encode(score_of([(4 * STEPS * 20_000, 1, 60, 60, 0)]))


def test_what_is_changed_is_said(codec):
    with pytest.warns(UserWarning, match="1 notes cut to 1024 beats"):
        codec.encode(score_of([(0, 1025 * STEPS, 60, 60, 0)]))
    with pytest.warns(UserWarning, match="a tempo of 400.0 moved into 16 to 271"):
        codec.encode(score_of([(0, 4, 60, 60, 0)], [(0, 400)]))
    codes = codec.encode(score_of([(0, 4, 60, 60, 0), (9, 4, 60, 60, 0)]))
    codes[0, note_frames.VELOCITY, 0] = 255
    with pytest.warns(UserWarning, match="1 of 2 frames stand for no note"):
        (back,) = codec.decode(codes)
    assert bag(back) == Counter({(9, 4, 60, 60, 0): 1})
    codes[0, note_frames.PITCH] = note_frames.REST
    codes[0, note_frames.VELOCITY] = 0
    assert codec.decode(codes)[0].note_num() == 0


def test_bad_codes_are_refused(codec):
    good = torch.zeros(1, 6, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="1 to 6 codebooks"):
        codec.decode(torch.cat([good, good], dim=1))
    with pytest.raises(ValueError, match=r"\[0, 256\)"):
        codec.decode(good + 256)
