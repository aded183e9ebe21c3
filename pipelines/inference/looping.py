"""Generate a piece whose end runs into its beginning."""

import secrets
from dataclasses import replace
from typing import Any

from pipelines.inference.crossfade import CROSSFADE_S, crossfaded
from pipelines.inference.editing import SoundOptions, check_options
from pipelines.inference.piece_generator import PieceGenerator
from pipelines.inference.plan_schema import FLAG_FIELDS
from pipelines.music_output import MusicOutput
from prior.plan_draft import chords_between, repeated


def make_loop(pipeline: PieceGenerator, prompt: str, bars: int, given: SoundOptions) -> MusicOutput:
    """Generate a piece whose end runs into its beginning, exact to the sample.

    A bar before the loop is generated too, on the loop's last chords, so that what rings from the
    end sounds at the beginning; just before the end the sound goes over into that bar's.

    Raises:
        ValueError: bars are not 1 to 512, or an option is out of its range.
    """
    if isinstance(bars, bool) or not isinstance(bars, int) or not 1 <= bars <= 512:
        raise ValueError(f"bars must be a whole number in [1, 512], got {bars!r}")
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    check_options(options)
    fields = {name: options.pop(name) for name in (*FLAG_FIELDS, "plan") if name in options}
    seed = options.setdefault("seed", secrets.randbelow(2**31))
    planned = pipeline.plan(prompt, pipeline.config.max_duration_s, seed, **fields)
    rate, beat_s = pipeline.sample_rate, 60 / planned.tempo_bpm
    beats = bars * planned.beats_per_bar
    before = planned.beats_per_bar
    num_samples, first = round(beats * beat_s * rate), round(before * beat_s * rate)
    seconds = (first + num_samples) / rate
    chords = repeated(chords_between(planned.chords, 0, beats), beats, 2 * beats + before)
    plan = replace(planned, chords=chords, first_beat=float(beats - before), sections=())
    song = pipeline(prompt, seconds, plan=plan, ending="cut", **options)
    whole = song.audio[..., : first + num_samples]
    audio = whole[0, :, first:].clone()
    fade = min(round(CROSSFADE_S * rate), first, num_samples)
    audio[:, -fade:] = crossfaded(audio[:, -fade:], whole[0, :, first - fade : first])
    song.settings["edit"] = {"bars": bars, "first_sample": first}
    return replace(song, audios=audio[None])
