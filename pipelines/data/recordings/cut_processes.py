"""Many tracks cut at once: in this process or in several, with the same result."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from codec.process_settings import cpu_threads
from pipelines.data.recordings.cutting import CutSettings, TrackRecord, cut_track
from pipelines.data.recordings.tracks import Track

if TYPE_CHECKING:
    from pipelines.data.recordings.config import PrepareConfig


def cut_tracks(tracks: list[Track], config: "PrepareConfig", work: Path) -> list[TrackRecord]:
    """Cut every track that is not staged yet; records come back in the order of the tracks."""
    names = ("clip_s", "min_clip_s", "min_track_s", "silence_db", "audio")
    values = {name: getattr(config, name) for name in (*names, "source", "license", "attribution")}
    jobs = [
        (track, CutSettings(**values), work / f"{index:06d}") for index, track in enumerate(tracks)
    ]
    run = cut_here if config.workers == 1 else cut_in_processes
    records: list[TrackRecord] = []
    with tqdm(total=len(jobs), unit="track", disable=config.quiet or None) as bar:
        for record in run(jobs, config.workers):
            records.append(record)
            bar.update()
            bar.set_postfix_str(record.name[-40:])
    return records


def cut_here(jobs: list[Any], workers: int) -> Iterator[TrackRecord]:
    """Cut in this process, on one thread like every worker, so that the result is the same."""
    assert workers == 1
    with cpu_threads(1):
        yield from map(cut_one, jobs)


def cut_in_processes(jobs: list[Any], workers: int) -> Iterator[TrackRecord]:
    """Cut in worker processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker) as pool:
        try:
            yield from pool.map(cut_one, jobs)
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process died (out of memory?): run the same command again to go on"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def begin_worker() -> None:
    """Use one thread, and end when the parent was killed instead of waiting for it for ever."""
    torch.set_num_threads(1)
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()


def end_with_parent(parent: int) -> None:
    """Leave at once when this process has been handed to another parent."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def cut_one(job: Any) -> TrackRecord:
    """One call of ``cut_track``, importable by a worker."""
    return cut_track(*job)
