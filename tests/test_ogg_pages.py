"""Vorbis of ours is as long to other readers as to us, and one page of audio becomes two."""

import io
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from codec.audio_file import read_audio, write_audio


def vorbis(samples: int) -> tuple[torch.Tensor, bytes]:
    """A tone and its file."""
    audio = 0.3 * torch.sin(torch.arange(samples) * 0.05).repeat(2, 1)
    stream = io.BytesIO()
    write_audio(stream, audio, 44_100, format="ogg")
    return audio, stream.getvalue()


@pytest.mark.parametrize("samples", [1, 300, 11_025, 44_100, 441_000])
def test_audio_lies_on_two_pages_at_least(samples: int) -> None:
    audio, data = vorbis(samples)
    assert data.count(b"OggS") >= 4
    again = read_audio(data).audio
    assert again.shape == audio.shape
    assert float((again - audio).abs().max()) < 0.05


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
@pytest.mark.parametrize("samples", [300, 1000, 11_025, 44_100])
def test_ffmpeg_reads_every_sample(samples: int, tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(vorbis(samples)[1])
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "s16le", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(decoded) == 4 * samples
