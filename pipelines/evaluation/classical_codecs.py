"""Opus, MP3 and Vorbis through ffmpeg: the reference curves of every rate plot."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from pipelines.errors import MissingPackageError
from pipelines.evaluation.reasons import UnmeasurableError


@dataclass(frozen=True)
class ClassicalCodec:
    """One setting of a classical codec.

    Attributes:
        name: what the report calls it, for example ``"opus 12k"``.
        arguments: ffmpeg's encoder arguments.
        suffix: the container's file suffix.
    """

    name: str
    arguments: tuple[str, ...]
    suffix: str


def opus(bitrate_kbps: int) -> ClassicalCodec:
    """Choose Opus by libopus at a nominal bit rate."""
    rate = f"{bitrate_kbps}k"
    return ClassicalCodec(f"opus {rate}", ("-c:a", "libopus", "-b:a", rate), ".ogg")


def constrained_opus(bitrate_kbps: int) -> ClassicalCodec:
    """Choose Opus at a constrained bit rate, which stays nearer to what is asked for."""
    free = opus(bitrate_kbps)
    arguments = (*free.arguments, "-vbr", "constrained")
    return ClassicalCodec(f"opus-constrained {bitrate_kbps}k", arguments, free.suffix)


def mp3(bitrate_kbps: int) -> ClassicalCodec:
    """Choose MP3 by LAME at a constant bit rate."""
    rate = f"{bitrate_kbps}k"
    return ClassicalCodec(f"mp3 {rate}", ("-c:a", "libmp3lame", "-b:a", rate), ".mp3")


def vorbis(quality: int) -> ClassicalCodec:
    """Choose Vorbis by libvorbis at a quality from -1 (about 45 kbps) to 10."""
    return ClassicalCodec(f"vorbis q{quality}", ("-c:a", "libvorbis", "-q:a", f"{quality}"), ".ogg")


CLASSICAL_CODECS = (
    *map(opus, (6, 12, 16, 32, 64)),
    *map(constrained_opus, (12, 32)),
    *(mp3(32), mp3(64), vorbis(-1)),
)


def choose_classical(names: Sequence[str] | None) -> tuple[ClassicalCodec, ...]:
    """Find settings by name; None stands for all.

    Raises:
        ValueError: no setting has such a name.
    """
    known = {setting.name: setting for setting in CLASSICAL_CODECS}
    for name in names or ():
        if name not in known:
            raise ValueError(f"classical must be among {', '.join(known)}, got {name!r}")
    return CLASSICAL_CODECS if names is None else tuple(known[name] for name in names)


def transcode(
    audio: Tensor, sample_rate: int, classical_codec: ClassicalCodec
) -> tuple[Tensor, float]:
    """Encode and decode a clip.

    Args:
        audio: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz.
        sample_rate: Hz, also of the result.
        classical_codec: the setting.

    Returns:
        The decoded clip, (C, S) float32 aligned with ``audio``, and the bit rate of the audio
        packets in kbps (the container's own bytes are not counted).

    Raises:
        MissingPackageError: ffmpeg or ffprobe is not installed.
        UnmeasurableError: ffmpeg refused; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.wav", Path(folder) / "out.wav"
        coded = Path(folder) / f"coded{classical_codec.suffix}"
        soundfile.write(source, audio.T.numpy(), sample_rate, subtype="FLOAT")
        _run("ffmpeg", "-i", source, *classical_codec.arguments, coded)
        _run("ffmpeg", "-i", coded, "-ar", str(sample_rate), "-c:a", "pcm_f32le", target)
        samples, _ = soundfile.read(target, dtype="float32", always_2d=True)
        payload = _payload_bytes(coded)
    channels, length = audio.shape
    decoded = np.zeros((length, channels), np.float32)  # an encoder may drop a few last samples
    decoded[: min(length, len(samples))] = samples[:length]
    return torch.from_numpy(decoded.T.copy()), payload * 8 / 1000 * sample_rate / length


def _payload_bytes(path: Path) -> int:
    output = _run(
        "ffprobe", "-select_streams", "a", "-show_entries", "packet=size", "-of", "csv=p=0", path
    )
    return sum(int(line.strip().rstrip(",")) for line in output.split() if line.strip(", "))


def _run(program: str, *arguments: str | Path) -> str:
    if shutil.which(program) is None:
        raise MissingPackageError(
            f"the classical codecs need {program}: apt-get install --no-install-recommends ffmpeg"
        )
    options = ["-nostdin", "-y", "-threads", "1"] if program == "ffmpeg" else []
    command = [program, "-v", "error", *options, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnmeasurableError(f"{program} failed: {last}")
    return result.stdout
