"""Pack note events into frames that a prior writes: one note, one frame of six codes.

A compound word (Octuple: arXiv 2106.05630; Compound Word Transformer: arXiv 2101.02402) whose time
is counted from the note before, so that a piece may be of any length. An event is a row of
(start, pitch, duration, program, tempo, velocity), times in steps of the grid.
"""

import numpy as np

BOOKS = ("shift", "pitch", "duration", "program", "tempo", "velocity")
"""What the codes of a frame stand for, in the order in which they are predicted."""
CODEBOOK_SIZE = 256
REST = 128
"""The pitch of a frame that strikes nothing: with a shift it is a rest, and without one it makes
the note before it longer."""
DRUMS = 128  # the program of a note on the drum channel
FIRST_TEMPO = 16  # quarter notes a minute of code 0
SIZES = (CODEBOOK_SIZE, REST + 1, CODEBOOK_SIZE, DRUMS + 1, CODEBOOK_SIZE, 127)
"""Codes of each book that mean something."""
LONGEST_SHIFT = CODEBOOK_SIZE - 1
LONGEST_DURATION = CODEBOOK_SIZE
START, PITCH, DURATION, PROGRAM, TEMPO, VELOCITY = range(len(BOOKS))


def sort_events(events: np.ndarray) -> np.ndarray:
    """Sort (N, 6) events by start, program, pitch, duration and velocity."""
    keys = (VELOCITY, DURATION, PITCH, PROGRAM, START)
    return events[np.lexsort([events[:, key] for key in keys])]


def skyline(events: np.ndarray) -> np.ndarray:
    """Keep one voice: of the notes that start together the highest, until the next one starts.

    "All-mono" of Uitdenbogerd and Zobel (1999), the simplest of their melody extractors and the
    one that listeners agreed with most. Drums are left out unless there is nothing else. (N, 6)
    int64 with N > 0 become (M, 6), sorted.
    """
    pitched = events[events[:, PROGRAM] != DRUMS]
    events = pitched if len(pitched) else events
    events = events[np.lexsort((events[:, DURATION], events[:, PITCH], events[:, START]))]
    highest = np.append(events[1:, START] != events[:-1, START], True)
    events = events[highest].copy()
    room = np.diff(events[:, START])
    events[:-1, DURATION] = np.minimum(events[:-1, DURATION], room)
    return events


def pack(events: np.ndarray) -> np.ndarray:
    """Turn (N, 6) int64 events into frames, (6, T) int64 with T >= N.

    Events are sorted by start, durations and velocities count from 1, tempi are quarter notes a
    minute. A gap of more than 255 steps is filled with rests; a note of more than 256 steps is
    followed by frames that lengthen it.
    """
    gaps = np.diff(events[:, START], prepend=0)
    durations = events[:, DURATION]
    rests = np.maximum(0, (gaps - 1) // LONGEST_SHIFT)
    holds = (durations - 1) // LONGEST_DURATION
    counts = rests + 1 + holds
    frames = np.repeat(events, counts, axis=0)
    frames[:, TEMPO] -= FIRST_TEMPO
    frames[:, VELOCITY] -= 1
    place = np.arange(len(frames)) - np.repeat(np.cumsum(counts) - counts, counts)
    place -= np.repeat(rests, counts)  # 0 at the note, below it at rests, above it at holds
    left = np.repeat(durations, counts) - place * LONGEST_DURATION
    gap = np.repeat(gaps - rests * LONGEST_SHIFT, counts)
    frames[:, START] = np.where(place < 0, LONGEST_SHIFT, np.where(place == 0, gap, 0))
    frames[:, PITCH] = np.where(place == 0, frames[:, PITCH], REST)
    frames[:, DURATION] = np.where(place < 0, 1, np.minimum(left, LONGEST_DURATION)) - 1
    return frames.T.copy()


def unpack(frames: np.ndarray) -> tuple[np.ndarray, int]:
    """Turn (6, T) int64 frames in [0, 256) into events, the inverse of :func:`pack`.

    A frame with a code that stands for nothing (only a prior writes one) strikes nothing: its
    shift still moves the time on.

    Returns:
        (N, 6) int64 events in the order of the frames, and the number of frames left out.
    """
    meaningless = (frames >= np.array(SIZES)[:, None]).any(axis=0)
    strikes = (frames[PITCH] != REST) & ~meaningless
    holds = (frames[PITCH] == REST) & (frames[START] == 0) & ~meaningless
    events = frames.T.copy()
    events[:, START] = np.cumsum(frames[START])
    events[:, DURATION] += 1
    events[:, TEMPO] += FIRST_TEMPO
    events[:, VELOCITY] += 1
    note = np.cumsum(strikes) - 1  # the note that each frame follows or is
    lengthened = holds & (note >= 0)
    notes = events[strikes]
    np.add.at(notes[:, DURATION], note[lengthened], events[lengthened, DURATION])
    return notes, int(meaningless.sum())
