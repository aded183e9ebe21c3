"""Read a tune from a file: the top voice of the first part that has notes, or a hummed one."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from codec.audio_file import FORMATS, read_audio
from codec.process_settings import kept_process_settings
from pipelines.data.midi_file import read_midi
from pipelines.data.scores.score import Note, top_voice
from pipelines.data.scores.score_midi import read_tracks
from pipelines.errors import import_package
from prior.plan import MelodyNote

MIDI_SUFFIXES = (".mid", ".midi")
NOTATION_SUFFIXES = (".musicxml", ".xml", ".mxl", ".abc")
ANALYSIS_RATE = 22_050
HOP_LENGTH = 256
LOWEST_HZ, HIGHEST_HZ = 65.4, 2093.0  # C2 to C7
LONGEST_S = 120.0
SHORTEST_NOTE_S = 0.09
SMOOTHING_S = 0.08
QUIETEST_DB = 30.0  # below the loudest moment, what sounds is no note
GRID = 4  # places of a beat at which notes begin


def read_melody_file(path: str | Path, bpm: float | None = None) -> tuple[MelodyNote, ...]:
    """Read a tune in quarter notes, which are a plan's beats in 4/4, 3/4 and 2/4.

    Args:
        path: of a MIDI, MusicXML, ABC or audio file.
        bpm: tempo of audio, which does not say it (beats a minute).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name ends otherwise, the file is damaged, or holds no notes.
        MissingPackageError: music21 (notation) or librosa (audio) is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    known = (*MIDI_SUFFIXES, *NOTATION_SUFFIXES, *(f".{name}" for name in FORMATS))
    if suffix not in known:
        wanted = ", ".join(known)
        raise ValueError(f"{path}: a tune's file must end in one of {wanted}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if suffix[1:] in FORMATS:
        return read_hummed_melody(path, bpm)
    voices: Iterable[list[Note]]
    if suffix in MIDI_SUFFIXES:
        voices = (notes for _, drums, notes in read_tracks(read_midi(path)) if not drums)
    else:
        voices = notated_voices(path)
    notes = next((notes for notes in map(list, voices) if notes), None)
    if notes is None:
        raise ValueError(f"{path} holds no notes")
    return tuple(MelodyNote(n.start, n.duration, n.pitch) for n in top_voice(notes))


def notated_voices(path: Path) -> Iterable[list[Note]]:
    """List the parts of a MusicXML or ABC file, ties joined, without its chord symbols."""
    music21 = import_package("music21", "a notated tune", "pip install 'partita[scores]'")
    try:
        parsed = music21.converter.parse(path)
        parts = list(parsed.parts) or [parsed]
        return [
            [
                Note(
                    float(item.offset),
                    float(item.quarterLength),
                    max(p.midi for p in item.pitches),
                    90,
                )
                for item in part.stripTies().flatten().notes
                if item.quarterLength > 0 and "ChordSymbol" not in item.classes
            ]
            for part in parts
        ]
    except Exception as error:  # music21 raises its own and builtin exceptions on damaged files
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


@kept_process_settings()  # librosa imports what sets variables of the environment
def read_hummed_melody(path: Path, bpm: float | None) -> tuple[MelodyNote, ...]:
    """Track the pitch with pYIN (Mauch and Dixon 2014) and write it as notes from beat 0 on.

    The file holds one voice, two minutes at most, hummed at ``bpm``; its own tuning is taken as in
    tune. Notes begin at quarters of a beat.

    Raises:
        ValueError: the tempo is not given, or no note is found.
        MissingPackageError: librosa is not installed.
    """
    if bpm is None:
        raise ValueError(f"{path}: a hummed tune does not say its tempo: give bpm too")
    librosa = import_package("librosa", "a hummed tune", "pip install 'partita[evaluate]'")
    audio = read_audio(path, sample_rate=ANALYSIS_RATE, channels=1, duration_s=LONGEST_S).audio
    voice = audio[0].numpy()
    hertz, _, _ = librosa.pyin(
        voice, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, sr=ANALYSIS_RATE, hop_length=HOP_LENGTH
    )
    level = librosa.feature.rms(y=voice, hop_length=HOP_LENGTH)[0]
    hertz[level <= level.max() * 10 ** (-QUIETEST_DB / 20)] = np.nan
    if not np.isfinite(hertz).any():
        raise ValueError(f"{path} holds no notes: a hummed tune is one clear voice")
    tuning = librosa.pitch_tuning(hertz[np.isfinite(hertz)])
    notes = held_notes(librosa.hz_to_midi(hertz) - tuning)
    if not notes:
        raise ValueError(f"{path} holds no note of {SHORTEST_NOTE_S} s")
    beats_per_frame = HOP_LENGTH / ANALYSIS_RATE * bpm / 60
    first = notes[0][0]
    return on_grid([((at - first) * beats_per_frame, n * beats_per_frame, p) for at, n, p in notes])


def held_notes(pitch: np.ndarray) -> list[tuple[int, int, int]]:
    """Find where (T,) MIDI pitches, NaN without a voice, stay within half a semitone.

    Returns:
        First frame, number of frames and MIDI pitch of every note.
    """
    from scipy.ndimage import median_filter

    frames_per_s = ANALYSIS_RATE / HOP_LENGTH
    smooth = median_filter(np.nan_to_num(pitch), size=round(SMOOTHING_S * frames_per_s) | 1)
    rounded = np.rint(smooth).astype(int)
    edges = np.flatnonzero(np.diff(rounded)) + 1
    starts, ends = [0, *edges.tolist()], [*edges.tolist(), len(rounded)]
    shortest = SHORTEST_NOTE_S * frames_per_s
    return [
        (start, end - start, int(rounded[start]))
        for start, end in zip(starts, ends, strict=True)
        if rounded[start] > 0 and end - start >= shortest
    ]


def on_grid(notes: list[tuple[float, float, int]]) -> tuple[MelodyNote, ...]:
    """Move starts and lengths, in beats, onto the grid; a note ends where the next begins."""
    placed = [
        (round(at * GRID) / GRID, max(1, round(beats * GRID)) / GRID, pitch)
        for at, beats, pitch in notes
    ]
    ends = [at for at, _, _ in placed[1:]] + [float("inf")]
    return tuple(
        MelodyNote(at, min(beats, end - at), pitch)
        for (at, beats, pitch), end in zip(placed, ends, strict=True)
        if end > at
    )
