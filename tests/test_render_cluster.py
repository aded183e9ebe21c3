"""A job on a dask cluster: the same files, also where workers are killed."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_jobs import contents, make_rows

from codec.process_settings import kept_process_settings
from pipelines import Pipeline
from pipelines.errors import MissingPackageError
from pipelines.rendering.cluster import DaskWorkers
from pipelines.rendering.engine import RenderOptions, render
from pipelines.rendering.job import read_status
from pipelines.rendering.manifest import read_manifest
from pipelines.rendering.render_queue import RenderTask

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def pipeline(pipeline_folder: Path) -> Pipeline:
    return Pipeline.from_pretrained(pipeline_folder)


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
    rows, handed_out = make_rows(count, seed), Counter[tuple[str, bool]]()
    submit = DaskWorkers.submit

    def count_task(workers: DaskWorkers, task: RenderTask) -> Any:
        handed_out.update((item.id, task.codes is None) for item in task.items)
        return submit(workers, task)

    killer = Killer(folder / "cluster", times, random.Random(seed))
    killer.start()
    options = RenderOptions(workers=2, batch_size=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DaskWorkers, "submit", count_task)
        summary = render(pipeline, rows, folder / "cluster", options=options)
    killer.over.set()
    killer.join()
    assert set(handed_out.values()) == {1}, "an item that was rendered twice"
    assert len(handed_out) == 2 * count
    assert (summary.done, summary.failed) == (count, [])
    assert killer.killed > 0
    lines = (folder / "cluster" / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["id"] for line in lines}) == count
    render(pipeline, rows, folder / "alone")
    assert contents(folder / "cluster") == contents(folder / "alone")


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_equal_one_process(pipeline: Pipeline, tmp_path: Path):
    pytest.importorskip("distributed")
    equal_after_kills(pipeline, tmp_path, count=24, times=1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_hundred_items_and_workers_killed_at_random_moments(pipeline, tmp_path, seed):
    pytest.importorskip("distributed")
    equal_after_kills(pipeline, tmp_path, count=100, times=3, seed=seed)


@pytest.mark.slow
def test_a_running_scheduler_is_joined(pipeline: Pipeline, tmp_path: Path):
    distributed = pytest.importorskip("distributed")
    rows = make_rows(6)
    with (
        kept_process_settings(),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address=None
        ) as cluster,
    ):
        options = RenderOptions(scheduler=cluster.scheduler_address)
        summary = render(pipeline, rows, tmp_path / "cluster", options=options)
    assert (summary.done, summary.failed) == (6, [])
    assert len(read_manifest(tmp_path / "cluster")) == 6


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(pipeline_folder: Path, tmp_path: Path):
    pytest.importorskip("distributed")
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out"
    rows.write_text("".join(json.dumps(row) + "\n" for row in make_rows(40)))
    command = [sys.executable, "-m", "pipelines", "render", str(rows), "--output", str(out)]
    command += ["--pipeline", str(pipeline_folder), "--workers", "2", "--quiet"]
    with subprocess.Popen(command, cwd=REPOSITORY) as job:
        while not read_manifest(out):
            assert job.poll() is None
            time.sleep(0.05)
        children = psutil.Process(job.pid).children(recursive=True)
        job.kill()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert read_status(out).state == "killed"
    assert subprocess.run(command, cwd=REPOSITORY).returncode == 0
    assert len(read_manifest(out)) == 40


def test_what_a_cluster_needs_is_said(tmp_path: Path, pipeline: Pipeline, monkeypatch: Any):
    options = RenderOptions(scheduler="tcp://127.0.0.1:1")
    monkeypatch.setattr("pipelines.data.worker_processes.JOIN_TIMEOUT_S", 0.5)
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
