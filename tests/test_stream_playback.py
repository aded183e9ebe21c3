"""``--play`` and ``--stdout``, with real processes and pipes."""

import io
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codec.audio_file import read_audio
from pipelines import Pipeline
from pipelines.cli import main
from pipelines.inference.playback import PLAYERS, PipeWriter, Player, wav_header

RATE = 44_100
COMMAND = ["generate", "a slow piano", "--duration", "1.27", "--seed", "3"]


@pytest.fixture(scope="module")
def expected(pipeline_folder: Path) -> np.ndarray:
    """(S, C) of the offline call."""
    pipeline = Pipeline.from_pretrained(pipeline_folder)
    return pipeline("a slow piano", 1.27, 3, ending="cut").audio[0].numpy().T


def sixteen_bits(samples: np.ndarray) -> np.ndarray:
    return (samples.astype(np.float64) * 32768).round().clip(-32768, 32767).astype(np.int16)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH besides the system's shell."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(folder: Path, name: str, script: str) -> None:
    """A program under a player's name."""
    path = folder / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


# -- standard output ------------------------------------------------------------------------


def test_wav_to_a_pipe(capfdbinary, pipeline_folder, expected):
    assert main([*COMMAND, "--stdout", "wav", "--pipeline", str(pipeline_folder)]) == 0
    out, err = capfdbinary.readouterr()
    samples, rate = soundfile.read(io.BytesIO(out), dtype="int16", always_2d=True)
    assert rate == RATE
    assert np.array_equal(samples, sixteen_bits(expected))
    assert b"44100 Hz, 2 channels" in err
    assert b"first sound after" in err
    assert b"plan: " in err


def test_bare_samples_to_a_pipe(capfdbinary, pipeline_folder, expected, tmp_path):
    options = ["--pipeline", str(pipeline_folder), "--quiet", "--stdout"]
    assert main([*COMMAND, *options, "f32"]) == 0
    out = capfdbinary.readouterr().out
    assert np.array_equal(np.frombuffer(out, np.float32).reshape(-1, 2), expected)
    files = ["--output", str(tmp_path / "a.wav"), "--tokens", str(tmp_path / "a.safetensors")]
    assert main([*COMMAND, *options, "s16", *files]) == 0
    out = capfdbinary.readouterr().out
    assert np.array_equal(np.frombuffer(out, np.int16).reshape(-1, 2), sixteen_bits(expected))
    assert read_audio(tmp_path / "a.wav").audio.shape == (2, len(expected))
    again = tmp_path / "b.wav"
    decode = ["decode", files[3], "--output", str(again), "--pipeline", str(pipeline_folder)]
    assert main([*decode, "--quiet"]) == 0
    assert again.read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_a_reader_that_leaves_is_no_error(capfd, pipeline_folder, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        assert (
            main([*COMMAND, "--stdout", "s16", "--quiet", "--pipeline", str(pipeline_folder)]) == 0
        )
    assert capfd.readouterr().err == ""


def test_samples_that_do_not_fit_are_clipped():
    stream = io.BytesIO()
    PipeWriter(stream, "s16", RATE, 1).write(torch.tensor([[0.0, 2.0, -2.0, 0.5]]))
    assert np.frombuffer(stream.getvalue(), np.int16).tolist() == [0, 32767, -32768, 16384]


def test_a_terminal_is_refused(capsys, monkeypatch, pipeline_folder):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main([*COMMAND, "--stdout", "wav", "--pipeline", str(pipeline_folder)]) == 2
    assert "--stdout writes samples, not text" in capsys.readouterr().err


def test_plot_needs_a_file(capsys, pipeline_folder):
    command = [*COMMAND, "--stdout", "wav", "--plot", "--pipeline", str(pipeline_folder)]
    assert main(command) == 2
    assert "--plot draws beside the file that --output names" in capsys.readouterr().err


def test_a_header_of_unknown_length_is_read_as_a_pipes():
    samples = np.arange(100, dtype=np.int16)
    data = wav_header(RATE, 1, None) + samples.tobytes()
    assert np.array_equal(read_audio(data).audio[0].numpy(), samples / np.float32(32768))


# -- players --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAYERS)
def test_a_player_gets_every_sample(name, programs, tmp_path, pipeline_folder, expected):
    install(programs, name, f"cat > {tmp_path}/heard; echo $@ > {tmp_path}/options")
    assert main([*COMMAND, "--play", "--quiet", "--pipeline", str(pipeline_folder)]) == 0
    heard = (tmp_path / "heard").read_bytes()
    if name == "ffplay":
        heard = heard[44:]
    else:
        assert "44100" in (tmp_path / "options").read_text()
    assert np.array_equal(np.frombuffer(heard, np.int16).reshape(-1, 2), sixteen_bits(expected))


def test_without_a_player_the_names_are_told(programs, capsys, pipeline_folder):
    assert main([*COMMAND, "--play", "--pipeline", str(pipeline_folder)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "no player is installed: --play needs one of paplay, aplay, play, ffplay" in line


def test_a_player_that_fails_says_why(programs, capsys, pipeline_folder):
    install(programs, "aplay", "echo 'aplay: cannot find card 0' >&2; exit 1")
    assert main([*COMMAND, "--play", "--quiet", "--pipeline", str(pipeline_folder)]) == 2
    assert "aplay stopped: aplay: cannot find card 0" in capsys.readouterr().err


def play_and_stop(player: Player, num_pieces: int) -> None:
    """Hand over pieces of a second, then press Ctrl-C."""
    with player:
        for _ in range(num_pieces):
            player.write(torch.zeros(2, RATE))
        raise KeyboardInterrupt


def test_an_interrupt_ends_the_player(programs):
    install(programs, "aplay", "exec sleep 60")
    player = Player(RATE, 2)
    with pytest.raises(KeyboardInterrupt):
        play_and_stop(player, 1)
    assert player.process.poll() is not None
    assert not player.thread.is_alive()


def test_nobody_waits_for_a_slow_player(programs):
    """Pieces are stored, far more than a pipe holds: computing goes on while the first is heard."""
    install(programs, "aplay", "exec sleep 60")
    with pytest.raises(KeyboardInterrupt):
        play_and_stop(Player(RATE, 2), 40)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffplay") is None, reason="needs ffplay (Debian's ffmpeg)")
def test_ffplay_understands(monkeypatch, tmp_path):
    (tmp_path / "ffplay").symlink_to(str(shutil.which("ffplay")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    with Player(RATE, 2, RATE) as player:
        player.write(torch.zeros(2, RATE))
