"""Read a tune from a file: the top voice of the first part that has notes, or a hummed one."""

from collections.abc import Iterable
from pathlib import Path

from codec.audio_file import FORMATS
from pipelines.data.midi_file import read_midi
from pipelines.data.scores.hummed_melody import read_hummed_melody
from pipelines.data.scores.score import Note, top_voice
from pipelines.data.scores.score_midi import read_tracks
from pipelines.errors import import_package
from prior.plan import MelodyNote

MIDI_SUFFIXES = (".mid", ".midi")
NOTATION_SUFFIXES = (".musicxml", ".xml", ".mxl", ".abc")


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
