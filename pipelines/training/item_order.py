"""Order the items of a run, so that neither a restart nor the number of processes changes them."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from codec.seeds import generator
from pipelines.training.training_config import TrainingConfig


class StepSampler(Sampler[int]):
    """Number the items that one process sees, from one step on, without end.

    Item n of step s is the same whatever the number of processes: process r of W takes the
    r-th run of ``batch_size`` out of every W.
    """

    def __init__(self, config: TrainingConfig, rank: int, world: int, first_step: int) -> None:
        self.config = config
        self.rank = rank
        self.world = world
        self.first_step = first_step

    def __iter__(self) -> Iterator[int]:
        size = self.config.batch_size
        forward = self.first_step * self.config.gradient_accumulation_steps
        while True:
            start = (forward * self.world + self.rank) * size
            yield from range(start, start + size)
            forward += 1


class EpochOrder:
    """Map items to rows: every epoch is its own seeded permutation of all rows."""

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __call__(self, item: int) -> int:
        """Find the row that item ``item`` of the stream comes from."""
        epoch, position = divmod(item, self.num_rows)
        if epoch != self._epoch:
            draws = generator(self.seed, "epoch", epoch)
            self._order = torch.randperm(self.num_rows, generator=draws)
            self._epoch = epoch
        return int(self._order[position])
