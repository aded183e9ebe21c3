"""Measure what comes back in a long song: its tune, and its chorus.

The notes of the tune are looked for by basic-pitch, a transcriber that was not fitted to anything
here. Two sections are compared beat by beat by their chroma, and by how often each entry of the
first codebook is used in them. True renders of the same scores give the ceiling of every figure.
"""

import contextlib
import io
import math
import random
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from codec.audio_file import write_audio
from pipelines.data.plans import plan_of_labels
from pipelines.data.scores.captions import held_out_captions
from pipelines.data.scores.score import Score
from pipelines.data.scores.score_sound import SAMPLE_RATE, clip_labels, render
from pipelines.data.scores.songs import compose_song
from pipelines.evaluation.plan_estimation import chroma_of_beats
from pipelines.inference.music_generator import MusicGenerator
from prior.plan import Plan

LENGTH_S = (150.0, 240.0)
TUNE_S = 60.0  # how much of a song the transcriber listens to (s)
NEAR_S = 0.1  # how far from the plan's the start of a note that is heard may lie (s)
HeardNote = tuple[float, int]  # start (s) and MIDI pitch


def composed_song(seed: int) -> tuple[Score, Plan, str]:
    """Compose the first song from a seed on that is long enough, its plan, and a caption."""
    for number in range(seed * 1000, seed * 1000 + 1000):
        score = compose_song(random.Random(number), held_out=True)
        if LENGTH_S[0] <= score.duration_s <= LENGTH_S[1]:
            break
    labels = clip_labels(score, 0.0, score.duration_s)
    plan = plan_of_labels(labels)
    assert plan is not None
    return score, plan, held_out_captions(labels, seed, 1)[0]


def measure_song(pipeline: MusicGenerator, seed: int) -> dict[str, Any]:
    """Generate a song of two and a half to four minutes from a composed plan, and measure it.

    Returns:
        ``chroma_same``, ``chroma_other``, ``tokens_same`` and ``tokens_other``: mean similarity of
        chorus to chorus and of chorus to verse; ``melody``: share of the notes of the tune that are
        heard; each with ``_ceiling`` for the true render. Without basic-pitch, no melody.
    """
    score, plan, prompt = composed_song(seed)
    true = torch.from_numpy(render(score))
    rate, frame_rate = pipeline.sample_rate, pipeline.codec.frame_rate
    song = pipeline(prompt, true.shape[1] / SAMPLE_RATE, seed, plan=plan, ending="cut")
    found = section_similarity(song.audio[0].cpu(), rate, song.codes[0, 0].cpu(), frame_rate, plan)
    true_codes = pipeline.encode(true[None])[0, 0].cpu()
    ceiling = section_similarity(true, SAMPLE_RATE, true_codes, frame_rate, plan)
    if find_spec("basic_pitch") is not None:
        heard = transcribe(song.audio[0].cpu(), rate)
        found["melody"] = melody_share(heard, plan)
        found["melody_floor"] = melody_share(heard, composed_song(seed + 1)[1])
        ceiling["melody"] = melody_share(transcribe(true, SAMPLE_RATE), plan)
    return {"seed": seed, **found, **{f"{name}_ceiling": value for name, value in ceiling.items()}}


def section_similarity(
    audio: Tensor, sample_rate: int, codes: Tensor, frame_rate: float, plan: Plan
) -> dict[str, float]:
    """Compare the chorus of a song with its other choruses, and with its verses.

    The plan says where in (C, S) audio, and in the (T,) codes of its first codebook, they lie.

    Returns:
        Cosine similarity of the chroma (the song's mean taken off), and of the square roots of how
        often each code is used; NaN where the song has no such pair.
    """
    chroma = F.normalize(chroma_of_beats(audio, sample_rate, plan.tempo_bpm), dim=1)
    chroma = chroma - chroma.mean(0)
    parts, beat = [], 0.0
    for section in plan.sections:
        start, beat = beat, beat + section.bars * plan.beats_per_bar
        beats = chroma[round(start) : round(beat)]
        first, last = (round(at * 60 / plan.tempo_bpm * frame_rate) for at in (start, beat))
        used = torch.bincount(codes[first:last], minlength=int(codes.max()) + 1).sqrt()
        if len(beats) and used.any():
            parts.append((section.name, beats, used))
    values: dict[str, list[float]] = {
        f"{kind}_{which}": [] for kind in ("chroma", "tokens") for which in ("same", "other")
    }
    for (name, beats, used), (other, beats_too, used_too) in combinations(parts, 2):
        if "chorus" not in (name, other) or {name, other} - {"chorus", "verse"}:
            continue
        which, length = "same" if name == other else "other", min(len(beats), len(beats_too))
        flat = beats[:length].flatten(), beats_too[:length].flatten()
        values[f"chroma_{which}"].append(float(F.cosine_similarity(*flat, dim=0)))
        values[f"tokens_{which}"].append(float(F.cosine_similarity(used, used_too, dim=0)))
    return {name: sum(got) / len(got) if got else math.nan for name, got in values.items()}


def transcribe(audio: Tensor, sample_rate: int) -> list[HeardNote]:
    """Hear the notes of the first minute of (C, S) audio, with basic-pitch."""
    from basic_pitch.inference import predict

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "song.wav")
        write_audio(path, audio[:, : round(TUNE_S * sample_rate)], sample_rate)
        _, _, events = predict(path)
    return [(float(start), int(pitch)) for start, _, pitch, *_ in events]


def melody_share(heard: Sequence[HeardNote], plan: Plan) -> float:
    """Compute the share of the tune's notes in the first minute that are heard, in any octave."""
    beat_s = 60 / plan.tempo_bpm
    tune = [((note.beat - plan.first_beat) * beat_s, note.pitch) for note in plan.melody]
    tune = [(at, pitch) for at, pitch in tune if at < TUNE_S]
    if not tune:
        return math.nan
    hits = [
        any(abs(start - at) <= NEAR_S and (found - pitch) % 12 == 0 for start, found in heard)
        for at, pitch in tune
    ]
    return sum(hits) / len(hits)
