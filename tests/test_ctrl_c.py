"""Ctrl-C as a terminal sends it, to every process of a command, at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow
ROWS = 240  # more than a fast machine renders before the first Ctrl-C
KINDS = {
    "alone": ["--batch-size", "1"],
    "threads": ["--batch-size", "1", "--threads", "2"],
    "batch": ["--batch-size", "4", "--threads", "2"],
    "workers": ["--workers", "2", "--batch-size", "1"],
}


def start(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, where Ctrl-C is not ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def stop(process: subprocess.Popen[str], after_s: float) -> str | None:
    """Press Ctrl-C after a while; return what was said, or None where it had ended by itself."""
    try:
        process.communicate(timeout=after_s)
        return None
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    if process.returncode == 0:  # it had just ended
        return None
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "terminate called" not in said
    time.sleep(0.5)
    left = [one for one in psutil.process_iter() if is_in_group(one, process.pid)]
    assert left == []
    return said.strip().splitlines()[-1]


def is_in_group(process: psutil.Process, group: int) -> bool:
    """Tell whether a process that still runs belongs to a group."""
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


@pytest.mark.parametrize("kind", KINDS)
def test_rendering_stops_with_130_and_goes_on(kind: str, pipeline_folder: Path, tmp_path: Path):
    rows = "".join(f"r{number},a slow piano,6\n" for number in range(ROWS))
    (tmp_path / "rows.csv").write_text("id,prompt,duration_s\n" + rows)
    command = ["render", "rows.csv", "--output", "out", "--pipeline", str(pipeline_folder)]
    command += KINDS[kind]
    draw, stops = random.Random(kind), 0
    for turn in range(6):
        process, made = start(tmp_path, command), len(list(tmp_path.glob("out/*.wav")))
        while turn % 2 and process.poll() is None:  # every other time while it renders
            if len(list(tmp_path.glob("out/*.wav"))) > made:
                break
            time.sleep(0.05)
        said = stop(process, draw.uniform(0, 2) if turn % 2 else draw.uniform(1, 8))
        stops += said is not None
        assert said in (None, "partita: stopped; the same command goes on")
        assert not list((tmp_path / "out").glob(".*partial*"))
    assert stops > 0
    process = start(tmp_path, command)
    assert process.wait(timeout=900) == 0
    assert len(list((tmp_path / "out").glob("*.wav"))) == ROWS


@pytest.mark.parametrize("threads", ["1", "2"])
def test_generating_stops_with_130_and_leaves_nothing(threads, pipeline_folder, tmp_path):
    command = ["generate", "a slow piano", "--duration", "20", "--num-variations", "50"]
    command += ["--output", "a.wav", "--threads", threads, "--pipeline", str(pipeline_folder)]
    draw = random.Random(threads)
    for _ in range(6):
        assert stop(start(tmp_path, command), draw.uniform(1, 12)) == "partita: stopped"
        assert list(tmp_path.iterdir()) == []
