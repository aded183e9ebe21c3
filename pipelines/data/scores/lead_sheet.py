"""Write a plan as a lead sheet: chords, tune, tempo and sections, as MIDI or MusicXML."""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codec.whole_file import write_whole
from pipelines.data.scores.score_midi import TICKS_PER_QUARTER
from pipelines.errors import import_package
from prior.plan import SUFFIXES, ChordChange, Plan
from prior.plan_draft import chords_between
from prior.theory import PITCH_NAMES, TRIADS

SHEET_FORMATS = ("mid", "midi", "musicxml", "xml")
CHORD_OCTAVE, CHORD_VELOCITY, TUNE_VELOCITY = 48, 60, 90


def write_lead_sheet(path: str | Path, plan: Plan, num_beats: float) -> None:
    """Write a plan from its first beat on; the suffix tells MIDI from MusicXML.

    Beats count as quarter notes; the last chord sounds until ``num_beats`` from the beginning.

    Raises:
        MissingPackageError: MusicXML is asked for and music21 is not installed.
    """
    midi = Path(path).suffix in (".mid", ".midi")
    write_whole(path, midi_sheet(plan, num_beats) if midi else musicxml_sheet(plan, num_beats))


def placed_chords(plan: Plan, num_beats: float) -> Iterator[tuple[float, float, ChordChange]]:
    """Yield each chord until the end: start in beats from the first one, length in beats, chord."""
    end = plan.first_beat + num_beats
    chords = chords_between(plan.chords, plan.first_beat, end)
    ends = [*(chord.beat for chord in chords), end][1:]
    for chord, stop in zip(chords, ends, strict=True):
        yield chord.beat - plan.first_beat, stop - chord.beat, chord


def section_starts(plan: Plan) -> Iterator[tuple[float, str]]:
    """Yield where each section begins, in beats from the sheet's beginning, and its name."""
    beat = -plan.first_beat
    for section in plan.sections:
        if beat >= 0:
            yield beat, section.name
        beat += section.bars * plan.beats_per_bar


def midi_sheet(plan: Plan, num_beats: float) -> bytes:
    """Write a MIDI file with a track of block chords and, where there is a tune, one of it."""
    import symusic

    def track(name: str, notes: list[tuple[float, float, int, int]]) -> Any:
        made: Any = symusic.Track(name=name)
        for start, beats, pitch, velocity in notes:
            first, length = round(start * TICKS_PER_QUARTER), round(beats * TICKS_PER_QUARTER)
            made.notes.append(symusic.Note(first, max(1, length), pitch, velocity))
        return made

    midi: Any = symusic.Score(TICKS_PER_QUARTER)
    midi.tempos.append(symusic.Tempo(0, mspq=round(60e6 / plan.tempo_bpm)))
    midi.time_signatures.append(symusic.TimeSignature(0, plan.beats_per_bar, 4))
    for beat, name in section_starts(plan):
        midi.markers.append(symusic.TextMeta(round(beat * TICKS_PER_QUARTER), name))
    chords = [
        (start, beats, CHORD_OCTAVE + chord.root + step, CHORD_VELOCITY)
        for start, beats, chord in placed_chords(plan, num_beats)
        for step in TRIADS[chord.quality]
    ]
    tune = [
        (note.beat - plan.first_beat, note.beats, note.pitch, TUNE_VELOCITY)
        for note in plan.melody
        if note.beat >= plan.first_beat
    ]
    tracks = [track("melody", tune)] if tune else []
    midi.tracks.extend([*tracks, track("chords", chords)])
    return midi.dumps_midi()


def musicxml_sheet(plan: Plan, num_beats: float) -> bytes:
    """Write a MusicXML lead sheet: chord symbols over the tune, or over rests."""
    purpose, install = "a MusicXML sheet", "pip install 'partita[scores]'"
    music21 = import_package("music21", purpose, install)
    part = music21.stream.Part()
    part.insert(0, music21.meter.TimeSignature(f"{plan.beats_per_bar}/4"))
    part.insert(0, music21.tempo.MetronomeMark(number=plan.tempo_bpm))
    if plan.tonic is not None:
        tonic = PITCH_NAMES[plan.tonic].replace("b", "-")
        part.insert(0, music21.key.Key(tonic, plan.mode))
    for start, _, chord in placed_chords(plan, num_beats):
        # music21 writes a flat as "-" and would read "Bb7" as B with a flat seventh (findings/)
        name = PITCH_NAMES[chord.root].replace("b", "-") + SUFFIXES[chord.quality]
        part.insert(start, music21.harmony.ChordSymbol(name))
    for beat, name in section_starts(plan):
        part.insert(beat, music21.expressions.RehearsalMark(name))
    for note in plan.melody:
        if note.beat >= plan.first_beat:
            made = music21.note.Note(note.pitch, quarterLength=note.beats)
            part.insert(note.beat - plan.first_beat, made)
    sung = max((note.beat + note.beats - plan.first_beat for note in plan.melody), default=0.0)
    if num_beats > sung:
        part.insert(max(sung, 0.0), music21.note.Rest(quarterLength=num_beats - max(sung, 0.0)))
    state = random.getstate()  # music21 draws from it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            notated = part.makeNotation()
            return music21.musicxml.m21ToXml.GeneralObjectExporter(notated).parse()
    finally:
        random.setstate(state)
