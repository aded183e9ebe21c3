"""Pictures of audio: what is drawn, and what happens without matplotlib."""

import struct
import sys
from pathlib import Path

import pytest
import torch

from pipelines.cli import main
from pipelines.errors import MissingPackageError
from pipelines.inference.plot import draw_spectrogram, draw_thumbnail, draw_waveform, plot_audio

RATE = 44_100


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height from a PNG's head."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


@pytest.mark.parametrize("num_samples", [1, 441, 44_100, 3 * 44_100 + 5])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_length_and_channels_give_a_picture(tmp_path: Path, num_samples: int, channels: int):
    pytest.importorskip("matplotlib")
    path = plot_audio(torch.randn(channels, num_samples) * 0.1, RATE, tmp_path / "a.png", "noise")
    assert picture_size(path) == (1200, 600)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_tone_is_drawn_at_its_level_and_band():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    time_s = torch.arange(RATE) / RATE
    tone = torch.sin(2 * torch.pi * 1000 * time_s).repeat(2, 1)
    image = draw_spectrogram(figure.subplots(), tone, RATE, 1.0)
    levels = torch.as_tensor(image.get_array())  # (M, F) dB
    band = int(levels[:, 50].argmax())
    assert 30 < band < 60
    assert levels[band, 50] == pytest.approx(0, abs=3)
    assert levels[band + 20, 50] < -60


@pytest.mark.parametrize("num_samples", [1, 441, 44_100, 9 * 44_100 + 5])
def test_a_thumbnail_shows_the_tone_that_changes_half_way(tmp_path: Path, num_samples: int):
    image = pytest.importorskip("matplotlib.image")
    times = torch.arange(num_samples) / RATE
    hertz = torch.where(times < times[-1] / 2, 300.0, 3000.0)
    tone = 0.5 * torch.sin(2 * torch.pi * hertz * times).repeat(2, 1)
    path = draw_thumbnail(tone, RATE, tmp_path / "x.png", columns=100)
    assert picture_size(path) == (100, 128)
    if num_samples >= RATE:
        brightness = image.imread(path)[..., :3].sum(-1)
        rows = brightness.argmax(0)  # the top row is the highest band
        assert rows[25] > rows[75] + 20


def test_the_waveform_spans_the_lowest_and_the_highest_sample():
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    audio = torch.zeros(1, 100_000)
    audio[0, 50_000], audio[0, 50_001] = 0.7, -0.4
    draw_waveform(axes, audio, 1.0)
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(0.7)
    assert heights.min() == pytest.approx(-0.4)


@pytest.mark.usefixtures("measuring_packages")
@pytest.mark.parametrize("command", ["generate", "decode", "reconstruct"])
def test_plot_option(command: str, tmp_path: Path, pipeline_folder: Path):
    pytest.importorskip("matplotlib")
    song, tokens = tmp_path / "song.wav", tmp_path / "song.safetensors"
    shared = ["--pipeline", str(pipeline_folder), "--quiet"]
    first = ["generate", "a", "--duration", "1", "--output", str(song), "--tokens", str(tokens)]
    options = {
        "generate": first,
        "decode": ["decode", str(tokens), "--output", str(tmp_path / "again.ogg")],
        "reconstruct": ["reconstruct", str(song), "--output", str(tmp_path)],
    }
    if command != "generate":
        assert main([*first, *shared]) == 0
    assert main([*options[command], "--plot", *shared]) == 0
    expected = {
        "generate": {"song.png"},
        "decode": {"again.png"},
        "reconstruct": {"original.png", "preview.png", "decoded.png"},
    }
    assert {path.name for path in tmp_path.glob("*.png")} == expected[command]


def test_without_matplotlib_the_extra_is_named(tmp_path, pipeline_folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"pip install partita\[plot\]"):
        plot_audio(torch.zeros(1, 100), RATE, tmp_path / "a.png")
    output = tmp_path / "song.wav"
    arguments = ["--output", str(output), "--pipeline", str(pipeline_folder)]
    assert main(["generate", "a", "--plot", *arguments]) == 2
    assert "a plot needs matplotlib: pip install partita[plot]" in capsys.readouterr().err
    assert not output.exists()
