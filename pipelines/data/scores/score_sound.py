"""Play a score with FluidSynth, and cut the sound into labeled clips."""

import io
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from codec.seeds import derive_seed
from pipelines.data.clip_levels import FRAMES_PER_TOKEN, analysis, analyze, pad_frames
from pipelines.data.prepared import Clip
from pipelines.data.recordings.cutting import encode_flac
from pipelines.data.scores.captions import captions
from pipelines.data.scores.chords import plan_labels
from pipelines.data.scores.keys import estimate_key
from pipelines.data.scores.score import Score, all_labels, pitch_class_weights
from pipelines.data.scores.score_midi import write_midi

SAMPLE_RATE = 44_100
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
SOUNDFONT_CREDIT = "FluidR3_GM soundfont by Frank Wen and contributors (MIT)"
CLIP_S = 20.0
MIN_CLIP_S = 5.0
TAIL_S = 2.4
TARGET_DB = {"soft": -27.0, "moderate": -22.0, "loud": -17.5}
"""RMS of a piece without its silence (dB of full scale)."""
PEAK = 0.95
_GAIN = 0.4
_TIMEOUT_S = 120


class RenderError(RuntimeError):
    """Report a piece that could not be composed or played."""


def check_programs(programs: list[str], soundfont: Path | None = None) -> None:
    """Check that programs, and a soundfont where one is given, are installed.

    Raises:
        FileNotFoundError: one is missing; the message names its Debian package.
    """
    for program in programs:
        if shutil.which(program) is None:
            raise FileNotFoundError(f"{program} is not installed: apt-get install {program}")
    if soundfont is not None and not soundfont.is_file():
        raise FileNotFoundError(
            f"soundfont {soundfont} does not exist: apt-get install fluid-soundfont-gm"
        )


def render(score: Score, soundfont: Path = SOUNDFONT) -> np.ndarray:
    """Play a score as (2, S) float32 at 44,100 Hz, at the loudness that its dynamics ask for.

    Peaks stay below 0.95; silence at the end is removed.

    Raises:
        RenderError: FluidSynth failed, or gave silence or damaged samples.
    """
    audio = run_fluidsynth(write_midi(score, TAIL_S), score.room, soundfont)
    if not np.isfinite(audio).all():
        raise RenderError("FluidSynth returned samples that are not finite")
    peak = float(np.abs(audio).max(initial=0.0))
    if peak < 1e-4:
        raise RenderError(f"FluidSynth returned silence (peak {peak:.1e})")
    return trim_end(normalize(audio, TARGET_DB[score.labels["dynamics"]]))


def run_fluidsynth(midi: bytes, room: float, soundfont: Path) -> np.ndarray:
    """Play a MIDI file's bytes with reverberation of size 0 to 1: (2, S) float32 at 44,100 Hz."""
    with tempfile.TemporaryDirectory(prefix="partita-scores-") as folder:
        source, target = Path(folder, "piece.mid"), Path(folder, "piece.wav")
        source.write_bytes(midi)
        options = ["-ni", "-q", "-T", "wav", "-O", "float", "-r", str(SAMPLE_RATE)]
        options += ["-g", str(_GAIN), "-o", "synth.chorus.level=0.25"]
        options += ["-o", f"synth.reverb.room-size={room:.3f}", "-o", "synth.reverb.width=0.8"]
        options += ["-o", "synth.reverb.damp=0.3", "-o", "synth.reverb.level=0.7", "-F"]
        sound = run_player("fluidsynth", options, target, str(soundfont), str(source))
    audio, _ = soundfile.read(io.BytesIO(sound), dtype="float32", always_2d=True)
    return np.ascontiguousarray(audio.T)


def run_player(program: str, options: list[str], target: Path, *more: str) -> bytes:
    """Run a program that writes a file, named after its options, and return what it wrote."""
    command = [program, *options, str(target), *more]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        raise RenderError(f"{program} could not be run: {error}") from error
    if done.returncode != 0 or not target.is_file():
        text = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
        raise RenderError(f"{program} ended with code {done.returncode}: {' '.join(text[-2:])}")
    return target.read_bytes()


def normalize(audio: np.ndarray, target_db: float) -> np.ndarray:
    """Scale to a loudness (RMS of the windows within 30 dB of the loudest), peaks at most 0.95."""
    window = SAMPLE_RATE // 5
    usable = audio[:, : audio.shape[1] // window * window] if audio.shape[1] > window else audio
    power = np.square(usable).mean(0).reshape(-1, min(window, usable.shape[1])).mean(1)
    loud = power[power > power.max() * 1e-3].mean()
    gain = 10 ** (target_db / 20) / np.sqrt(loud)
    return (audio * min(gain, PEAK / np.abs(audio).max())).astype(np.float32)


def trim_end(audio: np.ndarray, floor_db: float = -66.0) -> np.ndarray:
    """Cut the silent end and fade the last 60 ms, so that the piece ends without a click."""
    audible = np.flatnonzero(np.abs(audio).max(0) > 10 ** (floor_db / 20))
    audio = audio[:, : min(audio.shape[1], int(audible[-1]) + SAMPLE_RATE // 10)].copy()
    fade = min(SAMPLE_RATE * 6 // 100, audio.shape[1])
    audio[:, -fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return audio


def cut_clips(
    score: Score, audio: np.ndarray, track: str, seed: int, keep_audio: bool, clip_s: float = CLIP_S
) -> list[Clip]:
    """Cut a rendered piece, (2, S) float32 at 44,100 Hz, into clips; the last is kept from 5 s on.

    Clips are whole token frames long and numbered after ``track``; captions' seeds come from
    ``seed``. ``keep_audio`` stores FLAC beside the spectrogram.
    """
    levels, stereo = analyze(analysis().log_mel.pad(torch.from_numpy(audio)))
    clip_samples, clip_frames = round(clip_s * SAMPLE_RATE), round(clip_s * 100)
    clips = []
    for number, start in enumerate(range(0, audio.shape[1], clip_samples)):
        samples = audio[:, start : start + clip_samples]
        if samples.shape[1] < MIN_CLIP_S * SAMPLE_RATE:
            break
        first = number * clip_frames
        first_token, last_token = (n // FRAMES_PER_TOKEN for n in (first, first + clip_frames))
        labels = clip_labels(score, start / SAMPLE_RATE, (start + samples.shape[1]) / SAMPLE_RATE)
        clips.append(
            Clip(
                id=f"{track}-{number}",
                track=track,
                start_s=start / SAMPLE_RATE,
                duration_s=samples.shape[1] / SAMPLE_RATE,
                spectrogram=pad_frames(levels[:, :, first : first + clip_frames]),
                stereo=stereo[..., first_token:last_token],
                captions=captions(labels, derive_seed(seed, track, number)),
                labels=json.dumps(labels),
                source=f"scores:{labels['source']}",
                license=score.license,
                attribution="; ".join(filter(None, (score.attribution, SOUNDFONT_CREDIT))),
                is_end=score.complete and start + samples.shape[1] == audio.shape[1],
                audio=encode_flac(torch.from_numpy(samples)) if keep_audio else b"",
            )
        )
    return clips


def clip_labels(score: Score, start_s: float, end_s: float) -> dict:
    """Label a stretch of a piece.

    The key of a corpus piece is an estimate: it is kept only where the stretch alone confirms it.
    """
    labels = all_labels(score) | {"plan": plan_labels(score, start_s, end_s)}
    if score.key and labels["source"] == "bach":
        found, _ = estimate_key(pitch_class_weights(score, start_s, end_s))
        if found != score.key:
            labels |= {"key": None, "mode": None}
    return labels
