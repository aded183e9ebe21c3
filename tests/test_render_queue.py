"""The queue of a job: batches, tasks at once, and tasks that are stopped."""

import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from small_jobs import make_rows

from pipelines import Pipeline
from pipelines.rendering import render_queue
from pipelines.rendering.item import RenderItem
from pipelines.rendering.origin import describe_origin
from pipelines.rendering.renderer import Renderer
from pipelines.rendering.rows import Defaults, read_request
from pipelines.rendering.worker_pool import WorkerPool, run_queue


def read_items(pipeline: Pipeline, *rows: dict[str, Any]) -> list[RenderItem]:
    return read_request(rows, pipeline, Defaults()).items


class MeetingRenderer(Renderer):
    """The first item to be decoded and the second batch to be generated wait for one another."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline, describe_origin(pipeline))
        self.both = threading.Barrier(2, timeout=60)
        self.batches, self.pieces = itertools.count(), itertools.count()

    def generate(self, task: render_queue.RenderTask) -> render_queue.BatchTokens:
        if next(self.batches) == 1:
            self.both.wait()
        return super().generate(task)

    def decode(self, task: render_queue.RenderTask) -> render_queue.RenderedFiles:
        if next(self.pieces) == 0:
            self.both.wait()
        return super().decode(task)


def test_one_batch_is_generated_while_another_is_decoded(pipeline: Pipeline):
    rows = [{"id": str(index), "prompt": "x", "duration_s": 0.1} for index in range(4)]
    renderer = MeetingRenderer(pipeline)
    with ThreadPoolExecutor(2) as executor:
        queue = render_queue.RenderQueue(read_items(pipeline, *rows), pipeline.num_frames, 2)
        pool = WorkerPool(
            lambda: 2, lambda task: executor.submit(renderer.perform, task), Future.result
        )
        results = list(run_queue(queue, pool))
    assert sorted(result.item.id for result in results) == ["0", "1", "2", "3"]
    assert not renderer.both.broken
    assert {result.attempts for result in results} == {1}


def test_tasks_under_way_end_where_a_job_is_stopped(pipeline: Pipeline):
    items = read_items(pipeline, {"id": "a", "prompt": "x", "duration_s": 0.1})
    task = render_queue.RenderTask(tuple(items), 1, (3,))
    renderer = Renderer(pipeline, describe_origin(pipeline))
    tokens = renderer.perform(task)
    assert isinstance(tokens, render_queue.BatchTokens)
    renderer.stopped.set()
    for stopped in (task, replace(task, codes=tokens.codes[0])):
        assert renderer.perform(stopped) == render_queue.RenderFailure("InterruptedError: stopped")


def test_batches_hold_like_items_and_fill_up_by_length(pipeline: Pipeline):
    rows = [*make_rows(40), {"id": "long", "prompt": "x", "duration_s": 19.0}]
    items = read_items(pipeline, *rows)
    batches = render_queue.make_batches(items, pipeline.num_frames, 8)
    assert sorted(item.id for batch in batches for item in batch.items) == sorted(
        item.id for item in items
    )
    assert batches[0].items[0].id == "long"
    for batch in batches:
        assert len({item.settings.guidance for item in batch.items}) == 1
        assert list(batch.frames) == sorted(batch.frames, reverse=True)
        assert len(batch.items) <= batch.num_rows == render_queue.rows_for(batch.frames[0], 8)


def test_longer_items_are_generated_fewer_at_once():
    expected = {1: 16, 1024: 16, 1025: 8, 2048: 8, 4096: 4, 99_999: 1}
    assert {frames: render_queue.rows_for(frames, 16) for frames in expected} == expected
