"""Preparation on a dask cluster: the files of one process, also where a worker is killed."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import psutil
import pytest
import soundfile
from tiny_data import chord

from codec.process_settings import kept_process_settings
from pipelines.cli import main

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a scheduler with two workers of one thread each, in a process of their own."""
    code = (
        "import distributed\n"
        "if __name__ == '__main__':\n"
        "    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1,"
        " dashboard_address=None)\n"
        "    print(cluster.scheduler_address, flush=True)\n"
        "    input()\n"
    )
    script = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert script.stdout is not None
    with kept_process_settings():
        import distributed  # noqa: F401  (sets variables of the environment)
    yield script.stdout.readline().strip()
    script.communicate("\n", timeout=60)


def kill_a_worker(after_s: float) -> threading.Timer:
    """Kill -9 a worker in a while; its nanny starts another."""

    def kill() -> None:
        for child in psutil.Process().children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
                return

    timer = threading.Timer(after_s, kill)
    timer.start()
    return timer


def files(folder: Path) -> dict[str, bytes]:
    """Content of every file by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_audio_and_tokens_file_for_file(scheduler, tmp_path, parts):
    """``prepare audio`` and ``prepare tokens`` on a cluster, one worker killed in between."""
    album = tmp_path / "album"
    album.mkdir()
    for seed in range(8):
        soundfile.write(album / f"{seed}.wav", chord(seed, 6.0).T.numpy(), 44100)
    for name, options in (("here", []), ("there", ["--scheduler", scheduler])):
        prepared, tokens = str(tmp_path / name / "prepared"), str(tmp_path / name / "tokens")
        clips = ["--clip", "2", "--validation-fraction", "0.3", "--quiet"]
        audio = ["prepare", "audio", str(album), "--output", prepared, *clips, *options]
        timer = kill_a_worker(0.5) if options else None
        assert main(audio) == 0
        command = ["prepare", "tokens", prepared, "--codec", parts["codec"], "--output", tokens]
        assert main([*command, "--batch-clips", "2", "--quiet", *options]) == 0
        if timer:
            timer.join()
    here, there = files(tmp_path / "here"), files(tmp_path / "there")
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []


LEVELS = """
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin as Base

class Levels(Base, ConfigMixin):
    sample_rate, channels, frame_rate, num_codebooks, codebook_size = 8000, 1, 10.0, 1, 1024

    @register_to_config
    def __init__(self, scale=0.5):
        super().__init__()
        self.top = torch.nn.Parameter(torch.tensor(scale))

    def encode(self, audio):
        frames = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % 800)).unfold(-1, 800, 800)
        return (frames.abs().mean(-1) / self.top * 1024).long().clamp(0, 1023)

    def decode(self, codes):
        return (codes / 1024 * self.top).repeat_interleave(800, -1)
"""


def test_a_codec_of_the_users_own_class(scheduler, tmp_path, monkeypatch):
    """Its module lies where the command is given, which is not where the workers were started."""
    (tmp_path / "levels_of_mine.py").write_text(LEVELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    levels = import_module("levels_of_mine").Levels
    (tmp_path / "album").mkdir()
    for seed in range(4):
        soundfile.write(tmp_path / "album" / f"{seed}.wav", chord(seed, 6.0).T.numpy(), 44100)
    clips = ["--clip", "2", "--validation-fraction", "0.3", "--quiet"]
    assert main(["prepare", "audio", "album", "--output", "prepared", *clips]) == 0
    for top in (0.5, 0.25):  # trained again, while the workers still have the former
        levels(top).save_pretrained("codec")
        for name, options in (("here", []), ("there", ["--scheduler", scheduler])):
            command = ["prepare", "tokens", "prepared", "--output", f"{name}-{top}", "--quiet"]
            assert main([*command, "--codec", "levels_of_mine:Levels:codec", *options]) == 0
        assert files(Path(f"here-{top}")) == files(Path(f"there-{top}"))


def test_no_scheduler(tmp_path, mistake, monkeypatch):
    soundfile.write(tmp_path / "a.wav", chord(0, 6.0).T.numpy(), 44100)
    command = ["prepare", "audio", str(tmp_path), "--output", str(tmp_path / "out"), "--quiet"]
    monkeypatch.setattr("pipelines.data.worker_processes.JOIN_TIMEOUT_S", 0.5)
    said = mistake(*command, "--scheduler", "tcp://127.0.0.1:9")
    assert "no dask scheduler at tcp://127.0.0.1:9" in said
    assert not (tmp_path / "out" / "dataset.json").exists()
