"""Seconds that a training really trained: what validating and saving take is not counted."""

import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from codec.component import Component
from pipelines.train_prior import PriorTask


class ClockedTask:
    """A prior's task (see ``loop.TrainingTask``) whose validation also tells the time.

    The clock runs from a batch to the next validation. Checkpoints are written in between: of arms
    like these two per run, a fraction of a second each.

    Args:
        task: what is trained.
        wall_s: seconds that an earlier, interrupted run has trained.
        cpu_s: processor seconds of that run.
        processes: that train together; each is taken to work as hard as this one.
    """

    def __init__(
        self, task: PriorTask, wall_s: float = 0.0, cpu_s: float = 0.0, processes: int = 1
    ) -> None:
        self.task = task
        self.model: nn.Module = task.model
        self.dataset: Dataset = task.dataset
        self.audio_s_per_item = task.audio_s_per_item
        self.wall_s = wall_s
        self.cpu_s = cpu_s
        self.processes = processes
        self._since: tuple[float, float] | None = None

    def collate(self, items: list[Any]) -> Any:
        """As the task does; the clock starts here, for an update begins with its batch."""
        if self._since is None:
            self._since = (time.perf_counter(), time.process_time())
        return self.task.collate(items)

    def before_step(self, average: nn.Module, batch: Any, step: int) -> None:
        """As the task does."""
        self.task.before_step(average, batch, step)

    def loss(self, model: nn.Module, batch: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """As the task does."""
        return self.task.loss(model, batch, step)

    def validate(self, model: nn.Module, folder: Path) -> dict[str, float]:
        """Stop the clock, validate, and add what it shows."""
        self._stop()
        figures = self.task.validate(model, folder)
        return figures | {"wall_s": self.wall_s, "cpu_s": self.cpu_s}

    def component(self, model: nn.Module) -> Component:
        """As the task does."""
        return self.task.component(model)

    def _stop(self) -> None:
        if self._since is not None:
            self.wall_s += time.perf_counter() - self._since[0]
            self.cpu_s += (time.process_time() - self._since[1]) * self.processes
            self._since = None
