"""Preparation on a dask cluster: the files of one process, also where a worker is killed."""

import subprocess
import sys
import threading
from collections.abc import Iterator
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


def test_no_scheduler(tmp_path, mistake, monkeypatch):
    soundfile.write(tmp_path / "a.wav", chord(0, 6.0).T.numpy(), 44100)
    command = ["prepare", "audio", str(tmp_path), "--output", str(tmp_path / "out"), "--quiet"]
    monkeypatch.setattr("pipelines.data.worker_processes.JOIN_TIMEOUT_S", 0.5)
    said = mistake(*command, "--scheduler", "tcp://127.0.0.1:9")
    assert "no dask scheduler at tcp://127.0.0.1:9" in said
    assert not (tmp_path / "out" / "dataset.json").exists()
