"""Run Opus, MP3 and Vorbis through ffmpeg: the reference curves of every rate plot."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from pipelines.errors import MissingPackageError
from pipelines.evaluation.clip_checks import UnmeasurableError

# name -> file suffix, and ffmpeg's options before the rate or quality
ENCODERS = {
    "opus": (".ogg", "-c:a libopus -b:a"),
    "opus-constrained": (".ogg", "-c:a libopus -vbr constrained -b:a"),  # nearer to what is asked
    "mp3": (".mp3", "-c:a libmp3lame -b:a"),  # at a constant rate
    "vorbis": (".ogg", "-c:a libvorbis -q:a"),  # q-1 is about 45 kbps
}
CLASSICAL_CODECS = (
    *("opus 6k", "opus 12k", "opus 16k", "opus 32k", "opus 64k"),
    *("opus-constrained 12k", "opus-constrained 32k", "mp3 32k", "mp3 64k", "vorbis q-1"),
)


def transcode(audio: Tensor, sample_rate: int, name: str) -> tuple[Tensor, float]:
    """Encode and decode a (C, S) clip with an encoder at a rate or quality, as ``"opus 12k"``.

    Returns:
        The decoded clip, (C, S) float32 aligned with ``audio``, and the bit rate of the audio
        packets in kbps (the container's own bytes are not counted).

    Raises:
        MissingPackageError: ffmpeg or ffprobe is not installed.
        UnmeasurableError: ffmpeg refused; the message is its last line.
    """
    encoder, _, setting = name.partition(" ")
    suffix, options = ENCODERS[encoder]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.wav", Path(folder) / "out.wav"
        coded = Path(folder) / f"coded{suffix}"
        soundfile.write(source, audio.T.numpy(), sample_rate, subtype="FLOAT")
        _run("ffmpeg", "-i", source, *options.split(), setting.removeprefix("q"), coded)
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
