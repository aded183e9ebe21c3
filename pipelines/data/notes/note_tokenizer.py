"""Turn MIDI into frames of six codes, one frame a note, and back."""

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import symusic
import torch
from symusic.core import ScoreTick
from torch import Tensor

from codec.component import Component, register_to_config
from codec.validation import check_codes
from pipelines.data.midi_file import read_midi
from pipelines.data.notes.note_frames import (
    BOOKS,
    CODEBOOK_SIZE,
    FIRST_TEMPO,
    START,
    TEMPO,
    pack,
    skyline,
    sort_events,
    unpack,
)
from pipelines.errors import import_package

LAST_TEMPO = FIRST_TEMPO + CODEBOOK_SIZE - 1
BEATS_PER_BAR = 4
MAX_BARS = 20_000
MAX_NOTE_BEATS = 1024
_SPECIAL = 4  # tokens that miditok puts before the values of every attribute (PAD, BOS, EOS, MASK)


class NoteTokenizer(Component):
    """Tokenize notes: every note is a frame of six codes, made by way of miditok.

    miditok's Octuple gives pitch, place, velocity, duration, program and tempo of every note; here
    the absolute place becomes the time since the note before (``note_frames``). What is kept
    exactly: every note's pitch, velocity, program (or that it is a drum) and, on a grid of
    ``steps_per_beat``, start and duration, however many notes sound together. A tempo is a whole
    number of quarter notes a minute from 16 to 271 and changes with a note. Controllers, pedals,
    pitch bends, meter, lyrics and the mix are not carried.

    It has the methods of a ``Codec`` but encodes MIDI and decodes to MIDI. Its frames are events
    and have no rate, so ``frame_rate`` is None. ``note_sound`` plays a score at
    ``sample_rate``.

    Args:
        steps_per_beat: of the time grid; 24 holds triplets and thirty-seconds.
        monophonic: keep one voice, the highest (``note_frames.skyline``).
    """

    sample_rate = 44_100
    channels = 2
    frame_rate = None
    num_codebooks = len(BOOKS)
    codebook_size = CODEBOOK_SIZE

    @register_to_config
    def __init__(self, steps_per_beat: int = 24, monophonic: bool = False) -> None:
        super().__init__()
        if not 1 <= steps_per_beat <= CODEBOOK_SIZE:
            raise ValueError(
                f"steps_per_beat must lie in [1, {CODEBOOK_SIZE}], got {steps_per_beat}"
            )
        # diffusers saves no weight file for a model without a tensor, and loading expects one
        self.register_buffer("nothing", torch.empty(0))

    def encode(self, midi: str | Path | bytes | ScoreTick) -> Tensor:
        """Turn a MIDI file, by path or bytes, or a symusic score in ticks into codes.

        Returns:
            (1, 6, T) int64 in [0, 256): a frame per note, and more for long rests and notes.

        Raises:
            FileNotFoundError: no such file.
            MissingPackageError: miditok is not installed.
            ValueError: not a whole MIDI file of type 0 or 1, no notes, or longer than 20,000 bars.
        """
        events = self.events(read_midi(midi))
        if self.config.monophonic:
            events = skyline(events)
        return torch.from_numpy(pack(events))[None]

    def events(self, score: ScoreTick) -> np.ndarray:
        """List the (N, 6) int64 note events of a score, sorted; see ``note_frames``."""
        self._check_score(score)
        tokens = np.array(self.tokenizer.encode(score).ids, dtype=np.int64) - _SPECIAL
        pitch, position, bar, velocity, duration, program, tempo = tokens.T
        start = bar * BEATS_PER_BAR * self.config.steps_per_beat + position
        columns = (start, pitch, duration + 1, program, tempo + FIRST_TEMPO, velocity + 1)
        return sort_events(np.stack(columns, axis=1))

    def decode(self, codes: Tensor) -> list[ScoreTick]:
        """Turn (B, k, T) int64 codes in [0, 256) into pieces; k may be less than six.

        Returns:
            B symusic scores in ticks of ``steps_per_beat``, with one track per program.

        Raises:
            ValueError: codes have the wrong rank, dtype or range, or go on for 20,000 bars.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size)
        return [self._decode_row(row) for row in codes.cpu().numpy()]

    def shift_s(self, codes: Tensor) -> Tensor:
        """Measure the seconds by which (B, k) frames move the time on at their own tempo: (B,)."""
        filled = self._with_defaults(codes.T.cpu().numpy())  # (6, B)
        beats = filled[START] / self.config.steps_per_beat
        return torch.from_numpy(beats * 60 / (filled[TEMPO] + FIRST_TEMPO))

    @cached_property
    def tokenizer(self) -> Any:
        """Build miditok's Octuple over this grid.

        Raises:
            MissingPackageError: miditok is not installed.
        """
        miditok = import_package("miditok", "a note tokenizer", "pip install 'partita[notes]'")
        return miditok.Octuple(
            miditok.TokenizerConfig(
                pitch_range=(0, 127),
                drums_pitch_range=(0, 127),
                use_pitchdrum_tokens=False,
                beat_res={(0, MAX_NOTE_BEATS): self.config.steps_per_beat},
                num_velocities=127,
                use_programs=True,
                use_time_signatures=False,
                use_tempos=True,
                num_tempos=CODEBOOK_SIZE,
                tempo_range=(FIRST_TEMPO, LAST_TEMPO),
                remove_duplicated_notes=False,
                max_bar_embedding=MAX_BARS,
            )
        )

    def _check_score(self, score: ScoreTick) -> None:
        if score.note_num() == 0:
            raise ValueError("MIDI holds no notes")
        beat = score.ticks_per_quarter
        bars = score.end() / beat / BEATS_PER_BAR
        if bars >= MAX_BARS:
            raise ValueError(f"MIDI must be shorter than {MAX_BARS} bars, got {bars:.0f}")
        longest = MAX_NOTE_BEATS * beat
        self._warn_of_long_notes(sum(n.duration > longest for t in score.tracks for n in t.notes))
        outside = [t.qpm for t in score.tempos if not FIRST_TEMPO - 0.5 <= t.qpm < LAST_TEMPO + 0.5]
        if outside:
            warnings.warn(
                f"a tempo of {outside[0]:.1f} moved into {FIRST_TEMPO} to {LAST_TEMPO}",
                stacklevel=3,
            )

    def _warn_of_long_notes(self, count: int) -> None:
        if count:
            warnings.warn(f"{count} notes cut to {MAX_NOTE_BEATS} beats", stacklevel=4)

    def _decode_row(self, codes: np.ndarray) -> ScoreTick:
        notes, meaningless = unpack(self._with_defaults(codes))
        if meaningless:
            warnings.warn(
                f"{meaningless} of {codes.shape[1]} frames stand for no note and are left out",
                stacklevel=3,
            )
        if not len(notes):
            return symusic.Score(self.config.steps_per_beat)  # type: ignore[return-value]
        start, pitch, duration, program, tempo, velocity = sort_events(notes).T
        bar, position = np.divmod(start, BEATS_PER_BAR * self.config.steps_per_beat)
        if bar[-1] >= MAX_BARS:
            raise ValueError(f"codes must be shorter than {MAX_BARS} bars, got {bar[-1]}")
        longest = MAX_NOTE_BEATS * self.config.steps_per_beat
        self._warn_of_long_notes(int((duration > longest).sum()))
        duration = np.minimum(duration, longest)
        columns = (pitch, position, bar, velocity - 1, duration - 1, program, tempo - FIRST_TEMPO)
        tokens = np.stack(columns, axis=1) + _SPECIAL
        return self.tokenizer.decode(tokens.tolist())

    def _with_defaults(self, codes: np.ndarray) -> np.ndarray:
        """Fill (k, T) codes up to (6, T): a beat of middle C on the piano, 120 a minute, velocity
        90.
        """
        defaults = (0, 60, self.config.steps_per_beat - 1, 0, 120 - FIRST_TEMPO, 90 - 1)
        missing = np.array(defaults[len(codes) :], dtype=np.int64)
        filled = np.repeat(missing[:, None], codes.shape[1], axis=1)
        return np.concatenate((codes, filled))
