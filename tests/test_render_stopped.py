"""A job that is killed, interrupted or out of disk goes on later and ends as if undisturbed."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_jobs import Row, contents, make_rows

from codec.process_settings import cpu_threads
from pipelines import Pipeline
from pipelines.rendering.engine import RenderOptions, render
from pipelines.rendering.job import read_status
from pipelines.rendering.manifest import read_manifest
from pipelines.rendering.progress import RenderProgress


def in_child(work: Callable[[], object]) -> int:
    """Run in a forked process, on two threads."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            torch.set_num_threads(2)
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def kill_and_resume(pipeline: Pipeline, rows: list[Row], folder: Path, draw: random.Random) -> int:
    """Kill the run -9 at random moments, ten times unless it ends before, then let it end."""
    for kills in range(10):
        child = in_child(lambda: render(pipeline, rows, folder))
        wanted = len(read_manifest(folder)) + draw.randint(0, len(rows) // 3)
        pause_s = draw.random() * 0.05
        while len(read_manifest(folder)) < min(wanted, len(rows)):
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                return kills
            time.sleep(0.002)
        time.sleep(pause_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return kills
        assert os.WTERMSIG(status) == signal.SIGKILL
    child = in_child(lambda: render(pipeline, rows, folder))
    assert os.waitpid(child, 0)[1] == 0
    return 10


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
)
def test_a_run_killed_at_random_moments_equals_an_undisturbed_one(pipeline, tmp_path, seed):
    rows = make_rows(100 if seed else 40, seed)
    child = in_child(lambda: render(pipeline, rows, tmp_path / "undisturbed"))
    assert os.waitpid(child, 0)[1] == 0
    kills = kill_and_resume(pipeline, rows, tmp_path / "killed", random.Random(seed))
    assert kills > 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert len(read_manifest(tmp_path / "killed")) == len(rows)


def test_a_killed_run_is_told_from_a_running_one(pipeline: Pipeline, tmp_path: Path):
    rows = make_rows(24)
    child = in_child(lambda: render(pipeline, rows, tmp_path))
    while not read_manifest(tmp_path):
        time.sleep(0.002)
    os.kill(child, signal.SIGSTOP)
    status = read_status(tmp_path)
    assert (status.state, status.items) == ("running", 24)
    assert 0 < status.done < 24
    assert status.left_s is not None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert read_status(tmp_path).state == "killed"
    render(pipeline, rows, tmp_path)
    status = read_status(tmp_path)
    assert (status.state, status.done, status.left_s) == ("finished", 24, None)


def test_ctrl_c_stops_cleanly_and_the_run_goes_on_later(pipeline, tmp_path, monkeypatch):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    rows = make_rows(6)
    with monkeypatch.context() as patch, cpu_threads(2):
        patch.setattr(RenderProgress, "item", interrupt)  # after the first item
        with pytest.raises(KeyboardInterrupt):
            render(pipeline, rows, tmp_path)
    status = read_status(tmp_path)
    assert (status.state, status.done) == ("stopped", 1)
    assert str(status).endswith("by Ctrl-C; the same command goes on")
    summary = render(pipeline, rows, tmp_path)
    assert (summary.done, summary.skipped) == (5, 1)


def test_a_full_disk_stops_cleanly_and_the_run_goes_on_later(pipeline: Pipeline, tmp_path: Path):
    """A limit on the size of files stands in for the disk: writing fails in the same way."""
    rows = [row | {"format": "wav", "duration_s": 0.2} for row in make_rows(4)]
    rows[2] |= {"id": "large", "duration_s": 2.0, "guidance": rows[3]["guidance"]}
    report = tmp_path / "report"

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            render(pipeline, rows, tmp_path / "out", options=RenderOptions(batch_size=1))
        except OSError as error:
            report.write_text(str(error))

    os.waitpid(in_child(work), 0)
    assert "make room and run the same command again" in report.read_text()
    assert not list((tmp_path / "out").glob(".*.partial.*"))
    assert not (tmp_path / "out" / "large.wav").exists()
    status = read_status(tmp_path / "out")
    assert status.state == "stopped"
    assert "no room to write" in status.message
    summary = render(pipeline, rows, tmp_path / "out")
    assert (summary.done + summary.skipped, summary.failed) == (4, [])
