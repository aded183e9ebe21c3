"""A job on a dask cluster: the same files, also where workers are killed."""

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from test_render import contents, make_rows

from pipelines import Pipeline
from pipelines.evaluation.reasons import MissingPackageError
from pipelines.rendering.engine import RenderOptions, render
from pipelines.rendering.manifest import read_manifest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def pipeline(pipeline_folder: Path) -> Pipeline:
    return Pipeline.from_pretrained(pipeline_folder)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Workers then compute on one thread each, as this process does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Killer(threading.Thread):
    """Kills a random worker of this process -9, a number of times, while items come in."""

    def __init__(self, folder: Path, times: int, draw: random.Random) -> None:
        super().__init__(daemon=True)
        self.folder, self.times, self.draw = folder, times, draw
        self.killed = 0
        self.over = threading.Event()

    def run(self) -> None:
        while self.killed < self.times and not self.over.wait(self.draw.random()):
            if len(read_manifest(self.folder)) > self.killed and (workers := find_workers()):
                self.draw.choice(workers).kill()
                self.killed += 1


def find_workers() -> list[psutil.Process]:
    """The processes that nannies in this process have started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def equal_after_kills(pipeline: Pipeline, folder: Path, count: int, times: int, seed: int) -> None:
    """Render with two workers of which some are killed, and in this process; compare the files."""
    rows = make_rows(count, seed)
    killer = Killer(folder / "cluster", times, random.Random(seed))
    killer.start()
    options = RenderOptions(workers=2, batch_size=4)
    summary = render(pipeline, rows, folder / "cluster", options=options)
    killer.over.set()
    killer.join()
    assert (summary.done, summary.failed) == (count, [])
    assert killer.killed > 0
    lines = (folder / "cluster" / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["id"] for line in lines}) == count
    render(pipeline, rows, folder / "alone")
    assert contents(folder / "cluster") == contents(folder / "alone")


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_equal_one_process(
    pipeline: Pipeline, tmp_path: Path, one_thread: None
):
    pytest.importorskip("distributed")
    equal_after_kills(pipeline, tmp_path, count=24, times=1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_hundred_items_and_workers_killed_at_random_moments(
    pipeline: Pipeline, tmp_path: Path, one_thread: None, seed: int
):
    pytest.importorskip("distributed")
    equal_after_kills(pipeline, tmp_path, count=100, times=3, seed=seed)


@pytest.mark.slow
def test_a_running_scheduler_is_joined(pipeline: Pipeline, tmp_path: Path, one_thread: None):
    distributed = pytest.importorskip("distributed")
    rows = make_rows(6)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=None
    ) as cluster:
        options = RenderOptions(scheduler=cluster.scheduler_address)
        summary = render(pipeline, rows, tmp_path / "cluster", options=options)
    assert (summary.done, summary.failed) == (6, [])
    assert len(read_manifest(tmp_path / "cluster")) == 6


def test_what_a_cluster_needs_is_said(tmp_path: Path, pipeline: Pipeline, monkeypatch: Any):
    options = RenderOptions(scheduler="tcp://127.0.0.1:1")
    monkeypatch.setattr("pipelines.rendering.cluster.JOIN_TIMEOUT_S", 0.5)
    try:
        import distributed  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPackageError, match=r"pip install 'partita\[cluster\]'"):
            render(pipeline, make_rows(1), tmp_path, options=options)
    else:
        with pytest.raises(ValueError, match=r"no dask scheduler at tcp://127\.0\.0\.1:1"):
            render(pipeline, make_rows(1), tmp_path, options=options)


def test_one_process_needs_no_dask():
    code = "import pipelines.rendering.engine, sys; sys.exit('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
